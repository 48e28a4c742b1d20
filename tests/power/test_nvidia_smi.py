"""meter=nvidia_smi through a fake nvidia-smi, whose cards are those of the fake driver."""

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import yaml

from energybench.devices import cpu_device
from energybench.errors import ConfigError, MeterError
from energybench.power.sampler import Sampler
from energybench.testing import PRESETS, Card, Failure, Server, constant, driver, hopper, linear, maxwell, pascal
from energybench.testing.fixtures import fake_nvml  # noqa: F401
from energybench_plugins.meters import nvidia_smi_stream
from energybench_plugins.meters.nvidia_smi import NvidiaSmiMeter, NvidiaSmiOptions
from energybench_plugins.meters.nvidia_smi_clock import Clock, stamp_ns
from energybench_plugins.meters.nvidia_smi_tool import watts
from energybench_plugins.meters.nvml import NvmlMeter, NvmlOptions

ROOT = Path(__file__).parents[2]
MS, S = 1_000_000, 1_000_000_000
RAMP = linear([(0, 0), (1000, 100_000)])
"""100 W more each second: a value tells its time."""


def smi(**options):
    return NvidiaSmiMeter(NvidiaSmiOptions(**options))


@pytest.fixture
def start(fake_nvml):  # noqa: F811
    return lambda *cards, age_s=10.0, **server: fake_nvml(Server(cards, **server), age_s)


@pytest.fixture
def opened(start):
    """A session on all of these cards."""
    sessions = []

    def go(*cards, age_s=10.0, options=None, **server):
        running = start(*cards, age_s=age_s, **server)
        meter = smi(**(options or {}))
        sessions.append(meter.open(meter.devices()))
        return running, sessions[-1]

    yield go
    for session in sessions:
        session.close()


def source(session, name, channel="gpu.0"):
    return next(one for one in session.sources if (one.channel, one.name) == (channel, name))


