"""Windows that begin and end with their load, on cells of 100 ms whose energy alone is known."""

import numpy as np
import pytest

from energybench.power.meter import Channel, Reading, Source
from energybench.power.timeline import Timeline

GPU = Channel("gpu.0", "gpu", "GPU-1")
START_NS = 10**12


def told(power_w, tick_s=0.1, late_s=0.0):
    """The timeline of a counter that stamps its ticks, which has seen mean powers `power_w`."""
    source = Source("gpu.0", "counter", "energy_j", tick_s, update_s=tick_s, time_uncertainty_s=late_s)
    joules = np.concatenate(([0.0], np.cumsum(power_w))) * tick_s
    times_ns = [START_NS + round(i * tick_s * 1e9) for i in range(len(joules))]
    rows = [
        Reading("gpu.0", "counter", "energy_j", at, at, one, sensor_ns=at)
        for at, one in zip(times_ns, joules, strict=True)
    ]
    return Timeline(GPU, [source], rows)


def ask(line, start_s, end_s):
    return line.energy(START_NS + round(start_s * 1e9), START_NS + round(end_s * 1e9))


def burst(start_s, end_s, low_w=100.0, high_w=700.0, ticks=40):
    """Mean powers of the ticks around one burst."""
    edges = np.arange(ticks + 1) * 0.1
    inside = np.clip(np.minimum(edges[1:], end_s) - np.maximum(edges[:-1], start_s), 0, None)
    return low_w + (high_w - low_w) * inside / 0.1


@pytest.mark.parametrize("span_s", [(2.03, 2.08), (2.075, 2.125), (2.05, 2.15), (2.02, 2.23), (2.07, 2.58)])
def test_a_burst_that_is_the_window_lies_within_what_is_stated(span_s):
    found = ask(told(burst(*span_s)), *span_s)
    missing_j = 700 * (span_s[1] - span_s[0]) - found.energy_j
    assert 0 <= missing_j <= 2 * found.independent_u_j


def test_a_window_somewhere_in_steady_power_is_in_no_more_doubt():
    steady = ask(told(np.full(40, 300.0)), 2.03, 2.18)
    assert steady.energy_j == pytest.approx(45) and steady.independent_u_j < 0.002 * 45


def test_a_ramp_loses_at_one_edge_what_it_has_too_much_at_the_other():
    ramp = ask(told(np.arange(40) * 10.0 + 100), 1.05, 2.05)
    assert ramp.energy_j == pytest.approx(250)
    assert ramp.independent_u_j <= 0.006 * ramp.energy_j


def test_a_burst_told_late_is_doubted_by_the_whole_step_at_its_edges():
    """However gently the course is drawn between means of 20 ms."""
    times, high = np.arange(200) * 0.02, slice(100, 110)
    power_w = np.full(200, 100.0)
    power_w[high] = 700.0
    power_w[[99, 110]] = 400.0  # half of a step in each
    late_s = 0.005
    span_s = times[99] + 0.01, times[110] + 0.01
    surely = ask(told(power_w, 0.02), *span_s)
    found = ask(told(power_w, 0.02, late_s), *span_s)
    more_j = np.sqrt(found.independent_u_j**2 - surely.independent_u_j**2)
    assert more_j >= 0.8 * late_s * 600


def test_the_edges_of_what_was_read_are_no_jump():
    assert ask(told(np.full(20, 300.0)), 0.0, 2.0).independent_u_j < 0.002 * 600
    beyond = ask(told(np.full(20, 300.0)), -1.0, 3.0)
    assert beyond.energy_j == pytest.approx(600) and beyond.independent_u_j < 0.002 * 600
