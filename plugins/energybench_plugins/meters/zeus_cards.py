"""The one door to Zeus's device layer: which cards it can read, under the identity that energybench knows them by.

Zeus numbers the cards that CUDA_VISIBLE_DEVICES leaves; energybench binds by UUID. So every card of the machine is
asked for, and named by its driver's own UUID. Zeus and the vendors' bindings are imported here and not before.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from energybench.devices import GPU, Device
from energybench.errors import MeterError, reason
from energybench_plugins.meters.nvml_generations import generation_of

Answer = TypeVar("Answer")

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
MODULES = ("GH200", "GB200", "GB300")
TWO_DIES = ("MI250",)


@dataclass(frozen=True)
class Card:
    """One card.

    Attributes:
        device: as energybench knows it.
        gpu: Zeus's object, of class `zeus.device.gpu.common.GPU`.
        resolution_w: smallest step of its power readings, watts.
        note: what its readings include beside the card, in words; empty where nothing.
    """

    device: Device
    gpu: Any
    resolution_w: float
    note: str = ""


def ask(what: str, function: Callable[[], Answer]) -> Answer:
    """The answer of `function`, which calls Zeus.

    Raises:
        MeterError: it fails, with whatever Zeus or the vendor's binding raises.
    """
    try:
        return function()
    except MeterError:
        raise
    except Exception as error:
        raise MeterError(f"Zeus: {what}: {type(error).__name__}: {reason(error)}; try meter=auto") from error


class Cards:
    """Every card that Zeus can read here; a context manager that gives the vendors' libraries back.

    Args:
        counters: whether AMD's energy counters are compared with power first, as Zeus does, because some count wrongly.
            It takes half a second; only who reads them needs it.

    Raises:
        MeterError: Zeus is not installed.
    """

    def __init__(self, *, counters: bool = False) -> None:
        try:
            with contextlib.redirect_stdout(None):  # amdsmi prints where there is no AMD library
                import zeus.device.gpu.amd
                import zeus.device.gpu.nvidia
        except ImportError as error:
            words = str(error).replace("; ", ", ")
            raise MeterError(f"Zeus: {words}; pip install 'energybench[zeus]'") from error
        self._pynvml: Any = None
        self._amd_manager: Any = None
        self.cards = [*self._nvidia(zeus.device.gpu.nvidia), *self._amd(zeus.device.gpu.amd, counters)]

    def __enter__(self) -> Cards:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the libraries back; a second call does nothing."""
        self._amd_manager = None  # Zeus closes AMD's library when its list of cards is gone
        pynvml, self._pynvml = self._pynvml, None
        if pynvml is not None:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()

    def _nvidia(self, zeus: Any) -> Iterator[Card]:
        import pynvml

        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            return
        self._pynvml = pynvml
        for index in range(ask("number of cards", pynvml.nvmlDeviceGetCount)):
            try:
                yield _nvidia_card(pynvml, zeus.NVIDIAGPU(index))
            except Exception:
                continue  # lost: its neighbours are not

    def _amd(self, zeus: Any, counters: bool) -> list[Card]:
        if not zeus.amdsmi_is_available():
            return []
        amdsmi = zeus.amdsmi
        if counters:
            with _every_card_visible():
                self._amd_manager = ask("AMD's cards", zeus.AMDGPUs)
            gpus = list(self._amd_manager.gpus)
        else:
            ask("AMD's library", lambda: amdsmi.amdsmi_init(amdsmi.AmdSmiInitFlags.INIT_AMD_GPUS))
            count = len(ask("AMD's cards", amdsmi.amdsmi_get_processor_handles))
            gpus = [ask("AMD's cards", partial(zeus.AMDGPU, index)) for index in range(count)]
        return [ask("AMD's cards", partial(_amd_card, amdsmi, gpu)) for gpu in gpus]


def _nvidia_card(pynvml: Any, gpu: Any) -> Card:
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(gpu.handle)
    name = gpu.get_name()
    device = Device(
        kind=GPU,
        uuid=pynvml.nvmlDeviceGetUUID(gpu.handle),
        name=name,
        generation=generation_of(major, minor),
        rank=10 * major + minor,
        pci_bus_id=pynvml.nvmlDeviceGetPciInfo(gpu.handle).busId,
        memory_bytes=_memory_bytes(pynvml, gpu.handle),
    )
    note = "a board with a CPU: Zeus asks for the power of the whole module" if _any(MODULES, name) else ""
    return Card(device, gpu, 1e-3, note)


def _memory_bytes(pynvml: Any, handle: Any) -> int | None:
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError_NotSupported:
        return None


def _amd_card(amdsmi: Any, gpu: Any) -> Card:
    """AMD's generations are known by their target name, "gfx942"; they have no order."""
    target = str(amdsmi.amdsmi_get_gpu_asic_info(gpu.handle).get("target_graphics_version", "amd"))
    name = gpu.get_name()
    device = Device(
        kind=GPU,
        uuid=str(amdsmi.amdsmi_get_gpu_device_uuid(gpu.handle)),
        name=name,
        generation=target,
        pci_bus_id=str(amdsmi.amdsmi_get_gpu_device_bdf(gpu.handle)),
    )
    note = "a board of two dies: its readings are those of both" if _any(TWO_DIES, name) else ""
    return Card(device, gpu, 1.0, note)


@contextlib.contextmanager
def _every_card_visible() -> Iterator[None]:
    """Zeus reads these variables when its list of AMD's cards is made, and takes indices alone."""
    before = {name: os.environ.pop(name) for name in VISIBLE if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def _any(words: tuple[str, ...], name: str) -> bool:
    return any(word in name for word in words)


GAIN_LIMIT = 0.13
"""The furthest that boards of any generation compared were from an external meter (Turing; arXiv 2312.02741)."""

GAIN_UNCERTAINTY = GAIN_LIMIT / math.sqrt(3)
"""Rectangular (GUM 4.3.7)."""
