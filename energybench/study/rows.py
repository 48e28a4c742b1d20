"""Runs that differ in nothing but their seed, brought together: the settings of a study, and what tells them apart."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from energybench.run.result import Result, devices_of
from energybench.study.intervals import Estimate, Sample
from energybench.study.quantities import Quantity, quantity
from energybench.study.sameness import decides, decisive
from energybench.tracking import run_name
from energybench.tracking.record import flatten

BESIDE = ("seed", "quality", "checkpoint")
"""What decides something in a run, and yet makes no other setting: neither other training nor other measuring."""

TOLD = ("device", "generation", "engine")
"""Tags that are factors too: what `auto` has found."""

UNTOLD = "experiment"
"""In no label, though it decides: an experiment is the settings that it makes."""

PLAIN = ("model.name", "dataset.name", "device", "gpu.count", "batch", "precision", "engine")
"""What names a setting first, where the command line's own words are not known."""


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but their seed.

    Attributes:
        label: tells it from the other rows: "batch=64 precision=fp16".
        results: the runs, in the order in which they were given.
    """

    label: str
    results: tuple[Result, ...]

    @cached_property
    def finished(self) -> tuple[Result, ...]:
        """Those that came to their end."""
        return tuple(result for result in self.results if result.status == "finished")

    @cached_property
    def boards(self) -> frozenset[tuple[str, str]]:
        """(host, UUID) of every board that trained: a CPU has no UUID of its own. Empty where none is known."""
        return frozenset(
            (str(result.provenance.get("host")), str(device.get("uuid")))
            for result in self.results
            for device in devices_of(result.provenance)
        )

    @property
    def group(self) -> tuple[str, str]:
        """What may be compared with what: never measured with estimated, never one scope with another."""
        tags = (self.finished or self.results)[0].tags  # one that failed early has none
        return tags.get("energy_source", ""), tags.get("energy_scope", "")

    @cached_property
    def factors(self) -> dict[str, str]:
        """What the setting is, as text: the configuration on one level, the device and the engine that were found."""
        return _factors(self.results[0])

    def sample(self, metric: Quantity | str) -> Sample | None:
        """The values of the finished runs; None where none of them has one."""
        asked = quantity(metric) if isinstance(metric, str) else metric
        if asked not in self._samples:
            self._samples[asked] = self._sample(asked)
        return self._samples[asked]

    @cached_property
    def _samples(self) -> dict[Quantity, Sample | None]:
        """What was asked before: a report of thousands of runs asks the same some twenty times."""
        return {}

    def _sample(self, asked: Quantity) -> Sample | None:
        having = [(result, value) for result in self.finished if (value := asked.of(result)) is not None]
        if not having:
            return None
        independent, edges, common = zip(*(asked.uncertainties(result) for result, _ in having), strict=True)
        return Sample(
            values=tuple(value for _, value in having),
            independent_u=independent,
            common_u=max(common),
            edges_u=max(edges),
            boards=self.boards,
        )

    def estimate(self, metric: Quantity | str) -> Estimate | None:
        """Mean and interval of a metric over the finished runs; None where none of them has it."""
        sample = self.sample(metric)
        return None if sample is None else sample.estimate()


def rows(results: Iterable[Result]) -> list[Row]:
    """One row a setting, in order of first appearance; labelled by the settings that differ."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(_setting(result), []).append(result)
    labels = _labels([members[0] for members in groups.values()])
    return [Row(label, tuple(members)) for label, members in zip(labels, groups.values(), strict=True)]


def among(table: Sequence[Row]) -> list[Row]:
    """The same rows, labelled by what differs among them."""
    labels = _labels([row.results[0] for row in table])
    return [replace(row, label=label) for row, label in zip(table, labels, strict=True)]


def deciding(result: Result) -> dict[str, str]:
    """What of a run's command line makes its setting: key -> the whole override."""
    words = {text.lstrip("+").partition("=")[0]: text for text in result.overrides}
    return {key: text for key, text in words.items() if decides(key, result.config, BESIDE)}


def varying(table: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """The factors that differ between rows, with their levels in order of appearance."""
    found = [row.factors for row in table]
    keys = dict.fromkeys(key for factors in found for key in factors)
    levels = {key: tuple(dict.fromkeys(factors.get(key, "-") for factors in found)) for key in keys}
    return {key: seen for key, seen in levels.items() if len(seen) > 1}


def natural(label: str) -> list[tuple[int, float, str]]:
    """Sorts labels as people do: batch=64 before batch=128."""
    parts = re.split(r"(\d+(?:\.\d+)?)", label)
    return [(0, float(part), "") if index % 2 else (1, 0.0, part) for index, part in enumerate(parts)]


def _setting(result: Result) -> str:
    """The same text for the same setting."""
    if not result.config:
        return result.run_id
    return json.dumps([_of_setting(result), _told(result)], sort_keys=True)


def _of_setting(result: Result) -> dict[str, Any]:
    return decisive(result.config, BESIDE)


def _told(result: Result) -> dict[str, str]:
    return {key: result.tags[key] for key in TOLD if key in result.tags}


def _factors(result: Result) -> dict[str, str]:
    return {**flatten(_of_setting(result)), **_told(result)}


def _labels(results: Sequence[Result]) -> list[str]:
    """'batch=64' for each: what the command lines' own words decide and differs between the rows."""
    words = [deciding(result) for result in results]
    given = [{key: text.partition("=")[2] for key, text in one.items() if key != UNTOLD} for one in words]
    found = [_factors(result) for result in results]
    keys = dict.fromkeys(key for one in given for key in one)
    values = {key: [_value(key, *row) for row in zip(found, given, strict=True)] for key in keys}
    differing = [key for key, row_by_row in values.items() if len(set(row_by_row)) > 1]
    labels = [" ".join(f"{key}={values[key][index]}" for key in differing) for index in range(len(results))]
    if differing and len(set(labels)) == len(labels):
        return labels
    if len(results) == 1:
        return [run_name(results[0].config, list(words[0].values()))]
    return _by_factors(found, labels, results)


def _value(key: str, factors: Mapping[str, str], given: Mapping[str, str]) -> str:
    """What the configuration holds under a key of the command line, which need not have been given for this run."""
    return factors.get(key) or factors.get(f"{key}.name") or given.get(key, "-")


def _by_factors(found: Sequence[Mapping[str, str]], begun: Sequence[str], results: Sequence[Result]) -> list[str]:
    """Adds to each label the factors that are needed to tell it from the others: the plainest first."""
    keys = dict.fromkeys([*PLAIN, *(key for factors in found for key in factors)])
    labels = list(begun)
    for key in keys:
        if len(set(labels)) == len(labels):
            break
        values = [factors.get(key, "-") for factors in found]
        more = [" ".join(filter(None, (label, f"{key}={value}"))) for label, value in zip(labels, values, strict=True)]
        if len(set(more)) > len(set(labels)):
            labels = more
    return labels if len(set(labels)) == len(labels) else _numbered(results, labels)


def _numbered(results: Sequence[Result], labels: Sequence[str]) -> list[str]:
    """Runs without a configuration are told apart by their ids."""
    return [
        label if labels.count(label) == 1 else f"{label} {result.run_id}".strip()
        for label, result in zip(labels, results, strict=True)
    ]


def levels(table: Sequence[Row], factor: str) -> Mapping[str, list[Row]]:
    """The rows by their level of a factor, in order of appearance."""
    found: dict[str, list[Row]] = {}
    for row in table:
        found.setdefault(row.factors.get(factor, "-"), []).append(row)
    return found