def until(condition, limit_s=30.0):
    """The first true answer; what the meter cannot read now it may later."""
    end = time.monotonic() + limit_s
    while True:
        try:
            if answer := condition():
                return answer
        except MeterError:
            pass
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def failure(session, name="usage", channel="gpu.0", limit_s=30.0):
    """The words of the next failure."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        try:
            session.read(source(session, name, channel))
        except MeterError as error:
            return str(error)
        time.sleep(0.02)
    raise AssertionError("no failure")


def test_without_the_tool_it_finds_nothing_and_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert smi().devices() == []
    assert str(smi().check()).startswith("nvidia-smi: not found on PATH; install the NVIDIA driver's tools")


def test_without_a_driver_it_says_what_the_tool_says(monkeypatch):
    monkeypatch.setenv("PATH", str(driver.program().parent))
    monkeypatch.delenv("ENERGYBENCH_FAKE_NVML", raising=False)
    state = smi().check()
    assert not state.ok
    assert "ended with code 9: NVIDIA-SMI has failed because it couldn't communicate" in state.detail
    assert "modprobe nvidia" in state.remedy


def test_a_tool_that_hangs_is_given_up(monkeypatch, tmp_path):
    hanging = tmp_path / "nvidia-smi"
    hanging.write_text("#!/bin/sh\nexec /bin/sleep 600\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no answer within 0.2 s" in str(smi(timeout_s=0.2).check())


def test_it_finds_what_nvml_finds(start):
    start(*(preset(constant(80)) for preset in PRESETS.values()))
    assert smi().devices() == NvmlMeter(NvmlOptions()).devices()


def test_an_old_driver_does_not_tell_the_generation(start):
    start(pascal(constant(80)), driver="470.256.02")
    (device,) = smi().devices()
    assert (device.generation, device.rank) == ("unknown", 0)


def test_a_lost_card_is_left_out_and_its_neighbour_is_not(start):
    start(pascal(constant(80), lost=((-math.inf, math.inf),)), pascal(constant(90)))
    assert [device.pci_bus_id for device in smi().devices()] == ["00000000:02:00.0"]


SOURCES = {
    "maxwell": {"usage": 0.345},
    "pascal": {"usage": 0.011},
    "ampere_a100": {"usage": 0.025},
    "ampere_rtx30": {"usage": 1.0, "average": 1.0, "instant": None},
    "hopper": {"usage": 1.0, "average": 1.0, "instant": 0.025},
}


@pytest.mark.parametrize("name", SOURCES)
def test_each_generation_has_its_sources_and_says_what_they_average(opened, name):
    _, session = opened(PRESETS[name](constant(80)))
    assert {one.name: one.averaging_s for one in session.sources} == SOURCES[name]
    usage = source(session, "usage")
    assert usage.update_s == PRESETS[name](constant(80)).usage.update_s == 2 * usage.period_s


def test_an_old_tool_knows_one_field(opened):
    _, session = opened(hopper(constant(80)), driver="470.256.02")
    assert [one.name for one in session.sources] == ["usage"]


def test_cards_are_bound_by_uuid_in_the_order_given(start):
    start(*(pascal(constant(100 * number), gain=1.0) for number in (1, 2, 3)))
    first, _, third = smi().devices()
    session = smi().open([third, first])
    try:
        assert [channel.device_id for channel in session.channels] == [third.uuid, first.uuid]
        assert {sample.value for sample in session.read(source(session, "usage"))} == {300.0}
        assert {sample.value for sample in session.read(source(session, "usage", "gpu.1"))} == {100.0}
    finally:
        session.close()


def test_strangers_are_refused(start):
    start(pascal(constant(80)), Card(name="Mute"))
    first, mute = smi().devices()
    with pytest.raises(MeterError, match="reads NVIDIA's GPUs, not"):
        smi().open([cpu_device()])
    with pytest.raises(MeterError, match="ended with code 6: No devices were found"):
        smi().open([replace(first, uuid="GPU-none")])
    with pytest.raises(MeterError, match="no card GPU-none"):
        smi().open([first, replace(first, uuid="GPU-none")])
    with pytest.raises(MeterError, match=r"Mute tells no power \(without usage: N/A"):
        smi().open([mute])


@pytest.mark.parametrize("options", [{"period_s": 0.0001}, {"timeout_s": 0}, {"gain_uncertainty": math.nan}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError, match=f"meter.{next(iter(options))}="):
        NvidiaSmiOptions(**options)


def test_the_yaml_file_holds_the_defaults():
    options = yaml.safe_load((ROOT / "conf/meter/nvidia_smi.yaml").read_text())
    assert options == {"name": "nvidia_smi", **asdict(NvidiaSmiOptions())}


@pytest.mark.parametrize("words", ["[N/A]", "[Unknown Error]", "[GPU is lost]", "", "12,5"])
def test_what_is_no_number_is_an_error(words):
    with pytest.raises(MeterError, match="nvidia-smi: "):
        watts(words)


# ---- time ----


def test_lines_come_once_and_at_their_time(opened):
    card = pascal(RAMP, usage=replace(pascal(RAMP).usage, update_s=0.0, window_s=0.0, gain=1.0))
    running, session = opened(card, hopper(constant(100)))
    usage, samples = source(session, "usage"), []
    until(lambda: samples.extend(session.read(usage)) or len(samples) > 20)
    assert all(a.sensor_ns < b.sensor_ns for a, b in pairwise(samples))
    lates_s = sorted(sample.sensor_ns / S - running.start_ns / S - sample.value / 100 for sample in samples)
    assert abs(lates_s[len(lates_s) // 2]) < 0.005


def test_an_edge_is_read_where_it_is_asked_for(opened):
    _, session = opened(maxwell(constant(100)), hopper(constant(100)), options={"period_s": 0.3})
    for one in session.sources:
        session.read(one)
    before_ns = time.monotonic_ns()
    last = [session.read(one)[-1].sensor_ns for one in session.sources]
    assert min(last) >= before_ns - MS


STAMP = "2026/11/24 04:12:46.702"
WALL_NS = 1_795_493_566_702 * MS


def test_a_stamp_is_read_as_utc():
    assert stamp_ns(STAMP) == WALL_NS
    assert stamp_ns("[Unknown Error]") is None


def placed(late_ns, offset_ns=0, stamp=STAMP):
    """How long before its arrival a line is placed that came `late_ns` after its stamp; -1: by its arrival."""
    offsets = iter([10 * S, 10 * S + offset_ns])
    clock = Clock(lambda: next(offsets))
    arrival_ns = WALL_NS - 10 * S + late_ns
    age_ns = arrival_ns - clock.time_ns("a", stamp, arrival_ns)
    return -1 if clock.by_arrival else age_ns


def test_a_stamp_counts_from_the_middle_of_its_millisecond_and_never_after_the_arrival():
    assert placed(5 * MS) == 4.5 * MS
    assert placed(0.2 * MS) == 0


@pytest.mark.parametrize(
    "case",
    [{"late_ns": 3600 * S}, {"late_ns": -3600 * S}, {"late_ns": 6 * S}, {"late_ns": MS, "offset_ns": 150 * MS},
     {"late_ns": MS, "stamp": "[Unknown Error]"}],
)  # fmt: skip
def test_a_stamp_that_does_not_fit_gives_way_to_the_arrival(case):
    assert placed(**case) == -1


STEPPING = """
import sys, time
from energybench_plugins.meters.nvidia_smi import NvidiaSmiMeter, NvidiaSmiOptions
meter = NvidiaSmiMeter(NvidiaSmiOptions())
session = meter.open(meter.devices())
while time.monotonic_ns() < int(sys.argv[1]):
    for sample in session.read(session.sources[0]):
        print(sample.sensor_ns, sample.value)
    time.sleep(0.05)
