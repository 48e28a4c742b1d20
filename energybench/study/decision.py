"""Which setting to train with: constraints, the best by a criterion, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from typing import Any

from energybench.errors import ConfigError
from energybench.run.result import Result
from energybench.study.intervals import Difference, Estimate, Ratio, difference, gain_variance
from energybench.study.quantities import ACCURACY, BASES, CRITERIA, Quantity, per, quantity
from energybench.study.redraws import shares_of_best
from energybench.study.rows import Row, among, rows
from energybench.study.separation import change, in_question, repeats_needed
from energybench.study.words import amount, listed, sized, with_unit

FRONT = ("energy", "time", "accuracy")
"""What the Pareto front is over. EDP and ED²P grow with energy and time, so that with them it is the same front."""


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        per: what energy and time are counted for: image | epoch | run | target-accuracy.
        criterion: what is made least: energy | time | edp | ed2p.
        min_accuracy: top-1 accuracy, 0 to 1, that a setting must reach.
        max_slowdown: share by which a setting may be slower than the fastest that reaches the accuracy: 0.1 = 10 %.
        max_energy_j: joules, for what `per` says, that a setting may take.
        baseline: the present setting, as `energybench` would be told it: "batch=128 gpu.count=1".
    """

    per: str = "image"
    criterion: str = "energy"
    min_accuracy: float | None = None
    max_slowdown: float | None = None
    max_energy_j: float | None = None
    baseline: str | None = None

    def __post_init__(self) -> None:
        _one_of("per", self.per, BASES)
        _one_of("criterion", self.criterion, CRITERIA)
        if self.min_accuracy is not None and not 0 <= self.min_accuracy <= 1:
            raise ConfigError(f"--min-accuracy {self.min_accuracy}: give a share from 0 to 1, or a percentage (97%)")
        for name, value in (("max-slowdown", self.max_slowdown), ("max-energy", self.max_energy_j)):
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigError(f"--{name} {value}: give a number from 0")

    @cached_property
    def quantities(self) -> dict[str, Quantity]:
        """energy, time, edp, ed2p as `per` counts them, and accuracy."""
        return {**per(self.per), "accuracy": quantity(ACCURACY)}


def _one_of(name: str, value: str, names: Sequence[str]) -> None:
    if value not in names:
        raise ConfigError(f"--{name} {value}: one of {', '.join(names)}")


@dataclass(frozen=True)
class Setting:
    """One setting and how it stands.

    Attributes:
        row: its runs.
        estimates: energy, time, edp, ed2p, accuracy -> mean and interval; what does not exist is absent.
        unmet: constraint -> why it is not met, in words; empty where all are.
        missed_by: how far the worst of them is missed, as a share of its limit; 0 where all are met.
        doubtful: constraint -> why it is not met surely, though the mean meets it: its interval reaches over the limit.
        on_front: whether no other setting is at least as good in energy, time and accuracy and better in one.
        probability: share of redraws of the repeats in which it is the best of those that meet the constraints; None
            where a single run tells no scatter.
    """

    row: Row
    estimates: Mapping[str, Estimate]
    unmet: Mapping[str, str]
    missed_by: float
    doubtful: Mapping[str, str]
    on_front: bool
    probability: float | None

    @property
    def label(self) -> str:
        """Of its row."""
        return self.row.label


@dataclass(frozen=True)
class Repeats:
    """What to repeat so that two settings can be told apart.

    Attributes:
        setting: the one that cannot be told from the chosen one.
        runs: how many runs each of the two needs in all; None where no number of them helps, or none was found.
        why: why none: "boards" (their gains hide the difference), "edges" (what the meter does not tell at the edges of
            the phases does), "alike" (so many that either will do), or "".
        ratio: criterion of the setting / that of the chosen one.
    """

    setting: str
    runs: int | None
    why: str
    ratio: Ratio


