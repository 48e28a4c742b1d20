"""The conformance suite on our own meters, and that it catches meters that are wrong."""

import time
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import pytest
from scripted import ScriptedMeter, ScriptedOptions

from energybench.errors import MeterError
from energybench.power.meter import Sample
from energybench.testing import PRESETS, Failure, Server, idle_load_idle, running
from energybench.testing.conformance import MeterConformance
from energybench_plugins.meters.nvidia_smi import NvidiaSmiMeter, NvidiaSmiOptions
from energybench_plugins.meters.nvml import NvmlMeter, NvmlOptions
from energybench_plugins.meters.tdp import TdpMeter, TdpOptions

AGE_S = 10.0
LOAD = idle_load_idle(60, 240, AGE_S + 0.6, AGE_S + 2.3, ramp_s=0.1)
CARDS = tuple(preset(LOAD) for preset in PRESETS.values())


class TestNvmlOnEveryGeneration(MeterConformance):
    @pytest.fixture(scope="class")
    def server(self):
        with running(Server(CARDS), AGE_S) as server:
            yield server

    @pytest.fixture(scope="class")
    def meter(self, server):
        return NvmlMeter(NvmlOptions())

    @pytest.fixture(scope="class")
    def truths(self, server):
        return server.truths

    @pytest.fixture
    def failing(self):
        cards = tuple(replace(card, failures=(Failure("*", from_s=AGE_S + 0.4),)) for card in CARDS)
        with running(Server(cards), AGE_S):
            meter = NvmlMeter(NvmlOptions())
            session = meter.open(meter.devices())
            time.sleep(0.45)
            yield session
            session.close()


class TestNvidiaSmi(MeterConformance):
    """The same cards through the program; those with a counter too, which it does not tell."""

    seconds = 2.5
    cards: ClassVar = tuple(PRESETS[name](LOAD) for name in ("maxwell", "pascal", "ampere_a100", "hopper"))

    @pytest.fixture(scope="class")
    def server(self):
        with running(Server(self.cards), AGE_S) as server:
            yield server

    @pytest.fixture(scope="class")
    def meter(self, server):
        return NvidiaSmiMeter(NvidiaSmiOptions())

    @pytest.fixture(scope="class")
    def truths(self, server):
        return server.truths

    @pytest.fixture
    def failing(self):
        cards = tuple(replace(card, failures=(Failure("*", from_s=AGE_S + 2),)) for card in self.cards)
        with running(Server(cards), AGE_S) as server:
            meter = NvidiaSmiMeter(NvidiaSmiOptions())
            session = meter.open(meter.devices())
            time.sleep(max(0, server.at_ns(AGE_S + 2.1) - time.monotonic_ns()) / 1e9)
            for source in session.sources:
                session.read(source)  # what came before
            yield session
            session.close()


class TestTdp(MeterConformance):
    seconds = 1.0

    @pytest.fixture(scope="class")
    def meter(self):
        return TdpMeter(TdpOptions(tdp_w=100))


@dataclass(frozen=True)
class Constant:
    """100 W since the clock's start, as the scripted meter tells it."""

    power: float = 100.0

    def energy_j(self, start_ns, end_ns):
        return self.power * (end_ns - start_ns) / 1e9

    def power_w(self, time_ns):
        return self.power


class Broken:
    """A scripted meter on one card with one of its manners changed."""

    def __init__(self, *, read=None, source=None, **options):
        self.meter = ScriptedMeter(ScriptedOptions(**options))
        self.read, self.source = read, source

    def __getattr__(self, name):
        return getattr(self.meter, name)

    def open(self, devices):
        session = self.meter.open(devices)
        if self.source:
            session.sources = [replace(source, **self.source) for source in session.sources]
        if self.read:
            inner = session.read
            session.read = lambda source: self.read(inner, source)
        return session


def swallowed(inner, source):
    try:
        return inner(source)
    except MeterError:
        return [Sample(0.0)]


def record(meter, seconds=0.4):
    suite = MeterConformance()
    suite.seconds = seconds
    devices = meter.devices()[:1]
    return suite, MeterConformance.recording.__wrapped__(suite, meter, devices), devices


WRONG = {
    "a counter that runs back": (
        {"read": lambda inner, source: [Sample(-time.monotonic() + 1e9)]},
        lambda suite, recording: suite.test_values_are_possible(recording),
    ),
    "wall time for sensor time": (
        {"read": lambda inner, source: [Sample(inner(source)[0].value, time.time_ns())]},
        lambda suite, recording: suite.test_sensor_times_are_of_this_clock(recording),
    ),
    "the same sample again": (
        {"read": lambda inner, source: [Sample(inner(source)[0].value, time.monotonic_ns() // 10**8 * 10**8)]},
        lambda suite, recording: suite.test_sensor_times_are_of_this_clock(recording),
    ),
    "a read slower than its period": (
        {"read": lambda inner, source: (time.sleep(0.02), inner(source))[1]},
        lambda suite, recording: suite.test_a_read_is_done_before_the_next_is_due(recording),
    ),
    "two sources of one name": (
        {"source": {"name": "same"}, "power": True},
        lambda suite, recording: suite.test_sources_are_sane(recording),
    ),
    "a source without a channel": (
        {"source": {"channel": "gpu.9"}},
        lambda suite, recording: suite.test_sources_are_sane(recording),
    ),
    "a sensor that fails": (
        {"fails_from": 3},
        lambda suite, recording: suite.test_every_source_gives_readings(recording),
    ),
    "a tenth too much": (
        {"watts": 110.0},
        lambda suite, recording: suite.test_the_energy_is_within_its_uncertainty(
            recording, {recording.channels[0].device_id: Constant()}
        ),
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_meter_is_caught(wrong):
    manners, check = WRONG[wrong]
    suite, recording, _ = record(Broken(**manners))
    with pytest.raises(AssertionError):
        check(suite, recording)


def test_a_right_one_is_not():
    suite, recording, _ = record(Broken())
    truths = {recording.channels[0].device_id: Constant()}
    suite.test_the_energy_is_within_its_uncertainty(recording, truths)
    suite.test_on_one_board_the_independent_part_is_enough(recording, truths)
    suite.test_sources_are_sane(recording)


def test_an_error_that_becomes_0_is_caught():
    meter = Broken(read=swallowed, fails_from=1)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        MeterConformance().test_a_failed_read_is_an_error_and_not_0(meter.open(meter.devices()[:1]))


def test_a_meter_that_takes_every_device_is_caught():
    greedy = SimpleNamespace(covers=lambda device: True, open=lambda devices: None)
    with pytest.raises(AssertionError, match="UUID that does not exist"):
        MeterConformance().test_it_covers_its_devices_and_no_stranger(greedy, [])


def test_what_cannot_be_shown_is_skipped_and_said():
    suite, recording, _ = record(Broken(), 0.05)
    with pytest.raises(pytest.skip.Exception, match="truths"):
        suite.test_the_energy_is_within_its_uncertainty(recording, {})
    with pytest.raises(pytest.skip.Exception, match="failing"):
        suite.test_a_failed_read_is_an_error_and_not_0(None)
