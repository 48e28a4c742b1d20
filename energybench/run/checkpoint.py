"""Checkpoints: a network's state in one file, written whole or not at all and read without executing anything."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from energybench.errors import DataError
from energybench.run.strict import check
from energybench.whole import whole

CHECKPOINT_FILE = "checkpoint.npz"
FORMAT = 1
META = "energybench.json"

State = Mapping[str, NDArray[np.generic]]
"""Name -> array: "parameters/<name>", "optimizer/<name>", as the engine gives them."""


@dataclass(frozen=True)
class Progress:
    """How far training had come.

    Attributes:
        model: name of the network.
        epoch: epochs that are done.
        steps: optimiser steps that are done.
        seconds: of training.
        schedule: what the schedule must know.
        inside: steps that are done of the next epoch, where training was stopped within it.
    """

    model: str
    epoch: int
    steps: int
    seconds: float
    schedule: dict[str, float]
    inside: int = 0


def save(path: Path, state: State, progress: Progress) -> None:
    """Writes a checkpoint: to a temporary name, flushed to the disk, then renamed over the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = np.frombuffer(json.dumps({"format": FORMAT, **asdict(progress)}).encode(), dtype=np.uint8)
    try:
        with whole(path) as file:
            _write(file, {META: meta, **state})
    except ValueError as error:  # zipfile closing an archive that a full disk has torn
        raise _behind(error) from error


def _behind(error: BaseException) -> BaseException:
    """The operating system's error that led to another one, else that one."""
    at: BaseException | None = error
    while at is not None and not isinstance(at, OSError):
        at = at.__context__
    return at or error


def _write(file: IO[bytes], arrays: State) -> None:
    """What numpy.savez writes, but an object array is refused, and the archive is closed whatever happens."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)  # type: ignore[no-untyped-call]


def load(path: Path) -> tuple[dict[str, NDArray[np.generic]], Progress]:
    """Reads a checkpoint.

    Raises:
        DataError: not there, damaged, of another format, or holding anything but arrays.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        meta = json.loads(arrays.pop(META).tobytes())
        if meta.pop("format") != FORMAT:
            raise DataError(f"checkpoint {path}: of another format; this release reads format {FORMAT}")
        check(meta, Progress, "progress")
        return arrays, Progress(**meta)
    except DataError:
        raise
    except Exception as error:  # of numpy, zipfile, zlib or json, or no memory for what a header claims
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"checkpoint {path}: cannot be read: {reason}; choose another, or checkpoint.resume=null"
        ) from error
