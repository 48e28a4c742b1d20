"""Means, differences and ratios of repeats, with their 95 % intervals.

What a meter adds to each run on its own (independent) is part of the scatter of repeats and is not counted twice
(GUM 4.3.10), but no interval is narrower than it. What it hides at the edges of a setting's phases (edges) and the gain
of a board (common) are the same in every repeat: no scatter shows them. Edges are added in quadrature; so is the gain
between runs on different boards, while it cancels between runs on the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

CONFIDENCE = 0.95

ROUNDING = 1e-9
"""No measurement is so sure: differences and intervals of a smaller share are arithmetic's, as of a constant power."""


@dataclass(frozen=True)
class Estimate:
    """A mean over repeats.

    Attributes:
        mean: in the metric's unit.
        half_width: half of the 95 % interval for comparing rows of one board; None where one run tells no scatter.
        repeats: number of runs.
    """

    mean: float
    half_width: float | None
    repeats: int


@dataclass(frozen=True)
class Sample:
    """One metric of the repeats of one setting.

    Attributes:
        values: one a run, in the metric's unit.
        independent_u: standard uncertainty of each that is other in every run; 0 for what no meter reads.
        common_u: standard uncertainty of their mean that is the same in every run on the same boards.
        boards: the boards they ran on; empty where they are not known.
        edges_u: standard uncertainty of their mean that is the same in every run of this setting.
    """

    values: tuple[float, ...]
    independent_u: tuple[float, ...]
    common_u: float = 0.0
    boards: frozenset[tuple[str, str]] = frozenset()
    edges_u: float = 0.0

    @cached_property
    def mean(self) -> float:
        """Arithmetic mean."""
        return math.fsum(self.values) / len(self.values)

    @cached_property
    def scatter(self) -> float | None:
        """Variance of the mean as the repeats show it; None of one run (GUM 4.2.3)."""
        count, mean = len(self.values), self.mean
        if count < 2:
            return None
        return math.fsum((value - mean) ** 2 for value in self.values) / (count - 1) / count

    @cached_property
    def meter(self) -> float:
        """Variance of the mean that the meter's independent part makes."""
        return math.fsum(u * u for u in self.independent_u) / len(self.values) ** 2

    def log(self) -> Sample:
        """The same of the natural logarithms: a ratio becomes a difference. The values must be above 0."""
        return self._log

    @cached_property
    def _log(self) -> Sample:
        relative = tuple(u / value for u, value in zip(self.independent_u, self.values, strict=True))
        logs = tuple(math.log(value) for value in self.values)
        return Sample(logs, relative, self.common_u / self.mean, self.boards, self.edges_u / self.mean)

    def estimate(self) -> Estimate:
        """Mean and interval for comparing on the same boards."""
        return self._estimate

    @cached_property
    def _estimate(self) -> Estimate:
        return Estimate(self.mean, self._half_width, len(self.values))

    @property
    def _half_width(self) -> float | None:
        """Student's t on the scatter (GUM 4.2, G.3), never less than what the meter adds to each run, and the edges."""
        if self.scatter is None:
            return None
        edges, count = self.edges_u**2, len(self.values)
        freedom = _satterthwaite([(self.scatter, count - 1), (edges, math.inf)])
        return _half_width(self.scatter, freedom, self.meter, edges, 1 - CONFIDENCE)


@dataclass(frozen=True)
class Difference:
    """Of two means, b - a.

    Attributes:
        value: best estimate.
        half_width: half of its 95 % interval; None where either was run once.
        p: two-sided probability of so large a difference if there were none; None likewise.
        beyond_repeats: half of the interval's part that no repeats make smaller: edges of phases, gains of boards.
    """

    value: float
    half_width: float | None
    p: float | None
    beyond_repeats: float = 0.0

    @property
    def low(self) -> float | None:
        """Lower end of the interval."""
        return None if self.half_width is None else self.value - self.half_width

    @property
    def high(self) -> float | None:
        """Upper end of the interval."""
        return None if self.half_width is None else self.value + self.half_width

    def exp(self) -> Ratio:
        """Of logarithms: the ratio b / a."""
        low, high = (None if end is None else math.exp(end) for end in (self.low, self.high))
        return Ratio(math.exp(self.value), low, high, self.p)


@dataclass(frozen=True)
class Ratio:
    """Of two geometric means, b / a, with the ends of its 95 % interval; None where either was run once."""

    value: float
    low: float | None
    high: float | None
    p: float | None

    def times(self, factor: float) -> Ratio:
        """The ratio in another unit; p, which is about 1, does not hold of it."""
        low, high = (None if end is None else end * factor for end in (self.low, self.high))
        return Ratio(self.value * factor, low, high, None)

    def reciprocal(self) -> Ratio:
        """A / b."""
        low, high = (None if end is None else 1 / end for end in (self.high, self.low))
        return Ratio(1 / self.value, low, high, self.p)


