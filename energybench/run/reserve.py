"""Room on the disk that a run keeps for its result, should the disk be full at its end."""

from __future__ import annotations

import os
from pathlib import Path

from energybench.run.result import Failure

RESERVE_FILE = "reserve"
RESERVE_BYTES = 256 * 1024
"""Enough for the result of some hundred epochs."""


def keep(directory: Path) -> None:
    """Takes the room; raises OSError where there is none."""
    with (directory / RESERVE_FILE).open("wb") as file:
        file.write(bytes(RESERVE_BYTES))
        file.flush()
        os.fsync(file.fileno())


def free(directory: Path) -> None:
    """Gives it back, for the result or when a run has ended."""
    (directory / RESERVE_FILE).unlink(missing_ok=True)


def full(error: OSError, name: str, kept: str) -> Failure:
    """The failure that a file which cannot be written makes of a run."""
    return Failure("disk", f"{name} cannot be written: {error.strerror or error}; {kept}; make room and run it again")
