"""Stretches of known power, made of a source's updates: how each kind of sensor sees the power, undone.

A *full-time* source tells the energy of all the time between two updates: a counter, or means that touch each other.
Of such a stretch, here a *cell*, the energy is known and only its course within is not: it is drawn with a slope, or
a single jump, as its neighbours suggest and so that the cell keeps its energy. A *part-time* source tells the power
of some of the time, and the rest is drawn by straight lines.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter1d, minimum_filter1d, uniform_filter1d

from energybench.power.meter import Source
from energybench.power.rhythm import MEANS, Seen, hidden, low_pass
from energybench.power.series import Floats, Ints
from energybench.power.updates import BLOCK, Updates

Bools = npt.NDArray[np.bool_]

GAP_PERIODS = 5.0
GAP_MIN_S = 1.0
FOR_EVER_NS = 2**62

WRAP_MIN_W = 1000.0
WRAP_FACTOR = 10.0

FULL_TIME = 0.9
"""Means over at least this share of the time between two updates count as means over all of it."""

LONG_MEAN = 1.5
"""Means over more than so many updates overlap: they say little about the time between two of them."""

UNKNOWN_DELAY_S = 1.0
"""A power sensor whose averaging is not known may be the mean of so much of the past: NVML's longest."""

JUMP_RATIO = 3.0
"""Two neighbours of a cell that differ by so many times more than each from its own other neighbour make a jump."""


def gap_limit_s(source: Source) -> float:
    """Readings further apart than this, seconds, are not bridged: five periods, but at least one second."""
    return max(GAP_PERIODS * source.period_s, GAP_MIN_S)


@dataclass(frozen=True)
class Segments:
    """Stretches of known power, in the order of time, apart or touching, none empty.

    Attributes:
        start_ns: (n,) int64.
        end_ns: (n,) int64.
        first_w: (n,) float64, power at the start; it runs straight to `last_w`.
        last_w: (n,) float64, power at the end.
        peak_w: (n,) float64, highest power told by the readings.
        sampling_j2: (n,) float64, variance of the energy within; falls with the square of the part taken.
        source: (n,) number of the source that each is drawn from.
    """

    start_ns: Ints
    end_ns: Ints
    first_w: Floats
    last_w: Floats
    peak_w: Floats
    sampling_j2: Floats
    source: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.start_ns)

    def take(self, chosen: Bools | Ints) -> Segments:
        """Those that are chosen; of a long trace a copy of all would be much."""
        if chosen.dtype == np.bool_ and chosen.all():
            return self
        return Segments(
            self.start_ns[chosen],
            self.end_ns[chosen],
            self.first_w[chosen],
            self.last_w[chosen],
            self.peak_w[chosen],
            self.sampling_j2[chosen],
            self.source[chosen],
        )

    @property
    def energy_j(self) -> Floats:
        """(n,) energy of each."""
        return (self.first_w + self.last_w) / 2 * ((self.end_ns - self.start_ns) / 1e9)


@dataclass(frozen=True)
class Cells:
    """Spans whose energy is known as a whole, so that only a window's edge inside one is in doubt.

    Attributes:
        start_ns, end_ns: (n,) int64, in the order of time, apart or touching.
        power_w: (n,) mean power.
        course_w: (n,) how far the power within may be from how it is drawn, watts; see `Timeline.energy`.
        edge_j: (n,) standard uncertainty of the energy up to an edge inside, from all other causes, joules.
        shift_s: (n,) standard uncertainty of when the updates around were, seconds.
        steady_s: (n,) for so long that doubt is the same one: what moves both edges of a window alike moves only the
            difference of the power at them.
        whole: (n,) whether the energy of all of it is known; else the power at its ends is.
    """

    start_ns: Ints
    end_ns: Ints
    power_w: Floats
    course_w: Floats
    edge_j: Floats
    shift_s: Floats
    steady_s: Floats
    whole: Bools

    def columns(self) -> tuple[npt.NDArray[Any], ...]:
        """All of the above."""
        return (
            self.start_ns,
            self.end_ns,
            self.power_w,
            self.course_w,
            self.edge_j,
            self.shift_s,
            self.steady_s,
            self.whole,
        )

    def take(self, chosen: Bools | Ints) -> Cells:
        """Those that are chosen."""
        if chosen.dtype == np.bool_ and chosen.all():
            return self
        return Cells(*(column[chosen] for column in self.columns()))


