"""Pieces of the training process that need no process."""

from __future__ import annotations

from gluon_runs import Told, experiment

from energybench.devices import cpu_device
from energybench.run import worker
from energybench.run.worker import Assignment, Loop, failure_kind


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


def test_an_assignment_survives_its_line():
    sent = Assignment(experiment(), (cpu_device(),), 1, 2, "/tmp/run")
    assert Assignment.from_line(sent.to_line()) == sent


def test_out_of_memory_is_told_by_type_and_by_words():
    assert failure_kind(MemoryError()) == "out_of_memory"
    assert failure_kind(RuntimeError("CUDA: Out of memory")) == "out_of_memory"
    assert failure_kind(RuntimeError("shapes")) == "crashed"
    assert "use a smaller batch" in worker._message(MemoryError("no room"))
