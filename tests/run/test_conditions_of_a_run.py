"""What speaks against a run, from the fake driver up to the result."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from views import Silent

from energybench.config import resolve
from energybench.power.lock import Lock
from energybench.registry import Registry
from energybench.run.execute import Place, execute
from energybench.run.preflight import Machine, prepare
from energybench.run.result import Result
from energybench.testing import Server, constant, linear, pascal, square
from energybench.testing.fixtures import fake_nvml  # noqa: F401

pytestmark = pytest.mark.usefixtures("fakes")

PATIENCE_S = 60.0
AGE_S = 10.0
LATER_S = 3600.0
OF_THE_SENSOR = ("few_updates", "gaps", "part_time_sampling")
"""What a short run with a Pascal card's sensor, which sees half of the time, is told in any case."""


class Watching:
    """Keeps what a view is shown."""

    def __init__(self):
        self.moments = []

    def update(self, moment):
        self.moments.append(moment)

    @property
    def phases(self):
        return [moment.phase for moment in self.moments]


@pytest.fixture
def run(fake_nvml, tmp_path):  # noqa: F811
    """Runs the stand-in on one fake card."""

    def go(card=None, *, view=None, place=None, **sections):
        fake_nvml(Server((card or pascal(constant(80)),)), AGE_S)
        return execute(planned(**sections), place or Place(tmp_path, "the run"), view or Silent())

    return go


def planned(meter="nvml", gpu="pascal", kind=None, **sections):
    registry = Registry()
    config = {
        "model": {"name": "lenet"},
        "dataset": {"name": "tiny"},
        "engine": {"name": "standin", "step_s": 0.1},
        "meter": {"name": meter, **({"kind": kind} if kind else {})},
        "gpu": {"name": gpu},
        "batch": 8,
        "budget": {"epochs": 1},
        "measure": {"baseline_s": 0.0, "warmup_steps": 0},
        "tracking": {"name": "none"},
    }
    return prepare(resolve(OmegaConf.merge(config, sections), registry), Machine(registry))


def flags(result):
    return set(result.tags["quality"].split(",")) - {"ok", *OF_THE_SENSOR}


def phases(result, name):
    return [phase for phase in result.phases if phase.name == name]


def test_a_quiet_card_has_no_flag_and_its_conditions_are_told(run, tmp_path):
    result = run(measure={"baseline_s": 0.5})
    assert result.status == "finished"
    assert flags(result) == set()
    told = result.conditions["gpu.0"]
    assert told["temperature_start_c"] == told["temperature_max_c"] == told["temperature_end_c"] == 45
    assert told["clock_sm_median_mhz"] == 1400
    assert told["slowdowns"] == {}
    assert (told["power_limit_w"], told["power_limit_default_w"]) == (250.0, 250.0)
    assert told["foreign_processes"] == []
    assert result.metrics["temperature_max_c.gpu.0"] == 45.0
    assert result.metrics["power_limit_w.gpu.0"] == 250.0
    assert Result.read(tmp_path).to_json() == result.to_json()


@pytest.mark.parametrize(
    ("card", "flag"),
    [
        ({"event_reasons": 0x40}, "throttled_thermal"),
        ({"event_reasons": 0x80}, "throttled_power_brake"),
        ({"event_reasons": 0x4, "limit_w": 200.0}, "throttled_power"),
        ({"limit_w": 200.0}, "power_limit_below_default"),
        ({"processes": ((4711, 2**30),)}, "foreign_processes"),
        ({"graphics_processes": ((4711, 2**20),)}, "foreign_processes"),
        ({"mig": True}, "multi_instance"),
    ],
)
def test_a_flag(run, card, flag):
    result = run(pascal(constant(80), **card))
    assert result.status == "finished"
    assert flag in flags(result)


def test_power_capping_at_the_default_limit_is_told_and_no_flag(run):
    result = run(pascal(constant(80), event_reasons=0x4))
    assert flags(result) == set()
    assert result.conditions["gpu.0"]["slowdowns"] == {"power_cap": 1.0}
    assert result.metrics["slowdown_power_cap.gpu.0"] == 1.0


def test_a_card_that_slows_down_while_it_trains(run):
    """From long before the run it is cool; when is not known to the run."""
    changes = tuple((AGE_S + second / 10, {"sm_mhz": 1400 - 5 * second}) for second in range(100))
    result = run(pascal(constant(80), changes=changes), budget={"epochs": 5})
    told = result.conditions["gpu.0"]
    assert told["clock_sm_min_mhz"] < told["clock_sm_max_mhz"] <= 1400
    assert ("clocks_moved" in flags(result)) == (
        told["clock_sm_max_mhz"] - told["clock_sm_min_mhz"] > 0.1 * told["clock_sm_median_mhz"]
    )