@dataclass(frozen=True)
class Course:
    """What one source, or several together, say of a channel's power over time."""

    segments: Segments
    cells: Cells


def is_part_time(source: Source) -> bool:
    """Whether a power source is known to see only a part of the time."""
    return (
        source.quantity == "power_w"
        and source.averaging_s is not None
        and source.update_s is not None
        and source.lag_s is None
        and 0 < source.averaging_s < FULL_TIME * source.update_s
    )


def is_full_time(source: Source) -> bool:
    """Whether a source tells the energy of all the time between two of its updates."""
    if source.quantity == "energy_j":
        return True
    if source.update_s is None or source.interpolation == "hold":
        return False
    if source.lag_s is not None:
        return True
    averaging_s = source.averaging_s
    return averaging_s is not None and FULL_TIME <= averaging_s / source.update_s <= LONG_MEAN


def course(source: Source, found: Updates, number: int = 0, seen: Seen | None = MEANS) -> Course:
    """The power over time that a source's updates tell.

    Args:
        source: the source.
        found: its updates.
        number: of the source, for `Segments.source`.
        seen: how means see a swing that is faster than they are; None: there is no such swing.
    """
    if source.quantity == "energy_j":
        return _of_counter(source, found, number)
    if source.interpolation == "hold":
        return Course(_held(source, found, number), no_cells())
    if found.located and source.lag_s is not None:
        return _of_lag(source, found, number)
    if found.located and is_full_time(source):
        return _of_means(source, found, number, seen)
    return _straight(source, found, number)


def no_cells() -> Cells:
    """Not one."""
    none = np.zeros(0)
    return Cells(none.astype(np.int64), none.astype(np.int64), none, none, none, none, none, none.astype(np.bool_))


def _gap_limit_ns(source: Source) -> int:
    return round(gap_limit_s(source) * 1e9)


# --- counters --------------------------------------------------------------------------------------------------------


def _of_counter(source: Source, found: Updates, number: int) -> Course:
    """The counter's steps between neighbours no further apart than the limit, resets left out."""
    # Of several values at one instant the last one holds: the steps around them then lose and gain nothing.
    last = np.append(np.diff(found.time_ns) > 0, True)[: len(found.time_ns)]
    time_ns, value, read_ns, doubt_ns = (
        part[last] for part in (found.time_ns, found.value, found.read_ns, found.doubt_ns)
    )
    length_ns = np.diff(time_ns)
    near = length_ns <= _gap_limit_ns(source)
    step_j, known = _steps(source, value, length_ns / 1e9, near)
    keep = known & near
    start_ns, end_ns, step_j = time_ns[:-1][keep], time_ns[1:][keep], step_j[keep]
    length_s = (end_ns - start_ns) / 1e9
    power_w = step_j / length_s
    touching = end_ns[:-1] == start_ns[1:]
    peak_w = _mean_peak_w(step_j, length_s, touching, source.period_s / 2)
    doubt_s = np.maximum(doubt_ns[:-1], doubt_ns[1:])[keep] / 1e9
    if found.located:
        edge_j = np.full(len(power_w), source.resolution / np.sqrt(12))
        doubts = (edge_j, doubt_s, np.full(len(power_w), BLOCK * source.period_s))
        return drawn(start_ns, end_ns, power_w, peak_w, doubts, number)
    # When the counter was updated is not known: its value at an edge lies anywhere between the readings around it.
    read_s = np.maximum(read_ns[:-1], read_ns[1:])[keep] / 1e9
    edge_j2 = (_with_neighbours(step_j, touching) ** 2 + (power_w * read_s) ** 2 + source.resolution**2) / 12
    none = np.zeros(len(power_w))
    cells = Cells(start_ns, end_ns, power_w, none, np.sqrt(edge_j2), doubt_s, none, np.ones(len(power_w), np.bool_))
    return Course(_flat(start_ns, end_ns, power_w, peak_w, number), cells)


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


# --- power ------------------------------------------------------------------------------------------------------------


def _of_means(source: Source, found: Updates, number: int, seen: Seen | None) -> Course:
    """Means over the time since the update before: cells."""
    made = _cells_of(source, found, found.value[1:], number, seen)
    return _own_doubts(source, made) if source.jitter_s or source.scatter else made


