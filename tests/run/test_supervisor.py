"""Real worker processes under a real supervisor: how runs end, and what is left of them."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time

import psutil
import pyarrow.parquet as pq
import pytest
from standin_runs import left, planned
from views import Silent

from energybench.errors import MeterError
from energybench.run import workers
from energybench.run.execute import Place, execute
from energybench.run.result import Result
from energybench.run.supervisor import death

pytestmark = pytest.mark.usefixtures("fakes")

PATIENCE_S = 60.0


@pytest.fixture
def run(tmp_path):
    """Runs an experiment in `tmp_path`; whatever the end, no process of it may be left."""
    before = {process.pid for process in psutil.process_iter()}

    def go(**options):
        return execute(planned(**options), Place(tmp_path), Silent())

    yield go
    assert not left(tmp_path, before)


def phases(result, name="train"):
    return [phase for phase in result.phases if phase.name == name]


def events(directory):
    return [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]


def test_a_run_that_finishes(run, tmp_path):
    result = run(measure={"baseline_s": 0.2, "warmup_steps": 2})
    assert (result.status, result.failure) == ("finished", None)
    names = [(phase.name, phase.epoch) for phase in result.phases]
    assert names == [
        ("idle", None), ("load", None), ("context", None), ("warmup", None),
        ("train", 1), ("validate", 1), ("train", 2), ("validate", 2),
    ]  # fmt: skip
    assert all(phase.complete for phase in result.phases)
    trained_s = sum(phase.time_s for phase in phases(result))
    assert result.metrics["energy_j"] == pytest.approx(100.0 * trained_s, rel=0.01)
    assert result.metrics["power_idle_w"] == pytest.approx(100.0, rel=0.01)
    assert abs(result.metrics["energy_above_idle_j"]) < 0.02 * result.metrics["energy_j"]
    assert result.metrics["power_context_w"] == pytest.approx(100.0, rel=0.01)
    assert abs(result.metrics["energy_above_context_j"]) < 0.02 * result.metrics["energy_j"]
    assert phases(result, "context")[0].time_s == pytest.approx(0.2, abs=0.15)
    assert result.metrics["accuracy_top1"] == 0.5
    assert "accuracy_top5" not in result.metrics
    assert result.metrics["images"] == 128
    assert result.provenance["engine"]["engine"] == "standin 1.0"
    assert Result.read(tmp_path).to_json() == result.to_json()
    assert [event["kind"] for event in events(tmp_path)][-1] == "done"


@pytest.mark.parametrize(
    ("mode", "kind", "message"),
    [
        ("crash", "killed", "SIGSEGV"),
        ("sigkill", "killed", "SIGKILL"),
        ("raise", "crashed", "RuntimeError: shapes do not match"),
        ("memory", "out_of_memory", "no room for 5 GiB"),
        ("gpu_memory", "out_of_memory", "CUDA out of memory"),
        ("nan", "nan_loss", "the loss became nan in epoch 1, by step 8"),
        ("exit0", "crashed", "exit status 0"),
        ("stderr", "crashed", "exit status 3; see worker-0.err; its last words: libfoo: cannot go on"),
        ("fork_and_die", "killed", "SIGKILL"),
    ],
)
def test_a_worker_that_dies_leaves_its_energy_and_a_reason(run, tmp_path, mode, kind, message):
    begun = time.monotonic()
    result = run(mode=mode, step_s=0.03)
    assert time.monotonic() - begun < PATIENCE_S
    assert result.status == "failed"
    assert result.failure.kind == kind
    assert message in result.failure.message
    assert "\n" not in result.failure.message
    [trained] = phases(result)
    assert trained.complete is (mode == "nan")  # a NaN is found at the end of the epoch
    assert result.metrics["energy_j"] == pytest.approx(100.0 * trained.time_s, rel=0.02)
    assert result.metrics["energy_j"] > 100.0 * 3 * 0.03
    assert Result.read(tmp_path).to_json() == result.to_json()
    assert pq.read_table(tmp_path / "power.parquet").num_rows > 3
    assert events(tmp_path)[0]["kind"] == "started"


def test_nan_is_found_inside_a_long_epoch(run):
    result = run(mode="nan", step_s=0.2)
    assert result.failure.kind == "nan_loss"
    assert not phases(result)[0].complete


def test_a_hanging_worker_is_ended_by_the_watchdog(run):
    result = run(mode="hang", measure={"watchdog_s": 3.0})
    assert result.failure.kind == "hung"
    assert "no sign of life for 3 s in phase train" in result.failure.message
    assert phases(result)[0].time_s > 1.0


def test_a_worker_that_has_told_all_but_does_not_end_takes_nothing_back(run, monkeypatch):
    monkeypatch.setattr("energybench.run.workers.GRACE_S", 0.5)
    result = run(mode="linger")
    assert result.status == "finished"
    assert all(phase.complete for phase in result.phases)


@pytest.mark.parametrize("mode", ["child", "fork_child"])
def test_a_child_that_outlives_its_worker_is_ended_and_hides_nothing(run, mode):
    begun = time.monotonic()
    result = run(mode=mode)
    assert result.status == "finished"
    assert time.monotonic() - begun < PATIENCE_S


def test_energy_is_that_of_the_cards_that_train(run):
    result = run(gpu={"count": 2})
    assert [name for name in result.metrics if name.startswith("energy_j.")] == ["energy_j.gpu.2", "energy_j.gpu.3"]
    assert result.metrics["energy_j"] == pytest.approx(200.0 * result.metrics["time_s"], rel=0.01)
    assert result.tags["energy_scope"] == "gpu"
    assert result.tags["energy_source"] == "measured"


class Breaks:
    """A view that breaks the meter 0.3 s after training has begun, for `for_s` seconds."""

    def __init__(self, meter, for_s):
        self.meter, self.for_s, self.since_s = meter, for_s, None

    def update(self, moment):
        if moment.phase == "train":
            self.since_s = self.since_s or time.monotonic()
            self.meter.broken = 0.3 < time.monotonic() - self.since_s < 0.3 + self.for_s


class TestMeterThatFails:
    def test_a_gap_is_a_gap(self, run, tmp_path):
        plan = planned(step_s=0.1)
        result = execute(plan, Place(tmp_path), Breaks(plan.meters[0].meter, math.inf))
        assert result.status == "finished"
        first, second = phases(result)
        assert 0 < first.channels["gpu.2"].coverage < 0.99
        assert second.channels["gpu.2"].energy_j is None
        assert second.channels["gpu.2"].coverage == 0.0
        assert "energy_j" not in result.metrics
        assert {"gaps", "no_readings"} <= set(result.tags["quality"].split(","))

    def test_power_goes_on_after_it(self, run, tmp_path):
        plan = planned(step_s=0.3, epochs=1)
        result = execute(plan, Place(tmp_path), Breaks(plan.meters[0].meter, 1.3))
        [trained] = phases(result)
        found = trained.channels["gpu.2"]
        assert found.coverage < 0.7
        assert found.longest_gap_s > 1.0
        assert found.power_mean_w == pytest.approx(100.0, rel=0.01)
        assert found.energy_j == pytest.approx(100.0 * trained.time_s * found.coverage, rel=0.01)

    def test_never_a_reading(self, run, tmp_path):
        result = run(meter={"fails_from": 1})
        assert result.status == "finished"
        assert not [name for name in result.metrics if "energy" in name or "power" in name]
        rows = pq.read_table(tmp_path / "power.parquet").to_pylist()
        assert rows
        assert {(row["value"], row["status"]) for row in rows} == {(None, "the sensor is gone")}

    def test_it_does_not_open(self, tmp_path, run):
        plan = planned()

        def refuse(devices):
            raise MeterError("the driver is gone")

        plan.meters[0].meter.open = refuse
        result = execute(plan, Place(tmp_path), Silent())
        assert (result.failure.kind, result.failure.message) == ("meter", "the driver is gone")
        assert Result.read(tmp_path).status == "failed"

    def test_a_bug_in_it_ends_the_run_not_the_sweep(self, tmp_path, run, capsys):
        plan = planned()

        def stumble(devices):
            raise ZeroDivisionError("oh")

        plan.meters[0].meter.open = stumble
        result = execute(plan, Place(tmp_path), Silent())
        assert (result.status, result.failure.kind) == ("failed", "internal")
        assert "ZeroDivisionError" in capsys.readouterr().err


class TestTwoRanks:
    def test_a_phase_is_from_the_earliest_to_the_latest(self, run, tmp_path):
        result = run(gpu={"count": 2}, processes=True, slower_by_rank_s=0.5, epochs=1)
        assert result.status == "finished"
        [trained] = phases(result)
        edges = [event for event in events(tmp_path) if event["phase"] == "train"]
        starts = {event["rank"]: event["time_ns"] for event in edges if event["kind"] == "started"}
        ends = {event["rank"]: event["time_ns"] for event in edges if event["kind"] == "ended"}
        assert starts.keys() == ends.keys() == {0, 1}
        assert ends[1] > ends[0]
        assert (trained.start_ns, trained.end_ns) == (min(starts.values()), max(ends.values()))
        assert result.metrics["energy_j"] == pytest.approx(200.0 * trained.time_s, rel=0.01)

    def test_each_knows_how_many_share_the_machine(self, run, monkeypatch):
        told, start = [], workers.start
        monkeypatch.setattr(workers, "start", lambda given, *more: told.append(given) or start(given, *more))
        assert run(gpu={"count": 2}, processes=True, epochs=1).status == "finished"
        assert [(given.rank, given.local_world) for given in told] == [(0, 2), (1, 2)]

    @pytest.mark.parametrize("rank", [0, 1])
    def test_one_that_dies_ends_the_other(self, run, tmp_path, rank):
        result = run(gpu={"count": 2}, processes=True, mode="sigkill", in_rank=rank, step_s=0.2, epochs=50)
        assert result.failure.kind == "killed"
        assert "SIGKILL" in result.failure.message
        assert f"worker-{rank}.err" in result.failure.message
        assert (tmp_path / f"worker-{1 - rank}.err").exists()


@pytest.mark.parametrize(
    ("code", "out_of_memory", "kind", "words"),
    [
        (1, False, "crashed", "exit status 1"),
        (-9, False, "killed", "SIGKILL"),
        (-9, True, "out_of_memory", "smaller batch"),
        (-15, True, "killed", "SIGTERM"),
        (-64, False, "killed", "SIGRTMAX"),
        (None, False, "crashed", "did not end"),
    ],
)
def test_reasons(tmp_path, code, out_of_memory, kind, words):
    failure = death(code, tmp_path / "absent.err", out_of_memory=out_of_memory)
    assert failure.kind == kind
    assert words in failure.message


@pytest.fixture
def command(tmp_path):
    """A command line in a process of its own, as soon as its worker trains: (process, worker, folder of the run)."""
    processes = []

    def start(*overrides):
        words = [
            *("gpu=pascal", "meter=scripted", "engine=standin", "dataset=tiny", "tracking=none", "batch=8"),
            *("engine.step_s=0.05", "budget.epochs=1000", "measure.baseline_s=0", *overrides),
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "energybench", *words],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        processes.append(process)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and process.poll() is None:
            for file in tmp_path.rglob("events.jsonl"):
                if '"train"' in file.read_text():
                    [worker] = psutil.Process(process.pid).children()
                    return process, worker, file.parent
            time.sleep(0.02)
        raise AssertionError(process.communicate(timeout=5))

    yield start
    for process in processes:
        process.kill()
        process.communicate()
    for process in left(tmp_path):
        process.kill()


class TestInterrupt:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_it_keeps_what_was_measured_and_stops_the_sweep(self, command, tmp_path, number):
        process, _, directory = command("-m", "seed=0,1,2")
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130
        assert "Traceback" not in err
        assert "| interrupted: stopped; what was measured until then is kept" in " ".join(out.split())
        [path] = tmp_path.rglob("result.json")
        assert path.parent == directory
        result = Result.read(path)
        assert (result.status, result.failure.kind) == ("interrupted", "interrupted")
        assert result.metrics["energy_j"] > 0
        assert not left(tmp_path)

    def test_twice_it_still_keeps_what_was_measured(self, command, tmp_path):
        process, _, directory = command("engine.mode=stubborn")
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130
        assert not left(tmp_path)
        assert Result.read(directory).status == "interrupted"


def test_a_supervisor_that_is_killed_leaves_no_worker(command):
    process, worker, _ = command()
    process.kill()
    gone, alive = psutil.wait_procs([worker], timeout=2)
    assert (gone, alive) == ([worker], [])
