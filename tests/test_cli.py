"""The command line as a user has it: exit codes, messages, and what is left on disk."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from scripted import GPUS

from energybench.run.result import Result

PASCALS = [device for device in GPUS if device.generation == "pascal"]
BASE = ["dataset=tiny", "engine=standin", "tracking=none", "batch=8", "budget.epochs=1", "measure.baseline_s=0"]
BASE += ["measure.warmup_steps=1", "engine.step_s=0"]
PASCAL = [*BASE, "gpu=pascal", "meter=scripted"]
CPU = [*BASE, "gpu=cpu", "meter=tdp"]
FAKES = Path(__file__).parent / "fakes"
TIMEOUT_S = 180


@pytest.fixture
def energybench(fakes, tmp_path):
    """Runs a command line in an empty folder."""

    def run(*words, **environment):
        return subprocess.run(
            [sys.executable, "-m", "energybench", *words],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )

    return run


@pytest.fixture
def refused(energybench, tmp_path):
    """The one line that a command line is refused with; nothing is left on disk."""

    def run(*words, **environment):
        done = energybench(*words, **environment)
        assert done.returncode == 2, done.stderr
        [line] = done.stderr.splitlines()
        assert done.stdout == ""
        assert list(tmp_path.iterdir()) == []
        assert line.startswith("energybench: ")
        return line.removeprefix("energybench: ")

    return run


def results(folder: Path) -> list[Result]:
    return sorted((Result.read(path) for path in folder.rglob("result.json")), key=lambda result: result.started_at)


class TestRun:
    def test_on_exactly_two_pascals(self, energybench, tmp_path):
        done = energybench(*PASCAL, "gpu.count=all")
        assert (done.returncode, done.stderr) == (0, "")
        [result] = results(tmp_path)
        assert result.status == "finished"
        wanted = [device.uuid for device in PASCALS]
        assert result.provenance["engine"]["visible"].split(",") == wanted
        assert [device["uuid"] for device in result.provenance["devices"]] == wanted
        channels = result.provenance["channels"]
        assert [(channel["name"], channel["device_id"], channel["pci_bus_id"]) for channel in channels] == [
            ("gpu.2", PASCALS[0].uuid, PASCALS[0].pci_bus_id),
            ("gpu.3", PASCALS[1].uuid, PASCALS[1].pci_bus_id),
        ]
        assert all(phase.channels.keys() == {"gpu.2", "gpu.3"} for phase in result.phases)
        assert result.overrides == (*PASCAL, "gpu.count=all")

    def test_auto_takes_the_newest(self, energybench, tmp_path):
        assert energybench(*BASE, "gpu=auto", "meter=scripted").returncode == 0
        [result] = results(tmp_path)
        assert len(result.provenance["devices"]) == 1
        assert (result.tags["generation"], result.tags["energy_scope"]) == ("pascal", "gpu")

    def test_auto_falls_to_the_cpu(self, energybench, tmp_path):
        words = [*BASE, "gpu=auto", "meter=auto", "meter.order.cpu=[tdp]"]
        assert energybench(*words, ENERGYBENCH_PLUGINS="standin").returncode == 0
        [result] = results(tmp_path)
        assert result.tags["energy_scope"] == "cpu"
        assert (result.tags["energy_source"], result.tags["meter"]) == ("estimated", "tdp")
        assert "energy_j.cpu.0" in result.metrics

    def test_a_run_that_fails(self, energybench, tmp_path):
        done = energybench(*PASCAL, "engine.mode=sigkill")
        assert done.returncode == 1
        assert "SIGKILL" in done.stdout
        [result] = results(tmp_path)
        assert (result.status, result.failure.kind) == ("failed", "killed")

    def test_flags_stand_before_behind_and_between(self, energybench, tmp_path):
        done = energybench(PASCAL[0], "-m", *PASCAL[1:4], "--config-name", "config", *PASCAL[4:], "seed=0,1")
        assert (done.returncode, done.stderr) == (0, "")
        assert [result.config["seed"] for result in results(tmp_path)] == [0, 1]

    def test_a_run_folder_of_ones_own(self, energybench, tmp_path):
        assert energybench(*PASCAL, "hydra.run.dir=my runs/first").returncode == 0
        assert Result.read(tmp_path / "my runs" / "first").status == "finished"

    def test_earlier_results_in_the_folder_do_not_count(self, energybench, tmp_path):
        (tmp_path / "runs" / "old").mkdir(parents=True)
        Result("old", "failed", None, {}, "", "").write(tmp_path / "runs" / "old")
        done = energybench(*PASCAL, "hydra.run.dir=runs")
        assert done.returncode == 0


class TestSweep:
    def test_a_damaged_result_of_another_run_is_left_out_with_a_word(self, energybench, tmp_path):
        (tmp_path / "sweep" / "old").mkdir(parents=True)
        (tmp_path / "sweep" / "old" / "result.json").write_text("{")
        done = energybench(*PASCAL, "-m", "seed=0,1", "hydra.sweep.dir=sweep")
        assert done.returncode == 0
        assert "left out" in done.stderr
        assert "seed" not in done.stderr

    def test_a_run_in_a_used_folder_leaves_nothing_of_the_old_one(self, energybench, tmp_path):
        (tmp_path / "out").mkdir()
        for name in ("result.json", "power.png", "worker-7.err"):
            (tmp_path / "out" / name).write_text("old")
        (tmp_path / "out" / "checkpoint.npz").write_text("kept")
        assert energybench(*PASCAL, "hydra.run.dir=out").returncode == 0
        left = {path.name for path in (tmp_path / "out").iterdir()}
        assert {"result.json", "checkpoint.npz"} <= left
        assert not {"power.png", "worker-7.err"} & left

    def test_a_failing_cell_does_not_stop_the_others(self, energybench, tmp_path):
        done = energybench(*PASCAL, "-m", "engine.mode=raise,train")
        assert done.returncode == 1
        found = results(tmp_path)
        assert [result.status for result in found] == ["failed", "finished"]
        assert len({result.sweep_id for result in found}) == 1
        assert [path.parent.name for path in sorted(tmp_path.rglob("result.json"))] == ["0", "1"]
        [folder] = {path.parent.parent for path in tmp_path.rglob("result.json")}
        assert json.loads((folder / "sweep.json").read_text())["sweep_id"] == found[0].sweep_id
        assert "engine.mode=raise" in done.stdout

    @pytest.mark.parametrize("choice", ["batch=8,9999", "gpu.count=2,3", "model=lenet,nope"])
    def test_with_one_bad_cell_nothing_is_run(self, refused, choice):
        line = refused(*PASCAL, "-m", choice)
        assert choice.split("=")[1].split(",")[1] in line


WRONG = [
    (["frobnicate"], ["unknown command 'frobnicate'", "doctor", "plugins"]),
    (["bacth=3"], ["unknown key 'bacth'", "did you mean 'batch'?"]),
    (["experiment=nope"], ["experiment 'nope' is not known; there is: demo"]),
    (["--no-such-flag"], ["--no-such-flag"]),
    (["batch=3", "--config-name"], ["--config-name", "expected one argument"]),
    (["describe", "model=nope"], ["model 'nope'"]),
    # what this machine does not have
    ([*PASCAL, "gpu.count=2", "batch=9"], ["batch=9 does not divide over 2 devices", "8 or 10"]),
    ([*PASCAL, "batch=65"], ["batch=65", "64 training images"]),
    ([*PASCAL, "gpu.count=3"], ["gpu.count=3: only 2 of gpu=pascal", "2 x maxwell (TITAN X), 2 x pascal"]),
    ([*PASCAL, "gpu=hopper"], ["gpu=hopper: no such device", "2 x pascal (TITAN Xp), cpu ("]),
    # a GPU run is never metered by its CPU, and nothing that is named falls back
    ([*PASCAL, "meter=auto"], ["no meter reads TITAN Xp (gpu)", "nvml"]),
    ([*PASCAL, "meter=tdp"], ["meter 'tdp' does not read the gpu that trains", "meter=auto"]),
    ([*CPU, "meter=scripted"], ["meter 'scripted' does not read the cpu that trains"]),
    ([*CPU, "meter=rapl", "meter.root=/nowhere"], ["meter 'rapl'", "/nowhere"]),
    (["gpu=pascal", "meter=scripted", "engine=gluon", "tracking=none"], ["gluon", "CPU build"]),
    # folders that nothing can be written into
    ([*CPU, "hydra.run.dir=/dev/null"], ["/dev/null: no folder to write into (File exists); choose another"]),
    ([*CPU, "hydra.run.dir=/proc/foo"], ["/proc/foo: no folder to write into"]),
    ([*CPU, "seed=0,1", "-m", "hydra.sweep.dir=/proc/foo"], ["/proc/foo: no folder to write into"]),
    (["prepare", "dataset=walkers", "dataset.prepared=/dev/null/x"], ["/dev/null/x: no folder to write into"]),
    # stores that can never work
    ([*CPU, "tracking=mlflow", "tracking.uri=foo://bar"], ["tracking store foo://bar: MLflow knows no foo://; give"]),
    (
        [*CPU, "tracking=mlflow", "tracking.uri=sqlite:////nonexistent/x.db", "seed=0,1", "-m"],
        ["tracking store sqlite:////nonexistent/x.db: there is no folder /nonexistent; make it, or give another"],
    ),
    (["sync", "--uri", "foo://bar", "."], ["tracking store foo://bar"]),
    (["ui", "--uri", "foo://bar"], ["tracking store foo://bar"]),
    # what Hydra itself would answer with a traceback
    (["-m", "hydra/sweeper=nope"], ["sweeper", "nope"]),
]


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """Every command line of WRONG, all run at once: (what came of it, what it left in its folder)."""
    environment = {**os.environ, "PYTHONPATH": str(FAKES), "ENERGYBENCH_PLUGINS": "standin,scripted"}

    def run(words):
        folder = tmp_path_factory.mktemp("wrong")
        command = [sys.executable, "-m", "energybench", *words]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
        return done, list(folder.iterdir())

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(run, [words for words, _ in WRONG]))


@pytest.mark.parametrize("number", range(len(WRONG)), ids=[" ".join(words[-2:]) for words, _ in WRONG])
def test_wrong_usage_is_one_line_and_leaves_nothing(refusals, number):
    done, left = refusals[number]
    assert (done.returncode, done.stdout, left) == (2, "", []), done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("energybench: ")
    for part in WRONG[number][1]:
        assert part in line


class TestSubCommands:
    def test_plugins(self, energybench):
        done = energybench("plugins")
        assert (done.returncode, done.stderr) == (0, "")
        rows = [line.split(None, 2) for line in done.stdout.splitlines()]
        assert ["engine", "standin", "standin (ENERGYBENCH_PLUGINS)"] in rows
        assert ["meter", "scripted", "scripted (ENERGYBENCH_PLUGINS)"] in rows
        assert [name for kind, name, _ in rows if kind == "model"][:2] == ["caffenet", "cnn2d"]

    def test_doctor(self, energybench):
        done = energybench("doctor", ENERGYBENCH_PLUGINS="standin,scripted,no_such_module")
        assert done.returncode == 0
        text = " ".join(done.stdout.split())
        for device in GPUS:
            assert device.uuid in text
        assert "standin 1.0" in text
        assert "constant power" in text
        assert "no_such_module" in text
        assert done.stderr.startswith("energybench: warning: plugin no_such_module")

    def test_describe(self, energybench, tmp_path):
        done = energybench("describe", "model=lenet", "dataset=tiny")
        assert (done.returncode, done.stderr) == (0, "")
        assert "lenet: 1×28×28 to 4 classes" in done.stdout
        assert list(tmp_path.iterdir()) == []

    def test_describe_as_json(self, energybench):
        done = energybench("describe", "--json", "model=lenet", "dataset=tiny")
        assert json.loads(done.stdout)["classes"] == 4

    def test_version(self, energybench):
        from importlib import metadata

        assert energybench("--version").stdout == f"energybench {metadata.version('energybench')}\n"

    @pytest.mark.parametrize("command", ["sync"])
    def test_help(self, energybench, command):
        done = energybench(command, "--help")
        assert done.returncode == 0
        assert done.stdout.startswith(f"usage: energybench {command}")

    def test_one_that_is_misused(self, energybench):
        done = energybench("plugins", "--nope")
        assert done.returncode == 2
        assert "--nope" in done.stderr.splitlines()[-1]


class TestAsking:
    @pytest.mark.parametrize("words", [["model=resnet", "--cfg", "job"], ["--info", "defaults"]])
    def test_it_prints_and_writes_nothing(self, energybench, tmp_path, words):
        done = energybench(*words)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout
        assert list(tmp_path.iterdir()) == []

    def test_cfg_job_is_what_an_override_makes_of_it(self, energybench):
        done = energybench("--cfg", "job", "model=caffenet", "batch=7")
        assert "batch: 7\n" in done.stdout
        assert "  input_size: 227\n" in done.stdout
        assert "hydra" not in done.stdout

    def test_help_lists_groups_and_commands(self, energybench):
        out = energybench("--help").stdout
        assert "gpu: ada, ampere, auto" in out
        assert "engine: auto, gluon, standin" in out
        assert "doctor" in out

    def test_a_plugin_s_package_without_init_is_a_folder(self, energybench, fakes):
        """As one Hydra cannot list it with Python 3.12."""
        assert f"file://{fakes}/standin_conf" in energybench("--info", "searchpath").stdout

    def test_the_keys_that_help_names_are_keys(self, energybench):
        listed = energybench("--help").stdout.partition("Keys (key=value)")[2].partition("Powered by")[0]
        keys = re.findall(r"\b([a-z]+)\.([a-z_]+)\b", listed)
        config = yaml.safe_load(energybench("--cfg", "job").stdout)
        assert len(keys) > 12
        assert [f"{section}.{key}" for section, key in keys if key not in config.get(section, {})] == []
        assert "batch, seed, precision" in listed

    @pytest.mark.parametrize(
        ("word", "message"),
        [
            ("bacth=1", "unknown key 'bacth'"),
            ("model.foo=3", "unknown key 'model.foo'; model 'lenet' takes: model.channels"),
            ("lenet", "'lenet' is no override; write model=lenet"),
        ],
    )
    def test_a_typo_is_one_line(self, refused, word, message):
        assert message in refused("--cfg", "job", word)


def test_a_reader_that_leaves_early_is_no_error(fakes, tmp_path):
    line = f"{sys.executable} -m energybench --cfg all | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
