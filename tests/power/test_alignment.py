"""The clocks of two hosts: the truth lies within the stated error, whatever the network does."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energybench.power.alignment import RATE, Alignment, Exchange

S = 1_000_000_000
DELAYS = st.integers(10_000, 50_000_000)


class Clocks:
    """A true difference that drifts and wanders, no faster than `rate`."""

    def __init__(self, offset_ns, rate, wander_s):
        self.offset_ns, self.rate, self.wander_s = offset_ns, rate, wander_s

    def difference(self, ours_ns):
        seconds = ours_ns / S
        wander = self.wander_s * math.sin(seconds / self.wander_s)
        return self.offset_ns + round(self.rate / 2 * (seconds + wander) * 1e9)

    def exchange(self, at_ns, there_ns, busy_ns, back_ns):
        heard, told = at_ns + there_ns, at_ns + there_ns + busy_ns
        return Exchange(at_ns, heard + self.difference(heard), told + self.difference(told), told + back_ns)


CLOCKS = st.builds(
    Clocks,
    st.integers(-(10**17), 10**17),
    st.floats(-0.9 * RATE, 0.9 * RATE),
    st.floats(0.5, 100.0),
)
BEATS = st.lists(st.tuples(st.integers(1, 5 * S), DELAYS, DELAYS, DELAYS), min_size=1, max_size=30)


def exchanged(clocks, beats, start_ns=0):
    found, at_ns = [], start_ns
    for pause_ns, *delays in beats:
        at_ns += pause_ns
        found.append(clocks.exchange(at_ns, *delays))
    return found


@given(CLOCKS, BEATS, st.integers(0, 10**15), st.floats(-0.2, 1.2))
def test_the_truth_lies_within_the_error(clocks, beats, start_ns, share):
    found = exchanged(clocks, beats, start_ns)
    first, last = found[0].sent_ns, found[-1].back_ns
    at_ns = first + round(share * (last - first))
    alignment = Alignment(found)
    offset_ns, error_ns = alignment.offset(at_ns)
    assert abs(offset_ns - clocks.difference(at_ns)) <= error_ns
    assert alignment.rate == RATE


@given(CLOCKS, BEATS, st.integers(0, 10**14))
def test_there_and_back_is_where_it_began(clocks, beats, at_ns):
    alignment = Alignment(exchanged(clocks, beats))
    assert abs(alignment.ours(alignment.theirs(at_ns)) - at_ns) <= 2


@given(CLOCKS, BEATS)
def test_the_error_is_no_larger_than_half_of_the_round_trip_at_hand(clocks, beats):
    found = exchanged(clocks, beats)
    alignment = Alignment(found)
    for one in found:
        whole_ns = one.back_ns - one.sent_ns
        middle_ns = (one.sent_ns + one.back_ns) // 2
        assert alignment.offset(middle_ns)[1] <= one.round_trip_ns / 2 + RATE * whole_ns + 2


@given(CLOCKS, BEATS, BEATS)
def test_more_exchanges_never_make_it_worse(clocks, beats, more):
    some = exchanged(clocks, beats)
    every = [*some, *exchanged(clocks, more, some[-1].back_ns)]
    at_ns = some[0].sent_ns
    assert Alignment(every).offset(at_ns)[1] <= Alignment(some).offset(at_ns)[1] + 1


def test_a_delay_one_way_moves_the_middle_and_the_error_says_so():
    clocks = Clocks(1000 * S, 0.0, 1.0)
    alignment = Alignment([clocks.exchange(at * S, 30_000_000, 10_000, 100_000) for at in range(10)])
    offset_ns, error_ns = alignment.offset(5 * S)
    wrong_ns = abs(offset_ns - 1000 * S)
    assert wrong_ns == pytest.approx(15e6, rel=0.05)
    assert wrong_ns <= error_ns <= 1.1 * wrong_ns
    assert alignment.round_trip_ns == 30_100_000


def test_clocks_that_run_apart_faster_than_is_allowed_for_are_found_out():
    clocks = Clocks(0, 0.01, 1e-9)  # half a per cent, as of a clock that is being set right
    found = [clocks.exchange(at * S, 50_000, 10_000, 50_000) for at in range(20)]
    alignment = Alignment(found)
    assert 0.005 <= alignment.rate <= 0.0128
    for at_ns in (0, 3 * S + S // 2, 19 * S):
        offset_ns, error_ns = alignment.offset(at_ns)
        assert abs(offset_ns - clocks.difference(at_ns)) <= error_ns


def test_a_day_of_words_is_read_at_once():
    clocks = Clocks(5 * 10**16, 1e-4, 50.0)
    alignment = Alignment([clocks.exchange(at * S, 100_000, 20_000, 90_000) for at in range(86_400)])
    for at_ns in range(0, 86_400 * S, 7_919 * S):
        offset_ns, error_ns = alignment.offset(at_ns)
        assert abs(offset_ns - clocks.difference(at_ns)) <= error_ns <= 100_000


def test_of_nothing_nothing_is_known():
    with pytest.raises(ValueError, match="nothing is known"):
        Alignment([])
