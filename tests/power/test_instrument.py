"""meter=instrument on streams with a known truth: sockets, a pseudo-terminal, growing files."""

import json
import math
import os
import random
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instruments import IntoFile, OverSerial, OverTcp, Stream
from omegaconf import OmegaConf
from scripted import GPUS
from views import Silent

from energybench.config import fit, resolve
from energybench.devices import cpu_device
from energybench.errors import ConfigError, MeterError
from energybench.power.sampler import Sampler
from energybench.power.timeline import Timeline
from energybench.registry import Registry
from energybench.run.execute import Place, execute
from energybench.run.preflight import Machine, prepare
from energybench.testing import idle_load_idle
from energybench.testing.conformance import MeterConformance
from energybench.testing.server import Truth
from energybench_plugins.meters.instrument import InstrumentMeter
from energybench_plugins.meters.instrument_clock import OwnClock, envelope
from energybench_plugins.meters.instrument_lines import Lines, Row, UnreadableLineError
from energybench_plugins.meters.instrument_link import link_of
from energybench_plugins.meters.instrument_options import InstrumentOptions
from energybench_plugins.meters.instrument_time import OwnTime

S, MS = 1_000_000_000, 1_000_000
WALL = {"name": "wall.0", "kind": "wall", "contains": ["cpu", "gpu"], "power": ["2"]}
MONOTONIC = {"column": "1", "unit": "ns", "clock": "monotonic"}
PATIENCE_S = 60.0


def options(url=None, **values):
    return fit("meter", InstrumentOptions, {"url": url, "channels": [WALL], "gain_uncertainty": 0.01, **values}, "it")


@pytest.fixture
def opened():
    """Opens an instrument; when the test ends nothing of it may be left."""
    before = set(threading.enumerate())
    sessions = []

    def go(url, devices=(), **values):
        sessions.append(InstrumentMeter(options(url, **values)).open(devices))
        return sessions[-1]

    yield go
    for session in sessions:
        session.close()
        session.close()
    left = [thread for thread in set(threading.enumerate()) - before if thread.name == "energybench-instrument"]
    assert not left


def gathered(session, count=10, source=None):
    """At least so many samples."""
    samples, deadline = [], time.monotonic() + PATIENCE_S
    while len(samples) < count:
        assert time.monotonic() < deadline, samples
        samples += session.read(source or session.sources[0])
    return samples


def ramp(time_ns):
    """100 W more each second: a value tells its time."""
    return 1000.0 + (time_ns - START_NS) / S * 100


START_NS = time.monotonic_ns()


def errors_s(samples):
    """How much later than the truth each sample is placed."""
    return [(sample.sensor_ns - START_NS) / S - (sample.value - 1000.0) / 100 for sample in samples]


# ---- the three ways, the clocks ----


def test_over_tcp_on_a_clock_of_its_own(opened):
    """Ticks of 0.1 ms since it was switched on, delays of 3 to 10 ms."""
    stream = Stream(ramp, clock=lambda ns: (ns - START_NS) / 100_000 + 5e6, delays_s=(0.003, 0.010))
    with OverTcp(stream) as instrument:
        session = opened(instrument.url, time={"column": "1", "unit": "0.0001"}, delay_s=0.003)
        samples = gathered(session, 60)
        (source,), (channel,) = session.sources, session.channels
    worst_s = max(map(abs, errors_s(samples)))
    assert worst_s <= 3 * source.time_uncertainty_s
    assert 0.0046 < source.time_uncertainty_s < 0.1
    assert source.update_s == pytest.approx(0.025, abs=0.02)
    assert "its own clock, by the least delay of its lines" in channel.origin
    assert channel.contains == ("cpu", "gpu")


