"""Sweeps on a real Ray cluster of two nodes on this host, each with a driver whose cards are not there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from clusters import NODES, free_ports, results, trains, until

pytestmark = pytest.mark.ray

LAUNCHER = ["hydra/launcher=ray", "hydra.launcher.look_s=0.2", "hydra.launcher.ask_s=1", "hydra.launcher.cpus=1"]
LAUNCHER += ["hydra.launcher.labels.pascal='generation=pascal'"]  # Ray knows the type of no such card by itself


def _node(folder, name, *words):
    environment = {**os.environ, **NODES[name].start(folder / name).environment(), "RAY_USAGE_STATS_ENABLED": "0"}
    line = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=2", "--object-store-memory=80000000"]
    done = subprocess.run(
        [*line, *words], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def ray():
    """The address of a cluster; it is ended by the ids of its own processes."""
    pytest.importorskip("ray", reason="needs Ray (pip install 'energybench[ray]')")
    folder, (port,) = Path(tempfile.mkdtemp(prefix="energybench-ray-")), free_ports(1)
    try:
        for name in NODES:
            (folder / name).mkdir()
        _node(folder, "old1", "--head", f"--port={port}", f"--temp-dir={folder}/ray", "--include-dashboard=false",
              "--labels=generation=pascal")  # fmt: skip
        _node(folder, "new1", f"--address=127.0.0.1:{port}")
        yield f"127.0.0.1:{port}"
    finally:
        ours = [one for one in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(one.info["cmdline"] or [])]
        for process in ours:
            process.kill()
        psutil.wait_procs(ours, timeout=10)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def sweep(ray, fakes, start):
    """Starts a sweep on it."""
    return lambda *words: start("tracking=none", *words, launcher=[*LAUNCHER, f"hydra.launcher.address={ray}"])


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_a_sweep_over_generations_and_counts_is_mapped_and_run(sweep, out):
    """The Volta node is found by the label that Ray gives it, the Pascal node by one that it was started with."""
    command = sweep("gpu=pascal,volta", "gpu.count=1,2", "meter=nvml", "budget.epochs=2", "engine.step_s=0.05")
    said = command.end()
    assert command.returncode == 0, said
    assert "submitted to Ray: 4 of 4 cells" in said
    found = results(out)
    placed = {number: (r.tags["generation"], len(r.provenance["devices"])) for number, r in found.items()}
    assert placed == {0: ("pascal", 1), 1: ("pascal", 2), 2: ("volta", 1), 3: ("volta", 2)}
    for number, watts in enumerate([150 * 1.01, 2 * 150 * 1.01, 200, 400]):
        assert found[number].metrics["power_mean_w"] == pytest.approx(watts, rel=0.02)


def test_cells_outlive_the_command_and_are_cancelled_by_ctrl_c(sweep, out):
    words = ["gpu=cpu", "meter=tdp", "engine.step_s=3,4", "sweep.name=left"]
    command = sweep(*words)
    until(lambda: trains(out, 0), process=command)
    command.end(signal.SIGKILL)
    node = json.loads((out / "0" / "node.json").read_text())
    command = sweep(*words)
    until(lambda: "with Ray already: 2 of 2 cells" in command.said() and trains(out, 1), process=command)
    said = command.end(signal.SIGINT)
    assert command.returncode == 130, said
    assert "interrupted: 2 cells cancelled" in said
    assert json.loads((out / "0" / "node.json").read_text()) == node, "it was started twice"
    found = results(out)
    assert {result.status for result in found.values()} == {"interrupted"}, said
    assert {"stopped by its scheduler; what was measured until then is kept"} == {
        result.failure.message for result in found.values()
    }


def test_a_cell_that_is_lost_is_told_and_run_again(sweep, out):
    words = ["gpu=cpu", "meter=tdp", "engine.step_s=1", "sweep.name=lost"]
    command = sweep(*words)
    until(lambda: trains(out), process=command)
    (cell,) = [
        one for one in psutil.process_iter(["cmdline"]) if "energybench.cluster.node" in (one.info["cmdline"] or [])
    ]
    for process in [cell.parent(), cell, *cell.children(recursive=True)]:
        process.kill()
    said = command.end()
    assert command.returncode == 1
    assert "| lost, without a result: Ray job energybench-" in said
    assert results(out) == {}
    command = sweep(*words)
    said = command.end()
    assert command.returncode == 0, said
    assert "without a result: 1; those that the cluster still has are waited for, others run again" in said
    assert results(out)[0].status == "finished"
