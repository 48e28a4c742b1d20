"""When an instrument's rows were so, by each kind of clock that it may have."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from energybench.power.clock import realtime_offset_ns
from energybench_plugins.meters.instrument_clock import OwnClock
from energybench_plugins.meters.instrument_lines import Row
from energybench_plugins.meters.instrument_options import (
    DEFAULT_TIME_UNCERTAINTY_S,
    ISO_8601,
    MONOTONIC,
    OWN,
    REALTIME,
    InstrumentOptions,
)

SETTLE_S = 2.0
"""So long the delays of an own clock are watched before its samples are used."""

EARLY_S, LATE_S = 1.0, 30.0
"""A stamp that came so much sooner or later than the others was damaged on the way."""

SUSPECTS = 3
"""So many that agree with each other are no accident: the instrument was started anew."""

AHEAD_S = 0.05
OLDEST_S = 10.0
"""Older rows than this, when the instrument is opened, are of no use."""

WRAP_TICKS = 2**32


@dataclass(frozen=True)
class Placed:
    """A row whose time can be told, the better the later it is asked.

    Attributes:
        place: turns its stamp into CLOCK_MONOTONIC.
        stamp_ns: its stamp.
        arrival_ns: when it came; it was taken before.
        watts: power of each channel.
    """

    place: Callable[[int], int]
    stamp_ns: int
    arrival_ns: int
    watts: tuple[float, ...]

    @property
    def time_ns(self) -> int:
        """CLOCK_MONOTONIC, the user's `delay_s` not yet taken off."""
        return min(self.place(self.stamp_ns), self.arrival_ns)


class Timekeeper(Protocol):
    """Turns rows into placed rows."""

    refused: int
    """How many rows had a time that cannot be."""

    def restart(self) -> None:
        """The link was opened again."""

    def take(self, rows: Sequence[Row], arrival_ns: int) -> list[Placed]:
        """The rows, which came together, that have a time."""

    def settled(self) -> bool:
        """Whether times can be told; raises MeterError where they cannot be of the clock that was said."""

    @property
    def uncertainty_s(self) -> float:
        """Standard uncertainty of the times, seconds, what the user's options say left out."""

    @property
    def words(self) -> str:
        """How times are told."""


class ArrivalTime:
    """Lines without a time: when they came. Those that came together are spread since the ones before."""

    def __init__(self) -> None:
        self.refused = 0
        self._rows = 0
        self._intervals_s: deque[float] = deque(maxlen=100)
        self.restart()

    def restart(self) -> None:
        """The interval across a break says nothing."""
        self._before_ns: int | None = None

    def take(self, rows: Sequence[Row], arrival_ns: int) -> list[Placed]:
        """All rows; of the first that came together the last alone."""
        if not rows:
            return []
        if self._before_ns is None:
            rows, step_ns = rows[-1:], 0
        else:
            step_ns = (arrival_ns - self._before_ns) // len(rows)
            self._intervals_s.append((arrival_ns - self._before_ns) / 1e9 if len(rows) > 1 else 0.0)
        self._before_ns = arrival_ns
        self._rows += len(rows)
        return [Placed(_same, arrival_ns - step_ns * back, arrival_ns, row.watts) for back, row in _from_last(rows)]

    def settled(self) -> bool:
        """Two rows tell the rhythm."""
        return self._rows > 1

    @property
    def uncertainty_s(self) -> float:
        """Of lines that come together, anywhere between the arrivals (rectangular)."""
        return statistics.median(self._intervals_s) / math.sqrt(12) if self._intervals_s else 0.0

    @property
    def words(self) -> str:
        """How times are told."""
        return "time of arrival"


class AbsoluteTime:
    """Stamps of a clock that this machine has too."""

    def __init__(self, clock: str, opened_ns: int, uncertainty_s: float) -> None:
        self.refused = 0
        self._clock = clock
        self._oldest_ns = opened_ns - round(OLDEST_S * 1e9)
        self._ahead_ns = round((AHEAD_S + 3 * uncertainty_s) * 1e9)
        self._rows = 0

    def restart(self) -> None:
        """Its clock goes on."""

    def take(self, rows: Sequence[Row], arrival_ns: int) -> list[Placed]:
        """The rows that are neither old nor of the future."""
        offset_ns = realtime_offset_ns(2) if self._clock == REALTIME else 0
        times_ns = [((row.stamp_ns or 0) - offset_ns, row) for row in rows]
        possible = [(time_ns, row) for time_ns, row in times_ns if time_ns <= arrival_ns + self._ahead_ns]
        self.refused += len(rows) - len(possible)
        fresh = [(time_ns, row) for time_ns, row in possible if time_ns >= self._oldest_ns]
        self._rows += len(fresh)
        return [Placed(_same, time_ns, arrival_ns, row.watts) for time_ns, row in fresh]

    def settled(self) -> bool:
        """One row is enough."""
        return self._rows > 0

    @property
    def uncertainty_s(self) -> float:
        """Only the clocks' own, which the options tell."""
        return 0.0

    @property
    def words(self) -> str:
        """How times are told."""
        return {REALTIME: "wall time", MONOTONIC: "CLOCK_MONOTONIC"}[self._clock]


