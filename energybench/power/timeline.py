"""The power of one channel over time, and the energy of any window of it: pure arithmetic, no clock, no driver.

Readings become updates (`updates`), these stretches of known power (`segments`), and those of several sources one
course (`fusion`). A window's energy is what the course holds inside it. Time of which no source tells is not covered:
its energy is neither guessed nor counted, and coverage says how much of it there is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from energybench.power.calibration import corrected
from energybench.power.edges import Edges
from energybench.power.fusion import borne_out, doubted, filled, ranked, shape_for, shaped
from energybench.power.largest import Largest
from energybench.power.meter import Channel, Reading, Source
from energybench.power.running import Running, running
from energybench.power.segments import Course, course, gap_limit_s, is_full_time, is_part_time
from energybench.power.series import Columns, Floats, Ints, Key, by_source
from energybench.power.updates import BLOCK, Updates, updates
from energybench.run.result import ChannelEnergy

__all__ = ["Timeline", "gap_limit_s"]

DISAGREEMENT = 0.05
"""Two sources of a board disagree that differ by more than this share of the energy, and by more than their doubt."""

ENOUGH_UPDATES = 60
"""Fewest updates of a window in which two sources are compared."""

SHORT_MEAN = 2.0
"""Means over so many updates of another source are short enough to show whether that swings."""

NOTICEABLE = 0.01
"""A source that gave no more than this share of the window's time is not named."""


@dataclass(frozen=True)
class _Known:
    """One source, its updates, and the course that it alone tells."""

    source: Source
    updates: Updates
    course: Course
    rhythm: _Rhythm


