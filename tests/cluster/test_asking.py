"""What a cell asks of a cluster, and what is refused before anything is submitted: no scheduler is needed for it."""

from __future__ import annotations

import signal

import pytest
from omegaconf import OmegaConf

from energybench.cli import main
from energybench.cluster.options import RayOptions, SlurmOptions
from energybench.cluster.ray import requested
from energybench.cluster.slurm import parameters, seconds
from energybench.cluster.ticket import Node, Ticket, for_a_cluster

CELL = ["model=lenet", "dataset=tiny", "engine=standin", "tracking=none", "sweep.dry_run=true"]


@pytest.fixture
def says(fakes, tmp_path, monkeypatch, capsys):
    """What a command line says, and its exit code; without a scheduler on PATH."""
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def says(*words, code=2):
        ended = main([*CELL, *words])
        said = capsys.readouterr()
        assert ended == code, said.out + said.err
        return (said.err.strip().splitlines() if code else said.out.splitlines())[-1 if code else slice(None)]

    yield says
    for number, handler in handlers.items():
        signal.signal(number, handler)


def ticket(gpu, count):
    return Ticket(0, "a cell", OmegaConf.create({"gpu": {"name": gpu, "count": count}}), "/")


@pytest.mark.parametrize(
    ("gpu", "options", "asked"),
    [
        ("pascal", {}, {"gres": "gpu:2", "constraint": "pascal"}),
        ("pascal", {"constraint": {"pascal": "p100"}}, {"gres": "gpu:2", "constraint": "p100"}),
        ("pascal", {"constraint": {"pascal": None}, "gpus": "--gpus={generation}:{count}"}, {"gpus": "pascal:2"}),
        ("volta", {"gpus": "--gpus-per-node={count}"}, {"gpus-per-node": "2", "constraint": "volta"}),
        ("cpu", {"gpus": "--gpus={count}"}, {}),
        ("none", {}, {}),
        ("cpu", {"sbatch": {"qos": "high"}, "of": {"cpu": {"qos": "low", "nice": 3}}}, {"qos": "low", "nice": 3}),
        ("volta", {"requeue": False, "of": {"cpu": {"nice": 3}}}, {"gres": "gpu:2", "constraint": "volta"}),
    ],
)
def test_what_a_cell_asks_of_slurm(gpu, options, asked):
    given = parameters(ticket(gpu, 2), SlurmOptions(**options))
    requeue = "requeue" if options.get("requeue", True) else "no-requeue"
    assert given["additional_parameters"] == {"signal": "TERM@120", requeue: True, **asked}
    assert given["exclusive"] == (True if gpu in ("cpu", "none") else None)
    assert given["cpus_per_task"] == 4


def test_what_a_cell_asks_of_ray():
    options = RayOptions(cpus=2, labels={"volta": "generation=volta"}, resources={"cpu": {"alone": 1}})
    assert requested(ticket("volta", 2), options) == {
        "num_cpus": 2, "num_gpus": 2, "label_selector": {"generation": "volta"},
    }  # fmt: skip
    assert requested(ticket("cpu", 4), options) == {"num_cpus": 2, "num_gpus": 0, "resources": {"alone": 1}}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("2-03:04:05", 183_845), ("1:00:00", 3600), ("1:30", 90), ("0:05", 5), ("UNLIMITED", None), ("", None)],
)
def test_a_time_of_slurm(text, wanted):
    assert seconds(text) == wanted


REFUSED = {
    "gpu=auto -m": "gpu=auto: slurm has to be told what to give; name a generation, as gpu=pascal, or gpu=cpu",
    "gpu=pascal": "hydra/launcher: it is for the cells of a sweep, of which there may be one; add -m",
    "gpu=pascal gpu.count=all -m": "gpu.count=all: how many a node of slurm has is not known here; give a number",
    "sweep.devices=all -m": "sweep.devices=all: which GPUs the nodes of slurm have is not known here; say it, as in",
    "gpu=pascal gpu.count=3 +hydra.launcher.nodes.pascal=2 -m": "gpu.count=3: a node of slurm has 2 x pascal",
    "gpu=pascal gpu.count=3 batch=64 -m": "batch=64 does not divide over 3 devices; use 63 or 66",
    "gpu=pascal batch=abc -m": "batch=abc: give a whole number",
    "gpu=pascal hydra.launcher.cpus=many -m": "hydra.launcher.cpus=many: give a whole number",
    "gpu=pascal hydra.launcher.partitoin=a -m": "unknown key 'hydra.launcher.partitoin' of Hydra",
    "gpu=pascal +hydra.launcher.partitoin=a -m": "unknown key 'hydra.launcher.partitoin'; did you mean",
    "gpu=pascal hydra.launcher.gpus=gpu:2 -m": "hydra.launcher.gpus=gpu:2: give an option of sbatch, as --gres=",
    "gpu=pascal hydra.launcher.ask_s=0 -m": "hydra.launcher.ask_s=0.0: give seconds above 0",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_refused_before_anything_is_submitted(says, words):
    assert REFUSED[words] in says("hydra/launcher=slurm", *words.split())


def test_without_a_scheduler_it_is_a_line(says, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ["hydra/launcher=slurm", "gpu=pascal", "sweep.dry_run=false", "hydra.sweep.dir=out", "-m"]
    said = says(*words)
    assert said == (
        "energybench: hydra/launcher=slurm: sbatch is not on PATH; give the command where jobs are submitted"
    )
    assert [path.name for path in (tmp_path / "out").glob("*")].count("0") == 0


def test_the_grid_runs_over_what_nodes_are_said_to_have(says):
    words = ["hydra/launcher=slurm", "sweep.devices=all", "batch=8", "-m"]
    said = "\n".join(says(*words, "+hydra.launcher.nodes={pascal:2,volta:1}", code=0))
    assert "3 cells: 3 to run" in said
    assert "2 x pascal of slurm" in said


def test_a_node_waits_for_a_lock_unless_it_is_told_what_to_do(tmp_path):
    made = {"hydra": {"job": {"id": "?", "num": 0}}, "measure": {"lock": None}}
    config = for_a_cluster(OmegaConf.create(made), 7)
    assert (config.measure.lock, config.hydra.job.num) == ("wait", 7)
    made["measure"]["lock"] = "ignore"
    assert for_a_cluster(OmegaConf.create(made), 7).measure.lock == "ignore"
    assert Node.read(tmp_path) is None
    Node("old1", "17_2", "2026-01-01T00:00:00+00:00", 1).write(tmp_path / "0")
    assert Node.read(tmp_path / "0") == Node("old1", "17_2", "2026-01-01T00:00:00+00:00", 1)
