"""How each number was measured, on what, and with which software: what somebody needs to judge or to repeat it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from energybench.power.flags import FLAGS
from energybench.run.metrics import TRAIN
from energybench.run.result import Result, devices_of
from energybench.study.report.numbers import scale
from energybench.study.report.settings import Entry, flags_of
from energybench.study.report.tables import Cell, Column, Table, text_cells, without_empty_columns

MOST_NAMED = 6
"""Settings named behind a flag; the settings table tells the flags of each."""

_PACKAGES = ("energybench", "mxnet", "mxnet-cu112", "torch", "numpy", "mlflow")


@dataclass
class _Seen:
    """What all runs tell of one channel of one board."""

    runs: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    update_s: list[float] = field(default_factory=list)
    coverage: list[float] = field(default_factory=list)
    readings: list[int] = field(default_factory=list)
    described: Mapping[str, Any] = field(default_factory=dict)
    device: str = ""
    meters: Counter[str] = field(default_factory=Counter)


def channels(results: Iterable[Result]) -> Table:
    """One row a channel of a board of a host: who read it, how, how often, how completely."""
    seen: dict[tuple[str, str, str], _Seen] = {}
    for result in results:
        names = {board.get("uuid"): board.get("name", "") for board in devices_of(result.provenance)}
        for channel in result.provenance.get("channels", []):
            key = (str(result.provenance.get("host", "")), channel["name"], str(channel.get("device_id", "")))
            one = seen.setdefault(key, _Seen(described=channel, device=names.get(channel.get("device_id"), "")))
            _add(one, result, channel["name"])
    heads = (
        Column("host", "host"),
        Column("channel", "channel"),
        Column("board", "board"),
        Column("uuid", "identity"),
        Column("meter", "meter"),
        Column("source", "source"),
        Column("update_s", "new value every", True),
        Column("coverage", "least coverage", True),
        Column("gain_uncertainty", "gain uncertainty (k = 1)", True),
        Column("runs", "runs", True),
        Column("origin", "where it comes from"),
    )
    rows = tuple(_channel_row(host, name, uuid, one) for (host, name, uuid), one in sorted(seen.items()))
    note = (
        "Coverage: the share of a training phase that valid readings cover; the least of all runs. "
        "Gain uncertainty: common to every run on that board, so that it cancels between runs on it."
    )
    return without_empty_columns(Table("channels", "What was read", heads, rows, note))


def _add(one: _Seen, result: Result, channel: str) -> None:
    one.runs += 1
    if "meter" in result.tags:
        one.meters[result.tags["meter"]] += 1
    for phase in result.phases:
        energy = phase.channels.get(channel)
        if phase.name != TRAIN or energy is None:
            continue
        one.sources[energy.source] += 1
        one.coverage.append(energy.coverage)
        one.readings.append(energy.readings)
        if energy.update_s is not None:
            one.update_s.append(energy.update_s)


def _channel_row(host: str, name: str, uuid: str, one: _Seen) -> tuple[Cell, ...]:
    update = median(one.update_s) if one.update_s else None
    least = min(one.coverage, default=None)
    gain = one.described.get("gain_uncertainty")
    calibration = one.described.get("calibration")
    origin = str(one.described.get("origin", ""))
    return (
        *text_cells(host, name, one.device, uuid if uuid != one.device else ""),
        *text_cells(", ".join(one.meters), ", ".join(source for source, _ in one.sources.most_common())),
        Cell("" if update is None else scale("s", [update]).with_unit(update), update),
        Cell("" if least is None else f"{least:.2%}".replace("%", " %"), least),
        Cell("" if gain is None else f"{100 * gain:.3g} %", gain),
        Cell(str(one.runs), one.runs),
        Cell("; ".join(filter(None, (origin, "calibrated" if calibration else "")))),
    )


def software(results: Sequence[Result]) -> Table:
    """Machines, systems and versions; what differs between runs is told with how many have it."""
    found: dict[str, Counter[str]] = {}
    for result in results:
        for name, value in _versions(result.provenance).items():
            found.setdefault(name, Counter())[value] += 1
    rows = tuple(text_cells(name, _counted(values, len(results))) for name, values in found.items())
    return Table("software", "Machine and software", (Column("part", "part"), Column("found", "found")), rows)


def _versions(provenance: Mapping[str, Any]) -> dict[str, str]:
    cpu, git, engine = (provenance.get(key) or {} for key in ("cpu", "git", "engine"))
    told = {
        "host": provenance.get("host"),
        "system": provenance.get("system"),
        "CPU": f"{cpu['name']}, {cpu.get('logical_cores', '?')} logical cores" if "name" in cpu else None,
        "Python": provenance.get("python"),
        "code": f"commit {git['commit'][:12]}{' with changes' if git.get('changes') == 'yes' else ''}" if git else None,
        **{f"engine: {key}": value for key, value in engine.items()},
    }
    packages = provenance.get("packages") or {}
    told |= {name: packages.get(name) for name in _PACKAGES}
    return {name: str(value) for name, value in told.items() if value}


def _counted(values: Counter[str], runs: int) -> str:
    if len(values) == 1 and sum(values.values()) == runs:
        return next(iter(values))
    shown = [f"{value} ({count} of {runs} runs)" for value, count in values.most_common(MOST_NAMED)]
    more = len(values) - MOST_NAMED
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")


def flags(chosen: Sequence[Entry]) -> Table:
    """Each quality flag that a run has, what it says, and which settings have it how often."""
    counts: dict[str, Counter[str]] = {}
    for one in chosen:
        for result in one.row.finished:
            for flag in flags_of(result.tags.get("quality", "")):
                counts.setdefault(flag, Counter())[one.label] += 1
    rows = tuple(
        (
            *text_cells(flag, FLAGS.get(flag, "no flag that this release knows")),
            Cell(str(sum(by_setting.values())), sum(by_setting.values())),
            *text_cells(_named(by_setting)),
        )
        for flag, by_setting in sorted(counts.items())
    )
    heads = (
        Column("flag", "flag"),
        Column("says", "what it says"),
        Column("runs", "runs", True),
        Column("where", "where"),
    )
    return Table("flags", "Quality flags", heads, rows)


def _named(by_setting: Counter[str]) -> str:
    shown = [f"{label} ({count})" for label, count in by_setting.most_common(MOST_NAMED)]
    more = len(by_setting) - MOST_NAMED
    return ", ".join(shown) + (f", and {more} more settings" if more > 0 else "")


def failures(chosen: Sequence[Entry]) -> Table:
    """The runs that did not come to their end, and why."""
    rows = tuple(
        text_cells(one.label, seed(result), result.status, result.failure.message if result.failure else "")
        for one in chosen
        for result in one.row.results
        if result.status != "finished"
    )
    heads = (Column("setting", "setting"), Column("seed", "seed"), Column("status", "status"), Column("reason", "why"))
    return Table("failures", "Runs that did not finish", heads, rows, cut=40)


def seed(result: Result) -> str:
    """Of a run, as text."""
    return str(result.config.get("seed", ""))


def seed_words(result: Result) -> str:
    """'seed 1', to tell a run from its repeats."""
    return f"seed {seed(result)}"
