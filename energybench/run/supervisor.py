"""Measures a run from outside: opens the meters, starts the workers, follows their events, survives their deaths."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from energybench import interruption
from energybench.devices import CPU
from energybench.errors import EnergybenchError, LimitError, MeterError
from energybench.experiment import Experiment, Tracking
from energybench.power.lock import BusyError, Lock
from energybench.power.meter import Session
from energybench.power.monitor import Monitor, Observed
from energybench.power.named import prefixed
from energybench.power.sampler import Sampler
from energybench.power.series import Columns, Key
from energybench.run import workers
from energybench.run.assignment import Assignment
from energybench.run.attempts import goes_on
from energybench.run.events import Event
from energybench.run.metrics import CHECKPOINT, IDLE, TRAIN
from energybench.run.nodes.alone import END, INTERRUPTED, REST, START, Alone, NodesError
from energybench.run.observation import Observation, Span
from energybench.run.preflight import Plan
from energybench.run.quiet import Quiet, locked
from energybench.run.reserve import full
from energybench.run.result import EVENTS_FILE, Failure
from energybench.run.workers import Worker

CONTEXT_S = 2.0
"""Longest idle with a context, unless configured."""

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
        temperature_c: of the warmest device that trains, None where it is not told.
    """

    phase: str
    epoch: int | None
    power_w: float | None
    images_per_s: float | None
    fraction: float
    left_s: float | None
    temperature_c: float | None = None


class View(Protocol):
    """Shows a run while it goes on."""

    def update(self, moment: Moment) -> None:
        """Called a few times a second."""