@dataclass(frozen=True)
class Against:
    """The chosen setting against the user's present one.

    Attributes:
        baseline: its label.
        ratios: energy, time, edp, ed2p -> chosen / baseline.
        accuracy: chosen - baseline, as a share; None where one has no accuracy.
    """

    baseline: str
    ratios: Mapping[str, Ratio]
    accuracy: Difference | None


@dataclass(frozen=True)
class Decision:
    """The answer for settings that may be compared: one energy source, one scope, one data set.

    Attributes:
        question: what was asked.
        source: "measured" or "estimated"; "" where no energy was read.
        scope: "gpu" or "cpu"; likewise.
        dataset: its name.
        settings: every setting that has a finished run with the criterion, the best first.
        chosen: the best mean of those that meet every constraint; None where none does.
        tied: those that meet them too and cannot be told apart from the chosen one, nearest first.
        nearest: where none meets them: the one that misses them by least.
        repeats: what to repeat so that the choice becomes sure.
        against: the comparison with the baseline, where one was named.
        left_out: settings that say nothing here -> why.
    """

    question: Question
    source: str
    scope: str
    dataset: str
    settings: tuple[Setting, ...]
    chosen: Setting | None
    tied: tuple[Setting, ...]
    nearest: Setting | None
    repeats: tuple[Repeats, ...]
    against: Against | None
    left_out: Mapping[str, str]

    @property
    def sure(self) -> bool:
        """Whether the chosen setting is told apart from every other that meets the constraints."""
        return self.chosen is not None and not self.tied

    @property
    def front(self) -> tuple[Setting, ...]:
        """The Pareto front over energy, time and accuracy."""
        return tuple(setting for setting in self.settings if setting.on_front)


def decide(results: Iterable[Result], question: Question) -> list[Decision]:
    """One decision for each group that may be compared, in order of first appearance.

    Raises:
        ConfigError: the baseline is no setting, or several.
    """
    table = rows(results)
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in table:
        if row.finished:
            groups.setdefault((*row.group, dataset_of(row)), []).append(row)
    tables = [among(members) for members in groups.values()]
    baselines: Sequence[Row | None] = [None] * len(tables)
    if question.baseline is not None:
        baselines = find_rows([*tables, [row for row in table if not row.finished]], question.baseline)
    return [
        _decide(members, group, question, baseline)
        for members, group, baseline in zip(tables, groups, baselines, strict=False)
    ]


def dataset_of(row: Row) -> str:
    """The name of the data set; accuracy on one says nothing of accuracy on another."""
    dataset = row.results[0].config.get("dataset")
    return str(dataset.get("name", "")) if isinstance(dataset, Mapping) else str(dataset or "")


def find_rows(tables: Sequence[Sequence[Row]], text: str) -> list[Row | None]:
    """Of each table the row whose label, or whose factors, are those of `text`: "batch=128 gpu.count=1".

    Raises:
        ConfigError: none in all of them, or several in one.
    """
    named = [[row for row in table if row.label == text] for table in tables]
    words = text.split()
    found = (
        named if any(named) else [[row for row in table if all(_has(row, word) for word in words)] for table in tables]
    )
    most = max(found, key=len)
    if len(most) > 1:
        labels = listed([row.label for row in most], NEAREST)
        raise ConfigError(f"--baseline {text!r}: {len(most)} settings of it; say which: {labels}")
    if not most:
        near = listed(_nearest([row for table in tables for row in table], text)[:NEAREST])
        raise ConfigError(f"--baseline {text!r}: no setting of it; the nearest: {near}")
    return [rows[0] if rows else None for rows in found]


NEAREST = 4
"""Settings that an error names."""


def _nearest(table: Sequence[Row], text: str) -> list[str]:
    """Labels by how many of the words of `text` the rows have, then by how alike they look."""
    alike = {
        row.label: (sum(_has(row, word) for word in text.split()), SequenceMatcher(None, text, row.label).ratio())
        for row in table
    }
    return sorted(alike, key=lambda label: alike[label], reverse=True)


