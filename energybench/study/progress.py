"""How far a sweep is: which of its cells are done, which are to run, and what these will take."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from energybench.console import duration
from energybench.errors import DataError
from energybench.run import attempts
from energybench.run.code import changes
from energybench.run.preflight import Plan
from energybench.run.result import RESULT_FILE, Result
from energybench.study.forecast import Forecaster

DONE, FAILED, TO_RUN = "done", "failed", "to run"
NO_RESULT = "no result yet"
"""Of a cell that was handed to a cluster, which may have it still."""


@dataclass(frozen=True)
class Task:
    """One cell of a sweep, and how it stands.

    Attributes:
        plan: what is run.
        number: of its folder; None where it has none yet.
        state: done | failed | to run.
        why: of a cell that is to run though it was begun before: why.
        result: of the earlier run that stands; None where it is to run.
        goes_on: whether it is to go on from the checkpoint of an earlier attempt.
    """

    plan: Plan
    number: int | None
    state: str
    why: str = ""
    result: Result | None = None
    goes_on: bool = False

    @property
    def to_run(self) -> bool:
        """Whether it is to run."""
        return self.state == TO_RUN


def task(plan: Plan, number: int | None, directory: Path, sweep_id: str) -> Task:
    """How a cell of a sweep stands, by what lies in its folder."""
    folder = None if number is None else directory / str(number)
    if folder is None or not folder.exists():
        return Task(plan, number, TO_RUN)
    if not (folder / RESULT_FILE).exists():
        return Task(plan, number, TO_RUN, "cut short" if plan.here else NO_RESULT, goes_on=_goes_on(plan, folder))
    try:
        result = Result.read(folder)
    except DataError as error:
        return Task(plan, number, TO_RUN, f"its result cannot be read: {error}")
    if result.sweep_id != sweep_id:  # a folder that was in use before there was a ledger in it
        return Task(plan, number, TO_RUN, "the result of another sweep is in its place")
    return _judged(plan, number, folder, result)


def _goes_on(plan: Plan, folder: Path) -> bool:
    """Whether it goes on from its own checkpoint, which the same code must have made."""
    if not attempts.goes_on(folder, plan.experiment.checkpoint):
        return False
    last = attempts.last(folder)
    return last is None or plan.experiment.sweep.code == "any" or not _changed(plan, last)


def _judged(plan: Plan, number: int | None, folder: Path, result: Result) -> Task:
    rerun = plan.experiment.rerun
    if result.status == "interrupted":
        return Task(plan, number, TO_RUN, "interrupted", goes_on=_goes_on(plan, folder))
    if rerun == "all":
        return Task(plan, number, TO_RUN, "rerun=all")
    if result.status == "failed":
        return Task(plan, number, TO_RUN, "rerun=failed") if rerun else Task(plan, number, FAILED, "", result)
    changed = [] if plan.experiment.sweep.code == "any" else _changed(plan, result)
    if changed:
        return Task(plan, number, TO_RUN, f"other code: {', '.join(changed)}")
    return Task(plan, number, DONE, "", result)


def _changed(plan: Plan, result: Result) -> list[str]:
    code = result.provenance.get("code")
    before, now = code if isinstance(code, Mapping) else {}, plan.code
    if not plan.here:  # a part that was left to the node, as the meter is with meter=auto, is not known here
        before = {key: value for key, value in before.items() if key in now}
    return changes(before, now)


@dataclass(frozen=True)
class Left:
    """What is left of a sweep.

    Attributes:
        cells: that have not ended.
        time_s: what those of them take that can be told, seconds.
        energy_j: of training, likewise.
        untold: cells of which nothing can be told.
    """

    cells: int
    time_s: float
    energy_j: float
    untold: int

    def __str__(self) -> str:
        """'9 cells left | about 12 min 30 s, 4.2 kJ'; where it is told of some of them only, it says of how many."""
        cells = f"{self.cells} cell{'s' if self.cells != 1 else ''} left"
        if self.untold == self.cells:
            return cells
        energy = f", {joules(self.energy_j)}" if self.energy_j else ""
        some = f" for {self.cells - self.untold} of them" if self.untold else ""
        return f"{cells} | about {duration(self.time_s)}{energy}{some}"


class Progress:
    """A sweep while it runs. What is left is worked out between cells alone: while one is measured, nothing is."""

    def __init__(self, tasks: Sequence[Task], forecaster: Forecaster) -> None:
        self._forecaster = forecaster
        self._waiting = {task.number: task for task in tasks if task.to_run}
        self._cells = len(tasks)
        self._first = next(iter(self._waiting), None)
        self._left = left(tasks, forecaster)
        self._since_s = time.monotonic()

    def follows(self, number: int) -> bool:
        """Whether another cell of this command ran before this one."""
        return number != self._first

    def label(self) -> str:
        """'cell 4 of 12': the one that runs now, of all."""
        return f"cell {self._cells - len(self._waiting) + 1} of {self._cells}"

    def ended(self, number: int, result: Result) -> None:
        """A cell has come to an end, whichever."""
        self._waiting.pop(number, None)
        self._forecaster.add(result)
        self._left = left(list(self._waiting.values()), self._forecaster)
        self._since_s = time.monotonic()

    def left(self) -> Left:
        """What is left, the cell that runs now with what remains of it."""
        found = self._left
        spent_s = min(time.monotonic() - self._since_s, found.time_s)
        return replace(found, time_s=found.time_s - spent_s)


def left(tasks: Sequence[Task], forecaster: Forecaster) -> Left:
    """What the tasks that are to run take."""
    waiting = [task for task in tasks if task.to_run]
    told = [found for task in waiting if (found := forecaster.of(task.plan)) is not None]
    time_s, energy_j = sum(found.time_s for found in told), sum(found.energy_j or 0.0 for found in told)
    return Left(len(waiting), time_s, energy_j, len(waiting) - len(told))


def joules(energy_j: float) -> str:
    """'850 J', '4.2 kJ', '3.1 MJ'."""
    for scale, unit in ((1e6, "MJ"), (1e3, "kJ")):
        if energy_j >= scale:
            return f"{energy_j / scale:,.1f} {unit}"
    return f"{energy_j:,.0f} J"
