"""Sources side by side, and when a build fails."""

from __future__ import annotations

import math

import pytest
from results import repeats, run

from energybench.errors import ConfigError
from energybench.study.compare import compare
from energybench.study.comparison_text import grids, lines, moved, verdict_line
from energybench.study.condition import judge, parse
from energybench.study.intervals import ratio

OLD = [*repeats(64, (1.00, 1.01, 0.99)), *repeats(128, (0.80, 0.81, 0.79))]
NEW = [*repeats(64, (1.20, 1.21, 1.19)), *repeats(128, (0.80, 0.81, 0.79))]


def one(before, after, *more):
    [comparison] = compare([("old", before), ("new", after)], more)
    return comparison


class TestPairs:
    def test_settings_match_by_what_varies(self):
        found = one(OLD, [*NEW, *repeats(256, (0.7, 0.7))])
        assert [pair.setting for pair in found.pairs] == ["batch=64", "batch=128"]
        assert (found.only_first, found.only_other) == ((), ("batch=256",))
        change = found.pairs[0].changes["energy_per_image_j"]
        wanted = ratio(*(row.sample("energy_per_image_j") for row in (found.pairs[0].before, found.pairs[0].after)))
        assert change.ratio == wanted
        assert change.ratio.value == pytest.approx(1.2, rel=1e-3)
        assert change.told_apart
        assert not found.pairs[1].changes["energy_per_image_j"].told_apart

    def test_what_differs_between_the_sources_as_wholes_keeps_nothing_apart(self):
        config = {"gpu": {"name": "maxwell", "count": 1}}
        tags = {"device": "TITAN X", "generation": "maxwell"}
        other = [
            *repeats(64, (2.0, 2.1), config=config, tags=tags),
            *repeats(128, (2.0, 2.1), config=config, tags=tags),
        ]
        found = one(OLD, other)
        assert len(found.pairs) == 2
        assert found.pairs[0].differences["gpu.name"] == ("pascal", "maxwell")
        assert "gpu.name: pascal -> maxwell" in lines(found)[0]

    def test_two_single_settings_are_a_pair_whatever_they_are(self):
        found = one([run(64)], [run(256)])
        assert found.pairs[0].differences == {"batch": ("64", "256")}
        assert any("a single run" in note for note in found.pairs[0].notes)

    def test_many_pairs_are_corrected_together(self):
        before = [result for batch in range(1, 11) for result in repeats(batch, (1.0, 1.01, 0.99))]
        after = [result for batch in range(1, 11) for result in repeats(batch, (1.02, 1.03, 1.01))]
        alone = one(before[:3], after[:3]).pairs[0].changes["energy_per_image_j"]
        among = one(before, after).pairs[0].changes["energy_per_image_j"]
        assert among.adjusted_p == pytest.approx(min(1.0, 10 * alone.adjusted_p))

    @pytest.mark.parametrize(
        ("tags", "words"),
        [
            ({"energy_source": "estimated"}, "measured and estimated"),
            ({"energy_scope": "cpu"}, "of the gpu and of the cpu"),
        ],
    )
    def test_energies_of_two_kinds_are_not_compared_but_times_are(self, tags, words):
        [pair] = one(repeats(64, (1.0, 1.0)), repeats(64, (2.0, 2.0), tags=tags)).pairs
        assert words in pair.incomparable
        assert pair.changes["energy_j"].ratio is None
        assert pair.changes["power_mean_w"].ratio is None
        assert pair.changes["time_s"].ratio is not None
        assert moved(pair.changes["energy_j"]) == "not compared"

    def test_other_boards_code_framework_and_flags_are_named(self):
        git = {"commit": "0123456789abcdef", "changes": "yes"}
        other = repeats(64, (1.0, 1.1), board="GPU-2", tags={"quality": "gaps"})
        other = [run(64, status="failed"), *(r for r in other)]
        first = [
            run(
                64,
                seed,
                provenance={
                    "host": "server",
                    "devices": [{"uuid": "GPU-1"}],
                    "git": git,
                    "engine": {"engine": "torch 2"},
                },
            )
            for seed in (0, 1)
        ]
        notes = "\n".join(one(first, other).pairs[0].notes)
        for words in (
            "other boards",
            "0123456789 with changes",
            "torch 2",
            "quality of the other: gaps",
            "1 of 3 runs",
        ):
            assert words in notes

    def test_other_boards_widen_the_interval(self):
        same = one(repeats(64, (1.0, 1.01)), repeats(64, (1.1, 1.11))).pairs[0].changes["energy_j"].ratio
        other = (
            one(repeats(64, (1.0, 1.01)), repeats(64, (1.1, 1.11), board="GPU-2")).pairs[0].changes["energy_j"].ratio
        )
        assert math.log(other.high / other.low) > math.log(same.high / same.low)

    def test_what_is_absent_is_absent(self):
        [pair] = one([run(64, accuracy=None)], [run(64, accuracy=0.9)]).pairs
        assert moved(pair.changes["accuracy_top1"]) == "-"
        assert "accuracy_top5" not in pair.changes

    def test_no_setting_in_common(self):
        found = one(OLD, [*repeats(1, (1.0,)), *repeats(2, (1.0,))])
        assert found.pairs == ()
        assert "No setting of old matches one of new." in lines(found)


