import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energybench.power.meter import Channel, Reading, Source
from energybench.power.timeline import Timeline, gap_limit_s

SECOND_NS = 1_000_000_000
START_NS = 5_000 * SECOND_NS
GPU = Channel("gpu.0", "gpu", "GPU-1", gain_uncertainty=0.05)


def ns(seconds):
    return START_NS + round(seconds * 1e9)


def source(name="instant", quantity="power_w", **keys):
    return Source("gpu.0", name, quantity, **{"period_s": 0.1, **keys})


LINEAR = source()
HOLD = source("usage", interpolation="hold")
CONSTANT = source("constant", interpolation="hold", period_s=1.0)
COUNTER = source("counter", "energy_j")


def reading(of, seconds, value, status="ok", read_s=0.0):
    start_ns = ns(seconds - read_s / 2)
    return Reading(of.channel, of.name, of.quantity, start_ns, start_ns + round(read_s * 1e9), value, status=status)


def readings(of, points):
    return [reading(of, seconds, value) for seconds, value in points]


def timeline(of, points):
    return Timeline(GPU, [of], readings(of, points))


def energy(of, points, start_s, end_s):
    return timeline(of, points).energy(ns(start_s), ns(end_s))


def every(period_s, end_s, value):
    """Readings every `period_s` from 0 to `end_s`, of value(seconds)."""
    return [(i * period_s, value(i * period_s)) for i in range(round(end_s / period_s) + 1)]


# --- power -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [LINEAR, HOLD])
def test_constant_200_w_for_10_s_is_2000_j(of):
    found = energy(of, every(0.1, 10, lambda s: 200.0), 0, 10)
    assert found.energy_j == pytest.approx(2000)
    assert found.power_mean_w == pytest.approx(200)
    assert found.power_peak_w == 200
    assert found.coverage == 1
    assert found.readings == 101
    assert found.longest_gap_s == pytest.approx(0.1)
    assert found.independent_u_j == 0
    assert found.common_u_j == pytest.approx(100)
    assert found.source == of.name and not found.estimated


def test_a_ramp_is_exact():
    found = energy(LINEAR, every(0.1, 10, lambda s: 30 * s), 2.03, 7.77)
    assert found.energy_j == pytest.approx(15 * (7.77**2 - 2.03**2))


def test_a_step_between_two_readings_is_shared_and_its_doubt_stated():
    found = energy(LINEAR, every(0.1, 10, lambda s: 100.0 if s < 4.95 else 300.0), 0, 10)
    assert found.energy_j == pytest.approx(100 * 4.95 + 300 * 5.05)
    assert found.independent_u_j == pytest.approx(200 * 0.1 / math.sqrt(12))


def test_a_step_at_one_instant_is_exact():
    found = energy(LINEAR, [(0, 100.0), (0.5, 100.0), (0.5, 300.0), (1, 300.0)], 0, 1)
    assert found.energy_j == pytest.approx(200) and found.readings == 3


def test_a_held_step_changes_at_its_reading():
    found = energy(HOLD, [(0, 100.0), (0.5, 300.0), (0.9, 0.0)], 0.25, 0.75)
    assert found.energy_j == pytest.approx(100 * 0.25 + 300 * 0.25)


def test_a_window_shorter_than_the_period_is_interpolated():
    found = energy(LINEAR, [(0, 100.0), (1, 200.0)], 0.4, 0.6)
    assert found.energy_j == pytest.approx(150 * 0.2)
    assert (found.readings, found.coverage) == (0, 1)
    assert found.longest_gap_s == pytest.approx(0.2)


def test_a_single_reading_of_a_line_covers_nothing():
    found = energy(LINEAR, [(1, 100.0)], 0, 2)
    assert (found.energy_j, found.coverage, found.readings) == (None, 0, 1)


def test_a_single_held_reading_counts_until_the_limit():
    found = energy(HOLD, [(1, 100.0)], 0, 5)
    assert found.energy_j == pytest.approx(100 * gap_limit_s(HOLD))
    assert found.coverage == pytest.approx(gap_limit_s(HOLD) / 5)
    assert found.longest_gap_s == pytest.approx(4)


