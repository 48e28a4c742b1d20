"""A search by Optuna: what it chooses from, what it does not try, and that it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from scripted import GPUS

from energybench.cli import main
from energybench.errors import ConfigError, LimitError
from energybench.run.result import Failure, Result
from energybench.run.supervisor import Moment
from energybench.study import limits
from energybench.study.search import Search
from energybench.study.space import Space

optuna = pytest.importorskip("optuna", reason="needs Optuna (pip install 'energybench[optuna]')")

OBJECTIVES = {"energy_j": "minimize", "accuracy_top1": "maximize"}
WORDS = ["hydra/sweeper=optuna", "-m", "hydra.sweep.dir=out", "tracking=none", "gpu=pascal", "meter=scripted"]
WORDS += ["dataset=tiny", "engine=standin", "engine.step_s=0.01", "model=lenet", "budget.epochs=1"]
WORDS += ["measure.baseline_s=0", "measure.warmup_steps=0", "batch=8,16"]


class TestSpace:
    def test_hydras_sweeps_are_distributions(self):
        words = ["a=x,'y z'", "b=interval(1,9)", "c=tag(log,interval(0.001,0.1))", "d=range(2,9,3)", "e=range(0,1,0.5)"]
        space = Space.read({}, [*words, "f=int(interval(1,9))", "g=3"])
        assert space.distributions() == {
            "a": optuna.distributions.CategoricalDistribution(["x", "'y z'"]),
            "b": optuna.distributions.FloatDistribution(1.0, 9.0),
            "c": optuna.distributions.FloatDistribution(0.001, 0.1, log=True),
            "d": optuna.distributions.IntDistribution(2, 8, step=3),
            "e": optuna.distributions.FloatDistribution(0.0, 0.5, step=0.5),
            "f": optuna.distributions.IntDistribution(1, 9),
        }
        assert space.fixed == ("g=3",)
        assert space.example() == ["g=3", "a=x", "b=1.0", "c=0.001", "d=2", "e=0.0", "f=1"]

    def test_the_command_line_goes_before_the_file(self):
        space = Space.read({"batch": "8,16", "seed": "0"}, ["batch=4"])
        assert (space.fixed, dict(space.swept)) == (("batch=4", "seed=0"), {})

    @pytest.mark.parametrize(
        "word", ["a=glob(*)", "a=interval(2,1)", "a=tag(log,interval(0,1))", "a=tag(log,choice(1,2))"]
    )
    def test_what_cannot_be_chosen_from(self, word):
        with pytest.raises(ConfigError, match="a="):
            Space.read({}, [word])


class Shown:
    def __init__(self):
        self.moments = []

    def update(self, moment):
        self.moments.append(moment)


class TestLimits:
    @pytest.mark.parametrize(("limit", "spent"), [({"time_s": 15.0}, 15.0), ({"energy_j": 1000.0}, 10.0)])
    def test_training_ends_beyond_one(self, monkeypatch, limit, spent):
        now_s = [0.0]
        monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
        shown = Shown()
        view = limits.LimitedView(shown, limit)
        for phase in ["idle"] * 40 + ["train"] * 6 + ["validate"] * 40:  # 5 s of training, as far as it is seen
            now_s[0] += 1.0
            view.update(Moment(phase, None, 100.0, None, 0.0, None))
        with pytest.raises(LimitError, match="has passed its limit of 1"):
            for _ in range(100):
                now_s[0] += 1.0
                view.update(Moment("train", None, 100.0, None, 0.0, None))
        assert len(shown.moments) - 86 == spent - 5 + 2  # the first moment begins it, the last is beyond it

    def test_what_does_not_fit_is_not_tried(self):
        plan = SimpleNamespace(memory_bytes=13 * 1024**3, boards=[GPUS[0]])
        assert limits.infeasible(plan).kind == "infeasible"
        for fits in (12 * 1024**3, None):
            assert limits.infeasible(SimpleNamespace(memory_bytes=fits, boards=[GPUS[0]])) is None
        unknown = [replace(GPUS[0], memory_bytes=None)]
        assert limits.infeasible(SimpleNamespace(memory_bytes=13 * 1024**3, boards=unknown)) is None


BEGUN = "2026-01-01T00:00:00+00:00"


def result(number, directory, status="finished", kind=None, **metrics):
    failure = None if kind is None else Failure(kind, "why")
    folder = directory / str(number)
    folder.mkdir()
    Result(f"run-{number}", status, failure, {}, BEGUN, BEGUN, metrics=metrics).write(folder)


def search(directory, *words, objectives=OBJECTIVES, **bounds):
    return Search(directory, Space.read({}, words or ("batch=interval(1,1000)",)), objectives, bounds, seed=0)


class TestSearch:
    def test_what_was_running_runs_again_and_what_had_ended_is_told(self, tmp_path):
        one = search(tmp_path)
        first = next(one.waiting(9))
        two = search(tmp_path)  # the process of `one` has died, its first trial without a result
        trials = two.waiting(9)
        again = next(trials)
        assert (again.number, again.params) == (0, first.params)
        result(0, tmp_path, energy_j=5.0, accuracy_top1=0.5)
        two.tell(again)
        second = next(trials)
        result(1, tmp_path, energy_j=4.0, accuracy_top1=0.4)  # and that of `two` before it could tell
        three = search(tmp_path)
        third = next(three.waiting(9))
        assert (second.number, third.number) == (1, 2)
        assert third.params not in (first.params, second.params)
        assert [line.split(":")[0] for line in three.best()] == ["trial 0", "trial 1"]

    def test_each_end_of_a_run_is_one_of_a_trial(self, tmp_path):
        one = search(tmp_path, energy_j=10.0)
        ends = [
            ("finished", None, {"energy_j": 5.0, "accuracy_top1": 0.5}),
            ("finished", None, {"energy_j": 11.0, "accuracy_top1": 0.9}),
            ("failed", "limit", {"energy_j": 11.0}),
            ("failed", "infeasible", {}),
            ("failed", "crashed", {}),
        ]
        for (status, kind, metrics), trial in zip(ends, one.waiting(len(ends)), strict=True):
            result(trial.number, tmp_path, status, kind, **metrics)
            one.tell(trial)
        store = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path / 'search.db'}")
        assert [trial.state.name for trial in store.trials] == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED", "FAIL"]
        assert len(one.best()) == 1
        assert list(one.waiting(len(ends))) == []

    def test_the_same_values_are_not_run_twice(self, tmp_path):
        one = search(tmp_path, "batch=8,16")
        run = []
        for trial in one.waiting(8):
            run.append(trial.params["batch"])
            result(trial.number, tmp_path, energy_j=float(trial.params["batch"]), accuracy_top1=0.5)
            one.tell(trial)
        assert sorted(run) == ["16", "8"]
        assert all("batch=8 " in line for line in one.best())

    def test_other_objectives_are_another_search(self, tmp_path):
        search(tmp_path)
        with pytest.raises(ConfigError, match="has other objectives"):
            search(tmp_path, objectives={"time_s": "minimize", "accuracy_top1": "maximize"})


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_it_goes_on(tmp_path, monkeypatch, capsys, how):
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    words = [*WORDS, "training.lr=interval(0.001,0.1)", "hydra.sweeper.trials=3"]
    command = [sys.executable, "-m", "energybench", *words, "engine.step_s=1"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (tmp_path / "out" / "0" / "events.jsonl").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, how)
    said = process.communicate(timeout=120)[0]
    if how == signal.SIGINT:
        assert "interrupted, 0 cells done; to go on, give the same command again with hydra.sweep.dir=out" in said
    try:
        assert main([*words, "hydra.sweeper.limits.energy_j=9"]) == 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    said = capsys.readouterr().out
    assert "trial 1 of 3" in said and "trial 3 of 3" in said
    found = {path.parent.name: Result.read(path) for path in (tmp_path / "out").glob("*/result.json")}
    assert set(found) == {"0", "1", "2"}
    assert {one.status for one in found.values()} == {"finished"}
    assert len({one.sweep_id for one in found.values()}) == 1
    assert (tmp_path / "out" / "attempts" / "0.1" / "events.jsonl").exists()


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra.sweeper.trials=0"], "hydra.sweeper.trials=0: give a whole number from 1"),
        (["hydra.sweeper.limits=3"], "hydra.sweeper.limits=3: give a mapping"),
        (["+hydra.sweeper.limits.power_mean_w=3"], "give a number above 0 for one of energy_j, time_s"),
        (["hydra.sweeper.objectives.time_s=fast"], "hydra.sweeper.objectives.time_s=fast: give minimize or maximize"),
        (["bacth=1,2"], "unknown key 'bacth'"),
        (["training.lr=interval(2,1)"], "give an interval that rises"),
        (["batch=8"], "nothing to choose from"),
        (["sweep.dry_run=true"], "sweep.dry_run: this sweeper chooses its cells as it goes"),
        (["sweep.devices=all"], "sweep.devices: this sweeper chooses its cells itself"),
    ],
)
def test_what_no_search_can_be_made_of(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main([*WORDS, *words]) == 2
    said = capsys.readouterr()
    assert message in said.err.splitlines()[-1]
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []
