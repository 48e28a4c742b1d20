"""`--fail-if 'energy_per_image_j +5%'`: when a comparison fails a build."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from energybench.errors import ConfigError
from energybench.study.compare import Change, Comparison, Pair
from energybench.study.quantities import KNOWN, Quantity, quantity

A_TYPING_ERROR = 0.85
"""difflib's ratio of two names of which one is the other mistyped; validate.energy_j and energy_j are further apart."""

GRAMMAR = "METRIC +NUMBER% or METRIC -NUMBER%; of accuracies also pp (percentage points); or the metric's unit"

_FORM = re.compile(r"\s*([a-z][\w.:/ -]*?)\s*([+-])\s*(\d+(?:\.\d*)?|\.\d+)\s*(%|[A-Za-z°/²][\w°/² ]*)\s*", re.ASCII)


@dataclass(frozen=True)
class Condition:
    """A change of a metric that is too much.

    Attributes:
        text: as it was written.
        metric: its name.
        limit: signed change. A share of the first source's value for "%", else in the metric's unit ("pp": a share,
            0.01 each).
        above: whether more than the limit is too much; else less than it.
        relative: whether the limit is a share of the first source's value.
    """

    text: str
    metric: str
    limit: float
    above: bool
    relative: bool


@dataclass(frozen=True)
class Verdict:
    """A condition on one pair.

    Attributes:
        condition: it.
        other: name of the source that was compared with the first.
        setting: of the pair.
        state: "met" (fails the build), "not met", or "unknown": the change is not known.
        sure: whether the whole 95 % interval of the change lies on that side of the limit.
        words: one line.
    """

    condition: Condition
    other: str
    setting: str
    state: Literal["met", "not met", "unknown"]
    sure: bool
    words: str


def parse(text: str) -> Condition:
    """Reads 'energy_per_image_j +5%', 'accuracy_top1 -0.5pp', 'energy_j +100 J'.

    Raises:
        ConfigError: it is none of these, or the unit is not the metric's.
    """
    found = _FORM.fullmatch(text)
    if not found:
        raise ConfigError(f"fail-if {text!r}: write {GRAMMAR}, as in 'energy_per_image_j +5%'")
    name, sign, number, unit = found.groups()
    amount, above = float(sign + number), sign == "+"
    if unit == "%":
        return Condition(text, name, amount / 100, above, True)
    metric = quantity(name)
    if unit == "pp":
        if not metric.share:
            raise ConfigError(f"fail-if {text!r}: percentage points are for accuracies; write {sign}{number}%")
        return Condition(text, name, amount / 100, above, False)
    if unit.strip() != metric.unit or not metric.unit:
        wanted = "pp" if metric.share else metric.unit
        raise ConfigError(f"fail-if {text!r}: {name} has no unit {unit!r}; write %{' or ' + wanted if wanted else ''}")
    return Condition(text, name, amount, above, False)


def judge(conditions: Sequence[Condition], comparisons: Sequence[Comparison]) -> list[Verdict]:
    """Every condition on every pair of every comparison."""
    return [
        _judge(condition, comparison.other, pair)
        for condition in conditions
        for comparison in comparisons
        for pair in comparison.pairs
    ]


def _judge(condition: Condition, other: str, pair: Pair) -> Verdict:
    where = f" [{pair.setting}]" if pair.setting else ""
    change = pair.changes.get(condition.metric)
    moved = None if change is None else _moved(condition, change)
    if moved is None:
        why = _why_unknown(condition, pair)
        return Verdict(condition, other, pair.setting, "unknown", False, f"{condition.text}: {why}{where}")
    value, low, high = moved
    met = value > condition.limit if condition.above else value < condition.limit
    sure = _sure(condition, met, low, high)
    shown = _shown(condition, value, low, high)
    state: Literal["met", "not met"] = "met" if met else "not met"
    return Verdict(condition, other, pair.setting, state, sure, f"{condition.text}: {shown}{where}")


def _moved(condition: Condition, change: Change) -> tuple[float, float | None, float | None] | None:
    """How far the metric moved, and the ends of the interval, as the limit is given."""
    if change.before is None or change.after is None:
        return None
    before = change.before.mean
    if change.ratio is not None:
        scale = 1.0 if condition.relative else before
        ends = [None if end is None else (end - 1) * scale for end in (change.ratio.low, change.ratio.high)]
        return (change.ratio.value - 1) * scale, ends[0], ends[1]
    if change.difference is None:
        return None
    if condition.relative and not before:
        return None
    scale = 1 / before if condition.relative else 1.0
    ends = [None if end is None else end * scale for end in (change.difference.low, change.difference.high)]
    return change.difference.value * scale, ends[0], ends[1]


def _sure(condition: Condition, met: bool, low: float | None, high: float | None) -> bool:
    if low is None or high is None:
        return False
    if condition.above:
        return low > condition.limit if met else high <= condition.limit
    return high < condition.limit if met else low >= condition.limit


def _why_unknown(condition: Condition, pair: Pair) -> str:
    if pair.incomparable and quantity(condition.metric).energy_power:
        return pair.incomparable
    for which, row in (("first", pair.before), ("other", pair.after)):
        if not row.finished:
            return f"no run of the {which} finished"
        if row.estimate(condition.metric) is None:
            return f"the {which} has no {condition.metric}{_nearest(condition.metric, pair)}"
    return "the change cannot be worked out"


def _nearest(name: str, pair: Pair) -> str:
    """What a name that no run knows may have stood for."""
    names = dict.fromkeys(metric.name for metric in KNOWN)
    runs = [*pair.before.finished, *pair.after.finished]
    names.update(dict.fromkeys(key for result in runs for key in result.metrics))
    known = name in names or name.startswith("energy_j.")  # a channel, or an energy, that these runs do not have
    close = [] if known else difflib.get_close_matches(name, names, n=1, cutoff=A_TYPING_ERROR)
    return f"; did you mean {close[0]}?" if close else ""


def _shown(condition: Condition, value: float, low: float | None, high: float | None) -> str:
    metric: Quantity = quantity(condition.metric)
    unit, scale = ("%", 100.0) if condition.relative else ("pp", 100.0) if metric.share else (f" {metric.unit}", 1.0)
    text = f"{value * scale:+.3g}{unit}"
    if low is None or high is None:
        return f"{text} (a single run: no interval)"
    return f"{text} (95 %: {low * scale:+.3g} to {high * scale:+.3g}{unit})"
