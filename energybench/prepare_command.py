"""`energybench prepare`: packs the data set that a configuration names, and says how far it is."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from energybench import cells
from energybench.config import make
from energybench.console import PLAIN_PERIOD_S, console, duration
from energybench.errors import EXIT_DONE, EXIT_FAILED, ConfigError
from energybench.prepare import Progress, prepare, verify
from energybench.prepared import Manifest, Part, Preparable, Preparation
from energybench.registry import Registry

SHOWN_SKIPPED = 10
"""Names of samples left out that are printed; prepared.json has all."""


def run(
    overrides: Sequence[str],
    registry: Registry,
    *,
    workers: int | None = None,
    again: bool = False,
    verify: bool = False,
) -> int:
    """Prepares, or verifies; the exit code.

    Args:
        overrides: as for a run; what counts is dataset and its options.
        registry: where the data set is found.
        workers: processes; None: as many as this process may use processors.
        again: make anew what is there.
        verify: only compare with the checksums.

    Raises:
        EnergybenchError: the data set needs no preparation, or its sources are not there or wrong.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers}: give a whole number from 1")
    plan = _plan(overrides, registry)
    out = console()
    if verify:
        return _verify(plan, out)
    prepare_aloud(plan, workers or len(os.sched_getaffinity(0)), again=again)
    return EXIT_DONE


def prepare_aloud(plan: Preparation, workers: int, *, again: bool = False) -> None:
    """Prepares, shows how far it is, and sums up what was made; see `energybench.prepare.prepare`."""
    out = console()
    with _Shown(out, plan) as shown:
        manifest = prepare(plan, workers, shown.update, again=again)
    _sum_up(out, plan, manifest)


def _plan(overrides: Sequence[str], registry: Registry) -> Preparation:
    command = cells.read(cells.arguments(overrides), registry)
    if command.multirun:
        raise ConfigError("prepare takes one data set; leave out --multirun")
    part = command.cells[0].experiment.dataset
    plugin = make(registry, "dataset", part)
    if not isinstance(plugin, Preparable):
        raise ConfigError(f"dataset {part.name!r} needs no preparation; it can be trained on as it is")
    return plugin.preparation()


def progress_line(name: str, progress: Progress) -> str:
    """'imagenet: 12 of 96 parts | 120,000 of 1,281,167 samples | 12 % | 3 min 05 s left'."""
    line = [
        f"{name}: {progress.parts:,} of {progress.of_parts:,} parts",
        f"{progress.samples:,} of {progress.of_samples:,} samples",
        f"{progress.samples / max(progress.of_samples, 1):.0%}",
    ]
    if progress.reused:
        line[0] += f" ({progress.reused:,} were there)"
    if progress.skipped:
        line.append(f"{progress.skipped:,} left out")
    if progress.left_s is not None:
        line.append(f"{duration(progress.left_s)} left")
    return " | ".join(line)


class _Shown:
    """Rewrites one line on a terminal, prints a line now and then elsewhere."""

    def __init__(self, out: Console, plan: Preparation) -> None:
        self._out = out
        self._name = plan.dataset
        self._live = Live(console=out, refresh_per_second=4, transient=True) if out.is_terminal else None
        self._printed_s = -PLAIN_PERIOD_S

    def __enter__(self) -> _Shown:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, progress: Progress) -> None:
        line, now = progress_line(self._name, progress), time.monotonic()
        if self._live:
            self._live.update(Text(line, overflow="ellipsis", no_wrap=True))
        elif now - self._printed_s >= PLAIN_PERIOD_S:
            self._printed_s = now
            self._out.print(line, markup=False, soft_wrap=True)


def _sum_up(out: Console, plan: Preparation, manifest: Manifest) -> None:
    size = sum(part.size for part in manifest.parts)
    counts: dict[str, int] = {}
    for part in manifest.parts:
        counts[part.split] = counts.get(part.split, 0) + part.samples
    listed = ", ".join(f"{count:,} of {split}" for split, count in counts.items())
    _say(out, f"{plan.dataset}: {listed}, {size / 1e9:,.2f} GB in {len(manifest.parts):,} parts in {plan.folder}")
    skipped = [one for part in manifest.parts for one in part.skipped]
    for one in skipped[:SHOWN_SKIPPED]:
        _say(out, f"left out: {one.name}: {one.reason}")
    if len(skipped) > SHOWN_SKIPPED:
        _say(out, f"left out: {len(skipped) - SHOWN_SKIPPED:,} more, listed in {plan.folder / 'prepared.json'}")


def _verify(plan: Preparation, out: Console) -> int:
    def report(part: Part, good: bool) -> None:
        if not good:
            _say(out, f"{part.file}: not as it was written")

    wrong = verify(plan.folder, report)
    total = len(Manifest.read(plan.folder).parts)
    if wrong:
        _say(
            out, f"{len(wrong):,} of {total:,} parts are wrong; delete them and prepare again: only they are made anew"
        )
        return EXIT_FAILED
    _say(out, f"{total:,} parts in {plan.folder} are as they were written")
    return EXIT_DONE


def _say(out: Console, line: str) -> None:
    out.print(line, markup=False, soft_wrap=True)
