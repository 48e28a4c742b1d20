"""Which setting is recommended, with what certainty, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from results import repeats, run

from energybench.errors import ConfigError
from energybench.study.costs import Rates
from energybench.study.decision import Question, decide
from energybench.study.quantities import quantity
from energybench.study.recommendation import lines
from energybench.study.rows import rows
from energybench.study.separation import apart, in_question, repeats_needed

CLEAR = (0.100, 0.101, 0.102)


def around(middle, scatter=0.01):
    return tuple(middle * (1 + scatter * step) for step in (-1, 0, 1))


def only(results, **asked):
    [decision] = decide(results, Question(**asked))
    return decision


def labels(found):
    return [setting.label for setting in found]


class TestChoice:
    def test_the_least_energy_told_apart_from_all(self):
        found = only([*repeats(64, around(0.1)), *repeats(128, around(0.2)), *repeats(256, around(0.3))])
        assert found.chosen.label == "batch=64"
        assert found.sure
        assert (found.tied, found.repeats) == ((), ())
        assert found.chosen.probability > 0.99

    def test_what_cannot_be_told_apart_is_tied_and_not_sure(self):
        found = only([*repeats(64, around(0.1, 0.1)), *repeats(128, around(0.102, 0.1)), *repeats(256, around(0.5))])
        assert found.chosen.label == "batch=64"
        assert not found.sure
        assert labels(found.tied) == ["batch=128"]
        assert 0.3 < found.chosen.probability < 0.8

    def test_single_runs_leave_everything_open(self):
        found = only([run(64, image_j=0.1), run(128, image_j=0.9)])
        assert not found.sure
        assert found.chosen.probability is None
        assert [(repeat.setting, repeat.runs) for repeat in found.repeats] == [("batch=128", 3)]

    def test_a_difference_that_is_not_taken_for_one_is_told_why(self):
        found = only([*repeats(64, around(0.1, 0.1)), *repeats(128, around(0.14, 0.1))])
        [said] = [line for line in lines(found, Rates()) if line.startswith("  batch=128: ")]
        assert "more energy (" in said
        assert "yet their intervals overlap" in said

    @pytest.mark.parametrize(
        ("criterion", "wanted"),
        [("energy", "batch=64"), ("time", "batch=256"), ("edp", "batch=128"), ("ed2p", "batch=256")],
    )
    def test_the_criterion_decides(self, criterion, wanted):
        found = only(
            [
                *repeats(64, around(1.0), image_s=0.010),
                *repeats(128, around(1.5), image_s=0.005),
                *repeats(256, around(4.0), image_s=0.0025),
            ],
            criterion=criterion,
        )
        assert found.chosen.label == wanted

    def test_failed_runs_are_no_settings(self):
        found = only([*repeats(64, around(0.1)), run(128, image_j=0.001, status="failed")])
        assert labels(found.settings) == ["lenet batch=64"]

    def test_a_setting_without_energy_is_left_out_and_said(self):
        found = only([*repeats(64, around(0.1)), run(128, image_j=None)])
        assert labels(found.settings) == ["batch=64"]
        assert "batch=128" in found.left_out


class TestGroups:
    @pytest.mark.parametrize("tags", [{"energy_source": "estimated"}, {"energy_scope": "cpu"}])
    def test_sources_and_scopes_are_decided_apart(self, tags):
        found = decide([*repeats(64, around(0.1)), *repeats(128, around(0.2), tags=tags)], Question())
        assert [decision.chosen.label for decision in found] == ["lenet batch=64", "lenet batch=128"]

    def test_data_sets_are_decided_apart(self):
        config = {"dataset": {"name": "synthetic", "options": {}}}
        found = decide(
            [*repeats(64, around(0.1)), *repeats(128, around(0.2), config=config, accuracy=None)], Question()
        )
        assert [decision.dataset for decision in found] == ["digits", "synthetic"]

    def test_a_group_is_labelled_by_what_differs_in_it(self):
        def told(batch, gpu, image_j, **changes):
            overrides = (f"batch={batch}", f"gpu={gpu}", "precision=fp16")
            config = {"gpu": {"name": gpu, "count": 1}}
            return run(batch, image_j=image_j, overrides=overrides, config=config, **changes)

        tags = {"energy_scope": "cpu"}
        table = [told(64, "pascal", 0.1), told(128, "pascal", 0.2), told(64, "cpu", 0.3, tags=tags)]
        table += [told(64, "none", 0.4, tags=tags)]
        assert [labels(found.settings) for found in decide(table, Question())] == [
            ["batch=64", "batch=128"],
            ["gpu=cpu", "gpu=none"],
        ]
        for text in ("gpu=none", "batch=64 gpu=none", "batch=64 gpu=none precision=fp32"):
            first, second = decide(table, Question(baseline=text))
            assert first.against is None
            assert second.against.baseline == "gpu=none"

    def test_nothing_finished_is_no_decision(self):
        assert decide([run(status="failed")], Question()) == []

    def test_other_boards_have_their_gains_between_them(self):
        one, other = repeats(64, around(0.1, 0.001), board="GPU-1"), repeats(128, around(0.103, 0.001), board="GPU-2")
        [tie] = only([*one, *other]).repeats
        assert (tie.runs, tie.why) == (None, "boards")
        same = only([*one, *repeats(128, around(0.103, 0.001), board="GPU-1")])
        assert same.sure


class TestConstraints:
    def test_accuracy(self):
        found = only(
            [*repeats(64, around(0.1), accuracy=0.8), *repeats(128, around(0.2), accuracy=0.95)], min_accuracy=0.9
        )
        assert found.chosen.label == "batch=128"
        assert "accuracy" in found.settings[0].unmet

    def test_slowdown_is_against_the_fastest_that_is_accurate_enough(self):
        table = [
            *repeats(32, around(0.9), image_s=0.0001, accuracy=0.1),
            *repeats(64, around(0.1), image_s=0.0025),
            *repeats(128, around(0.2), image_s=0.0021),
            *repeats(256, around(0.3), image_s=0.0020),
        ]
        assert only(table, min_accuracy=0.5, max_slowdown=0.1).chosen.label == "batch=128"
        assert only(table, min_accuracy=0.5, max_slowdown=0.3).chosen.label == "batch=64"
        assert only(table, max_slowdown=0.1).chosen.label == "batch=32"

    def test_energy_is_counted_for_what_per_says(self):
        table = [*repeats(64, around(0.1), images=100), *repeats(128, around(0.2), images=10)]
        assert only(table, per="image").chosen.label == "batch=64"
        assert only(table, per="run").chosen.label == "batch=128"
        assert only(table, per="epoch", max_energy_j=150.0).chosen.label == "batch=64"
        assert only(table, per="run", max_energy_j=5.0).chosen.label == "batch=128"

    def test_none_meets_them_and_the_nearest_is_told(self):
        table = [*repeats(64, around(0.1), accuracy=0.8), *repeats(128, around(0.2), accuracy=0.95)]
        found = only(table, min_accuracy=0.99)
        assert found.chosen is None
        assert not found.sure
        assert found.nearest.label == "batch=128"
        assert found.nearest.missed_by == pytest.approx((0.99 - 0.95) / 0.99)

    def test_without_an_accuracy_none_is_met(self):
        found = only(repeats(64, around(0.1), accuracy=None), min_accuracy=0.01)
        assert found.chosen is None
        assert found.nearest.unmet["accuracy"] == "it has no accuracy"

    def test_a_target_that_only_some_repeats_reached_is_not_met(self):
        reached = {"energy_to_accuracy_j": 10.0, "time_to_accuracy_s": 1.0}
        some = [run(64, 0, metrics=reached), run(64, 1)]
        every = [
            run(128, seed, metrics={"energy_to_accuracy_j": 20.0 + seed, "time_to_accuracy_s": 1.0}) for seed in (0, 1)
        ]
        never = [run(256)]
        found = only([*some, *every, *never], per="target-accuracy")
        assert found.chosen.label == "batch=128"
        assert "only 1 of 2 runs" in found.settings[0].unmet["reached"]
        assert "batch=256" in found.left_out

    @pytest.mark.parametrize(
        "wrong",
        [
            {"per": "mile"},
            {"criterion": "beauty"},
            {"min_accuracy": 97.0},
            {"max_slowdown": -0.1},
            {"max_energy_j": float("nan")},
        ],
    )
    def test_a_question_that_means_nothing_is_refused(self, wrong):
        with pytest.raises(ConfigError):
            Question(**wrong)


class TestFront:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(*[st.integers(1, 6)] * 3), min_size=1, max_size=12))
    def test_nobody_on_it_is_beaten_and_everybody_off_it_is(self, points):
        table = [
            run(index + 1, image_j=float(energy), image_s=float(time), accuracy=accuracy / 10)
            for index, (energy, time, accuracy) in enumerate(points)
        ]
        front = set(labels(only(table).front))
        for index, (energy, time, accuracy) in enumerate(points):
            beaten = any(
                e <= energy and t <= time and a >= accuracy and (e, t, a) != (energy, time, accuracy)
                for e, t, a in points
            )
            name = f"batch={index + 1}" if len(points) > 1 else next(iter(front))
            assert (name in front) != beaten


class TestBaseline:
    def test_by_label_by_factor_and_by_override(self):
        table = [*repeats(64, around(0.1)), *repeats(128, around(0.2), image_s=0.001, accuracy=0.91)]
        for text in ("batch=128", "batch=128 gpu.count=1", "model=lenet batch=128"):
            found = only(table, baseline=text).against
            assert found.baseline == "batch=128"
            assert found.ratios["energy"].value == pytest.approx(0.5, rel=1e-3)
            assert found.ratios["time"].value == pytest.approx(2.0, rel=1e-3)
            assert found.accuracy.value == pytest.approx(-0.01)

    @pytest.mark.parametrize("text", ["batch=512", "gpu.count=1", "nonsense"])
    def test_none_or_several_is_an_error_that_lists_what_there_is(self, text):
        with pytest.raises(ConfigError, match="batch=64"):
            only([*repeats(64, around(0.1)), *repeats(128, around(0.2))], baseline=text)

    def test_the_nearest_few_of_many_are_named(self):
        table = [run(batch, overrides=(f"batch={batch}", "engine.some_long_option=7")) for batch in range(60, 100)]
        with pytest.raises(ConfigError) as raised:
            only(table, baseline="batch=990")
        assert str(raised.value) == (
            "--baseline 'batch=990': no setting of it; the nearest: batch=90; batch=99; batch=60; batch=69"
        )


class TestSeparation:
    def test_the_true_best_is_kept_in_question(self):
        """Of simulated studies of six settings, two of them best alike: neither is thrown out in more than 5 %."""
        draw = np.random.default_rng(6)
        metric = quantity("energy_per_image_j")
        lost = 0
        for _ in range(300):
            means = [0.1, 0.1, 0.101, 0.102, 0.11, 0.15]
            table = [
                found
                for batch, mean in enumerate(means)
                for found in repeats(batch + 1, mean * draw.normal(1, 0.01, 3))
            ]
            kept = {row.results[0].config["batch"] for row in in_question(rows(table), metric)}
            lost += not {1, 2} <= kept
        assert lost / 300 <= 0.05

    def test_overlapping_intervals_name_no_winner_whatever_the_test_says(self):
        a, b = (
            row.sample("energy_per_image_j")
            for row in rows([*repeats(64, [1.0, 1.1, 0.9]), *repeats(128, [1.3, 1.4, 1.2])])
        )
        assert a.estimate().mean + a.estimate().half_width > b.estimate().mean - b.estimate().half_width
        assert not apart(a, b)

    def test_so_many_repeats_do_tell_them_apart(self):
        """The number that is advised gives four of five simulated studies a result."""
        draw = np.random.default_rng(7)
        one, other = rows([*repeats(64, around(1.0, 0.02)), *repeats(128, around(1.03, 0.02))])
        a, b = one.sample("energy_per_image_j"), other.sample("energy_per_image_j")
        wanted = repeats_needed(a, b)
        assert 3 < wanted < 100
        told = 0
        for _ in range(200):
            found = [
                row.sample("energy_per_image_j")
                for row in rows(
                    [*repeats(1, draw.normal(1.0, 0.02, wanted)), *repeats(2, draw.normal(1.03, 0.0206, wanted))]
                )
            ]
            told += apart(*found)
        assert 0.65 <= told / 200 <= 0.97
