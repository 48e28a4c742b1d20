"""RecordIO packs: read as MXNet writes them, and refused where they are damaged."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from energybench.errors import DataError
from energybench_plugins.datasets.recordio import MAGIC_BYTES, RecordFile

pytestmark = pytest.mark.gluon

words = st.lists(st.sampled_from([MAGIC_BYTES, b"\0\0\0\0", b"abcd", b"x", b""]), max_size=8).map(b"".join)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payloads=st.lists(words, min_size=1, max_size=5))
def test_records_are_those_that_mxnet_wrote(payloads: list[bytes], tmp_path: Path) -> None:
    """The magic inside a payload is what splits a record into parts."""
    from energybench_plugins.engines.mxnet_import import import_mxnet

    recordio = import_mxnet().recordio
    path = tmp_path / "pack.rec"
    (tmp_path / "pack.idx").unlink(missing_ok=True)
    written = recordio.MXRecordIO(str(path), "w")
    for payload in payloads:
        written.write(payload)
    written.close()
    found = RecordFile(path)
    assert [bytes(found.record(number)) for number in range(len(found))] == payloads


def indexed(folder: Path, labels: list[object]) -> Path:
    from energybench_plugins.engines.mxnet_import import import_mxnet

    recordio = import_mxnet().recordio
    path = folder / "pack.rec"
    written = recordio.MXIndexedRecordIO(str(folder / "pack.idx"), str(path), "w")
    for key, label in enumerate(labels):
        body = b"image" + MAGIC_BYTES * key + bytes([key])
        written.write_idx(7 * key, recordio.pack(recordio.IRHeader(0, label, 7 * key, 0), body))
    written.close()
    return path


def test_images_are_those_that_mxnet_packed(tmp_path: Path) -> None:
    path = indexed(tmp_path, [3.0, 0.0, np.array([5.0, 9.0], np.float32)])
    found = pickle.loads(pickle.dumps(RecordFile(path)))
    images = [found.image(number) for number in range(len(found))]
    assert [image.label for image in images] == [3, 0, 5]
    assert [image.key for image in images] == [0, 7, 14]
    assert [bytes(image.data) for image in images] == [b"image" + MAGIC_BYTES * n + bytes([n]) for n in range(3)]
    (tmp_path / "pack.idx").unlink()
    assert [image.label for image in (RecordFile(path).image(number) for number in range(3))] == [3, 0, 5]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"\1" + data[1:], r"record at byte 0: 0xced72301 is not the mark of a record"),
        (lambda data: data[:-8], r"ends \d+ bytes behind the end of the file"),
        (lambda data: data[:4] + struct.pack("<I", 2 << 29 | 4) + data[8:], "its parts are out of order"),
        (lambda data: data[:12] + struct.pack("<f", 0.5) + data[16:], r"label 0\.5 is no class"),
        (lambda data: data[:8] + struct.pack("<I", 2**20) + data[12:], "labels do not fit"),
        (lambda data: MAGIC_BYTES + struct.pack("<I", 4) + b"abcd", "4 bytes hold no image"),
    ],
)
def test_a_damaged_pack_is_one_line(damage: object, message: str, tmp_path: Path) -> None:
    path = indexed(tmp_path, [1.0])
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        RecordFile(path).image(0)


@pytest.mark.parametrize(("line", "message"), [("7", "no key and offset"), ("0\t999999", "outside of the pack")])
def test_a_damaged_index_is_one_line(line: str, message: str, tmp_path: Path) -> None:
    path = indexed(tmp_path, [1.0])
    (tmp_path / "pack.idx").write_text(f"0\t0\n{line}\n")
    with pytest.raises(DataError, match=rf"pack\.idx, line 2: .*{message}"):
        RecordFile(path)


def test_an_empty_or_missing_pack(tmp_path: Path) -> None:
    path = tmp_path / "empty.rec"
    path.touch()
    assert len(RecordFile(path)) == 0
    with pytest.raises(DataError, match="No such file"):
        RecordFile(tmp_path / "none.rec")