def test_over_a_serial_port_with_the_time_of_arrival(opened):
    pytest.importorskip("serial", reason="needs pyserial (pip install 'energybench[instrument]')")
    with OverSerial(Stream(ramp, line=lambda stamp, watts: f"P = {watts:.4f} W", every_s=0.05)) as instrument:
        session = opened(instrument.url, delimiter=None, channels=[{**WALL, "power": ["3"]}])
        samples = gathered(session, 20)
        (source,), (channel,) = session.sources, session.channels
    late_s = sorted(errors_s(samples))
    assert abs(late_s[len(late_s) // 2]) < 0.05
    assert source.time_uncertainty_s >= 0.016 / math.sqrt(12)
    assert "time of arrival" in channel.origin


@pytest.mark.parametrize(
    ("clock", "unit", "stamp"),
    [
        ("monotonic", "ns", lambda ns: f"{ns}"),
        ("realtime", "us", lambda ns: f"{(ns + OFFSET_NS) // 1000}"),
        ("realtime", "s", lambda ns: f"{(ns + OFFSET_NS) / S:.6f}"),
        ("realtime", "iso8601", lambda ns: time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime((ns + OFFSET_NS) // S))
         + f".{(ns + OFFSET_NS) % S // 1000:06d}Z"),
    ],
)  # fmt: skip
def test_from_a_file_on_a_clock_that_this_machine_has(opened, tmp_path, clock, unit, stamp):
    path = tmp_path / "log.csv"
    path.write_text(f"# a logger\n\ntime;power\n{stamp(START_NS - 3600 * S)};-1\n")
    stream = Stream(ramp, line=lambda ns, watts: f"{stamp(ns)};{watts:.5f}")
    channel = {**WALL, "power": ["power"]}
    with IntoFile(stream, path) as instrument:
        time_column = {"column": "time", "unit": unit, "clock": clock}
        session = opened(f"file://{instrument.url}", delimiter=";", time=time_column, channels=[channel])
        samples = gathered(session, 20)
        (source,) = session.sources
    assert max(map(abs, errors_s(samples))) < 0.005
    assert source.time_uncertainty_s == {"monotonic": 0.0, "realtime": 0.01}[clock]


OFFSET_NS = time.time_ns() - time.monotonic_ns()


def test_a_read_reaches_to_its_own_beginning(opened):
    """A slow meter at the wall: the last read of a run must have a sample behind the run's end."""
    with OverTcp(Stream(ramp, every_s=0.4)) as instrument:
        session = opened(instrument.url, time=MONOTONIC)
        (source,) = session.sources
        session.read(source)
        for _ in range(3):
            begun_ns = time.monotonic_ns()
            samples = session.read(source)
            assert samples[-1].sensor_ns >= begun_ns
            assert time.monotonic_ns() - begun_ns < 2 * S


def test_several_channels_of_one_stream(opened):
    """The study's set-up: the rails of a card added up; volts times amps; milliwatts."""
    channels = [
        {"name": "gpu.0", "kind": "gpu", "device_id": GPUS[2].uuid, "power": ["slot_w", "v12*a12"]},
        {"name": "gpu.1", "kind": "gpu", "device_id": GPUS[3].pci_bus_id, "power": ["slot_w"]},
        {"name": "slot.0", "kind": "rail", "device_id": "slot 0", "power": ["fan_mw"], "scale": 0.001},
    ]
    stream = Stream(line=lambda stamp, watts: f"{stamp}, 25.5 ,12.0,10.0,1500", header="t,slot_w,v12,a12,fan_mw")
    with OverTcp(stream) as instrument:
        session = opened(instrument.url, GPUS[2:4], time={**MONOTONIC, "column": "t"}, channels=channels)
        values = [gathered(session, 3, source)[0].value for source in session.sources]
        assert [channel.device_id for channel in session.channels] == [GPUS[2].uuid, GPUS[3].uuid, "slot 0"]
        session.close()
        other = opened(instrument.url, GPUS[3:4], time={**MONOTONIC, "column": "t"}, channels=channels)
        assert [channel.name for channel in other.channels] == ["gpu.1", "slot.0"]
    assert values == [145.5, 25.5, 1.5]


def test_it_is_told_to_begin(opened):
    with OverTcp(Stream(), greeting=b"START\n") as instrument:
        session = opened(instrument.url, time=MONOTONIC, send="START\n")
        assert gathered(session, 3)


# ---- what goes wrong ----


def test_corrupt_lines_are_counted_and_never_0(opened, caplog):
    bad = {15: "not,a number", 16: "12", 17: ",", 18: f"{10**30},5", 19: "1,inf", 20: f"{10**18},x", 21: "\x00\xff,"}
    garble = {**bad, 25: f"{START_NS},-1e9", 30: f"{2 * 10**18},77"}
    stream = Stream(lambda ns: 50.0, garble=lambda number: "99999999,9000" if number == 40 else garble.get(number))
    with OverTcp(stream) as instrument:
        session = opened(instrument.url, time=MONOTONIC, channels=[{**WALL, "max_w": 5000}])
        samples = gathered(session, 60)
        (channel,) = session.channels
        session.close()
    assert {sample.value for sample in samples} <= {50.0, -1e9}
    assert "unusable" in channel.origin
    assert "lines could not be used, the first: 'not,a number': column 1: 'not' is no time" in caplog.text


def test_a_damaged_stamp_is_no_new_clock_and_a_new_clock_is_no_damage(opened):
    """A digit is lost; later the instrument is switched off and on: its clock begins anew."""

    def clock(ns):
        return ns - START_NS + 10**15 if stream.sent < 180 else ns - START_NS

    stream = Stream(ramp, clock=clock, garble=lambda number: "12345,1e6" if number == 130 else None)
    with OverTcp(stream) as instrument:
        session = opened(instrument.url, time={"column": "1", "unit": "ns"})
        samples = gathered(session, 240)
        (source,) = session.sources
    assert all(sample.value < 1e6 for sample in samples)
    assert max(map(abs, errors_s(samples))) <= 3 * source.time_uncertainty_s


def test_a_stream_that_ends_is_a_failed_reading_and_may_come_back(opened):
    stream = Stream(until=lambda number: number % 200 == 199)
    with OverTcp(stream) as instrument:
        session = opened(instrument.url, time=MONOTONIC, reconnects=1000)
        (source,) = session.sources
        failed, deadline = "", time.monotonic() + PATIENCE_S
        while not failed:
            assert time.monotonic() < deadline
            try:
                session.read(source)
            except MeterError as error:
                failed = str(error)
        stream.sent += 1
        assert "the other end closed the connection; it is tried again" in failed
        samples, deadline = [], time.monotonic() + PATIENCE_S
        while len(samples) < 10:
            assert time.monotonic() < deadline
            try:
                samples += session.read(source)
            except MeterError:
                time.sleep(0.05)


def test_it_is_not_tried_for_ever(opened):
    with OverTcp(Stream(until=lambda number: number > 120), connections=1) as instrument:
        session = opened(instrument.url, time=MONOTONIC, reconnects=2)
        (source,) = session.sources
        deadline, words = time.monotonic() + PATIENCE_S, ""
        while not words or "tried again" in words:
            assert time.monotonic() < deadline, words
            try:
                session.read(source)
            except MeterError as error:
                words = str(error)
        assert not session._reader._thread.is_alive()
        with pytest.raises(MeterError):
            session.read(source)


def test_a_stream_that_stalls_fails_after_its_time(opened, tmp_path):
    path = tmp_path / "log"
    path.write_text(f"{time.monotonic_ns()},50\n")
    session = opened(str(path), time=MONOTONIC, timeout_s=0.6)
    (source,) = session.sources
    assert [sample.value for sample in session.read(source)] == [50.0]
    deadline = time.monotonic() + PATIENCE_S
    with pytest.raises(MeterError, match=r"no line for .* s"):
        while time.monotonic() < deadline:
            assert session.read(source) == []
    assert opened(str(path), time=MONOTONIC, timeout_s=None).read(source)


def test_a_file_that_is_replaced_is_read_from_its_beginning(opened, tmp_path):
    path = tmp_path / "log"
    path.write_text(f"{time.monotonic_ns()},50\n")
    session = opened(str(path), time=MONOTONIC)
    (source,) = session.sources
    assert session.read(source)
    fresh = tmp_path / "new"
    fresh.write_text(f"{time.monotonic_ns()},60\n")
    fresh.replace(path)
    deadline, values = time.monotonic() + PATIENCE_S, []
    while 60.0 not in values:
        assert time.monotonic() < deadline
        try:
            values += [sample.value for sample in session.read(source)]
        except MeterError as error:
            assert "cut or replaced" in str(error)


@pytest.mark.parametrize(
    ("stream", "time_options", "words"),
    [
        (
            Stream(line=lambda stamp, watts: "hello"),
            MONOTONIC,
            "first that could not: 'hello': column 1: 'hello' is no",
        ),
        (Stream(until=lambda number: True), MONOTONIC, "no line for|closed the connection"),
        (Stream(clock=lambda ns: ns + 3600 * S), MONOTONIC, "a time that can be"),
        (Stream(clock=lambda ns: ns / 1e6), {"column": "1", "unit": "s"}, "set meter.time.unit"),
        (Stream(header="a,b"), {**MONOTONIC, "column": "t"}, "the header 'a,b' has no column 2|no column t"),
    ],
)
def test_one_that_cannot_be_used_is_refused_when_it_is_opened(stream, time_options, words):
    with OverTcp(stream) as instrument, pytest.raises(MeterError, match=words):
        InstrumentMeter(options(instrument.url, time=time_options, timeout_s=3.0, reconnects=0)).open([])


def test_one_that_is_not_there():
    with pytest.raises(MeterError, match=r"tcp://127.0.0.1:9: .*refused"):
        InstrumentMeter(options("tcp://127.0.0.1:9")).open([])
    with pytest.raises(MeterError, match="No such file"):
        InstrumentMeter(options("/nowhere/at/all")).open([])


# ---- options ----


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"url": "udp://host:1"}, "serial://, tcp://, file:// or a path"),
        ({"url": "tcp://host"}, "give tcp://host:port"),
        ({"url": "tcp://host:port"}, "tcp://host:port"),
        ({"url": "serial:///dev/ttyUSB0?speed=9600"}, "unknown 'speed'; it takes baud"),
        ({"url": "serial:///dev/ttyUSB0?baud=fast"}, "baud=fast"),
        ({"time": {"clock": "gps"}}, "meter.time.clock=gps: give one of own, realtime, monotonic"),
        ({"time": {"unit": "fortnight"}}, "meter.time.unit=fortnight"),
        ({"time": {"column": "1", "unti": "s"}}, "unknown key 'meter.time.unti'"),
        ({"channels": [WALL, WALL]}, "two channels of one name"),
        ({"channels": [{**WALL, "power": []}]}, "power="),
        ({"channels": [{**WALL, "power": ["1*2*3"]}]}, "power="),
        ({"channels": [{"name": "gpu.0", "kind": "gpu"}]}, "give device_id, the UUID"),
        ({"channels": [{**WALL, "colour": "red"}]}, "colour"),
        ({"gain_uncertainty": -1.0}, "meter.gain_uncertainty=-1"),
        ({"timeout_s": 0.0}, "meter.timeout_s=0"),
        ({"delimiter": ""}, "meter.delimiter"),
    ],
)
def test_options_that_make_no_sense_are_refused(values, words):
    with pytest.raises(ConfigError, match=words) as caught:
        InstrumentMeter(options(**values))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("missing", "words"), [("url", "meter.url"), ("channels", "meter.channels"), ("gain_uncertainty", "data sheet")]
)
def test_what_must_be_given_is_asked_for(missing, words):
    chosen = fit("meter", InstrumentOptions, {"url": "x", "channels": [WALL], "gain_uncertainty": 0.01, **{
        missing: [] if missing == "channels" else None}}, "it")  # fmt: skip
    state = InstrumentMeter(chosen).check()
    assert not state.ok and words in state.remedy
    with pytest.raises(MeterError, match=words):
        InstrumentMeter(chosen).open([])


