import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from energybench.errors import DataError
from energybench.power.meter import Channel, Reading
from energybench.power.trace import boot_id, read_trace, realtime_offset_ns, write_trace

CHANNELS = [Channel("gpu.0", "gpu", "GPU-1234", "0000:65:00.0"), Channel("cpu.0", "cpu", "package-0")]
READINGS = [
    Reading("gpu.0", "buffer", "power_w", 100, 120, 250.5, sensor_ns=90),
    Reading("gpu.0", "counter", "energy_j", 130, 140, None, status="GPU is lost"),
    Reading("cpu.0", "counter", "energy_j", 150, 160, 0.0),
]


@pytest.fixture
def path(tmp_path):
    write_trace(tmp_path / "power.parquet", READINGS, CHANNELS, offset_ns=42)
    return tmp_path / "power.parquet"


def test_what_is_written_is_read_back(path):
    readings, metadata = read_trace(path)
    assert readings == READINGS
    assert metadata.boot_id == boot_id()
    assert metadata.realtime_offset_ns == 42
    assert metadata.channels == {
        "gpu.0": {"device_id": "GPU-1234", "pci_bus_id": "0000:65:00.0"},
        "cpu.0": {"device_id": "package-0", "pci_bus_id": None},
    }


def test_columns_are_those_of_the_contract(path):
    schema = pq.ParquetFile(path).schema_arrow
    text = pa.dictionary(pa.int32(), pa.string())
    assert list(zip(schema.names, schema.types, strict=True)) == [
        ("sensor_ns", pa.int64()),
        ("read_start_ns", pa.int64()),
        ("read_end_ns", pa.int64()),
        ("channel", text),
        ("source", text),
        ("kind", text),
        ("value", pa.float64()),
        ("status", text),
    ]
    assert schema.metadata[b"energybench.schema_version"] == b"1"


def test_failures_and_missing_times_are_null(path):
    table = pq.ParquetFile(path).read()
    assert table["value"].to_pylist() == [250.5, None, 0.0]
    assert table["sensor_ns"].to_pylist() == [90, None, None]


def test_nothing_but_the_trace_is_left_in_the_folder(path):
    assert [entry.name for entry in path.parent.iterdir()] == ["power.parquet"]


def test_an_interrupted_write_keeps_the_old_trace(path):
    def breaking():
        yield READINGS[0]
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        write_trace(path, breaking(), CHANNELS)
    assert read_trace(path)[0] == READINGS
    assert [entry.name for entry in path.parent.iterdir()] == ["power.parquet"]


def test_more_readings_than_a_row_group_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("energybench.power.trace.ROWS_A_GROUP", 7)
    readings = [Reading(f"gpu.{i % 9}", "instant", "power_w", i, i + 1, float(i), status="ok") for i in range(100)]
    write_trace(tmp_path / "power.parquet", (reading for reading in readings), CHANNELS)
    assert read_trace(tmp_path / "power.parquet")[0] == readings


def test_no_readings_make_an_empty_trace(tmp_path):
    write_trace(tmp_path / "power.parquet", [], [])
    assert read_trace(tmp_path / "power.parquet")[0] == []


def test_a_folder_named_as_an_override_is_no_column(tmp_path):
    folder = tmp_path / "batch=32"
    folder.mkdir()
    write_trace(folder / "power.parquet", READINGS, CHANNELS)
    assert read_trace(folder / "power.parquet")[0] == READINGS


def test_the_offset_maps_monotonic_to_wall_time():
    assert abs(time.monotonic_ns() + realtime_offset_ns() - time.time_ns()) < 1_000_000_000


def damage_cut(path):
    path.write_bytes(path.read_bytes()[:200])


def damage_other_table(path):
    pq.write_table(pa.table({"a": [1]}), path)


def damage_no_metadata(path):
    pq.write_table(pq.ParquetFile(path).read().replace_schema_metadata({}), path)


def damage_version(path):
    table = pq.ParquetFile(path).read()
    metadata = {**table.schema.metadata, b"energybench.schema_version": b"2"}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def damage_channels(path):
    table = pq.ParquetFile(path).read()
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"energybench.channels": b"{"}), path)


def damage_missing(path):
    path.unlink()


@pytest.mark.parametrize(
    "damage",
    [damage_cut, damage_other_table, damage_no_metadata, damage_version, damage_channels, damage_missing],
)
def test_damage_is_an_error_that_names_the_file(path, damage):
    damage(path)
    with pytest.raises(DataError, match=r"power\.parquet"):
        read_trace(path)