class TestSeeds:
    """The same configuration with the same seeds, on other code or another device: accuracy pair by pair."""

    ACCURACIES = (0.95, 0.90, 0.93)

    def moved(self, *, batch=64, seeds=(0, 1, 2), lost=0.001):
        before = [run(64, seed, accuracy=value) for seed, value in enumerate(self.ACCURACIES)]
        after = [run(batch, seed, accuracy=self.ACCURACIES[i] - lost) for i, seed in enumerate(seeds)]
        return one(before, after).pairs[0].changes["accuracy_top1"].difference

    def test_a_small_loss_in_every_pair_is_seen(self):
        found = self.moved()
        assert found.value == pytest.approx(-0.001)
        assert found.half_width == pytest.approx(0.0, abs=1e-9)
        assert self.moved(lost=0.0).p == 1.0

    @pytest.mark.parametrize("changed", [{"batch": 128}, {"seeds": (3, 4, 5)}])
    def test_not_where_the_seed_decides_something_else(self, changed):
        assert self.moved(**changed).half_width > 0.02


class TestConditions:
    @pytest.mark.parametrize(
        ("text", "metric", "limit", "above", "relative"),
        [
            ("energy_per_image_j +5%", "energy_per_image_j", 0.05, True, True),
            ("images_per_s -10 %", "images_per_s", -0.1, False, True),
            ("accuracy_top1 -0.5pp", "accuracy_top1", -0.005, False, False),
            ("energy_j +100J", "energy_j", 100.0, True, False),
            ("time_s+.5 s", "time_s", 0.5, True, False),
            ("energy_j.gpu.0 +1%", "energy_j.gpu.0", 0.01, True, True),
            ("validate.energy_j +1 J", "validate.energy_j", 1.0, True, False),
            ("energy_j +0%", "energy_j", 0.0, True, True),
        ],
    )
    def test_grammar(self, text, metric, limit, above, relative):
        found = parse(text)
        assert (found.metric, found.above, found.relative) == (metric, above, relative)
        assert found.limit == pytest.approx(limit)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "energy_j",
            "energy_j 5%",
            "energy_j +5",
            "energy_j +5 s",
            "energy_j +1pp",
            "+5%",
            "energy_j +-5%",
            "accuracy_top1 -1 J",
            "energy_j +five%",
            "energy_j > 5%",
        ],
    )
    def test_what_is_no_condition_is_refused_with_the_grammar_or_the_unit(self, text):
        with pytest.raises(ConfigError, match=r"fail-if .*write"):
            parse(text)

    @pytest.mark.parametrize(
        ("text", "states"),
        [
            ("energy_per_image_j +5%", ["met", "not met"]),
            ("energy_per_image_j +25%", ["not met", "not met"]),
            ("energy_per_image_j -5%", ["not met", "not met"]),
            ("energy_per_image_j +0.1 J", ["met", "not met"]),
            ("accuracy_top1 -0.5pp", ["not met", "not met"]),
            ("no_such_metric +5%", ["unknown", "unknown"]),
        ],
    )
    def test_judging(self, text, states):
        found = judge([parse(text)], compare([("old", OLD), ("new", NEW)], [text.split()[0]]))
        assert [verdict.state for verdict in found] == states

    @pytest.mark.parametrize(("after", "met"), [((1.1, 1.1), False), ((0.9, 0.9), True)])
    def test_less_of_what_is_good(self, after, met):
        results = [run(64, seed, accuracy=value) for seed, value in enumerate(after)]
        [verdict] = judge(
            [parse("accuracy_top1 -0.5pp")],
            compare([("a", [run(64, s, accuracy=1.0) for s in (0, 1)]), ("b", results)]),
        )
        assert (verdict.state == "met") is met

    def test_sure_is_the_whole_interval(self):
        surely = judge([parse("energy_j +5%")], compare([("a", OLD[:3]), ("b", NEW[:3])]))[0]
        barely = judge([parse("energy_j +19.5%")], compare([("a", OLD[:3]), ("b", NEW[:3])]))[0]
        alone = judge([parse("energy_j +5%")], compare([("a", OLD[:1]), ("b", NEW[:1])]))[0]
        assert (surely.state, surely.sure) == ("met", True)
        assert (barely.state, barely.sure) == ("met", False)
        assert (alone.state, alone.sure) == ("met", False)
        assert verdict_line(barely, sure_only=False).startswith("FAIL")
        assert verdict_line(barely, sure_only=True).startswith("ok")

    def test_energies_of_two_kinds_cannot_be_judged(self):
        estimated = repeats(64, (1.0,), tags={"energy_source": "estimated"})
        [verdict] = judge([parse("energy_j +5%")], compare([("a", OLD[:1]), ("b", estimated)]))
        assert verdict.state == "unknown"
        assert "not compared" in verdict.words


class TestText:
    def test_one_pair_is_a_line_a_metric(self):
        [grid] = grids(one(OLD[:3], NEW[:3]))
        text = grid.markdown()
        assert grid.head == ("", "old", "new", "change")
        [line] = [line for line in text.splitlines() if line.startswith("| energy an image")]
        assert "1.000 ± 0.025 | 1.200 ± 0.025 | +20 % (+" in line
        assert line.endswith("* |")

    def test_a_constant_power_has_no_interval_and_no_change(self):
        def powers(*noise):
            watts = [{"power_mean_w": 16 + step * 4e-15} for step in noise]
            return [run(64, seed, independent=0, metrics=found) for seed, found in enumerate(watts)]

        found = one(powers(-1, 0, -1), powers(2, 3, 2))
        [grid] = grids(found)
        [power] = [row for row in grid.rows if "power" in row[0]]
        assert power[1:] == ("16.00", "16.00", "0 %")

    def test_several_pairs_are_a_line_a_setting_with_the_metrics_asked_for(self):
        [grid] = grids(one(OLD, NEW, "time_s"), ["time_s"])
        assert [row[0] for row in grid.rows] == ["batch=64", "batch=128"]
        assert "time" in grid.head
