"""The GPU code of a library, read from its bytes: small libraries made here by hand."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest

from energybench.errors import DeviceError
from energybench_plugins.engines.fatbin import GpuCode, gpu_code

PTX, MACHINE = 1, 2
MAGIC = struct.pack("<I", 0xBA55ED50)
CODE = b"\x7fELF and so on, which nobody reads.."


def entry(kind: int, capability: int, code: bytes = CODE, header: int = 64) -> bytes:
    """One entry as nvcc writes it: 32 bytes of known fields, others behind them, then the code."""
    known = struct.pack("<HHIQIIHHI", kind, 0x101, header, len(code), 0, 0, 7, 1, capability)
    return known.ljust(header, b"\0") + code


def fatbin(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return MAGIC + struct.pack("<HHQ", 1, 16, len(body)) + body


def library(path: Path, sections: dict[str, bytes]) -> Path:
    """A 64-bit ELF file of these sections and nothing else."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in [*sections, ".shstrtab"])
    contents = [*sections.values(), names]
    offsets = [64 + sum(map(len, contents[:index])) for index in range(len(contents))]
    headers = [bytes(64)]
    for name, offset, content in zip([*sections, ".shstrtab"], offsets, contents, strict=True):
        at = names.index(b"\0" + name.encode() + b"\0") + 1
        headers.append(struct.pack("<IIQQQQIIQQ", at, 1, 2, 0, offset, len(content), 0, 0, 8, 0))
    table = 64 + sum(map(len, contents))
    count = len(headers)
    start = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    start += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, count, count - 1)
    path.write_bytes(start + b"".join(contents) + b"".join(headers))
    return path


def test_every_entry_of_every_fat_binary_is_read(tmp_path):
    first = fatbin(entry(MACHINE, 50), entry(MACHINE, 61, b"x" * 7, header=72))
    second = fatbin(entry(MACHINE, 50), entry(PTX, 75), entry(MACHINE, 120))
    code = gpu_code(library(tmp_path / "lib.so", {".text": b"code", ".nv_fatbin": first + bytes(13) + second}))
    assert code == GpuCode(frozenset({50, 61, 120}), frozenset({75}))
    assert str(code) == "5.0, 6.1, 12.0 and PTX of 7.5"


def test_code_that_looks_like_a_fat_binary_is_not_read_as_one(tmp_path):
    inner = fatbin(entry(MACHINE, 99))
    code = gpu_code(library(tmp_path / "lib.so", {".nv_fatbin": fatbin(entry(MACHINE, 60, inner)), ".data": inner}))
    assert code.machine == {60}


def test_a_section_of_a_longer_name_is_another(tmp_path):
    sections = {".nv_fatbin_other": fatbin(entry(MACHINE, 60)), ".nv_fatbi": fatbin(entry(MACHINE, 70))}
    assert gpu_code(library(tmp_path / "lib.so", sections)) == GpuCode()


def test_a_library_without_gpu_code_has_none():
    assert gpu_code(Path(sys.executable).resolve()) == GpuCode()
    assert str(GpuCode()) == "no GPU"


def test_a_file_that_changes_is_read_again(tmp_path):
    path = library(tmp_path / "lib.so", {".nv_fatbin": fatbin(entry(MACHINE, 60))})
    assert gpu_code(path).machine == {60}
    library(path, {".nv_fatbin": fatbin(entry(MACHINE, 70))})
    os.utime(path, ns=(1, 1))
    assert gpu_code(path).machine == {70}


def test_what_cannot_be_read_is_refused_with_its_name(tmp_path):
    whole = library(tmp_path / "lib.so", {".nv_fatbin": fatbin(entry(MACHINE, 60))}).read_bytes()
    (tmp_path / "cut.so").write_bytes(whole[:80])
    (tmp_path / "empty.so").write_bytes(b"")
    (tmp_path / "text.so").write_bytes(b"GROUP ( libmxnet.so.1 )" + bytes(80))
    for name in ("cut.so", "empty.so", "text.so", "missing.so"):
        with pytest.raises(DeviceError, match=name):
            gpu_code(tmp_path / name)


@pytest.mark.parametrize(
    ("capability", "runs"),
    [(50, True), (52, True), (61, True), (75, True), (80, True), (86, True), (89, True), (37, False), (90, False)],
)
def test_machine_code_runs_within_its_major_number(capability, runs):
    assert GpuCode(machine=frozenset({50, 60, 70, 80, 86})).runs_on(capability) is runs


def test_machine_code_of_a_higher_minor_number_does_not_run():
    code = GpuCode(machine=frozenset({86}))
    assert not code.runs_on(80)
    assert code.runs_on(86)
    assert not code.runs_on(100)


def test_intermediate_code_runs_on_everything_newer():
    code = GpuCode(machine=frozenset({80}), ptx=frozenset({86}))
    assert [code.runs_on(capability) for capability in (75, 80, 90, 120)] == [False, True, True, True]
