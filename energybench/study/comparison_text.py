"""A comparison as tables, Markdown and JSON: `energybench compare`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import permutations
from typing import Any

from energybench.study.compare import Change, Comparison, Pair
from energybench.study.condition import Verdict
from energybench.study.grid import Grid
from energybench.study.intervals import ROUNDING
from energybench.study.payback import CRITERIA, Payback, payback
from energybench.study.summary import heading
from energybench.study.words import amount, listed, scaled, signed

OVERVIEW = ("energy_per_image_j", "images_per_s", "power_mean_w", "accuracy_top1")
"""Metrics of a table of many settings."""

LEGEND = "* told apart from no change, at 5 % over all changes of this metric (Welch's test, Holm's correction)"


def grids(comparison: Comparison, more: Sequence[str] = ()) -> list[Grid]:
    """One setting: a line a metric. Several: a line a setting."""
    if len(comparison.pairs) == 1:
        return [_of_pair(comparison, comparison.pairs[0])]
    return [_of_pairs(comparison, more)] if comparison.pairs else []


def _of_pair(comparison: Comparison, pair: Pair) -> Grid:
    rows = []
    for change in pair.changes.values():
        metric = change.quantity
        known = [found.mean for found in (change.before, change.after) if found is not None]
        factor, unit = (100.0, "%") if metric.share else scaled(known, metric.unit)
        head = f"{metric.words} ({unit})" if unit else metric.words
        values = [amount(found, factor) for found in (change.before, change.after)]
        rows.append((head, *values, moved(change)))
    runs = tuple(str(len(row.finished)) for row in (pair.before, pair.after))
    quality = tuple(_quality(row.finished) for row in (pair.before, pair.after))
    rows += [("runs", *runs, ""), ("quality", *quality, "")]
    title = "; ".join(filter(None, (heading([*pair.before.finished, *pair.after.finished]), pair.setting)))
    return Grid(title, ("", comparison.first, comparison.other, "change"), tuple(rows))


def _of_pairs(comparison: Comparison, more: Sequence[str]) -> Grid:
    names = [
        name for name in dict.fromkeys([*OVERVIEW, *more]) if any(name in pair.changes for pair in comparison.pairs)
    ]
    words = [
        next(pair.changes[name].quantity.words for pair in comparison.pairs if name in pair.changes) for name in names
    ]
    rows = tuple(
        (
            pair.setting,
            *(moved(pair.changes[name]) if name in pair.changes else "-" for name in names),
            f"{len(pair.before.finished)}, {len(pair.after.finished)}",
        )
        for pair in comparison.pairs
    )
    read = heading([found for pair in comparison.pairs for row in (pair.before, pair.after) for found in row.finished])
    title = f"changes from {comparison.first} to {comparison.other}; {read}"
    return Grid(title, ("setting", *words, "runs"), rows)


def _quality(results: Sequence[Any]) -> str:
    return ", ".join(dict.fromkeys(result.tags.get("quality", "-") for result in results)) or "-"


def moved(change: Change) -> str:
    """'-31 % (-34 to -28) *', '+0.3 pp (-0.1 to +0.7)'."""
    mark = " *" if change.told_apart else ""
    if change.ratio is not None:
        ends = _ends(change.ratio.low, change.ratio.high, 1.0)
        return f"{signed(change.ratio.value - 1)} %{ends}{mark}"
    if change.difference is not None:
        ends = _ends(change.difference.low, change.difference.high, 0.0)
        return f"{signed(change.difference.value)} pp{ends}{mark}"
    return "not compared" if change.before is not None and change.after is not None else "-"


def _ends(low: float | None, high: float | None, origin: float) -> str:
    if low is None or high is None or high - low <= ROUNDING:
        return ""
    return f" ({signed(low - origin)} to {signed(high - origin)})"


def lines(comparison: Comparison) -> list[str]:
    """What stands below the table: what differs, what is missing, what speaks against comparing."""
    return [*_differences(comparison), *_paybacks(comparison), *_notes(comparison), *_unmatched(comparison)]


def _differences(comparison: Comparison) -> Iterator[str]:
    """What differs in every pair once, the rest by pair."""
    shared = _shared([set(pair.differences.items()) for pair in comparison.pairs])
    if shared:
        yield "Differences: " + listed([f"{key}: {a} -> {b}" for key, (a, b) in sorted(shared)], 12)
    for pair in comparison.pairs:
        own = [(key, change) for key, change in pair.differences.items() if (key, change) not in shared]
        if own:
            yield f"Differences in {pair.setting}: " + listed([f"{key}: {a} -> {b}" for key, (a, b) in own], 12)


def paybacks(comparison: Comparison, pair: Pair) -> Iterator[tuple[str, str, Payback]]:
    """(the source that prepares more, the other one, what that is worth): of energy and of time, where either does."""
    sides = ((comparison.first, pair.before), (comparison.other, pair.after))
    for criterion in CRITERIA[1:] if pair.incomparable else CRITERIA:
        for (name, row), (other, its_row) in permutations(sides):
            if (back := payback(row, its_row, criterion)) is not None:
                yield name, other, back


def _paybacks(comparison: Comparison) -> Iterator[str]:
    for pair in comparison.pairs:
        where = f" [{pair.setting}]" if pair.setting else ""
        for name, other, back in paybacks(comparison, pair):
            yield f"{name} takes {back.words(other)}{where}"


def _notes(comparison: Comparison) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for pair in comparison.pairs:
        for note in [*([f"Not comparable: {pair.incomparable}"] if pair.incomparable else []), *pair.notes]:
            found.setdefault(note, []).append(pair.setting)
    for note, settings in found.items():
        where = "" if len(settings) == len(comparison.pairs) else f" [{listed(settings, 4)}]"
        yield f"Note: {note}{where}" if not note.startswith("Not") else f"{note}{where}"


def _unmatched(comparison: Comparison) -> Iterator[str]:
    for name, labels in ((comparison.first, comparison.only_first), (comparison.other, comparison.only_other)):
        if labels:
            yield f"Only in {name}: {listed(labels)}"
    if not comparison.pairs:
        yield f"No setting of {comparison.first} matches one of {comparison.other}."


def _shared(sets: Sequence[set[Any]]) -> set[Any]:
    return set.intersection(*sets) if sets else set()


def verdict_line(verdict: Verdict, *, sure_only: bool) -> str:
    """'FAIL energy_per_image_j +5%: +7.3% (95 %: +5.1 to +9.6%)'."""
    if verdict.state == "unknown":
        return f"unknown: {verdict.words}"
    if verdict.state == "not met":
        return f"ok: {verdict.words}{'' if verdict.sure else ', though not surely'}"
    word = "FAIL" if verdict.sure or not sure_only else "ok, as it is not surely beyond"
    return f"{word}: {verdict.words}{', surely' if verdict.sure else ', though not surely'}"


def to_json(comparisons: Sequence[Comparison], verdicts: Sequence[Verdict], failed: bool) -> str:
    """Everything the tables and lines say, for programs."""
    data = {
        "failed": failed,
        "conditions": [{**asdict(verdict), "condition": verdict.condition.text} for verdict in verdicts],
        "comparisons": [_comparison(comparison) for comparison in comparisons],
    }
    return json.dumps(data, indent=2, ensure_ascii=False)


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "first": comparison.first,
        "other": comparison.other,
        "pairs": [_pair(comparison, pair) for pair in comparison.pairs],
        "only_first": list(comparison.only_first),
        "only_other": list(comparison.only_other),
    }


def _pair(comparison: Comparison, pair: Pair) -> dict[str, Any]:
    return {
        "setting": pair.setting,
        "runs": {
            "first": [result.run_id for result in pair.before.finished],
            "other": [result.run_id for result in pair.after.finished],
        },
        "changes": {
            name: {key: value for key, value in asdict(change).items() if key != "metric" and value is not None}
            | {"told_apart": change.told_apart}
            for name, change in pair.changes.items()
        },
        "differences": {key: list(change) for key, change in pair.differences.items()},
        "payback": [{"source": name, **back.to_json()} for name, _, back in paybacks(comparison, pair)],
        "notes": list(pair.notes),
        "incomparable": pair.incomparable or None,
    }
