"""When a sensor had its new values, told from when it was read: pure arithmetic.

A sensor that renews its value every 100 ms and is read at some time shows the value of up to 100 ms ago. Its updates
beat regularly, so their phase can be told from many readings: between two readings that differ there was an update,
and of a counter that runs on, between two that are equal there was none. Reading a little faster than the beat lets
the readings wander over it, and each turn narrows the phase to the length of a read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energybench.power.meter import Source
from energybench.power.series import NO_TIME, Columns, Floats, Ints

Bools = npt.NDArray[np.bool_]

BLOCK = 256
"""Readings that share one phase: so long a sensor's clock may be taken for steady."""

BINS = 512
"""Phases that are told apart within one period."""

DRIFT = 5e-3
"""How far, as a share, a sensor's true period is looked for around the declared one."""

TRIED_PERIODS = 81
WORST_SHARE = 0.05
"""A beat is believed when no more than this share of the readings speak against it."""

PROMPT = 10.0

WIDEST_ARC = 0.2
"""A phase that is not known to within twice this share of the period is not known."""

FEWEST_CHANGES = 3


@dataclass(frozen=True)
class Updates:
    """A source's distinct values in the order of time.

    Attributes:
        time_ns: (n,) int64, when each value was taken.
        value: (n,) float64, watts or joules.
        doubt_ns: (n,) float64, standard uncertainty of `time_ns`, besides what is common to all of the source's times.
        read_ns: (n,) int64, how long the read took; 0 where the sensor told the time or the beat is known.
        failed_ns: (m,) int64, times of the failed reads.
        located: whether the updates themselves were found, be it by the sensor's own stamps.
        pace_u: relative standard uncertainty of the time between two updates, where it was found from the readings.
    """

    time_ns: Ints
    value: Floats
    doubt_ns: Floats
    read_ns: Ints
    failed_ns: Ints
    located: bool
    pace_u: float = 0.0

    def beat_s(self) -> float | None:
        """Time between two updates, seconds (median); None where they were not found."""
        return float(np.median(np.diff(self.time_ns))) / 1e9 if self.located and len(self.time_ns) > 1 else None


@dataclass(frozen=True)
class Beat:
    """Instants phase + i x period.

    Attributes:
        period_ns: time between two updates.
        phase_ns: (blocks,) one of the updates, for each block of readings.
        half_ns: (blocks,) half of the arc of phases that the readings allow.
        pace_u: relative standard uncertainty of the period.
    """

    period_ns: float
    phase_ns: Floats
    half_ns: Floats
    pace_u: float


def updates(source: Source, columns: Columns | None) -> Updates:
    """The values of one source and when they were taken.

    A source that stamps its updates is taken at its word. One that declares
    `update_s` has its beat looked for; readings of the same update count once, and one so close to an update that it
    may show the value before or after it does not count. Where no beat fits, and where none is declared, each reading
    stands for the middle of its read. `source.time_uncertainty_s`, which is common to all, is no part of `doubt_ns`.
    """
    if columns is None or not len(columns):
        empty = np.zeros(0, np.int64)
        return Updates(empty, empty.astype(float), empty.astype(float), empty, empty, False)
    time_ns = columns.time_ns
    order = np.argsort(time_ns, kind="stable")
    valid = np.isfinite(columns.value[order])
    kept, failed_ns = order[valid], time_ns[order[~valid]]
    told = bool(len(kept)) and bool((columns.sensor_ns[kept] != NO_TIME).all())
    stamped = told and not source.stamps_reads
    start_ns, end_ns = columns.read_start_ns[kept], columns.read_end_ns[kept]
    if told and source.stamps_reads:
        start_ns = end_ns = columns.sensor_ns[kept]
    if not stamped and source.update_s:
        found = _located(source, start_ns, end_ns, columns.value[kept], failed_ns)
        if found is not None:
            return found
    told_ns, value = time_ns[kept], columns.value[kept]
    read_ns = np.where(columns.sensor_ns[kept] == NO_TIME, end_ns - start_ns, 0)
    again = np.append(False, (np.diff(told_ns) == 0) & (np.diff(value) == 0))[: len(kept)]
    doubt_ns = np.zeros(len(told_ns))
    if source.quantity == "energy_j" and _is_prompt(source, told_ns):
        # Renewed far more often than it is read, a counter is right at the read: when in it is all the doubt.
        doubt_ns = np.hypot(source.update_s or 0.0, read_ns / 1e9) / np.sqrt(12) * 1e9
        return Updates(told_ns[~again], value[~again], doubt_ns[~again], 0 * read_ns[~again], failed_ns, True)
    if not stamped and source.update_s and source.quantity == "power_w":
        # Of power that never changes no beat can be seen: what is read is up to one update old.
        told_ns = told_ns - round(source.update_s / 2 * 1e9)
        doubt_ns = doubt_ns + source.update_s / np.sqrt(12) * 1e9
    return Updates(told_ns[~again], value[~again], doubt_ns[~again], read_ns[~again], failed_ns, stamped)


