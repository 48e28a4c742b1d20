"""Sweeps on a real SLURM: what is asked for, what is measured where, and what is kept when nodes and people go away."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest
from clusters import PATIENCE_S, free_ports, results, trains, until

from energybench.run.result import Result

pytestmark = pytest.mark.slurm

NEAR_ITS_LIMIT = ["hydra.launcher.time='2'", "hydra.launcher.signal_s=60"]
"""A signal is that of the limit from a cell's start on. SLURM's own comes after 30 s, when any has begun to train."""


def node_of(folder, number=0):
    return json.loads((folder / str(number) / "node.json").read_text())


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.mark.mlflow
def test_a_sweep_over_generations_and_counts_is_mapped_run_and_recorded_once(cluster, run, out, tmp_path):
    """A clean card of each node's own driver is read by the real meter; this host has none."""
    mlflow = pytest.importorskip("mlflow")
    words = ["gpu=pascal,volta", "gpu.count=1,2", "meter=nvml", "budget.epochs=2", "engine.step_s=0.05"]
    said = run(*words, "sweep.name=mapped")
    assert "submitted to SLURM: 4 of 4 cells" in said
    found = results(out)
    places = {number: (node_of(out, number)["host"], len(r.provenance["devices"])) for number, r in found.items()}
    assert places == {0: ("old1", 1), 1: ("old1", 2), 2: ("new1", 1), 3: ("new1", 2)}
    assert {r.tags["generation"] for n, r in found.items() if n > 1} == {"volta"}
    for number, watts in enumerate([150 * 1.01, 2 * 150 * 1.01, 200, 400]):
        assert found[number].metrics["power_mean_w"] == pytest.approx(watts, rel=0.02)
        assert found[number].config["measure"]["lock"] == "wait"
    asked = [path.read_text() for path in (out / "slurm").glob("*_submission.sh")]
    assert sorted(
        next(line for line in text.splitlines() if option in line).removeprefix("#SBATCH ")
        for text in asked
        for option in ("--constraint", "--gres")
    ) == sorted(["--constraint=p100", "--constraint=volta"] * 2 + ["--gres=gpu:1", "--gres=gpu:2"] * 2)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    (parent,) = [one for one in runs if "mlflow.parentRunId" not in one.data.tags]
    cells = [one for one in runs if one is not parent]
    assert {one.data.tags["mlflow.parentRunId"] for one in cells} == {parent.info.run_id}
    assert sorted(one.data.tags["energybench.run_id"] for one in cells) == sorted(r.run_id for r in found.values())
    assert all(one.info.status == "FINISHED" and one.info.end_time > one.info.start_time for one in runs)
    arrays = sorted((out / "slurm").glob("energybench-*.json"))
    assert len(arrays) == 4
    said = run(*words, "sweep.name=mapped")
    assert "4 of 4 cells are done" in said
    assert sorted((out / "slurm").glob("energybench-*.json")) == arrays, "cells that were done were submitted"
    assert results(out) == found


