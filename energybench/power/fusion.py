"""Several sources of one channel made one: totals of the best, the course of the finest, gaps filled by the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.ndimage import uniform_filter1d

from energybench.power.meter import Source
from energybench.power.running import Running
from energybench.power.segments import AROUND, Bools, Cells, Course, Segments, is_full_time, is_part_time
from energybench.power.series import Floats, Ints

FINER = 0.5
"""A source whose updates are at most so far apart, against those of another, draws the other's cells."""

BRIDGING = 0.02
"""Standard uncertainty of a gap's energy, as a share, where another source of the board stands in."""

AGREEING = 0.01
"""Two sensors of a board that differ by no more than this share agree: an H100's differ by up to 0.8 %."""

TELLING = 0.01
"""Spans whose edges lie so near to those of the cells, as a share of a cell squared, tell nothing of their inside."""

WITNESSES = 31
"""So many means of another sensor around a cell say whether it swings as it seems to."""

UNLIKE = 0.25
"""They do where what is drawn leaves no more than this share of their variance."""


def ranked(sources: Sequence[Source]) -> list[Source]:
    """Best first: counters, then what sees all of the time, then by how much; the session's order decides ties.

    A source of which nothing is known stands where the session put it among the power sources.
    """
    return sorted(sources, key=_rank)


def _rank(source: Source) -> int:
    if source.quantity == "energy_j":
        return 0
    if is_full_time(source):
        return 1
    return 3 if is_part_time(source) else 2


def resolution_s(source: Source) -> float:
    """Over how much time a source's values blur the power, seconds; infinite where that is not known."""
    if source.update_s is None:
        return float("inf")
    blur_s = source.averaging_s if source.averaging_s is not None else float("inf")
    return max(source.update_s, blur_s)


def shape_for(source: Source, others: Sequence[Source]) -> Source | None:
    """Of the power sources `others` the finest one that is fine enough to draw the cells of `source`; None: none is."""
    if not is_full_time(source) or source.update_s is None:
        return None
    fine = [other for other in others if other.quantity == "power_w" and other is not source]
    fine = [other for other in fine if resolution_s(other) <= FINER * source.update_s]
    return min(fine, key=resolution_s, default=None)


def shaped(total: Course, shape: Course) -> Course:
    """The cells of `total` drawn as `shape` runs, scaled so that each keeps its energy.

    Cells that `shape` does not cover throughout, or in which it sees no power, stay as they are.
    """
    cells = total.cells
    pieces = _cut(shape.segments, cells.start_ns, cells.end_ns)
    cell = _inside(cells.start_ns, cells.end_ns, pieces.start_ns)
    energy_j = np.bincount(cell[cell >= 0], pieces.energy_j[cell >= 0], len(cells.start_ns))
    covered_ns = np.bincount(cell[cell >= 0], (pieces.end_ns - pieces.start_ns)[cell >= 0], len(cells.start_ns))
    length_ns = cells.end_ns - cells.start_ns
    drawn = (np.round(covered_ns).astype(np.int64) == length_ns) & (energy_j > 0)
    own_j = cells.power_w * (length_ns / 1e9)
    scale = np.divide(own_j, energy_j, out=np.ones(len(own_j)), where=drawn)
    used = (cell >= 0) & drawn[cell]
    fine = _scaled(pieces.take(used), scale[cell[used]])
    coarse = total.segments.take(~drawn[_inside(cells.start_ns, cells.end_ns, total.segments.start_ns)])
    sampling_j2 = np.bincount(cell[used], pieces.sampling_j2[used], len(cells.start_ns)).astype(np.float64)
    return Course(_in_order(fine, coarse), _finer_cells(total, shape, drawn, sampling_j2))