class Timeline:
    """The power of one channel over time.

    Args:
        channel: the channel.
        sources: the session's sources; those of other channels are passed over.
        readings: the session's readings in any order, or its columns; those of other channels are passed over.
    """

    def __init__(
        self, channel: Channel, sources: Iterable[Source], readings: Iterable[Reading] | Mapping[Key, Columns]
    ) -> None:
        self._channel = channel
        own = ranked([source for source in sources if source.channel == channel.name])
        columns = readings if isinstance(readings, Mapping) else by_source(readings)
        self._known = [_known(own, number, columns) for number in range(len(own))]
        self._line = _Line(_fused(self._known), max((source.time_uncertainty_s for source in own), default=0.0))
        self._alone: dict[int, _Line] = {}

    def energy(self, start_ns: int, end_ns: int) -> ChannelEnergy:
        """Energy from `start_ns` to `end_ns` (CLOCK_MONOTONIC).

        The counter gives the totals where there is one, else what sees all of the time, else what there is. The finest
        source draws the power between two updates of the total. Where the best source has a gap, the next stands in.
        Nothing read: energy None, coverage 0.

        *Gaps.* Updates further apart than `gap_limit_s` are not bridged by their own source, and neither is a step back
        of a counter that is no wrap (a reset). A reading of a "hold" source counts until the next, but no longer than
        that limit; one of a source named "constant" until the next failed read. Failed reads count as nothing.

        *Independent uncertainty* (k = 1), the root of the sum of squares of:

        - each edge of the window that cuts a cell (two updates between which the energy is known, its course not): at
          the share x of a cell of length L, D x L x x(1 - x) / sqrt(3), the root mean square for a jump by D at an
          unknown instant; D is told by the neighbouring cells (`segments`), by other sources (`fusion`), and, where the
          readings swing, by how large a swing faster than the updates would have to be that looks like it (`rhythm`);
        - that the load begins and ends with the window, as a piece of work does that is measured. Then the power jumps
          at the edges themselves, and what is drawn on their far side is missing at both of them alike: the energy that
          the cut cells have beyond the level of those outside. It may be anything from none of it to all, either way,
          so divided by sqrt(3) (GUM 4.3.7). A jump in a cell is taken for at most five times the difference to its
          neighbour. Of steady power it is nothing;
        - what is always the same of the doubt about when the updates were, the sources' `time_uncertainty_s` above all:
          the larger of what the window gains or loses, root mean square, when it is moved by that doubt, to and fro, as
          the course is drawn, and of the steps of the power at its edges times that doubt, as a drawn course is less
          steep than the load. Where an edge cuts a cell, the power there may be D x sqrt((x^3 + (1 - x)^3) / 3) from
          what is drawn; two edges of one cell, y - x of it apart, may differ by D x sqrt(y - x);
        - each edge's own part of that doubt, times the power there; of a counter whose updates could not be located,
          energy of the interval / sqrt(12), and the same of the read's length and of the resolution (rectangular
          distributions, GUM 4.3.7);

        so far what the edges make, `edges_u_j`: the phases of a training repeat, and what their edges hide has the same
        sign in all of them, so that it adds linearly over them (`run.metrics.total`); and

        - of a counter, how well its pace is known: what it counted is divided by the time between its updates. Each
          `BLOCK` of readings finds its phase anew, so in longer windows this grows no more;
        - of means over the time between two updates, what each is in doubt of by itself, where its source declares it:
          `scatter` x its energy, and `jitter_s` x the difference to each of its neighbours, / sqrt(2);
        - power that is seen for a part of the time, at instants or through a low-pass: for each interval, what may have
          been missed, told by how much successive values differ (`segments`);
        - power: resolution x time / sqrt(12), the same rounding all through the window;
        - time in which another source stands in: 2 % of its energy.

        Gaps add none: what they hide is not part of the energy.

        *Common uncertainty* (k = 1): the channel's `gain_uncertainty` x energy.

        Where the channel has a calibration, its correction is made last.

        Raises:
            ValueError: the window ends before it starts.
        """
        if end_ns < start_ns:
            raise ValueError(f"the window ends {(start_ns - end_ns) / 1e9:g} s before it starts")
        window = self._line.window(start_ns, end_ns)
        if not window.covered_ns:
            return self._nothing(start_ns, end_ns)
        best = self._main(window)
        readings, gap_ns = best.rhythm.within(start_ns, end_ns)
        found = ChannelEnergy(
            energy_j=window.energy_j,
            independent_u_j=math.sqrt(window.variance_j2 + self._rounding_j2(window) + _pace_j2(best, window)),
            common_u_j=self._channel.gain_uncertainty * abs(window.energy_j),
            power_mean_w=window.energy_j / (window.covered_ns / 1e9),
            power_peak_w=window.peak_w,
            readings=readings,
            longest_gap_s=gap_ns / 1e9,
            coverage=window.covered_ns / (end_ns - start_ns),
            source=self._names(window),
            estimated=self._channel.estimated,
            update_s=best.updates.beat_s(),
            doubts=self._doubts(window, start_ns, end_ns, readings),
            edges_u_j=math.sqrt(window.edges_j2),
        )
        calibration = self._channel.calibration
        return corrected(found, (end_ns - start_ns) / 1e9, calibration) if calibration is not None else found

    def _main(self, window: _Window) -> _Known:
        """The source of the totals: the best that gave any noticeable part, else the one that gave most."""
        shares = window.shares
        named = [number for number in range(len(self._known)) if shares.get(number, 0.0) > NOTICEABLE]
        return self._known[self._total_of(min(named, default=max(shares, key=lambda number: shares[number])))]

    def _total_of(self, number: int) -> int:
        """The counter whose cells source `number` draws, or itself."""
        first = self._known[0]
        if number and self._shape is not None and number == self._shape:
            return 0 if first.updates.time_ns.size else number
        return number

    @property
    def _shape(self) -> int | None:
        """Number of the source that draws the first one's cells."""
        sources = [known.source for known in self._known]
        fine = shape_for(sources[0], sources[1:]) if sources else None
        return sources.index(fine) if fine is not None else None

    def _names(self, window: _Window) -> str:
        """The sources of the window's energy, the one of the totals first: "counter+buffer"."""
        numbers = [number for number, share in sorted(window.shares.items()) if share > NOTICEABLE]
        if not numbers:
            numbers = [max(window.shares, key=lambda number: window.shares[number])]
        totals = dict.fromkeys([self._total_of(number) for number in numbers] + numbers)
        return "+".join(self._known[number].source.name for number in totals)

    def _rounding_j2(self, window: _Window) -> float:
        """Variance from the resolution of power readings."""
        steps_j = 0.0
        for number, share in window.shares.items():
            source = self._known[self._total_of(number)].source
            if source.quantity == "power_w":
                steps_j += source.resolution * share * window.covered_ns / 1e9
        return steps_j**2 / 12

    def _doubts(self, window: _Window, start_ns: int, end_ns: int, readings: int) -> tuple[str, ...]:
        found = []
        if any(
            is_part_time(self._known[self._total_of(number)].source)
            for number, share in window.shares.items()
            if share > NOTICEABLE
        ):
            found.append("part_time_sampling")
        if readings >= ENOUGH_UPDATES and self._disagree(window, start_ns, end_ns):
            found.append("sources_disagree")
        return tuple(found)

    def _disagree(self, window: _Window, start_ns: int, end_ns: int) -> bool:
        """Whether another source that sees all of the time tells another energy."""
        for number, known in enumerate(self._known[1:], 1):
            source = known.source
            blurred_s = source.averaging_s if source.averaging_s is not None else np.inf
            if not (is_full_time(source) or blurred_s < 0.02 * (end_ns - start_ns) / 1e9) or is_part_time(source):
                continue
            line = self._alone.setdefault(number, _Line(known.course, source.time_uncertainty_s))
            other = line.window(start_ns, end_ns)
            if other.covered_ns < 0.99 * (end_ns - start_ns) or window.covered_ns < 0.99 * (end_ns - start_ns):
                continue
            apart_j = abs(other.energy_j - window.energy_j)
            doubt_j = 2 * float(np.sqrt(other.variance_j2 + window.variance_j2))
            if apart_j > DISAGREEMENT * abs(window.energy_j) + doubt_j:
                return True
        return False

    def _nothing(self, start_ns: int, end_ns: int) -> ChannelEnergy:
        """Of the preferred source, because it is the one that should have been there."""
        source = self._known[0].source.name if self._known else ""
        readings, gap_ns = self._known[0].rhythm.within(start_ns, end_ns) if self._known else (0, end_ns - start_ns)
        estimated = self._channel.estimated
        return ChannelEnergy(None, None, None, None, None, readings, gap_ns / 1e9, 0.0, source, estimated)


