import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from energybench.errors import DataError
from energybench.power import trace
from energybench.power.clock import realtime_offset_ns
from energybench.power.meter import Channel, Reading
from energybench.power.series import by_source, readings
from energybench.power.trace import boot_id, read_trace, write_trace

CHANNELS = [Channel("gpu.0", "gpu", "GPU-1234", "0000:65:00.0"), Channel("cpu.0", "cpu", "package-0")]
READINGS = [
    Reading("gpu.0", "buffer", "power_w", 100, 120, 250.5, sensor_ns=90),
    Reading("gpu.0", "counter", "energy_j", 130, 140, None, status="GPU is lost"),
    Reading("cpu.0", "counter", "energy_j", 150, 160, 0.0),
]


def write(path, rows, channels=CHANNELS, **keys):
    write_trace(path, by_source(rows), channels, **keys)


def rows_of(path, **keys):
    return list(readings(read_trace(path, **keys)[0]))


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "power.parquet", READINGS, offset_ns=42)
    return tmp_path / "power.parquet"


def test_what_is_written_is_read_back(path):
    _, metadata = read_trace(path)
    assert rows_of(path) == READINGS
    assert rows_of(path, channel="cpu.0") == READINGS[2:]
    assert metadata.boot_id == boot_id()
    assert metadata.realtime_offset_ns == 42
    assert metadata.channels == {
        "gpu.0": {"device_id": "GPU-1234", "pci_bus_id": "0000:65:00.0", "calibration": None},
        "cpu.0": {"device_id": "package-0", "pci_bus_id": None, "calibration": None},
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


def test_many_rows_with_gaps_over_several_groups_are_read_back(tmp_path, monkeypatch):
    """Groups that end within a byte of Arrow's bits of validity, texts beyond ASCII, and one that is empty."""
    monkeypatch.setattr(trace, "ROWS_A_GROUP", 13)
    rows = [
        Reading("gpu.0", "buffer", "power_w", n, n + 1, *given)
        for n in range(40)
        for given in [(float(n), n, "ok") if n % 3 else (None, None, "" if n % 2 else "zu spät: 3 µs")]
    ]
    write(tmp_path / "power.parquet", rows)
    assert rows_of(tmp_path / "power.parquet") == rows


def test_writing_does_not_import_pandas(tmp_path):
    """It takes a fifth of a second of each run; what is tested runs in an interpreter of its own."""
    pytest.importorskip("pandas", reason="needs pandas (it comes with MLflow)")
    script = (
        "import sys; from pathlib import Path; from test_trace import READINGS, write;"
        "write(Path(sys.argv[1]), READINGS); print('pandas' in sys.modules)"
    )
    line = [sys.executable, "-c", script, str(tmp_path / "power.parquet")]
    done = subprocess.run(line, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"


def test_nothing_but_the_trace_is_left_in_the_folder(path):
    assert [entry.name for entry in path.parent.iterdir()] == ["power.parquet"]


def test_an_interrupted_write_keeps_the_old_trace(path):
    class Breaking(dict):
        def values(self):
            yield from by_source(READINGS[:1]).values()
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        write_trace(path, Breaking(), CHANNELS)
    assert rows_of(path) == READINGS
    assert [entry.name for entry in path.parent.iterdir()] == ["power.parquet"]


def test_more_readings_than_a_row_group_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("energybench.power.trace.ROWS_A_GROUP", 7)
    rows = [Reading(f"gpu.{i % 3}", "instant", "power_w", i, i + 1, float(i), status="ok") for i in range(100)]
    rows[40] = Reading("gpu.1", "instant", "power_w", 40, 41, None, status="gone")
    write(tmp_path / "power.parquet", rows)
    assert sorted(rows_of(tmp_path / "power.parquet"), key=lambda row: row.read_start_ns) == rows
    assert rows_of(tmp_path / "power.parquet", channel="gpu.1") == rows[1::3]


def test_rows_of_any_order_are_read(path, tmp_path):
    """As another program may have written them, and as they were written by time."""
    table = pq.ParquetFile(path).read()
    pq.write_table(table.take([2, 0, 1]), tmp_path / "other.parquet")
    assert sorted(rows_of(tmp_path / "other.parquet"), key=lambda row: row.read_start_ns) == READINGS


def test_no_readings_make_an_empty_trace(tmp_path):
    write(tmp_path / "power.parquet", [], [])
    assert read_trace(tmp_path / "power.parquet")[0] == {}


def test_a_folder_named_as_an_override_is_no_column(tmp_path):
    folder = tmp_path / "batch=32"
    folder.mkdir()
    write(folder / "power.parquet", READINGS)
    assert rows_of(folder / "power.parquet") == READINGS


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
