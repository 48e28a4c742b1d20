"""What a table of results says, and what it refuses to say."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from energybench.run.attempts import CUT, NOT_KNOWN
from energybench.run.result import Attempt, Failure, Result
from energybench.study.rows import rows
from energybench.study.summary import CRITERIA, best, details, heading, table, verdict

ENERGY, SPEED, ACCURACY = CRITERIA


def result(batch=64, seed=0, status="finished", *, overrides=None, tags=None, board="GPU-1", config=None, **metrics):
    found = {"energy_j": 100.0, "energy_uncertainty_j": 8.0, "energy_independent_uncertainty_j": 2.0}
    found |= {"energy_per_image_j": 0.1, "images_per_s": 500.0, "time_s": 2.0} | metrics
    return Result(
        run_id=f"{batch}-{seed}",
        status=status,
        failure=None if status == "finished" else Failure("nan_loss", "no number"),
        config=config or {"model": {"name": "lenet", "options": {}}, "batch": batch, "seed": seed, "tracking": {}},
        started_at="2026-01-01T00:00:00+00:00",
        ended_at="2026-01-01T00:00:02+00:00",
        metrics={name: value for name, value in found.items() if value is not None},
        tags={"energy_source": "measured", "energy_scope": "gpu", "meter": "nvml", "device": "TITAN Xp"} | (tags or {}),
        overrides=overrides if overrides is not None else (f"batch={batch}", f"seed={seed}"),
        provenance={"devices": [{"uuid": board}]},
    )


def repeats(batch, *energies, metric="energy_per_image_j", **options):
    return [result(batch, seed, **{metric: value}, **options) for seed, value in enumerate(energies)]


def winner(results, criterion=ENERGY):
    found = best(rows(results), criterion)
    return found.label if found else None


def shown(one):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(details(one))
    lines = [line.strip("│ ").split("│") for line in console.export_text().splitlines() if line.count("│") == 3]
    return {name.strip(): value.strip() for name, value in lines}


class TestDetails:
    def test_small_joules_and_seconds_keep_their_digits(self):
        small = {"energy_per_image_j": 0.0002916, "time_s": 0.0472, "validate.energy_j": 0.0318, "edp_js": 2.176e-5}
        found = shown(result(**small, **{"warmup.energy_j": 12345.67}))
        assert found["energy an image"] == "291.6 µJ"
        assert found["training time"] == "0.0472 s"
        assert found["energy of validation"] == "0.0318 J"
        assert found["energy-delay product"] == "21.76 µJ s"
        assert found["energy of the warm-up"] == "12,345.7 J"

    def test_nothing_is_nothing(self):
        assert shown(result(**{"validate.energy_j": 0.0}))["energy of validation"] == "0.0 J"

    def test_a_run_that_went_on_says_so(self):
        earlier = Attempt("a", Failure("interrupted", "stopped"), "2026-01-01T00:00:00+00:00", "", (), ())
        assert "attempts" not in shown(result())
        assert shown(replace(result(), attempts=(earlier,)))["attempts"] == "2, all in these numbers"
        for cut in (NOT_KNOWN, replace(earlier, failure=CUT)):
            said = shown(replace(result(), attempts=(earlier, cut)))["attempts"]
            assert said == "3; what one of them took at its end is not known"


class TestRows:
    def test_repeats_are_one_row(self):
        found = rows([*repeats(64, 0.1, 0.2), *repeats(128, 0.3, 0.4)])
        assert [(row.label, len(row.results)) for row in found] == [("batch=64", 2), ("batch=128", 2)]
        assert found[0].estimate("energy_per_image_j").mean == pytest.approx(0.15)
        assert found[0].estimate("energy_per_image_j").repeats == 2

    def test_only_what_differs_is_in_the_label(self):
        found = rows([result(b, overrides=(f"batch={b}", "gpu=cpu", "seed=0")) for b in (64, 128)])
        assert [row.label for row in found] == ["batch=64", "batch=128"]

    def test_an_override_that_one_lacks(self):
        found = rows([result(64, overrides=()), result(128, overrides=("batch=128",))])
        assert [row.label for row in found] == ["batch=64", "batch=128"]

    def test_an_experiment_is_the_settings_that_it_makes(self):
        long, short = (result(64, config={"batch": 64, "budget": {"epochs": epochs}}) for epochs in (10, 2))
        named = [
            replace(long, overrides=("experiment=demo", "batch=64")),
            replace(short, overrides=("batch=64", "budget.epochs=2")),
        ]
        assert [row.label for row in rows(named)] == ["budget.epochs=10", "budget.epochs=2"]

    def test_one_row_alone_has_the_runs_name(self):
        [row] = rows([result(64)])
        assert "lenet" in row.label

    def test_where_it_was_recorded_makes_no_other_setting(self):
        config = {"batch": 64, "tracking": {"uri": "a"}}
        assert len(rows([result(config=config), result(config=config | {"tracking": {"uri": "b"}})])) == 1

    def test_what_decides_nothing_is_in_no_label(self):
        beside = ("tracking.uri=foo://bar", "sweep.name=live", "rerun=failed", "hydra/sweeper=optuna")
        beside += ("measure.lock=wait", "nodes.rank=1", "quality.strict=true", "seed=0")
        model = {"name": "zoo", "options": {"network": "vgg11"}}
        config = {"model": model, "precision": "fp32", "measure": {"lock": "wait"}, "nodes": {"count": 1, "rank": 1}}
        one = result(64, overrides=(*beside, "batch=64", "model.network=vgg11"), config=config | {"batch": 64})
        other = result(128, overrides=("batch=128",), config=config | {"batch": 128, "model": {"name": "lenet"}})
        labels = [row.label for row in rows([one, other])]
        assert labels == ["batch=64 model.network=vgg11", "batch=128 model.network=-"]
        assert [row.label for row in rows([one])] == ["zoo batch=64 model.network=vgg11"]

    def test_runs_without_a_configuration_stay_apart(self):
        assert len(rows([Result(name, "failed", None, {}, "", "") for name in "ab"])) == 2

    def test_failed_runs_are_no_estimate(self):
        [row] = rows([result(energy_j=100.0), result(seed=1, energy_j=1.0, status="failed")])
        assert row.estimate("energy_j").mean == 100.0
        assert row.estimate("energy_j").half_width is None

    def test_a_metric_that_some_repeats_lack(self):
        [row] = rows([result(energy_j=None, energy_per_image_j=None), result(seed=1), result(seed=2)])
        assert row.estimate("energy_per_image_j").repeats == 2
        assert row.estimate("accuracy_top1") is None


class TestBest:
    def test_beyond_both_intervals(self):
        assert winner([*repeats(64, 0.100, 0.101, 0.102), *repeats(128, 0.200, 0.201, 0.202)]) == "batch=64"

    @pytest.mark.parametrize(("criterion", "metric"), [(SPEED, "images_per_s"), (ACCURACY, "accuracy_top1")])
    def test_more_is_better_of_speed_and_accuracy(self, criterion, metric):
        found = [*repeats(64, 0.50, 0.51, metric=metric), *repeats(128, 0.90, 0.91, metric=metric)]
        assert winner(found, criterion) == "batch=128"

    def test_not_inside_the_intervals(self):
        assert winner([*repeats(64, 0.1, 0.2, 0.3), *repeats(128, 0.15, 0.25, 0.35)]) is None

    def test_not_what_the_meter_alone_cannot_tell_apart(self):
        options = {"energy_independent_uncertainty_j": 20.0}
        assert winner([*repeats(64, 0.100, 0.100, **options), *repeats(128, 0.110, 0.110, **options)]) is None

    def test_not_for_one_run_each(self):
        assert winner([result(64, energy_per_image_j=0.1), result(128, energy_per_image_j=99.0)]) is None

    def test_not_where_only_the_best_was_repeated(self):
        assert winner([*repeats(64, 0.1, 0.1), result(128, energy_per_image_j=9.0)]) is None

    def test_not_with_nobody_to_compare_with(self):
        assert winner(repeats(64, 0.1, 0.1)) is None

    def test_it_must_beat_the_nearest_not_the_worst(self):
        found = [*repeats(64, 0.10, 0.11), *repeats(128, 0.101, 0.109), *repeats(256, 5.0, 5.01)]
        assert winner(found) is None

    @pytest.mark.parametrize("tags", [{"energy_source": "estimated"}, {"energy_scope": "cpu"}])
    @pytest.mark.parametrize("criterion", CRITERIA)
    def test_never_measured_with_estimated_nor_across_scopes(self, tags, criterion):
        values = {"metric": criterion.metric}
        found = [*repeats(64, 0.1, 0.1, **values), *repeats(128, 0.9, 0.9, tags=tags, **values)]
        assert winner(found, criterion) is None
        assert verdict(found) == [
            "Measured and estimated energies, or other scopes, stand in this table: they are not compared."
        ]

    def test_between_boards_their_gains_count(self):
        options = {"energy_uncertainty_j": 40.0}
        one = repeats(64, 0.100, 0.100, board="GPU-1", **options)
        assert winner([*one, *repeats(128, 0.110, 0.110, board="GPU-2", **options)]) is None


class TestVerdict:
    def test_winners_are_named_and_the_others_not_distinguishable(self):
        found = [
            *(result(64, seed, energy_per_image_j=0.1 + seed / 1000, images_per_s=500.0 + seed) for seed in (0, 1)),
            *(result(128, seed, energy_per_image_j=0.5 + seed / 1000, images_per_s=500.5 + seed) for seed in (0, 1)),
        ]
        assert verdict(found) == [
            "least energy an image: batch=64",
            "most images a second: not distinguishable",
        ]

    def test_one_run_each_tells_how_to_learn_more(self):
        *lines, advice = verdict([result(64, energy_per_image_j=0.1), result(128, energy_per_image_j=9.0)])
        assert lines
        assert all(line.endswith("not distinguishable") for line in lines)
        assert "seed=0,1,2" in advice

    def test_seeds_are_not_advised_where_there_are_some(self):
        assert len(verdict([*repeats(64, 0.1, 0.2), result(128)])) == 2
        assert len(verdict([result(64), result(128)], one_seed=False)) == 2
        assert len(verdict([result(64), result(128)])) == 3

    def test_one_row_needs_no_verdict(self):
        assert verdict(repeats(64, 0.1, 0.2)) == []


def drawn(results, width=140):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table(results))
    return capture.get()


class TestTable:
    def test_the_winner_is_marked_and_intervals_are_shown(self):
        text = drawn([*repeats(64, 0.1, 0.102, 0.101), *repeats(128, 0.9, 0.902, 0.901)])
        [first] = [line for line in text.splitlines() if "batch=64" in line]
        [second] = [line for line in text.splitlines() if "batch=128" in line]
        assert "0.1010 ± " in first
        assert "*" in first
        assert "*" not in second

    def test_one_run_has_the_meters_uncertainty(self):
        assert "100.0 ± 8.0" in drawn([result(64)])

    def test_a_repeat_without_energy(self):
        text = drawn([result(energy_j=None, energy_uncertainty_j=None), result(seed=1)])
        assert "100.0 ± 8.0" in text

    def test_what_is_absent_is_no_number(self):
        [line] = [line for line in drawn([result(64, energy_j=None), result(128)]).splitlines() if "batch=64" in line]
        assert "│       - │" in line or " - " in line
        assert "0.0" not in line

    def test_failures_are_counted_and_named(self):
        text = drawn([result(64), result(64, 1, "failed"), result(128), result(128, 1)])
        [line] = [line for line in text.splitlines() if "batch=64" in line]
        assert "1 of 2" in line
        assert "failed: nan_loss" in line

    def test_a_long_setting_does_not_push_the_numbers_out(self):
        overrides = tuple(f"section.option_{i}=value_{i}" for i in range(8))
        text = drawn([result(64, overrides=overrides)])
        for number in ("100.0 ± 8.0", "2.00", "500", "0.1"):
            assert number in text

    def test_brackets_in_a_setting_are_text(self):
        found = [result(b, overrides=(f"training.milestones=[{b / 1000}]",)) for b in (64, 128)]
        assert "milestones=[0.064]" in drawn(found)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([], "no energy was read"),
        ([Result("a", "failed", None, {}, "", "")], "no energy was read"),
        ([result(), result(128)], "energy of the gpu (TITAN Xp), measured by nvml"),
        (
            [
                result(
                    tags={"energy_scope": "cpu", "energy_source": "estimated", "meter": "tdp", "tdp_source": "65 W, X"}
                )
            ],
            "energy of the cpu (TITAN Xp), estimated by tdp: 65 W, X",
        ),
    ],
)
def test_heading(results, expected):
    assert heading(results) == expected
