"""Two or more sources side by side: metrics, ratios with intervals, what differs, and what makes them incomparable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from energybench.run.result import Result
from energybench.study.intervals import Difference, Estimate, Ratio, difference, holm, paired, ratio_of
from energybench.study.quantities import KNOWN, Quantity, quantity
from energybench.study.rows import Row, natural, rows, varying


@dataclass(frozen=True)
class Change:
    """One metric of one setting, against the first source.

    Attributes:
        metric: its name.
        before: of the first source; None where it has none.
        after: of this source; likewise.
        ratio: after / before with its interval; None of shares, where one is missing or not above 0, and where the two
            may not be compared.
        difference: after - before of shares, with its interval; likewise.
        adjusted_p: p of the ratio or difference, corrected by Holm over all changes of this metric in the comparison;
            None where a single run tells no scatter.
    """

    metric: str
    before: Estimate | None
    after: Estimate | None
    ratio: Ratio | None
    difference: Difference | None
    adjusted_p: float | None = None

    @property
    def told_apart(self) -> bool:
        """Whether the two differ beyond chance, at 5 % over all changes of this metric."""
        return self.adjusted_p is not None and self.adjusted_p <= 0.05

    @property
    def quantity(self) -> Quantity:
        """The metric's unit, words and what is better."""
        return quantity(self.metric)


@dataclass(frozen=True)
class Pair:
    """One setting in the first source and in another.

    Attributes:
        setting: what the two have in common and tells them from the other pairs; "" where there is but one.
        before: the row of the first source.
        after: the row of the other.
        changes: metric -> change, in the order of `KNOWN`.
        differences: factor -> (before, after): what of the configuration, device and engine differs.
        notes: what makes the two less comparable, in words.
        incomparable: why no energy of the two may be compared; "" where it may.
    """

    setting: str
    before: Row
    after: Row
    changes: Mapping[str, Change]
    differences: Mapping[str, tuple[str, str]]
    notes: tuple[str, ...]
    incomparable: str


@dataclass(frozen=True)
class Comparison:
    """One source against the first.

    Attributes:
        first: name of the first source.
        other: name of the other.
        pairs: matching settings.
        only_first: labels of settings that the other lacks.
        only_other: labels of settings that the first lacks.
    """

    first: str
    other: str
    pairs: tuple[Pair, ...]
    only_first: tuple[str, ...]
    only_other: tuple[str, ...]


def compare(sources: Sequence[tuple[str, Sequence[Result]]], more: Sequence[str] = ()) -> list[Comparison]:
    """Compares every source with the first, setting by setting.

    Settings match where they are equal in everything that varies inside either source. What differs between the sources
    as wholes (another commit, another GPU, another batch of two single runs) is listed and does not keep them apart.

    Args:
        sources: (name, results), at least two.
        more: metrics to compare beside those of `KNOWN`.
    """
    (first, before), *others = [(name, rows(results)) for name, results in sources]
    return [_against(first, before, name, after, more) for name, after in others]


def _against(first: str, before: list[Row], other: str, after: list[Row], more: Sequence[str]) -> Comparison:
    keys = list(dict.fromkeys([*varying(before), *varying(after)]))
    mine, theirs = ({_key(row, keys): row for row in table} for table in (before, after))
    shared = sorted((key for key in mine if key in theirs), key=lambda key: natural(mine[key].label))
    names = _names([mine[key] for key in shared])
    pairs = [_pair(name, mine[key], theirs[key], more) for name, key in zip(names, shared, strict=True)]
    return Comparison(
        first,
        other,
        tuple(_corrected(pairs)),
        tuple(row.label for key, row in mine.items() if key not in theirs),
        tuple(row.label for key, row in theirs.items() if key not in mine),
    )


def _key(row: Row, keys: Sequence[str]) -> tuple[str, ...]:
    factors = row.factors
    return tuple(factors.get(key, "-") for key in keys)


def _names(table: Sequence[Row]) -> list[str]:
    return [row.label for row in table] if len(table) > 1 else [""] * len(table)


def _pair(setting: str, before: Row, after: Row, more: Sequence[str]) -> Pair:
    incomparable = _incomparable(before, after)
    names = dict.fromkeys([*(metric.name for metric in KNOWN), *more])
    changes = {name: _change(quantity(name), before, after, incomparable) for name in names}
    known = {name: made for name, made in changes.items() if made.before is not None or made.after is not None}
    return Pair(setting, before, after, known, _differences(before, after), tuple(_notes(before, after)), incomparable)


