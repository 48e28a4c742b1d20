"""What a run may leave behind: processes, locks that are held, files that were to be there for a while."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import psutil

FOR_A_WHILE = ("*.partial", "*.tmp", "reserve", "compiled-*")
DYING_S = 10.0
"""What is told to die takes a moment."""


def processes(locks: Path) -> list[psutil.Process]:
    """Living processes of runs whose locks are in this folder: they inherit the variable that names it."""
    mark, found = f"ENERGYBENCH_LOCKS={locks}", []
    for process in psutil.process_iter():
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes().decode(errors="replace").split("\0")
            if process.pid != os.getpid() and mark in environment and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (OSError, psutil.Error):
            continue
    return found


def remaining(locks: Path) -> list[psutil.Process]:
    """Those that are still there when what was dying has died."""
    deadline = time.monotonic() + DYING_S
    while (found := processes(locks)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def held(*folders: Path) -> list[Path]:
    """Lock files that somebody holds. A file that nobody holds locks nothing and may stay."""
    return [path for folder in folders for path in folder.rglob("*.lock") if _is_held(path)]


def _is_held(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def temporary(*folders: Path) -> list[Path]:
    """Files in the folders of runs that should be gone when the run is."""
    return sorted(path for folder in folders for pattern in FOR_A_WHILE for path in folder.rglob(pattern))