def test_a_constant_holds_for_ever():
    found = energy(CONSTANT, [(0, 65.0)], 1, 36_001)
    assert found.energy_j == pytest.approx(65 * 36_000)
    assert (found.coverage, found.independent_u_j) == (1, 0)


def test_a_constant_holds_until_it_fails_and_from_when_it_is_back():
    rows = [reading(CONSTANT, 0, 65.0), reading(CONSTANT, 10, None, "gone"), reading(CONSTANT, 15, 65.0)]
    found = Timeline(GPU, [CONSTANT], rows).energy(ns(0), ns(20))
    assert found.energy_j == pytest.approx(65 * 15) and found.coverage == pytest.approx(0.75)


def test_a_constant_says_nothing_of_the_time_before_it():
    assert energy(CONSTANT, [(10, 65.0)], 0, 20).coverage == pytest.approx(0.5)


def test_the_peak_is_the_highest_reading_that_touches_the_window():
    points = [(0, 900.0), (0.1, 100.0), (0.2, 400.0), (0.3, 100.0), (0.4, 800.0)]
    assert energy(LINEAR, points, 0.1, 0.3).power_peak_w == 400
    assert energy(HOLD, points, 0.05, 0.15).power_peak_w == 900


# --- gaps and failures -----------------------------------------------------------------------------------------------


def test_the_limit_is_five_periods_but_at_least_a_second():
    assert gap_limit_s(source(period_s=0.02)) == 1.0
    assert gap_limit_s(source(period_s=1.0)) == 5.0


@pytest.mark.parametrize("of", [LINEAR, COUNTER])
def test_a_gap_is_not_bridged_and_is_reported(of):
    value = (lambda s: 100.0) if of is LINEAR else (lambda s: 100.0 * s)
    points = [point for point in every(0.1, 10, value) if not 4.05 < point[0] < 6.95]
    found = energy(of, points, 0, 10)
    assert found.longest_gap_s == pytest.approx(3)
    assert found.coverage == pytest.approx(0.7)
    assert found.energy_j == pytest.approx(700)
    assert found.power_mean_w == pytest.approx(100)


def test_a_held_value_covers_the_beginning_of_a_gap():
    found = energy(HOLD, [(0, 100.0), (4, 100.0), (4.5, 100.0)], 0, 4.5)
    assert found.energy_j == pytest.approx(150) and found.longest_gap_s == pytest.approx(4)


def test_a_window_inside_a_gap_has_no_energy():
    found = energy(LINEAR, [(0, 100.0), (10, 100.0)], 4, 6)
    assert (found.energy_j, found.power_mean_w, found.power_peak_w) == (None, None, None)
    assert (found.independent_u_j, found.common_u_j) == (None, None)
    assert (found.coverage, found.readings, found.source) == (0, 0, "instant")
    assert found.longest_gap_s == pytest.approx(2)


def test_edges_without_readings_are_not_covered():
    found = energy(LINEAR, every(0.1, 10, lambda s: 100.0), -5, 15)
    assert found.energy_j == pytest.approx(1000)
    assert found.coverage == pytest.approx(0.5) and found.longest_gap_s == pytest.approx(5)


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_failures_count_as_nothing_and_never_as_zero(bad):
    rows = readings(LINEAR, every(0.1, 1, lambda s: 100.0))
    rows[4] = reading(LINEAR, 0.4, bad, "lost")
    found = Timeline(GPU, [LINEAR], rows).energy(ns(0), ns(1))
    assert found.energy_j == pytest.approx(100)
    assert found.readings == 10 and found.longest_gap_s == pytest.approx(0.2)


def test_nothing_but_failures_is_no_energy():
    rows = [reading(LINEAR, seconds, None, "lost") for seconds in range(5)]
    found = Timeline(GPU, [LINEAR], rows).energy(ns(0), ns(4))
    assert (found.energy_j, found.coverage, found.readings) == (None, 0, 0)


