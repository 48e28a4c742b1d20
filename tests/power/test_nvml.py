"""meter=nvml through the real pynvml on a fake driver."""

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from energybench.devices import cpu_device
from energybench.errors import ConfigError, MeterError
from energybench.power.sampler import Sampler
from energybench.power.timeline import Timeline
from energybench.testing import (
    PRESETS,
    Card,
    CounterSensor,
    Failure,
    SampleBuffer,
    Server,
    constant,
    hopper,
    linear,
    maxwell,
    pascal,
    square,
    step,
    volta,
)
from energybench.testing.fixtures import fake_nvml  # noqa: F401
from energybench_plugins.meters.nvml import NvmlMeter, NvmlOptions
from energybench_plugins.meters.nvml_buffer import Buffer, clock_of, placed, unseen
from energybench_plugins.meters.nvml_driver import ERRORS, meter_error
from energybench_plugins.meters.nvml_generations import generation_of

ROOT = Path(__file__).parents[2]
MS, S = 1_000_000, 1_000_000_000
RAMP = linear([(0, 0), (1000, 100_000)])
"""100 W more each second: a value tells its time."""


def nvml(**options):
    return NvmlMeter(NvmlOptions(**options))


@pytest.fixture
def start(fake_nvml):  # noqa: F811
    """Starts a server of these cards."""
    return lambda *cards, age_s=10.0, **server: fake_nvml(Server(cards, **server), age_s)


@pytest.fixture
def opened(start):
    """A session on all of these cards."""
    sessions = []

    def go(*cards, age_s=10.0, options=None, **server):
        running = start(*cards, age_s=age_s, **server)
        meter = nvml(**(options or {}))
        sessions.append(meter.open(meter.devices()))
        return running, sessions[-1]

    yield go
    for session in sessions:
        session.close()


def source(session, name, channel="gpu.0"):
    return next(one for one in session.sources if (one.channel, one.name) == (channel, name))


def value(session, name, channel="gpu.0"):
    (sample,) = session.read(source(session, name, channel))
    return sample.value


