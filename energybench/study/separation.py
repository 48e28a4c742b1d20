"""Which settings can be the best, and whether two can be told apart at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

from energybench.study.intervals import CONFIDENCE, Difference, Sample, difference, gain_variance, quantile
from energybench.study.quantities import Quantity
from energybench.study.rows import Row


def apart(a: Sample, b: Sample, comparisons: int = 1) -> bool:
    """Whether two means are told apart: their intervals do not overlap, and Welch's test says so for all `comparisons`.

    Of k settings, each compared with the best at one-sided alpha / (k - 1), the true best is found worse with at most
    alpha: Hsu's multiple comparisons with the best (Annals of Statistics 12, 1984) with Bonferroni's bound, as the
    variances differ. Comparing single runs tells nothing.
    """
    mine, theirs = a.estimate(), b.estimate()
    if mine.half_width is None or theirs.half_width is None:
        return False
    gains = (0.0, 0.0) if gain_variance(a, b) == 0.0 else (2 * a.common_u, 2 * b.common_u)
    between = math.hypot(mine.half_width, gains[0]) + math.hypot(theirs.half_width, gains[1])
    if abs(mine.mean - theirs.mean) <= between:
        return False
    found = change(a, b)
    return found.p is not None and found.p <= 2 * (1 - CONFIDENCE) / max(1, comparisons)


def change(a: Sample, b: Sample) -> Difference:
    """B - a; of the logarithms where all values are above 0, so that joules and seconds are compared in proportion."""
    positive = all(value > 0 for value in (*a.values, *b.values))
    return difference(a.log(), b.log()) if positive else difference(a, b)


def in_question(table: Sequence[Row], metric: Quantity, smaller_is_better: bool = True) -> list[Row]:
    """The rows that may be the best: the best mean, and all that cannot be told apart from it; the best mean first."""
    known = [(sample, row) for row in table if (sample := row.sample(metric)) is not None]
    sign = 1 if smaller_is_better else -1
    known.sort(key=lambda item: sign * item[0].mean)
    return [
        row for index, (sample, row) in enumerate(known) if index == 0 or not apart(known[0][0], sample, len(known) - 1)
    ]


MOST_REPEATS = 100
"""Two settings that need more to be told apart are alike for all that a user may want."""


def repeats_needed(a: Sample, b: Sample, comparisons: int = 1, most: int = MOST_REPEATS) -> int | None:
    """Runs that each of two settings needs to be told apart with 80 % power, if means and scatters stay as they are.

    Of normal quantiles with Student's correction, iterated (Chow, Shao & Wang, Sample Size Calculations in Clinical
    Research, 3.2). None where the gains of their boards or the edges of their phases hide it, the scatter is unknown,
    or `most` are too few.
    """
    if len(a.values) < 2 or len(b.values) < 2:
        return None
    found = change(a, b)
    positive = all(value > 0 for value in (*a.values, *b.values))
    one, other = (a.log(), b.log()) if positive else (a, b)
    variance = sum(max(s.scatter or 0.0, s.meter) * len(s.values) for s in (one, other))
    room = abs(found.value) - found.beyond_repeats
    if room <= 0 or not math.isfinite(room):
        return None
    level = 1 - (1 - CONFIDENCE) / max(1, comparisons)
    for count in _counts(most):
        error = math.sqrt(variance / count)
        freedom = 2.0 * (count - 1)
        overlap = quantile(0.5 + CONFIDENCE / 2, count - 1.0) * _sum_of_errors(one, other, count)
        wanted = max(quantile(level, freedom) * error, overlap)
        if room >= wanted + quantile(0.8) * error:
            return count
    return None


def _sum_of_errors(a: Sample, b: Sample, count: int) -> float:
    return sum(math.sqrt(max(s.scatter or 0.0, s.meter) * len(s.values) / count) for s in (a, b))


def _counts(most: int) -> list[int]:
    counts, count = [], 2
    while count <= most:
        counts.append(count)
        count = count + 1 if count < 30 else math.ceil(count * 1.1)
    return counts
