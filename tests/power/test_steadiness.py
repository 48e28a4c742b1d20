import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energybench.power.steadiness import is_steady, parts_of

SCALE = st.floats(0.1, 1000)


@pytest.mark.parametrize(
    ("powers", "steady"),
    [
        ([50.0] * 8, True),
        ([50.0, 50.4] * 4, True),
        ([50.0, 56.0] * 4, False),  # it scatters: standard error 2 % of the mean
        ([60 - i for i in range(8)], False),  # it falls by 14 %
        ([50 - 0.1 * i for i in range(8)], True),  # by 1.6 %
        ([50.0] * 7 + [None], False),
        ([None] * 8, False),
        ([50.0, 50.0], False),
        ([0.0] * 8, True),
        ([50.0] * 7 + [80.0], False),
    ],
)
def test_steady(powers, steady):
    assert is_steady(powers) is steady


@given(SCALE, st.lists(st.floats(0.9, 1.1), min_size=8, max_size=8))
def test_the_unit_of_power_does_not_matter(scale, powers):
    at_a_limit = is_steady([power * (1 + 1e-9) for power in powers]) is not is_steady(powers)
    assert at_a_limit or is_steady([scale * power for power in powers]) is is_steady(powers)


@given(st.floats(0.5, 0.999))
def test_a_card_that_cools_is_not_steady_until_it_has_cooled(pole):
    """Power that decays to its floor: whenever it is called steady, the last part is within 3 % of the mean."""
    for start in range(0, 200, 8):
        powers = [20 + 30 * pole ** (start + i) for i in range(8)]
        if is_steady(powers):
            assert abs(powers[-1] / np.mean(powers) - 1) < 0.03


@pytest.mark.parametrize(("window_s", "parts"), [(5.0, 8), (0.85, 8), (0.5, 5), (0.1, 3)])
def test_parts(window_s, parts):
    assert parts_of(window_s) == parts