session.close()
"""


def test_a_wall_clock_that_is_set_moves_no_line(tmp_path):
    card = pascal(RAMP, usage=replace(pascal(RAMP).usage, update_s=0.0, window_s=0.0, gain=1.0))
    running = Server((card,), wall_steps=((12.5, 0.15), (12.9, -3600.0))).start(tmp_path, age_s=10.5)
    environment = {**os.environ, **running.environment(), "TZ": "Asia/Tokyo"}
    command = [sys.executable, "-c", STEPPING, str(running.at_ns(13.5))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rows = [(int(time_ns), float(value)) for time_ns, value in (line.split() for line in done.stdout.splitlines())]
    assert rows[-1][0] > running.at_ns(13.0)
    assert all(a[0] < b[0] for a, b in pairwise(rows))
    lates_s = sorted((time_ns - running.start_ns) / S - value / 100 for time_ns, value in rows)
    assert lates_s[0] > -0.005
    assert lates_s[len(lates_s) // 2] < 0.02
    assert lates_s[-1] < 0.14, "a line that was moved by the step of 0.15 s"
    assert "does not fit this clock; lines are placed by their arrival" in done.stderr


# ---- failures ----


def test_a_failure_is_an_error_and_passes(opened):
    failures = (Failure("nvmlDeviceGetPowerUsage", 999, 11.0, 11.4),)
    _, session = opened(pascal(constant(100), gain=1.0, failures=failures))
    assert failure(session) == "nvidia-smi: Unknown Error"
    assert until(lambda: {sample.value for sample in session.read(source(session, "usage"))}) == {100.0}


def test_a_lost_card_does_not_take_its_neighbour_with_it_and_may_come_back(opened):
    cards = (pascal(constant(100), gain=1.0, lost=((11.0, 11.5),)), pascal(constant(200), gain=1.0))
    _, session = opened(*cards)
    assert failure(session) == "nvidia-smi: GPU is lost"
    assert {sample.value for sample in session.read(source(session, "usage", "gpu.1"))} == {200.0}
    assert until(lambda: {sample.value for sample in session.read(source(session, "usage"))}) == {100.0}


def test_a_stream_that_dies_is_started_anew(opened):
    _, session = opened(pascal(constant(100), gain=1.0))
    first = session._stream.pid
    os.kill(first, signal.SIGKILL)
    assert "ended by signal 9: it said nothing; run it by hand to see more; it is started anew in 0.5 s" in failure(
        session
    )
    assert until(lambda: {sample.value for sample in session.read(source(session, "usage"))}) == {100.0}
    assert session._stream.pid != first


def test_a_driver_that_is_reloaded_is_met_again(opened):
    _, session = opened(pascal(constant(100), gain=1.0), reloads=((11.0, 11.1),))
    assert "ended with code 9: NVIDIA-SMI has failed" in failure(session)
    assert until(lambda: {sample.value for sample in session.read(source(session, "usage"))}) == {100.0}


def test_a_stream_that_keeps_dying_is_given_up(opened, monkeypatch):
    monkeypatch.setattr(nvidia_smi_stream, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(nvidia_smi_stream, "RESTARTS", 2)
    _, session = opened(pascal(constant(100)), reloads=((11.0, math.inf),))
    until(lambda: "it was started anew 2 times, and no more" in failure(session))
    session.close()


# ---- nothing is left ----


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_after_closing_no_process_is_left(opened):
    _, session = opened(pascal(constant(100)))
    pid = session._stream.pid
    session.close()
    session.close()
    assert not psutil.pid_exists(pid), "not even a zombie"
    with pytest.raises(MeterError, match="closed"):
        for _ in range(2):
            session.read(session.sources[0])


@pytest.mark.parametrize(
    ("script", "words"),
    [("exec /bin/sleep 600", "no line of GPU-1 within 0.3 s"), ("echo no; exit 9", "code 9: no; load")],
)
def test_after_a_failed_opening_no_process_is_left(monkeypatch, tmp_path, script, words):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(MeterError, match=words) as caught:
        nvidia_smi_stream.Stream(["GPU-1"], ["usage"], 0.02, 0.3)
    assert "anew" not in str(caught.value)
    assert {child.pid for child in psutil.Process().children()} <= before


HOLD = """
import os, sys, time
from energybench_plugins.meters.nvidia_smi import NvidiaSmiMeter, NvidiaSmiOptions
meter = NvidiaSmiMeter(NvidiaSmiOptions())
session = meter.open(meter.devices())
child = os.fork()
if child == 0:
    os.close(1)
    time.sleep(600)
print(session._stream.pid, child, flush=True)
time.sleep(600)
"""


def test_a_reader_that_is_killed_takes_the_tool_with_it_even_where_a_forked_child_lives_on(tmp_path):
    running = Server((pascal(constant(100)),)).start(tmp_path)
    environment = {**os.environ, **running.environment()}
    with subprocess.Popen([sys.executable, "-c", HOLD], env=environment, stdout=subprocess.PIPE, text=True) as holder:
        tool, child = map(int, holder.stdout.readline().split())
        try:
            assert not gone(tool)
            holder.kill()
            until(lambda: gone(tool))
            assert not gone(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_sampler_reads_it(opened):
    running, session = opened(maxwell(constant(100), gain=1.0), hopper(constant(200)))
    with Sampler(session) as sampler:
        time.sleep(0.3)
    readings = sampler.readings()
    assert {reading.value for reading in readings if reading.channel == "gpu.0"} == {100.0}
    assert {reading.status for reading in readings} == {"ok"}
    assert min(reading.time_ns for reading in readings) > running.start_ns
