"""The conditions of cards through the real pynvml on a fake driver, and the thread that follows them."""

from __future__ import annotations

import time

import pytest

from energybench.errors import MeterError
from energybench.power.conditions import Condition, Process
from energybench.power.monitor import Monitor
from energybench.testing import Failure, Server, constant, hopper, pascal
from energybench.testing.fixtures import fake_nvml  # noqa: F401
from energybench_plugins.meters.nvml import NvmlMeter, NvmlOptions

PATIENCE_S = 20.0


@pytest.fixture
def opened(fake_nvml):  # noqa: F811
    sessions = []

    def go(*cards, age_s=10.0, **server):
        fake_nvml(Server(cards, **server), age_s)
        meter = NvmlMeter(NvmlOptions())
        sessions.append(meter.open(meter.devices()))
        return sessions[-1]

    yield go
    for session in sessions:
        session.close()


def until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_nvml_tells_them(opened):
    session = opened(
        pascal(
            constant(80), temperature_c=61, sm_mhz=1111, memory_mhz=2222, max_sm_mhz=3333, max_memory_mhz=4444,
            event_reasons=0x24, limit_w=180.5, default_limit_w=250.0, utilization=40, mig=True,
            processes=((41, 5), (40, 6)), graphics_processes=((40, 6), (7, 8)),
        ),
        hopper(constant(80)),
    )  # fmt: skip
    before_ns = time.monotonic_ns()
    first, second = session.conditions()
    assert before_ns <= first.time_ns <= time.monotonic_ns()
    assert first == Condition(
        "gpu.0", first.time_ns, 61, 1111, 2222, 3333, 4444, ("power_cap", "thermal"), 180.5, 250.0, 0.4, True,
        (Process(7, 8), Process(40, 6), Process(41, 5)),
    )  # fmt: skip
    assert (second.channel, second.slowdowns, second.processes) == ("gpu.1", (), ())


@pytest.mark.parametrize(
    ("bit", "word"),
    [(0x1, "idle"), (0x4, "power_cap"), (0x8, "hw_slowdown"), (0x10, "sync_boost"), (0x40, "thermal"),
     (0x80, "power_brake")],
)  # fmt: skip
def test_reasons_have_words_of_no_vendor(opened, bit, word):
    [found] = opened(pascal(constant(80), event_reasons=bit)).conditions()
    assert found.slowdowns == (word,)


def test_what_a_driver_does_not_tell_is_absent(opened):
    silent = [
        "nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV", "nvmlDeviceGetClockInfo", "nvmlDeviceGetMaxClockInfo",
        "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementLimit", "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetPowerManagementDefaultLimit", "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetComputeRunningProcesses_v2", "nvmlDeviceGetGraphicsRunningProcesses_v3",
        "nvmlDeviceGetGraphicsRunningProcesses_v2",
    ]  # fmt: skip
    [found] = opened(pascal(constant(80), failures=tuple(Failure(name, 3) for name in silent))).conditions()
    assert found == Condition("gpu.0", found.time_ns)


def test_an_older_driver_is_asked_in_its_own_words(opened):
    newer = ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetGraphicsRunningProcesses_v3")
    card = pascal(constant(80), event_reasons=0x4, failures=tuple(Failure(name, 13) for name in newer))
    [found] = opened(card).conditions()
    assert (found.temperature_c, found.power_limit_w, found.processes) == (45, 250.0, ())


def test_a_lost_card_tells_nothing_and_is_found_again(opened):
    session = opened(pascal(constant(80), lost=((10.3, 10.8),)), age_s=10.0)
    until(lambda: session.conditions()[0].temperature_c is None)
    until(lambda: session.conditions()[0].temperature_c == 45)


def test_they_do_not_keep_a_reloaded_driver_from_being_opened_anew(opened):
    """The library counts who has opened it: one more would hold it."""
    session = opened(pascal(constant(80)), reloads=((10.3, 10.6),), age_s=10.0)
    usage = next(source for source in session.sources if source.name == "usage")

    def reads():
        session.conditions()
        try:
            return bool(session.read(usage))
        except MeterError:
            return False

    until(lambda: not reads())
    until(reads)
    until(lambda: session.conditions()[0].temperature_c == 45)


def test_a_closed_session_tells_nothing(opened):
    session = opened(pascal(constant(80)))
    session.close()
    [found] = session.conditions()
    assert found.temperature_c is None


class Teller:
    """Counts how often it is asked."""

    def __init__(self, broken=False):
        self.asked, self.broken = 0, broken

    def conditions(self):
        self.asked += 1
        if self.broken:
            raise ZeroDivisionError("a bug of a meter")
        return [
            Condition("gpu.0", time.monotonic_ns(), temperature_c=40 + self.asked, processes=(Process(1), Process(2)))
        ]


class TestMonitor:
    def test_it_looks_at_once_when_asked_and_a_last_time(self):
        teller = Teller()
        monitor = Monitor([teller], lambda pid: pid == 2)
        monitor.start()
        assert monitor.latest()["gpu.0"].temperature_c == 41
        for _ in range(3):
            asked, begun = teller.asked, time.monotonic()
            monitor.soon()
            until(lambda asked=asked: teller.asked > asked)
            assert time.monotonic() - begun < PATIENCE_S
        before = teller.asked
        monitor.stop()
        assert teller.asked > before
        seen = monitor.observed()
        assert len(seen) == teller.asked
        assert seen[0].ours == {2}
        assert [one.condition.time_ns for one in seen] == sorted(one.condition.time_ns for one in seen)

    def test_many_requests_are_one_look(self):
        teller = Teller()
        monitor = Monitor([teller], lambda pid: False)
        monitor.start()
        begun = time.monotonic()
        for _ in range(10_000):
            monitor.soon()
        monitor.stop()
        assert teller.asked < 5 + (time.monotonic() - begun) / 0.1

    def test_a_meter_that_tells_none_costs_no_thread(self):
        monitor = Monitor([object()], lambda pid: False)
        monitor.start()
        assert not monitor._thread.is_alive()
        monitor.stop()
        assert monitor.observed() == []

    def test_a_bug_in_it_is_one_warning(self, caplog):
        teller = Teller(broken=True)
        monitor = Monitor([teller], lambda pid: False)
        monitor.start()
        monitor.soon()
        until(lambda: teller.asked > 1)
        monitor.stop()
        assert monitor.observed() == []
        assert [record.getMessage() for record in caplog.records] == [
            "the cards' conditions cannot be told: ZeroDivisionError: a bug of a meter"
        ]
