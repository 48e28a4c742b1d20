"""A sweep that is stopped, however it is stopped, goes on where it was when the same command is given again."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from energybench.cli import main
from energybench.errors import ConfigError, DataError
from energybench.run.result import Result
from energybench.study.ledger import SUPERSEDED_FILE, Sweep, held, set_aside, told

FAKES = Path(__file__).parents[1] / "fakes"
SHORT = ["dataset=tiny", "engine=standin", "engine.step_s=0", "meter=scripted", "gpu=pascal", "budget.epochs=1"]
SHORT += ["measure.baseline_s=0", "measure.warmup_steps=0", "hydra.sweep.dir=out", "-m", "model=lenet", "batch=8"]
PLAIN = [*SHORT, "tracking=none"]
TIMEOUT_S = 300


def command(*words):
    return [sys.executable, "-m", "energybench", *words]


@pytest.fixture
def run(fakes, tmp_path, monkeypatch, capsys):
    """Runs a command line to its end in the test's folder, in this process."""
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}

    def run(*words, code=0):
        ended = main(words)
        said = capsys.readouterr()
        assert ended == code, said.out + said.err
        return said.out

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def fresh(words, folder, **environment):
    """What a command line says in a process of its own."""
    done = subprocess.run(
        command(*words),
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def results(folder):
    """Number of a cell -> its result."""
    return {int(path.parent.name): Result.read(path) for path in folder.glob("*/result.json")}


def superseded(folder):
    return [Result.from_json(path.read_text()) for path in sorted((folder / "attempts").glob(f"*/{SUPERSEDED_FILE}"))]


def text(path):
    return path.read_text() if path.exists() else ""


def until(condition, process=None):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "nothing came of it"
        assert process is None or process.poll() is None, process.returncode
        time.sleep(0.01)


def comparable(result):
    """What a stand-in's run gives, whenever it is run."""
    return (result.status, result.overrides, result.config, result.metrics["accuracy_top1"], result.metrics["images"])


def start(words, folder, locks):
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        command(*words),
        cwd=folder,
        env={**os.environ, "ENERGYBENCH_LOCKS": str(locks)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize(
    ("named", "how"),
    [
        (["sweep.name=mine"], "give the same command again to go on"),
        ([], "to go on, give the same command again with hydra.sweep.dir=out"),
    ],
)
def test_interrupted_it_says_how_to_go_on(tmp_path, named, how):
    words = [*PLAIN, "batch=8,16", *named, "engine.step_s=0.2"]
    process = subprocess.Popen(command(*words), cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)
    until(lambda: results(tmp_path / "out"), process)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=TIMEOUT_S)[0]
    assert process.returncode == 130
    assert f"interrupted, 1 of 2 cells done; {how}" in said.splitlines()
    assert "One run each" not in said


LOST = """
import importlib, os, signal, sys
from energybench.cli import main

class Dying:
    def __del__(self):  # an exception that is raised here is forgotten
        os.kill(os.getpid(), signal.SIGINT)

def dying(*given):
    Dying()
    return known(*given)

module, name = sys.argv[1:3]
holder = importlib.import_module(module)
*path, last = name.split(".")
for part in path:
    holder = getattr(holder, part)
known = getattr(holder, last)
setattr(holder, last, dying)
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize(
    ("module", "name", "done"),
    [("energybench.job", "finished_line", 1), ("energybench.run.supervisor", "Supervisor._on_event", 0)],
)
def test_an_interrupt_that_python_forgets_ends_the_sweep_all_the_same(tmp_path, module, name, done):
    words = [sys.executable, "-c", LOST, module, name, *PLAIN, "batch=8,16", "engine.step_s=0.05"]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert "Exception ignored" in ended.stderr
    assert ended.returncode == 130, ended.stderr
    assert any(line.startswith(f"interrupted, {done} of 2 cells done") for line in ended.stdout.splitlines())


def test_seeds_are_advised_only_where_one_was_given(run):
    advice = "One run each tells no scatter. Repeat each setting to tell them apart: add seed=0,1,2"
    assert advice in run(*PLAIN, "batch=8,16").splitlines()
    assert advice not in run(*PLAIN, "batch=8,16", "seed=0,1")


@pytest.mark.usefixtures("fakes")
def test_killed_at_three_random_moments_it_ends_as_if_undisturbed(tmp_path):
    words = [*PLAIN, "batch=8,16", "seed=range(0,6)", "sweep.shuffle=1", "engine.step_s=0.02"]
    locks = [tmp_path / "locks-1", tmp_path / "locks-2"]
    for folder in locks:
        folder.mkdir()
    undisturbed = start(words, tmp_path / "undisturbed", locks[0])  # beside the other: neither waits for the other
    chance, out, seen = random.Random(7), tmp_path / "killed" / "out", {}
    for finished in (2, 5, 9):
        process = start(words, tmp_path / "killed", locks[1])
        until(lambda finished=finished: len(results(out)) >= finished, process)
        time.sleep(chance.uniform(0, 1.5))
        assert process.poll() is None, "there was nothing left to be killed"
        kill(process)
        now = {number: result.run_id for number, result in results(out).items()}
        assert seen.items() <= now.items(), "a finished cell was run again"
        seen = now
    assert start(words, tmp_path / "killed", locks[1]).wait(TIMEOUT_S) == 0
    assert undisturbed.wait(TIMEOUT_S) == 0
    ended, wanted = results(out), results(tmp_path / "undisturbed" / "out")
    assert len(ended) == 12
    assert {number: comparable(result) for number, result in ended.items()} == {
        number: comparable(result) for number, result in wanted.items()
    }
    assert seen.items() <= {number: result.run_id for number, result in ended.items()}.items()
    assert superseded(out) == [], "a cell that had ended was run again"
    assert len({result.sweep_id for result in ended.values()}) == 1


@pytest.mark.usefixtures("fakes")
def test_interrupted_it_keeps_what_there_was_and_goes_on(run, out, tmp_path, locks):
    words = [*PLAIN, "seed=0,1,2", "engine.step_s=0.1"]
    process = start(words, tmp_path, locks)
    until(lambda: "train" in text(out / "1" / "events.jsonl"), process)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(TIMEOUT_S) == 130
    first = results(out)
    assert [result.status for result in first.values()].count("interrupted") == 1
    [cut] = [result for result in first.values() if result.status == "interrupted"]
    said = run(*words)
    assert f"going on with lenet seed=0,1,2: {len(first) - 1} of 3 cells are done" in said
    assert "run again: 1 (interrupted); what they left is kept in attempts/" in said
    assert superseded(out) == [cut]
    assert {result.status for result in results(out).values()} == {"finished"}
    assert results(out)[0] == first[0]


def test_a_cell_that_failed_is_run_again_when_asked(run, out):
    words = [*PLAIN, "engine.mode=raise,train"]
    run(*words, code=1)
    before = results(out)
    said = run(*words, code=1)
    assert "failed before and not run again: 1; to run them again: rerun=failed" in said
    assert results(out) == before
    run(*words, "rerun=failed", code=1)
    after = results(out)
    assert after[1] == before[1]
    assert after[0].run_id != before[0].run_id
    assert superseded(out) == [before[0]]
    assert after[0].config["rerun"] is None
    run(*words, "rerun=all", code=1)
    assert {result.run_id for result in results(out).values()}.isdisjoint(r.run_id for r in after.values())
    assert len(superseded(out)) == 3


def test_a_grid_that_grows_runs_what_is_new(run, out):
    run(*PLAIN, "seed=0")
    before = results(out)
    said = run(*PLAIN, "seed=0,1", "budget.epochs=1")
    assert "1 of 2 cells are done" in said
    assert {number: result.config["seed"] for number, result in results(out).items()} == {0: 0, 1: 1}
    assert results(out)[0] == before[0]
    said = run(*PLAIN, "seed=0", "gpu=maxwell")
    assert "cells of other settings or boards in this folder, which are left as they are: 2" in said
    generations = {number: result.tags["generation"] for number, result in results(out).items()}
    assert generations == {0: "pascal", 1: "pascal", 2: "maxwell"}


def test_what_other_code_made_is_told_and_run_again(fakes, out, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    source = (FAKES / "standin.py").read_text()
    shutil.copytree(FAKES / "standin_conf", own / "standin_conf")
    environment = {"PYTHONPATH": f"{own}{os.pathsep}{os.environ['PYTHONPATH']}"}
    (own / "standin.py").write_text(source)
    fresh(PLAIN, tmp_path, **environment)
    before = results(out)
    (own / "standin.py").write_text(source.replace('"""A framework', '"""Words alone\n\n\nA framework') + "# the end\n")
    assert "1 of 1 cells are done" in fresh(PLAIN, tmp_path, **environment)
    (own / "standin.py").write_text(source.replace("images // 2", "images // 4"))
    said = fresh([*PLAIN, "sweep.code=any"], tmp_path, **environment)
    assert "1 of 1 cells are done" in said
    assert results(out) == before
    said = fresh(PLAIN, tmp_path, **environment)
    assert "run again: 1 (other code: code of dataset tiny, code of engine standin)" in said
    assert "to keep results of other code: sweep.code=any" in said
    assert results(out)[0].metrics["accuracy_top1"] == 0.25
    assert superseded(out) == list(before.values())


def test_a_dry_run_tells_and_writes_nothing(run, out, tmp_path):
    said = run(*PLAIN, "seed=0,1", "sweep.dry_run=true", "tracking=mlflow")
    assert "2 cells: 2 to run" in said
    assert list(tmp_path.iterdir()) == []
    run(*PLAIN, "seed=0")
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    said = run(*PLAIN, "seed=0,1", "sweep.dry_run=true")
    assert "2 cells: 1 done, 1 to run" in said
    assert "1 cell left | about" in said
    assert "/ 12.0 GiB" in said
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == kept


def test_the_study_runs_over_the_devices_that_are_here(run, tmp_path):
    words = ["experiment=study", "sweep.dry_run=true", "dataset=tiny", "engine=standin", "meter=scripted"]
    words += ["model=lenet", "batch=8,9", "seed=0"]
    said = run(*words)
    assert "6 cells: 6 to run" in said
    assert "left out: 2 cells: batch=9 does not divide over 2 devices; use 8 or 10, or another gpu.count" in said
    assert said.count("lenet batch=8 gpu=maxwell gpu.count=2") == 1
    assert "2 cells: 2 to run" in run(*words, "gpu=pascal", "gpu.count=1")
    run(*words, "gpu=pascal", "gpu.count=1,2", code=2)
    run(*words, "gpu.count=3", code=2)
    said = run("experiment=study_small", "sweep.dry_run=true", "engine=standin", "gpu=cpu", "meter=tdp", "seed=0")
    assert "12 cells: 12 to run" in said
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_and_a_sweeper_that_cannot_go_on_are_refused(fakes, out, monkeypatch, capsys):
    monkeypatch.chdir(out.parent)
    with held(out):
        assert main(PLAIN) == 2
        assert main([*PLAIN, "sweep.dry_run=true"]) == 0
    assert "another process is running this sweep now" in capsys.readouterr().out
    with held(out):
        assert main(PLAIN) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "energybench: out: another process is running this sweep; let it end, or choose another folder with "
        "hydra.sweep.dir=..."
    )
    Sweep("id", "name", None).write(out)
    assert main([*PLAIN, "hydra/sweeper=basic"]) == 2
    assert "this sweeper cannot go on with it; use hydra/sweeper=ordered" in capsys.readouterr().err


@pytest.mark.mlflow
def test_the_tracker_has_one_parent_and_each_cell_once(run, out, fakes, tmp_path, locks):
    mlflow = pytest.importorskip("mlflow")
    words = [*SHORT, "seed=0,1", "engine.step_s=0.1"]
    process = start(words, tmp_path, locks)
    until(lambda: (out / "1" / "events.jsonl").exists(), process)
    kill(process)
    assert len(results(out)) == 1
    run(*words)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    parents = [found for found in runs if "mlflow.parentRunId" not in found.data.tags]
    cells = [found for found in runs if found not in parents]
    assert [found.info.status for found in parents] == ["FINISHED"]
    assert {found.data.tags["mlflow.parentRunId"] for found in cells} == {parents[0].info.run_id}
    assert [found.info.status for found in cells] == ["FINISHED"] * 2
    assert sorted(found.data.tags["energybench.run_id"] for found in cells) == sorted(
        result.run_id for result in results(out).values()
    )
    # what ended, but was cut off before it was recorded, is recorded without being run again
    [lost] = [found for found in cells if found.data.params["seed"] == "0"]
    client.set_tag(lost.info.run_id, "energybench.complete", "false")
    client.update_run(lost.info.run_id, status="RUNNING")
    before = results(out)
    run(*words)
    assert client.get_run(lost.info.run_id).info.status == "FINISHED"
    assert results(out) == before


class TestLedger:
    def test_a_cell_keeps_its_number(self):
        sweep, numbers = Sweep("id", "name", None).numbered([("a",), ("b",)], ["key a", "key b"])
        assert numbers == [0, 1]
        sweep, numbers = sweep.numbered([("c",), ("b", "more"), ("b",)], ["key c", "key b", "key b"])
        assert numbers == [2, 1, 3]
        assert sweep.cells == (("a",), ("b", "more"), ("c",), ("b",))

    def test_what_is_written_is_read(self, tmp_path):
        sweep = Sweep("id", "name", "parent", (("a=1", "b=2"),), ("key",), (0,))
        sweep.write(tmp_path)
        assert Sweep.read(tmp_path) == sweep
        assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"sweep_id": "a"}', json.dumps({"sweep_id": 1, "cells": 3})])
    def test_what_is_no_ledger_is_said_in_a_line(self, tmp_path, text):
        (tmp_path / "sweep.json").write_text(text)
        with pytest.raises(DataError, match=r"sweep\.json: no sweep can be read from it: .*; choose another folder"):
            Sweep.read(tmp_path)

    def test_attempts_are_kept_beside(self, tmp_path):
        for text in ("first", "second"):
            (tmp_path / "3").mkdir()
            (tmp_path / "3" / "result.json").write_text(text)
            set_aside(tmp_path, 3)
        set_aside(tmp_path, 3)
        kept = {path.parent.name: path.read_text() for path in tmp_path.rglob("*.json")}
        assert kept == {"3.1": "first", "3.2": "second"}
        assert list(tmp_path.rglob("result.json")) == []

    def test_a_folder_is_held_once(self, tmp_path):
        new = tmp_path / "new"
        with held(new), pytest.raises(ConfigError, match="another process"), held(new):
            pass
        with held(new):
            pass

    def test_what_tells_cells_apart(self):
        cells = [("a=1", "b=1"), ("a=1", "b=2")]
        assert told(cells[1], cells) == ("b=2",)
        assert told(cells[0], cells[:1]) == cells[0]
