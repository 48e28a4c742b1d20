"""What a factor does, other things being equal, and whether energy follows time: the claims that the study makes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from energybench.study.intervals import (
    CONFIDENCE,
    Difference,
    Ratio,
    alike_variance,
    difference,
    holm,
    paired,
    quantile,
    ratio_of,
)
from energybench.study.quantities import Quantity, quantity
from energybench.study.rows import Row, levels

BATCH, GENERATION, COUNT = "batch", "generation", "gpu.count"
"""Factors of the study."""


@dataclass(frozen=True)
class Matched:
    """Two settings that differ in one factor alone.

    Attributes:
        setting: what the two have in common that other matches have not.
        before: row of the reference level.
        after: row of the other level.
        ratio: after / before of the metric's geometric means; None of shares.
        difference: after - before, of shares.
        adjusted_p: corrected by Holm over all matches of the effect; None where a single run tells no scatter.
    """

    setting: str
    before: Row
    after: Row
    ratio: Ratio | None
    difference: Difference | None
    adjusted_p: float | None = None


@dataclass(frozen=True)
class Effect:
    """Of one level of a factor against the reference level.

    Attributes:
        factor: "batch", "gpu.name", ...
        metric: its name.
        reference: level compared with.
        level: level compared.
        matches: the pairs of settings, each with its own ratio.
        ratio: geometric mean of the matches' ratios, with the interval over the matches and the boards' gains; None of
            shares.
        difference: likewise of shares.
    """

    factor: str
    metric: str
    reference: str
    level: str
    matches: tuple[Matched, ...]
    ratio: Ratio | None
    difference: Difference | None


def effects(table: Sequence[Row], factor: str, metric: str | Quantity, reference: str | None = None) -> list[Effect]:
    """What each level of a factor makes of a metric against the reference level, all other factors equal.

    Args:
        table: rows that may be compared: one energy source, one scope; see `comparable`.
        factor: a key of `Row.factors`, or "generation".
        metric: name or quantity.
        reference: level compared with; None: the first one in order of number or of appearance.

    Returns:
        One effect a level that has a match; empty where the factor does not vary.
    """
    asked = quantity(metric) if isinstance(metric, str) else metric
    found = levels(table, factor)
    order = sorted(found, key=_rank)
    if len(order) < 2:
        return []
    base = order[0] if reference is None else reference
    made = [
        _effect(asked, factor, (base, level), matches)
        for level in order
        if level != base and (matches := _matches(found.get(base, []), found[level], factor, asked))
    ]
    return _holm_over(made)


def _rank(level: str) -> tuple[int, float, str]:
    try:
        return 0, float(level), ""
    except ValueError:
        return 1, 0.0, ""  # sorted() keeps the order of appearance


def _matches(before: Sequence[Row], after: Sequence[Row], factor: str, metric: Quantity) -> list[Matched]:
    tied = TIED.get(factor, (factor,))
    partners = {_rest(row, tied): row for row in before}
    found = []
    for row in after:
        partner = partners.get(_rest(row, tied))
        a, b = partner.sample(metric) if partner else None, row.sample(metric)
        if partner is None or a is None or b is None or partner.group != row.group:
            continue
        if metric.share:
            found.append(Matched(partner.label, partner, row, None, difference(a, b)))
        elif (moved := ratio_of(a, b)) is not None:
            found.append(Matched(partner.label, partner, row, moved, None))
    return found


TIED = {
    "generation": ("generation", "gpu.name", "device"),
    "gpu.name": ("generation", "gpu.name", "device"),
    "device": ("generation", "gpu.name", "device"),
}
"""Factors that change together: another generation is another device."""


def _rest(row: Row, without: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, value) for key, value in row.factors.items() if key not in without))


def _effect(metric: Quantity, factor: str, between: tuple[str, str], matches: Sequence[Matched]) -> Effect:
    pairs = []
    shared = 0.0
    for match in matches:
        a, b = match.before.sample(metric), match.after.sample(metric)
        assert a is not None and b is not None
        one, other = (a, b) if metric.share else (a.log(), b.log())
        pairs.append((one.mean, other.mean))
        shared = max(shared, math.sqrt(alike_variance(one, other)))
    mean = _of_one(matches[0]) if len(matches) == 1 else paired(pairs, shared)
    together = (None, mean) if metric.share else (mean.exp(), None)
    return Effect(factor, metric.name, *between, tuple(matches), *together)


def _of_one(match: Matched) -> Difference:
    """A single match speaks for itself: its interval is that of its repeats."""
    if match.difference is not None:
        return match.difference
    ratio = match.ratio
    assert ratio is not None
    half_width = None if ratio.high is None else math.log(ratio.high / ratio.value)
    return Difference(math.log(ratio.value), half_width, ratio.p)


def _holm_over(found: Sequence[Effect]) -> list[Effect]:
    """Holm's correction over every match of every level."""
    flat = [
        (i, j, p)
        for i, effect in enumerate(found)
        for j, match in enumerate(effect.matches)
        if (p := (match.ratio or match.difference).p) is not None  # type: ignore[union-attr]
    ]
    matches = [list(effect.matches) for effect in found]
    for (i, j, _), p in zip(flat, holm([p for *_, p in flat]), strict=True):
        matches[i][j] = replace(matches[i][j], adjusted_p=p)
    return [replace(effect, matches=tuple(made)) for effect, made in zip(found, matches, strict=True)]


@dataclass(frozen=True)
class Scaling:
    """n devices against one, all else equal.

    Attributes:
        count: number of devices.
        speedup: time on the reference / time on `count`.
        efficiency: speed-up divided by the number of devices, against the reference.
        energy: energy on `count` / energy on the reference.
        matches: how many pairs of settings.
    """

    count: int
    speedup: Ratio
    efficiency: Ratio
    energy: Ratio | None
    matches: int


def scaling(table: Sequence[Row], per_image: bool = True) -> list[Scaling]:
    """Speed-up and parallel efficiency of more devices against the fewest, at the same total batch (strong scaling).

    Args:
        table: rows that may be compared.
        per_image: count energy and time an image; else of a whole run.
    """
    time, energy = ("images_per_s", "energy_per_image_j") if per_image else ("time_s", "energy_j")
    found = {effect.level: effect for effect in effects(table, COUNT, energy)}
    made = []
    for effect in effects(table, COUNT, time):
        if effect.ratio is None or not (effect.level.isdigit() and effect.reference.isdigit()):
            continue
        speedup = effect.ratio if per_image else effect.ratio.reciprocal()
        more = int(effect.level) / int(effect.reference)
        joules = found.get(effect.level)
        made.append(
            Scaling(
                int(effect.level),
                speedup,
                speedup.times(1 / more),
                joules.ratio if joules else None,
                len(effect.matches),
            )
        )
    return made


@dataclass(frozen=True)
class Correlation:
    """Of the logarithms of energy and time over settings, those of one network with each other.

    Attributes:
        r: Pearson's, within networks.
        low: lower end of Fisher's 95 % interval; None for too few settings.
        high: upper end.
        slope: by which power of the time the energy grows: 1 is a constant power.
        settings: how many.
        networks: how many.
    """

    r: float
    low: float | None
    high: float | None
    slope: float
    settings: int
    networks: int


def energy_follows_time(table: Sequence[Row]) -> Correlation | str:
    """Correlates energy an image with time an image over settings, in logarithms and within networks.

    Within networks, as a larger one takes more of both and would make any correlation close to 1: the network's own
    mean is taken off each. Means over repeats are correlated, as repeats of one setting say nothing of others. The
    interval is Fisher's z (Fisher 1921), with one setting less for each further network.

    Returns:
        The correlation, or in words why there is none.
    """
    if any(row.group[0] == "estimated" for row in table):
        return "estimated energy is a constant power times the time: that they go together says nothing"
    points: dict[str, list[tuple[float, float]]] = {}
    for row in table:
        energy, rate = row.sample("energy_per_image_j"), row.sample("images_per_s")
        if energy is not None and rate is not None and min(*energy.values, *rate.values) > 0:
            network = row.factors.get("model.name", "")
            points.setdefault(network, []).append((-rate.log().mean, energy.log().mean))
    several = {network: found for network, found in points.items() if len(found) > 1}
    return _correlation(several)


def _correlation(points: Mapping[str, Sequence[tuple[float, float]]]) -> Correlation | str:
    centred = []
    for found in points.values():
        middle = [math.fsum(values) / len(found) for values in zip(*found, strict=True)]
        centred += [(x - middle[0], y - middle[1]) for x, y in found]
    count, networks = len(centred), len(points)
    xx, yy = (math.fsum(point[axis] ** 2 for point in centred) for axis in (0, 1))
    if count < 3 or not xx or not yy:
        return "fewer than three settings of one network differ in energy and time"
    xy = math.fsum(x * y for x, y in centred)
    r = max(-1.0, min(1.0, xy / math.sqrt(xx * yy)))
    low, high = _fisher(r, count - (networks - 1))
    return Correlation(r, low, high, xy / xx, count, networks)


def _fisher(r: float, count: int) -> tuple[float | None, float | None]:
    """Fisher's interval for `count` independent points, as scipy.stats.pearsonr gives it."""
    if count < 4 or abs(r) >= 1:
        return None, None
    z, half_width = math.atanh(r), quantile(0.5 + CONFIDENCE / 2) / math.sqrt(count - 3)
    return math.tanh(z - half_width), math.tanh(z + half_width)


def comparable(table: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """The rows that have a finished run by (energy source, scope): no effect mixes two of them."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in table:
        if row.finished:
            found.setdefault(row.group, []).append(row)
    return found
