"""Cells as jobs of SLURM: submitit makes the batch files and starts Python on the nodes, squeue tells how jobs stand.

submitit asks sacct for that, which clusters without an accounting database do not have, and knows only of jobs that the
same process submitted. Here a job's name leads to its cells, so that whoever comes later finds them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from energybench.cluster.node import Stop, checkpoint_of, run
from energybench.cluster.options import SlurmOptions
from energybench.cluster.request import asked
from energybench.cluster.scheduler import ENDED, QUEUED, RUNNING, Standing
from energybench.cluster.ticket import Ticket, this_node
from energybench.credentials import withheld
from energybench.devices import CPU
from energybench.errors import ClusterError
from energybench.run.attempts import goes_on
from energybench.whole import whole

FOLDER = "slurm"
"""In the sweep's folder: batch files, what jobs print, and which cells each array is of."""

WAITING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"})
AT_IT = "RUNNING"
AT_WORK = frozenset({AT_IT, "COMPLETING", "SUSPENDED", "SIGNALING", "STAGE_OUT", "RESIZING", "STOPPED"})
PATIENCE_S = 60
"""For an answer of SLURM's commands."""

EARLY_S = 60
"""How much earlier than it is asked to SLURM may send the signal before a job's time limit."""


class Slurm:
    """See `energybench.cluster.scheduler.Scheduler`.

    Args:
        directory: the sweep's folder, which the nodes see too.
        sweep_id: of the sweep.
        options: of the launcher.
    """

    title = "SLURM"

    def __init__(self, directory: Path, sweep_id: str, options: SlurmOptions) -> None:
        self._folder = directory.absolute() / FOLDER
        self._name = f"energybench-{sweep_id[:12]}"
        self._options = options

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """One array for all cells that ask for the same."""
        groups: dict[str, list[Ticket]] = {}
        for ticket in tickets:
            groups.setdefault(json.dumps(parameters(ticket, self._options), sort_keys=True), []).append(ticket)
        submitted: list[int] = []
        for members in groups.values():
            try:
                self._submit(members)
            except BaseException:
                with suppress(ClusterError):
                    self.cancel([*submitted, *(ticket.number for ticket in members)])
                raise
            submitted += [ticket.number for ticket in members]

    def _submit(self, tickets: Sequence[Ticket]) -> None:
        try:
            import submitit
        except ImportError as error:
            raise ClusterError(
                "hydra/launcher=slurm: submitit is not installed; pip install 'energybench[slurm]'"
            ) from error
        if shutil.which("sbatch") is None:
            raise ClusterError("hydra/launcher=slurm: sbatch is not on PATH; give the command where jobs are submitted")
        name = f"{self._name}-{uuid.uuid4().hex[:8]}"
        self._folder.mkdir(parents=True, exist_ok=True)
        with whole(self._folder / f"{name}.json") as file:  # first: nothing is submitted that could not be found again
            file.write(json.dumps([ticket.number for ticket in tickets]).encode())
        given = {**parameters(tickets[0], self._options), "job_name": name}
        try:
            executor = submitit.SlurmExecutor(self._folder, python=self._options.python)
            executor.update_parameters(**given)
            with withheld():  # sbatch hands this environment to the jobs, and keeps it
                executor.submit_array([SlurmCell(ticket, self._options) for ticket in tickets])
        except (RuntimeError, ValueError, OSError, subprocess.CalledProcessError) as error:
            raise ClusterError(f"SLURM does not take {tickets[0].name}: {_last_line(error)}") from error

    def standing(self, numbers: Iterable[int]) -> Mapping[int, Standing]:
        """By one call of squeue, which also tells of jobs that ended a while ago (MinJobAge)."""
        wanted, arrays = set(numbers), self._arrays()
        names = [name for name, members in arrays.items() if wanted & set(members)]
        if not names:
            return {}
        said = _call("squeue", "--noheader", "--array", "--states=all", f"--name={','.join(names)}",
                     "--format=%j|%K|%i|%T|%r|%N")  # fmt: skip
        found: dict[int, Standing] = {}
        for line in sorted(said.splitlines(), key=_submitted_as):  # of a cell that was submitted again, the last counts
            name, index, job, state, reason, nodes = line.strip().split("|")
            members = arrays[name]
            number = members[int(index) if index.isdigit() and len(members) > 1 else 0]
            standing = Standing(_state(state), job, _words(state, reason, nodes))
            if number in wanted and (number not in found or found[number].state == ENDED):
                found[number] = standing
        return found

    def cancel(self, numbers: Iterable[int]) -> None:
        """By one call of scancel: SIGTERM, and after the cluster's KillWait SIGKILL."""
        jobs = [standing.job for standing in self.standing(numbers).values() if standing.state != ENDED]
        if jobs:
            _call("scancel", *jobs)

    def _arrays(self) -> dict[str, list[int]]:
        """Name of a job -> the cells that its array is of, in their order."""
        return {path.stem: json.loads(path.read_text()) for path in self._folder.glob(f"{self._name}-*.json")}