def test_no_source_at_all_is_no_energy():
    found = Timeline(GPU, [], []).energy(ns(0), ns(4))
    assert (found.energy_j, found.coverage, found.source, found.longest_gap_s) == (None, 0, "", 4)


@pytest.mark.parametrize("of", [LINEAR, HOLD, COUNTER, CONSTANT])
def test_a_window_without_length_has_no_energy(of):
    found = energy(of, [(0, 1.0), (0.5, 2.0), (1, 3.0)], 0.5, 0.5)
    assert (found.energy_j, found.coverage) == (None, 0)


def test_a_window_that_ends_before_it_starts_is_refused():
    with pytest.raises(ValueError, match="before it starts"):
        timeline(LINEAR, []).energy(ns(1), ns(0))


# --- counters --------------------------------------------------------------------------------------------------------


def test_a_counter_is_exact_at_readings_and_interpolates_between():
    points = [(0, 1000.0), (0.5, 1050.0), (1, 1200.0)]
    assert energy(COUNTER, points, 0, 1).energy_j == pytest.approx(200)
    assert energy(COUNTER, points, 0.25, 0.75).energy_j == pytest.approx(25 + 75)
    assert energy(COUNTER, points, 0.6, 0.7).energy_j == pytest.approx(30)


def test_the_doubt_of_a_counter_lies_at_its_edges():
    long = energy(COUNTER, every(0.1, 100, lambda s: 200 * s), 3.03, 93.03)
    short = energy(COUNTER, every(0.1, 100, lambda s: 200 * s), 3.03, 4.03)
    assert long.independent_u_j == pytest.approx(short.independent_u_j) == pytest.approx(20 / math.sqrt(6))


def test_two_edges_in_one_interval_share_its_doubt():
    found = energy(COUNTER, every(0.1, 1, lambda s: 200 * s), 0.42, 0.48)
    assert found.energy_j == pytest.approx(12)
    assert found.independent_u_j == pytest.approx(20 / math.sqrt(12))
    shorter = energy(COUNTER, every(0.1, 1, lambda s: 200 * s), 0.42, 0.44)
    assert shorter.independent_u_j == pytest.approx(0.4 * found.independent_u_j)


def test_a_missed_update_is_within_the_doubt():
    """Polled as often as it changes, a counter may stand still for one reading and make two steps in the next."""
    points = [(0.0, 0.0), (0.1, 20.0), (0.2, 20.0), (0.3, 60.0), (0.4, 80.0)]
    found = energy(COUNTER, points, 0.1, 0.2)
    assert found.energy_j == 0
    assert found.independent_u_j >= 40 / math.sqrt(12)


def test_a_slow_read_and_a_coarse_counter_add_to_the_doubt():
    rows = [reading(COUNTER, i / 10, 20.0 * i, read_s=0.05) for i in range(11)]
    slow = Timeline(GPU, [COUNTER], rows).energy(ns(0), ns(1))
    assert slow.independent_u_j == pytest.approx(math.sqrt((20**2 + (200 * 0.05) ** 2) / 6))
    coarse = energy(source("counter", "energy_j", resolution=5.0), every(0.1, 1, lambda s: 200 * s), 0, 1)
    assert coarse.independent_u_j == pytest.approx(math.sqrt((20**2 + 5**2) / 6))


def test_the_peak_of_a_counter_is_its_highest_mean():
    points = [(0, 0.0), (0.1, 10.0), (0.2, 50.0), (0.3, 60.0)]
    assert energy(COUNTER, points, 0, 0.3).power_peak_w == pytest.approx(400)


def test_an_update_between_two_reads_close_together_is_no_peak():
    points = [(0, 0.0), (0.1, 20.0), (0.2, 40.0), (0.203, 60.0)]
    assert energy(COUNTER, points, 0, 0.203).power_peak_w == pytest.approx(40 / 0.103)


WRAPPING = source("counter", "energy_j", wraps_at_j=999.0, resolution=1.0)


