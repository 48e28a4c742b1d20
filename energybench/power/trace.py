"""The power trace on disk: power.parquet, one row a reading, with what is needed to place it in time and on a board."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from energybench.errors import DataError
from energybench.power.clock import realtime_offset_ns
from energybench.power.meter import Channel
from energybench.power.series import NO_TIME, OK, Columns, Key
from energybench.whole import whole

SCHEMA_VERSION = 1
PREFIX = "energybench."
ROWS_A_GROUP = 250_000
COLUMNS = ("sensor_ns", "read_start_ns", "read_end_ns", "channel", "source", "kind", "value", "status")


@dataclass(frozen=True)
class TraceMetadata:
    """What a trace says about itself.

    Attributes:
        boot_id: the boot whose CLOCK_MONOTONIC stamps the readings; empty where the system has none.
        realtime_offset_ns: add it to a time stamp to get nanoseconds since 1970 (UTC), as the clock stood then.
        channels: channel name -> {"device_id": ..., "pci_bus_id": ..., "calibration": ... or None}. Readings are as the
            sensor gave them; the calibration is what was made of their energy.
    """

    boot_id: str
    realtime_offset_ns: int
    channels: dict[str, dict[str, Any]]


def boot_id() -> str:
    """What identifies this boot of the machine; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def write_trace(
    path: Path, columns: Mapping[Key, Columns], channels: Sequence[Channel], offset_ns: int | None = None
) -> None:
    """Writes readings to `path`, source by source, whole or not at all.

    Args:
        path: the file, by contract named power.parquet.
        columns: the readings, by channel and source.
        channels: the session's channels, for the metadata.
        offset_ns: CLOCK_REALTIME minus CLOCK_MONOTONIC; None: taken now.
    """
    offset_ns = realtime_offset_ns() if offset_ns is None else offset_ns
    schema = _schema(TraceMetadata(boot_id(), offset_ns, _identities(channels)))
    with whole(path) as file:
        _write(file, columns.values(), schema)