def test_it_covers_what_its_channels_are_bound_to():
    channels = [{"name": "gpu.0", "kind": "gpu", "device_id": GPUS[0].uuid}, {"name": "cpu.0", "kind": "cpu"}, WALL]
    meter = InstrumentMeter(options("x", channels=channels))
    assert [meter.covers(device) for device in (GPUS[0], GPUS[1], cpu_device())] == [True, False, True]
    assert not InstrumentMeter(options("x")).covers(cpu_device())
    with pytest.raises(MeterError, match="no channel is bound to TITAN X"):
        meter.open([GPUS[1]])


def test_a_link_needs_no_file_to_be_named():
    assert link_of("relative/path.csv", from_end=True, header=False, comment="#")


# ---- lines and clocks ----


@given(st.text(max_size=40))
def test_no_line_is_a_crash_and_none_is_0_watts(text):
    lines = Lines(options("x", time=MONOTONIC))
    try:
        row = lines.row(text)
    except UnreadableLineError:
        return
    assert row is None or (len(row.watts) == 1 and math.isfinite(row.watts[0]))


def test_a_stamp_in_nanoseconds_since_1970_keeps_them_all():
    lines = Lines(options("x", time={"column": "1", "unit": "ns"}))
    assert lines.row("1732420581123456789,5").stamp_ns == 1732420581123456789