def test_what_only_a_node_can_tell_is_its_result_and_what_slurm_refuses_is_a_line(cluster, run, out, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cr3t@localhost:1")
    words = ["gpu=pascal", "meter=nvml", "tracking=none", "hydra.launcher.constraint.pascal=volta"]
    said = run(*words, "hydra.launcher.setup=['printenv > environment']", code=1)
    environment = (out.parent / "environment").read_text()
    assert "SLURM_JOB_ID" in environment
    assert "s3cr3t" not in environment
    (result,) = results(out).values()
    assert (result.status, result.failure.kind) == ("failed", "config")
    assert "gpu=pascal: no such device on this machine; there is: 1 x volta" in result.failure.message
    assert result.failure.message in said
    words = ["gpu=cpu", "meter=tdp", "tracking=none", "seed=5"]
    said = run(*words, "hydra.launcher.partition=nowhere", code=2)
    refused = said.splitlines()[-1]
    assert refused.startswith("energybench: SLURM does not take lenet batch=8 ")
    assert refused.endswith(": sbatch: error: Batch job submission failed: Invalid partition name specified")
    assert list((out / "slurm").glob("energybench-*.json")) != []
    assert "submitted to SLURM: 1 of 1 cells" in run(*words)


def test_a_submitter_that_is_killed_finds_its_cells_again(cluster, start, run, out):
    """One cell has ended, two run and one waits, when it is killed; none runs twice."""
    gates = [out.parent / f"gate-{number}" for number in range(4)]
    gates[0].touch()
    words = ["gpu=cpu", "meter=tdp", "tracking=none", "hydra.launcher.at_once=2"]
    words += [f"engine.gate={','.join(map(str, gates))}"]
    process = start(*words, "sweep.name=killed")
    until(lambda: 0 in results(out) and trains(out, 1) and trains(out, 2), process=process)
    assert not trains(out, 3)
    process.end(signal.SIGKILL)
    running = {number: node_of(out, number) for number in (1, 2)}
    ended = results(out)[0]
    process = start(*words, "sweep.name=killed")
    for gate in gates[1:3]:
        gate.touch()
    until(lambda: trains(out, 3) and "with SLURM already: " in process.said(), process=process)
    said = process.end(signal.SIGTERM)
    assert re.search(r"with SLURM already: (\d) of \1 cells", said)
    assert "submitted" not in said
    assert "left to SLURM; the same command collects them" in said
    assert process.returncode == 130
    gates[3].touch()
    said = run(*words, "sweep.name=killed")
    found = results(out)
    assert {result.status for result in found.values()} == {"finished"}
    assert len(found) == 4
    assert found[0] == ended
    assert {number: node_of(out, number) for number in (1, 2)} == running
    assert not (out / "attempts").exists()
    assert len(list((out / "slurm").glob("energybench-*.json"))) == 1, "cells were submitted twice"


def test_ctrl_c_cancels_and_keeps_what_there_is(cluster, start, run, out):
    words = ["gpu=cpu", "meter=tdp", "tracking=none", "engine.step_s=3,4", "hydra.launcher.at_once=1"]
    process = start(*words, "sweep.name=stopped")
    until(lambda: trains(out), process=process)
    said = process.end(signal.SIGINT)
    assert process.returncode == 130
    assert "interrupted: 2 cells cancelled" in said
    (result,) = results(out).values()
    assert result.status == "interrupted"
    assert result.failure.message.startswith("SLURM stopped job ")
    assert "what was measured until then is kept" in result.failure.message
    assert result.phases[-1].name == "train"
    cluster.quiet()
    said = run("gpu=cpu", "meter=tdp", "tracking=none", "sweep.name=stopped", "engine.step_s=3,4", "sweep.dry_run=true")
    assert "2 cells: 2 to run" in said


@pytest.mark.parametrize("how", ["pre-empted", "near its time limit"])
def test_a_cell_whose_node_is_taken_goes_on_from_its_checkpoint(cluster, start, out, how):
    words = ["gpu=cpu", "meter=tdp", "tracking=none", "checkpoint.resume=auto", "dataset.images=160"]
    words += ["engine.step_s=0.2", *(["hydra.launcher.time='60'"] if how == "pre-empted" else NEAR_ITS_LIMIT)]
    process = start(*words, "sweep.name=taken")
    until(lambda: trains(out, fraction=0.1), process=process)
    if how == "pre-empted":
        node = node_of(out)["host"]
        cluster.call("sbatch", "-p", "urgent", "-w", node, "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")
    else:
        cluster.call("scancel", "--signal=TERM", node_of(out)["job"])  # as SLURM does it: when the time comes
    said = process.end()
    assert process.returncode == 0, said
    (result,) = results(out).values()
    (attempt,) = result.attempts
    assert attempt.failure.kind == "interrupted"
    when = "before its time limit" if how == "pre-empted" else "at its time limit"
    assert f"{when}; what was measured until then is kept" in attempt.failure.message
    assert "start 2)" in said
    assert node_of(out)["restarts"] == 1
    assert result.metrics["images"] == 160, "a step was lost, or done twice"
    assert result.metrics["attempts"] == 2


def test_at_its_time_limit_a_cell_without_checkpoints_ends_with_what_it_has(cluster, start, run, out):
    words = ["gpu=cpu", "meter=tdp", "tracking=none", "sweep.name=limit", "engine.step_s=3"]
    process = start(*words, *NEAR_ITS_LIMIT)
    until(lambda: trains(out), process=process)
    cluster.call("scancel", "--signal=TERM", node_of(out)["job"])
    said = process.end()
    assert process.returncode == 1
    (result,) = results(out).values()
    assert result.status == "interrupted"
    assert "at its time limit; what was measured until then is kept" in said
    assert result.metrics["energy_j"] > 0
    assert "1 cell: 1 to run" in run(*words, "sweep.dry_run=true")


def test_a_node_that_fails_loses_its_cell_which_is_run_again(cluster, start, run, out):
    words = ["gpu=pascal", "meter=nvml", "tracking=none", "engine.step_s=1", "sweep.name=lost"]
    process = start(*words, "hydra.launcher.requeue=false")
    until(lambda: trains(out), process=process)
    daemon = psutil.Process(cluster.pid("slurmd-old1"))
    steps = [one for one in psutil.process_iter(["cmdline"]) if "slurmstepd" in " ".join(one.info["cmdline"] or [])]
    below = [child for step in steps for child in step.children(recursive=True)]
    for one in [daemon, *steps, *below]:  # all at once, as when the power goes
        with suppress(psutil.NoSuchProcess):
            one.kill()
    try:
        said = process.end()
        assert process.returncode == 1
        assert re.search(
            r"lost, without a result: SLURM job \d+: NODE_FAIL .*on old1; the same command runs it again", said
        )
        assert results(out) == {}
    finally:
        cluster.start("slurmd", "-N", "old1")
    until(cluster.idle)
    said = run(*words)
    assert "without a result: 1; those that the cluster still has are waited for, others run again" in said
    assert [result.status for result in results(out).values()] == ["finished"]


@pytest.mark.parametrize("meter", ["measured", "estimated"])
def test_two_cells_on_one_node_at_a_time(cluster, run, out, meter):
    words = ["gpu=cpu", "tracking=none", "seed=0,1", "engine.step_s=0.3", "sweep.name=together"]
    words += ["meter=scripted", "meter.kind=cpu"] if meter == "measured" else ["meter=tdp"]
    run(*words, "+hydra.launcher.sbatch.nodelist=old1")
    first, second = sorted(results(out).values(), key=lambda result: result.phases[0].start_ns)
    trained = [next(phase for phase in result.phases if phase.name == "train") for result in (first, second)]
    assert {node_of(out, number)["host"] for number in (0, 1)} == {"old1"}
    if meter == "measured":
        assert first.phases[-1].end_ns <= trained[1].start_ns, "two measured one CPU at the same time"
        assert {first.tags["quality"], second.tags["quality"]} == {"ok"}
    else:
        assert trained[0].start_ns < trained[1].end_ns and trained[1].start_ns < trained[0].end_ns
        assert all("shared_host" in result.tags["quality"] for result in (first, second))


def test_srun_starts_one_training_over_both_nodes(cluster, tmp_path):
    """All that the command knows of the nodes is SLURM's; but for where they meet, as these two are one host."""
    words = ["model=lenet", "dataset=tiny", "engine=standin", "engine.step_s=0.05", "budget.epochs=2", "batch=8"]
    words += ["measure.warmup_steps=0", "measure.baseline_s=0", "measure.context_s=0", "tracking=none", "gpu=cpu"]
    words += ["meter=tdp", "nodes=slurm", f"nodes.rendezvous=127.0.0.1:{free_ports(1)[0]}", "hydra.run.dir=both"]
    srun = ["srun", "--nodes=2", "--ntasks-per-node=1", "--chdir", str(tmp_path), sys.executable, "-m", "energybench"]
    done = subprocess.run(
        [*srun, *words], env=cluster.environment(), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = Result.read(tmp_path / "both")
    assert (result.status, result.config["nodes"]["count"], result.config["nodes"]["rank"]) == ("finished", 2, 0)
    by_node = [result.metrics[f"energy_j.node{number}"] for number in (0, 1)]
    assert min(by_node) > 0
    assert result.metrics["energy_j"] == pytest.approx(sum(by_node), rel=1e-6)
    assert (tmp_path / "both" / "node-1" / "power.parquet").exists()


@pytest.mark.torch
def test_a_search_trains_for_real_one_trial_after_the_other(cluster, run, out):
    pytest.importorskip("torch", reason="needs PyTorch (pip install 'energybench[torch]')")
    pytest.importorskip("optuna", reason="needs Optuna (pip install 'energybench[optuna]')")
    words = ["hydra/sweeper=optuna", "hydra.sweeper.trials=2", "batch=64,128", "sweep.name=search", "tracking=none"]
    words += ["model=lenet", "dataset=digits", "engine=torch", "gpu=cpu", "meter=tdp", "budget.steps=4"]
    said = run(*words, "measure.baseline_s=0", "hydra.sweep.dir=out", "-m", cell=[])
    assert "trial 2 of 2" in said
    assert "no trial is better in every objective than:" in said
    found = results(out)
    assert [result.status for result in found.values()] == ["finished"] * 2
    assert all("accuracy_top1" in result.metrics for result in found.values())
    assert node_of(out, 0)["started_at"] < found[0].ended_at < node_of(out, 1)["started_at"]