def _own_doubts(source: Source, made: Course) -> Course:
    """With what is in doubt of each mean by itself: how well its sensor sees its time, and when that began and ended.

    An update that is told too late by t gives the cell before it t x the difference of both cells' power too much: half
    of that variance to each.
    """
    cells, segments = made.cells, made.segments
    length_s = (cells.end_ns - cells.start_ns) / 1e9
    before, after = _beside(cells.power_w, cells.end_ns[:-1] == cells.start_ns[1:])
    moved_j2 = source.jitter_s**2 * ((cells.power_w - before) ** 2 + (after - cells.power_w) ** 2) / 2
    variance_j2 = (source.scatter * cells.power_w * length_s) ** 2 + moved_j2
    return Course(_with_sampling(segments, _shared_out(variance_j2, cells, segments)), cells)


def _shared_out(variance_j2: Floats, cells: Cells, segments: Segments) -> Floats:
    """(n,) what of the variance of its cell each segment has, by its length."""
    cell = np.searchsorted(cells.start_ns, segments.start_ns, side="right") - 1
    share = (segments.end_ns - segments.start_ns) / (cells.end_ns - cells.start_ns)[cell]
    return np.asarray(variance_j2[cell] * share, np.float64)


def _of_lag(source: Source, found: Updates, number: int) -> Course:
    """A first-order low-pass undone: cells.

    Between two updates y0 and y1, a time d apart, power p makes y1 = p + (y0 - p) exp(-d / lag). So p is a mean of the
    power between them, weighted towards the later; it is exact where the power was steady. A jump somewhere between
    them is weighted by where it was, which nobody knows: see `_lag_variance`.
    """
    assert source.lag_s is not None
    length_s = np.diff(found.time_ns) / 1e9
    decay = np.exp(-length_s / source.lag_s)
    power_w = np.maximum(0.0, (found.value[1:] - found.value[:-1] * decay) / (1 - decay))
    # The weights' middle lies after the interval's: that of exp(a x) is 1 / (1 - exp(-a)) - 1 / a.
    late_s = float(np.median(length_s / (1 - decay) - source.lag_s - length_s / 2)) if len(length_s) else 0.0
    seen = low_pass(float(np.median(length_s)) / source.lag_s) if len(length_s) else MEANS
    made = _cells_of(source, _later(found, late_s), power_w, number, seen)
    cells, segments = made.cells, made.segments
    length_s = (cells.end_ns - cells.start_ns) / 1e9
    touching = cells.end_ns[:-1] == cells.start_ns[1:]
    jump_w = _jump_w(cells.power_w, touching)
    variance_j2 = (jump_w * length_s) ** 2 * _lag_variance(length_s / source.lag_s)
    variance_j2 += hidden(cells.power_w, touching, seen).sampling_w2 * length_s**2
    return Course(_with_sampling(segments, _shared_out(variance_j2, cells, segments)), cells)


def _later(found: Updates, by_s: float) -> Updates:
    return replace(found, time_ns=found.time_ns + round(by_s * 1e9))


def _lag_variance(ratio: Floats) -> Floats:
    """Variance of the weighted against the true mean of a unit jump at a place of which nothing is known.

    With weights exp(a x) over x from 0 to 1, a = `ratio`: the integral of (G(f) - f)^2 over f, G the weights' sum up to
    f. Its series is a^2 / 120; beyond a = 1 that is an upper bound good enough (3 % too much at 1, 25 % at 3).
    """
    return np.minimum(ratio, 3.0) ** 2 / 120


def _cells_of(source: Source, found: Updates, power_w: Floats, number: int, seen: Seen | None) -> Course:
    """Cells between neighbouring updates no further apart than the limit; (n,) updates, (n - 1,) powers."""
    length_ns = np.diff(found.time_ns)
    keep = (length_ns > 0) & (length_ns <= _gap_limit_ns(source))
    start_ns, end_ns, power_w = found.time_ns[:-1][keep], found.time_ns[1:][keep], power_w[keep]
    doubt_s = np.maximum(found.doubt_ns[:-1], found.doubt_ns[1:])[keep] / 1e9
    # Energy is power x time here, and a shift of all updates moves only what differs at a window's edges, for ever.
    doubts = (np.zeros(len(power_w)), doubt_s, np.full(len(power_w), np.inf))
    return drawn(start_ns, end_ns, power_w, power_w, doubts, number, seen)


