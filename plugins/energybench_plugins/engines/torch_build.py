"""What of PyTorch is installed, found without importing it: its version, its CUDA, the GPUs it has code for."""

from __future__ import annotations

import ast
import importlib.util
from importlib import metadata
from pathlib import Path

from energybench.errors import DeviceError
from energybench_plugins.engines.fatbin import GpuCode, gpu_code

DISTRIBUTION = "torch"


def version() -> str | None:
    """Version of the installed distribution; None where there is none."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None


def folder() -> Path:
    """The installed package's folder; raises DeviceError where it is not there."""
    found = importlib.util.find_spec(DISTRIBUTION)
    if found is None or found.origin is None:
        raise DeviceError("torch: the package is not there; pip install 'energybench[torch]'")
    return Path(found.origin).parent


def cuda() -> str | None:
    """The CUDA release that the installed build is for, as its `version.py` says: "13.0"; None for a CPU build.

    Raises:
        DeviceError: there is no such file, or it says nothing of CUDA.
    """
    source = folder() / "version.py"
    try:
        tree = ast.parse(source.read_text(encoding="utf-8"))
    except (OSError, SyntaxError) as error:
        raise DeviceError(f"{source}: it cannot be read ({error}); reinstall torch") from error
    for node in tree.body:
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and target.id == "cuda":
            value = ast.literal_eval(node.value) if isinstance(node, ast.AnnAssign) and node.value else None
            return None if value is None else str(value)
    raise DeviceError(f"{source}: it does not say for which CUDA it was built; reinstall torch")


def code() -> GpuCode | None:
    """For which GPUs the installed CUDA build holds code; None where its library does not tell: CUDA will."""
    library = folder() / "lib" / "libtorch_cuda.so"
    try:
        found = gpu_code(library)
    except DeviceError:
        return None
    return found if found.machine or found.ptx else None