class Supervisor:
    """Runs one plan in one directory.

    Args:
        plan: what to run.
        directory: for the worker's files.
        view: shows it.
        name: what the run is called.
        follows: whether another cell of the sweep ran before it.
        nodes: the machines that train together.
        saved: called when the workers have saved a checkpoint.
    """

    def __init__(
        self,
        plan: Plan,
        directory: Path,
        view: View,
        *,
        name: str = "run",
        follows: bool = False,
        nodes: Alone | None = None,
        saved: Callable[[Supervisor], None] = lambda supervisor: None,
    ) -> None:
        self._plan = plan
        self._nodes = nodes or Alone()
        self._directory = directory
        self._view = view
        self._name = name
        self._follows = follows
        self._saved = saved
        self._measure = plan.experiment.measure
        self._monitor = Monitor([], self._owns)
        self.sessions: list[Session] = []
        self.seen = Observation()
        self._samplers: list[Sampler] = []
        self._quiet = self._made_quiet()
        self._shared: Lock | None = None
        self._workers: list[Worker] = []
        self._done: set[int] = set()
        self._heard_ns = 0
        self._oom_kills = _oom_kills()

    def run(self) -> Observation:
        """Measures the baseline and the workers; always returns what was seen, a failure included."""
        with ExitStack() as stack:
            stack.callback(self.collect)
            try:
                self._nodes.join(self._show_waiting)
                self._open(stack)
                self._quiet.cool(self._plan.meters[0].name, follows=self._follows)
                self._together(REST)
                self._quiet.baseline()
                self._together(START)
                self._quiet.measured()
                self._train(stack)
                if self.seen.failure is None:
                    self._together(END)
            except KeyboardInterrupt as interrupt:
                self._wind_down()
                kept = f"{str(interrupt) or 'stopped'}; what was measured until then is kept{self._then()}"
                self.seen.failure = Failure(INTERRUPTED, kept)
            except NodesError as error:
                self.seen.failure = error.failure
            except BusyError as error:
                self.seen.failure = Failure("busy", str(error))
            except LimitError as error:
                self.seen.failure = Failure("limit", str(error))
            except EnergybenchError as error:
                self.seen.failure = Failure("meter" if isinstance(error, MeterError) else "error", str(error))
            finally:
                self._nodes.tell(self.seen.failure)
                workers.stop(self._workers)
                self.seen.failure = self._nodes.verdict(self.seen.failure)
                self.seen.end_ns = time.monotonic_ns()
        return self.seen

    def _together(self, name: str) -> None:
        """Waits for the other nodes."""
        resting = [span for span in self.seen.spans if span.name == IDLE and span.end_ns is None]
        self._nodes.together(name, self._show_waiting if not resting else lambda words: self._show(resting[0]))

    def _open(self, stack: ExitStack) -> None:
        """Opens the meters, has the devices to itself, and begins to read them."""
        try:
            for named in self._plan.meters:
                self.sessions.append(prefixed(named.open(self._plan.boards), self._nodes.prefix))
            self._lock(stack)
        except BaseException:
            for session in self.sessions:
                session.close()
            raise
        for session in self.sessions:
            sampler = Sampler(session)  # closes the session when it stops
            stack.callback(sampler.stop)
            sampler.start()
            self._samplers.append(sampler)
        self._monitor = Monitor(self.sessions, self._owns)
        stack.callback(self._monitor.stop)
        self._monitor.start()
        self._quiet = self._made_quiet()

    def _made_quiet(self) -> Quiet:
        return Quiet(
            self._measure,
            self._measured_channels(),
            self.sessions,
            self._samplers,
            self._monitor,
            self.seen,
            self._show,
        )

    def _lock(self, stack: ExitStack) -> None:
        """A card is one run's. So is a CPU that is measured; runs that estimate its power only learn of each other."""
        shared, waits = self._plan.scope == CPU and not self._measured_channels(), self._measure.lock == "wait"
        for key in sorted(board.uuid for board in self._plan.boards):
            try:
                lock = locked(key, self._name, shared=shared, waiting=self._show_waiting if waits else None)
            except MeterError as error:
                if self._measure.lock != "ignore":
                    raise
                if isinstance(error, BusyError):
                    self.seen.flags.add("shared_host" if self._plan.scope == CPU else "shared_card")
                continue
            stack.callback(lock.release)
            self._shared = lock if shared else None

    def _show_waiting(self, words: str) -> None:
        self._view.update(Moment(f"waiting: {words}", None, None, None, 0.0, None))

    def _measured_channels(self) -> list[str]:
        """Names of the channels of the devices that train, without those that are estimated."""
        channels = [channel for session in self.sessions for channel in session.channels]
        return [channel.name for channel in channels if channel.kind == self._plan.scope and not channel.estimated]

    def _owns(self, pid: int) -> bool:
        """Each worker leads a session, to which all that it starts belongs."""
        try:
            return os.getsid(pid) in [worker.process.pid for worker in self._workers]
        except OSError:
            return False

    def collect(self) -> None:
        """Brings what meters told until now into what was seen."""
        self.seen.observed = self._monitor.observed()
        self.seen.readings.update(self.readings())

    def readings(self, since_ns: int | None = None) -> dict[Key, Columns]:
        """What the meters told until now; with `since_ns` only from then on."""
        return {key: one for sampler in self._samplers for key, one in sampler.columns(since_ns).items()}

    def observed(self) -> list[Observed]:
        """What was seen of the cards until now."""
        return self._monitor.observed()

    def _experiment(self) -> Experiment:
        """What the workers are told: with `context_s` decided, and nothing of the tracking store."""
        context_s = self._measure.context_s
        if context_s is None:
            measured_gpus = self._plan.scope != CPU and self._measured_channels()
            context_s = min(self._measure.baseline_s, CONTEXT_S) if measured_gpus else 0.0
        measure = replace(self._measure, context_s=context_s)
        return replace(self._plan.experiment, measure=measure, tracking=Tracking("none"))

    def _train(self, stack: ExitStack) -> None:
        groups = self._plan.engine.workers(self._plan.devices)
        self._heard_ns = time.monotonic_ns()
        experiment = self._experiment()
        self.seen.workers_ns = time.monotonic_ns()
        self._log = stack.enter_context((self._directory / EVENTS_FILE).open("w", encoding="utf-8"))
        first, world = self._nodes.ranks(len(groups))
        where, nodes = str(self._directory.absolute()), self._nodes
        for rank, devices in enumerate(groups, first):
            assignment = Assignment(
                experiment,
                tuple(devices),
                rank,
                world,
                where,
                meeting=nodes.meeting,
                checkpoint=nodes.checkpoint,
                local_world=len(groups),
            )
            environment = {**self._plan.engine.environment(devices), **nodes.environment()}
            self._workers.append(workers.start(assignment, self._directory, environment))
        for item in workers.follow(self._workers, TICK_S):
            if item is None:
                if len(self._done) == len(groups) and self._silent_s() > workers.GRACE_S:
                    return  # all is told; a framework that hangs while it ends takes nothing back
                self._watch()
            elif item[1] is None:
                self._on_end(item[0])
            else:
                self._on_event(item[0].rank, item[1])
            if self.seen.failure is not None:
                return

    def _wind_down(self) -> None:
        """Lets the first worker save a checkpoint, if the run saves any, before all are ended."""
        options = self._plan.experiment.checkpoint
        if not (options.when_stopped and self._workers):
            return
        self._nodes.interrupted()
        if self._workers[0].rank == 0:
            self._workers[0].process.terminate()
        end_s = time.monotonic() + options.grace_s
        for item in workers.follow(self._workers, TICK_S):
            if item is not None and item[1] is not None:
                self._on_event(item[0].rank, item[1])
            if self._workers[0].ended or time.monotonic() > end_s:
                return

    def _then(self) -> str:
        resumes = goes_on(self._directory, self._plan.experiment.checkpoint)
        return ", and the same command goes on from its checkpoint" if resumes else ""

    def _on_event(self, rank: int, event: Event) -> None:
        self._note(rank, event)
        self._heard_ns = time.monotonic_ns()
        if event.kind in ("started", "ended"):
            self._monitor.soon()
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

    def _note(self, rank: int, event: Event) -> None:
        try:
            self._log.write(_log_line(rank, event))
            self._log.flush()
        except OSError as error:
            self.seen.failure = self.seen.failure or full(error, EVENTS_FILE, "what was measured until then is kept")

    def _on_phase(self, rank: int, event: Event) -> None:
        for span in reversed(self.seen.spans):
            if (span.name, span.rank) == (event.phase, rank):
                span.epoch = event.epoch  # a training phase may end before the epoch that it was to reach
                span.values.update(event.values)
                span.told_ns = event.time_ns
                span.end_ns = event.time_ns if event.kind == "ended" else None
                break
        if event.kind == "ended" and event.phase == CHECKPOINT:
            self._saved(self)

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
        interruption.check()
        if (news := self._nodes.news()) is not None:
            if news.kind == INTERRUPTED and self._workers[0].rank == 0:
                raise KeyboardInterrupt  # of another node: what is to be saved is saved here
            self.seen.failure = news
            return
        if self._shared is not None and not self._shared.alone():
            self.seen.flags.add("shared_host")
        limit_s = self._measure.watchdog_s
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
                self._quiet.temperature_c(),
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