def _known(sources: list[Source], number: int, columns: Mapping[Key, Columns]) -> _Known:
    source = sources[number]
    found = updates(source, columns.get((source.channel, source.name)))
    return _Known(source, found, course(source, found, number), _Rhythm(source, found))


def _fused(known: list[_Known]) -> Course:
    """One course: the best source's, drawn by the finest, its gaps filled by the others."""
    if not known:
        return course(Source("", "", "power_w", 1.0), updates(Source("", "", "power_w", 1.0), None))
    sources = [one.source for one in known]
    fused = known[0].course
    fine = shape_for(sources[0], sources[1:])
    if fine is not None and known[0].updates.located:
        fused = shaped(fused, _witnessed(known[sources.index(fine)], known))
    elif len(fused.cells.start_ns) and known[0].updates.located:
        for other in known[1:]:
            fused = _contradicted(fused, other)
    for other in known[1:]:
        fused = filled(fused, other.course)
    return fused


def _witnessed(fine: _Known, known: list[_Known]) -> Course:
    """The course of the finest source, with less doubt where short means of another show that it swings as it says."""
    for other in known:
        spans = _spans(other)
        if other is fine or spans is None or not len(fine.course.cells.start_ns):
            continue
        if (other.source.averaging_s or 0.0) <= SHORT_MEAN * (fine.source.update_s or 0.0):
            without = course(fine.source, fine.updates, int(fine.course.segments.source[0]), None)
            return borne_out(fine.course, without, *spans)
    return fine.course


def _contradicted(total: Course, other: _Known) -> Course:
    """`total` with the doubt that the means of another source cast on how its cells are drawn."""
    spans = _spans(other)
    return total if spans is None else doubted(total, *spans)


def _spans(known: _Known) -> tuple[Floats, Ints, Ints] | None:
    """(n,) each: means that a source tells, and beginning and end of the time that each is of; None: it tells none."""
    source, found = known.source, known.updates
    if not (source.quantity == "power_w" and found.located and source.averaging_s and source.lag_s is None):
        return None
    return found.value, found.time_ns - round(source.averaging_s * 1e9), found.time_ns


def _pace_j2(known: _Known, window: _Window) -> float:
    """Variance from the doubt about the time between two updates of a counter."""
    if known.source.quantity != "energy_j":
        return 0.0
    share = min(1.0, BLOCK * known.source.period_s * 1e9 / window.covered_ns)
    return (known.updates.pace_u * window.energy_j * share) ** 2