def _straight(source: Source, found: Updates, number: int) -> Course:
    """Straight lines between neighbours no further apart than the limit, each value at the middle of what it averages.

    *Variance.* Between two values that differ there was, at worst, a jump at any instant: difference x time / sqrt(12).
    Where the differences around are as large, each value stands for its interval while the power scatters: half of the
    mean square of successive differences (von Neumann's estimate), for the share of the time that is not seen.
    """
    time_ns = found.time_ns - round(_delay_s(source) * 1e9)
    length_ns = np.diff(time_ns)
    first_w, last_w = found.value[:-1], found.value[1:]
    keep = (length_ns > 0) & (length_ns <= _gap_limit_ns(source))
    length_s = length_ns / 1e9
    change2 = np.asarray((last_w - first_w) ** 2, np.float64)
    unseen_s = length_s * (1 - _seen(source))
    sampling_j2 = unseen_s**2 * (change2 / 12 + _median_of_three(change2) * 5 / 12)
    peak_w, numbered = np.maximum(first_w, last_w), _numbered(len(first_w), number)
    every = Segments(time_ns[:-1], time_ns[1:], first_w, last_w, peak_w, sampling_j2, numbered)
    segments = every.take(keep)
    return Course(segments, _edges_in_doubt(source, found, segments, keep))


def _edges_in_doubt(source: Source, found: Updates, segments: Segments, keep: Bools) -> Cells:
    """An edge is in doubt by the time that the values may be off, times the range of the power around it.

    A mean over a time W, drawn at its middle, puts the energy up to a jump nearby off by W x jump x 1 / sqrt(320), root
    mean square.
    """
    averaging_s = source.averaging_s if source.averaging_s is not None else UNKNOWN_DELAY_S
    unknown_s = 0.0 if source.averaging_s is not None or source.lag_s is not None else UNKNOWN_DELAY_S / 2 / np.sqrt(3)
    doubt_s = np.maximum(found.doubt_ns[:-1], found.doubt_ns[1:])[keep] / 1e9
    timing_s = np.sqrt(averaging_s**2 / 320 + unknown_s**2)
    typical_s = float(np.median(segments.end_ns - segments.start_ns)) / 1e9 if len(segments) else 1.0
    reach = 1 + 2 * round(max(averaging_s, unknown_s) / typical_s)
    high = maximum_filter1d(segments.peak_w, reach, mode="nearest")
    low = minimum_filter1d(np.minimum(segments.first_w, segments.last_w), reach, mode="nearest")
    mean_w = (segments.first_w + segments.last_w) / 2
    none, for_ever = (np.broadcast_to(value, len(segments)) for value in (0.0, np.inf))  # of a day's trace, no memory
    edge_j = timing_s * (high - low)
    whole = np.broadcast_to(False, len(segments))
    return Cells(segments.start_ns, segments.end_ns, mean_w, none, edge_j, doubt_s, for_ever, whole)


def _seen(source: Source) -> float:
    """Share of the time that a source's values are means of; 0 where that is not known."""
    return min(1.0, (source.averaging_s or 0.0) / source.update_s) if source.update_s else 0.0


def _delay_s(source: Source) -> float:
    """How far in the past the middle of what a value averages lies, seconds."""
    return source.lag_s if source.lag_s is not None else (source.averaging_s or 0.0) / 2


def _median_of_three(values: Floats) -> Floats:
    """(n,) median of each value and its two neighbours; at the ends the smaller of two."""
    if len(values) < 2:
        return np.zeros(len(values))
    before, after = np.append(values[1], values[:-1]), np.append(values[1:], values[-2])
    return np.maximum(np.minimum(before, after), np.minimum(values, np.maximum(before, after)))


def _held(source: Source, found: Updates, number: int) -> Segments:
    """Each value until the next, the limit, or, of a constant, the next failure."""
    time_ns = found.time_ns
    next_ns = np.append(time_ns[1:], FOR_EVER_NS)[: len(time_ns)]
    end_ns = np.minimum(next_ns, _hold_ends_ns(source, found))
    change_w = np.append(np.diff(found.value), 0.0)[: len(time_ns)]
    change_w = np.where(end_ns == next_ns, change_w, 0.0)
    keep = end_ns > time_ns
    sampling_j2 = (change_w * ((end_ns - time_ns) / 1e9)) ** 2 / 2
    value, numbered = found.value, _numbered(len(found.value), number)
    return Segments(time_ns, end_ns, value, value, value, sampling_j2, numbered).take(keep)


