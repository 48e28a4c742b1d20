"""Intervals against scipy's and R's, and whether they cover what they promise to."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from energybench.study.intervals import Sample, difference, holm, paired, ratio

STUDIES = 2000
BOARD_A, BOARD_B = frozenset({("host", "GPU-a")}), frozenset({("host", "GPU-b")})

VALUES = st.lists(st.floats(1.0, 1e6), min_size=2, max_size=8).filter(lambda found: max(found) - min(found) > 1e-3)


def sample(values, independent=0.0, common=0.0, boards=BOARD_A, edges=0.0):
    return Sample(tuple(values), (independent,) * len(values), common, boards, edges)


def interval(values, independent=0.0, edges=0.0):
    return sample(values, independent, edges=edges).estimate().half_width


class TestInterval:
    def test_students_t_on_the_scatter(self):
        values = [9.0, 10.0, 11.0]
        assert interval(values) == pytest.approx(stats.t.ppf(0.975, 2) * stats.sem(values))

    def test_it_is_never_narrower_than_what_the_meter_adds(self):
        assert interval([10.0] * 4, 3.0) == pytest.approx(1.96 * 3.0 / 2, rel=1e-3)

    def test_what_the_scatter_shows_already_is_not_counted_twice(self):
        values = [9.0, 10.0, 11.0]
        assert interval(values, 0.1) == interval(values)

    def test_one_run_tells_no_scatter(self):
        assert interval([1.0], 1.0) is None

    def test_what_the_edges_of_phases_hide_no_repeats_make_smaller(self):
        few, many = (interval([9.9, 10.1] * count, edges=1.0) for count in (2, 50))
        assert few == pytest.approx(many, rel=0.05) == pytest.approx(1.96, rel=0.01)


class TestDifference:
    @settings(max_examples=60, deadline=None)
    @given(VALUES, VALUES)
    def test_is_welchs_as_scipy_has_it(self, a, b):
        found = difference(sample(a), sample(b))
        wanted = stats.ttest_ind(b, a, equal_var=False)
        low, high = wanted.confidence_interval(0.95)
        assert found.value == pytest.approx(np.mean(b) - np.mean(a))
        assert (found.low, found.high) == (
            pytest.approx(low, rel=1e-6, abs=1e-6),
            pytest.approx(high, rel=1e-6, abs=1e-6),
        )
        assert found.p == pytest.approx(wanted.pvalue, rel=1e-6, abs=1e-12)

    def test_r_s_sleep(self):
        """t.test(extra ~ group, data = sleep): t = -1.8608, df = 17.776, p = 0.07939, -3.3654832 to 0.2054832."""
        one = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
        two = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
        found = difference(sample(two), sample(one))
        assert found.p == pytest.approx(0.07939, abs=5e-6)
        assert (found.low, found.high) == (pytest.approx(-3.3654832), pytest.approx(0.2054832))

    def test_gains_of_one_board_cancel_and_of_two_add_up(self):
        a, b = [10.0, 10.1, 9.9], [12.0, 12.1, 11.9]
        same = difference(sample(a, common=0.5), sample(b, common=0.6))
        other = difference(sample(a, common=0.5), sample(b, common=0.6, boards=BOARD_B))
        assert same == difference(sample(a), sample(b))
        assert other.beyond_repeats == pytest.approx(1.96 * math.hypot(0.5, 0.6), rel=1e-4)
        assert other.half_width > other.beyond_repeats > same.half_width
        assert other.p > same.p

    def test_what_edges_hide_does_not_cancel_on_one_board(self):
        a, b = [10.0, 10.1, 9.9], [12.0, 12.1, 11.9]
        found = difference(sample(a, edges=0.5), sample(b, edges=0.6))
        assert found.beyond_repeats == pytest.approx(1.96 * math.hypot(0.5, 0.6), rel=1e-4)
        assert found.half_width > found.beyond_repeats
        assert found.p > difference(sample(a), sample(b)).p

    def test_boards_that_are_not_known_are_other_boards(self):
        a, b = (
            sample([10.0, 10.1], common=0.5, boards=frozenset()),
            sample([12.0, 12.1], common=0.5, boards=frozenset()),
        )
        assert difference(a, b).beyond_repeats > 0

    def test_a_single_run_has_no_interval(self):
        found = difference(sample([1.0]), sample([2.0, 2.1]))
        assert (found.half_width, found.low, found.high, found.p) == (None, None, None, None)
        assert found.value == pytest.approx(1.05)

    def test_repeats_that_do_not_differ_at_all(self):
        assert difference(sample([1.0, 1.0]), sample([1.0, 1.0])).p == 1.0
        found = difference(sample([1.0, 1.0]), sample([2.0, 2.0]))
        assert (found.half_width, found.p) == (0.0, 0.0)

    @settings(max_examples=60, deadline=None)
    @given(VALUES, VALUES, st.floats(0, 100), st.floats(0, 100))
    def test_the_interval_holds_zero_where_p_is_above_five_percent_and_not_below(self, a, b, independent, common):
        found = difference(sample(a, independent, common), sample(b, independent, common, BOARD_B))
        if abs(found.p - 0.05) > 1e-6:
            assert (found.low <= 0 <= found.high) == (found.p > 0.05)


class TestRatio:
    @settings(max_examples=60, deadline=None)
    @given(VALUES, VALUES)
    def test_that_of_a_to_b_is_the_reciprocal_of_that_of_b_to_a(self, a, b):
        there, back = ratio(sample(a), sample(b)), ratio(sample(b), sample(a))
        assert back.value == pytest.approx(1 / there.value)
        assert (back.low, back.high) == (pytest.approx(1 / there.high), pytest.approx(1 / there.low))

    @settings(max_examples=40, deadline=None)
    @given(VALUES, VALUES, st.floats(1e-9, 1e9))
    def test_the_unit_does_not_matter(self, a, b, unit):
        scaled = ratio(sample([v * unit for v in a], unit), sample([v * unit for v in b], unit))
        plain = ratio(sample(a, 1.0), sample(b, 1.0))
        assert scaled.value == pytest.approx(plain.value, rel=1e-6)
        assert scaled.low == pytest.approx(plain.low, rel=1e-5, abs=1e-12)

    def test_uncertainties_are_taken_in_proportion(self):
        found = ratio(sample([100.0] * 2, independent=1.0), sample([50.0] * 2, independent=0.5))
        assert math.log(found.high / found.value) == pytest.approx(1.959964 * math.sqrt(2 * 0.01**2 / 2), rel=1e-5)

    def test_in_another_unit(self):
        found = ratio(sample([1.0, 1.1]), sample([2.0, 2.1])).times(0.5)
        assert found.value == pytest.approx(0.976, rel=1e-2)
        assert found.low < found.value < found.high


class TestPaired:
    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=8))
    def test_is_students_on_the_differences_as_scipy_has_it(self, pairs):
        differences = [b - a for a, b in pairs]
        if np.std(differences) < 1e-6:
            return
        wanted = stats.ttest_1samp(differences, 0.0)
        found = paired(pairs)
        low, high = wanted.confidence_interval(0.95)
        assert (found.low, found.high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))
        assert found.p == pytest.approx(wanted.pvalue, rel=1e-6, abs=1e-12)

    def test_what_all_pairs_share_does_not_shrink_with_their_number(self):
        many = paired([(0.0, 1.0 + 0.001 * (i % 2)) for i in range(200)], common_u=0.1)
        assert many.half_width == pytest.approx(1.96 * 0.1, rel=1e-3)

    def test_one_pair_tells_no_scatter(self):
        assert paired([(1.0, 3.0)]).half_width is None


class TestHolm:
    def test_as_r_adjusts(self):
        """p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")."""
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    @given(st.lists(st.floats(0, 1), max_size=20))
    def test_never_below_p_nor_above_bonferroni_and_in_order(self, p_values):
        adjusted = holm(p_values)
        for p, found in zip(p_values, adjusted, strict=True):
            assert p <= found <= min(1.0, len(p_values) * p) + 1e-12
        order = sorted(range(len(p_values)), key=lambda i: p_values[i])
        assert [adjusted[i] for i in order] == sorted(adjusted)


