"""Numbers and changes as people read them; what they are taken from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from results import run

from energybench.errors import ConfigError
from energybench.study.costs import Rates
from energybench.study.grid import Grid
from energybench.study.intervals import Difference, Estimate, Ratio
from energybench.study.quantities import BASES, per, quantity
from energybench.study.words import accuracy_moved, amount, chance, digits, faster_or_slower, less_or_more, scaled


class TestWords:
    @pytest.mark.parametrize(
        ("ratio", "words"),
        [
            (Ratio(0.69, 0.66, 0.72, 0.0), "31 % less energy (28 to 34 %)"),
            (Ratio(1.5, 1.4, 1.6, 0.0), "50 % more energy (40 to 60 %)"),
            (Ratio(0.99, 0.97, 1.01, 0.4), "1.0 % less energy, not told apart (-3.0 to +1.0 %)"),
            (Ratio(0.69, None, None, None), "31 % less energy (single runs: no interval)"),
        ],
    )
    def test_a_ratio_of_energies(self, ratio, words):
        assert less_or_more(ratio, "energy") == words

    def test_what_arithmetic_alone_makes_is_not_shown(self):
        noise = 16 * 4e-16
        assert amount(Estimate(16 - noise, noise, 3)) == "16.00"
        assert less_or_more(Ratio(1 - noise, 1 - 2 * noise, 1 + noise, 0.9), "power") == (
            "0 % less power, not told apart (0 to 0 %)"
        )
        assert accuracy_moved(Difference(noise, 2 * noise, 0.9)) == "the same accuracy"

    def test_a_ratio_of_times(self):
        assert faster_or_slower(Ratio(1.04, 1.03, 1.05, 0.0)) == "4.0 % slower (3.0 to 5.0 %)"
        assert faster_or_slower(Ratio(0.5, 0.4, 0.6, 0.0)) == "50 % less time (40 to 60 %)"

    @pytest.mark.parametrize(
        ("difference", "words"),
        [
            (Difference(0.001, 0.002, 0.3), "the same accuracy within ±0.30 percentage points"),
            (Difference(-0.008, 0.003, 0.0), "0.80 percentage points less accurate (0.50 to 1.1)"),
            (Difference(0.02, 0.01, 0.0), "2.0 percentage points more accurate (1.0 to 3.0)"),
            (Difference(0.02, None, None), "2.0 percentage points more accurate (single runs: no interval)"),
            (Difference(0.0, 0.0, 1.0), "the same accuracy"),
            (Difference(0.9, 1.5, 1.0), "the same accuracy within ±240 percentage points"),
        ],
    )
    def test_a_difference_of_accuracies(self, difference, words):
        assert accuracy_moved(difference) == words

    @pytest.mark.parametrize(
        ("probability", "words"),
        [(1.0, "more than 99.9 %"), (0.0, "less than 0.1 %"), (0.97, "97 %"), (0.995, "99.5 %")],
    )
    def test_a_chance(self, probability, words):
        assert chance(probability) == words

    @pytest.mark.parametrize(
        ("value", "words"),
        [(0.0, "0"), (12345.6, "12,346"), (1.23456, "1.235"), (0.0123456, "0.01235"), (1e-9, "1e-09")],
    )
    def test_digits(self, value, words):
        assert digits(value) == words

    @given(st.floats(1e-12, 1e12), st.sampled_from(["J", "s", "J s", "W", "images/s", ""]))
    def test_a_prefix_changes_the_number_by_what_it_says(self, value, unit):
        factor, shown = scaled([value], unit)
        prefix = shown.removesuffix(unit) if unit else shown
        assert factor == pytest.approx(
            1 / {"p": 1e-12, "n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[prefix]
        )
        if prefix and value >= 1e-11:
            assert 0.999 <= value * factor < 1000.01

    def test_an_amount(self):
        assert amount(Estimate(0.0583, 0.0012, 3), 1000.0) == "58.3 ± 1.2"
        assert amount(Estimate(0.978, 0.003, 3), share=True) == "97.80 ± 0.30 %"
        assert amount(Estimate(0.0583, None, 1), 1000.0) == "58.30"
        assert amount(None) == "-"


class TestQuantities:
    def test_every_basis_counts_the_same_run(self):
        one = run(
            image_j=0.1, image_s=0.002, images=10_000, metrics={"energy_to_accuracy_j": 50.0, "time_to_accuracy_s": 4.0}
        )
        wanted = {"image": (0.1, 0.002), "epoch": (100.0, 2.0), "run": (1000.0, 20.0), "target-accuracy": (50.0, 4.0)}
        for basis in BASES:
            energy, time = wanted[basis]
            found = {name: metric.of(one) for name, metric in per(basis).items()}
            assert found == pytest.approx(
                {"energy": energy, "time": time, "edp": energy * time, "ed2p": energy * time**2}
            )

    def test_what_does_not_exist_is_absent(self):
        without = run(image_j=None, epochs=())
        for basis in ("image", "run", "target-accuracy"):
            assert per(basis)["energy"].of(without) is None
            assert per(basis)["edp"].of(without) is None
        assert per("epoch")["time"].of(without) is None

    def test_uncertainty_goes_with_the_energy(self):
        one = run(image_j=0.1, independent=0.01, common=0.05)
        for name in ("energy_j", "energy_per_image_j", "edp_js"):
            metric = quantity(name)
            assert metric.uncertainties(one) == pytest.approx((0.01 * metric.of(one), 0.0, 0.05 * metric.of(one)))
        for name in ("time_s", "images_per_s", "accuracy_top1"):
            assert quantity(name).uncertainties(one) == (0.0, 0.0, 0.0)

    def test_a_phase_has_its_own(self):
        one = run(metrics={"validate.energy_j": 10.0, "validate.energy_uncertainty_j": 1.0})
        metric = quantity("validate.energy_j")
        assert metric.unit == "J"
        assert metric.uncertainties(one) == pytest.approx((0.0, 0.0, 0.5))


class TestCosts:
    def test_with_the_user_s_figures(self):
        found = Rates(0.30, "EUR", 1.5, 400.0).of(3.6e6)
        assert (found.kwh, found.price, found.carbon_g) == pytest.approx((1.5, 0.45, 600.0))

    def test_nothing_is_assumed(self):
        found = Rates().of(3.6e6)
        assert (found.kwh, found.price, found.carbon_g) == (1.0, None, None)
        assert not Rates().given

    @pytest.mark.parametrize(
        "wrong", [{"pue": 0.9}, {"price_per_kwh": -1.0}, {"carbon_g_per_kwh": float("nan")}, {"currency": "EUR"}]
    )
    def test_what_cannot_be_is_refused(self, wrong):
        with pytest.raises(ConfigError):
            Rates(**wrong)


def test_markdown_escapes_what_would_end_a_cell():
    text = Grid("title", ("a", "b"), (("x|y", ""),)).markdown()
    assert text.splitlines() == ["title", "", "| a | b |", "| --- | ---: |", "| x\\|y |   |"]