def test_a_wrap_costs_and_invents_nothing():
    points = [(i / 10, (900 + 20 * i) % 1000) for i in range(200)]
    found = energy(WRAPPING, points, 0, 19.9)
    assert found.energy_j == pytest.approx(20 * 199)
    assert found.coverage == 1 and found.power_peak_w == pytest.approx(200)


def test_a_wrap_between_only_two_readings():
    assert energy(WRAPPING, [(0, 990.0), (1, 15.0)], 0, 1).energy_j == pytest.approx(25)


@pytest.mark.parametrize("of", [COUNTER, WRAPPING, source("counter", "energy_j", wraps_at_j=262_143.0)])
def test_a_reset_is_a_hole_and_neither_negative_nor_invented(of):
    points = [(i / 10, 400 + 2.0 * i) for i in range(50)] + [(5 + i / 10, 2.0 * i) for i in range(51)]
    found = energy(of, points, 0, 10)
    assert found.energy_j == pytest.approx(200 - 2)
    assert found.coverage == pytest.approx(0.99)
    assert found.power_peak_w == pytest.approx(20)


def test_a_reset_near_the_end_of_the_range_is_no_wrap():
    of = source("counter", "energy_j", wraps_at_j=262_143.0)
    points = [(i / 10, 200_000 + 2.0 * i) for i in range(50)] + [(5 + i / 10, 2.0 * i) for i in range(51)]
    assert energy(of, points, 0, 10).energy_j == pytest.approx(200 - 2)


def test_a_slip_to_zero_and_back_invents_nothing():
    points = [(i / 10, 5000 + 2.0 * i) for i in range(101)]
    points[50] = (5, 0.0)
    found = energy(COUNTER, points, 0, 10)
    assert found.energy_j == pytest.approx(200 - 4) and found.coverage == pytest.approx(0.98)


def test_a_counter_that_stands_still_is_no_power_not_no_reading():
    found = energy(COUNTER, every(0.1, 1, lambda s: 77.0), 0, 1)
    assert (found.energy_j, found.coverage) == (0, 1)


def test_of_two_values_at_one_instant_nothing_is_lost():
    points = [(0, 0.0), (0.5, 50.0), (0.5, 55.0), (1, 100.0)]
    assert energy(COUNTER, points, 0, 1).energy_j == pytest.approx(100)


# --- choice of the source --------------------------------------------------------------------------------------------


def test_the_counter_is_preferred_to_power():
    rows = readings(LINEAR, every(0.1, 1, lambda s: 90.0)) + readings(COUNTER, every(0.1, 1, lambda s: 100 * s))
    found = Timeline(GPU, [LINEAR, COUNTER], rows).energy(ns(0), ns(1))
    assert (found.source, found.energy_j) == ("counter", pytest.approx(100))


def test_power_stands_in_where_a_counter_fails():
    rows = readings(LINEAR, every(0.1, 10, lambda s: 90.0)) + readings(COUNTER, every(0.1, 2, lambda s: 100 * s))
    line = Timeline(GPU, [LINEAR, COUNTER], rows)
    assert line.energy(ns(0), ns(2)).source == "counter"
    assert line.energy(ns(5), ns(10)).source == "instant"
    assert line.energy(ns(5), ns(10)).energy_j == pytest.approx(450)
    whole = line.energy(ns(0), ns(10))
    assert (whole.source, whole.coverage) == ("counter+instant", 1)
    assert whole.energy_j == pytest.approx(200 + 720)
    assert whole.independent_u_j > 0


@given(st.lists(st.tuples(st.floats(0, 9.5), st.floats(0.05, 3)), max_size=3))
def test_a_counter_that_is_gone_for_a_while_is_bridged_and_nothing_counts_twice(gaps):
    """The power source tells the same power, so whatever is missing of the counter, the energy is the same."""
    counted = [(s, 1000 + 100 * s) for s, _ in every(0.1, 10, lambda s: s)]
    counted = [point for point in counted if not any(a < point[0] < a + length for a, length in gaps)]
    rows = readings(LINEAR, every(0.1, 10, lambda s: 100.0)) + readings(COUNTER, counted)
    found = Timeline(GPU, [LINEAR, COUNTER], rows).energy(ns(0.33), ns(9.71))
    assert found.coverage == pytest.approx(1)
    assert found.energy_j == pytest.approx(938)