@settings(deadline=None, max_examples=50)
@given(
    rate=st.floats(-1e-3, 1e-3),
    least_s=st.floats(0.0, 0.5),
    jitter_s=st.floats(0.0, 0.05),
    seed=st.integers(0, 1000),
    span_s=st.integers(3, 120),
)
def test_the_envelope_is_below_all_pairs_and_finds_the_clock(rate, least_s, jitter_s, seed, span_s):
    clock, chance = OwnClock(), random.Random(seed)
    rate = rate if span_s >= 10 else rate / 10  # before it can be seen the rate is taken for nominal
    pairs = []
    for step in range(span_s * 20):
        true_ns = step * 50 * MS
        stamp_ns = round(true_ns / (1 + rate)) + 7 * S
        arrival_ns = true_ns + round((least_s + chance.uniform(0, jitter_s)) * S)
        pairs.append((true_ns, stamp_ns, arrival_ns))
        clock.add(stamp_ns, arrival_ns)
    placed = [(clock.time_ns(stamp_ns) - true_ns) / S - least_s for true_ns, stamp_ns, _ in pairs]
    limit_s = 3 * clock.uncertainty_s + 2e-6
    assert max(map(abs, placed)) <= limit_s + (0 if span_s >= 10 else abs(rate) * span_s)
    if span_s >= 10:
        slack_ns = abs(rate) * S + 1000  # within a second the rate is not looked at
        assert all(clock.time_ns(stamp_ns) <= arrival_ns + slack_ns for _, stamp_ns, arrival_ns in pairs)


