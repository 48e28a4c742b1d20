"""meter.calibration: which way round it goes, what it does to energy and uncertainty, and that readings stay raw."""

import json

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from scripted import GPUS
from views import Silent

from energybench.config import resolve
from energybench.errors import ConfigError
from energybench.experiment import Experiment
from energybench.power.calibration import Calibration, calibrated
from energybench.power.meter import Channel, Reading, Sample, Source
from energybench.power.timeline import Timeline
from energybench.registry import Registry
from energybench.run.execute import Place, execute
from energybench.run.preflight import Machine, prepare

S = 1_000_000_000
UUID = "GPU-1"
CHANNEL = Channel("gpu.0", "gpu", UUID, gain_uncertainty=0.03, origin="a sensor; gain uncertainty 0.03, assumed")
COUNTER = Source("gpu.0", "counter", "energy_j", 0.1, wraps_at_j=5000.0, resolution=1e-3)
POWER = Source("gpu.0", "usage", "power_w", 0.1)


class OneChannel:
    """A session that is asked for its channels only."""

    channels = (CHANNEL, Channel("gpu.1", "gpu", "GPU-2", gain_uncertainty=0.03))
    sources = (COUNTER, POWER)
    closed = 0

    def read(self, source):
        return [Sample(102.0)]

    def close(self):
        self.closed += 1


def corrected_channel(**calibration):
    return calibrated(OneChannel(), {UUID: Calibration(**calibration)}).channels[0]


def reading(source, time_s, value):
    time_ns = round(time_s * S)
    return Reading("gpu.0", source.name, source.quantity, time_ns, time_ns, value)


def test_a_sensor_that_reads_two_per_cent_and_one_watt_too_much():
    """The documented example: truly 200 W, gain 1.02 and offset 1.5 W, so that it reads 205.5 W."""
    channel = corrected_channel(gain=1.02, offset_w=1.5, gain_uncertainty=0.005)
    readings = [reading(POWER, i / 10, 205.5) for i in range(101)]
    energy = Timeline(channel, [POWER], readings).energy(0, 10 * S)
    assert energy.energy_j == pytest.approx(2000.0)
    assert energy.power_mean_w == pytest.approx(200.0)
    assert energy.power_peak_w == pytest.approx(200.0)
    assert energy.common_u_j == pytest.approx(0.005 * 2000.0)
    assert energy.coverage == 1.0


def test_a_counter_that_wraps_and_stands_still_between_two_updates():
    """Truly 200 W; the counter is renewed each second and read ten times as often, and wraps at 5000 J."""
    channel = corrected_channel(gain=1.02, offset_w=1.5, gain_uncertainty=0.005)
    readings = [reading(COUNTER, i / 10, (4000 + 205.5 * (i // 10)) % 5000.001) for i in range(301)]
    raw = Timeline(CHANNEL, [COUNTER], readings).energy(0, 30 * S)
    energy = Timeline(channel, [COUNTER], readings).energy(0, 30 * S)
    assert raw.energy_j == pytest.approx(205.5 * 30, rel=0.001)
    assert energy.energy_j == pytest.approx((raw.energy_j - 1.5 * 30) / 1.02)
    assert energy.independent_u_j == pytest.approx(raw.independent_u_j / 1.02)


def test_the_offset_counts_where_readings_cover_and_nowhere_else():
    channel = corrected_channel(offset_w=10.0, gain_uncertainty=0.01)
    readings = [reading(POWER, i / 10, 110.0) for i in range(51)]
    energy = Timeline(channel, [POWER], readings).energy(0, 10 * S)
    assert energy.coverage == pytest.approx(0.5)
    assert energy.energy_j == pytest.approx(500.0)


def test_where_nothing_was_read_nothing_is_corrected():
    channel = corrected_channel(offset_w=10.0, gain_uncertainty=0.01)
    energy = Timeline(channel, [POWER], []).energy(0, 10 * S)
    assert (energy.energy_j, energy.common_u_j, energy.coverage) == (None, None, 0.0)


@given(
    gain=st.floats(0.5, 2.0),
    offset_w=st.floats(-20.0, 20.0),
    powers_w=st.lists(st.floats(50.0, 700.0), min_size=12, max_size=12),
    cut_s=st.floats(0.1, 0.9),
)
def test_it_finds_the_truth_again_and_stays_additive(gain, offset_w, powers_w, cut_s):
    channel = corrected_channel(gain=gain, offset_w=offset_w, gain_uncertainty=0.01)
    told = [reading(POWER, i / 10, gain * power_w + offset_w) for i, power_w in enumerate(powers_w)]
    truly = [reading(POWER, i / 10, power_w) for i, power_w in enumerate(powers_w)]
    line, truth = Timeline(channel, [POWER], told), Timeline(CHANNEL, [POWER], truly)
    middle = round(cut_s * S)
    whole = line.energy(0, S).energy_j
    assert whole == pytest.approx(truth.energy(0, S).energy_j)
    assert whole == pytest.approx(line.energy(0, middle).energy_j + line.energy(middle, S).energy_j)


def test_the_channel_says_so_and_the_readings_stay_raw():
    inner = OneChannel()
    session = calibrated(inner, {UUID: Calibration(1.02, 1.5, 0.005, "WT310 of March"), "GPU-elsewhere": Calibration(
        gain_uncertainty=0.0)})  # fmt: skip
    first, second = session.channels
    assert first.gain_uncertainty == 0.005
    assert first.origin.endswith(
        "corrected by meter.calibration: true = (reading - 1.5 W) / 1.02, gain uncertainty 0.005 (k = 1), "
        "WT310 of March, in place of the meter's own"
    )
    assert second == inner.channels[1]
    assert session.read(POWER) == [Sample(102.0)]
    assert session.sources == inner.sources
    session.close()
    assert inner.closed == 1


def test_without_a_calibration_a_session_is_itself():
    session = OneChannel()
    assert calibrated(session, {}) is session


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"gain": 1.02}, "gain_uncertainty=None: give the relative standard uncertainty"),
        ({"gain_uncertainty": -0.1}, "gain_uncertainty=-0.1"),
        ({"gain_uncertainty": 0.01, "gain": 0}, "gain=0"),
        ({"gain_uncertainty": 0.01, "gain": -1}, "gain=-1"),
        ({"gain_uncertainty": 0.01, "offset_w": float("nan")}, "offset_w=nan"),
    ],
)
def test_one_that_makes_no_sense_is_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        Calibration(**values)


