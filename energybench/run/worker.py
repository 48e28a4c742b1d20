"""The training process: builds the network, trains it, says where its phases begin and end, measures nothing.

Started by the supervisor as `python -m energybench.run.worker EVENTS_FD`, with the assignment as one JSON line on
stdin. Stdin stays open as long as the supervisor lives: its end of file is the worker's end.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from energybench.architecture import Network
from energybench.config import make, make_architecture
from energybench.dataset import Adapting, Batch, Consumer, Dataset, Holding, Reporting, Sequences, Split
from energybench.errors import DataError, EnergybenchError, PluginError, reason
from energybench.experiment import AUTO
from energybench.registry import Registry
from energybench.run import checkpoint
from energybench.run.assignment import Assignment
from energybench.run.checkpoint import CHECKPOINT_FILE
from energybench.run.engine import (
    Agreeing,
    Bounded,
    Evaluation,
    Keeping,
    Preparing,
    Summing,
    Taking,
    Task,
    Trainer,
    Waiting,
)
from energybench.run.events import EventWriter
from energybench.run.memory import OutOfMemoryError, is_out_of_memory, too_large
from energybench.run.metrics import (
    CHECKPOINT,
    CONTEXT,
    LOAD,
    OF_EVERY_ENGINE,
    SKIP,
    TRAIN,
    VALIDATE,
    WARMUP,
)
from energybench.run.spending import Spending
from energybench.schedule import Schedule

PROGRESS_PERIOD_S = 1.0

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LONGEST_REASON = 200
REMEDIES = {"out_of_memory": "; use a smaller batch", "disk": "; make room and run it again"}

PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>: the signal this process gets when its parent dies."""


