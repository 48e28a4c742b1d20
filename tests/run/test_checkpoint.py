"""Checkpoints on disk: whole or not at all, and read without executing anything."""

from __future__ import annotations

import os
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from energybench.errors import DataError
from energybench.power.meter import Channel, Source
from energybench.power.series import Series
from energybench.run.checkpoint import META, Progress, load, save
from energybench.run.execute import SETTLES_NS, Settled
from energybench.run.observation import Observation, Span

PROGRESS = Progress("lenet", 3, 66, 1.5, {"lr": 0.01, "waited": 1.0})
STATE = {"parameters/0.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "updates/0": np.asarray(7)}


def test_what_is_saved_is_loaded(tmp_path):
    save(tmp_path / "deep" / "checkpoint.npz", STATE, PROGRESS)
    state, progress = load(tmp_path / "deep" / "checkpoint.npz")
    assert progress == PROGRESS
    assert state.keys() == STATE.keys()
    for name, array in STATE.items():
        np.testing.assert_array_equal(state[name], array)
        assert state[name].dtype == array.dtype


def test_a_failed_save_leaves_the_old_checkpoint_and_no_litter(tmp_path):
    path = tmp_path / "checkpoint.npz"
    save(path, STATE, PROGRESS)
    before = path.read_bytes()

    with pytest.raises(OSError, match="disk full"):
        save(path, {"parameters/0.weight": np.zeros(3), "x": _Failing()}, PROGRESS)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.npz"]


class _Failing:
    def __array__(self, *args, **kwargs):
        raise OSError("disk full")


class _Evil:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def test_a_checkpoint_that_holds_code_is_refused_and_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "evil.npz", **{META: np.array([_Evil()], dtype=object)})
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(_Evil()))
    for name in ("evil.npz", "pickle.npz"):
        with pytest.raises(DataError, match=name):
            load(tmp_path / name)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text", "other archive"])
def test_damage_is_one_error_that_names_the_file(tmp_path, damage):
    path = tmp_path / "checkpoint.npz"
    save(path, STATE, PROGRESS)
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "text":
        path.write_text("not a checkpoint")
    else:
        np.savez(path, x=np.zeros(3))
    with pytest.raises(DataError, match=r"checkpoint\.npz") as error:
        load(path)
    assert "\n" not in str(error.value)


class Reading:
    """A supervisor's side of a checkpoint: readings once a second of a counter of `WATTS`, from `asked_ns` on."""

    def __init__(self):
        channel = Channel("gpu.0", "gpu", "GPU-0")
        self.source = Source("gpu.0", "counter", "energy_j", 1.0)
        self.sessions = [SimpleNamespace(channels=[channel], sources=[self.source])]
        self.now_s, self.asked_ns = 0, []

    def readings(self, since_ns=None):
        self.asked_ns.append(since_ns or 0)
        series = Series("gpu.0", "counter", "energy_j")
        for second in range(self.now_s + 1):
            series.add(second * 10**9, second * 10**9 + 1000, WATTS * second, None)
        return {("gpu.0", "counter"): series.columns(since_ns=since_ns)}


WATTS, LENGTH_S = 50.0, 600


def test_what_a_checkpoint_looks_at_does_not_grow_with_the_run():
    supervisor, settled, spans = Reading(), Settled(), []
    for epoch in range(1, 7):
        start_s, supervisor.now_s = (epoch - 1) * LENGTH_S, epoch * LENGTH_S
        spans.append(Span("train", epoch, start_s * 10**9, (supervisor.now_s - 1) * 10**9))
        seen = Observation(spans=list(spans), end_ns=supervisor.now_s * 10**9)
        phases = settled.phases(seen, supervisor)
        assert [phase.epoch for phase in phases] == list(range(1, epoch + 1))
        for phase in phases:
            assert phase.channels["gpu.0"].energy_j == pytest.approx(WATTS * phase.time_s, rel=1e-4)
    now_ns = supervisor.now_s * 10**9
    assert now_ns - supervisor.asked_ns[-1] == 2 * LENGTH_S * 10**9 + SETTLES_NS  # this phase, and the one before
