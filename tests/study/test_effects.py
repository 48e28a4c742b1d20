"""What a factor does, other things being equal."""

from __future__ import annotations

import math

import numpy as np
import pytest
from results import run
from scipy import stats

from energybench.study.effects import comparable, effects, energy_follows_time, scaling
from energybench.study.rows import rows

MODELS = {"lenet": 1.0, "caffenet": 30.0}


def grid(*, gain=0.7, batch_power=-0.1, seeds=(0, 1, 2), scatter=0.002):
    """Runs of two networks, two generations (on a board each) and three batches."""
    draw = np.random.default_rng(1)
    for model, size in MODELS.items():
        for generation, factor in (("maxwell", 1.0), ("pascal", gain)):
            for batch in (64, 128, 256):
                for seed in seeds:
                    energy = size * factor * (batch / 64) ** batch_power * math.exp(draw.normal(0, scatter))
                    yield run(
                        batch,
                        seed,
                        image_j=energy,
                        image_s=energy / 200,
                        accuracy=0.95 - batch / 10000,
                        board=f"GPU-{generation}",
                        tags={"generation": generation, "device": f"TITAN {generation}"},
                        config={"model": {"name": model}, "gpu": {"name": generation, "count": 1}},
                        overrides=(f"model={model}", f"gpu={generation}", f"batch={batch}", f"seed={seed}"),
                    )


class TestEffects:
    def test_generation_against_generation_with_all_else_equal(self):
        [found] = effects(rows(grid()), "generation", "energy_per_image_j")
        assert (found.reference, found.level) == ("maxwell", "pascal")
        assert len(found.matches) == 6
        assert found.ratio.value == pytest.approx(0.7, rel=0.01)
        assert found.ratio.low < 0.7 < found.ratio.high
        for match in found.matches:
            assert match.before.factors["batch"] == match.after.factors["batch"]
            assert match.ratio.value == pytest.approx(0.7, rel=0.02)

    def test_the_gains_of_two_boards_are_in_it_however_many_matches(self):
        [found] = effects(rows(grid()), "generation", "energy_per_image_j")
        gains = 1.96 * math.hypot(0.02, 0.02)
        assert math.log(found.ratio.high / found.ratio.value) == pytest.approx(gains, rel=0.05)

    def test_batches_against_the_smallest_on_the_same_boards(self):
        found = effects(rows(grid()), "batch", "energy_per_image_j")
        assert [(effect.reference, effect.level) for effect in found] == [("64", "128"), ("64", "256")]
        for effect, wanted in zip(found, (2**-0.1, 4**-0.1), strict=True):
            assert effect.ratio.low < wanted < effect.ratio.high
            assert effect.ratio.high / effect.ratio.low < 1.02
            assert all(match.adjusted_p < 0.05 for match in effect.matches)

    def test_accuracy_by_difference(self):
        found = effects(rows(grid()), "batch", "accuracy_top1")
        assert [effect.ratio for effect in found] == [None, None]
        assert found[1].difference.value == pytest.approx(-0.0192)

    def test_another_reference(self):
        found = effects(rows(grid()), "batch", "energy_per_image_j", reference="128")
        assert [effect.level for effect in found] == ["64", "256"]

    @pytest.mark.parametrize("factor", ["precision", "no such factor"])
    def test_a_factor_that_does_not_vary_has_none(self, factor):
        assert effects(rows(grid()), factor, "energy_per_image_j") == []

    def test_settings_without_a_partner_are_no_match(self):
        table = [run(64, image_j=1.0), run(128, image_j=0.9, config={"precision": "fp16"}, overrides=("batch=128",))]
        assert effects(rows(table), "batch", "energy_per_image_j") == []

    def test_estimated_and_measured_are_never_matched(self):
        table = [run(64), run(128, tags={"energy_source": "estimated"})]
        assert effects(rows(table), "batch", "energy_per_image_j") == []
        assert len(comparable(rows(table))) == 2


class TestScaling:
    def test_speed_up_and_efficiency(self):
        table = [
            run(
                64,
                seed,
                image_j=0.1 * 1.1 ** (count - 1),
                image_s=0.002 / speed * (1 + seed / 1000),
                config={"gpu": {"name": "pascal", "count": count}},
                overrides=(f"gpu.count={count}",),
            )
            for count, speed in ((1, 1.0), (2, 1.8), (4, 2.8))
            for seed in (0, 1, 2)
        ]
        two, four = scaling(rows(table))
        assert (two.count, four.count) == (2, 4)
        assert (two.speedup.value, four.speedup.value) == (pytest.approx(1.8), pytest.approx(2.8))
        assert (two.efficiency.value, four.efficiency.value) == (pytest.approx(0.9), pytest.approx(0.7))
        assert two.efficiency.low < 0.9 < two.efficiency.high
        assert two.energy.value == pytest.approx(1.1)


class TestCorrelation:
    def test_of_one_network_is_pearsons_with_fishers_interval(self):
        draw = np.random.default_rng(2)
        times = np.exp(draw.normal(0, 0.5, 12))
        energies = times**0.8 * np.exp(draw.normal(0, 0.2, 12))
        table = [
            run(b + 1, image_j=float(e), image_s=float(t)) for b, (e, t) in enumerate(zip(energies, times, strict=True))
        ]
        found = energy_follows_time(rows(table))
        wanted = stats.pearsonr(np.log(times), np.log(energies))
        assert found.r == pytest.approx(wanted.statistic)
        assert (found.low, found.high) == pytest.approx(tuple(wanted.confidence_interval(0.95)))
        assert found.slope == pytest.approx(stats.linregress(np.log(times), np.log(energies)).slope)

    def test_a_large_and_a_small_network_make_no_correlation(self):
        """Between networks everything grows together; within each of these, energy falls as time rises."""
        table = [
            run(
                b,
                image_j=size / t,
                image_s=size * t,
                config={"model": {"name": name}},
                overrides=(f"model={name}", f"batch={b}"),
            )
            for name, size in (("small", 1.0), ("large", 1000.0))
            for b, t in ((1, 1.0), (2, 1.2), (3, 1.5))
        ]
        found = energy_follows_time(rows(table))
        assert found.r == pytest.approx(-1.0)
        assert (found.settings, found.networks) == (6, 2)

    def test_an_estimate_proves_nothing(self):
        table = [run(b, image_j=0.1 * b, image_s=0.002 * b, tags={"energy_source": "estimated"}) for b in range(1, 9)]
        assert "estimated" in energy_follows_time(rows(table))

    def test_too_few_settings(self):
        assert "fewer than three" in energy_follows_time(rows([run(64), run(128, image_j=0.2)]))
