"""Waits for the work of MXNet, PyTorch, JAX and, through CUDA's driver, of CuPy and all else that uses CUDA.

Each looks at what the process has loaded and started, imports nothing, and makes no context on a device that has none.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from energybench.hookspecs import Register

CUDA_LIBRARY = "libcuda.so.1"


@dataclass(frozen=True)
class NoOptions:
    """There is nothing to choose."""


def wait_for_mxnet() -> None:
    """MXNet's engine runs operations on threads of its own, on the CPU too."""
    nd = getattr(sys.modules.get("mxnet"), "nd", None)
    if nd is not None:
        nd.waitall()


def wait_for_torch() -> None:
    """Every GPU, NVIDIA's or AMD's, on which PyTorch has begun to work."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return
    has_context: Callable[[int], bool] = getattr(sys.modules["torch"]._C, "_cuda_hasPrimaryContext", lambda index: True)
    for index in range(cuda.device_count()):
        if has_context(index):
            cuda.synchronize(index)


def wait_for_jax() -> None:
    """Every device of the backends that are running.

    A device works in order, so that a tiny computation ends after all that was enqueued; where it does not, as on the
    CPU, the arrays are waited for. `jax.effects_barrier` waits for side effects alone: on an H200 it returned at once.
    """
    jax: Any = sys.modules.get("jax")
    bridge: Any = sys.modules.get("jax._src.xla_bridge")
    if jax is None or bridge is None or not getattr(bridge, "_backends", None):
        return
    for platform in list(bridge._backends):
        tiny = [jax.device_put(0.0, device) + 1 for device in jax.local_devices(backend=platform)]
        arrays = [array for array in jax.live_arrays(platform) if not array.is_deleted()]
        jax.block_until_ready([*tiny, *arrays])
    jax.effects_barrier()


def wait_for_cuda() -> None:
    """Every device with a context of this process, whoever made it: CuPy, Numba, TensorFlow, ..."""
    try:
        cuda = ctypes.CDLL(CUDA_LIBRARY, mode=os.RTLD_NOLOAD)
    except OSError:
        return  # nothing in this process uses CUDA
    count = ctypes.c_int()
    if cuda.cuDeviceGetCount(ctypes.byref(count)):
        return  # loaded and not in use
    for ordinal in range(count.value):
        _wait_for_context(cuda, ordinal)


def _wait_for_context(cuda: ctypes.CDLL, ordinal: int) -> None:
    flags, active = ctypes.c_uint(), ctypes.c_int()
    if cuda.cuDevicePrimaryCtxGetState(ordinal, ctypes.byref(flags), ctypes.byref(active)) or not active.value:
        return
    context, popped = ctypes.c_void_p(), ctypes.c_void_p()
    if cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), ordinal):
        return
    try:
        if cuda.cuCtxPushCurrent_v2(context):
            return
        code = cuda.cuCtxSynchronize()
        cuda.cuCtxPopCurrent_v2(ctypes.byref(popped))
    finally:
        cuda.cuDevicePrimaryCtxRelease_v2(ordinal)
    if code:
        raise RuntimeError(f"CUDA error {code} of work on device {ordinal}, found when waiting for it")


SYNCHRONIZERS = {"mxnet": wait_for_mxnet, "torch": wait_for_torch, "jax": wait_for_jax, "cuda": wait_for_cuda}
"""In this order: what a framework holds back on the host goes to the device before the device is waited for."""


def energybench_register_synchronizers(register: Register) -> None:
    """Registers `mxnet`, `torch`, `jax` and `cuda`."""
    for name, wait in SYNCHRONIZERS.items():
        register(name, lambda options, wait=wait: wait, NoOptions)
