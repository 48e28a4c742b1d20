"""Processes that are killed, stopped, starved or stuck."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import psutil
import pytest
from conftest import PATIENCE_S, SIGKILL, SIGTERM, files, said, until, worker_of
from standin_runs import planned
from views import Silent

from energybench.run.attempts import earlier
from energybench.run.checkpoint import load
from energybench.run.execute import Place, execute
from energybench.run.result import Result

HERE = ["hydra.run.dir=mine", "checkpoint.resume=auto"]

IN_THE_RUN = {
    "worker killed (SIGKILL)": ("sigkill", "killed"),
    "out of memory on the card": ("gpu_memory", "out_of_memory"),
    "out of memory on the host": ("host_memory", "out_of_memory"),
    "worker hangs": ("hang", "hung"),
}


@pytest.mark.parametrize("fault", IN_THE_RUN)
@pytest.mark.usefixtures("fakes")
def test_in_a_worker(tmp_path, row, fault):
    mode, kind = IN_THE_RUN[fault]
    checkpoint = {"every_epochs": 1, "resume": "auto"}
    options = {"checkpoint": checkpoint, "epochs": 3, "at_step": 12, "measure": {"watchdog_s": 10.0}}
    failed = execute(planned(mode=mode, **options), Place(tmp_path), Silent())
    assert failed.failure.kind == kind
    energy_j = failed.metrics["energy_j"]
    kept = files(tmp_path)
    assert energy_j == pytest.approx(sum(100.0 * p.time_s for p in failed.phases if p.name == "train"), rel=0.05)
    done = execute(planned(mode="train", **options), Place(tmp_path), Silent())
    assert done.status == "finished"
    assert [attempt.run_id for attempt in done.attempts] == [failed.run_id]
    own_j = sum(phase.channels["gpu.2"].energy_j for phase in done.phases if phase.name == "train")
    assert done.metrics["energy_j"] == pytest.approx(energy_j + own_j)
    assert [row["epoch"] for row in done.epochs] == [1, 2, 3]
    assert [phase.epoch for phase in done.phases if phase.name == "train"] == [2, 3]
    assert "cut_attempt" not in done.tags["quality"]
    row(
        fault,
        failed.failure.message,
        f"{kept}; status {failed.status}, the energy until then",
        "from the end of the last whole epoch; the joules of both attempts are added up",
    )


def test_the_supervisor_is_killed(tmp_path, start, ended, row):
    words = [*HERE, "checkpoint.every_epochs=1", "budget.epochs=40"]
    process = start(*words)
    until(said, tmp_path, '"checkpoint"', 4)
    snapshot = Result.read(until(lambda: next(tmp_path.rglob("attempt.json"), None)))
    worker = worker_of(process)
    process.send_signal(SIGKILL)
    assert psutil.wait_procs([worker], timeout=5)[1] == []
    kept = files(tmp_path / "mine")
    epoch = load(tmp_path / "mine" / "checkpoint.npz")[1].epoch
    code, _ = ended(*words[:-1], f"budget.epochs={epoch + 1}")
    result = Result.read(tmp_path / "mine")
    assert (code, result.status) == (0, "finished")
    assert result.metrics["attempts"] == 2
    assert result.metrics["energy_j"] > snapshot.metrics["energy_j"]
    assert "cut_attempt" in result.tags["quality"]
    assert not (tmp_path / "mine" / "attempt.json").exists()
    row(
        "supervisor killed (SIGKILL)",
        "nothing: it is dead, and its workers with it",
        f"{kept}; attempt.json has the energy until the last checkpoint",
        "from the last checkpoint; the joules of both are added up, with the flag cut_attempt",
    )


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize("begun", [False, True])
def test_killed_before_it_went_on_it_loses_nothing_of_before(tmp_path, begun):
    """What an earlier attempt took is known though a later one was killed before it could say anything."""
    options = {"checkpoint": {"every_epochs": 1, "resume": "auto"}, "epochs": 3, "at_step": 12}
    first = execute(planned(mode="sigkill", **options), Place(tmp_path), Silent())
    earlier(tmp_path)  # the next has put its files away, and is killed: before its workers are, or after
    if begun:
        (tmp_path / "events.jsonl").touch()
    done = execute(planned(**options), Place(tmp_path), Silent())
    assert done.status == "finished"
    assert [attempt.run_id for attempt in done.attempts] == [first.run_id, *[""] * begun]
    own_j = sum(phase.channels["gpu.2"].energy_j for phase in done.phases if phase.name == "train")
    assert done.metrics["energy_j"] == pytest.approx(first.metrics["energy_j"] + own_j)
    assert ("cut_attempt" in done.tags["quality"]) == begun


def test_a_scheduler_takes_the_machine(tmp_path, start, ended, row):
    words = [*HERE, "budget.epochs=3", "dataset.images=400"]
    process = start(*words)
    until(said, tmp_path, '"progress"')
    process.send_signal(SIGTERM)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, "Traceback" in err) == (130, False)
    first = Result.read(tmp_path / "mine")
    assert first.status == "interrupted"
    assert first.metrics["energy_j"] > 0
    kept, (_, progress) = files(tmp_path / "mine"), load(tmp_path / "mine" / "checkpoint.npz")
    assert 0 < progress.inside <= 50
    assert progress.steps == sum(phase.values["steps"] for phase in first.phases if phase.name == "train")
    code, _ = ended(*words)
    second = Result.read(tmp_path / "mine")
    assert (code, second.status) == (0, "finished")
    parts = [phase for attempt in second.attempts for phase in attempt.phases] + list(second.phases)
    trained = [phase for phase in parts if phase.name == "train"]
    assert sum(phase.values["steps"] for phase in trained) == 3 * 50  # no step lost, none done twice
    assert second.metrics["images"] == 3 * 400
    assert second.metrics["energy_j"] == pytest.approx(sum(p.channels["gpu.2"].energy_j for p in trained))
    assert second.epochs[0]["images"] == 400
    assert "cut_attempt" not in second.tags["quality"]
    assert (tmp_path / "mine" / "attempt-1" / "power.parquet").exists()
    row(
        "SIGTERM before the machine is taken",
        first.failure.message,
        f"{kept}; status {first.status}, the energy until then",
        "with the next step; no step is lost or done twice, the joules of both attempts are added up",
    )


def test_a_sweep_goes_on_within_its_cell(tmp_path, start, ended):
    words = [
        "-m",
        "seed=0,1",
        "hydra.sweep.dir=mine",
        "checkpoint.resume=auto",
        "budget.epochs=1",
        "dataset.images=1600",
    ]
    process = start(*words)
    until(said, tmp_path, '"progress"')
    process.send_signal(SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    code, out = ended(*words)
    assert code == 0
    assert "going on from their checkpoints: 1" in out
    first, second = (Result.read(tmp_path / "mine" / number) for number in "01")
    assert (len(first.attempts), len(second.attempts)) == (1, 0)
    assert first.metrics["images"] == second.metrics["images"] == 1600


RANKS = ["gpu=cpu", "gpu.count=2", "engine=torch", "meter=scripted", "meter.kind=cpu", "dataset=digits", "batch=64"]
RANKS += ["tracking=none", "measure.baseline_s=0", "measure.warmup_steps=1", "measure.validate=false", *HERE]


@pytest.mark.torch
def test_a_scheduler_takes_the_machine_from_two_ranks(tmp_path, start, ended, row):
    """First the supervisor alone is told; then all of its processes, as some schedulers do it."""
    pytest.importorskip("torch")
    mine, trained = tmp_path / "mine", 0.0
    events = mine / "events.jsonl"
    for everyone in (False, True):
        process = start("budget.epochs=1000", command=RANKS)
        if everyone:
            until((mine / "attempt-1" / "attempt.json").exists)  # what the first left is out of the way
        until(lambda: events.exists() and events.read_text().count('"phase": "train"') >= 6)  # in the second epoch
        tree = psutil.Process(process.pid).children(recursive=True) if everyone else []
        for one in [process, *tree]:
            one.send_signal(SIGTERM)
        _, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, "Traceback" in err) == (130, False)
        result = Result.read(mine)
        assert (result.status, len(result.attempts)) == ("interrupted", int(everyone))
        kept, (_, progress) = files(mine), load(mine / "checkpoint.npz")
        trained += sum(phase.values["steps"] for phase in result.phases if phase.name == "train")
        assert progress.steps == trained  # one checkpoint, of what both have made
    code, _ = ended(f"budget.steps={progress.steps + 30}", "budget.epochs=null", command=RANKS)
    done = Result.read(mine)
    assert (code, done.status, len(done.attempts)) == (0, "finished", 2)
    parts = [phase for attempt in done.attempts for phase in attempt.phases] + list(done.phases)
    trainings = [phase for phase in parts if phase.name == "train"]
    assert sum(phase.values["steps"] for phase in trainings) == progress.steps + 30
    assert done.metrics["energy_j"] == pytest.approx(sum(p.channels["cpu.0"].energy_j for p in trainings))
    assert "cut_attempt" not in done.tags["quality"]
    row(
        "SIGTERM to a run of two ranks",
        result.failure.message,
        f"{kept}; status {result.status}, the energy until then; one checkpoint, by the first rank",
        "with the next step, whether the supervisor alone was told or all of its processes; the joules are added up",
    )


def test_two_sweeps_on_one_card(tmp_path, start, row):
    """Each waits for the other to let the card go; their trainings never overlap."""
    words = ["-m", "seed=0,1", "budget.epochs=1", "dataset.images=1200", "measure.lock=wait"]
    sweeps = [start(*words, "hydra.sweep.dir=one")]
    until(said, tmp_path / "one", '"train"')
    sweeps.append(start(*words, "hydra.sweep.dir=two"))
    outputs = [process.communicate(timeout=PATIENCE_S) for process in sweeps]
    assert [process.returncode for process in sweeps] == [0, 0], outputs
    results = [Result.read(path.parent) for path in tmp_path.rglob("result.json")]
    spans = sorted((p.start_ns, p.end_ns) for result in results for p in result.phases if p.name == "train")
    assert len(spans) == 4
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert {result.tags["quality"] for result in results} == {"ok"}
    waited = next(line for out, _ in outputs for line in out.splitlines() if "waiting" in line)
    row(
        "two sweeps at once on one card",
        re.sub(r".*(waiting.*)", r"\1", waited),
        "everything of both: their trainings never overlap",
        "nothing is to be done: both have finished",
    )


def test_two_commands_on_one_card(tmp_path, start, ended, row):
    process = start("hydra.run.dir=mine", "budget.epochs=1000")
    until(said, tmp_path, '"train"')
    code, _ = ended("hydra.run.dir=other", "budget.epochs=1")
    assert code == 1
    refused = Result.read(tmp_path / "other")
    assert refused.failure.kind == "busy"
    process.send_signal(SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    code, _ = ended("hydra.run.dir=other", "budget.epochs=1")
    assert code == 0
    row(
        "two commands on one card",
        refused.failure.message,
        f"{files(tmp_path / 'other')}; the run that came first is not disturbed",
        "runs; with measure.lock=wait it waits by itself",
    )
    assert json.loads((tmp_path / "other" / "result.json").read_text())["status"] == "finished"