def _has(row: Row, word: str) -> bool:
    key, equals, value = word.partition("=")
    factors = row.factors
    given = {text.partition("=")[0]: text.partition("=")[2] for text in row.results[0].overrides}
    known = [text for text in (factors.get(key), factors.get(f"{key}.name"), given.get(key)) if text is not None]
    return bool(equals) and value in (known or ["-"])


def _decide(table: Sequence[Row], group: tuple[str, str, str], question: Question, baseline: Row | None) -> Decision:
    asked = question.quantities
    criterion = asked[question.criterion]
    estimates = {row.label: _estimates(row, asked) for row in table}
    known = [row for row in table if question.criterion in estimates[row.label]]
    left_out = {row.label: _why_left_out(row, question) for row in table if row not in known}
    unmet = _unmet(known, estimates, question)
    meeting = [row for row in known if not _missed(unmet[row.label])]
    shares = shares_of_best(meeting, criterion)
    front = _front(known, estimates)
    settings = tuple(
        Setting(
            row,
            estimates[row.label],
            {name: words for name, (words, missed) in unmet[row.label].items() if missed},
            max((missed for _, missed in unmet[row.label].values()), default=0.0),
            {name: words for name, (words, missed) in unmet[row.label].items() if not missed},
            row.label in front,
            shares.get(row.label),
        )
        for row in sorted(known, key=lambda row: estimates[row.label][question.criterion].mean)
    )
    by_label = {setting.label: setting for setting in settings}
    candidates = [by_label[row.label] for row in in_question(meeting, criterion)]
    chosen = candidates[0] if candidates else None
    tied = tuple(candidates[1:])
    return Decision(
        question=question,
        source=group[0],
        scope=group[1],
        dataset=group[2],
        settings=settings,
        chosen=chosen,
        tied=tied,
        nearest=None if chosen else min(settings, key=lambda setting: setting.missed_by, default=None),
        repeats=_repeats(chosen, tied, criterion, len(meeting) - 1) if chosen else (),
        against=_against(chosen, baseline, asked) if chosen and baseline else None,
        left_out=left_out,
    )


def _estimates(row: Row, asked: Mapping[str, Quantity]) -> dict[str, Estimate]:
    found = {name: row.estimate(metric) for name, metric in asked.items()}
    return {name: estimate for name, estimate in found.items() if estimate is not None}


def _why_left_out(row: Row, question: Question) -> str:
    if question.per == "target-accuracy":
        targets = [_budget(result).get("target_accuracy") for result in row.finished]
        return "no run reached the target accuracy" if any(targets) else "no run had budget.target_accuracy set"
    if question.per == "epoch" and row.estimate(per("image")["energy"]) is not None:
        return "no epoch came to its end"
    return "no energy was read that covers the training"


def _budget(result: Result) -> Mapping[str, Any]:
    """When its training was to end."""
    budget = result.config.get("budget")
    return budget if isinstance(budget, Mapping) else {}


Unmet = dict[str, tuple[str, float]]
"""Constraint -> (words, by which share of its limit it is missed; 0: the mean meets it, but not the whole interval)."""


def _missed(unmet: Unmet) -> set[str]:
    return {name for name, (_, missed) in unmet.items() if missed}


def _unmet(
    table: Sequence[Row], estimates: Mapping[str, Mapping[str, Estimate]], question: Question
) -> dict[str, Unmet]:
    found: dict[str, Unmet] = {row.label: {} for row in table}
    for row in table:
        mine = estimates[row.label]
        _check_reached(row, question, found[row.label])
        _check_accuracy(mine.get("accuracy"), question.min_accuracy, found[row.label])
        _check_limit("energy", mine.get("energy"), question.max_energy_j, "J", found[row.label])
    if question.max_slowdown is not None:
        accurate = [row for row in table if not {"accuracy", "reached"} & _missed(found[row.label])]
        times = [estimates[row.label]["time"].mean for row in accurate if "time" in estimates[row.label]]
        for row in table:
            if times:
                limit = (1 + question.max_slowdown) * min(times)
                _check_limit("time", estimates[row.label].get("time"), limit, "s", found[row.label])
    return found


