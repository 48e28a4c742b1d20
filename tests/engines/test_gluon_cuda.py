"""MXNet's CUDA build: which devices it is given, and whether NVIDIA's wheels hold every library that it links.

The last part needs the CUDA build itself, some 2 GB, in an environment of its own; docs/gluon-cuda.md has the command.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from energybench.devices import GPU, Device, cpu_device
from energybench.errors import DeviceError
from energybench_plugins.engines import mxnet_build
from energybench_plugins.engines.fatbin import GpuCode
from energybench_plugins.engines.gluon import GluonEngine
from energybench_plugins.engines.gluon_options import GluonOptions

PASCAL = Device(GPU, "GPU-1", "TITAN X (Pascal)", "pascal", 61)
HOPPER = Device(GPU, "GPU-2", "H100", "hopper", 90)
DRIVER = "libcuda.so.1"


@pytest.fixture
def engine() -> GluonEngine:
    return GluonEngine(GluonOptions())


@pytest.fixture
def cuda_build(tmp_path, monkeypatch) -> Path:
    """A site-packages folder with the metadata of the CUDA build, an MXNet of no code, and two of NVIDIA's wheels."""
    metadata = tmp_path / "mxnet_cu112-1.9.1.dist-info" / "METADATA"
    libraries = [tmp_path / "nvidia" / name / "lib" / f"lib{name}.so.11" for name in ("cublas", "cudnn")]
    package = [tmp_path / "mxnet" / name for name in ("__init__.py", "libmxnet.so")]
    header = tmp_path / "nvidia" / "nvtx" / "include" / "nvtx.h"
    for path in (metadata, header, *libraries, *package):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("Metadata-Version: 2.1\nName: mxnet-cu112\nVersion: 1.9.1\n" if path == metadata else "")
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in [name for name in sys.modules if name in ("mxnet", "nvidia")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    return tmp_path


@pytest.fixture
def holding(monkeypatch):
    """Has the installed library hold this code."""

    def hold(*capabilities: int) -> None:
        monkeypatch.setattr(mxnet_build, "code", lambda: GpuCode(frozenset(capabilities)))

    return hold


@pytest.mark.skipif(mxnet_build.is_cuda_build(), reason="the CUDA build is installed here, the CPU build is not")
def test_the_cpu_build_refuses_gpus_and_sets_no_library_path(engine):
    assert "CPU build" in (engine.refuses(PASCAL) or "")
    assert engine.refuses(cpu_device()) is None
    assert mxnet_build.LIBRARY_PATH not in engine.environment([cpu_device()])


def test_a_gpu_is_refused_where_the_library_holds_no_code_for_it(engine, cuda_build, holding):
    holding(50, 60, 70, 80, 86)
    assert engine.refuses(PASCAL) is None
    assert engine.refuses(cpu_device()) is None
    refusal = engine.refuses(HOPPER) or ""
    assert "5.0, 6.0, 7.0, 8.0, 8.6" in refusal
    assert "none that runs on 9.0; use engine=torch" in refusal


def test_a_gpu_of_unknown_capability_is_left_to_cuda(engine, cuda_build, holding):
    holding(50)
    assert engine.refuses(replace(HOPPER, rank=0)) is None


def test_a_library_that_cannot_be_read_refuses_with_its_name(engine, cuda_build):
    assert "libmxnet.so: an empty file" in (engine.refuses(PASCAL) or "")
    (cuda_build / "mxnet" / "libmxnet.so").unlink()
    with pytest.raises(DeviceError, match=r"libmxnet\.so is not there"):
        mxnet_build.library()


def test_the_worker_finds_the_wheels_libraries_before_the_user_s(engine, cuda_build, monkeypatch):
    folders = [str(cuda_build / "nvidia" / name / "lib") for name in ("cublas", "cudnn")]

    def search_path() -> list[str]:
        found = engine.environment([PASCAL])[mxnet_build.LIBRARY_PATH].split(os.pathsep)
        return [folder for folder in found if folder.startswith(str(cuda_build)) or folder == "/own"]

    assert search_path() == folders
    monkeypatch.setenv("LD_LIBRARY_PATH", "/own")
    assert search_path() == [*folders, "/own"]


# The build itself.

real = [
    pytest.mark.cuda_wheels,
    pytest.mark.skipif(
        not mxnet_build.is_cuda_build() or not mxnet_build.wheel_folders(),
        reason="needs MXNet's CUDA build and NVIDIA's wheels: see docs/gluon-cuda.md",
    ),
]


def wheels(test):
    for mark in real:
        test = mark(test)
    return test


def ldd(path: Path) -> str:
    """What the dynamic loader finds for a library in the worker's environment, its symbols included."""
    environment = {**os.environ, **mxnet_build.library_path()}
    return subprocess.run(["ldd", "-r", str(path)], env=environment, capture_output=True, text=True).stdout


@wheels
def test_the_build_holds_the_code_that_the_documentation_says():
    code = mxnet_build.code()
    assert code.machine == {50, 60, 70, 80, 86}
    assert code.ptx == frozenset()


@wheels
def test_every_library_that_mxnet_links_is_there_but_the_driver_s():
    found = ldd(mxnet_build.library())
    missing = set(re.findall(r"(\S+) => not found", found))
    assert missing <= {DRIVER}
    if missing:
        symbols = set(re.findall(r"undefined symbol: (\w+)", found))
        assert symbols
        assert all(re.fullmatch(r"cu[A-Z]\w+", symbol) for symbol in symbols), symbols


@wheels
def test_every_library_of_the_wheels_finds_its_own():
    libraries = [path for folder in mxnet_build.wheel_folders() for path in folder.glob("*.so*")]
    missing = {name for path in libraries for name in re.findall(r"(\S+) => not found", ldd(path))}
    assert missing <= {DRIVER}
