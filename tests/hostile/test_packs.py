"""Any RecordIO pack and any index of one is read, or refused in one line."""

from __future__ import annotations

import struct

import hypothesis.strategies as st
import pytest
from hypothesis import example, given
from junk import examples

from energybench.errors import DataError
from energybench_plugins.datasets.recordio import HEAD, IR_HEADER, MAGIC, MAGIC_BYTES, RecordFile


def record(payload, part=0):
    return HEAD.pack(MAGIC, part << 29 | len(payload)) + payload + bytes(-len(payload) % 4)


def image(label, flag=0):
    return IR_HEADER.pack(flag, label, 7, 0) + struct.pack("<f", label) * flag + b"jpeg"


PACK = b"".join([record(image(1.0)), record(image(2.0, 1)), record(image(0.0), 1), record(b"abcd", 2), record(b"", 3)])

PLACES = st.integers(0, len(PACK) // 4).map(lambda word: 4 * word) | st.integers(0, len(PACK))

WORDS = st.one_of(
    st.sampled_from([MAGIC_BYTES, *(struct.pack("<f", x) for x in (float("nan"), float("inf"), -1.0, 1e30))]),
    st.integers(0, 2**32 - 1).map(lambda word: struct.pack("<I", word)),
    st.binary(max_size=4),
)


def read_or_refused(path):
    """Every record, as an image; the longest are views of the file, so that nothing can fill the memory."""
    try:
        found = RecordFile(path)
    except DataError as error:
        assert str(path.with_suffix("")) in str(error)
        assert "\n" not in str(error)
        return
    for number in range(len(found)):
        try:
            label = found.image(number).label
        except DataError as error:
            assert "\n" not in str(error)
        else:
            assert isinstance(label, int) and label >= 0


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return tmp_path_factory.mktemp("packs") / "pack.rec"


@examples(300, 20_000)
@given(edits=st.lists(st.tuples(PLACES, WORDS), max_size=5), keep=st.integers(0, 3 * len(PACK)))
@example(edits=[(12, struct.pack("<f", float("nan")))], keep=len(PACK))
@example(edits=[(12, struct.pack("<f", float("inf")))], keep=len(PACK))
def test_any_damage_to_a_pack(pack, edits, keep):
    data = bytearray(PACK[:keep])
    for place, word in edits:
        data[place : place + len(word)] = word
    pack.write_bytes(data)
    pack.with_suffix(".idx").unlink(missing_ok=True)
    read_or_refused(pack)


LINES = st.one_of(
    st.builds("{}\t{}".format, st.integers(0, 9), st.integers(-9, 2 * len(PACK))),
    st.sampled_from(["1\t1e3", "1\t" + "9" * 5000, "\t", "0\t0\t0", "\u0661\t\u0661", "0\t 0 "]),
    st.text(max_size=12),
)


@examples(200, 10_000)
@given(lines=st.lists(LINES, max_size=5), damage=st.binary(max_size=2))
def test_any_index(pack, lines, damage):
    pack.write_bytes(PACK)
    pack.with_suffix(".idx").write_bytes("\n".join(lines).encode(errors="replace") + damage)
    read_or_refused(pack)