def test_a_reset_is_bridged_by_power():
    points = [(i / 10, 400 + 20.0 * i) for i in range(50)] + [(5 + i / 10, 2.0 * i * 10) for i in range(51)]
    rows = readings(COUNTER, points) + readings(LINEAR, every(0.1, 10, lambda s: 200.0))
    found = Timeline(GPU, [COUNTER, LINEAR], rows).energy(ns(0), ns(10))
    assert found.energy_j == pytest.approx(2000) and found.coverage == pytest.approx(1)


def test_the_earlier_of_two_power_sources_is_preferred():
    rows = readings(HOLD, every(0.1, 1, lambda s: 90.0)) + readings(LINEAR, every(0.1, 1, lambda s: 100.0))
    assert Timeline(GPU, [HOLD, LINEAR], rows).energy(ns(0), ns(1)).source == "usage"
    assert Timeline(GPU, [LINEAR, HOLD], rows).energy(ns(0), ns(1)).source == "instant"


def test_other_channels_are_passed_over():
    other = Source("gpu.1", "instant", "power_w", 0.1)
    rows = readings(LINEAR, every(0.1, 1, lambda s: 100.0)) + readings(other, every(0.1, 1, lambda s: 900.0))
    assert Timeline(GPU, [LINEAR, other], rows).energy(ns(0), ns(1)).energy_j == pytest.approx(100)


def test_the_sensors_own_time_counts():
    rows = [Reading("gpu.0", "instant", "power_w", ns(9), ns(9), 100.0, sensor_ns=ns(s)) for s in (0, 0.5, 1)]
    assert Timeline(GPU, [LINEAR], rows).energy(ns(0), ns(1)).energy_j == pytest.approx(100)


@pytest.mark.parametrize(
    "window_s, doubt_j",
    [((2, 3), 0.005 * 500), ((2.5, 4), 0.005 * 500), ((2, 2.5), 0.005 * 500 / math.sqrt(2)), ((2.2, 2.8), 0)],
)
def test_a_burst_is_in_doubt_by_how_late_all_times_may_be(window_s, doubt_j):
    """A window over all of the burst loses whichever way it is moved, one over its first half one way only."""
    steps = [(0.0, 2.0, 100), (2.0, 3.0, 600), (3.0, 6.0, 100)]
    burst = [(at_s, watts) for first_s, last_s, watts in steps for at_s in np.linspace(first_s, last_s, 51)]
    found = energy(source(time_uncertainty_s=0.005, averaging_s=0.0), burst, *window_s)
    sure = energy(source(averaging_s=0.0), burst, *window_s)
    assert found.energy_j == pytest.approx(sure.energy_j)
    assert found.independent_u_j**2 - sure.independent_u_j**2 == pytest.approx(doubt_j**2, abs=1e-9)


def test_a_window_at_the_end_of_the_readings_is_in_no_more_doubt_for_being_late():
    steady = every(0.1, 10, lambda _: 200)
    assert energy(source(time_uncertainty_s=0.005, averaging_s=0.0), steady, 4, 10).independent_u_j == pytest.approx(0)


def test_estimated_channels_stay_estimated():
    channel = Channel("gpu.0", "gpu", "GPU-1", estimated=True)
    assert Timeline(channel, [LINEAR], []).energy(ns(0), ns(1)).estimated


# --- properties ------------------------------------------------------------------------------------------------------

SOURCES = st.sampled_from([LINEAR, HOLD, COUNTER, CONSTANT, WRAPPING])
TIMES = st.integers(0, 6_000).map(lambda ms: ms / 1000)
POINTS = st.lists(st.tuples(TIMES, st.floats(0, 900)), max_size=25)
WINDOW = st.lists(TIMES, min_size=3, max_size=3).map(sorted)


