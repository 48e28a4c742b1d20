"""Reads from a shared library for which NVIDIA GPUs it holds code, without loading it.

nvcc puts a library's GPU code into the section `.nv_fatbin`: fat binaries one after the other, each a header and an
entry for every architecture. NVIDIA documents no layout. The fields here were read off its libraries of CUDA 11: where
an entry's code is not compressed, its capability is the one in the flags of the ELF file that the code is.
"""

from __future__ import annotations

import functools
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from energybench.errors import DeviceError

SECTION = b".nv_fatbin"

FATBIN = struct.Struct("<IHHQ")
"""Of a fat binary: magic, version, size of this header, size of the entries behind it."""

FATBIN_MAGIC = 0xBA55ED50

ENTRY = struct.Struct("<HHIQ12xI")
"""Of an entry: kind, version, size of this header, size of the code behind it, ..., compute capability (61: 6.1)."""

KIND_PTX = 1
KIND_MACHINE_CODE = 2

ELF_MAGIC = b"\x7fELF\x02\x01"
"""Of a 64-bit little-endian file, see elf(5)."""

ELF_SECTIONS = struct.Struct("<Q")
ELF_SECTIONS_AT = 40
ELF_COUNTS = struct.Struct("<HHH")
ELF_COUNTS_AT = 58
ELF_SECTION = struct.Struct("<II16xQQ")
"""Of a section: offset of its name, type, ..., offset in the file, size."""


@dataclass(frozen=True)
class GpuCode:
    """What a library holds for GPUs, as compute capabilities: 61 is 6.1.

    Attributes:
        machine: those it has machine code for, in any of its fat binaries.
        ptx: those it has intermediate code for, which the driver compiles for newer GPUs.
    """

    machine: frozenset[int] = frozenset()
    ptx: frozenset[int] = frozenset()

    def runs_on(self, capability: int) -> bool:
        """Whether a GPU of this compute capability can run it.

        Machine code runs on GPUs of the same major number and an equal or higher minor one, intermediate code on every
        equal or newer one (CUDA C++ Programming Guide, "Binary Compatibility" and "PTX Compatibility").
        """
        same_major = (code for code in self.machine if code // 10 == capability // 10)
        return any(code <= capability for code in (*same_major, *self.ptx))

    def __str__(self) -> str:
        parts = [_listed(self.machine)] if self.machine else []
        parts += [f"PTX of {_listed(self.ptx)}"] if self.ptx else []
        return " and ".join(parts) or "no GPU"


def _listed(codes: frozenset[int]) -> str:
    return ", ".join(dotted(code) for code in sorted(codes))


def dotted(capability: int) -> str:
    """A compute capability as NVIDIA writes it: 61 is "6.1"."""
    return f"{capability // 10}.{capability % 10}"


def gpu_code(library: Path) -> GpuCode:
    """The GPU code in `library`; read once as long as the file stays the same.

    Raises:
        DeviceError: the file cannot be read, or is no 64-bit library or a damaged one.
    """
    try:
        state = library.stat()
        return _read(library, state.st_mtime_ns, state.st_size)
    except (OSError, struct.error) as error:
        raise DeviceError(f"{library}: its GPU code cannot be read ({error}); reinstall the package") from error


@functools.lru_cache(maxsize=8)
def _read(library: Path, mtime_ns: int, size: int) -> GpuCode:
    if not size:
        raise DeviceError(f"{library}: an empty file; reinstall the package")
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[: len(ELF_MAGIC)] != ELF_MAGIC:
            raise DeviceError(f"{library}: no 64-bit library; reinstall the package")
        entries = {entry for start, end in _sections(data) for entry in _entries(data, start, end)}
    return GpuCode(
        frozenset(capability for kind, capability in entries if kind == KIND_MACHINE_CODE),
        frozenset(capability for kind, capability in entries if kind == KIND_PTX),
    )


def _sections(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Start and end of every section of GPU code."""
    (table,) = ELF_SECTIONS.unpack_from(data, ELF_SECTIONS_AT)
    size, count, names = ELF_COUNTS.unpack_from(data, ELF_COUNTS_AT)
    headers = [ELF_SECTION.unpack_from(data, table + index * size) for index in range(count)]
    for name, _, offset, length in headers:
        start = headers[names][2] + name
        if data[start : start + len(SECTION) + 1] == SECTION + b"\0":
            yield offset, offset + length


def _entries(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Kind and compute capability of every entry; between fat binaries there may be padding."""
    magic = struct.pack("<I", FATBIN_MAGIC)
    while (start := data.find(magic, start, end)) >= 0:
        _, _, header, size = FATBIN.unpack_from(data, start)
        at, start = start + header, start + max(header, FATBIN.size) + size
        while at < min(start, end):
            kind, _, entry_header, code, capability = ENTRY.unpack_from(data, at)
            yield kind, capability
            at += max(entry_header, ENTRY.size) + code