def difference(a: Sample, b: Sample, alpha: float = 1 - CONFIDENCE) -> Difference:
    """Welch's: the scatter of either side stands for itself (Welch 1947; degrees of freedom as in GUM G.4).

    Args:
        a: what is compared with.
        b: what is compared.
        alpha: one less the confidence of the interval.
    """
    alike = alike_variance(a, b)
    value = 0.0 if math.isclose(a.mean, b.mean, rel_tol=ROUNDING) else b.mean - a.mean
    beyond = quantile(1 - alpha / 2) * math.sqrt(alike)
    if a.scatter is None or b.scatter is None:
        return Difference(value, None, None, beyond)
    scatter = a.scatter + b.scatter
    freedom = _freedom(a, b, alike)
    half_width = _half_width(scatter, freedom, a.meter + b.meter, alike, alpha)
    return Difference(value, half_width, _p(value, scatter, freedom, a.meter + b.meter, alike), beyond)


def ratio(a: Sample, b: Sample, alpha: float = 1 - CONFIDENCE) -> Ratio:
    """B / a: Welch's interval of the difference of the logarithms, which is that of the ratio of geometric means.

    For what is above 0 and scatters in proportion, as joules and seconds do. The interval is never empty nor unbounded,
    as Fieller's can be, and that of a / b is its reciprocal (Armitage, Berry & Matthews, Statistical Methods in Medical
    Research, 4th ed., 10.8, on means of logarithms).
    """
    return difference(a.log(), b.log(), alpha).exp()


def ratio_of(a: Sample | None, b: Sample | None) -> Ratio | None:
    """B / a; None where one is missing, or has a value that is not above 0."""
    return ratio(a, b) if a is not None and b is not None and min(*a.values, *b.values) > 0 else None


def gain_variance(a: Sample, b: Sample) -> float:
    """What the gains of boards add to the variance of a difference: nothing where they are known to be the same."""
    if a.boards and a.boards == b.boards:
        return 0.0
    return a.common_u**2 + b.common_u**2


def alike_variance(a: Sample, b: Sample) -> float:
    """Of the variance of a difference what no repeats make smaller: the gains of boards, the edges of phases."""
    return gain_variance(a, b) + a.edges_u**2 + b.edges_u**2


def paired(pairs: Sequence[tuple[float, float]], common_u: float = 0.0) -> Difference:
    """Mean of b - a over pairs that are equal in all else: Student's t on the differences, what they share added.

    Args:
        pairs: (a, b), at least one.
        common_u: standard uncertainty that all differences share, as two boards' gains or what edges hide.
    """
    differences = tuple(b - a for a, b in pairs)
    sample = Sample(differences, (0.0,) * len(differences))
    beyond = quantile(0.5 + CONFIDENCE / 2) * common_u
    if sample.scatter is None:
        return Difference(sample.mean, None, None, beyond)
    freedom = _satterthwaite([(sample.scatter, len(pairs) - 1), (common_u**2, math.inf)])
    half_width = _half_width(sample.scatter, freedom, 0.0, common_u**2, 1 - CONFIDENCE)
    return Difference(sample.mean, half_width, _p(sample.mean, sample.scatter, freedom, 0.0, common_u**2), beyond)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values: of several comparisons, none is found by chance with more than alpha."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def quantile(probability: float, freedom: float = math.inf) -> float:
    """Of Student's t; of the normal distribution for infinite degrees of freedom."""
    if math.isinf(freedom):
        return NormalDist().inv_cdf(probability)
    from scipy import special  # not scipy.stats, which takes a second to import

    return float(special.stdtrit(freedom, probability))


def _freedom(a: Sample, b: Sample, alike: float) -> float:
    parts = [(sample.scatter or 0.0, float(len(sample.values) - 1)) for sample in (a, b)]
    return _satterthwaite([*parts, (alike, math.inf)])


def _satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    """Effective degrees of freedom of a sum of variances; the fewest of its parts where all are 0."""
    below = math.fsum(variance**2 / freedom for variance, freedom in parts)
    if below <= 0.0:
        return min(freedom for _, freedom in parts)
    return math.fsum(variance for variance, _ in parts) ** 2 / below


def _half_width(scatter: float, freedom: float, meter: float, alike: float, alpha: float) -> float:
    seen = quantile(1 - alpha / 2, freedom) * math.sqrt(scatter + alike)
    return max(seen, quantile(1 - alpha / 2) * math.sqrt(meter + alike))


def _p(value: float, scatter: float, freedom: float, meter: float, alike: float) -> float:
    """The p-value that belongs to `_half_width`."""
    from scipy import special

    seen, least = math.sqrt(scatter + alike), math.sqrt(meter + alike)
    if seen == least == 0.0:
        return 1.0 if value == 0.0 else 0.0
    by_scatter = 2 * _tail(freedom, abs(value), seen)
    by_meter = 2 * float(special.ndtr(-abs(value) / least)) if least else 0.0
    return max(by_scatter, by_meter)


def _tail(freedom: float, value: float, error: float) -> float:
    """Probability that Student's t exceeds value / error."""
    from scipy import special

    if error == 0.0:
        return 0.0 if value else 0.5
    return float(special.ndtr(-value / error) if math.isinf(freedom) else special.stdtr(freedom, -value / error))
