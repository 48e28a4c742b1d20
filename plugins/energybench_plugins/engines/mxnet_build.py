"""What of MXNet is installed, found without importing it: the CPU build or a CUDA build, its code and its libraries."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from energybench.errors import DeviceError
from energybench_plugins.engines.fatbin import GpuCode, gpu_code

CPU_BUILD = "mxnet"
CUDA_BUILDS = ("mxnet-cu117", "mxnet-cu116", "mxnet-cu115", "mxnet-cu114", "mxnet-cu113", "mxnet-cu112")
LIBRARY_PATH = "LD_LIBRARY_PATH"


def installed_build() -> tuple[str, str] | None:
    """Name and version of the installed MXNet distribution; None where there is none."""
    for name in (*CUDA_BUILDS, CPU_BUILD):
        try:
            return name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def is_cuda_build() -> bool:
    """Whether a CUDA build is installed, by its name."""
    build = installed_build()
    return build is not None and build[0] != CPU_BUILD


def library() -> Path:
    """MXNet's library; raises DeviceError where it is not there."""
    found = importlib.util.find_spec("mxnet")
    path = Path(found.origin).parent / "libmxnet.so" if found and found.origin else None
    if path is None or not path.is_file():
        raise DeviceError("MXNet's libmxnet.so is not there; reinstall energybench[gluon-cuda]")
    return path


def code() -> GpuCode:
    """For which GPUs the installed library holds code; raises DeviceError where it cannot be read."""
    return gpu_code(library())


def library_path() -> Mapping[str, str]:
    """LD_LIBRARY_PATH with the folders of NVIDIA's wheels in front of what the user has; nothing for the CPU build.

    The CUDA builds link CUDA's libraries by bare names and carry none; the dynamic loader reads this variable only when
    a process starts. With it no CUDA has to be installed beside the driver.
    """
    folders = wheel_folders() if is_cuda_build() else []
    own = os.environ.get(LIBRARY_PATH)
    return {LIBRARY_PATH: os.pathsep.join([*map(str, folders), *([own] if own else [])])} if folders else {}


def wheel_folders() -> list[Path]:
    """The folders of libraries that NVIDIA's wheels (nvidia-*-cu11) have installed, sorted."""
    found = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in found.submodule_search_locations or ()] if found else []
    return sorted({folder for root in roots for folder in root.glob("*/lib") if any(folder.glob("*.so*"))})
