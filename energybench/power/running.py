"""Running sums, so that a long window costs no more than a short one: pure arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from energybench.power.segments import Segments
from energybench.power.series import Floats, Ints


class Running:
    """Segments with running sums: energy and time covered until any instant, however long the trace.

    Args:
        of: the segments.
    """

    def __init__(self, of: Segments) -> None:
        self._segments = of
        self.energy_j = running(of.energy_j)
        self.covered_ns = running(of.end_ns - of.start_ns)

    def until(self, time_ns: Ints) -> tuple[Floats, Ints]:
        """(n,) each: energy, and time covered, from the first segment's start until each time."""
        of = self._segments
        if not len(of):
            return np.zeros(len(time_ns)), np.zeros(len(time_ns), np.int64)
        place = of.end_ns.searchsorted(time_ns, side="right")
        at = np.minimum(place, len(of) - 1)
        start_ns, first_w = of.start_ns[at], of.first_w[at]
        length_ns = of.end_ns[at] - start_ns
        # Beyond the last segment `at` is that segment, and all of it is in the sum already.
        inside_ns = np.where(place == at, np.maximum(0, time_ns - start_ns), 0)
        power_w = first_w + (of.last_w[at] - first_w) * (inside_ns / (2 * length_ns))
        return self.energy_j[place] + power_w * (inside_ns / 1e9), self.covered_ns[place] + inside_ns


def running(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(n,) -> (n + 1,): sums of the first 0, 1, ... n values."""
    sums = np.zeros(len(values) + 1, values.dtype)
    np.cumsum(values, out=sums[1:])
    return sums
