"""Builds the fake driver library and nvidia-smi with the system's C compiler, and puts the library below pynvml."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from energybench.errors import DeviceError
from energybench.testing.server import RunningServer, Server

SOURCE = Path(__file__).with_name("fake_nvml.c")
PROGRAM_SOURCE = Path(__file__).with_name("fake_nvidia_smi.c")
SONAME = "libnvidia-ml.so.1"
PROGRAM = "nvidia-smi"
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra")
LIBRARY_FLAGS = ("-fPIC", "-shared", "-fvisibility=hidden", f"-Wl,-soname,{SONAME}")
LIBRARIES = ("-lm", "-lpthread")
PROGRAM_FLAGS = ("-Wl,--disable-new-dtags", "-Wl,-rpath,$ORIGIN/..")
"""It finds the library that it was linked with, whatever LD_LIBRARY_PATH says."""

COMPILERS = ("cc", "gcc", "clang")


def library() -> Path:
    """The compiled library, named libnvidia-ml.so.1; built on first use and kept in the user's cache.

    The folder's name is a digest of the source, the compiler and its flags. Several processes may build at once: each
    builds apart and moves the whole library into place.

    Raises:
        DeviceError: no C compiler, or it fails.
    """
    compiler = _compiler()
    path = _cache() / _digest(compiler) / SONAME
    if not path.exists():
        _build([*compiler, *FLAGS, *LIBRARY_FLAGS], path, [str(SOURCE), *LIBRARIES])
    return path


def program() -> Path:
    """The compiled nvidia-smi, alone in its folder; built and kept as the library is, with which it is linked.

    Raises:
        DeviceError: no C compiler, or it fails.
    """
    compiler, below = _compiler(), library()
    path = below.parent / "bin" / PROGRAM
    if not path.exists():
        _build([*compiler, *FLAGS], path, [str(PROGRAM_SOURCE), str(below), *PROGRAM_FLAGS])
    return path


def _digest(compiler: tuple[str, ...]) -> str:
    sources = SOURCE.read_bytes() + PROGRAM_SOURCE.read_bytes()
    return hashlib.sha256(
        sources + repr((compiler, FLAGS, LIBRARY_FLAGS, LIBRARIES, PROGRAM_FLAGS)).encode()
    ).hexdigest()[:16]


def in_front(folder: Path, variable: str) -> str:
    """The search path in the environment's `variable` with `folder` in front."""
    return os.pathsep.join(filter(None, (str(folder), os.environ.get(variable, ""))))


@contextmanager
def running(server: Server, age_s: float = 10.0) -> Iterator[RunningServer]:
    """Starts `server` for this process and for those that it starts.

    pynvml asks the loader for libnvidia-ml.so.1, and the loader answers with a library of that SONAME if one is loaded.
    So this loads the fake by its path: LD_LIBRARY_PATH, which the loader reads only at a process's start, is for those
    started later. What has opened the driver still reads it when the context has ended; who opens it then finds none.

    Args:
        server: the server.
        age_s: its time 0 was so many seconds ago: the sensors have a past, the driver's buffer is full.

    Raises:
        DeviceError: no C compiler, or pynvml has already loaded the machine's real driver.
    """
    load()
    with tempfile.TemporaryDirectory(prefix="energybench-fake-nvml-") as folder:
        started = server.start(Path(folder), age_s)
        with _variables(started.environment()):
            yield started


def load() -> None:
    """Loads the fake into this process, for pynvml to find.

    Raises:
        DeviceError: no C compiler, or pynvml has already loaded the machine's real driver.
    """
    ctypes.CDLL(str(library()), mode=ctypes.RTLD_GLOBAL)
    if not hasattr(ctypes.CDLL(SONAME), "energybench_fake_nvml"):
        raise DeviceError(
            f"fake NVML: this process has already loaded the machine's own {SONAME}; start the fake before pynvml "
            "is used, or test in a process of its own with RunningServer.environment()"
        )


@contextmanager
def _variables(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _compiler() -> tuple[str, ...]:
    """The command of $CC, else the first of the usual names."""
    asked = shlex.split(os.environ.get("CC", ""))
    for command in (asked,) if asked else tuple([name] for name in COMPILERS):
        if shutil.which(command[0]):
            return tuple(command)
    raise DeviceError(
        f"fake NVML: no C compiler ({' '.join(asked) or ', '.join(COMPILERS)}) to build it with; install one, such as "
        "`apt-get install gcc libc6-dev`, or name it in CC"
    )


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "energybench" / "fake-nvml"


def _build(compiler: Sequence[str], path: Path, inputs: Sequence[str]) -> None:
    if sys.platform != "linux":
        raise DeviceError(f"fake NVML: needs Linux, not {sys.platform}")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent.parent, suffix=".partial")
    os.close(handle)
    partial = Path(name)
    try:
        command = [*compiler, "-o", str(partial), *inputs]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise DeviceError(f"fake NVML: `{shlex.join(command)}` failed: {done.stderr.strip()}")
        partial.replace(path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
