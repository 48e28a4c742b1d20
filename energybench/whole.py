"""Files that appear whole or not at all, whatever ends the process or the power, and folders that take them."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from energybench.errors import ConfigError

PARTIAL = "*.partial"
"""Files that are being written, or that a process was writing when it was killed."""


@contextmanager
def whole(path: Path, *, shared: bool = False) -> Iterator[IO[bytes]]:
    """A file to write into, which takes the place of `path` when all of it is on the disk; nothing else is left.

    A process that is killed meanwhile leaves a file that matches `PARTIAL`; the next one to write takes its place.

    Args:
        path: the file.
        shared: several processes may write it at once, as in a cache; the last one's stays. What a killed one leaves is
            then whoever's who keeps the folder (`remove_partial`).

    Raises:
        OSError: it cannot be written; `path` is as it was.
    """
    mark = f".{secrets.token_hex(4)}" if shared else ""
    partial = path.with_name(f"{path.name}{mark}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


def writable(folder: Path) -> Path:
    """`folder`, made where it is not there and seen to take a file.

    Raises:
        ConfigError: it cannot be made, or takes none.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(f"{folder}: no folder to write into ({error.strerror}); choose another") from error
    return folder


def remove_partial(folder: Path) -> None:
    """Removes what killed processes left in a folder that no other is writing into."""
    for path in folder.glob(PARTIAL):
        path.unlink(missing_ok=True)