def doubted(total: Course, mean_w: Floats, start_ns: Ints, end_ns: Ints) -> Course:
    """`total` with more doubt of the power within its cells, where means over other spans contradict its drawing.

    A load that changes in the rhythm of the cells makes them all alike. Another sensor, whose means begin and end
    elsewhere, does not see what is drawn then. A jump by D at an unknown instant puts the energy of such a span off by
    D x length x x(1 - x) / sqrt(3) at each edge that cuts a cell at its share x; with both edges in one cell, x is the
    share between them, and it counts once. All spans around together tell D.

    Args:
        total: cells and how they are drawn.
        mean_w: (n,) what the other sensor tells.
        start_ns: (n,) beginning of the span that each is the mean of.
        end_ns: (n,) its end.
    """
    cells = total.cells
    length_s = (cells.end_ns - cells.start_ns) / 1e9
    first, last = (_inside(cells.start_ns, cells.end_ns, time_ns) for time_ns in (start_ns, end_ns))
    sums = Running(total.segments)
    until = [sums.until(time_ns) for time_ns in (start_ns, end_ns)]
    drawn_j, drawn_ns = until[1][0] - until[0][0], until[1][1] - until[0][1]
    told = (first >= 0) & (last >= 0) & (drawn_ns == end_ns - start_ns)
    told_j = mean_w * ((end_ns - start_ns) / 1e9)
    apart_j = np.maximum(0.0, np.abs(told_j - drawn_j) - AGREEING * drawn_j)[told]
    first, last = first[told], last[told]
    x, y = (
        (time_ns[told] - cells.start_ns[cell]) / (cells.end_ns - cells.start_ns)[cell]
        for cell, time_ns in ((first, start_ns), (last, end_ns))
    )
    apart_s2 = (length_s[first] * x * (1 - x)) ** 2 + (length_s[last] * y * (1 - y)) ** 2
    seen_s2 = np.where(first == last, (length_s[first] * (y - x) * (1 - y + x)) ** 2, apart_s2)
    apart_j2, seen = np.zeros(len(length_s)), np.zeros(len(length_s))
    for cell in (first, last):
        apart_j2 += np.bincount(cell, apart_j**2, len(length_s))
        seen += np.bincount(cell, seen_s2, len(length_s))
    apart_j2, seen = (np.maximum(0.0, uniform_filter1d(one, AROUND, mode="nearest")) for one in (apart_j2, seen))
    telling = seen > TELLING * length_s**2
    hidden_w = np.sqrt(np.divide(3 * apart_j2, seen, out=np.zeros(len(seen)), where=telling))
    return replace(total, cells=replace(cells, course_w=np.maximum(cells.course_w, hidden_w)))


