"""The idx format, in which MNIST and its successors are published: a header of big-endian numbers, then bytes.

Format: the last section of http://yann.lecun.com/exdb/mnist/. Files may be gzipped; what they hold decides, not what
they are called.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from energybench.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNSIGNED_BYTE = 8
"""The format's number for elements of one unsigned byte; no other kind is read."""

GZIP_MAGIC = b"\x1f\x8b"
REMEDY = "put an intact copy in its place, or delete it"


def read_sizes(path: Path, dimensions: int) -> tuple[int, ...]:
    """The sizes that the header of an idx file states, without reading what follows.

    Args:
        path: the file.
        dimensions: how many sizes it must state.

    Raises:
        DataError: it cannot be read, or is no idx file of bytes with so many dimensions; for a plain file also: its
            length is not what the header says.
    """
    try:
        with _open(path) as file:
            sizes = _header(file, dimensions, path)
            if not isinstance(file, gzip.GzipFile):
                _require_length(path.stat().st_size - file.tell(), sizes, path)
            return sizes
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error


def read(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The whole of an idx file, uint8, in as many `dimensions` as it must have.

    Raises:
        DataError: as `read_sizes`, and where there are fewer or more bytes than the header says.
    """
    import numpy as np

    try:
        with _open(path) as file:
            sizes = _header(file, dimensions, path)
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error
    _require_length(len(content), sizes, path)
    return np.frombuffer(content, np.uint8).reshape(sizes)


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        zipped = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path)) if zipped else path.open("rb")


def _header(file: BinaryIO, dimensions: int, path: Path) -> tuple[int, ...]:
    wanted = bytes((0, 0, UNSIGNED_BYTE, dimensions))
    magic = file.read(len(wanted))
    if magic != wanted:
        raise DataError(f"{path}: it begins with {magic.hex() or 'nothing'}, not with {wanted.hex()}; {REMEDY}")
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise DataError(f"{path}: it ends within its header; {REMEDY}")
    return struct.unpack(f">{dimensions}I", sizes)


def _require_length(found: int, sizes: tuple[int, ...], path: Path) -> None:
    wanted = math.prod(sizes)
    if found != wanted:
        shape = "x".join(map(str, sizes))
        raise DataError(f"{path}: {found:,} bytes follow the header, which says {shape} = {wanted:,}; {REMEDY}")


def _damaged(path: Path, error: Exception) -> DataError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return DataError(f"{path}: {reason}; {REMEDY}")