class TestCoverage:
    """Of simulated studies, in which the truth is known: 95 % intervals cover it in 92 to 98 of a hundred."""

    @pytest.mark.parametrize("repeats", [2, 3, 5])
    @pytest.mark.parametrize("meter", [0.0, 0.3])
    def test_of_a_mean(self, repeats, meter):
        """`meter`: the meter's independent part against the scatter of the runs themselves."""
        assert 0.92 <= self.share_covered(repeats, 1.0, meter) <= 0.98

    @pytest.mark.parametrize("repeats", [2, 3, 5])
    @pytest.mark.parametrize("own", [0.0, 1.0])
    def test_of_a_mean_whose_scatter_the_meter_makes_is_on_the_safe_side(self, repeats, own):
        assert 0.92 <= self.share_covered(repeats, own, 1.0) < 1.0

    @staticmethod
    def share_covered(repeats, own, meter):
        runs = np.random.default_rng(1).normal(10.0, math.hypot(own, meter), (STUDIES, repeats))
        return np.mean([abs(np.mean(found) - 10.0) <= interval(list(found), meter) for found in runs])

    @pytest.mark.parametrize(
        ("repeats", "scatters"), [((3, 3), (0.02, 0.02)), ((3, 5), (0.05, 0.01)), ((4, 8), (0.1, 0.1))]
    )
    def test_of_a_ratio_on_one_board(self, repeats, scatters):
        draw = np.random.default_rng(3)
        hits = []
        for _ in range(STUDIES):
            gain = draw.normal(1.0, 0.05)  # the board's; the same on both sides
            a = gain * np.exp(draw.normal(math.log(100), scatters[0], repeats[0]))
            b = gain * np.exp(draw.normal(math.log(70), scatters[1], repeats[1]))
            found = ratio(sample(a, common=5.0), sample(b, common=3.5))
            hits.append(found.low <= 0.7 <= found.high)
        assert 0.92 <= np.mean(hits) <= 0.98

    def test_of_a_ratio_between_boards(self):
        draw = np.random.default_rng(4)
        hits = []
        for _ in range(STUDIES):
            gains = draw.normal(1.0, 0.03, 2)
            a = gains[0] * np.exp(draw.normal(math.log(100), 0.02, 4))
            b = gains[1] * np.exp(draw.normal(math.log(70), 0.02, 4))
            found = ratio(sample(a, common=3.0), sample(b, common=2.1, boards=BOARD_B))
            hits.append(found.low <= 0.7 <= found.high)
        assert 0.92 <= np.mean(hits) <= 0.98

    def test_of_pairs(self):
        draw = np.random.default_rng(5)
        hits = []
        for _ in range(STUDIES):
            level = draw.normal(5.0, 2.0, 6)  # what the pairs differ in otherwise
            pairs = list(zip(level + draw.normal(0, 0.1, 6), level - 0.3 + draw.normal(0, 0.1, 6), strict=True))
            found = paired(pairs)
            hits.append(found.low <= -0.3 <= found.high)
        assert 0.92 <= np.mean(hits) <= 0.98