def run(code, running, *arguments):
    """`code` in a process of its own, which meets the server; what it printed."""
    environment = {**os.environ, **running.environment()}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_without_a_driver_it_finds_nothing_and_says_what_to_do(monkeypatch):
    code = (
        "import json; from energybench_plugins.meters.nvml import *; m = NvmlMeter(NvmlOptions());"
        "s = m.check(); print(json.dumps([s.ok, str(s), list(m.devices())]))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    ok, words, devices = json.loads(done.stdout)
    if ok:
        pytest.skip("this machine has an NVIDIA driver")
    assert devices == []
    assert "NVML_ERROR_" in words
    assert "--gpus all" in words


def test_it_finds_every_generation(start):
    start(*(preset(constant(80)) for preset in PRESETS.values()))
    devices = nvml().devices()
    assert [device.generation for device in devices] == [
        "maxwell", "pascal", "volta", "turing", "ampere", "ampere", "ada", "hopper"
    ]  # fmt: skip
    assert [device.rank for device in devices] == [52, 61, 70, 75, 80, 86, 89, 90]
    assert devices[0].memory_bytes == 12 * 1024**3
    assert devices[1].pci_bus_id == "00000000:02:00.0"
    assert len({device.uuid for device in devices}) == 8
    assert nvml().check().detail.startswith("NVML 13.580.159, driver 580.159.03: NVIDIA GeForce GTX TITAN X, ")


def test_an_old_driver_that_knows_no_architectures_is_asked_for_the_capability(start):
    start(pascal(constant(80), failures=(Failure("nvmlDeviceGetArchitecture", 13),)))
    assert nvml().devices()[0].generation == "pascal"


@pytest.mark.parametrize(
    ("capability", "generation"),
    [((5, 0), "maxwell"), ((7, 2), "volta"), ((7, 5), "turing"), ((8, 7), "ampere"), ((8, 9), "ada"),
     ((10, 0), "blackwell"), ((12, 0), "blackwell"), ((3, 5), "sm_35"), ((13, 0), "sm_130")],
)  # fmt: skip
def test_generations_by_capability(capability, generation):
    assert generation_of(*capability) == generation


def test_a_lost_card_is_left_out_and_its_neighbour_is_not(start):
    start(pascal(constant(80), lost=((-math.inf, math.inf),)), pascal(constant(90)))
    assert [device.pci_bus_id for device in nvml().devices()] == ["00000000:02:00.0"]


def test_only_lost_cards_are_no_meter(start):
    start(pascal(constant(80), lost=((-math.inf, math.inf),)))
    state = nvml().check()
    assert not state.ok
    assert "no card that answers" in str(state)


SOURCES = {
    "maxwell": ["usage"],
    "pascal": ["usage"],
    "volta": ["counter", "usage"],
    "turing": ["counter", "usage"],
    "ampere_a100": ["counter", "usage"],
    "ampere_rtx30": ["counter", "usage", "average", "instant"],
    "ada": ["counter", "usage", "instant"],
    "hopper": ["counter", "buffer", "usage", "average", "instant"],
}


@pytest.mark.parametrize("name", PRESETS)
def test_each_generation_has_its_sources_best_first(opened, name):
    _, session = opened(PRESETS[name](constant(80)))
    assert [one.name for one in session.sources] == SOURCES[name]
    usage = source(session, "usage")
    sensor = PRESETS[name](constant(80)).usage
    assert usage.update_s == sensor.update_s
    assert usage.period_s < usage.update_s / 2
    declared = {"maxwell": 0.345}.get(name, sensor.window_s)
    assert usage.averaging_s == declared


@pytest.mark.parametrize("name", ["pascal", "hopper"])
def test_every_source_may_be_late_alike(opened, name):
    _, session = opened(PRESETS[name](constant(80)))
    assert {one.time_uncertainty_s for one in session.sources} == {0.007}


def test_averaged_power_is_never_taken_for_instantaneous(opened):
    _, session = opened(hopper(constant(80)))
    assert {one.name: one.averaging_s for one in session.sources} == {
        "counter": None, "buffer": 0.02, "usage": 1.0, "average": 1.0, "instant": 0.025
    }  # fmt: skip


def test_an_rtx_30_with_driver_530_tells_the_instant(opened):
    _, session = opened(PRESETS["ampere_rtx30"](constant(80)), driver="530.41.03")
    assert source(session, "usage").averaging_s == 0.1


def test_units(opened):
    _, session = opened(hopper(constant(120)))
    assert value(session, "usage") == value(session, "average") == value(session, "instant") == 120.0
    assert 123_456.789 + 1100 < value(session, "counter") < 123_456.789 + 1300
    assert source(session, "counter").quantity == "energy_j"


def test_cards_are_bound_by_uuid_in_the_order_given(start):
    start(*(pascal(constant(100 * number), gain=1.0) for number in (1, 2, 3)))
    first, second, third = nvml().devices()
    session = nvml().open([third, first])
    assert [channel.name for channel in session.channels] == ["gpu.0", "gpu.1"]
    assert [channel.device_id for channel in session.channels] == [third.uuid, first.uuid]
    assert (value(session, "usage"), value(session, "usage", "gpu.1")) == (300.0, 100.0)
    session.close()
    assert second.uuid not in [channel.device_id for channel in session.channels]


def test_the_gain_s_uncertainty_has_its_reason(opened):
    _, session = opened(pascal(constant(80)), PRESETS["turing"](constant(80)), hopper(constant(80)))
    first, second, third = session.channels
    assert "assumed, as of other generations: boards within 5%" in third.origin
    assert first.gain_uncertainty == pytest.approx(0.05 / math.sqrt(3))
    assert second.gain_uncertainty == pytest.approx(0.13 / math.sqrt(3))
    assert "gain uncertainty 0.0289 (k = 1): boards within 5% of an external meter" in first.origin
    assert "driver 580.159.03: usage; without counter: NOT_SUPPORTED" in first.origin


def test_the_gain_s_uncertainty_can_be_given(opened):
    _, session = opened(pascal(constant(80)), options={"gain_uncertainty": 0.01})
    assert session.channels[0].gain_uncertainty == 0.01
    assert session.channels[0].origin.endswith("meter.gain_uncertainty")


def test_every_preset_lies_within_its_expanded_uncertainty(opened):
    _, session = opened(*(preset(constant(100)) for preset in PRESETS.values()))
    for channel, preset in zip(session.channels, PRESETS.values(), strict=True):
        assert abs(preset(constant(100)).usage.gain - 1) <= 2 * channel.gain_uncertainty


def test_what_a_card_with_a_cpu_or_divided_tells_is_said(opened):
    _, session = opened(hopper(constant(80), name="NVIDIA GH200 480GB"), hopper(constant(80), mig=True))
    assert "power of the whole module" in session.channels[0].origin
    assert "multi-instance mode" in session.channels[1].origin


def test_a_card_that_tells_no_power_is_refused(start):
    start(Card(name="Mute"))
    with pytest.raises(MeterError, match=r"Mute tells neither energy nor power \(counter: NOT_SUPPORTED; buffer: NOT"):
        nvml().open(nvml().devices())


def test_a_processor_and_an_unknown_card_are_refused(start):
    start(pascal(constant(80)))
    device = nvml().devices()[0]
    with pytest.raises(MeterError, match="reads NVIDIA's GPUs, not"):
        nvml().open([cpu_device()])
    with pytest.raises(MeterError, match=r"card GPU-none .*NVML_ERROR_NOT_FOUND; no such card"):
        nvml().open([replace(device, uuid="GPU-none")])
    assert nvml().covers(device)
    assert not nvml().covers(replace(device, uuid="GPU-none"))
    assert not nvml().covers(cpu_device())


@pytest.mark.parametrize(
    "options",
    [{"counter_period_s": 0}, {"power_period_s": -1}, {"buffer_period_s": math.nan}, {"gain_uncertainty": -1}],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError, match=f"meter.{next(iter(options))}="):
        NvmlOptions(**options)


def test_the_yaml_file_holds_the_defaults():
    options = yaml.safe_load((ROOT / "conf/meter/nvml.yaml").read_text())
    assert options == {"name": "nvml", **asdict(NvmlOptions())}


# ---- failures ----


def test_errors_have_names_and_remedies():
    assert str(meter_error(15, "usage of TITAN X")) == (
        "NVML: usage of TITAN X: NVML_ERROR_GPU_IS_LOST; the card fell off the bus; see `dmesg` for an Xid, reset the "
        "card or reboot"
    )
    assert "NVML_ERROR_4242; see NVIDIA's NVML manual" in str(meter_error(4242, "x"))


def test_error_names_are_nvml_s():
    import pynvml

    assert [getattr(pynvml, f"NVML_ERROR_{name}") for name, _ in ERRORS.values()] == list(ERRORS)


def test_a_failure_is_an_error_and_passes(opened):
    names = ("nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetFieldValues",
             "nvmlDeviceGetSamples")  # fmt: skip
    failures = tuple(Failure(name, code, 10.3, 10.5) for name, code in zip(names, (10, 999, 15, 21), strict=True))
    running, session = opened(hopper(constant(120), failures=failures), age_s=10.0)
    time.sleep(max(0, running.at_ns(10.32) - time.monotonic_ns()) / S)
    for one in session.sources:
        with pytest.raises(
            MeterError, match=r"NVML: .* of NVIDIA H100.*: NVML_ERROR_(TIMEOUT|UNKNOWN|GPU_IS_LOST|NO_DATA)"
        ):
            session.read(one)
    time.sleep(max(0, running.at_ns(10.52) - time.monotonic_ns()) / S)
    deadline = time.monotonic() + 3
    while True:
        try:
            session.read(source(session, "instant"))  # its code was that of a lost card
            break
        except MeterError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert all(session.read(one) for one in session.sources)


def test_a_lost_card_does_not_take_its_neighbour_with_it_and_may_come_back(opened):
    running, session = opened(
        pascal(constant(100), gain=1.0, lost=((10.3, 10.6),)), pascal(constant(200), gain=1.0), age_s=10.0
    )
    time.sleep(max(0, running.at_ns(10.31) - time.monotonic_ns()) / S)
    lost = []
    deadline = time.monotonic() + 5
    while not lost or lost[-1]:
        try:
            lost.append(value(session, "usage") != 100.0)
        except MeterError as error:
            assert "GPU_IS_LOST" in str(error)
            lost.append(True)
        assert value(session, "usage", "gpu.1") == 200.0
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert lost[0]


def test_after_a_reload_of_the_driver_it_goes_on(opened):
    running, session = opened(pascal(constant(100), gain=1.0), reloads=((10.2, 10.4),), age_s=10.0)
    time.sleep(max(0, running.at_ns(10.21) - time.monotonic_ns()) / S)
    codes = []
    deadline = time.monotonic() + 5
    while True:
        try:
            assert value(session, "usage") == 100.0
            break
        except MeterError as error:
            codes.append(str(error).partition("NVML_ERROR_")[2].partition(";")[0])
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert set(codes) <= {"UNINITIALIZED", "DRIVER_NOT_LOADED"}
    assert codes


def sampled(running, session, seconds):
    sampler = Sampler(session)
    sampler.start()
    start_ns = time.monotonic_ns()
    time.sleep(seconds)
    end_ns = time.monotonic_ns()
    sampler.stop()
    channel = session.channels[0]
    return Timeline(channel, session.sources, sampler.readings()), start_ns, end_ns


def test_a_reset_of_the_counter_invents_nothing(opened):
    card = volta(constant(100), counter=CounterSensor(resets_s=(10.6,)), usage=None)
    running, session = opened(card, age_s=10.0)
    timeline, start_ns, end_ns = sampled(running, session, 1.2)
    energy = timeline.energy(start_ns, end_ns)
    assert energy.source == "counter"
    assert 0.8 < energy.coverage < 1
    covered_j = 100 * energy.coverage * (end_ns - start_ns) / S
    assert energy.energy_j == pytest.approx(covered_j, abs=15)


def test_closing_twice_is_harmless(opened):
    _, session = opened(pascal(constant(100)))
    session.close()
    session.close()
    with pytest.raises(MeterError, match="UNINITIALIZED"):
        value(session, "usage")


# ---- the buffer's clock ----


@pytest.mark.parametrize("clock", ["realtime", "monotonic"])
def test_samples_come_once_and_at_their_time(opened, clock):
    running, session = opened(hopper(RAMP, buffer=SampleBuffer(clock=clock)))
    buffer, samples = source(session, "buffer"), []
    for _ in range(8):
        samples += session.read(buffer)
        time.sleep(0.05)
    assert f"follow the {clock} clock" in session.channels[0].origin
    assert len(samples) >= 119 + 10
    check_ramp(running.start_ns, [(sample.sensor_ns, sample.value) for sample in samples])


def check_ramp(start_ns, samples):
    """Every 20 ms a sample, each at the end of the 20 ms of which it is the mean."""
    times_ns = [time_ns for time_ns, _ in samples]
    gaps_ns = [after - before for before, after in pairwise(times_ns)]
    assert max(gaps_ns) < 23 * MS
    assert min(gaps_ns) > 17 * MS
    for time_ns, power_w in samples:
        assert (time_ns - start_ns) / S == pytest.approx(power_w / 100 + 0.01, abs=0.002)


STEPPING = """
import json, sys, time
from energybench_plugins.meters.nvml import NvmlMeter, NvmlOptions
meter = NvmlMeter(NvmlOptions())
session = meter.open(meter.devices())
buffer = next(source for source in session.sources if source.name == "buffer")
samples, walls = [], []
while time.monotonic_ns() < int(sys.argv[1]):
    samples += session.read(buffer)
    walls.append(time.time() - time.monotonic())
    time.sleep(0.23)
print(json.dumps([[(sample.sensor_ns, sample.value) for sample in samples], walls]))
"""


def test_a_wall_clock_that_is_set_moves_no_sample(tmp_path):
    steps = ((12.01, 0.15), (12.61, -3600.0), (13.33, 30.0), (13.87, -0.07))
    running = Server((hopper(RAMP),), wall_steps=steps).start(tmp_path, age_s=10.5)
    samples, walls = run(STEPPING, running, running.at_ns(14.5))
    assert max(walls) - min(walls) == pytest.approx(3600.0, abs=1)
    assert len(samples) > 119 + 100
    check_ramp(running.start_ns, samples)


@pytest.mark.parametrize("offset_s", [100.0, -100.0, -5.0])
def test_a_buffer_on_an_unknown_clock_is_refused_with_its_reason(opened, offset_s):
    _, session = opened(hopper(RAMP, buffer=SampleBuffer(clock="monotonic", clock_offset_s=offset_s)))
    assert "buffer" not in [one.name for one in session.sources]
    assert "without buffer: its stamps follow neither CLOCK_REALTIME nor" in session.channels[0].origin


def test_a_buffer_whose_clock_runs_away_fails_and_says_so(opened):
    sensor = SampleBuffer(clock="monotonic", clock_offset_s=-1.0, clock_drift=0.1)
    running, session = opened(hopper(RAMP, buffer=sensor), age_s=10.0)
    time.sleep(max(0, running.at_ns(10.9) - time.monotonic_ns()) / S)
    with pytest.raises(MeterError, match="no longer follow the monotonic clock"):
        session.read(source(session, "buffer"))


def test_which_clock():
    mono, wall = 1000 * S, 1_700_000_000 * S
    assert clock_of(wall - 20 * MS, mono, wall) == "realtime"
    assert clock_of(mono - 20 * MS, mono, wall) == "monotonic"
    assert clock_of(mono + S, mono, wall) is None
    assert clock_of(mono - 20 * MS, mono, mono + 100 * MS) is None, "where both clocks fit neither is known"


def test_overlapping_fetches():
    samples = [(stamp, 1.0) for stamp in range(10)]
    assert unseen([], samples) == (samples, False)
    assert unseen(samples[:7], samples[3:]) == (samples[7:], True)
    assert unseen(samples, samples) == ([], True)
    assert unseen(samples[:3], samples[5:]) == (samples[5:], False)
    assert unseen([(1, 1.0), (2, 1.0)], [(1, 1.0), (2, 1.0), (1, 2.0), (2, 2.0)]) == ([(1, 2.0), (2, 2.0)], True)


@settings(deadline=None)
@given(
    count=st.integers(2, 60),
    before=st.integers(0, 60),
    step_ms=st.one_of(st.integers(-4_000_000, -3), st.integers(3, 4_000_000)),
)
def test_a_step_is_found_among_the_samples(count, before, step_ms):
    true_ns = [5 * S + 20 * MS * (i + 1) for i in range(count)]
    old_ns, new_ns = 10**18, 10**18 + step_ms * MS
    stamps_ns = [time_ns + (old_ns if i < before else new_ns) for i, time_ns in enumerate(true_ns)]
    assert placed(stamps_ns, old_ns, new_ns, 5 * S, true_ns[-1] + 10 * MS) == true_ns


def test_a_step_that_explains_nothing_is_not_believed():
    assert placed([5 * S, 4 * S, 3 * S], 0, S // 2, None, 6 * S) is None


def test_an_empty_buffer_is_none():
    with pytest.raises(MeterError, match="the buffer is empty"):
        Buffer(lambda: [])


def test_stamps_that_are_worked_out_anew_are_no_new_samples():
    """A driver that derives them from another clock gives the same sample other microseconds."""
    base_ns = time.time_ns() - 30 * MS
    fetches = [[(base_ns - 20 * MS * i + jitter, 1.0) for i in reversed(range(10))] for jitter in (0, 0, 2000, -3000)]
    buffer = Buffer(lambda: fetches.pop(0))
    assert [len(buffer.read()) for _ in range(3)] == [10, 0, 0]


# ---- whole runs ----


def test_the_energy_of_a_card_without_a_counter(opened):
    """A step of 100 W to 300 W: polling that drops edges reads half of it."""
    running, session = opened(maxwell(step(10.9, 100, 300)), pascal(step(10.9, 100, 300)), age_s=10.0)
    sampler = Sampler(session)
    with sampler:
        start_ns = time.monotonic_ns()
        time.sleep(1.9)
        end_ns = time.monotonic_ns()
    for channel, delay_s in zip(session.channels, (0.25, 0.03), strict=True):
        energy = Timeline(channel, session.sources, sampler.readings()).energy(start_ns, end_ns)
        true_j = running.truths[channel.device_id].energy_j(start_ns, end_ns)
        assert energy.coverage == 1.0
        assert energy.energy_j == pytest.approx(true_j, abs=0.02 * true_j + 200 * delay_s)


def test_buffer_and_counter_agree_where_the_instant_field_does_not(opened):
    running, session = opened(hopper(square(100, 700, 0.1, phase_s=0.02)), age_s=10.0)
    channel = session.channels[0]
    sampler = Sampler(session)
    with sampler:
        start_ns = time.monotonic_ns()
        time.sleep(1.5)
        end_ns = time.monotonic_ns()
    readings = sampler.readings()
    energies = {
        one.name: Timeline(channel, [one], readings).energy(start_ns, end_ns).energy_j for one in session.sources
    }
    true_j = running.truths[channel.device_id].energy_j(start_ns, end_ns)
    assert energies["counter"] == pytest.approx(true_j, rel=0.1)
    assert energies["buffer"] == pytest.approx(true_j, rel=0.05)
    assert abs(energies["instant"] / true_j - 1) > 0.25
    fused = Timeline(channel, session.sources, readings).energy(start_ns, end_ns)
    assert fused.source == "counter+buffer"
    assert fused.energy_j == pytest.approx(true_j, rel=0.01)
