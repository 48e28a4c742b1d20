"""The table docs/faults.md: each test of a fault says what it saw, and that is the fault's row.

With ENERGYBENCH_FAULTS=write the rows are written; otherwise each must stand there as it was seen.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import leftovers
import psutil
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
WRITES = os.environ.get("ENERGYBENCH_FAULTS") == "write"
PATIENCE_S = 60.0

COMMAND = ["gpu=pascal", "meter=scripted", "engine=standin", "dataset=tiny", "tracking=none", "batch=8"]
COMMAND += ["engine.step_s=0.02", "measure.baseline_s=0", "measure.warmup_steps=0", "measure.context_s=0"]


def _plain(text: str) -> str:
    """What is the same in every run: no folders, no numbers that are measured."""
    text = re.sub(r"/\S*/", "…/", " ".join(text.split()))
    text = re.sub(r"(node \d+) \([^)]*\)", r"\1 (HOST)", text)
    text = re.sub(r"process \d+ of \w+, run '[^']*'", "process N of USER, run NAME", text)
    return re.sub(r"\b\d+\.\d+( [KMG]i?B)?\b", "N", text).replace("|", "/")


@pytest.fixture
def row():
    """Records what was seen of a fault: what the user is told, what is kept, what happens on going on."""

    def record(fault: str, told: str, kept: str, going_on: str) -> None:
        line = "| " + " | ".join([fault, *map(_plain, (told, kept, going_on))]) + " |"
        text = PAGE.read_text(encoding="utf-8")
        if WRITES:
            old = re.search(rf"^\| {re.escape(fault)} \|.*\n", text, re.MULTILINE)
            text = text.replace(old[0], line + "\n") if old else text.rstrip() + "\n" + line + "\n"
            PAGE.write_text(text, encoding="utf-8")
        assert line in text.splitlines(), f"docs/faults.md is not what was seen; ENERGYBENCH_FAULTS=write: {line}"

    return record


def files(folder: Path) -> str:
    """What lies in a run's folder; without Hydra's own, logs, and what a killed process was just writing."""
    beside = (".hydra", "worker-*", "*.partial")
    found = (path.name for path in folder.iterdir() if not any(path.match(pattern) for pattern in beside))
    return ", ".join(sorted(found))


def until(condition, *arguments):
    """Waits for what a condition gives, and gives it."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := condition(*arguments):
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


def said(folder: Path, word: str, times: int = 1) -> Path | None:
    """The events of a run in which a word stands so often."""
    for path in folder.rglob("events.jsonl"):
        if path.read_text().count(word) >= times:
            return path
    return None


@pytest.fixture(autouse=True)
def nothing_left(locks, tmp_path, tmp_path_factory, monkeypatch):
    """At the end of a test no process of its runs lives, no lock is held, and no temporary file is there."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)  # asked for anew, and as it was afterwards
    yield
    living = leftovers.remaining(locks)
    told = [f"{process.pid}: {process.cmdline()}" for process in living]
    for process in living:
        process.kill()
    assert told == []
    assert leftovers.held(locks, tmp_path) == []
    assert leftovers.temporary(locks, tmp_path) == []
    # An empty folder of the user's that PyTorch makes when it is imported is PyTorch's.
    assert [path for path in folder.iterdir() if not path.match("torchinductor_*")] == []


@pytest.fixture
def start(fakes, tmp_path):
    """Starts a command line."""
    processes = []

    def go(*words, environment=None, command=COMMAND, **options):
        process = subprocess.Popen(
            [sys.executable, "-m", "energybench", *command, *words], cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **(environment or {})}, **options,
        )  # fmt: skip
        processes.append(process)
        return process

    yield go
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def ended(start):
    """Runs a command line to its end: (exit code, what it said)."""

    def go(*words, **options):
        process = start(*words, **options)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in err
        return process.returncode, out + err

    return go


def worker_of(process) -> psutil.Process:
    """The training process of a command line."""
    return until(lambda: psutil.Process(process.pid).children())[0]


SIGKILL, SIGTERM = signal.SIGKILL, signal.SIGTERM