def _hold_ends_ns(source: Source, found: Updates) -> Ints:
    """(n,) when each held value ends to count, were there no next."""
    if source.name != "constant":
        return found.time_ns + _gap_limit_ns(source)
    failures_ns = np.append(found.failed_ns, FOR_EVER_NS)
    return failures_ns[np.searchsorted(found.failed_ns, found.time_ns, side="right")]


# --- the course within cells ------------------------------------------------------------------------------------------


def drawn(
    start_ns: Ints,
    end_ns: Ints,
    power_w: Floats,
    peak_w: Floats,
    doubts: tuple[Floats, Floats, Floats],
    number: int,
    seen: Seen | None = MEANS,
) -> Course:
    """Cells with the power drawn inside them as their neighbours suggest; each keeps its energy.

    A cell between two level stretches of different power holds a jump: where, its own mean tells. Any other has the
    slope of the smaller difference to its neighbours, or none at a peak, so that no power is drawn that is not there.
    """
    touching = end_ns[:-1] == start_ns[1:]
    before, after = _beside(power_w, touching)
    jump, low_w, high_w = _jumps(power_w, touching)
    slope_w = _slope_w(start_ns, end_ns, power_w, before, after)
    slope_w[jump] = 0.0
    first_w, last_w = power_w - slope_w / 2, power_w + slope_w / 2
    course_w = _course_w(power_w, before, after, jump, low_w, high_w)
    if seen is not None:
        course_w = np.maximum(course_w, hidden(power_w, touching, seen).course_w)
    whole = np.broadcast_to(True, len(power_w))
    cells = Cells(start_ns, end_ns, power_w, course_w, *doubts, whole)
    plain = Segments(start_ns, end_ns, first_w, last_w, peak_w, np.zeros(len(power_w)), _numbered(len(power_w), number))
    return Course(_split(plain, jump, low_w, high_w), cells)


def _beside(power_w: Floats, touching: Bools) -> tuple[Floats, Floats]:
    """(n,) power of the cell before and of the cell after each; its own where none touches it."""
    before, after = power_w.copy(), power_w.copy()
    before[1:] = np.where(touching, power_w[:-1], power_w[1:])
    after[:-1] = np.where(touching, power_w[1:], power_w[:-1])
    return before, after


def _slope_w(start_ns: Ints, end_ns: Ints, power_w: Floats, before: Floats, after: Floats) -> Floats:
    """(n,) change of the power over each cell: the smaller difference to its neighbours' middles, 0 at an extreme."""
    rise, follow = power_w - before, after - power_w
    smaller = np.where(np.abs(rise) < np.abs(follow), rise, follow)
    slope = np.where(rise * follow > 0, smaller, 0.0)
    # Never below 0 W: the power at either end stays within the cell's mean.
    return np.clip(slope, -2 * power_w, 2 * power_w)


def _jumps(power_w: Floats, touching: Bools) -> tuple[Bools, Floats, Floats]:
    """(n,) whether each cell holds a single jump, and the power before and after it."""
    count = len(power_w)
    jump = np.zeros(count, np.bool_)
    before, after = power_w.copy(), power_w.copy()
    if count < 5:
        return jump, before, after
    inner = slice(2, count - 2)
    p = power_w
    joined = touching[:-3] & touching[1:-2] & touching[2:-1] & touching[3:]
    before[inner], after[inner] = p[1:-3], p[3:-1]
    height = np.abs(p[3:-1] - p[1:-3])
    level = np.maximum(np.abs(p[1:-3] - p[:-4]), np.abs(p[4:] - p[3:-1]))
    between = (p[inner] - p[1:-3]) * (p[3:-1] - p[inner]) >= 0
    jump[inner] = joined & between & (height > JUMP_RATIO * level) & (height > 0)
    return jump, before, after


SHORTEST_S = 1e-6
"""A part of a cell shorter than this is none: rounding to nanoseconds would show in its power."""

