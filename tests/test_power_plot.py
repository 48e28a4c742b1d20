"""The power plot: what is drawn of a trace, and that the picture says what the numbers mean."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from energybench.errors import DataError
from energybench.power.meter import Channel, Reading
from energybench.power.series import by_source
from energybench.power.trace import write_trace
from energybench.power_plot import _chosen, _title, downsample, plot_power, power
from energybench.run.result import PLOT_FILE, ChannelEnergy, Phase, Result

SECOND = 1_000_000_000
PNG = b"\x89PNG"


def reading(time_s, value, channel="gpu.0", source="instant", quantity="power_w"):
    time_ns = int(time_s * SECOND)
    return Reading(channel, source, quantity, time_ns, time_ns, value, status="ok" if value is not None else "lost")


def counter(pairs):
    return [reading(time_s, value, source="counter", quantity="energy_j") for time_s, value in pairs]


def phase(name, start_s, end_s, epoch=None, channels=None):
    return Phase(name, epoch, int(start_s * SECOND), int(end_s * SECOND), True, channels or {}, {})


def energy(source, estimated=False):
    return ChannelEnergy(100.0, 1.0, 2.0, 50.0, 60.0, 10, 0.1, 1.0, source, estimated)


def result(phases=(), **changes):
    values = {
        "run_id": "1",
        "status": "finished",
        "failure": None,
        "config": {"model": {"name": "lenet"}, "batch": 64},
        "started_at": "2026-01-02T03:04:05+00:00",
        "ended_at": "2026-01-02T03:04:15+00:00",
        "phases": tuple(phases),
    }
    return Result(**{**values, **changes})


def columns(rows):
    [one] = by_source(rows).values()
    return one


def test_power_as_read_with_a_gap():
    times_ns, power_w = power(columns([reading(1, 10.0), reading(2, None), reading(3, 30.0)]))
    assert times_ns.tolist() == [1e9, 2e9, 3e9]
    np.testing.assert_array_equal(power_w, [10.0, np.nan, 30.0])


def test_counter_as_differences():
    times_ns, power_w = power(columns(counter([(0, 5.0), (1, 15.0), (3, 75.0)])))
    assert times_ns.tolist() == [0, 1e9, 3e9]
    np.testing.assert_array_equal(power_w, [np.nan, 10.0, 30.0])


def test_counter_read_faster_than_it_is_updated():
    _, power_w = power(columns(counter([(0, 0.0), (0.5, 0.0), (1, 10.0), (1.5, 10.0), (2, 20.0)])))
    np.testing.assert_array_equal(power_w, [np.nan, 10.0, 10.0])


def test_counter_that_wraps_or_fails_leaves_a_gap():
    _, power_w = power(columns(counter([(0, 90.0), (1, 100.0), (2, 3.0), (3, None), (4, 23.0), (5, 43.0)])))
    np.testing.assert_array_equal(power_w, [np.nan, 10.0, np.nan, np.nan, np.nan, 20.0])


def test_downsampling_keeps_extremes_gaps_and_order():
    values = np.full(1_000_000, 100.0)
    values[[123_456, 654_321, 777_777]] = (500.0, 1.0, np.nan)
    times_ns, kept = downsample(np.arange(1_000_000, dtype=float), values)
    assert len(kept) <= 3000
    assert (np.nanmax(kept), np.nanmin(kept), np.isnan(kept).sum()) == (500.0, 1.0, 1)
    assert (np.diff(times_ns) > 0).all()
    assert times_ns[kept == 500.0] == 123_456


def test_a_short_series_is_drawn_as_it_is():
    series = np.arange(10.0), np.arange(10.0)
    assert downsample(*series) is not series
    np.testing.assert_array_equal(downsample(*series), series)


def test_the_source_of_the_energy_is_drawn():
    readings = [reading(1, 10.0), *counter([(1, 0.0)]), reading(1, 5.0, "cpu.0", "usage")]
    measured = result([phase("train", 0, 2, channels={"gpu.0": energy("counter")})])
    assert {name: one.source for name, one in _chosen(measured, by_source(readings).values()).items()} == {
        "gpu.0": "counter",
        "cpu.0": "usage",
    }
    assert _chosen(result(), by_source(readings).values())["gpu.0"].source == "instant"


@pytest.mark.parametrize(
    ("metrics", "tags", "second_line"),
    [
        ({}, {}, "training energy: not known"),
        ({"energy_j": 1234.56, "energy_uncertainty_j": 12.3}, {}, "training: 1,235 ± 12 J"),
        ({"energy_j": 1.2345, "energy_uncertainty_j": 0.0123}, {}, "training: 1.234 ± 0.012 J"),
        ({"energy_j": 12.345}, {}, "training: 12.345 J"),
        ({"energy_j": 0.0, "energy_uncertainty_j": 0.0}, {}, "training: 0 ± 0 J"),
        (
            {"energy_j": 500.0, "energy_uncertainty_j": 250.0},
            {"energy_scope": "cpu", "energy_source": "estimated"},
            "training: 500 ± 250 J (cpu, estimated)",
        ),
    ],
)
def test_title(metrics, tags, second_line):
    assert _title(result(metrics=metrics, tags=tags)).splitlines() == ["lenet batch=64", second_line]


def test_nothing_to_draw(tmp_path):
    assert plot_power(result(), tmp_path) is None
    write_trace(tmp_path / "power.parquet", by_source([reading(1, None)]), [])
    assert plot_power(result(), tmp_path) is None
    assert not (tmp_path / PLOT_FILE).exists()


def test_a_damaged_trace_is_named(tmp_path):
    (tmp_path / "power.parquet").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"power\.parquet"):
        plot_power(result(), tmp_path)


def busy_run(directory):
    """A GPU counter, a GPU power sensor and an estimated CPU over a whole run; also drawn to be looked at."""
    generator = np.random.default_rng(0)
    times_s = np.arange(0, 60, 0.02)
    watts = np.where(times_s < 10, 70, np.where(times_s < 14, 110, 330)) + generator.normal(0, 8, len(times_s))
    watts[(times_s > 30) & (times_s % 12 > 10)] -= 120
    joules = np.cumsum(watts) * 0.02
    readings = counter(zip(times_s, np.floor(joules / 10) * 10, strict=True))
    readings += [reading(t, float(w)) for t, w in zip(times_s, watts, strict=True)]
    readings += [reading(t, 45.0 + 5 * (t > 10), "cpu.0", "usage") for t in times_s[::10]]
    write_trace(directory / "power.parquet", by_source(readings), [Channel("gpu.0", "gpu", "GPU-1")])
    channels = {"gpu.0": energy("instant"), "cpu.0": energy("usage", estimated=True)}
    phases = [phase("idle", 0, 8), phase("load", 8, 11), phase("compile", 11, 13), phase("warmup", 13, 14)]
    for epoch in range(1, 5):
        start_s = 14 + (epoch - 1) * 11
        phases.append(phase("train", start_s, start_s + 9, epoch, channels))
        phases.append(phase("validate", start_s + 9, start_s + 11, epoch, channels))
    numbers = {"energy_j": 11_880.0, "energy_uncertainty_j": 354.2}
    return result(phases, metrics=numbers, tags={"energy_scope": "gpu", "energy_source": "measured"})


def test_picture(tmp_path):
    picture = plot_power(busy_run(tmp_path), tmp_path)
    assert picture == tmp_path / PLOT_FILE
    assert picture.read_bytes().startswith(PNG)
    assert picture.stat().st_size > 10_000


def test_drawing_leaves_pyplot_alone(tmp_path):
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'tests')\n"
        "from test_power_plot import busy_run, plot_power\n"
        "assert 'matplotlib' not in sys.modules\n"
        "path = Path(sys.argv[1]); assert plot_power(busy_run(path), path)\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
