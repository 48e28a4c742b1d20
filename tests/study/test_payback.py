"""What a setting takes before it trains, and when it is earned back."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from results import repeats, run

from energybench.run.result import Attempt, Failure
from energybench.study import recommendation
from energybench.study.compare import compare
from energybench.study.comparison_text import lines, to_json
from energybench.study.costs import Rates
from energybench.study.decision import Question, decide
from energybench.study.payback import paid_back_last, payback
from energybench.study.quantities import BEFORE, preparations, quantity
from energybench.study.report.advice import advice
from energybench.study.report.settings import entries
from energybench.study.rows import rows
from energybench.study.summary import details


def before(**joules_and_seconds):
    """Metrics of phases: compile=(5000.0, 30.0)."""
    found = {}
    for phase, (joules, seconds) in joules_and_seconds.items():
        found |= {f"{phase}.time_s": seconds, f"{phase}.energy_j": joules}
    return {name: value for name, value in found.items() if value is not None}


PLAIN = {"metrics": before(load=(300.0, 3.0), capture=(700.0, 4.0), warmup=(100.0, 1.0))}
COMPILED = {
    "metrics": before(load=(300.0, 3.0), compile=(5000.0, 34.0), capture=(80.0, 0.3), warmup=(60.0, 0.6)),
    "config": {"engine": {"name": "torch", "compile": "default"}},
    "overrides": ("engine.compile=default",),
}


def settings():
    plain = repeats(64, (0.0920, 0.0921, 0.0919), image_s=1 / 6000, **PLAIN)
    return rows([*plain, *repeats(64, (0.0750, 0.0751, 0.0749), image_s=1 / 8700, **COMPILED)])


def test_what_compiling_takes_is_earned_back_by_what_it_saves():
    plain, compiled = settings()
    energy, time = payback(compiled, plain, "energy"), payback(compiled, plain, "time")
    assert energy.phases == ("compile",)
    assert energy.sure
    assert energy.more == pytest.approx((5000 + 80 + 60) - (700 + 100))
    assert energy.images == pytest.approx(energy.more / (0.0920 - 0.0750))
    assert energy.time_s == pytest.approx(energy.images / 8700)
    assert time.more == pytest.approx((34 + 0.3 + 0.6) - (4 + 1))
    assert time.images == pytest.approx(time.more / (1 / 6000 - 1 / 8700))
    assert energy.words("none") == (
        "4.34 kJ more than none before it trains (compile), earned back after about 255,000 images (29 s of training)"
    )
    assert payback(plain, compiled, "energy") is None


def test_both_have_taken_the_same_after_so_many_images():
    plain, compiled = settings()
    back = payback(compiled, plain)
    spent = [
        sum(
            value
            for name, value in row.finished[0].metrics.items()
            if name.endswith((".energy_j",)) and "load" not in name
        )
        + back.images * row.estimate("energy_per_image_j").mean
        for row in (plain, compiled)
    ]
    assert spent[0] == pytest.approx(spent[1])


def test_what_saves_nothing_is_never_earned_back():
    plain = repeats(64, (0.07, 0.07), **PLAIN)
    table = rows([*plain, *repeats(64, (0.08, 0.08), **COMPILED)])
    back = payback(table[1], table[0])
    assert math.isinf(back.images)
    assert back.to_json() | {"more": 0} == {
        "phases": ("compile",), "unit": "J", "more": 0, "images": None, "time_s": None, "sure": back.sure,
    }  # fmt: skip
    assert back.words("it").endswith("and saves nothing an image")


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (before(warmup=(900.0, 9.0)), before(warmup=(100.0, 1.0))),  # more steps to warm up: no engine's own doing
        (before(compile=(None, 30.0)), {}),  # no reading fell into it
        (before(compile=(5.0, 30.0), warmup=(5.0, 1.0)), before(warmup=(50.0, 1.0))),  # where the other does the same
        (before(capture=(1868.0, 13.1)), before(capture=(498.0, 3.0))),  # the same phase: that is scatter
    ],
)
def test_nothing_is_said_where_nothing_more_is_prepared_or_known(mine, theirs):
    made = [run(64, image_j=0.1, metrics=mine), run(128, image_j=0.2, metrics=theirs)]
    assert payback(*rows(made)) is None


OTHER = {"model": {"name": "resnet"}}, {"dataset": {"name": "fashion_mnist"}}


@pytest.mark.parametrize("config", OTHER)
def test_nothing_is_said_of_other_networks_and_data(config):
    made = [run(64, image_j=0.1, **COMPILED), run(64, image_j=0.2, config=config, metrics=PLAIN["metrics"])]
    assert payback(*rows(made)) is None


def test_nothing_is_said_of_runs_that_prepared_twice():
    plain, compiled = settings()
    attempt = Attempt("a", Failure("interrupted", "stopped"), "", "", (), ())
    again = [replace(one, attempts=(attempt,)) for one in compiled.results]
    assert payback(replace(compiled, results=tuple(again)), plain) is None


def test_of_several_the_one_that_is_caught_up_with_last():
    plain, compiled = settings()
    [small] = rows([run(32, image_j=0.0760, **PLAIN)])
    other, back = paid_back_last(compiled, [plain, small, compiled])
    assert other is small
    assert back.images == payback(compiled, small).images
    assert paid_back_last(plain, [compiled, small]) is None


def test_recommend_says_it_in_words_and_as_json():
    results = [result for row in settings() for result in row.results]
    [decision] = decide(results, Question())
    assert decision.chosen.label == "engine.compile=default"
    said = recommendation.lines(decision, Rates())
    assert any(
        line.startswith("  It takes 4.34 kJ more than") and line.endswith("(29 s of training).") for line in said
    ), said
    [found] = json.loads(recommendation.to_json([decision], Rates()))
    assert found["payback"]["images"] == pytest.approx(4340 / 0.017)
    assert found["payback"]["unit"] == "J"
    [by_time] = decide(results, Question(criterion="time"))
    assert any("29.9 s more than" in line for line in recommendation.lines(by_time, Rates()))
    [of_a_run] = decide(results, Question(per="run"))
    assert not any("before it trains" in line for line in recommendation.lines(of_a_run, Rates()))
    [by_edp] = decide(results, Question(criterion="edp"))
    assert not any("before it trains" in line for line in recommendation.lines(by_edp, Rates()))


def test_single_runs_are_not_told_apart_and_said_so():
    made = [run(64, image_j=0.09, **PLAIN), run(64, image_j=0.08, **COMPILED)]
    [decision] = decide(made, Question())
    assert any(line.endswith("by means that are not told apart.") for line in recommendation.lines(decision, Rates()))


def test_compare_says_it_of_either_side():
    plain, compiled = (row.results for row in settings())
    for first, other in ((plain, compiled), (compiled, plain)):
        [found] = compare([("a", first), ("b", other)])
        dear, cheap = ("b", "a") if first is plain else ("a", "b")
        said = [line for line in lines(found) if "before it trains" in line]
        assert [line.split(" before")[0] for line in said] == [
            f"{dear} takes 4.34 kJ more than {cheap}",
            f"{dear} takes 29.9 s more than {cheap}",
        ]
        [pair] = json.loads(to_json([found], [], failed=False))["comparisons"][0]["pairs"]
        assert [(one["source"], one["unit"]) for one in pair["payback"]] == [(dear, "J"), (dear, "s")]


def test_energies_that_may_not_be_compared_are_not_earned_back():
    _, compiled = (row.results for row in settings())
    estimated = [run(64, seed, **PLAIN, tags={"energy_source": "estimated"}) for seed in range(2)]
    [found] = compare([("a", estimated), ("b", compiled)])
    assert not any("J more than" in line for line in lines(found))


@pytest.mark.parametrize(("images", "told"), [(200_000, True), (300_000, False)])
def test_the_page_says_it_of_runs_too_short_to_earn_it_back(images, told):
    plain, compiled = settings()
    longer = [replace(one, metrics={**one.metrics, "images": float(images)}) for one in compiled.results]
    [found] = advice(entries(rows([*plain.results, *longer])))
    assert ("It takes 4.34 kJ more than" in found.sentence) == told


def test_phases_of_an_engine_s_own_are_named_in_a_run_s_table_and_have_their_own_uncertainty():
    metrics = before(quantise=(80.0, 0.5), load=(1.0, 1.0)) | {"quantise.energy_uncertainty_j": 40.0}
    result = run(metrics=metrics)
    assert preparations(result) == ("quantise",)
    assert BEFORE["energy"].of(result) == 80.0
    assert quantity("quantise.energy_j").uncertainties(result).common == pytest.approx(20.0)
    words = [str(cell) for cell in details(result).columns[0].cells]
    assert "energy of quantise" in words