COURSE_FLOOR = 0.003
"""What a cell's power may hide at least, as a share of it: no load is steady to the last watt."""

AROUND = 15
"""A load that was rough in so many cells around may be rough in this one, though its neighbours do not show it."""

ROUGHNESS = 1.0
SLOPE_DOUBT = 0.6
JUMP_DOUBT = 0.1
"""A jump that the neighbours suggest leaves this share of the doubt that a jump at an unknown instant would."""


def _course_w(power_w: Floats, before: Floats, after: Floats, jump: Bools, low_w: Floats, high_w: Floats) -> Floats:
    """(n,) how far from its drawing the power may run within each cell.

    A jump by D at an unknown instant puts the energy up to an edge at the share x of the cell off by
    D x length x x(1 - x) / sqrt(3), root mean square: the kernel that `Timeline.energy` uses, D being this.
    """
    unknown_w = np.maximum(np.abs(power_w - before), np.abs(after - power_w))
    unknown_w = np.where((power_w - before) * (after - power_w) > 0, SLOPE_DOUBT, 1.0) * unknown_w
    course = np.where(jump, JUMP_DOUBT * np.abs(high_w - low_w), unknown_w)
    bend_w = before - 2 * power_w + after
    around_w = ROUGHNESS * np.sqrt(np.maximum(0.0, uniform_filter1d(bend_w**2, AROUND, mode="nearest")))
    return np.asarray(np.maximum(np.maximum(course, around_w), COURSE_FLOOR * power_w), np.float64)


def _jump_w(power_w: Floats, touching: Bools) -> Floats:
    """(n,) largest difference of each cell's power to those that touch it."""
    before, after = _beside(power_w, touching)
    return np.asarray(np.maximum(np.abs(power_w - before), np.abs(after - power_w)), np.float64)


def _split(segments: Segments, jump: Bools, low_w: Floats, high_w: Floats) -> Segments:
    """Each segment with a jump in two, at the instant that keeps its energy."""
    if not jump.any():
        return segments
    middle_w = (segments.first_w + segments.last_w)[jump] / 2
    share = (high_w[jump] - middle_w) / (high_w[jump] - low_w[jump])
    length_ns = (segments.end_ns - segments.start_ns)[jump]
    cut_ns = segments.start_ns[jump] + np.round(share * length_ns).astype(np.int64)
    # The rounded instant must not change the energy: the second part takes what the first leaves.
    first_s, last_s = (cut_ns - segments.start_ns[jump]) / 1e9, (segments.end_ns[jump] - cut_ns) / 1e9
    energy_j = middle_w * (length_ns / 1e9)
    whole = np.minimum(first_s, last_s) < SHORTEST_S
    before_w = np.where(whole, middle_w, low_w[jump])
    after_w = np.where(whole, middle_w, (energy_j - before_w * first_s) / np.where(whole, 1.0, last_s))
    rows = np.repeat(np.arange(len(segments)), np.where(jump, 2, 1))
    parts = segments.take(rows)
    first = np.flatnonzero(np.diff(rows, append=-1) == 0)
    start_ns, end_ns = parts.start_ns.copy(), parts.end_ns.copy()
    first_w, last_w = parts.first_w.copy(), parts.last_w.copy()
    end_ns[first], start_ns[first + 1] = cut_ns, cut_ns
    first_w[first], last_w[first], first_w[first + 1], last_w[first + 1] = before_w, before_w, after_w, after_w
    made = Segments(start_ns, end_ns, first_w, last_w, parts.peak_w, parts.sampling_j2, parts.source)
    return made.take(made.end_ns > made.start_ns)


def _flat(start_ns: Ints, end_ns: Ints, power_w: Floats, peak_w: Floats, number: int) -> Segments:
    zeros = np.zeros(len(power_w))
    return Segments(start_ns, end_ns, power_w, power_w, peak_w, zeros, _numbered(len(power_w), number))


def _with_sampling(segments: Segments, sampling_j2: Floats) -> Segments:
    s = segments
    return Segments(s.start_ns, s.end_ns, s.first_w, s.last_w, s.peak_w, s.sampling_j2 + sampling_j2, s.source)


def _numbered(count: int, number: int) -> npt.NDArray[np.uint8]:
    return np.full(count, number, np.uint8)