def configuration(**meter):
    return OmegaConf.create(
        {
            "model": {"name": "lenet"},
            "dataset": {"name": "tiny"},
            "engine": {"name": "standin"},
            "meter": {"name": "scripted", **meter},
            "gpu": {"name": "pascal", "count": 2},
            "batch": 8,
            "budget": {"epochs": 1},
            "measure": {"baseline_s": 0.0, "warmup_steps": 0},
            "tracking": {"name": "none"},
        }
    )


@pytest.mark.usefixtures("fakes")
class TestRuns:
    def test_a_run_is_corrected_and_its_trace_is_not(self, tmp_path):
        """Of two boards one reads 25 % too much."""
        calibration = {GPUS[2].uuid: {"gain": 1.25, "gain_uncertainty": 0.002, "reference": "a shunt"}}
        registry = Registry()
        experiment = resolve(configuration(calibration=calibration), registry)
        assert Experiment.from_json(json.loads(json.dumps(experiment.to_json()))) == experiment
        result = execute(prepare(experiment, Machine(registry)), Place(tmp_path), Silent())
        seconds = result.metrics["time_s"]
        assert result.metrics["energy_j.gpu.2"] == pytest.approx(80.0 * seconds, rel=0.01)
        assert result.metrics["energy_j.gpu.3"] == pytest.approx(100.0 * seconds, rel=0.01)
        assert result.metrics["energy_j"] == pytest.approx(180.0 * seconds, rel=0.01)
        first, second = result.provenance["channels"]
        assert first["calibration"] == {"offset_w": 0.0, **calibration[GPUS[2].uuid]}
        assert second["calibration"] is None
        rows = [row for row in pq.read_table(tmp_path / "power.parquet").to_pylist() if row["channel"] == "gpu.2"]
        raw_w = (rows[-1]["value"] - rows[0]["value"]) / (rows[-1]["read_start_ns"] - rows[0]["read_start_ns"]) * S
        assert raw_w == pytest.approx(100.0, rel=0.01)

    @pytest.mark.parametrize(
        ("meter", "words"),
        [
            ({"calibration": {"GPU-1": {"gian": 1.0}}}, "did you mean 'meter.calibration.GPU-1.gain'"),
            ({"calibration": {"GPU-1": {"gain": 1.0}}}, "meter.calibration.GPU-1: gain_uncertainty=None"),
            ({"calibration": {"GPU-1": {"gain": "much"}}}, "meter.calibration.GPU-1.gain=much: give a number"),
            ({"calibration": {"GPU-1": 1.02}}, "give a mapping"),
            ({"calibration": 1.02}, "meter.calibration=1.02: give a mapping"),
            ({"calibratoin": {}}, "did you mean 'meter.calibration'.*meter.watts.*meter.calibration, meter.also"),
            ({"also": {"tdp": {"tpd_w": 5}}}, "did you mean 'meter.also.tdp.tdp_w'"),
            ({"also": {"watt": {}}}, "meter 'watt' is not registered"),
            ({"also": {"auto": {}}}, "meter 'auto' is not registered"),
            ({"also": {"tdp": {"also": {}}}}, "unknown key 'meter.also.tdp.also'"),
            ({"also": ["tdp"]}, "give a mapping"),
        ],
    )
    def test_it_is_refused_in_one_line(self, meter, words):
        with pytest.raises(ConfigError, match=words) as caught:
            resolve(configuration(**meter), Registry())
        assert "\n" not in str(caught.value)
