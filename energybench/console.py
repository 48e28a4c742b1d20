"""What a person sees while a run goes on and after it: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from energybench.run.result import Result
from energybench.run.supervisor import Moment
from energybench.study.summary import energy_text

SHORT = {"time_s": "{:,.2f} s", "images_per_s": "{:,.0f} images/s", "accuracy_top1": "{:.2%} top-1"}
"""Metrics of the line that ends a run, and their form."""

PLAIN_PERIOD_S = 10.0
"""Between two lines of a log."""


def console(stream: TextIO | None = None) -> Console:
    """The console for everything printed to people; results keep their width where the output is no terminal."""
    made = Console(file=stream, highlight=False, soft_wrap=False)
    return made if made.is_terminal else Console(file=stream, highlight=False, width=140)


def moment_line(label: str, moment: Moment) -> str:
    """One line on what a run is doing: 'lenet batch=64 | train 3 | 61.2 W | 5,120 images/s | 40 % | 12 s left'."""
    parts = [label, moment.phase if moment.epoch is None else f"{moment.phase} {moment.epoch}"]
    if moment.power_w is not None:
        parts.append(f"{moment.power_w:,.1f} W")
    if moment.temperature_c is not None:
        parts.append(f"{moment.temperature_c:.0f} °C")
    if moment.images_per_s is not None:
        parts.append(f"{moment.images_per_s:,.0f} images/s")
    if moment.fraction > 0:
        parts.append(f"{moment.fraction:.0%}")
    if moment.left_s is not None:
        parts.append(f"{duration(moment.left_s)} left")
    return " | ".join(parts)


def duration(seconds: float) -> str:
    """'12 s', '3 min 05 s', '2 h 07 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Remainder(Protocol):
    """Knows what is left of a sweep."""

    def left(self) -> object:
        """What is left now; its text is shown."""


class RunView:
    """Shows one run: rewrites one line on a terminal, prints a line now and then elsewhere.

    Args:
        out: where to.
        label: what the run is called.
        sweep: knows what is left of the sweep it is in, for a second line on a terminal; None outside a sweep.
    """

    def __init__(self, out: Console, label: str, sweep: Remainder | None = None) -> None:
        self._out = out
        self._label = label
        self._sweep = sweep
        self._live = Live(console=out, refresh_per_second=4, transient=True) if out.is_terminal else None
        self._phase = ""
        self._printed_s = 0.0

    def __enter__(self) -> RunView:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, moment: Moment) -> None:
        """See energybench.run.supervisor.View."""
        line = moment_line(self._label, moment)
        if self._live:
            lines = [line] if self._sweep is None else [line, str(self._sweep.left())]
            self._live.update(Text("\n".join(lines), overflow="ellipsis", no_wrap=True))
            return
        now = time.monotonic()
        if moment.phase != self._phase or now - self._printed_s >= PLAIN_PERIOD_S:
            if moment.epoch is None or now - self._printed_s >= PLAIN_PERIOD_S:
                self._out.print(line, markup=False, soft_wrap=True)
                self._printed_s = now
            self._phase = moment.phase


def finished_line(label: str, result: Result) -> str:
    """One line on how a run ended."""
    if result.failure is not None:
        return f"{label} | {result.status}: {result.failure.message}"
    found = result.metrics
    parts = [label]
    if "energy_j" in found:
        estimated = " (estimated)" if result.tags.get("energy_source") == "estimated" else ""
        parts.append(f"{energy_text(result)} J{estimated}")
    parts.extend(form.format(found[key]) for key, form in SHORT.items() if key in found)
    return " | ".join(parts)