def _change(metric: Quantity, before: Row, after: Row, incomparable: str) -> Change:
    a, b = before.sample(metric), after.sample(metric)
    estimates = (a.estimate() if a else None, b.estimate() if b else None)
    if a is None or b is None or (incomparable and metric.energy_power):
        return Change(metric.name, *estimates, None, None)
    if metric.share:
        return Change(metric.name, *estimates, None, _by_seed(metric, before, after) or difference(a, b))
    return Change(metric.name, *estimates, ratio_of(a, b), None)


ELSEWHERE = {"device", "generation", "gpu.name"}
"""Factors that leave to a seed what it decides: the weights at the start and the order of the samples."""


def _by_seed(metric: Quantity, before: Row, after: Row) -> Difference | None:
    """Pair by pair where both sides ran the same configuration with the same seeds: what they share falls out."""
    if not set(_differences(before, after)) <= ELSEWHERE:
        return None
    mine, theirs = ({r.config.get("seed"): metric.of(r) for r in row.finished} for row in (before, after))
    alike = len(mine) == len(before.finished) == len(theirs) == len(after.finished) and mine.keys() == theirs.keys()
    pairs = [(a, b) for seed, a in mine.items() if a is not None and (b := theirs.get(seed)) is not None]
    return paired(pairs) if alike and len(pairs) == len(mine) > 1 else None


def _incomparable(before: Row, after: Row) -> str:
    (source_a, scope_a), (source_b, scope_b) = before.group, after.group
    if scope_a != scope_b:
        return f"the energy of the {scope_a or 'unknown'} and of the {scope_b or 'unknown'} are not compared"
    if source_a != source_b:
        return f"{source_a or 'unknown'} and {source_b or 'unknown'} energies are not compared"
    return ""


def _differences(before: Row, after: Row) -> dict[str, tuple[str, str]]:
    mine, theirs = before.factors, after.factors
    keys = dict.fromkeys([*mine, *theirs])
    return {
        key: (mine.get(key, "-"), theirs.get(key, "-")) for key in keys if mine.get(key, "-") != theirs.get(key, "-")
    }


def _notes(before: Row, after: Row) -> list[str]:
    notes = []
    if not before.boards or not after.boards:
        notes.append("boards not known: the uncertainty of their gains is in the intervals")
    elif before.boards != after.boards:
        notes.append("other boards: the uncertainty of their gains is in the intervals")
    for name, words in (("git", "code"), ("packages", "energybench"), ("engine", "framework")):
        mine, theirs = _told(before, name), _told(after, name)
        if mine != theirs:
            notes.append(f"other {words}: {mine} -> {theirs}")
    for which, row in (("first", before), ("other", after)):
        flags = dict.fromkeys(result.tags.get("quality", "") for result in row.finished)
        notes += [f"quality of the {which}: {flag}" for flag in flags if flag not in ("", "ok")]
        failed = len(row.results) - len(row.finished)
        if failed:
            notes.append(f"{failed} of {len(row.results)} runs of the {which} did not finish and are left out")
    if min(len(before.finished), len(after.finished)) < 2:
        notes.append("a single run tells no scatter: ratios without an interval")
    return notes


def _told(row: Row, name: str) -> str:
    """What the provenance says, as text: the commits, the frameworks or the releases of energybench of the runs."""
    found = []
    for result in row.results:
        told = result.provenance.get(name)
        if name == "git":
            found.append(
                f"{told['commit'][:10]}{' with changes' * (told['changes'] == 'yes')}" if told else "no commit"
            )
        else:
            key = "engine" if name == "engine" else "energybench"
            found.append(str(told.get(key, "unknown")) if isinstance(told, Mapping) else "unknown")
    return ", ".join(dict.fromkeys(found))


def _corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """With Holm's correction over the pairs, metric by metric."""
    found: dict[str, list[tuple[int, float]]] = {}
    for index, pair in enumerate(pairs):
        for name, made in pair.changes.items():
            p = made.ratio.p if made.ratio else made.difference.p if made.difference else None
            if p is not None:
                found.setdefault(name, []).append((index, p))
    adjusted = [dict(pair.changes) for pair in pairs]
    for name, given in found.items():
        for (index, _), p in zip(given, holm([p for _, p in given]), strict=True):
            adjusted[index][name] = replace(adjusted[index][name], adjusted_p=p)
    return [replace(pair, changes=changes) for pair, changes in zip(pairs, adjusted, strict=True)]
