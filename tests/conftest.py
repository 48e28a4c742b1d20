"""What tests of whole runs share: the plugins of `tests/fakes`, known to this process and to those it starts."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# One thread a process, in whatever a test starts too: several tests share the cores, and threads that wait for each
# other at a barrier, spinning, take ten times as long as the work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("energybench", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("energybench")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's background job: what it starts would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Half again as many as there are cores, up to four: many a test waits for a clock or for a process to end."""
    asked = os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS")
    return int(asked) if asked else max(2, min(4, len(os.sched_getaffinity(0)) * 3 // 2))


FAKES = Path(__file__).parent / "fakes"
sys.path.append(str(FAKES))  # so that tests can import what a fake declares


@pytest.fixture(autouse=True)
def locks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of locks of its own for each test: the fakes' cards have the same UUIDs in all of them."""
    folder = tmp_path_factory.mktemp("locks")
    monkeypatch.setenv("ENERGYBENCH_LOCKS", str(folder))
    return folder


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes `standin` and `scripted` known by ENERGYBENCH_PLUGINS; plugins of its own a test puts into the variable."""
    path = os.pathsep.join(filter(None, (str(FAKES), os.environ.get("PYTHONPATH"))))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("ENERGYBENCH_PLUGINS", "standin,scripted")
    return FAKES
