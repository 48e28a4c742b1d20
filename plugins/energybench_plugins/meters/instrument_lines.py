"""What a line of an instrument says: when, and how many watts on each channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from energybench_plugins.meters.instrument_options import ISO_8601, InstrumentChannel, InstrumentOptions


class UnreadableLineError(Exception):
    """A line that is not as described; its message says what is wrong with it."""


@dataclass(frozen=True)
class Row:
    """One line.

    Attributes:
        stamp_ns: its time on the instrument's clock, nanoseconds; None where it has none.
        watts: power of each channel, in the order of the options.
    """

    stamp_ns: int | None
    watts: tuple[float, ...]


class Lines:
    """Reads lines. One with the columns' names comes first where a column is named.

    Args:
        options: which columns there are.
    """

    def __init__(self, options: InstrumentOptions) -> None:
        self._options = options
        self._columns: dict[str, int] = {}
        self._wanted = _wanted(options)
        self.restart()

    @property
    def has_header(self) -> bool:
        """Whether a line with the columns' names is waited for."""
        return not self._wanted <= self._columns.keys()

    def restart(self) -> None:
        """Forgets the header: the link was opened again."""
        self._columns = {name: int(name) - 1 for name in self._wanted if name.isdecimal() and int(name) > 0}

    def row(self, line: str) -> Row | None:
        """What a line says; None where it is a comment, empty, or the header.

        Raises:
            UnreadableLineError: it is not as described.
        """
        text = line.strip()
        if not text or text.startswith(self._options.comment):
            return None
        cells = [cell.strip() for cell in text.split(self._options.delimiter)]
        if self.has_header:
            self._read_header(cells)
            return None
        time = self._options.time
        stamp_ns = None if time.column is None else self._stamp_ns(self._cell(cells, time.column))
        return Row(stamp_ns, tuple(self._watts(cells, channel) for channel in self._options.channels))

    def _read_header(self, cells: Sequence[str]) -> None:
        columns = self._columns | {name: index for index, name in enumerate(cells)}
        missing = sorted(self._wanted - columns.keys())
        if missing:
            raise UnreadableLineError(f"the header {','.join(cells)!r} has no column {', '.join(missing)}")
        self._columns = columns

    def _cell(self, cells: Sequence[str], name: str) -> str:
        index = self._columns[name]
        if index >= len(cells):
            raise UnreadableLineError(f"no column {name}")
        return cells[index]

    def _number(self, cells: Sequence[str], name: str) -> float:
        text = self._cell(cells, name)
        try:
            value = float(text)
        except ValueError:
            raise UnreadableLineError(f"column {name}: {text!r} is no number") from None
        if not math.isfinite(value):
            raise UnreadableLineError(f"column {name}: {text}")
        return value

    def _watts(self, cells: Sequence[str], channel: InstrumentChannel) -> float:
        """The sum of the channel's columns and products of columns."""
        factors = [[self._number(cells, name) for name in term.split("*")] for term in channel.power]
        watts = channel.scale * sum(math.prod(numbers) for numbers in factors)
        if not math.isfinite(watts):
            raise UnreadableLineError(f"{channel.name}: {watts} W")
        if channel.max_w is not None and watts > channel.max_w:
            raise UnreadableLineError(f"{channel.name}: {watts:g} W, above max_w={channel.max_w:g}")
        return watts

    def _stamp_ns(self, text: str) -> int:
        time = self._options.time
        try:
            if time.unit == ISO_8601:
                return round(datetime.fromisoformat(text).timestamp() * 1e9)
            tick_ns = time.tick_s * 1e9
            whole = round(tick_ns)
            if text.lstrip("-").isdecimal() and math.isclose(tick_ns, whole, rel_tol=1e-12):
                return int(text) * whole  # a float would round nanoseconds since 1970
            return round(float(text) * tick_ns)
        except (ValueError, OverflowError):
            raise UnreadableLineError(f"column {time.column}: {text!r} is no time") from None


def _wanted(options: InstrumentOptions) -> set[str]:
    names = {name for channel in options.channels for term in channel.power for name in term.split("*")}
    return names if options.time.column is None else names | {options.time.column}