def test_the_envelope_of_points_on_a_line_is_the_line():
    offset, slope = envelope([(x, 3 - 0.5 * x + (x % 3 != 0)) for x in range(31)])
    assert (offset, slope) == (pytest.approx(3.0), pytest.approx(-0.5))
    assert envelope([(1.0, 2.0)]) == (2.0, 0.0)


def test_a_counter_of_32_bits_wraps():
    keeper, tick_ns = OwnTime(1000), 1000
    placed = []
    for step in range(40):
        ticks = (2**32 - 20 + step) % 2**32 * 1
        placed += keeper.take([Row(ticks * tick_ns, (1.0,))], 10 * S + step * tick_ns)
    times_ns = [row.time_ns for row in placed]
    assert len(placed) == 40
    assert keeper.refused == 0
    assert times_ns == [times_ns[0] + step * tick_ns for step in range(40)]


# ---- the rules of a meter ----

AGE_S = 10.0


class TestConformance(MeterConformance):
    """Two GPUs on a clock that is a minute off and 50 millionths fast, with delays."""

    LOAD = idle_load_idle(60, 240, 3.0, 5.0, ramp_s=0.2)

    @pytest.fixture(scope="class")
    def truth(self):
        return Truth(self.LOAD, time.monotonic_ns())

    @pytest.fixture(scope="class")
    def meter(self, truth):
        stream = Stream(
            truth.power_w,
            clock=lambda ns: ns * (1 + 5e-5) + 60 * S,
            delays_s=(0.0, 0.01),
            line=lambda stamp, watts: f"{stamp},{watts:.4f},{2 * watts:.4f}",
        )
        channels = [
            {
                "name": f"gpu.{number}",
                "kind": "gpu",
                "device_id": GPUS[number].uuid,
                "power": [str(number + 2)],
                "resolution_w": 1e-4,
            }
            for number in range(2)
        ]
        with OverTcp(stream) as instrument:
            yield InstrumentMeter(options(instrument.url, time={"column": "1", "unit": "ns"}, channels=channels))

    @pytest.fixture(scope="class")
    def devices(self):
        return GPUS[:2]

    @pytest.fixture(scope="class")
    def truths(self, truth):
        return {GPUS[0].uuid: truth}

    @pytest.fixture
    def failing(self):
        with OverTcp(Stream(until=lambda number: number > 20), connections=1) as instrument:
            channels = [{"name": "gpu.0", "kind": "gpu", "device_id": GPUS[0].uuid, "power": ["2"]}]
            meter = InstrumentMeter(options(instrument.url, time=MONOTONIC, channels=channels, reconnects=0))
            session = meter.open(GPUS[:1])
            deadline = time.monotonic() + PATIENCE_S
            with suppress(MeterError):  # from here on it fails
                while time.monotonic() < deadline:
                    session.read(session.sources[0])
            yield session
            session.close()


