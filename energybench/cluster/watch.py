"""Waits while a scheduler runs cells: looks into their folders, seldom asks the scheduler, records what has ended."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

from energybench.cluster.options import ClusterOptions
from energybench.cluster.scheduler import ENDED, QUEUED, Scheduler, Standing
from energybench.cluster.ticket import Node, Ticket
from energybench.console import console, finished_line
from energybench.errors import ClusterError, DataError
from energybench.recording import recorded
from energybench.run.execute import Place
from energybench.run.result import RESULT_FILE, Result
from energybench.study.ledger import Sweep

LAST_S = 90.0
"""How long is waited for what cancelled cells keep; SLURM's KillWait is 30 s unless configured."""

MISSED = 2
"""Questions in a row to which the scheduler does not know a cell, after which it is lost: a shared file system may show
its result late."""


class Left(KeyboardInterrupt):
    """Ends this process, and not what it has submitted."""


class Watch:
    """Waits for cells of one sweep.

    Args:
        directory: the sweep's folder.
        sweep: its ledger.
        scheduler: has the cells.
        options: of the launcher.
    """

    def __init__(self, directory: Path, sweep: Sweep, scheduler: Scheduler, options: ClusterOptions) -> None:
        self._directory = directory
        self._sweep = sweep
        self._scheduler = scheduler
        self._options = options
        self._out = console()
        self._waiting: dict[int, Ticket] = {}
        self._on: dict[int, Node] = {}
        self._missed: Counter[int] = Counter()
        self._before: dict[int, str] = {}  # of attempts that were cut short before this command, which are known
        self._ended = 0
        self._why: Counter[str] = Counter()
        self._silent = False
        self._asked_s = 0.0

    def until_ended(self, tickets: Sequence[Ticket]) -> None:
        """Returns when every cell has ended, one way or the other.

        Raises:
            KeyboardInterrupt: Ctrl-C; the cells are cancelled and what they keep is collected.
            Left: SIGTERM, or the terminal went away; the cells go on.
        """
        self._waiting = {ticket.number: ticket for ticket in tickets}
        self._asked_s = time.monotonic()
        cut = {number: self._result(self._directory / str(number)) for number in self._waiting}
        self._before = {number: result.run_id for number, result in cut.items() if result and _is_cut(result)}
        with _leaving():
            try:
                self._wait()
            except Left:
                left = f"{_cells(len(self._waiting))} left to {self._scheduler.title}"
                self._say(f"{left}; the same command collects them")
                raise
            except KeyboardInterrupt:
                self._cancel()
                raise

    def _wait(self, limit_s: float = float("inf")) -> None:
        begun_s = time.monotonic()
        while self._waiting and time.monotonic() - begun_s < limit_s:
            self._look()
            if self._waiting and time.monotonic() - self._asked_s >= self._options.ask_s:
                self._ask()
            if self._waiting:
                time.sleep(self._options.look_s)

    def _cancel(self) -> None:
        self._say(f"interrupted: {_cells(len(self._waiting))} cancelled; a second Ctrl-C waits for nothing")
        try:
            self._scheduler.cancel(list(self._waiting))
        except ClusterError as error:
            self._say(f"{error}; what was submitted goes on, and the same command collects it")
            return
        look_s, ask_s = min(self._options.look_s, 1.0), min(self._options.ask_s, 2.0)
        self._options = replace(self._options, look_s=look_s, ask_s=ask_s)
        self._wait(LAST_S)

    def _look(self) -> None:
        """Into the folder of each cell: by files alone, which costs the scheduler nothing."""
        for number in list(self._waiting):
            folder = self._directory / str(number)
            node = Node.read(folder)
            if node is not None and node != self._on.get(number):
                self._on[number] = node
                again = f", start {node.restarts + 1}" if node.restarts else ""
                self._say(f"{self._label(number)} | on {node.host} ({self._scheduler.title} job {node.job}{again})")
            result = self._result(folder)
            if result is not None and not _is_cut(result):  # that one may be queued again by itself
                self._end(number, result)

    def _result(self, folder: Path) -> Result | None:
        with suppress(DataError):
            if (folder / RESULT_FILE).exists():
                result = Result.read(folder)
                return result if result.sweep_id == self._sweep.sweep_id else None
        return None

    def _ask(self) -> None:
        self._asked_s = time.monotonic()
        try:
            standing = self._scheduler.standing(list(self._waiting))
        except ClusterError as error:
            if not self._silent:
                self._say(f"{error}; results are waited for all the same")
            self._silent = True
            return
        self._silent = False
        self._tell_queued(standing.values())
        for number in list(self._waiting):
            known = standing.get(number)
            if known is not None and known.state != ENDED:
                self._missed[number] = 0
                continue
            self._missed[number] += 1
            result = self._result(self._directory / str(number))
            if result is not None and result.run_id != self._before.get(number):
                self._end(number, result)
            elif self._missed[number] >= MISSED:
                why = known.words if known is not None else "it knows no more of it"
                job = known.job if known is not None else self._on[number].job if number in self._on else "?"
                self._lose(number, f"{self._scheduler.title} job {job}: {why}")

    def _tell_queued(self, standing: Iterable[Standing]) -> None:
        """Why cells wait, when that has changed."""
        why = Counter(one.words for one in standing if one.state == QUEUED and one.words)
        if why.keys() != self._why.keys():
            for words, count in why.items():
                self._say(f"{_cells(count)} queued: {words}")
        self._why = why

    def _end(self, number: int, result: Result) -> None:
        label, folder = self._label(number), self._directory / str(number)
        ticket = self._waiting.pop(number)
        self._ended += 1
        self._say(f"{finished_line(label, result)}")
        place = Place(folder, ticket.name, overrides=result.overrides, sweep_id=result.sweep_id)
        recorded(result, place, self._sweep, self._sweep.key(number))
        self._tell()

    def _lose(self, number: int, why: str) -> None:
        label = self._label(number)
        del self._waiting[number]
        self._say(f"{label} | lost, without a result: {why}; the same command runs it again")
        self._tell()

    def _label(self, number: int) -> str:
        return f"cell {number}: {self._waiting[number].name}"

    def _tell(self) -> None:
        running = sum(number in self._on for number in self._waiting)
        if self._waiting:
            self._say(f"{self._ended} ended, {running} started, {len(self._waiting) - running} queued")

    def _say(self, line: str) -> None:
        with suppress(OSError):  # the terminal went away
            self._out.print(line, markup=False, soft_wrap=True)


def _is_cut(result: Result) -> bool:
    return result.status == "interrupted"


def _cells(count: int) -> str:
    return f"{count} cell{'s' if count != 1 else ''}"


@contextmanager
def _leaving() -> Iterator[None]:
    """SIGTERM and SIGHUP, which a logout sends, end this process alone: Ctrl-C ends the cells too."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise Left

    kept = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
