"""What the page says, as plain values: from results to headings, findings, tables and figures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from energybench.run.result import Result
from energybench.study.collect import Collected
from energybench.study.report import origin, pictures
from energybench.study.report.advice import Advice, advice, by_network
from energybench.study.report.claims import Claim, claims, effects_table
from energybench.study.report.drawing import Picture
from energybench.study.report.settings import Entry, alone, entries, settings_table, speedups, study_table
from energybench.study.report.tables import Table
from energybench.study.rows import rows
from energybench.study.summary import heading

STUDY = ("caffenet", "resnetim", "resnet", "cnn2d")
"""The study's networks."""

MOST_NAMED = 4


@dataclass(frozen=True)
class Group:
    """Settings that may be compared with each other: one scope, and measured or estimated.

    Attributes:
        name: for anchors and files: "gpu-measured".
        title: "Energy of the GPUs, measured".
        how: whose power it is and who read it.
        warning: what to keep in mind before any number; may be empty.
        advice: what to choose, a network each.
        results: the study's table, a network each.
        pictures: figures.
        claims: of the study, asked again.
        effects: the numbers behind them.
        settings: everything of every setting.
    """

    name: str
    title: str
    how: str
    warning: str
    advice: tuple[Advice, ...]
    results: tuple[Table, ...]
    pictures: tuple[Picture, ...]
    claims: tuple[Claim, ...]
    effects: Table
    settings: Table

    @property
    def tables(self) -> tuple[Table, ...]:
        """All of them."""
        return (*self.results, self.effects, self.settings)


@dataclass(frozen=True)
class Contents:
    """The page.

    Attributes:
        title: what was run.
        facts: (what, answer): when, on what, how many.
        notes: what a reader must know before the numbers.
        groups: one a scope and kind of energy; never compared with each other.
        traces: power over time of a few runs; None where there are no traces.
        flags: quality flags and where they are.
        failures: runs that did not finish.
        channels: who read what.
        software: machines and versions.
        version: of energybench.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    groups: tuple[Group, ...]
    traces: Picture | None
    flags: Table
    failures: Table
    channels: Table
    software: Table
    version: str

    @property
    def tables(self) -> tuple[Table, ...]:
        """All of them, for files."""
        of_groups = [table for group in self.groups for table in group.tables]
        others = (self.flags, self.failures, self.channels, self.software)
        return tuple(table for table in (*of_groups, *others) if table.rows)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All of them, for files."""
        of_groups = tuple(picture for group in self.groups for picture in group.pictures)
        return of_groups if self.traces is None else (*of_groups, self.traces)


def contents(found: Collected, title: str = "") -> Contents:
    """Works out everything that the page says.

    Args:
        found: the runs, and where those on disk have their power traces.
        title: heading of the page; empty: made of the sweeps' names.
    """
    from energybench import __version__

    results = found.results
    chosen = entries(rows(results))
    groups: dict[tuple[str, str], list[Entry]] = {}
    for one in chosen:
        if one.row.finished:
            groups.setdefault(_group(one), []).append(one)
    return Contents(
        title=title or _title(results),
        facts=tuple(_facts(results, chosen)),
        notes=(*_notes(chosen), *(f"Left out: {problem}" for problem in found.problems)),
        groups=tuple(_of_group(key, alone(members)) for key, members in sorted(groups.items(), reverse=True)),
        traces=pictures.traces(_traced(chosen, found.folders)),
        flags=origin.flags(chosen),
        failures=origin.failures(chosen),
        channels=origin.channels(results),
        software=origin.software(results),
        version=__version__,
    )


def _group(one: Entry) -> tuple[str, str]:
    tags = one.row.finished[0].tags
    return tags.get("energy_source", ""), tags.get("energy_scope", "")


def _title(results: Sequence[Result]) -> str:
    names = list(dict.fromkeys(result.sweep_name for result in results if result.sweep_name))
    if len(names) == 1:
        return names[0]
    models = dict.fromkeys(str(result.config.get("model", {}).get("name", "?")) for result in results)
    listed = ", ".join(list(models)[:MOST_NAMED]) + (" …" if len(models) > MOST_NAMED else "")
    return f"{len(names)} sweeps of {listed}" if names else f"Runs of {listed}"


def _facts(results: Sequence[Result], chosen: Sequence[Entry]) -> Iterable[tuple[str, str]]:
    counts = Counter(result.status for result in results)
    ended = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    yield "Runs", f"{ended}; {len(chosen):,} settings"
    yield "When", _when(results)
    yield "Network", _listed(one.network for one in chosen)
    yield "Data", _listed(one.dataset for one in chosen)
    yield "Devices", _listed(one.device for one in chosen if one.row.finished)
    yield "Host", _listed(str(result.provenance.get("host", "")) for result in results)
    yield "Engine", _listed(result.tags.get("engine", "") for result in results)
    yield "Meter", _listed(result.tags.get("meter", "") for result in results)