def _is_prompt(source: Source, time_ns: Ints) -> bool:
    """Whether a sensor is renewed at least ten times between two reads."""
    if source.update_s is None or len(time_ns) < 2:
        return False
    return float(np.median(np.diff(time_ns))) >= PROMPT * source.update_s * 1e9


def _located(source: Source, start_ns: Ints, end_ns: Ints, value: Floats, failed_ns: Ints) -> Updates | None:
    """The updates behind readings without stamps; None where no beat fits."""
    assert source.update_s is not None
    beat = find_beat(start_ns, end_ns, value, source.update_s * 1e9, running=source.quantity == "energy_j")
    if beat is None:
        return None
    # From the middle of one block to that of the next a sensor's clock drifts evenly.
    middles = (np.arange(len(beat.phase_ns)) + 0.5) * BLOCK
    steady_ns = np.unwrap(beat.phase_ns, period=beat.period_ns)
    phase_ns = np.interp(np.arange(len(value)), middles, steady_ns)
    half_ns = np.interp(np.arange(len(value)), middles, beat.half_ns)
    before = np.floor((start_ns - half_ns - phase_ns) / beat.period_ns).astype(np.int64)
    after = np.floor((end_ns + half_ns - phase_ns) / beat.period_ns).astype(np.int64)
    sure = before == after
    if source.quantity == "energy_j":
        most = np.floor((end_ns[1:] - start_ns[:-1]) / beat.period_ns).astype(np.int64) + 1
        before, sure = _counted(before, after, np.diff(value) != 0, most)
    taken_ns = phase_ns + before * beat.period_ns
    time_ns = np.round(taken_ns[sure]).astype(np.int64)
    value, half_ns = value[sure], half_ns[sure]
    # Of several readings of one update the last one stands; a phase that shifts a little between blocks is no update.
    last = np.append(np.diff(time_ns) > beat.period_ns / 2, True)[: len(time_ns)]
    doubt_ns = half_ns[last] / np.sqrt(3)
    read_ns = np.zeros(int(last.sum()), np.int64)
    return Updates(time_ns[last], value[last], doubt_ns, read_ns, failed_ns, True, beat.pace_u)


def _counted(before: Ints, after: Ints, changed: Bools, most: Ints) -> tuple[Ints, Bools]:
    """Of readings at an update of a running counter, which update they show, told from the reading before.

    Equal values are of one update; others are at least one update apart, and no more than there is time for.

    Args:
        before: (n,) the update that each reading shows, were it answered at its beginning.
        after: (n,) were it answered at its end.
        changed: (n - 1,) whether the value differs from the one before.
        most: (n - 1,) how many updates there may be between the two.

    Returns:
        The updates, and whether each is known.
    """
    shown, sure = before.copy(), before == after
    for i in np.flatnonzero(~sure[1:]) + 1:
        if not sure[i - 1]:
            continue
        least = shown[i - 1] + (1 if changed[i - 1] else 0)
        last = shown[i - 1] + (most[i - 1] if changed[i - 1] else 0)
        low, high = max(least, before[i]), min(last, after[i])
        if low == high:
            shown[i], sure[i] = low, True
    return shown, sure


def find_beat(start_ns: Ints, end_ns: Ints, value: Floats, period_ns: float, *, running: bool) -> Beat | None:
    """The beat of a sensor's updates.

    Args:
        start_ns: (n,) before each read, in the order of time.
        end_ns: (n,) after it.
        value: (n,) what it gave.
        period_ns: the declared time between two updates.
        running: whether the value changes with every update, as a counter's does: then equal values say that there was
            no update.

    Returns:
        None where fewer than three readings say anything, or too many contradict every beat.
    """
    if len(value) < 2:
        return None
    first, last, excluded = _evidence(start_ns, end_ns, value, period_ns, running=running)
    if int((value[1:] != value[:-1]).sum()) < FEWEST_CHANGES:
        return None
    period_ns, pace_u = _refined(first, last, excluded, period_ns)
    blocks = range(0, len(value) - 1, BLOCK)
    found = [_phase(first[i : i + BLOCK], last[i : i + BLOCK], excluded[i : i + BLOCK], period_ns) for i in blocks]
    against = sum(count for _, _, count in found)
    informative = int((excluded | (last - first < period_ns)).sum())
    if against > max(1.0, WORST_SHARE * informative):
        return None
    phase_ns, half_ns = (np.array([one[place] for one in found]) for place in (0, 1))
    return _borrowed(Beat(period_ns, phase_ns, half_ns, pace_u))


