import numpy as np
import pytest

from energybench.power.rhythm import MEANS, SHORTEST, hidden, low_pass

COUNT = 400
PLACE = np.arange(COUNT)


def of(power_w, seen=MEANS, apart=()):
    touching = np.ones(len(power_w) - 1, bool)
    touching[list(apart)] = False
    return hidden(np.asarray(power_w, float), touching, seen)


def means(turns, amplitude_w, level_w=200.0):
    """Means over each update of a sine of so many turns an update."""
    sums = -amplitude_w * np.cos(2 * np.pi * turns * np.arange(COUNT + 1)) / (2 * np.pi * turns)
    return level_w + np.diff(sums)


@pytest.mark.parametrize("turns", [0.95, 1.07, 1.3, 1.93, 3.1])
def test_a_swing_faster_than_the_updates_is_found_by_its_alias(turns):
    """Times its period, whichever of the fast ones it is: the energy that it moves is the same."""
    found = of(means(turns, 120.0))
    assert np.median(found.course_w) == pytest.approx(1.56 * 120 / turns, rel=0.35)
    assert (found.course_w > 0).all()


def test_what_would_be_below_0_w_if_it_were_fast_is_slow():
    """Full swings that are told cannot be the alias of anything."""
    assert not of(200 + 120 * np.sin(2 * np.pi * 0.05 * PLACE)).course_w.any()


def test_neither_steady_power_nor_a_ramp_nor_a_jump_is_a_rhythm():
    for power_w in (np.full(COUNT, 200.0), np.linspace(50, 300, COUNT), np.where(PLACE < 170, 60.0, 300.0)):
        assert of(power_w).course_w.max() < 1e-6


def test_noise_is_seldom_taken_for_a_rhythm():
    noise = [np.random.default_rng(seed).normal(200, 2, COUNT) for seed in range(50)]
    assert np.mean([of(power_w).course_w > 0 for power_w in noise]) < 0.1


def test_only_where_the_rhythm_is():
    power_w = np.where(PLACE < 200, means(1.1, 120.0), 200.0)
    found = of(power_w, low_pass(0.6)).course_w
    assert found[:150].all() and not found[300:].any()


def test_a_stretch_with_a_gap_in_it_tells_nothing():
    assert not of(means(1.1, 120.0)[:96], apart=[40]).course_w.any()
    assert of(means(1.1, 120.0)[:96]).course_w.all()


@pytest.mark.parametrize("count", [0, 1, SHORTEST - 1])
def test_few_updates_tell_no_rhythm(count):
    found = hidden(means(1.1, 120.0)[:count], np.ones(max(0, count - 1), bool))
    assert len(found.course_w) == len(found.sampling_w2) == count and not found.course_w.any()


@pytest.mark.parametrize("count", [SHORTEST, 95, 96, 97, 143, 255, 257, 399])
def test_every_update_gets_its_share(count):
    assert of(means(1.3, 120.0)[:count]).course_w.shape == (count,)
    assert of(means(1.3, 120.0)[:count]).course_w.all()


def test_a_low_pass_shows_what_is_in_step_with_it():
    """Means show nothing of it; the later part of the time weighs more in a low-pass."""
    assert MEANS.share(np.array([1.0])) == pytest.approx(0, abs=1e-12)
    decay, place = 0.637, (np.arange(20_000) + 0.5) / 20_000
    weights = np.exp(decay * place) / np.exp(decay * place).sum()
    for turns in (0.9, 1.0, 1.4):
        shown = abs((weights * np.exp(2j * np.pi * turns * place)).sum())
        assert low_pass(decay).share(np.array([turns]))[0] == pytest.approx(shown, rel=1e-3)