def _listed(words: Iterable[str]) -> str:
    found = list(dict.fromkeys(filter(None, words)))
    more = len(found) - MOST_NAMED
    return ", ".join(found[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _when(results: Sequence[Result]) -> str:
    moments = sorted(
        datetime.fromisoformat(text) for result in results for text in (result.started_at, result.ended_at) if text
    )
    if not moments:
        return ""
    first, last = moments[0], moments[-1].astimezone(moments[0].tzinfo)
    zone = first.strftime("%z")
    day, same_day = f"{first:%-d %B %Y}", first.date() == last.date()
    end = f"{last:%H:%M}" if same_day else f"{last:%-d %B %Y, %H:%M}"
    return f"{day}, {first:%H:%M} to {end} (UTC{zone[:3]}:{zone[3:]})" if zone else f"{day}, {first:%H:%M} to {end}"


def _notes(chosen: Sequence[Entry]) -> Iterable[str]:
    ours = [name for name in dict.fromkeys(one.network for one in chosen) if name in STUDY]
    if ours:
        yield (
            f"{', '.join(ours)}: a reconstruction from the abstract of the study that this project grows from "
            "(Castro et al. 2018, doi 10.1002/cpe.4786); no figure of the study itself is on this page."
        )
    synthetic = [one for one in chosen if one.synthetic]
    if synthetic:
        which = "All runs" if len(synthetic) == len(chosen) else f"{len(synthetic)} of {len(chosen)} settings"
        yield f"{which} trained on synthetic data: time and energy are real, accuracy means nothing and is absent."


def _of_group(key: tuple[str, str], members: Sequence[Entry]) -> Group:
    source, scope = key
    name = "-".join(filter(None, (scope, source))) or "no-energy"
    note = _interval_note(members)
    table = [one.row for one in members]
    return Group(
        name=name,
        title=_group_title(source, scope),
        how=_capital(heading([result for one in members for result in one.row.finished])),
        warning=_warning(members, source == "estimated"),
        advice=advice(members),
        results=tuple(
            study_table(f"results-{name}-{_slug(network)}", network, found, speedups(found), note)
            for network, found in by_network(members).items()
        ),
        pictures=tuple(pictures.of_group(members, name, estimated=source == "estimated")),
        claims=claims(table),
        effects=effects_table(f"effects-{name}", table),
        settings=settings_table(f"settings-{name}", "Every setting", members, note),
    )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _group_title(source: str, scope: str) -> str:
    if not source:
        return "Runs without energy"
    whose = {"gpu": "the GPUs", "cpu": "the CPU"}.get(scope, scope)
    return f"Energy of {whose}, {source}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _warning(members: Sequence[Entry], estimated: bool) -> str:
    if estimated:
        return (
            "No sensor was read: energy is an assumed, constant power times the time, good to about ±50 %. Here the "
            "setting with the least energy is the fastest by construction; what the devices really drew is not known."
        )
    shares = [_common(one) for one in members]
    known = [share for share in shares if share]
    if not known:
        return ""
    return (
        f"Every energy shares the uncertainty of its board's gain, up to ±{100 * max(known):.2g} % (k = 2). It cancels "
        "between runs on the same boards and is taken into account between different ones."
    )


def _common(one: Entry) -> float:
    """Expanded relative uncertainty that is the same in every run on the setting's boards."""
    sample = one.row.sample("energy_j")
    return 0.0 if sample is None or not sample.mean else 2 * sample.common_u / sample.mean


def _interval_note(members: Sequence[Entry]) -> str:
    repeated = any(len(one.row.finished) > 1 for one in members)
    single = any(len(one.row.finished) == 1 for one in members)
    over = "± is a 95 % interval over the repeats, for comparing settings on the same boards." if repeated else ""
    alone = "± of one run is what the meter says of itself (k = 2); one run tells no scatter." if single else ""
    return " ".join(filter(None, (over, alone)))


def _traced(chosen: Sequence[Entry], folders: Mapping[str, Path]) -> dict[str, tuple[Result, Path]]:
    """A few runs whose traces are worth looking at: of the least, the most and a middle power."""
    known = [
        (result.metrics.get("power_mean_w", 0.0), one.label, result)
        for one in chosen
        for result in one.row.finished[:1]
        if result.run_id in folders
    ]
    known.sort(key=lambda item: item[0])
    if len(known) > pictures.MOST_TRACES:
        known = [known[0], known[len(known) // 2], known[-1]]
    return {f"{label} ({origin.seed_words(result)})": (result, folders[result.run_id]) for _, label, result in known}
