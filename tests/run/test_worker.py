"""Pieces of the training process that need no process."""

from __future__ import annotations

import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from gluon_runs import Told, experiment

from energybench.devices import cpu_device
from energybench.errors import PluginError
from energybench.run import worker
from energybench.run.assignment import Assignment
from energybench.run.spending import Spending
from energybench.run.worker import Loop, StoppedError, failure_kind


class Ahead:
    """Rank 0 of two: 16 steps are enqueued at once, from then on each waits for the device."""

    STEP_S = 0.002

    def __init__(self):
        self.steps = 0

    def begin_epoch(self, epoch, lr):
        pass

    def feed(self, batches):
        return batches

    def step(self, batch):
        self.steps += 1
        if self.steps > 16:
            time.sleep(self.STEP_S)

    def agree(self, value):
        return value

    def recent_loss(self):
        return None

    def take_loss(self):
        return 1.0


class Signs(Told):
    """Keeps the signs of life."""

    def __init__(self):
        super().__init__()
        self.progress = []

    def emit(self, kind, phase="", epoch=None, values=None, text=None):
        if kind == "progress":
            self.progress.append((phase, epoch))


def test_a_long_validation_gives_signs_of_life(monkeypatch):
    monkeypatch.setattr(worker, "PROGRESS_PERIOD_S", 0.0)
    signs = Signs()
    loop = Loop(Assignment(experiment(), (cpu_device(),), 0, 1, "."), signs)
    assert list(loop._telling("validate", 3, iter("abc"))) == ["a", "b", "c"]
    assert signs.progress == [("validate", 3)] * 3


class Preparing:
    def __init__(self, *names):
        self.names, self.done = names, []

    def preparations(self):
        return {name: lambda *_, name=name: self.done.append(name) for name in self.names}

    def synchronize(self):
        pass


def test_an_engine_s_phases_have_names_of_their_own():
    """Else its joules would be taken for those of loading, or of training."""
    loop = Loop(Assignment(experiment(), (cpu_device(),), 0, 1, "."), Told())
    loop._samples = lambda *_: ((), ())
    own = Preparing("quantise", "capture")
    loop._prepare(own, None)
    assert own.done == ["quantise", "capture"]
    for taken in ("load", "train", "settle"):
        with pytest.raises(PluginError, match=f"engine gluon: every run has a phase '{taken}': name its own one"):
            loop._prepare(Preparing(taken), None)


def test_several_ranks_end_near_the_seconds_they_were_given():
    """Steps that are only enqueued tell nothing of how long the others will take."""
    given = experiment(
        budget={"epochs": None, "seconds": 0.2},
        dataset={"name": "synthetic", "images": 10**6},
        model={"name": "lenet", "input_size": 28},
    )
    trainer, loop = Ahead(), Loop(Assignment(given, (cpu_device(),), 0, 2, "."), Told())
    batches = iter(range(10**6))
    dataset = type("Endless", (), {"batches": lambda self, *asked: batches})()
    loop._spending = Spending(given.budget, per_epoch=10**6 // given.batch)
    loop._train(trainer, dataset, 1)
    assert 20 < trainer.steps <= 2 * 0.2 / Ahead.STEP_S + 32


@pytest.mark.parametrize(("world", "ends"), [(1, True), (2, False)])
def test_stopped_between_two_epochs_the_first_of_several_goes_on_to_the_next_step(tmp_path, world, ends):
    """The others have begun the next epoch: what they begin without it would be a phase of which nobody tells."""
    given = experiment(budget={"epochs": 3})
    loop = Loop(Assignment(given, (cpu_device(),), 0, world, str(tmp_path)), Told())
    loop._spending, loop._stopping = Spending(given.budget, per_epoch=10, epoch=1), True
    with pytest.raises(StoppedError) if ends else nullcontext():
        loop._save_when_due(SimpleNamespace(state=dict))
    assert (tmp_path / "checkpoint.npz").exists() is ends


def test_an_assignment_survives_its_line():
    sent = Assignment(experiment(), (cpu_device(),), 1, 2, "/tmp/run", local_world=2)
    assert Assignment.from_line(sent.to_line()) == sent


def test_out_of_memory_is_told_by_type_and_by_words():
    assert failure_kind(MemoryError()) == "out_of_memory"
    assert failure_kind(RuntimeError("CUDA: Out of memory")) == "out_of_memory"
    assert failure_kind(RuntimeError("shapes")) == "crashed"
    assert "use a smaller batch" in worker._message(MemoryError("no room"))
