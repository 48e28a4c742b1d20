"""Whatever a tool or an instrument prints is a finite number with a time, or a failure in words; readers live on."""

from __future__ import annotations

import math
import time

import hypothesis.strategies as st
import pytest
from hypothesis import given
from junk import examples

from energybench.errors import MeterError
from energybench_plugins.meters import nvidia_smi_tool
from energybench_plugins.meters.instrument_lines import Lines, UnreadableLineError
from energybench_plugins.meters.instrument_options import InstrumentChannel, InstrumentOptions, TimeOptions
from energybench_plugins.meters.instrument_time import timekeeper
from energybench_plugins.meters.nvidia_smi_stream import Stream

GOOD = "2026/11/25 12:00:00.000, GPU-a, 100.00"
UUIDS = ["GPU-a", "GPU-b", "[GPU is lost]", "[Unknown Error]", "GPU-c", "", "[", "GPU-a\r"]
STAMPS = ["2026/11/25 12:00:00.000", "2026/11/25 12:00:00.100", "9999/99/99 99:99:99.999", "0000/00/00 00:00:00.000"]
NUMBERS = [
    "1",
    "100.00",
    "-5",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "1_0",
    "[N/A]",
    "[GPU is lost]",
    "٣",
    "",
    "0x10",
    "1e-400",
]
CELLS = st.sampled_from(NUMBERS) | st.floats().map(str) | st.text(max_size=6).map(lambda text: text.replace("\n", " "))
LINES = st.one_of(
    st.builds("{}, {}, {}".format, st.sampled_from(STAMPS) | CELLS, st.sampled_from(UUIDS), CELLS),
    st.lists(CELLS, max_size=5).map(", ".join),
    st.just(GOOD),
    st.binary(max_size=20).map(lambda data: data.decode(errors="replace").replace("\n", " ")),
)


@pytest.fixture(scope="module")
def tool(tmp_path_factory):
    """An nvidia-smi that prints a file: at once, or, asked to go on, after a first good line; then it waits."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "nvidia-smi"
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *-lms*) echo "{GOOD}"; echo "{GOOD}" | sed s/GPU-a/GPU-b/; cat {folder}/said;'
        f' echo; echo "{GOOD}" | sed s/100.00/7.00/; exec sleep 60;; *) cat {folder}/said;; esac\n'
    )
    script.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder), prepend=":")
        yield folder / "said"


@examples(6, 300)
@given(st.lists(LINES, min_size=20, max_size=60))
def test_a_stream_of_nvidia_smi_lives_through_any_line(tool, lines):
    tool.write_bytes("\n".join(lines).encode(errors="replace"))
    stream = Stream(["GPU-a", "GPU-b"], ["usage"], 0.1, 30.0)
    try:
        values, deadline = [], time.monotonic() + 30
        while (not values or values[-1] != 7.0) and time.monotonic() < deadline:
            try:
                samples = stream.take("GPU-a", "usage", 0, 5.0)
            except MeterError as error:
                assert "\n" not in str(error)
                continue
            values += [sample.value for sample in samples]
            assert all(0 < sample.sensor_ns < 2**63 for sample in samples)
        assert values[-1] == 7.0
        assert all(math.isfinite(value) and value >= 0 for value in values)
    finally:
        stream.close()


@examples(30, 1_000)
@given(st.lists(LINES, max_size=5))
def test_an_answer_of_nvidia_smi(tool, lines):
    tool.write_bytes("\n".join(lines).encode(errors="replace"))
    for ask in (
        lambda: nvidia_smi_tool.query(["uuid", "power.draw"], None, 30.0),
        lambda: nvidia_smi_tool.listed(30.0),
    ):
        try:
            ask()
        except MeterError as error:
            assert str(error)


@examples(300, 20_000)
@given(CELLS)
def test_a_power_is_finite_and_not_negative(text):
    try:
        value = nvidia_smi_tool.watts(text)
    except MeterError:
        return
    assert math.isfinite(value) and value >= 0


CLOCKS = [
    TimeOptions("t", "s", "own"),
    TimeOptions("t", "s", "realtime"),
    TimeOptions("t", "ns", "monotonic"),
    TimeOptions("t", "iso8601", "realtime"),
    TimeOptions(),
]
TIMES = st.integers() | st.sampled_from([*STAMPS, "2026-11-25T12:00:00", "1e300"])
ROWS = st.one_of(
    st.lists(CELLS, max_size=4).map(",".join),
    st.builds(
        "{},{},{}".format, st.integers() | st.sampled_from([*STAMPS, "2026-11-25T12:00:00", "1e300"]), CELLS, CELLS
    ),
    st.text(max_size=20),
    st.just("t,v,a"),
    st.just("# a remark"),
)


@pytest.mark.parametrize("clock", range(len(CLOCKS)))
@examples(40, 4_000)
@given(rows=st.lists(ROWS, min_size=1, max_size=20))
def test_an_instruments_lines(clock, rows):
    options = InstrumentOptions(channels=[InstrumentChannel(power=["v*a"], scale=1e10)], time=CLOCKS[clock])
    arrival_ns = time.monotonic_ns()
    lines, keeper = Lines(options), timekeeper(options, arrival_ns)
    for number, text in enumerate(["t,v,a", *rows]):
        arrival_ns += 10**8 * (number % 2)
        try:
            row = lines.row(text)
        except UnreadableLineError as error:
            assert str(error)
            continue
        if row is None:
            continue
        assert all(math.isfinite(watts) for watts in row.watts)
        for placed in keeper.take([row], arrival_ns):
            assert abs(placed.time_ns) < 2**63
    try:
        keeper.settled()
    except MeterError as error:
        assert "\n" not in str(error)