def _borrowed(beat: Beat) -> Beat | None:
    """Where a block's readings tell no phase, as of steady power, the nearest block that tells one stands in."""
    telling = np.flatnonzero(beat.half_ns <= beat.period_ns * WIDEST_ARC)
    if not len(telling):
        return None
    place = np.arange(len(beat.half_ns))
    after = np.minimum(np.searchsorted(telling, place), len(telling) - 1)
    before = np.maximum(after - 1, 0)
    closer = np.abs(telling[before] - place) <= np.abs(telling[after] - place)
    nearest = telling[np.where(closer, before, after)]
    return Beat(beat.period_ns, beat.phase_ns[nearest], beat.half_ns[nearest], beat.pace_u)


def _evidence(
    start_ns: Ints, end_ns: Ints, value: Floats, period_ns: float, *, running: bool
) -> tuple[Ints, Ints, Bools]:
    """(n - 1,) each: a span of time and whether an update is excluded from it, or else must lie in it.

    What says nothing is a span longer than a period that an update must lie in.
    """
    changed = value[1:] != value[:-1]
    first = np.where(changed, start_ns[:-1], end_ns[:-1])
    last = np.where(changed, end_ns[1:], start_ns[1:])
    excluded = ~changed & (last > first)
    if not running:  # an equal value may be a new one
        last = np.where(changed, last, first + np.int64(2 * period_ns))
        excluded = np.zeros(len(changed), np.bool_)
    # A counter that stands still for longer than its period does not run, and tells nothing of its beat.
    still = excluded & (last - first >= period_ns)
    return first, np.where(still, first + np.int64(2 * period_ns), last), excluded & ~still


def _refined(first: Ints, last: Ints, excluded: Bools, period_ns: float) -> tuple[float, float]:
    """The period, near the declared one, that the fewest readings of the first blocks speak against, and its doubt.

    Of several that fit as well it is the declared one, if that is among them, else the middle. The truth may be any of
    them: a rectangular distribution (GUM 4.3.7).
    """
    count = min(len(first), 4 * BLOCK)
    periods = period_ns * (1 + np.linspace(-DRIFT, DRIFT, TRIED_PERIODS))
    against = np.array([_phase(first[:count], last[:count], excluded[:count], float(one))[2] for one in periods])
    good = periods[against == against.min()]
    low, high = float(good.min()), float(good.max())
    pace_u = (high - low) / period_ns / np.sqrt(12)
    return (period_ns if low <= period_ns <= high else (low + high) / 2), pace_u


def _phase(first: Ints, last: Ints, excluded: Bools, period_ns: float) -> tuple[float, float, int]:
    """The phase that the fewest spans speak against: its middle, half of its arc, and how many speak against it."""
    origin = int(first[0])
    says = excluded | (last - first < period_ns)
    begin = np.where(excluded, first, last)[says] - origin
    length = np.where(excluded, last - first, period_ns - (last - first))[says]
    # Each informative span forbids an arc of phases: itself, or, where an update must lie in it, all but itself.
    low = np.ceil(np.mod(begin, period_ns) / period_ns * BINS).astype(np.int64)
    high = low + np.maximum(np.floor(length / period_ns * BINS).astype(np.int64), 0)
    steps = np.zeros(2 * BINS + 2, np.int64)
    np.add.at(steps, np.minimum(low, 2 * BINS), 1)
    np.add.at(steps, np.minimum(high, 2 * BINS), -1)
    against = np.cumsum(steps)[: 2 * BINS]
    against = against[:BINS] + against[BINS:]
    fewest = int(against.min())
    start, length_bins = _longest_arc(against == fewest)
    middle = (start + length_bins / 2) / BINS * period_ns
    return origin + middle, length_bins / 2 / BINS * period_ns, fewest


def _longest_arc(allowed: Bools) -> tuple[int, int]:
    """First bin and number of bins of the longest run on the circle."""
    if allowed.all():
        return 0, len(allowed)
    start = int(np.flatnonzero(~allowed)[0])
    turned = np.roll(allowed, -start).astype(np.int8)
    edges = np.diff(np.concatenate(([0], turned, [0])))
    begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    longest = int(np.argmax(ends - begins))
    return (start + int(begins[longest])) % len(allowed), int(ends[longest] - begins[longest])