def joules(line, start_s, end_s):
    return line.energy(ns(start_s), ns(end_s)).energy_j or 0.0


@given(SOURCES, POINTS, WINDOW)
def test_adjacent_windows_add_up(of, points, window):
    line, (a, b, c) = timeline(of, points), window
    assert joules(line, a, b) + joules(line, b, c) == pytest.approx(joules(line, a, c), abs=1e-6)


@given(SOURCES, POINTS, WINDOW)
def test_a_longer_window_holds_no_less(of, points, window):
    line, (a, b, c) = timeline(of, points), window
    assert joules(line, a, c) >= joules(line, a, b) - 1e-6
    assert joules(line, a, c) >= joules(line, b, c) - 1e-6


@given(SOURCES, POINTS, WINDOW, st.randoms(use_true_random=False))
def test_repeated_readings_in_any_order_change_nothing(of, points, window, random):
    once = dict(points)
    rows = readings(of, once.items())
    shuffled = random.sample(rows, len(rows)) + rows[::2]
    whole = Timeline(GPU, [of], rows).energy(ns(window[0]), ns(window[2]))
    assert Timeline(GPU, [of], shuffled).energy(ns(window[0]), ns(window[2])) == whole


@given(SOURCES, POINTS, WINDOW)
def test_every_answer_is_sane(of, points, window):
    found = timeline(of, points).energy(ns(window[0]), ns(window[2]))
    assert 0 <= found.coverage <= 1
    assert (found.energy_j is None) == (found.coverage == 0)
    assert 0 <= found.longest_gap_s <= window[2] - window[0] + 1e-9
    if found.energy_j is not None:
        assert found.independent_u_j >= 0 and math.isfinite(found.independent_u_j)
        assert found.energy_j >= 0
        if of.quantity == "power_w":
            assert found.power_mean_w <= found.power_peak_w + 1e-6


@given(
    st.lists(st.tuples(st.floats(0.01, 0.9), st.floats(0, 900)), min_size=2, max_size=25),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_piecewise_linear_power_is_exact(steps, one, other):
    seconds = np.cumsum([step for step, _ in steps])
    watts = np.array([power for _, power in steps])
    a, b = sorted(float(np.interp(x, [0, 1], [seconds[0], seconds[-1]])) for x in (one, other))
    knots = np.unique(np.concatenate(([a], seconds[(seconds > a) & (seconds < b)], [b])))
    expected = np.trapezoid if hasattr(np, "trapezoid") else np.trapz
    true_j = expected(np.interp(knots, seconds, watts), knots)
    line = timeline(LINEAR, zip(seconds, watts, strict=True))
    assert joules(line, a, b) == pytest.approx(float(true_j), abs=1e-5)


@given(POINTS, WINDOW)
def test_a_held_reading_repeated_later_changes_nothing(points, window):
    once = sorted(dict(points).items())
    again = [((a + b) / 2, value) for (a, value), (b, _) in pairwise(once) if b - a < gap_limit_s(HOLD)]
    assert joules(timeline(HOLD, once + again), window[0], window[2]) == pytest.approx(
        joules(timeline(HOLD, once), window[0], window[2]), abs=1e-6
    )


@given(st.integers(0, 10_000), st.integers(1, 400), st.floats(0.3, 5), st.floats(0, 0.0999))
def test_a_ticking_counter_is_within_its_stated_doubt(phase_ms, power_w, length_s, start_s):
    """A counter updated every 100 ms, at a phase that the reader does not know, under constant power."""
    tick_s = 0.1

    def value(seconds):
        return power_w * tick_s * math.floor((seconds + phase_ms / 1000) / tick_s)

    found = energy(COUNTER, every(0.1, 6, value), start_s, start_s + length_s)
    assert abs(found.energy_j - power_w * length_s) <= 3 * found.independent_u_j