class TrainingError(EnergybenchError):
    """Training cannot go on for a reason that lies in the run, not in a bug."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class StoppedError(TrainingError):
    """The run is to end before its budget is spent."""

    def __init__(self) -> None:
        super().__init__("interrupted", "stopped, as was asked")


def main() -> int:
    """Runs one assignment; 0 when it is done, 1 when it failed."""
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    os.register_at_fork(after_in_child=lambda: os.close(descriptor))  # else a child that outlives us hides our end
    events = EventWriter(descriptor)
    _end_with_parent()
    assignment = Assignment.from_line(sys.stdin.buffer.readline())
    threading.Thread(target=_end_at_eof, daemon=True).start()
    try:
        values = Loop(assignment, events).run()
    except Exception as error:
        with suppress(OSError):  # its file may be on the disk that is full
            traceback.print_exc()
        events.emit("failed", text={"kind": failure_kind(error), "message": _message(error)})
        return 1
    events.emit("done", values=values)
    return 0


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_at_eof() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


def failure_kind(error: Exception) -> str:
    """The kind of failure, as Failure.kind names it."""
    if isinstance(error, TrainingError):
        return error.kind
    if is_out_of_memory(error):
        return "out_of_memory"
    if isinstance(error, OSError) and error.errno in FULL:
        return "disk"
    return "error" if isinstance(error, EnergybenchError) else "crashed"


def _message(error: Exception) -> str:
    said = reason(error)
    if isinstance(error, EnergybenchError):
        return said
    return f"{type(error).__name__}: {said}{REMEDIES.get(failure_kind(error), '')}"


@dataclass
class _Trained:
    """What a training phase has come to so far.

    Attributes:
        until: the last of the epochs that it is to have.
        epochs, steps: that are done.
        input_wait_s: that the devices waited for data.
    """

    until: int
    epochs: int = 0
    steps: int = 0
    input_wait_s: float = 0.0


class Loop:
    """Phases, budget, schedule, checkpoints and checks, the same for every engine."""

    def __init__(self, assignment: Assignment, events: EventWriter) -> None:
        self._assignment = assignment
        self._experiment = assignment.experiment
        self._events = events
        self._schedule = Schedule(assignment.experiment.training, assignment.experiment.batch)
        self._stopping = False
        self._network: Network | None = None
        self._dataset: Dataset | None = None
        self._trainer: Trainer | None = None
        self._spending: Spending  # known with the dataset

    def run(self) -> dict[str, float]:
        """Loads, warms up, trains and validates until the budget is spent; what is to be said at the end.

        Raises:
            OutOfMemoryError: the batch does not fit; whatever else goes wrong is raised as it is.
        """
        try:
            return self._run()
        except Exception as error:
            if failure_kind(error) != "out_of_memory" or self._network is None:
                raise
            raise self._too_large(self._network, error) from error
        finally:
            self._list_unreadable()

    def _too_large(self, network: Network, error: Exception) -> OutOfMemoryError:
        given = self._assignment
        available = self._trainer.available_bytes() if isinstance(self._trainer, Bounded) else None
        devices, why = given.world * len(given.devices), f"{type(error).__name__}: {reason(error)}"
        return too_large(network, self._experiment, devices, available, why[:LONGEST_REASON])

    def _run(self) -> dict[str, float]:
        trainer, dataset = self._load()
        self._rest()
        self._prepare(trainer, dataset)
        self._warm_up(trainer, dataset)
        if self._experiment.checkpoint.when_stopped:  # a scheduler may send it to all: the others wait for the first
            signal.signal(signal.SIGTERM, signal.SIG_IGN if self._assignment.rank else self._stop)
        while not self._spending.spent():
            try:
                self._train_and_validate(trainer, dataset)
            except StoppedError:
                self._spending.epoch -= 1
                self._save(trainer)
                raise
            self._spending.inside = 0
            self._save_when_due(trainer)
        memory = trainer.memory_bytes()
        return {} if memory is None else {"memory_bytes": memory}

    def _train_and_validate(self, trainer: Trainer, dataset: Dataset) -> None:
        """One training phase, and the validation that is due then."""
        until, every = self._together(), self._experiment.measure.validate_every
        loss = self._train(trainer, dataset, until)
        if self._spending.epoch % every and not self._spending.spent():
            return  # only a checkpoint is due
        if self._validates():
            loss = self._validate(trainer, dataset, self._spending.epoch)
        self._schedule.validated(loss, every)

    def _together(self) -> int:
        """The last of the epochs that make the next training phase: then a validation or a checkpoint is due."""
        periods = self._experiment.measure.validate_every, self._experiment.checkpoint.every_epochs
        ends = [self._spending.epoch - self._spending.epoch % every + every for every in periods if every is not None]
        return min([*ends, self._experiment.budget.epochs or ends[0]])

    def _load(self) -> tuple[Trainer, Dataset]:
        self._events.emit("started", LOAD)
        registry, experiment = Registry(), self._experiment
        plugin = make(registry, "dataset", experiment.dataset)
        self._info = info = plugin.info()
        self._spending = Spending(experiment.budget, max(info.train_images // experiment.batch, 1))
        architecture = self._network = make_architecture(registry, experiment.model, info.classes)
        engine = make(registry, "engine", experiment.engine)
        given = self._assignment
        place = Path(given.directory)
        task = Task(experiment, architecture, given.devices, given.rank, given.world, place, given.meeting)
        self._dataset = dataset = plugin.open(architecture.input_shape, experiment.seed)
        trainer: Trainer = engine.trainer(task)  # after the data, so that the memory it takes can be told from theirs
        self._trainer = trainer
        if isinstance(dataset, Adapting):
            kinds = trainer.kinds() if isinstance(trainer, Taking) else ()
            copies = trainer.host_copies() if isinstance(trainer, Keeping) else 0
            dataset.adapt(Consumer(given.rank, given.world, kinds, given.local_world, copies))
        self._keep(trainer, dataset)
        self._resume(trainer)
        trainer.synchronize()
        self._events.emit("ended", LOAD)
        self._events.emit("environment", values=_flops(architecture, trainer), text=trainer.environment())
        return trainer, dataset

    def _keep(self, trainer: Trainer, dataset: Dataset) -> None:
        """Images that the devices are to keep go there before anything is measured."""
        if not (isinstance(trainer, Keeping) and isinstance(dataset, Holding)):
            return
        splits: tuple[Split, ...] = ("train", "validation") if self._validates() else ("train",)
        for held in filter(None, map(dataset.held, splits)):
            trainer.keep(held)

    def _list_unreadable(self) -> None:
        """Names what could not be read in the run's folder, each worker its own."""
        found: Mapping[str, str] = self._dataset.unreadable() if isinstance(self._dataset, Reporting) else {}
        if not found:
            return
        rank = f"-{self._assignment.rank}" if self._assignment.rank else ""
        lines = "".join(f"{name}\t{why}\n" for name, why in sorted(found.items()))
        (Path(self._assignment.directory) / f"unreadable{rank}.tsv").write_text(lines, encoding="utf-8")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM: training ends after the step that runs, and a checkpoint is saved."""
        self._stopping = True

    def _checkpoint(self) -> Path | None:
        """The checkpoint to go on from."""
        resume = self._experiment.checkpoint.resume
        own = Path(self._assignment.checkpoint or Path(self._assignment.directory) / CHECKPOINT_FILE)
        if resume == AUTO:
            return own if own.exists() else None
        return None if resume is None else Path(resume)

    def _resume(self, trainer: Trainer) -> None:
        path = self._checkpoint()
        if path is None:
            return
        state, progress = checkpoint.load(path)
        if progress.model != self._experiment.model.name:
            raise DataError(f"checkpoint.resume: it holds {progress.model!r}, not {self._experiment.model.name!r}")
        trainer.restore(state)
        spending = self._spending
        spending.epoch, spending.inside = progress.epoch, progress.inside
        spending.steps, spending.seconds = progress.steps, progress.seconds
        self._schedule.restore(progress.schedule)
        if self._spending.spent() and self._experiment.checkpoint.resume != AUTO:
            raise TrainingError("config", "the budget was spent when the checkpoint was saved; raise budget.epochs")

    def _save_when_due(self, trainer: Trainer) -> None:
        every = self._experiment.checkpoint.every_epochs
        due = every is not None and (self._spending.epoch % every == 0 or self._spending.spent())
        stops = self._stopping and self._alone  # of several the others go on: it ends with the next step of all
        if not self._assignment.rank and (due or stops):
            self._save(trainer)
        if stops and not self._spending.spent():
            raise StoppedError

    def _save(self, trainer: Trainer) -> None:
        spending = self._spending
        self._events.emit("started", CHECKPOINT, spending.epoch)
        progress = checkpoint.Progress(
            self._experiment.model.name,
            spending.epoch,
            spending.steps,
            spending.seconds,
            self._schedule.state(),
            spending.inside,
        )
        checkpoint.save(Path(self._assignment.directory) / CHECKPOINT_FILE, trainer.state(), progress)
        self._events.emit("ended", CHECKPOINT, spending.epoch)

    def _lr(self) -> float:
        epochs = self._experiment.budget.epochs
        spent = self._spending.fraction_before()
        way = (self._spending.epoch - 1) / max(epochs - 1, 1) if epochs else spent
        return self._schedule.lr(spent, min(way, 1.0))

    def _validates(self) -> bool:
        return self._experiment.measure.validate and self._info.validation_images > 0

    def _rest(self) -> None:
        """Idle with everything on the devices: what the context alone draws."""
        if seconds := self._experiment.measure.context_s:
            self._events.emit("started", CONTEXT)
            time.sleep(seconds)
            self._events.emit("ended", CONTEXT)

    def _prepare(self, trainer: Trainer, dataset: Dataset) -> None:
        if not isinstance(trainer, Preparing):
            return
        for name, prepare in trainer.preparations().items():
            if name in OF_EVERY_ENGINE:
                raise PluginError(
                    f"engine {self._experiment.engine.name}: every run has a phase {name!r}: name its own one"
                )
            self._events.emit("started", name)
            prepare(*self._samples(name, dataset))
            trainer.synchronize()
            self._events.emit("ended", name)

    def _samples(self, phase: str, dataset: Dataset) -> tuple[Iterator[Batch], Iterator[Batch]]:
        """Training batches without end, and one validation batch if there is validation."""
        batch = self._experiment.batch
        validation = dataset.batches("validation", batch, 0) if self._validates() else iter(())
        return self._telling(phase, None, _endless(dataset, batch)), _first(validation, 1)

    def _warm_up(self, trainer: Trainer, dataset: Dataset) -> None:
        steps = self._experiment.measure.warmup_steps
        if not steps:
            return
        self._events.emit("started", WARMUP)
        training, validation = self._samples(WARMUP, dataset)
        trainer.warm_up(_first(training, steps), validation)
        trainer.synchronize()
        self._events.emit("ended", WARMUP, None, {"steps": steps, "images": steps * self._experiment.batch})

    def _train(self, trainer: Trainer, dataset: Dataset, until: int) -> float:
        """One phase: the epochs up to `until`, or as many as the budget leaves of them; the loss of the last.

        It begins with the number of the last epoch that it is to have and ends with that of the last that it has had.
        """
        done = _Trained(until)
        while True:
            self._spending.epoch += 1
            if done.epochs:
                self._spending.inside = 0
            trainer.begin_epoch(self._spending.epoch, self._lr())
            batches = dataset.batches("train", self._experiment.batch, self._spending.epoch)
            if not done.epochs:
                batches = self._left(batches)
                self._events.emit("started", TRAIN, until)
            loss = self._train_epoch(trainer, batches, done)
            failed = loss is not None and not math.isfinite(loss)
            if self._spending.epoch >= until or self._spending.spent() or failed:
                break
        values = {**self._values(done, 0.0), "epochs": done.epochs}
        if isinstance(trainer, Waiting):
            values["input_wait_s"] = done.input_wait_s
        self._events.emit("ended", TRAIN, self._spending.epoch, values if loss is None else {**values, "loss": loss})
        if loss is None:
            return math.nan
        self._check(loss)
        return loss

    def _train_epoch(self, trainer: Trainer, batches: Iterator[Batch], done: _Trained) -> float | None:
        """Adds what is left of one epoch to `done`; its loss, None of one of which nothing is left.

        That happens where training was stopped in the validation that followed.
        """
        agree = None if self._alone else partial(self._agreed, trainer)
        started = told = time.monotonic()
        steps = 0
        for data in trainer.feed(batches):
            trainer.step(data)
            steps += 1
            done.steps += 1
            self._spending.step()
            if self._stopping:
                self._end_part(trainer, done, started)
            now = time.monotonic()
            if now - told >= PROGRESS_PERIOD_S:
                told = now
                self._tell(trainer, done, now - started)
            if self._spending.ends(steps, now - started, agree):
                break
        done.epochs += 1
        if not steps:
            return None
        loss = trainer.take_loss()
        self._spending.seconds += self._agreed(trainer, time.monotonic() - started)
        if isinstance(trainer, Waiting):
            done.input_wait_s += trainer.input_wait_s()
        return loss

    def _values(self, done: _Trained, elapsed_s: float) -> dict[str, float]:
        """What a training phase has come to, `elapsed_s` after the last seconds that were counted."""
        images = done.steps * self._experiment.batch
        return {"steps": done.steps, "images": images, "fraction": self._spending.fraction(elapsed_s)}

    def _left(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches of an epoch without those that an earlier attempt has trained on."""
        if not self._spending.inside:
            return batches
        self._events.emit("started", SKIP)
        for _ in self._telling(SKIP, None, _first(batches, self._spending.inside)):
            pass
        self._events.emit("ended", SKIP)
        return batches

    def _end_part(self, trainer: Trainer, done: _Trained, started: float) -> NoReturn:
        """Ends an epoch within; its loss, which all workers would have to tell together, is not told."""
        trainer.synchronize()
        self._spending.seconds += time.monotonic() - started
        self._events.emit("ended", TRAIN, done.until, {**self._values(done, 0.0), "unfinished": 1})
        raise StoppedError

    @property
    def _alone(self) -> bool:
        return self._assignment.world == 1

    def _agreed(self, trainer: Trainer, value: float) -> float:
        return trainer.agree(value) if not self._alone and isinstance(trainer, Agreeing) else value

    def _tell(self, trainer: Trainer, done: _Trained, elapsed_s: float) -> None:
        loss = trainer.recent_loss()
        values = self._values(done, elapsed_s)
        self._events.emit("progress", TRAIN, done.until, values if loss is None else {**values, "loss": loss})
        if loss is not None:
            self._check(loss)

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                "nan_loss",
                f"the loss became {loss} in epoch {self._spending.epoch}, by step {self._spending.steps}; "
                f"lower training.lr (now {self._experiment.training.lr}) or look at the data",
            )

    def _validate(self, trainer: Trainer, dataset: Dataset, epoch: int) -> float:
        self._events.emit("started", VALIDATE, epoch)
        found, right = self._evaluate(trainer, dataset, epoch)
        values: dict[str, float] = {"images": found.images, "loss": found.loss}
        if self._info.labelled:
            values["accuracy_top1"] = found.correct_top1 / found.images
            if found.correct_top5 is not None:
                values["accuracy_top5"] = found.correct_top5 / found.images
            if right is not None:
                values["accuracy_sequence_top1"] = right
        self._events.emit("ended", VALIDATE, epoch, values)
        target = self._experiment.budget.target_accuracy
        self._spending.reached = target is not None and values.get("accuracy_top1", 0.0) >= target
        return found.loss

    def _evaluate(self, trainer: Trainer, dataset: Dataset, epoch: int) -> tuple[Evaluation, float | None]:
        """Counts over the samples, and the share of sequences that are right; None where there are no sequences."""
        batches = self._telling(VALIDATE, epoch, dataset.batches("validation", self._experiment.batch, epoch))
        if not (isinstance(dataset, Sequences) and isinstance(trainer, Summing)):
            found = trainer.evaluate(trainer.feed(batches))
            trainer.synchronize()
            return found, None
        sequences, labels = dataset.sequences("validation")
        found, sums = trainer.evaluate_sequences(trainer.feed(batches), sequences)
        trainer.synchronize()
        return found, float((sums.argmax(axis=1) == labels).mean())

    def _telling(self, phase: str, epoch: int | None, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, with a sign of life now and then."""
        told = time.monotonic()
        for batch in batches:
            yield batch
            if self._stopping and phase == VALIDATE:
                raise StoppedError
            if time.monotonic() - told >= PROGRESS_PERIOD_S:
                told = time.monotonic()
                self._events.emit("progress", phase, epoch)


def _flops(network: Network, trainer: Trainer) -> dict[str, float]:
    """What the engine counted of a network that is not described."""
    counted = trainer.training_flops() if network.training_flops is None else None
    return {} if counted is None else {"training_flops": counted}


def _endless(dataset: Dataset, batch: int) -> Iterator[Any]:
    while True:
        yield from dataset.batches("train", batch, 0)


def _first(items: Iterator[Any], count: int) -> Iterator[Any]:
    for _, item in zip(range(count), items, strict=False):
        yield item


if __name__ == "__main__":
    raise SystemExit(main())
