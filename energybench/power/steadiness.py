"""When an idle card's power is steady: a criterion on its mean powers over short stretches. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

PARTS = 8
SHORTEST_PART_S = 0.1
MAX_ERROR = 0.01
"""Relative standard error of the mean, from the scatter about the trend: idle is known to 1 % (k = 1)."""

MAX_DRIFT = 0.03
"""Change along the trend over the window, as a share of the mean."""


def parts_of(window_s: float) -> int:
    """Into how many stretches `window_s` seconds are cut: 8, or fewer that are not below 0.1 s; at least 3."""
    return max(3, min(PARTS, int(window_s / SHORTEST_PART_S)))


def is_steady(powers_w: Sequence[float | None]) -> bool:
    """Whether power kept its level.

    A straight line is fitted to the mean powers of equal, adjoining stretches of time. Power is steady where the line
    changes by at most 3 % of the mean from end to end, and where what scatters about it leaves the mean a standard
    error of at most 1 %.

    Args:
        powers_w: mean power of each stretch, watts, in the order of time; None where nothing was read. At least 3.

    Returns:
        False where a stretch was not read, too.
    """
    known = [power for power in powers_w if power is not None]
    if len(known) < max(3, len(powers_w)):
        return False
    power = np.asarray(known, np.float64)
    mean = float(power.mean())
    if mean <= 0:
        return mean == 0 and not power.any()
    place = np.linspace(-0.5, 0.5, len(power) + 1)
    middle = (place[:-1] + place[1:]) / 2
    slope = float(middle @ (power - mean) / (middle @ middle))
    rest = power - mean - slope * middle
    error = math.sqrt(float(rest @ rest) / (len(power) - 2) / len(power))
    return abs(slope) <= MAX_DRIFT * mean and error <= MAX_ERROR * mean