def borne_out(fine: Course, without: Course, mean_w: Floats, start_ns: Ints, end_ns: Ints) -> Course:
    """`fine` without the doubt that a swing is the alias of a faster one, where another sensor's means show it too.

    Short means that begin elsewhere see a fast swing, but not when and as the cells seem to swing: their power is then
    no more like what is drawn than its mean is. All of them around together tell.

    Args:
        fine: cells and how they are drawn.
        without: the same cells, were there no faster swing.
        mean_w: (n,) what the other sensor tells.
        start_ns: (n,) beginning of the span that each is the mean of.
        end_ns: (n,) its end.
    """
    cells = fine.cells
    sums = Running(fine.segments)
    until = [sums.until(time_ns) for time_ns in (start_ns, end_ns)]
    told = until[1][1] - until[0][1] == end_ns - start_ns
    if not told.any():
        return fine
    told_w, middle_ns = mean_w[told], ((start_ns + end_ns) // 2)[told]
    drawn_w = (until[1][0] - until[0][0])[told] / ((end_ns - start_ns)[told] / 1e9)
    apart_w2, level_w, square_w2 = (
        uniform_filter1d(one, WITNESSES, mode="nearest") for one in ((told_w - drawn_w) ** 2, told_w, told_w**2)
    )
    alike = apart_w2 <= UNLIKE * np.maximum(0.0, square_w2 - level_w**2)
    nearest = np.minimum(np.searchsorted(middle_ns, (cells.start_ns + cells.end_ns) // 2), len(alike) - 1)
    course_w = np.where(alike[nearest], without.cells.course_w, cells.course_w)
    return replace(fine, cells=replace(cells, course_w=course_w))


def _finer_cells(total: Course, shape: Course, drawn: Bools, sampling_j2: Floats) -> Cells:
    """Where a window's edge falls into a drawn cell it is in doubt as far as the finer source leaves it.

    What a part-time source does not see in a cell is in doubt half-way and known again at its ends: at the share x of
    the cell the variance is that of all of it times x(1 - x).
    """
    cells, fine = total.cells, shape.cells
    middle_ns = (fine.start_ns + fine.end_ns) // 2
    inside = _inside(cells.start_ns, cells.end_ns, middle_ns)
    chosen = (inside >= 0) & drawn[inside]
    kept, inside = fine.take(chosen), inside[chosen]
    share = (middle_ns[chosen] - cells.start_ns[inside]) / (cells.end_ns - cells.start_ns)[inside]
    jump_w = np.abs(np.diff(kept.power_w, prepend=kept.power_w[:1]))
    moved_j = kept.shift_s * np.maximum(jump_w, np.append(jump_w[1:], 0.0)[: len(jump_w)])
    edge_j2 = kept.edge_j**2 + moved_j**2 + cells.edge_j[inside] ** 2 + sampling_j2[inside] * share * (1 - share)
    doubts = (np.sqrt(edge_j2), cells.shift_s[inside], cells.steady_s[inside], kept.whole)
    kept = Cells(kept.start_ns, kept.end_ns, kept.power_w, kept.course_w, *doubts)
    return _cells_in_order(kept, cells.take(~drawn))


def _cells_in_order(a: Cells, b: Cells) -> Cells:
    """Both together, in the order of time."""
    joined = Cells(*(np.concatenate(pair) for pair in zip(a.columns(), b.columns(), strict=True)))
    return joined.take(np.argsort(joined.start_ns, kind="stable"))


def _scaled(pieces: Segments, scale: Floats) -> Segments:
    """Pieces whose cell's energy is known: none of it is in doubt but where an edge cuts the cell."""
    return Segments(
        pieces.start_ns,
        pieces.end_ns,
        pieces.first_w * scale,
        pieces.last_w * scale,
        pieces.peak_w * scale,
        np.zeros(len(pieces)),
        pieces.source,
    )


def filled(course: Course, other: Course) -> Course:
    """`course`, and `other` where it has gaps, with the doubt of a board's sources against each other."""
    gap_start_ns, gap_end_ns = gaps(course.segments)
    pieces = _cut(other.segments, gap_start_ns, gap_end_ns)
    gap = _inside(gap_start_ns, gap_end_ns, pieces.start_ns)
    pieces = pieces.take(gap >= 0)
    if not len(pieces):
        return course
    bridged = Segments(
        pieces.start_ns,
        pieces.end_ns,
        pieces.first_w,
        pieces.last_w,
        pieces.peak_w,
        pieces.sampling_j2 + (BRIDGING * pieces.energy_j) ** 2,
        pieces.source,
    )
    cells = other.cells
    inside = _inside(gap_start_ns, gap_end_ns, (cells.start_ns + cells.end_ns) // 2)
    return Course(_in_order(course.segments, bridged), _cells_in_order(course.cells, cells.take(inside >= 0)))


def gaps(segments: Segments) -> tuple[Ints, Ints]:
    """Start and end of all time without a segment, from for ever to for ever."""
    for_ever = np.array([2**62], np.int64)
    start_ns = np.concatenate((-for_ever, segments.end_ns))
    end_ns = np.concatenate((segments.start_ns, for_ever))
    open_ = end_ns > start_ns
    return start_ns[open_], end_ns[open_]


def _inside(start_ns: Ints, end_ns: Ints, time_ns: Ints) -> Ints:
    """(n,) number of the span that holds each time; -1: none does. Spans are in the order of time."""
    if not len(start_ns):
        return np.full(len(time_ns), -1)
    place = np.searchsorted(start_ns, time_ns, side="right") - 1
    return np.where((place >= 0) & (time_ns < end_ns[place]), place, -1)


def _cut(segments: Segments, start_ns: Ints, end_ns: Ints) -> Segments:
    """Segments cut at the ends of the spans, so that each piece lies in one span or in none."""
    cuts = np.unique(np.concatenate((start_ns, end_ns)))
    first = np.searchsorted(cuts, segments.start_ns, side="right")
    count = np.searchsorted(cuts, segments.end_ns, side="left") - first
    if not count.any():
        return segments
    rows = np.repeat(np.arange(len(segments)), count + 1)
    offset = np.arange(len(rows)) - np.repeat(np.cumsum(count + 1) - (count + 1), count + 1)
    cut_at = first[rows] + offset
    begin_ns = np.where(offset == 0, segments.start_ns[rows], cuts[np.maximum(cut_at - 1, 0)])
    finish_ns = np.where(offset == count[rows], segments.end_ns[rows], cuts[np.minimum(cut_at, len(cuts) - 1)])
    return part(segments.take(rows), begin_ns, finish_ns)


def part(segments: Segments, begin_ns: Ints, finish_ns: Ints) -> Segments:
    """The part of each segment from `begin_ns` to `finish_ns`, which lie inside it."""
    length_ns = segments.end_ns - segments.start_ns
    rise_w = segments.last_w - segments.first_w
    low, high = (begin_ns - segments.start_ns) / length_ns, (finish_ns - segments.start_ns) / length_ns
    return Segments(
        begin_ns,
        finish_ns,
        segments.first_w + rise_w * low,
        segments.first_w + rise_w * high,
        segments.peak_w,
        segments.sampling_j2 * (high - low) ** 2,
        segments.source,
    )


def _in_order(a: Segments, b: Segments) -> Segments:
    """Both together, in the order of time."""
    joined = Segments(
        np.concatenate((a.start_ns, b.start_ns)),
        np.concatenate((a.end_ns, b.end_ns)),
        np.concatenate((a.first_w, b.first_w)),
        np.concatenate((a.last_w, b.last_w)),
        np.concatenate((a.peak_w, b.peak_w)),
        np.concatenate((a.sampling_j2, b.sampling_j2)),
        np.concatenate((a.source, b.source)),
    )
    return joined.take(np.argsort(joined.start_ns, kind="stable"))
