"""What a window's two edges leave in doubt: pure arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from energybench.power.running import Running
from energybench.power.segments import Cells

OWN_SHIFT = 0.35
"""Of the doubt about when a sensor was updated, this share is another at other times; the rest is always the same."""

STEEPEST = 5.0
"""A jump within a cell is taken for no more than so many times what the cell differs from its neighbour."""

LEVEL_CELLS = 2
"""The level of the power on either side of an edge is that of so many cells."""

_START, _END, _EARLIER, _LATER, _BY_START, _BY_END = 0, 1, 2, 4, 6, 10
"""Places among the times that are looked up: the edges, both edges moved, and what `_beside` gives of each."""

_OUTSIDE, _INSIDE, _NEAR, _FAR = range(4)
"""Of the four times that `_beside` gives."""


@dataclass(frozen=True)
class _Edge:
    """One edge of a window.

    Attributes:
        time_ns: when it is.
        cell: which cell it falls into; None: between two or into none.
        share: at what share of it.
        inner: the share of the cell that lies inside the window.
        outward: -1 at the start, 1 at the end.
    """

    time_ns: int
    cell: int | None
    share: float
    inner: float
    outward: int


class Edges:
    """A window, its energy, and the cells that its edges cut.

    Args:
        cells: of the course.
        sums: of its segments.
        start_ns, end_ns: the window's edges.
        late_s: standard uncertainty of all of the course's times together, seconds.

    Attributes:
        energy_j: energy of the covered time.
        covered_ns: how much of the window is covered.
    """

    def __init__(self, cells: Cells, sums: Running, start_ns: int, end_ns: int, late_s: float) -> None:
        self._cells = cells
        self._length_s = (end_ns - start_ns) / 1e9
        found = cells.start_ns.searchsorted((start_ns, end_ns), side="right") - 1
        first, x = self._cell(int(found[0]), start_ns)
        last, y = self._cell(int(found[1]), end_ns)
        self._same = first is not None and first == last
        self._start = _Edge(start_ns, first, x, y - x if self._same else 1 - x, -1)
        self._end = _Edge(end_ns, last, y, y - x if self._same else y, 1)
        self._late_s, self._own_s = self._shifts_s(late_s)
        by_ns = round(self._late_s * 1e9)
        self._at_ns = [start_ns, end_ns, start_ns - by_ns, end_ns - by_ns, start_ns + by_ns, end_ns + by_ns]
        self._at_ns += self._beside(self._start, end_ns) + self._beside(self._end, start_ns)
        energy_j, covered_ns = sums.until(np.array(self._at_ns, np.int64))
        self._until_j: list[float] = energy_j.tolist()
        self._until_ns: list[int] = covered_ns.tolist()
        self.energy_j, self.covered_ns = self._between(_START, _END)

    def variance_j2(self) -> float:
        """Independent variance of the energy; see `Timeline.energy`."""
        found = self._cut_j2() + self._begun_j2()
        if self._late_s:
            found += max(self._moved_j2(), self._late_s**2 * self._steps_w2())
        return found

    # --- where the edges are ------------------------------------------------------------------------------------------

    def _cell(self, i: int, time_ns: int) -> tuple[int | None, float]:
        """The cell that a time falls into, and at what share of it; None where it falls between two or into none."""
        cells = self._cells
        if i < 0 or time_ns > cells.end_ns[i]:
            return None, 0.0
        return i, float(time_ns - cells.start_ns[i]) / float(cells.end_ns[i] - cells.start_ns[i])

    def _beside(self, edge: _Edge, other_ns: int) -> list[int]:
        """Four times: how far the level outside and inside reaches, and the ends of a stretch that tells a level.

        Where the energy of the cut cell is known, the stretch is the cell outside. Else it is one inside the window:
        the second beside the cut one, as the value between the two may have been taken while the power jumped, or the
        first, where the window has no second. Where there is none, both ends are the same.
        """
        cells, cell, way = self._cells, edge.cell, edge.outward
        if cell is None:
            return [edge.time_ns] * 4
        reach_ns = LEVEL_CELLS * int(cells.end_ns[cell] - cells.start_ns[cell])
        inside_ns = edge.time_ns - way * reach_ns
        inside_ns = max(inside_ns, other_ns) if way > 0 else min(inside_ns, other_ns)
        if cells.whole[cell]:
            ends_ns = self._ends_ns(cell, way, 2)
        else:
            ends_ns = [time_ns for time_ns in self._ends_ns(cell, -way, 3) if (time_ns - other_ns) * way >= 0]
        near_ns, far_ns = ends_ns[-2:] if len(ends_ns) > 1 else [edge.time_ns] * 2
        return [edge.time_ns + way * reach_ns, inside_ns, near_ns, far_ns]

    def _ends_ns(self, cell: int, way: int, count: int) -> list[int]:
        """Where a cell ends, forwards (`way` 1) or backwards (-1), and those that follow and touch: `count` at most."""
        cells = self._cells
        begins, ends = (cells.start_ns, cells.end_ns) if way > 0 else (cells.end_ns, cells.start_ns)
        found = [int(ends[cell])]
        while len(found) < count:
            cell += way
            if not 0 <= cell < len(ends) or int(begins[cell]) != found[-1]:
                break
            found.append(int(ends[cell]))
        return found

    def _between(self, first: int, last: int) -> tuple[float, int]:
        """Energy and covered time from one of the times looked up to another."""
        return self._until_j[last] - self._until_j[first], self._until_ns[last] - self._until_ns[first]

    def _mean_w(self, first: int, last: int) -> float | None:
        """Mean power from one of the times looked up to another, in either order; None where nothing is covered."""
        energy_j, covered_ns = self._between(first, last)
        return energy_j / (covered_ns / 1e9) if covered_ns else None

    # --- causes -------------------------------------------------------------------------------------------------------

    def _cut_j2(self) -> float:
        """The window's edges cut cells at random; two in one cell share its doubt."""
        cells = self._cells
        if self._same:
            # Energy between two edges of one cell: the same kernel, for the part between them.
            cell, part = self._start.cell, self._start.inner
            assert cell is not None
            return self._course_j2(cell, part) + (min(1.0, 2 * part) * float(cells.edge_j[cell])) ** 2
        found = 0.0
        for edge in (self._start, self._end):
            if edge.cell is not None:
                moved_j = self._own_s * float(cells.power_w[edge.cell])
                found += self._course_j2(edge.cell, edge.share) + float(cells.edge_j[edge.cell]) ** 2 + moved_j**2
        return found

    def _course_j2(self, cell: int, share: float) -> float:
        length_s = float(self._cells.end_ns[cell] - self._cells.start_ns[cell]) / 1e9
        return (float(self._cells.course_w[cell]) * length_s * share * (1 - share)) ** 2 / 3

    def _begun_j2(self) -> float:
        """The load may begin and end with the window: what the window then has more, or less, than is drawn."""
        excess_j = 0.0
        for edge, at, beside in ((self._start, _START, _BY_START), (self._end, _END, _BY_END)):
            level_w = self._mean_w(beside + _NEAR, beside + _FAR)
            if edge.cell is None or level_w is None:
                continue
            part_j, part_ns = self._between(at, beside + _NEAR)
            apart_j = (part_j - level_w * (part_ns / 1e9)) * (1 if part_ns > 0 else -1)
            # What is drawn outside beyond the level there belongs inside; what is drawn inside below it is missing.
            known = bool(self._cells.whole[edge.cell])
            excess_j += apart_j * min(1.0, STEEPEST * edge.inner) if known else -apart_j
        return excess_j**2 / 3

    def _shifts_s(self, late_s: float) -> tuple[float, float]:
        """Of the doubt about when the updates were, what is the same at both edges and what is each edge's own."""
        cells = self._cells
        ends = [edge.cell for edge in (self._start, self._end) if edge.cell is not None]
        shift_s = max((float(cells.shift_s[cell]) for cell in ends), default=0.0)
        if not shift_s:
            return late_s, 0.0
        steady_s = min(float(cells.steady_s[cell]) for cell in ends)
        own = OWN_SHIFT**2 * (1 - math.exp(-self._length_s / steady_s)) if steady_s > 0 else 1.0
        return math.hypot(late_s, math.sqrt(1 - own) * shift_s), math.sqrt(own) * shift_s

    def _moved_j2(self) -> float:
        """All updates were earlier or later: the course as it is drawn."""
        moved = [self._between(at, at + 1) for at in (_EARLIER, _LATER)]
        # A window moved beyond the readings has lost them, which says nothing of its power.
        told = [energy_j for energy_j, covered_ns in moved if covered_ns == self.covered_ns]
        told = told or [energy_j for energy_j, _ in moved]
        apart_j2 = sum((energy_j - self.energy_j) ** 2 for energy_j in told) / len(told)
        return apart_j2 + self._late_s**2 * self._powers_w2()

    def _powers_w2(self) -> float:
        """Variance of the difference of the powers at the two edges, by what their cells may hide."""
        course_w = self._cells.course_w
        if self._same:
            return float(course_w[self._start.cell]) ** 2 * self._start.inner
        ends = [(edge.cell, edge.share) for edge in (self._start, self._end) if edge.cell is not None]
        return sum(float(course_w[cell]) ** 2 * (at**3 + (1 - at) ** 3) / 3 for cell, at in ends)

    def _steps_w2(self) -> float:
        """All updates were earlier or later, and the load begins and ends with the window: it loses at one edge."""
        found = 0.0
        for at, beside in ((_START, _BY_START), (_END, _BY_END)):
            levels = self._mean_w(beside + _OUTSIDE, at), self._mean_w(at, beside + _INSIDE)
            if levels[0] is not None and levels[1] is not None:
                found += (levels[1] - levels[0]) ** 2 / 2
        return found