class OwnTime:
    """Stamps of the instrument's own clock, which may wrap, and begins anew when the instrument does.

    Args:
        tick_ns: nanoseconds of one tick, for a counter of 32 bits that wraps; 0: it does not.
    """

    def __init__(self, tick_ns: float) -> None:
        self.refused = 0
        self._period_ns = round(WRAP_TICKS * tick_ns)
        self._worst_s = 0.0
        self.restart()

    def restart(self) -> None:
        """The clock may be another."""
        self._clock = OwnClock()
        self._clock_began_ns: int | None = None
        self._told_ns: int | None = None
        self._turns_ns = 0
        self._arrival_ns = 0
        self._suspects: list[tuple[Row, int]] = []

    def take(self, rows: Sequence[Row], arrival_ns: int) -> list[Placed]:
        """The rows whose stamps go on from those before."""
        taken = [placed for row in rows for placed in self._one(row, arrival_ns)]
        if taken:
            self._clock.add(taken[-1].stamp_ns, arrival_ns)
            self._clock_began_ns = self._clock_began_ns or arrival_ns
            self._arrival_ns = arrival_ns
        return taken

    def settled(self) -> bool:
        """After two seconds; raises MeterError where its unit is not what was said."""
        if self._watched():
            self._clock.check()
            return True
        return False

    @property
    def uncertainty_s(self) -> float:
        """The worst that it was."""
        self._worst_s = max(self._worst_s, self._clock.uncertainty_s if self._clock_began_ns else 0.0)
        return self._worst_s

    @property
    def words(self) -> str:
        """How times are told."""
        rate = self._clock.rate if self._clock_began_ns else 0.0
        drift = f", its second {rate * 1e6:+.0f} millionths longer than ours" if rate else ""
        return f"its own clock, by the least delay of its lines{drift}"

    def _one(self, row: Row, arrival_ns: int) -> list[Placed]:
        told_ns = row.stamp_ns or 0
        if not self._goes_on(told_ns, arrival_ns):
            return self._suspect(row, arrival_ns)
        self.refused += len(self._suspects)
        self._suspects.clear()
        self._turns_ns += self._period_ns if self._wraps(told_ns) else 0
        self._told_ns = told_ns
        return [Placed(self._clock.time_ns, told_ns + self._turns_ns, arrival_ns, row.watts)]

    def _goes_on(self, told_ns: int, arrival_ns: int) -> bool:
        if self._told_ns is None:
            return True
        wraps = self._wraps(told_ns)
        if told_ns <= self._told_ns and not wraps:
            return False
        if not self._watched():
            return True
        stamp_ns = told_ns + self._turns_ns + (self._period_ns if wraps else 0)
        return -EARLY_S <= self._clock.delay_s(stamp_ns, arrival_ns) <= LATE_S

    def _watched(self) -> bool:
        """Whether its delays are known well enough to tell a stamp that cannot be."""
        began_ns = self._clock_began_ns
        return began_ns is not None and (self._arrival_ns - began_ns) / 1e9 >= SETTLE_S

    def _wraps(self, told_ns: int) -> bool:
        """A counter that stood near its end stands near its beginning."""
        before_ns, quarter_ns = self._told_ns, self._period_ns // 4
        return before_ns is not None and told_ns < quarter_ns and 3 * quarter_ns < before_ns <= self._period_ns

    def _suspect(self, row: Row, arrival_ns: int) -> list[Placed]:
        """Keeps a row that does not go on; some that agree with each other begin a new clock."""
        if self._suspects and (row.stamp_ns or 0) <= (self._suspects[-1][0].stamp_ns or 0):
            self.refused += len(self._suspects)
            self._suspects.clear()
        self._suspects.append((row, arrival_ns))
        if len(self._suspects) < SUSPECTS:
            return []
        again = self._suspects
        self.restart()
        for earlier, at_ns in again[:-1]:
            for placed in self._one(earlier, at_ns):
                self._clock.add(placed.stamp_ns, at_ns)
        self._clock_began_ns = again[0][1]
        return self._one(again[-1][0], arrival_ns)


def timekeeper(options: InstrumentOptions, opened_ns: int) -> Timekeeper:
    """The one for the clock that the options name."""
    time = options.time
    if time.column is None:
        return ArrivalTime()
    if time.clock != OWN:
        return AbsoluteTime(time.clock, opened_ns, stated_uncertainty_s(options))
    return OwnTime(0.0 if time.unit == ISO_8601 else time.tick_s * 1e9)


def stated_uncertainty_s(options: InstrumentOptions) -> float:
    """What the user says of the delay or of the clock, or the default."""
    clock = OWN if options.time.column is None else options.time.clock
    stated = options.time_uncertainty_s
    return DEFAULT_TIME_UNCERTAINTY_S[clock] if stated is None else stated


def _same(time_ns: int) -> int:
    return time_ns


def _from_last(rows: Sequence[Row]) -> list[tuple[int, Row]]:
    """Each row with how many came after it."""
    return [(len(rows) - 1 - place, row) for place, row in enumerate(rows)]
