import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energybench.power.largest import BLOCK, Largest


@given(st.integers(1, 5 * BLOCK), st.integers(0, 2**32 - 1), st.data())
def test_it_is_the_largest_of_the_stretch(count, seed, data):
    values = np.random.default_rng(seed).integers(-1000, 1000, count)
    largest = Largest(values)
    first = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(first + 1, count))
    assert largest.between(first, stop) == values[first:stop].max()


def test_of_nothing_there_is_none():
    with pytest.raises(ValueError):
        Largest(np.zeros(0)).between(0, 0)
