"""The largest value of any stretch of an array, without a look at all of them each time."""

from __future__ import annotations

import numpy as np

from energybench.power.series import Floats, Ints

BLOCK = 1024


class Largest:
    """Answers from the largest of each block, and from the values themselves at the two ends alone.

    Args:
        values: (n,) kept, not copied.
    """

    def __init__(self, values: Floats | Ints) -> None:
        self._values = values
        starts = np.arange(0, len(values), BLOCK)
        self._blocks = np.maximum.reduceat(values, starts) if len(values) else values

    def between(self, first: int, stop: int) -> float:
        """The largest of values[first:stop]; raises ValueError where there is none."""
        head, tail = -(-first // BLOCK), stop // BLOCK
        if head >= tail:
            return float(self._values[first:stop].max())
        parts = self._blocks[head:tail], self._values[first : head * BLOCK], self._values[tail * BLOCK : stop]
        return float(max(part.max() for part in parts if len(part)))
