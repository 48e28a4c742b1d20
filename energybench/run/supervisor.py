"""Measures a run from outside: opens the meters, starts the workers, follows their events, survives their deaths."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from energybench.errors import EnergybenchError, MeterError
from energybench.power.meter import Reading, Session
from energybench.power.sampler import Sampler
from energybench.run import workers
from energybench.run.events import Event
from energybench.run.metrics import IDLE, TRAIN
from energybench.run.preflight import Plan
from energybench.run.result import EVENTS_FILE, Failure
from energybench.run.worker import Assignment
from energybench.run.workers import Worker

TICK_S = 0.5
"""Between two looks at a run. Each wakes the supervisor, and on a CPU that trains takes a core from it for a moment."""


@dataclass(frozen=True)
class Moment:
    """What a run is doing now, for whoever watches.

    Attributes:
        phase: name of the phase.
        epoch: its epoch, if it has one.
        power_w: power of the devices that train; None before the first reading.
        images_per_s: throughput of the phase so far, None outside training.
        fraction: share of the budget that is spent, 0 to 1.
        left_s: seconds of training left, None before it can be told.
    """

    phase: str
    epoch: int | None
    power_w: float | None
    images_per_s: float | None
    fraction: float
    left_s: float | None


class View(Protocol):
    """Shows a run while it goes on."""

    def update(self, moment: Moment) -> None:
        """Called a few times a second."""


@dataclass
class Span:
    """A phase as told by one worker or by the supervisor itself.

    Attributes:
        name, epoch, values, rank: as in its events.
        start_ns: when it began.
        end_ns: when it ended; None while it runs.
        told_ns: time of the last event about it.
    """

    name: str
    epoch: int | None
    start_ns: int
    end_ns: int | None = None
    values: dict[str, float] = field(default_factory=dict)
    rank: int = 0
    told_ns: int = 0


@dataclass
class Observation:
    """All that was seen of a run: what a Result is made of.

    `training_flops` are of one sample, counted by the engine; None where the description tells, or nobody can.
    """

    spans: list[Span] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    memory_bytes: float | None = None
    training_flops: int | None = None
    failure: Failure | None = None
    end_ns: int = 0


class Supervisor:
    """Runs one plan in one directory."""

    def __init__(self, plan: Plan, directory: Path, view: View) -> None:
        self._plan = plan
        self._directory = directory
        self._view = view
        self._samplers: list[Sampler] = []
        self._workers: list[Worker] = []
        self._done: set[int] = set()
        self._heard_ns = 0
        self._oom_kills = _oom_kills()
        self.sessions: list[Session] = []
        self.seen = Observation()

    def run(self) -> Observation:
        """Measures the baseline and the workers; always returns what was seen, a failure included."""
        with ExitStack() as stack:
            stack.callback(self._collect)
            try:
                self._open(stack)
                self._baseline()
                self._train(stack)
            except KeyboardInterrupt:
                self.seen.failure = Failure("interrupted", "interrupted; what was measured until then is kept")
            except EnergybenchError as error:
                self.seen.failure = Failure("meter" if isinstance(error, MeterError) else "error", str(error))
            finally:
                workers.stop(self._workers)
                self.seen.end_ns = time.monotonic_ns()
        return self.seen

    def _open(self, stack: ExitStack) -> None:
        for named in self._plan.meters:
            session = named.open(self._plan.boards)
            self.sessions.append(session)
            sampler = Sampler(session)  # closes the session when it stops
            stack.callback(sampler.stop)
            sampler.start()
            self._samplers.append(sampler)

    def _collect(self) -> None:
        for sampler in self._samplers:
            self.seen.readings.extend(sampler.readings())

    def _baseline(self) -> None:
        """Idle just before the run; where nothing but an estimate reads the devices there is no idle to be seen."""
        seconds = self._plan.experiment.measure.baseline_s
        measured = any(
            channel.kind == self._plan.scope and not channel.estimated
            for session in self.sessions
            for channel in session.channels
        )
        if not (seconds and measured):
            return
        span = Span(IDLE, None, time.monotonic_ns())
        self.seen.spans.append(span)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._show(span)
            time.sleep(min(left, TICK_S))
        span.end_ns = time.monotonic_ns()

    def _train(self, stack: ExitStack) -> None:
        groups = self._plan.engine.workers(self._plan.devices)
        self._heard_ns = time.monotonic_ns()
        log = stack.enter_context((self._directory / EVENTS_FILE).open("w", encoding="utf-8"))
        for rank, devices in enumerate(groups):
            assignment = Assignment(
                self._plan.experiment, tuple(devices), rank, len(groups), str(self._directory.absolute())
            )
            environment = self._plan.engine.environment(devices)
            self._workers.append(workers.start(assignment, self._directory, environment))
        for item in workers.follow(self._workers, TICK_S):
            if item is None:
                if len(self._done) == len(groups) and self._silent_s() > workers.GRACE_S:
                    return  # all is told; a framework that hangs while it ends takes nothing back
                self._watch()
            elif item[1] is None:
                self._on_end(item[0])
            else:
                log.write(_log_line(item[0].rank, item[1]))
                log.flush()
                self._on_event(item[0].rank, item[1])
            if self.seen.failure is not None:
                return

    def _on_event(self, rank: int, event: Event) -> None:
        self._heard_ns = time.monotonic_ns()
        if event.kind == "started":
            self.seen.spans.append(Span(event.phase, event.epoch, event.time_ns, rank=rank))
        elif event.kind in ("progress", "ended"):
            self._on_phase(rank, event)
        elif event.kind == "environment" and rank == 0:
            self.seen.environment = dict(event.text)
            self.seen.training_flops = int(event.values.get("training_flops", 0)) or None
        elif event.kind == "failed":
            self.seen.failure = Failure(event.text.get("kind", "crashed"), event.text.get("message", ""))
        elif event.kind == "done":
            self._done.add(rank)
            self.seen.memory_bytes = max(self.seen.memory_bytes or 0, event.values.get("memory_bytes", 0)) or None

    def _on_phase(self, rank: int, event: Event) -> None:
        for span in reversed(self.seen.spans):
            if (span.name, span.epoch, span.rank) == (event.phase, event.epoch, rank):
                span.values.update(event.values)
                span.told_ns = event.time_ns
                span.end_ns = event.time_ns if event.kind == "ended" else None
                return

    def _on_end(self, worker: Worker) -> None:
        if worker.rank in self._done or self.seen.failure is not None:
            return
        try:
            code = worker.process.wait(workers.GRACE_S)
        except subprocess.TimeoutExpired:
            code = None
        killed = _oom_kills() > self._oom_kills
        self.seen.failure = death(code, worker.errors, out_of_memory=killed)

    def _silent_s(self) -> float:
        return (time.monotonic_ns() - self._heard_ns) / 1e9

    def _watch(self) -> None:
        limit_s = self._plan.experiment.measure.watchdog_s
        span = self.seen.spans[-1] if self.seen.spans else None
        if self._silent_s() > limit_s:
            where = f" in phase {span.name}" if span else ""
            message = f"no sign of life for {limit_s:g} s{where}; if it was only busy, raise measure.watchdog_s"
            self.seen.failure = Failure("hung", message)
        elif span is not None:
            self._show(span)

    def _show(self, span: Span) -> None:
        powers = [sampler.latest_power_w(self._plan.scope) for sampler in self._samplers]
        known = [power for power in powers if power is not None]
        told = [one for one in self.seen.spans if one.name == TRAIN and "fraction" in one.values]
        fraction = told[-1].values["fraction"] if told else 0.0
        self._view.update(
            Moment(
                span.name,
                span.epoch,
                sum(known) if known else None,
                _images_per_s(told[-1]) if told else None,
                fraction,
                _left_s(told, fraction),
            )
        )


def _images_per_s(span: Span) -> float | None:
    elapsed_s = (span.told_ns - span.start_ns) / 1e9
    return span.values["images"] / elapsed_s if elapsed_s > 0 and "images" in span.values else None


def _left_s(told: Sequence[Span], fraction: float) -> float | None:
    """Seconds until the budget is spent, if it goes on as from the first training step until now."""
    if fraction <= 0:
        return None
    return (told[-1].told_ns - told[0].start_ns) / 1e9 * (1 - fraction) / fraction


def _log_line(rank: int, event: Event) -> str:
    return json.dumps({"rank": rank, **asdict(event)}) + "\n"


def death(code: int | None, errors: Path, *, out_of_memory: bool) -> Failure:
    """Why a worker that said nothing of it ended.

    Args:
        code: its exit status as subprocess gives it (negative: a signal), None where it closed its pipe and lives.
        errors: its standard error, whose last line is quoted.
        out_of_memory: whether the kernel's out-of-memory killer struck while it ran.
    """
    said = _last_line(errors)
    quoted = f"; its last words: {said}" if said else ""
    if code is None:
        return Failure("crashed", f"the worker closed its event pipe but did not end; see {errors.name}{quoted}")
    if code == -9 and out_of_memory:
        return Failure("out_of_memory", "the kernel's out-of-memory killer ended the worker; use a smaller batch")
    if code < 0:
        name = _signal_name(-code)
        return Failure("killed", f"the worker was ended by {name}; see {errors.name}{quoted}")
    return Failure("crashed", f"the worker ended with exit status {code}; see {errors.name}{quoted}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip()[:200] if lines else ""


def _oom_kills() -> int:
    """Processes that the kernel's out-of-memory killer has ended since boot (/proc/vmstat, Linux 4.13)."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
