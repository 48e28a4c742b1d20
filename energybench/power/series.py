"""The readings of one source as columns: 36 bytes a reading, where an object takes ten times that."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energybench.power.meter import Quantity, Reading

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

OK = "ok"
NO_TIME = -(2**63)
"""Stands in `sensor_ns` where the source told no time."""

Key = tuple[str, str]
"""(channel, source)."""


@dataclass(frozen=True)
class Columns:
    """Readings of one source, one entry a reading.

    Attributes:
        channel: name of the channel.
        source: name of the source.
        quantity: "power_w" or "energy_j".
        read_start_ns: (n,) int64, CLOCK_MONOTONIC before each call.
        read_end_ns: (n,) int64, CLOCK_MONOTONIC after it.
        sensor_ns: (n,) int64, when the sensor took it; NO_TIME where it does not say.
        value: (n,) float64; not a number where the read failed.
        code: (n,) which of `statuses` each reading has.
        statuses: "ok" first, then the reasons of failures.
    """

    channel: str
    source: str
    quantity: Quantity
    read_start_ns: Ints
    read_end_ns: Ints
    sensor_ns: Ints
    value: Floats
    code: npt.NDArray[np.uint32]
    statuses: tuple[str, ...] = (OK,)

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Reading]:
        return (self.reading(i) for i in range(len(self)))

    @property
    def time_ns(self) -> Ints:
        """(n,) when each value held: the sensor's own time, else the middle of the read."""
        middle = self.read_start_ns + (self.read_end_ns - self.read_start_ns) // 2
        return np.where(self.sensor_ns == NO_TIME, middle, self.sensor_ns)

    def reading(self, i: int) -> Reading:
        """Reading `i` as an object."""
        status = self.statuses[self.code[i]]
        sensor_ns = int(self.sensor_ns[i])
        return Reading(
            channel=self.channel,
            source=self.source,
            quantity=self.quantity,
            read_start_ns=int(self.read_start_ns[i]),
            read_end_ns=int(self.read_end_ns[i]),
            value=float(self.value[i]) if status == OK else None,
            sensor_ns=None if sensor_ns == NO_TIME else sensor_ns,
            status=status,
        )


class Series:
    """Columns that grow."""

    def __init__(self, channel: str, source: str, quantity: Quantity) -> None:
        self.channel = channel
        self.source = source
        self.quantity = quantity
        self._read_start_ns = array("q")
        self._read_end_ns = array("q")
        self._sensor_ns = array("q")
        self._value = array("d")
        self._code = array("I")
        self._codes = {OK: 0}

    def __len__(self) -> int:
        return len(self._value)

    def add(self, start_ns: int, end_ns: int, value: float, sensor_ns: int | None, status: str = OK) -> None:
        """Appends one reading; of one that failed, `value` is not looked at."""
        self._read_start_ns.append(start_ns)
        self._read_end_ns.append(end_ns)
        self._sensor_ns.append(NO_TIME if sensor_ns is None else sensor_ns)
        self._value.append(value if status == OK else math.nan)
        self._code.append(self._codes.setdefault(status, len(self._codes)))

    def columns(self, last: int | None = None, since_ns: int | None = None) -> Columns:
        """A snapshot that later readings do not change.

        Args:
            last: only the last so many; None: all.
            since_ns: only those that were read from then on; None: all.
        """
        first = 0 if last is None else max(0, len(self) - last)
        if since_ns is not None:
            first = max(first, bisect_left(self._read_start_ns, since_ns))
        part = slice(first, None)
        return Columns(
            self.channel,
            self.source,
            self.quantity,
            np.array(self._read_start_ns[part], np.int64),
            np.array(self._read_end_ns[part], np.int64),
            np.array(self._sensor_ns[part], np.int64),
            np.array(self._value[part], np.float64),
            np.array(self._code[part], np.uint32),
            tuple(self._codes),
        )


def by_source(readings: Iterable[Reading]) -> dict[Key, Columns]:
    """Readings in any order, told apart by channel and source."""
    series: dict[Key, Series] = {}
    for reading in readings:
        key = (reading.channel, reading.source)
        if key not in series:
            series[key] = Series(reading.channel, reading.source, reading.quantity)
        value, status = reading.value, reading.status
        if value is None and status == OK:
            status = "no value"
        series[key].add(
            reading.read_start_ns,
            reading.read_end_ns,
            math.nan if value is None else value,
            reading.sensor_ns,
            status if value is None else OK,
        )
    return {key: one.columns() for key, one in series.items()}


def readings(columns: Mapping[Key, Columns] | Sequence[Columns]) -> Iterator[Reading]:
    """All readings, source by source."""
    for one in columns.values() if isinstance(columns, Mapping) else columns:
        yield from one