def read_trace(path: Path, channel: str | None = None) -> tuple[dict[Key, Columns], TraceMetadata]:
    """The inverse of `write_trace`.

    Args:
        path: the file.
        channel: only this channel's readings; of the others nothing is read. None: all.

    Raises:
        DataError: no such file, damaged, or of another schema version; names the path.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not read_table: it takes a folder called "batch=32" for a column.
        with pq.ParquetFile(path) as file:
            metadata = _metadata(file.schema_arrow.metadata or {})
            if tuple(file.schema_arrow.names) != COLUMNS:
                raise DataError(f"its columns are {', '.join(file.schema_arrow.names)} instead of {', '.join(COLUMNS)}")
            groups = [i for i in range(file.num_row_groups) if channel is None or _holds(file, i, channel)]
            found = _columns((file.read_row_group(i) for i in groups), channel)
            pa.default_memory_pool().release_unused()
            return found, metadata
    except (OSError, pa.ArrowException, ValueError, KeyError, DataError) as error:
        raise DataError(f"{path}: not a power trace of energybench: {error}") from error


def _holds(file: Any, group: int, channel: str) -> bool:
    """Whether a row group may hold readings of `channel`, by its statistics."""
    statistics = file.metadata.row_group(group).column(COLUMNS.index("channel")).statistics
    return statistics is None or not statistics.has_min_max or statistics.min <= channel <= statistics.max


def _identities(channels: Sequence[Channel]) -> dict[str, dict[str, Any]]:
    return {
        channel.name: {
            "device_id": channel.device_id,
            "pci_bus_id": channel.pci_bus_id,
            "calibration": asdict(channel.calibration) if channel.calibration else None,
        }
        for channel in channels
    }


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


def _write(file: IO[bytes], columns: Iterable[Columns], schema: Any) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, schema) as writer:
        for one in columns:
            for first in range(0, len(one), ROWS_A_GROUP):
                writer.write_table(_table(one, slice(first, first + ROWS_A_GROUP), schema))


def _table(one: Columns, rows: slice, schema: Any) -> Any:
    import pyarrow as pa

    sensor_ns, value, code = one.sensor_ns[rows], one.value[rows], one.code[rows]

    def same(text: str) -> Any:
        return pa.DictionaryArray.from_arrays(_numbers(np.zeros(len(value), np.int32)), _texts([text]))

    arrays = [
        _numbers(sensor_ns, sensor_ns == NO_TIME),
        _numbers(one.read_start_ns[rows]),
        _numbers(one.read_end_ns[rows]),
        same(one.channel),
        same(one.source),
        same(one.quantity),
        _numbers(value, code != 0),
        pa.DictionaryArray.from_arrays(_numbers(code.astype(np.int32)), _texts(one.statuses)),
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _numbers(values: NDArray[Any], missing: NDArray[np.bool_] | None = None) -> Any:
    """An Arrow array on the memory of `values`, null where `missing`; pyarrow.array would first import pandas."""
    import pyarrow as pa

    valid = None if missing is None else pa.py_buffer(np.packbits(~missing, bitorder="little"))
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [valid, data])


def _texts(words: Sequence[str]) -> Any:
    """The same of words, which Arrow keeps as their ends and their bytes."""
    import pyarrow as pa

    encoded = [word.encode() for word in words]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))


def _columns(tables: Iterable[Any], channel: str | None) -> dict[Key, Columns]:
    """Row groups as columns by channel and source; a group may hold several, if another program wrote it."""
    parts: dict[Key, list[Columns]] = {}
    for table in tables:
        for one in _split(table):
            if channel in (None, one.channel):
                parts.setdefault((one.channel, one.source), []).append(one)
    return {key: _joined(those) for key, those in parts.items()}


def _split(table: Any) -> list[Columns]:
    if not len(table):
        return []
    table = table.unify_dictionaries().combine_chunks()
    places = np.stack([table[name].combine_chunks().indices.to_numpy() for name in COLUMNS[3:6]])
    if (places == places[:, :1]).all():
        return [_one(table)]
    kinds = np.unique(places, axis=1).T
    return [_one(table.take(np.flatnonzero((kind == places.T).all(axis=1)))) for kind in kinds]


def _one(chosen: Any) -> Columns:
    """A table of one channel and source, copied, so that the table can go."""
    channel, source, quantity = (chosen[name][0].as_py() for name in COLUMNS[3:6])
    status = chosen["status"].combine_chunks()
    statuses = [str(text) for text in status.dictionary.to_pylist()]
    order = [OK, *(text for text in statuses if text != OK)]
    recoded = np.array([order.index(text) for text in statuses], np.uint32)
    return Columns(
        channel,
        source,
        quantity,
        np.array(chosen["read_start_ns"]),
        np.array(chosen["read_end_ns"]),
        np.array(chosen["sensor_ns"].combine_chunks().fill_null(NO_TIME)),
        np.array(chosen["value"].combine_chunks().fill_null(float("nan"))),
        recoded[status.indices.to_numpy()],
        tuple(order),
    )


def _joined(parts: Sequence[Columns]) -> Columns:
    if len(parts) == 1:
        return parts[0]
    statuses = tuple(dict.fromkeys(text for part in parts for text in part.statuses))
    codes = [np.array([statuses.index(text) for text in part.statuses], np.uint32)[part.code] for part in parts]
    first = parts[0]
    return Columns(
        first.channel,
        first.source,
        first.quantity,
        np.concatenate([part.read_start_ns for part in parts]),
        np.concatenate([part.read_end_ns for part in parts]),
        np.concatenate([part.sensor_ns for part in parts]),
        np.concatenate([part.value for part in parts]),
        np.concatenate(codes),
        statuses,
    )


def _metadata(raw: dict[bytes, bytes]) -> TraceMetadata:
    version = raw[f"{PREFIX}schema_version".encode()].decode()
    if version != str(SCHEMA_VERSION):
        raise DataError(f"schema version {version}; this release reads version {SCHEMA_VERSION}")
    return TraceMetadata(
        boot_id=raw[f"{PREFIX}boot_id".encode()].decode(),
        realtime_offset_ns=int(raw[f"{PREFIX}realtime_offset_ns".encode()]),
        channels=json.loads(raw[f"{PREFIX}channels".encode()]),
    )