class TestStrict:
    CARD = pascal(constant(80), event_reasons=0x40)

    def test_a_flag_fails_the_run_and_its_numbers_stay(self, run, tmp_path):
        result = run(self.CARD, quality={"strict": True, "ignore": [*OF_THE_SENSOR]})
        assert (result.status, result.failure.kind) == ("failed", "quality")
        assert result.failure.message == (
            "quality.strict: throttled_thermal (docs/quality.md); to let it pass: quality.ignore=[throttled_thermal]"
        )
        assert result.metrics["energy_j"] > 0
        assert result.epochs
        assert Result.read(tmp_path).status == "failed"

    def test_one_that_is_ignored_is_still_told(self, run):
        result = run(self.CARD, quality={"strict": True, "ignore": ["throttled_thermal", *OF_THE_SENSOR]})
        assert result.status == "finished"
        assert "throttled_thermal" in flags(result)

    def test_another_failure_is_not_hidden(self, run):
        result = run(self.CARD, quality={"strict": True}, engine={"mode": "raise"})
        assert result.failure.kind == "crashed"

    def test_the_command_ends_with_1(self, tmp_path):
        words = [
            "gpu=pascal", "meter=scripted", "engine=standin", "dataset=tiny", "tracking=none", "batch=8",
            "budget.epochs=1", "measure.baseline_s=0", "engine.step_s=0.001", "quality.strict=true",
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "energybench", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1
        assert "quality.strict: few_updates (docs/quality.md)" in done.stdout


class TestBaseline:
    def test_it_is_no_longer_than_it_must_be(self, run):
        result = run(pascal(constant(50)), measure={"baseline_s": 1.0, "baseline_max_s": 20.0})
        [idle] = phases(result, "idle")
        assert 0.9 < idle.time_s < 10
        assert result.metrics["power_idle_w"] == pytest.approx(50 * 1.01, rel=0.01)
        assert "idle_not_idle" not in flags(result)

    def test_it_waits_for_steady_power(self, run):
        """70 W falling to 50 W over the first seconds."""
        falling = linear([(0.0, 100.0), (AGE_S, 100.0), (AGE_S + 3.0, 50.0), (LATER_S, 50.0)])
        result = run(pascal(falling), measure={"baseline_s": 1.0, "baseline_max_s": 30.0})
        [idle], [settled] = phases(result, "idle"), phases(result, "settle")
        assert settled.end_ns == idle.start_ns
        assert idle.time_s == pytest.approx(1.0, abs=0.01)
        assert result.metrics["power_idle_w"] == pytest.approx(50 * 1.01, rel=0.03)
        assert result.metrics["settle.power_mean_w"] > 52
        assert "idle_not_idle" not in flags(result)

    def test_one_that_never_is_steady_is_flagged(self, run):
        result = run(pascal(square(50, 150, 0.9)), measure={"baseline_s": 1.0, "baseline_max_s": 1.5})
        assert "idle_not_idle" in flags(result)
        assert sum(phase.time_s for phase in result.phases if phase.name in ("idle", "settle")) < 10

    def test_something_runs_in_it(self, run):
        assert "idle_not_idle" in flags(run(pascal(constant(80), utilization=50), measure={"baseline_s": 0.5}))

    def test_a_process_that_left_before_the_training(self, run):
        card = pascal(constant(80), processes=((4711, 5),), changes=((AGE_S + 1.0, {"processes": ()}),))
        result = run(card, measure={"baseline_s": 1.5})
        assert "foreign_processes" not in flags(result)
        seen_in_idle = result.conditions["gpu.0"]["left_after_idle"] == [4711]
        assert ("idle_not_idle" in flags(result)) == seen_in_idle

    def test_an_estimate_has_none(self, tmp_path):
        result = execute(planned("tdp", "cpu", measure={"baseline_s": 5.0}), Place(tmp_path), Silent())
        assert not {"idle", "context"} & {phase.name for phase in result.phases}
        assert "power_context_w" not in result.metrics

    def test_with_a_context_on_request_anywhere(self, tmp_path):
        result = execute(planned("tdp", "cpu", measure={"context_s": 0.2}), Place(tmp_path), Silent())
        assert [phase.name for phase in result.phases][:2] == ["load", "context"]


class TestCooldown:
    def warm(self, until_s=AGE_S + 4.0):
        return pascal(constant(80), temperature_c=70, changes=((until_s, {"temperature_c": 40}),))

    def test_to_a_temperature(self, run):
        view = Watching()
        result = run(self.warm(), view=view, measure={"cooldown_c": 50.0, "cooldown_max_s": 60.0})
        [rest] = phases(result, "cooldown")
        assert rest.time_s < 30
        assert result.metrics["cooldown.time_s"] == rest.time_s
        assert result.conditions["gpu.0"]["temperature_begin_c"] == 40
        assert flags(result) == set()
        assert {moment.temperature_c for moment in view.moments if moment.phase == "cooldown"} >= {70}

    def test_no_longer_than_allowed(self, run):
        result = run(self.warm(LATER_S), measure={"cooldown_c": 50.0, "cooldown_max_s": 0.6})
        [rest] = phases(result, "cooldown")
        assert 0.5 < rest.time_s < 10
        assert flags(result) == {"hot_start"}

    def test_a_cool_card_is_not_waited_for(self, run):
        assert phases(run(measure={"cooldown_c": 50.0}), "cooldown") == []

    @pytest.mark.parametrize("follows", [False, True])
    def test_a_time_before_each_cell_but_the_first(self, run, tmp_path, follows):
        result = run(place=Place(tmp_path, follows=follows), measure={"cooldown_s": 0.7})
        assert [phase.time_s > 0.6 for phase in phases(result, "cooldown")] == [True] * follows

    def test_a_meter_without_temperature_is_a_line(self, tmp_path):
        result = execute(planned("scripted", measure={"cooldown_c": 50.0}), Place(tmp_path), Silent())
        assert result.status == "failed"
        assert result.failure.message == (
            "measure.cooldown_c=50: meter 'scripted' tells no temperature; use measure.cooldown_s"
        )

    def test_a_card_that_still_cools_is_a_hot_start(self, run):
        changes = tuple((AGE_S + second / 4, {"temperature_c": 70 - second}) for second in range(40))
        result = run(pascal(constant(80), changes=changes), measure={"baseline_s": 3.0})
        assert "hot_start" in flags(result)


class TestLock:
    def held(self, plan):
        return Lock(plan.boards[0].uuid, "the other run")

    def test_a_second_run_is_refused_before_it_measures(self, tmp_path):
        plan = planned("scripted")
        held = self.held(plan)
        result = execute(plan, Place(tmp_path), Silent())
        held.release()
        assert (result.status, result.failure.kind) == ("failed", "busy")
        assert "run 'the other run'; let it end, or set measure.lock=wait" in result.failure.message
        assert result.phases == ()

    def test_or_waits_and_says_so(self, tmp_path):
        plan = planned("scripted", measure={"lock": "wait"})
        held, view = self.held(plan), Watching()

        def release_when_seen():
            deadline = time.monotonic() + PATIENCE_S
            while not view.moments and time.monotonic() < deadline:
                time.sleep(0.02)
            held.release()

        thread = threading.Thread(target=release_when_seen)
        thread.start()
        result = execute(plan, Place(tmp_path), view)
        thread.join()
        assert result.status == "finished"
        assert "run 'the other run'" in view.phases[0]
        assert flags(result) == set()

    def test_or_goes_on_with_a_flag(self, tmp_path):
        plan = planned("scripted", measure={"lock": "ignore"})
        held = self.held(plan)
        result = execute(plan, Place(tmp_path), Silent())
        held.release()
        assert result.status == "finished"
        assert flags(result) == {"shared_card"}

    def test_it_is_let_go(self, tmp_path):
        plan = planned("scripted")
        assert execute(plan, Place(tmp_path), Silent()).status == "finished"
        assert execute(plan, Place(tmp_path), Silent()).status == "finished"
        self.held(plan).release()

    def test_another_card_is_free(self, tmp_path):
        plan = planned("scripted")
        other = planned("scripted", "maxwell")
        held = self.held(other)
        assert execute(plan, Place(tmp_path), Silent()).status == "finished"
        held.release()

    def test_a_measured_cpu_is_one_run_s(self, tmp_path):
        plan = planned("scripted", "cpu", kind="cpu")
        held = Lock("cpu", "the other run", shared=True)
        assert execute(plan, Place(tmp_path), Silent()).failure.kind == "busy"
        held.release()
        assert execute(plan, Place(tmp_path), Silent()).status == "finished"

    def test_estimates_share_a_cpu_with_a_flag(self, tmp_path):
        plan = planned("tdp", "cpu", budget={"epochs": 2})
        assert "shared_host" not in flags(execute(plan, Place(tmp_path), Silent()))
        held = Lock("cpu", "the other run", shared=True)
        result = execute(plan, Place(tmp_path), Silent())
        held.release()
        assert result.status == "finished"
        assert "shared_host" in flags(result)

    def test_the_worker_does_not_hold_it(self, tmp_path, locks):
        """A worker that outlives its supervisor would keep the card."""
        seen = []

        class Looks:
            def update(self, moment):
                for worker in (tmp_path / "worker-0.out",):
                    if moment.phase == "train" and worker.exists() and not seen:
                        seen.append(open_files_of_workers(locks))

        execute(planned("scripted", engine={"step_s": 0.2}), Place(tmp_path), Looks())
        assert seen == [[]]


def open_files_of_workers(folder):
    """Files in `folder` that a worker of ours has open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"energybench.run.worker" not in (process / "cmdline").read_bytes():
                continue
            found += [str(link.readlink()) for link in (process / "fd").iterdir()]
        except OSError:
            continue
    return [path for path in found if path.startswith(str(folder))]