def parameters(ticket: Ticket, options: SlurmOptions) -> dict[str, Any]:
    """What a cell asks of SLURM, as submitit takes it."""
    generation, count = asked(ticket.gpu, options)
    # The signal goes to all processes of a job: SIGTERM is the one that workers know, submitit's would end them.
    further: dict[str, Any] = {"signal": f"TERM@{options.signal_s}"}
    further["requeue" if options.requeue else "no-requeue"] = True
    if generation != CPU:
        called = options.constraint.get(generation, generation)
        option, _, value = options.gpus.format(count=count, generation=called or generation).partition("=")
        further[option.lstrip("-")] = value
        if called is not None:
            further["constraint"] = called
    exclusive = generation == CPU if options.exclusive is None else options.exclusive
    return {
        "time": options.time,
        "partition": options.partition,
        "account": options.account,
        "mem": options.mem,
        "cpus_per_task": options.cpus,
        "ntasks_per_node": 1,
        "exclusive": True if exclusive else None,
        "array_parallelism": options.at_once,
        "setup": options.setup or None,
        "stderr_to_stdout": True,
        "wckey": None,
        # srun takes the cores of a step from its own command line alone
        "srun_args": [f"--cpus-per-task={options.cpus}"] if options.cpus else None,
        "additional_parameters": {**further, **options.sbatch, **options.of.get(generation, {})},
    }


class SlurmCell:
    """What submitit starts on a node.

    Args:
        ticket: of the cell.
        options: of the launcher.
    """

    def __init__(self, ticket: Ticket, options: SlurmOptions) -> None:
        self._ticket = ticket
        self._options = options

    def __call__(self) -> None:
        """Runs the cell; one that the cluster needs its node back from is queued again by itself where that helps."""
        job, restarts = _job(), int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        ends_s = _ends_s(job)

        def near_its_limit() -> bool:
            return ends_s is not None and ends_s - time.monotonic() <= self._options.signal_s + EARLY_S

        def words() -> str:
            return f"SLURM stopped job {job} {'at its time limit' if near_its_limit() else 'before its time limit'}"

        stop = Stop(words)  # in the place of submitit's, which pass SIGTERM over
        result = run(self._ticket, this_node(job, restarts, os.environ.get("SLURMD_NODENAME")))
        if stop.came and (result is None or result.status == "interrupted"):
            self._queue_again(job, restarts, near_its_limit())

    def _queue_again(self, job: str, restarts: int, limited: bool) -> None:
        """SLURM itself does so only with jobs that it has to kill: one that ends in its time of grace counts as done.

        At its time limit a cell is queued again if it goes on from a checkpoint: else it would only be cut short again.
        """
        if not self._options.requeue or _call("squeue", "--noheader", f"--jobs={job}", "--format=%T").strip() != AT_IT:
            return  # cancelled, or past its limit: SLURM is ending it
        folder = self._ticket.directory / str(self._ticket.number)
        if limited and (restarts >= self._options.restarts or not goes_on(folder, checkpoint_of(self._ticket))):
            return
        _call("scontrol", "requeue", job)


def _ends_s(job: str) -> float | None:
    """When the job's time is over, by this process's CLOCK_MONOTONIC; None where it has no limit, or none is told."""
    with suppress(ClusterError):
        left_s = seconds(_call("squeue", "--noheader", f"--jobs={job}", "--format=%L"))
        return None if left_s is None else time.monotonic() + left_s
    return None


def _job() -> str:
    """'17_2' of an array, for which '17' alone would stand for all of it."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array else os.environ["SLURM_JOB_ID"]


def seconds(text: str) -> float | None:
    """SLURM's 'days-hours:minutes:seconds' in seconds; None of what is no time, as 'UNLIMITED'."""
    days, _, clock = text.strip().rpartition("-")
    try:
        parts = [int(part) for part in clock.split(":")]
        return int(days or 0) * 86_400.0 + sum(part * 60.0**power for power, part in enumerate(reversed(parts)))
    except ValueError:
        return None


def _submitted_as(line: str) -> int:
    return int(line.split("|")[2].partition("_")[0])


def _state(state: str) -> str:
    if state in WAITING:
        return QUEUED
    return RUNNING if state in AT_WORK else ENDED


def _words(state: str, reason: str, nodes: str) -> str:
    parts = [state, f"({reason})" if reason not in ("", "None") else "", f"on {nodes}" if nodes else ""]
    return " ".join(filter(None, parts))


def _call(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S)
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]} is not on PATH: this is no node of a SLURM cluster") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{words[0]} did not answer within {PATIENCE_S} s") from error
    if done.returncode:
        raise ClusterError(f"{words[0]}: {_said(done.stderr) or f'exit status {done.returncode}'}")
    return done.stdout


def _said(text: str) -> str:
    """The last line of what a command of SLURM said."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else ""


def _last_line(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError) and error.stderr:
        text = error.stderr if isinstance(error.stderr, str) else error.stderr.decode(errors="replace")
        return _said(text)
    return _said(str(error)) or type(error).__name__