def _check_reached(row: Row, question: Question, unmet: Unmet) -> None:
    """A mean over only those repeats that reached the target would flatter the setting."""
    if question.per == "target-accuracy":
        sample = row.sample(question.quantities["time"])
        reached, runs = len(sample.values) if sample else 0, len(row.finished)
        if reached < runs:
            unmet["reached"] = (f"only {reached} of {runs} runs reached the target accuracy", (runs - reached) / runs)


def _check_accuracy(found: Estimate | None, least: float | None, unmet: Unmet) -> None:
    if least is None:
        return
    if found is None:
        unmet["accuracy"] = ("it has no accuracy", 1.0)
    elif found.mean < least:
        unmet["accuracy"] = (f"top-1 accuracy {found.mean:.2%} is below {least:.2%}", (least - found.mean) / least)
    elif found.mean - (found.half_width or 0.0) < least:
        unmet["accuracy"] = (f"top-1 accuracy {amount(found, share=True)} may be below {least:.2%}", 0.0)


def _check_limit(name: str, found: Estimate | None, most: float | None, unit: str, unmet: Unmet) -> None:
    if most is None:
        return
    if found is None:
        unmet[name] = (f"its {name} is not known", 1.0)
    elif found.mean > most:
        over = f"{name} {sized(found.mean, unit)} is above {sized(most, unit)}"
        unmet[name] = (over, (found.mean - most) / most if most else 1.0)
    elif found.mean + (found.half_width or 0.0) > most:
        unmet[name] = (f"{name} {with_unit(found, unit)} may be above {sized(most, unit)}", 0.0)


def _front(table: Sequence[Row], estimates: Mapping[str, Mapping[str, Estimate]]) -> set[str]:
    """Labels of the rows that no other is at least as good as in all of `FRONT` and better in one, by their means."""
    points: list[tuple[str, tuple[float, ...]]] = []
    for row in table:
        found = estimates[row.label]
        accuracy = found["accuracy"].mean if "accuracy" in found else float("-inf")
        if "energy" in found and "time" in found:
            points.append((row.label, (found["energy"].mean, found["time"].mean, -accuracy)))
    front: list[tuple[str, tuple[float, ...]]] = []
    for label, point in sorted(points, key=lambda item: item[1]):
        # Sorted so, a later point is never better than an earlier one in everything.
        if not any(_dominates(other, point) for _, other in front):
            front.append((label, point))
    return {label for label, _ in front}


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(mine <= theirs for mine, theirs in zip(one, other, strict=True))


def _repeats(chosen: Setting, tied: Sequence[Setting], criterion: Quantity, comparisons: int) -> tuple[Repeats, ...]:
    mine = chosen.row.sample(criterion)
    assert mine is not None
    found = []
    for setting in tied:
        theirs = setting.row.sample(criterion)
        assert theirs is not None
        seen = change(mine, theirs)
        if len(mine.values) < 2 or len(theirs.values) < 2:
            found.append(Repeats(setting.label, FIRST_REPEATS, "", seen.exp()))
            continue
        runs = repeats_needed(mine, theirs, comparisons)
        hidden = abs(seen.value) <= seen.beyond_repeats and seen.beyond_repeats > 0
        hides = "boards" if gain_variance(mine, theirs) else "edges"
        found.append(Repeats(setting.label, runs, "" if runs else hides if hidden else "alike", seen.exp()))
    return tuple(found)


FIRST_REPEATS = 3
"""Runs that a setting needs before its scatter says how many more."""


def _against(chosen: Setting, baseline: Row, asked: Mapping[str, Quantity]) -> Against:
    ratios = {}
    for name in CRITERIA:
        before, after = baseline.sample(asked[name]), chosen.row.sample(asked[name])
        if before is not None and after is not None:
            ratios[name] = change(before, after).exp()
    before, after = baseline.sample(asked["accuracy"]), chosen.row.sample(asked["accuracy"])
    known = before is not None and after is not None
    return Against(baseline.label, ratios, difference(before, after) if known else None)  # type: ignore[arg-type]
