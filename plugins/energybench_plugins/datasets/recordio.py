"""RecordIO packs of images as MXNet's im2rec writes them, read without MXNet.

A file is a sequence of records, each of one or more parts of 4 bytes magic, 4 bytes length word and the payload, padded
to a multiple of 4 (dmlc-core, include/dmlc/recordio.h). The length word's upper 3 bits say which part it is: 0 the
whole record, 1 the first, 2 a middle one, 3 the last; the lower 29 its length. A payload that holds the magic at a
multiple of 4 is split there, and the magic, left out, comes back between the parts. The payload of an image begins with
MXNet's IRHeader: flag (uint32), label (float32), id and id2 (uint64), and where flag is not 0, so many float32 labels.
The index beside it, `.idx`, has a line for each record: its key, a tab, and its offset.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from energybench.errors import DataError

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
HEAD = struct.Struct("<II")
IR_HEADER = struct.Struct("<IfQQ")
WHOLE, FIRST, MIDDLE, LAST = range(4)
REMEDY = "make it anew with im2rec"


@dataclass(frozen=True)
class ImageRecord:
    """One image of a pack.

    Attributes:
        label: its class.
        key: its id.
        data: the encoded image; a view of the file where the record is in one part.
    """

    label: int
    key: int
    data: memoryview


class RecordFile:
    """A pack, mapped into memory; may be read by several threads at once.

    Args:
        path: of the `.rec` file; the `.idx` file, if it has one, lies beside it.
        offsets: of the records; None: as the index says, or found by going through the file.

    Raises:
        DataError: a file cannot be read, or its index is none.
    """

    def __init__(self, path: Path, offsets: Sequence[int] | None = None) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                self._view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b"")
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from error
        self.offsets = self._found() if offsets is None else offsets

    def __reduce__(self) -> tuple[Any, ...]:
        return RecordFile, (self.path, self.offsets)

    def __len__(self) -> int:
        return len(self.offsets)

    def image(self, number: int) -> ImageRecord:
        """Record `number` in the order of the index; raises DataError where it is no image's."""
        record = self.record(number)
        if len(record) < IR_HEADER.size:
            raise self._damaged(self.offsets[number], f"{len(record)} bytes hold no image")
        flag, label, key, _ = IR_HEADER.unpack_from(record)
        start = IR_HEADER.size + 4 * flag
        if flag:
            if len(record) < start:
                raise self._damaged(self.offsets[number], f"{flag} labels do not fit into {len(record)} bytes")
            (label,) = struct.unpack_from("<f", record, IR_HEADER.size)
        if not label.is_integer() or label < 0:  # no infinity is an integer, and NaN is none
            raise self._damaged(self.offsets[number], f"label {label:g} is no class")
        return ImageRecord(int(label), key, record[start:])

    def record(self, number: int) -> memoryview:
        """The payload of record `number`."""
        parts, _ = self._parts(self.offsets[number])
        return parts[0] if len(parts) == 1 else memoryview(MAGIC_BYTES.join(parts))

    def _parts(self, offset: int) -> tuple[list[memoryview], int]:
        """The parts of the record at `offset`, and where the next record begins."""
        parts: list[memoryview] = []
        at = offset
        while True:
            kind, payload, at = self._part(at)
            if kind not in ((MIDDLE, LAST) if parts else (WHOLE, FIRST)):
                raise self._damaged(offset, "its parts are out of order")
            parts.append(payload)
            if kind in (WHOLE, LAST):
                return parts, at

    def _part(self, at: int) -> tuple[int, memoryview, int]:
        if at % 4 or at + HEAD.size > len(self._view):
            raise self._damaged(at, "no record begins here")
        magic, word = HEAD.unpack_from(self._view, at)
        if magic != MAGIC:
            raise self._damaged(at, f"0x{magic:08x} is not the mark of a record")
        length = word & (1 << 29) - 1
        start = at + HEAD.size
        if start + length > len(self._view):
            raise self._damaged(at, f"it ends {start + length - len(self._view):,} bytes behind the end of the file")
        return word >> 29, self._view[start : start + length], start + (length + 3) // 4 * 4

    def _found(self) -> list[int]:
        index = self.path.with_suffix(".idx")
        return _index(index, len(self._view)) if index.is_file() else self._scan()

    def _scan(self) -> list[int]:
        """Offsets of the records of a pack without an index."""
        offsets, at = [], 0
        while at < len(self._view):
            offsets.append(at)
            _, at = self._parts(at)
        return offsets

    def _damaged(self, at: int, what: str) -> DataError:
        return DataError(f"{self.path}: record at byte {at:,}: {what}; {REMEDY}")


def _index(path: Path, size: int) -> list[int]:
    """Offsets in the order of the file."""
    offsets = []
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}; {REMEDY}") from error
    for number, line in enumerate(lines, 1):
        try:
            _, offset = line.split("\t")
            offsets.append(int(offset))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {line[:40]!r} is no key and offset; {REMEDY}") from error
        if not 0 <= offsets[-1] < size:
            raise DataError(f"{path}, line {number}: offset {offsets[-1]:,} is outside of the pack; {REMEDY}")
    return offsets