class _Rhythm:
    """How many updates a source had in any window, and the longest time without one."""

    def __init__(self, source: Source, found: Updates) -> None:
        self._times_ns = found.time_ns
        gaps_ns = np.diff(found.time_ns)
        self._again = np.flatnonzero(gaps_ns == 0)
        self._longest_ns = Largest(gaps_ns)
        # Read more often than it is renewed, no update counts twice.
        self._update_s = None if found.located else source.update_s

    def within(self, start_ns: int, end_ns: int) -> tuple[int, int]:
        """Number of updates from `start_ns` to `end_ns`, and the longest time without one, nanoseconds."""
        times_ns = self._times_ns
        first = int(np.searchsorted(times_ns, start_ns, side="left"))
        stop = int(np.searchsorted(times_ns, end_ns, side="right"))
        if first == stop:
            return 0, end_ns - start_ns
        gap_ns = max(int(times_ns[first]) - start_ns, end_ns - int(times_ns[stop - 1]))
        if stop - first > 1:
            gap_ns = max(gap_ns, int(self._longest_ns.between(first, stop - 1)))
        again = np.searchsorted(self._again, [first, stop - 1])
        count = stop - first - int(again[1] - again[0])
        if self._update_s:
            count = min(count, int((end_ns - start_ns) / 1e9 / self._update_s) + 1)
        return count, gap_ns


@dataclass(frozen=True)
class _Window:
    """What a course says of one window.

    Attributes:
        energy_j: energy of the covered time.
        variance_j2: its independent variance.
        edges_j2: what of it the window's edges make.
        covered_ns: how much of the window is covered.
        peak_w: highest power.
        shares: number of each source -> share of the covered time that is drawn from it.
    """

    energy_j: float
    variance_j2: float
    edges_j2: float
    covered_ns: int
    peak_w: float
    shares: dict[int, float]


class _Line:
    """A course with running sums, so that a long window costs no more than a short one.

    Args:
        of: the course.
        late_s: standard uncertainty of all of its times together, seconds.
    """

    def __init__(self, of: Course, late_s: float) -> None:
        self._late_s = late_s
        self._segments = of.segments
        self._cells = of.cells
        self._peak_w = Largest(of.segments.peak_w)
        self._sums = Running(of.segments)
        self._sampling_j2 = running(of.segments.sampling_j2)
        self._numbers = [int(number) for number in np.unique(of.segments.source)]
        lengths_ns = of.segments.end_ns - of.segments.start_ns
        self._by_source = {
            number: running(np.where(of.segments.source == number, lengths_ns, 0))
            for number in (self._numbers if len(self._numbers) > 1 else [])
        }

    def window(self, start_ns: int, end_ns: int) -> _Window:
        """Energy, its variance and what it rests on, from `start_ns` to `end_ns`."""
        first = int(self._segments.end_ns.searchsorted(start_ns, side="right"))
        stop = int(self._segments.start_ns.searchsorted(end_ns, side="left"))
        if first >= stop or start_ns == end_ns:
            return _Window(0.0, 0.0, 0.0, 0, 0.0, {})
        edges = Edges(self._cells, self._sums, start_ns, end_ns, self._late_s)
        edges_j2 = edges.variance_j2()
        missed_j2, missed_at_edges_j2 = self._missed_j2(first, stop, start_ns, end_ns)
        return _Window(
            energy_j=edges.energy_j,
            variance_j2=missed_j2 + edges_j2,
            edges_j2=min(missed_at_edges_j2, missed_j2) + edges_j2,
            covered_ns=edges.covered_ns,
            peak_w=self._peak_w.between(first, stop),
            shares=self._shares(first, stop),
        )

    def _missed_j2(self, first: int, stop: int, start_ns: int, end_ns: int) -> tuple[float, float]:
        """Sampling variance of the segments, that of a part falling with its square; what of it the edges' have."""
        whole = max(0.0, float(self._sampling_j2[stop] - self._sampling_j2[first]))
        if not whole:
            return 0.0, 0.0
        at_edges = 0.0
        for i in {first, stop - 1}:
            begin_ns, finish_ns = int(self._segments.start_ns[i]), int(self._segments.end_ns[i])
            share = (min(end_ns, finish_ns) - max(start_ns, begin_ns)) / (finish_ns - begin_ns)
            at_edges += float(self._segments.sampling_j2[i]) * share**2
            whole -= float(self._segments.sampling_j2[i]) * (1 - share**2)
        return max(0.0, whole), at_edges

    def _shares(self, first: int, stop: int) -> dict[int, float]:
        """Whole segments count: what an edge cuts off is too little to name a source for."""
        if not self._by_source:
            return {self._numbers[0]: 1.0}
        taken = {number: int(sums[stop] - sums[first]) for number, sums in self._by_source.items()}
        whole = sum(taken.values())
        return {number: length / whole for number, length in taken.items() if length}