# ---- whole runs ----


def configuration(**meter):
    return OmegaConf.create(
        {
            "model": {"name": "lenet"},
            "dataset": {"name": "tiny"},
            "engine": {"name": "standin", "step_s": 0.05},
            "meter": {"name": "scripted", **meter},
            "gpu": {"name": "pascal", "count": 1},
            "batch": 8,
            "budget": {"epochs": 2},
            "measure": {"baseline_s": 0.0, "warmup_steps": 0},
            "tracking": {"name": "none"},
        }
    )


def planned(**meter):
    registry = Registry()
    return prepare(resolve(configuration(**meter), registry), Machine(registry))


@pytest.mark.usefixtures("fakes")
class TestRuns:
    def test_a_meter_at_the_wall_stands_beside_and_is_not_added(self, tmp_path):
        with OverTcp(Stream(lambda ns: 400.0, every_s=0.05)) as instrument:
            wall = {"name": "instrument", "url": instrument.url, "time": MONOTONIC, "channels": [WALL],
                    "gain_uncertainty": 0.01}  # fmt: skip
            result = execute(planned(also={"plug": wall}), Place(tmp_path), Silent())
        assert result.status == "finished", result.failure
        metrics, seconds = result.metrics, result.metrics["time_s"]
        assert metrics["energy_j"] == metrics["energy_j.gpu.2"] == pytest.approx(100.0 * seconds, rel=0.02)
        assert metrics["energy_j.wall.0"] == pytest.approx(400.0 * seconds, rel=0.001)
        assert (result.tags["meter"], result.tags["energy_scope"]) == ("scripted", "gpu")
        wall = next(channel for channel in result.provenance["channels"] if channel["name"] == "wall.0")
        assert wall["contains"] == ["cpu", "gpu"]
        trained = [phase for phase in result.phases if phase.name == "train"]
        assert all(phase.channels["wall.0"].coverage == 1.0 for phase in trained)

    def test_it_is_the_meter_of_the_card_that_trains(self, tmp_path):
        channel = {"name": "gpu.0", "kind": "gpu", "device_id": GPUS[2].uuid, "power": ["2"]}
        with OverTcp(Stream(lambda ns: 250.0)) as instrument:
            meter = {
                "name": "instrument",
                "url": instrument.url,
                "time": MONOTONIC,
                "channels": [channel, WALL],
                "gain_uncertainty": 0.01,
                "calibration": {GPUS[2].uuid: {"gain": 1.25, "gain_uncertainty": 0.001}},
            }
            result = execute(planned(**meter), Place(tmp_path), Silent())
        assert result.status == "finished", result.failure
        assert result.metrics["energy_j"] == pytest.approx(200.0 * result.metrics["time_s"], rel=0.001)
        assert result.metrics["energy_j.wall.0"] == pytest.approx(250.0 * result.metrics["time_s"], rel=0.001)

    @pytest.mark.parametrize(
        ("meter", "words"),
        [
            ({"also": {"plug": {"name": "instrument"}}}, "meter.also.plug: .*give meter.url"),
            ({"also": {"again": {"name": "scripted"}}}, "meter.also.again: its channel 'gpu.2' is of kind 'gpu'"),
            ({"name": "instrument", "url": "x", "gain_uncertainty": 0.1, "channels": [WALL]}, "does not read the gpu"),
        ],
    )
    def test_what_would_count_twice_or_not_at_all_is_refused(self, meter, words):
        with pytest.raises(MeterError, match=words):
            planned(**meter)

    def test_two_channels_of_one_name_are_refused(self, tmp_path):
        path = tmp_path / "log"
        path.write_text(f"{time.monotonic_ns()},50\n")
        wall = {"name": "instrument", "url": str(path), "time": MONOTONIC, "channels": [WALL], "gain_uncertainty": 0.01}
        with pytest.raises(MeterError, match=r"another meter has a channel 'wall.0'"):
            planned(also={"one": wall, "two": wall})

    def test_from_the_command_line(self, tmp_path):
        """A CPU run by its estimate, with a meter at the wall beside; nothing else is asked of the user."""
        with OverTcp(Stream(lambda ns: 90.0)) as instrument:
            words = [
                *("model=lenet", "dataset=tiny", "engine=standin", "gpu=cpu", "meter=tdp", "meter.tdp_w=50", "batch=8"),
                *("tracking=none", "budget.epochs=1", "measure.baseline_s=0", "engine.step_s=0.05"),
                f"+meter.also.instrument.url={instrument.url}",
                "+meter.also.instrument.time={column: 1, unit: ns, clock: monotonic}",
                '+meter.also.instrument.channels=[{name: wall.0, contains: [cpu], power: ["2"]}]',
                "+meter.also.instrument.gain_uncertainty=0.01",
                f"hydra.run.dir={tmp_path}/run",
            ]
            done = subprocess.run(
                [sys.executable, "-m", "energybench", *words],
                cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=120,
            )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        metrics = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
        assert metrics["energy_j"] == pytest.approx(50.0 * metrics["time_s"])
        assert metrics["energy_j.wall.0"] == pytest.approx(90.0 * metrics["time_s"], rel=0.001)


def test_energy_of_a_slow_meter_over_a_whole_window(opened):
    """400 ms between two samples, a window that ends anywhere: it is covered to its end."""
    with OverTcp(Stream(ramp, every_s=0.4)) as instrument:
        session = opened(instrument.url, time=MONOTONIC)
        sampler = Sampler(session)
        with sampler:
            begin_ns = time.monotonic_ns()
            time.sleep(1.7)
            end_ns = time.monotonic_ns()
        (channel,) = session.channels
        energy = Timeline(channel, session.sources, sampler.readings()).energy(begin_ns, end_ns)
    middle_w = ramp((begin_ns + end_ns) / 2)
    assert energy.coverage == 1.0
    assert energy.energy_j == pytest.approx(middle_w * (end_ns - begin_ns) / S, rel=0.002)


def test_the_file_of_its_options_is_shipped():
    assert (Path(__file__).parents[2] / "conf/meter/instrument.yaml").exists()
