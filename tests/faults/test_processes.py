"""Processes that are killed, stopped, starved or stuck."""

from __future__ import annotations

import json

import psutil
import pytest
from conftest import PATIENCE_S, SIGKILL, SIGTERM, files, said, until, worker_of
from standin_runs import planned
from views import Silent

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
