"""The truth itself: closed forms against plain sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energybench.testing import constant, idle_load_idle, linear, sequence, square, step, training

CURVES = {
    "constant": constant(200),
    "step": step(1.0, 100, 300),
    "idle-load-idle": idle_load_idle(50, 250, 0.5, 2.0, ramp_s=0.3),
    "ramp": linear([(0, 0), (2, 300)]),
    "square": square(50, 300, 0.13, duty=0.3, phase_s=0.04),
    "sum": constant(40) + square(0, 100, 0.5) + step(1.7, 0, 30),
    "sequence": sequence([(0.5, constant(60)), (1.0, square(50, 300, 0.1)), (1.0, linear([(0, 300), (1, 60)]))]),
    "training": training(7, 60, 280, epochs=2, epoch_s=1.0),
    "part": square(50, 300, 0.2).between(0.3, 1.1),
}


@pytest.mark.parametrize("name", CURVES)
@settings(max_examples=8, deadline=None)
@given(start_s=st.floats(-2, 3), length_s=st.floats(0, 3))
def test_energy_is_the_sum_of_the_power(name, start_s, length_s):
    curve = CURVES[name]
    count = 1000
    middles = start_s + (np.arange(count) + 0.5) * length_s / count
    summed_j = sum(curve.power_w(float(t)) for t in middles) * length_s / count
    assert curve.energy_j(start_s, start_s + length_s) == pytest.approx(
        summed_j, abs=300 * 40 * length_s / count + 1e-6
    )


def test_energy_adds_up_and_has_a_sign():
    curve = CURVES["sum"]
    assert curve.energy_j(0, 1) + curve.energy_j(1, 2.5) == pytest.approx(curve.energy_j(0, 2.5))
    assert curve.energy_j(2, 1) == -curve.energy_j(1, 2)


def test_known_values():
    assert constant(200).energy_j(0, 10) == 2000
    assert step(5, 100, 300).energy_j(0, 10) == 2000
    assert square(0, 100, 0.1, duty=0.25).energy_j(0, 1) == pytest.approx(25)
    assert linear([(0, 0), (2, 300)]).energy_j(0, 3) == 600
    assert step(5, 100, 300).power_w(5) == 300


def test_the_same_seed_trains_alike():
    assert training(3, 50, 250) == training(3, 50, 250) != training(4, 50, 250)


@pytest.mark.parametrize(("knots", "period_s"), [([], None), ([(1, 5), (0, 5)], None), ([(0, 1), (2, 1)], 3.0)])
def test_knots_that_make_no_curve_are_refused(knots, period_s):
    with pytest.raises(ValueError, match="knots at"):
        linear(knots, period_s)


def test_a_duty_outside_0_and_1_is_refused():
    with pytest.raises(ValueError, match=r"duty=1\.5"):
        square(0, 1, 1, duty=1.5)
