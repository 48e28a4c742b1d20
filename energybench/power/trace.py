"""The power trace on disk: power.parquet, one row a reading, with what is needed to place it in time and on a board."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from energybench.errors import DataError
from energybench.power.meter import Channel, Reading

SCHEMA_VERSION = 1
PREFIX = "energybench."
ROWS_A_GROUP = 100_000
COLUMNS = ("sensor_ns", "read_start_ns", "read_end_ns", "channel", "source", "kind", "value", "status")


@dataclass(frozen=True)
class TraceMetadata:
    """What a trace says about itself.

    Attributes:
        boot_id: the boot whose CLOCK_MONOTONIC stamps the readings; empty where the system has none.
        realtime_offset_ns: add it to a time stamp to get nanoseconds since 1970 (UTC), as the clock stood then.
        channels: channel name -> {"device_id": ..., "pci_bus_id": ...}.
    """

    boot_id: str
    realtime_offset_ns: int
    channels: dict[str, dict[str, str | None]]


def realtime_offset_ns(tries: int = 5) -> int:
    """CLOCK_REALTIME minus CLOCK_MONOTONIC, nanoseconds.

    Each try reads monotonic, realtime, monotonic; the one with the least time between its ends counts, because the
    offset is uncertain by half of that.
    """
    return min(_offset_and_width() for _ in range(tries))[1]


def _offset_and_width() -> tuple[int, int]:
    before_ns, wall_ns, after_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
    return after_ns - before_ns, wall_ns - (before_ns + after_ns) // 2


def boot_id() -> str:
    """What identifies this boot of the machine; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def write_trace(
    path: Path, readings: Iterable[Reading], channels: Sequence[Channel], offset_ns: int | None = None
) -> None:
    """Writes `readings` to `path`, whole or not at all.

    Args:
        path: the file, by contract named power.parquet.
        readings: in any order; taken piece by piece, so a generator keeps memory small.
        channels: the session's channels, for the metadata.
        offset_ns: CLOCK_REALTIME minus CLOCK_MONOTONIC; None: taken now.
    """
    offset_ns = realtime_offset_ns() if offset_ns is None else offset_ns
    partial = path.with_name(path.name + ".partial")
    try:
        _write(partial, readings, TraceMetadata(boot_id(), offset_ns, _identities(channels)))
        partial.replace(path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def read_trace(path: Path) -> tuple[list[Reading], TraceMetadata]:
    """The inverse of `write_trace`.

    Raises:
        DataError: no such file, damaged, or of another schema version; names the path.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not read_table: it takes a folder called "batch=32" for a column.
        with pq.ParquetFile(path) as file:
            table = file.read()
        metadata = _metadata(table.schema.metadata or {})
        return _readings(table), metadata
    except (OSError, pa.ArrowException, ValueError, KeyError, DataError) as error:
        raise DataError(f"{path}: not a power trace of energybench: {error}") from error


def _identities(channels: Sequence[Channel]) -> dict[str, dict[str, str | None]]:
    return {channel.name: {"device_id": channel.device_id, "pci_bus_id": channel.pci_bus_id} for channel in channels}


def _schema(metadata: TraceMetadata) -> Any:
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    types = (pa.int64(), pa.int64(), pa.int64(), text, text, text, pa.float64(), text)
    fields = [
        pa.field(name, kind, nullable=name in ("sensor_ns", "value")) for name, kind in zip(COLUMNS, types, strict=True)
    ]
    values = {
        "schema_version": str(SCHEMA_VERSION),
        "boot_id": metadata.boot_id,
        "realtime_offset_ns": str(metadata.realtime_offset_ns),
        "channels": json.dumps(metadata.channels),
    }
    return pa.schema(fields, metadata={PREFIX + key: value for key, value in values.items()})


def _write(path: Path, readings: Iterable[Reading], metadata: TraceMetadata) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(metadata)
    with path.open("wb") as file:
        with pq.ParquetWriter(file, schema) as writer:
            for rows in _batches(readings):
                columns = zip(*rows, strict=True)
                arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
        file.flush()
        os.fsync(file.fileno())


def _batches(readings: Iterable[Reading]) -> Iterator[list[tuple[object, ...]]]:
    remaining = iter(readings)
    while batch := list(islice(remaining, ROWS_A_GROUP)):
        yield [_row(reading) for reading in batch]


def _row(reading: Reading) -> tuple[object, ...]:
    return (
        reading.sensor_ns,
        reading.read_start_ns,
        reading.read_end_ns,
        reading.channel,
        reading.source,
        reading.quantity,
        reading.value,
        reading.status,
    )


def _readings(table: Any) -> list[Reading]:
    if tuple(table.column_names) != COLUMNS:
        raise DataError(f"its columns are {', '.join(table.column_names)} instead of {', '.join(COLUMNS)}")
    rows = zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)
    return [
        Reading(channel, source, quantity, start_ns, end_ns, value, sensor_ns, status)
        for sensor_ns, start_ns, end_ns, channel, source, quantity, value, status in rows
    ]


def _metadata(raw: dict[bytes, bytes]) -> TraceMetadata:
    version = raw[f"{PREFIX}schema_version".encode()].decode()
    if version != str(SCHEMA_VERSION):
        raise DataError(f"schema version {version}; this release reads version {SCHEMA_VERSION}")
    return TraceMetadata(
        boot_id=raw[f"{PREFIX}boot_id".encode()].decode(),
        realtime_offset_ns=int(raw[f"{PREFIX}realtime_offset_ns".encode()]),
        channels=json.loads(raw[f"{PREFIX}channels".encode()]),
    )
