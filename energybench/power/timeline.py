"""Turns the readings of one channel into the energy of any window: pure arithmetic, no clock, no driver.

Readings become *segments*: stretches of time over which the power is known. Between two readings of a counter the power
is the difference by the time; between two of a power source it runs straight ("linear") or stays ("hold"). A window's
energy is what its segments hold inside it. Time without a segment is not covered: its energy is neither guessed nor
counted, and coverage says how much of it there is.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energybench.power.meter import Channel, Reading, Source
from energybench.run.result import ChannelEnergy

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

GAP_PERIODS = 5.0
GAP_MIN_S = 1.0
FOR_EVER_NS = 2**62
COVERAGE_TIE = 0.01
"""A source is not passed over for one that covers no more than this share of the window more."""

WRAP_MIN_W = 1000.0
WRAP_FACTOR = 10.0


def gap_limit_s(source: Source) -> float:
    """Readings further apart than this, seconds, are not bridged: five periods, but at least one second."""
    return max(GAP_PERIODS * source.period_s, GAP_MIN_S)


class Timeline:
    """The power of one channel over time.

    Args:
        channel: the channel.
        sources: the session's sources; those of other channels are passed over. Of several power sources the earlier
            is preferred, and a counter to all of them.
        readings: the session's readings in any order; those of other channels are passed over.
    """

    def __init__(self, channel: Channel, sources: Iterable[Source], readings: Iterable[Reading]) -> None:
        self._channel = channel
        own = [source for source in sources if source.channel == channel.name]
        own.sort(key=lambda source: source.quantity != "energy_j")
        points = _points(own, (reading for reading in readings if reading.channel == channel.name))
        self._tracks = [_track(source, points[source.name]) for source in own]

    def energy(self, start_ns: int, end_ns: int) -> ChannelEnergy:
        """Energy from `start_ns` to `end_ns` (CLOCK_MONOTONIC).

        The counter gives it where it covers the window as well as any other source does (within 1 % of the window),
        else the power source that does. Nothing read: energy None, coverage 0.

        *Gaps.* Readings further apart than `gap_limit_s` are not bridged, and neither is a step back of a counter that
        is no wrap (a reset). A reading of a "hold" source counts until the next, but no longer than that limit; one of
        a source named "constant" until the next failed read. Failed reads count as nothing.

        *Independent uncertainty* (k = 1), the root of the sum of squares of:

        - counter, at each end of a covered stretch: the counter's value at the edge lies anywhere between the two
          readings around it, so energy of that interval / sqrt(12) (rectangular distribution, GUM 4.3.7). The larger
          of its neighbours' energies stands in where it is more: a reading may just have missed an update;
        - counter, likewise: the read takes time and the value may be of any instant in it: power x duration / sqrt(12);
        - counter, likewise: resolution / sqrt(12);
        - power, for each interval: a reading stands for its interval while the power scatters. The variance is taken
          from successive differences, half their mean square (von Neumann's estimate): difference x time / sqrt(2);
        - power: resolution x time / sqrt(12), the same rounding all through the window.

        Gaps add none: what they hide is not part of the energy.

        *Common uncertainty* (k = 1): the channel's `gain_uncertainty` x energy.

        Raises:
            ValueError: the window ends before it starts.
        """
        if end_ns < start_ns:
            raise ValueError(f"the window ends {(start_ns - end_ns) / 1e9:g} s before it starts")
        windows = [track.window(start_ns, end_ns) for track in self._tracks]
        best = max((window.covered_ns for window in windows), default=0)
        if not best:
            return self._nothing(start_ns, end_ns)
        enough_ns = best - COVERAGE_TIE * (end_ns - start_ns)
        chosen = next(window for window in windows if window.covered_ns and window.covered_ns >= enough_ns)
        return self._result(chosen, end_ns - start_ns)

    def _result(self, window: _Window, length_ns: int) -> ChannelEnergy:
        return ChannelEnergy(
            energy_j=window.energy_j,
            independent_u_j=window.variance_j2**0.5,
            common_u_j=self._channel.gain_uncertainty * abs(window.energy_j),
            power_mean_w=window.energy_j / (window.covered_ns / 1e9),
            power_peak_w=window.peak_w,
            readings=window.readings,
            longest_gap_s=window.longest_gap_ns / 1e9,
            coverage=window.covered_ns / length_ns,
            source=window.source,
            estimated=self._channel.estimated,
        )

    def _nothing(self, start_ns: int, end_ns: int) -> ChannelEnergy:
        """Of the preferred source, because it is the one that should have been there."""
        source = self._tracks[0].source.name if self._tracks else ""
        readings, gap_ns = self._tracks[0].updates(start_ns, end_ns) if self._tracks else (0, end_ns - start_ns)
        estimated = self._channel.estimated
        return ChannelEnergy(None, None, None, None, None, readings, gap_ns / 1e9, 0.0, source, estimated)


@dataclass(frozen=True)
class _Points:
    """What one source gave, in the order of time.

    Attributes:
        time_ns: (n,) int64, when each value held.
        value: (n,) float64, watts or joules.
        read_ns: (n,) int64, how long the read took; 0 where the sensor told the time itself.
        failed_ns: (m,) int64, times of the failed reads.
    """

    time_ns: Ints
    value: Floats
    read_ns: Ints
    failed_ns: Ints


@dataclass(frozen=True)
class _Segments:
    """Stretches of known power, in the order of time, apart or touching, none empty.

    Attributes:
        start_ns: (n,) int64.
        end_ns: (n,) int64.
        first_w: (n,) float64, power at the start; it runs straight to `last_w`.
        last_w: (n,) float64, power at the end.
        peak_w: (n,) float64, highest power told by the readings.
        sampling_j2: (n,) float64, variance of the energy within; falls with the square of the part taken.
        edge_j2: (n,) float64, variance of the energy where a covered stretch begins or ends in this segment.
    """

    start_ns: Ints
    end_ns: Ints
    first_w: Floats
    last_w: Floats
    peak_w: Floats
    sampling_j2: Floats
    edge_j2: Floats


@dataclass(frozen=True)
class _Window:
    """What one source says of one window."""

    source: str
    energy_j: float
    variance_j2: float
    covered_ns: int
    peak_w: float
    readings: int
    longest_gap_ns: int


class _Track:
    """The segments of one source with running sums, so that a long window costs no more than a short one."""

    def __init__(self, source: Source, points: _Points, segments: _Segments) -> None:
        self.source = source
        self._reading_ns = np.unique(points.time_ns)
        self._segments = segments
        lengths_ns = segments.end_ns - segments.start_ns
        self._energy_j = _running((segments.first_w + segments.last_w) / 2 * (lengths_ns / 1e9))
        self._covered_ns = _running(lengths_ns)
        self._sampling_j2 = _running(segments.sampling_j2)
        self._break_j2 = _running(_break_j2(segments))

    def window(self, start_ns: int, end_ns: int) -> _Window:
        """Energy, its variance and what it rests on, from `start_ns` to `end_ns`."""
        first = int(np.searchsorted(self._segments.end_ns, start_ns, side="right"))
        stop = int(np.searchsorted(self._segments.start_ns, end_ns, side="left"))
        readings, gap_ns = self.updates(start_ns, end_ns)
        if first >= stop or start_ns == end_ns:
            return _Window(self.source.name, 0.0, 0.0, 0, 0.0, readings, gap_ns)
        energy_j, sampling_j2, covered_ns = self._sums(first, stop, start_ns, end_ns)
        return _Window(
            source=self.source.name,
            energy_j=energy_j,
            variance_j2=sampling_j2 + self._ends_j2(first, stop - 1) + self._rounding_j2(covered_ns),
            covered_ns=covered_ns,
            peak_w=float(self._segments.peak_w[first:stop].max()),
            readings=readings,
            longest_gap_ns=gap_ns,
        )

    def updates(self, start_ns: int, end_ns: int) -> tuple[int, int]:
        """Number of readings from `start_ns` to `end_ns`, and the longest time without one, nanoseconds."""
        first = np.searchsorted(self._reading_ns, start_ns, side="left")
        stop = np.searchsorted(self._reading_ns, end_ns, side="right")
        inside = self._reading_ns[first:stop]
        gaps = np.diff(np.concatenate(([start_ns], inside, [end_ns])))
        return len(inside), int(gaps.max())

    def _sums(self, first: int, stop: int, start_ns: int, end_ns: int) -> tuple[float, float, int]:
        """Energy, sampling variance and covered time: the cut segments at the ends, and all of those between."""
        ends = [self._part(i, start_ns, end_ns) for i in sorted({first, stop - 1})]
        energy_j, variance_j2, covered_ns = (sum(column) for column in zip(*ends, strict=True))
        if stop - first > 2:
            between = slice(first + 1, stop - 1)
            energy_j += float(self._energy_j[between.stop] - self._energy_j[between.start])
            variance_j2 += float(self._sampling_j2[between.stop] - self._sampling_j2[between.start])
            covered_ns += int(self._covered_ns[between.stop] - self._covered_ns[between.start])
        return energy_j, max(0.0, variance_j2), covered_ns

    def _part(self, i: int, start_ns: int, end_ns: int) -> tuple[float, float, int]:
        """Energy, sampling variance and length of segment `i` inside the window."""
        segments = self._segments
        begin_ns, finish_ns = int(segments.start_ns[i]), int(segments.end_ns[i])
        from_ns, to_ns, length_ns = max(start_ns, begin_ns), min(end_ns, finish_ns), finish_ns - begin_ns
        middle = ((from_ns - begin_ns) + (to_ns - begin_ns)) / (2 * length_ns)
        power_w = float(segments.first_w[i]) * (1 - middle) + float(segments.last_w[i]) * middle
        share = (to_ns - from_ns) / length_ns
        return power_w * ((to_ns - from_ns) / 1e9), float(segments.sampling_j2[i]) * share**2, to_ns - from_ns

    def _ends_j2(self, first: int, last: int) -> float:
        """Variance from the ends of the covered stretches; two edges in one interval share its uncertainty."""
        edges = float(self._segments.edge_j2[first])
        if last > first:
            edges += float(self._segments.edge_j2[last]) + float(self._break_j2[last] - self._break_j2[first])
        return edges

    def _rounding_j2(self, covered_ns: int) -> float:
        """Variance from the resolution of power readings."""
        if self.source.quantity == "energy_j":
            return 0.0
        return (self.source.resolution * covered_ns / 1e9) ** 2 / 12


def _running(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """(n,) -> (n + 1,): sums of the first 0, 1, ... n values."""
    sums = np.zeros(len(values) + 1, values.dtype)
    np.cumsum(values, out=sums[1:])
    return sums


def _break_j2(segments: _Segments) -> Floats:
    """(n,) variance added where segment i does not touch its successor: two more ends."""
    apart = segments.end_ns[:-1] != segments.start_ns[1:]
    variance = np.where(apart, segments.edge_j2[:-1] + segments.edge_j2[1:], 0.0)
    return np.append(variance, 0.0)[: len(segments.start_ns)]


def _points(sources: Sequence[Source], readings: Iterable[Reading]) -> dict[str, _Points]:
    """Readings by source, as columns in the order of time; a value that is no number is a failure."""
    columns = {source.name: (array("q"), array("d"), array("q")) for source in sources}
    for reading in readings:
        if reading.source in columns:
            times_ns, values, reads_ns = columns[reading.source]
            times_ns.append(reading.time_ns)
            values.append(float("nan") if reading.value is None else reading.value)
            reads_ns.append(reading.read_end_ns - reading.read_start_ns if reading.sensor_ns is None else 0)
    return {name: _sorted(*column) for name, column in columns.items()}


def _sorted(times_ns: Sequence[int], values: Sequence[float], reads_ns: Sequence[int]) -> _Points:
    time_ns, read_ns = np.asarray(times_ns, np.int64), np.asarray(reads_ns, np.int64)
    value = np.asarray(values, np.float64)
    order = np.argsort(time_ns, kind="stable")
    time_ns, value, read_ns = time_ns[order], value[order], read_ns[order]
    valid = np.isfinite(value)
    return _Points(time_ns[valid], value[valid], read_ns[valid], time_ns[~valid])


def _track(source: Source, points: _Points) -> _Track:
    if source.quantity == "energy_j":
        return _Track(source, points, _counter_segments(source, points))
    if source.interpolation == "hold":
        return _Track(source, points, _held_segments(source, points))
    return _Track(source, points, _linear_segments(source, points))


def _linear_segments(source: Source, points: _Points) -> _Segments:
    """Straight lines between neighbours no further apart than the limit."""
    length_ns = np.diff(points.time_ns)
    first_w, last_w = points.value[:-1], points.value[1:]
    keep = (length_ns > 0) & (length_ns <= _gap_limit_ns(source))
    return _power_segments(points.time_ns[:-1], points.time_ns[1:], first_w, last_w, last_w - first_w, keep)


def _held_segments(source: Source, points: _Points) -> _Segments:
    """Each value until the next, the limit, or, of a constant, the next failure."""
    time_ns = points.time_ns
    next_ns = np.append(time_ns[1:], FOR_EVER_NS)[: len(time_ns)]
    end_ns = np.minimum(next_ns, _hold_ends_ns(source, points))
    change_w = np.append(np.diff(points.value), 0.0)[: len(time_ns)]
    change_w = np.where(end_ns == next_ns, change_w, 0.0)
    return _power_segments(time_ns, end_ns, points.value, points.value, change_w, end_ns > time_ns)


def _hold_ends_ns(source: Source, points: _Points) -> Ints:
    """(n,) when each held value ends to count, were there no next."""
    if source.name != "constant":
        return points.time_ns + _gap_limit_ns(source)
    failures_ns = np.append(points.failed_ns, FOR_EVER_NS)
    return failures_ns[np.searchsorted(points.failed_ns, points.time_ns, side="right")]


def _power_segments(
    start_ns: Ints, end_ns: Ints, first_w: Floats, last_w: Floats, change_w: Floats, keep: Bools
) -> _Segments:
    sampling_j2 = (change_w * ((end_ns - start_ns) / 1e9)) ** 2 / 2
    return _Segments(
        start_ns=start_ns[keep],
        end_ns=end_ns[keep],
        first_w=first_w[keep],
        last_w=last_w[keep],
        peak_w=np.maximum(first_w, last_w)[keep],
        sampling_j2=sampling_j2[keep],
        edge_j2=np.zeros(int(keep.sum())),
    )


def _counter_segments(source: Source, points: _Points) -> _Segments:
    """The counter's steps between neighbours no further apart than the limit, resets left out."""
    # Of several values at one instant the last one holds: the steps around them then lose and gain nothing.
    last = np.append(np.diff(points.time_ns) > 0, True)[: len(points.time_ns)]
    time_ns, value, read_ns = points.time_ns[last], points.value[last], points.read_ns[last]
    length_ns = np.diff(time_ns)
    near = length_ns <= _gap_limit_ns(source)
    step_j, known = _steps(source, value, length_ns / 1e9, near)
    keep = known & near
    start_ns, end_ns = time_ns[:-1][keep], time_ns[1:][keep]
    step_j, length_s = step_j[keep], (length_ns / 1e9)[keep]
    read_s = np.maximum(read_ns[:-1], read_ns[1:])[keep] / 1e9
    touching = end_ns[:-1] == start_ns[1:]
    power_w = step_j / length_s
    edge_j = _with_neighbours(step_j, touching)
    edge_j2 = (edge_j**2 + (power_w * read_s) ** 2 + source.resolution**2) / 12
    peak_w = _mean_peak_w(step_j, length_s, touching, source.period_s / 2)
    return _Segments(start_ns, end_ns, power_w, power_w, peak_w, np.zeros(len(step_j)), edge_j2)


def _steps(source: Source, value: Floats, length_s: Floats, near: Bools) -> tuple[Floats, Bools]:
    """Energy between neighbouring readings of a counter, joules, and where it is known.

    A step back is a wrap where the energy that this implies is less than half of the counter's range and its mean power
    at most ten times the highest seen elsewhere (or 1 kW, where that is more). Any other is a reset. The step after a
    reset counts unless it climbs back to the value before: then the low value was a slip, not a new start.
    """
    step_j = np.diff(value)
    back = step_j < 0
    slip = np.zeros(len(step_j), np.bool_)
    slip[1:] = back[:-1] & (value[2:] >= value[:-2])
    if source.wraps_at_j is None:
        return step_j, ~back & ~slip
    range_j = source.wraps_at_j + source.resolution
    wrapped_j = step_j + range_j
    seen_w = np.max(step_j / length_s, initial=0.0, where=~back & ~slip & near)
    limit_w = max(WRAP_FACTOR * float(seen_w), WRAP_MIN_W)
    wrap = back & (wrapped_j >= 0) & (wrapped_j < range_j / 2) & (wrapped_j <= limit_w * length_s)
    slip[1:] &= ~wrap[:-1]
    return np.where(wrap, wrapped_j, step_j), wrap | ~(back | slip)


def _with_neighbours(step_j: Floats, touching: Bools) -> Floats:
    """(n,) largest of each step and the steps that touch it."""
    largest = step_j.copy()
    largest[1:] = np.maximum(largest[1:], np.where(touching, step_j[:-1], 0.0))
    largest[:-1] = np.maximum(largest[:-1], np.where(touching, step_j[1:], 0.0))
    return largest


def _mean_peak_w(step_j: Floats, length_s: Floats, touching: Bools, shortest_s: float) -> Floats:
    """(n,) mean power of each step, taken together with the step before where it is shorter than `shortest_s`.

    A counter that is updated every 100 ms and read twice within 3 ms would else show 30 times the power.
    """
    before_j, before_s = np.zeros(len(step_j)), np.zeros(len(step_j))
    join = touching & (length_s[1:] < shortest_s)
    before_j[1:], before_s[1:] = np.where(join, step_j[:-1], 0.0), np.where(join, length_s[:-1], 0.0)
    return (before_j + step_j) / (before_s + length_s)


def _gap_limit_ns(source: Source) -> int:
    return round(gap_limit_s(source) * 1e9)
