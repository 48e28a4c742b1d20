"""What earlier runs tell of those to come."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from scripted import GPUS

from energybench.run.result import Result
from energybench.study.forecast import Forecast, Forecaster, training_flops
from energybench.study.listing import cells_table, memory
from energybench.study.progress import DONE, TO_RUN, Left, Progress, Task, joules, left

GFLOPS_A_SAMPLE = 2


def config(model="lenet", batch=64, seed=0, **sections):
    return {"model": {"name": model}, "batch": batch, "seed": seed, "precision": "fp32", **sections}


def plan(model="lenet", batch=64, seed=0, *, cards=1, epochs=1, steps=None, seconds=None, flops=True, images=640):
    told = config(model, batch, seed)
    experiment = SimpleNamespace(
        to_json=lambda: told,
        precision="fp32",
        batch=batch,
        model=SimpleNamespace(name=model),
        budget=SimpleNamespace(epochs=epochs, steps=steps, seconds=seconds),
    )
    return SimpleNamespace(
        experiment=experiment,
        architecture=SimpleNamespace(training_flops=GFLOPS_A_SAMPLE * 10**9 if flops else None),
        dataset=SimpleNamespace(train_images=images),
        devices=GPUS[:cards],
        boards=GPUS[:cards],
        memory_bytes=3 * 1024**3,
    )


def result(model="lenet", batch=64, seed=0, *, cards=1, whole_s=30, status="finished", **metrics):
    return Result(
        "id",
        status,
        None,
        config(model, batch, seed, tracking={"name": "none"}),
        "2026-01-01T00:00:00+00:00",
        f"2026-01-01T00:00:{whole_s:02d}+00:00",
        metrics={"time_s": 20.0, "energy_j": 2000.0, "gflops_per_s": 64.0} | metrics,
        provenance={"host": "here", "devices": [device.to_json() for device in GPUS[:cards]]},
    )


def told(results, wanted):
    return Forecaster(results, host="here").of(wanted)


def test_repeats_tell_first():
    others = [result(batch=128), result("cnn2d"), result(cards=2), result(status="failed", whole_s=1)]
    repeats = [result(seed=1, whole_s=20), result(seed=2, whole_s=30, energy_j=4000.0)]
    assert told([*others, *repeats], plan()) == Forecast(25.0, 3000.0, "repeats")


def test_else_the_rate_of_the_same_network_and_then_of_others():
    # 640 images of 2 GFLOPs at 64 GFLOPS: 20 s, and the 10 s that the other run spent beside its training; at 100 W
    assert told([result(batch=128)], plan()) == Forecast(30.0, 2000.0, "rate")
    assert told([result(batch=128), result("cnn2d", gflops_per_s=1.0)], plan()) == Forecast(30.0, 2000.0, "rate")
    assert told([result("cnn2d", gflops_per_s=128.0)], plan()) == Forecast(20.0, 1000.0, "rate")
    assert told([result("cnn2d", energy_j=None)], plan()).energy_j is None
    assert told([result(batch=128)], plan(seconds=5.0)) == Forecast(15.0, 500.0, "rate")


@pytest.mark.parametrize("results", [[], [result(cards=2)], [result(batch=128, gflops_per_s=None)]])
def test_where_nothing_tells_there_is_nothing(results):
    assert told(results, plan()) is None
    assert told([result("cnn2d")], plan(flops=False)) is None


def test_results_of_another_hand_tell_nothing():
    odd = [Result("id", "finished", None, {}, "", ""), Result("id", "finished", None, {"model": 3}, "now", "then")]
    assert told(odd, plan()) is None


@pytest.mark.parametrize(
    ("budget", "images"),
    [
        ({"epochs": 2}, 1280),
        ({"epochs": 2, "batch": 100}, 1200),  # what does not fill a batch is dropped
        ({"epochs": 2, "steps": 5}, 320),
        ({"epochs": None, "steps": 50}, 3200),
    ],
)
def test_flops_of_a_budget(budget, images):
    assert training_flops(plan(**budget)) == images * GFLOPS_A_SAMPLE * 1e9


def test_without_a_count_there_are_none():
    assert training_flops(plan(epochs=None, seconds=3.0)) is None


def test_progress_counts_down(monkeypatch):
    tasks = [Task(plan(seed=seed), seed, TO_RUN) for seed in (2, 0, 1)] + [Task(plan("cnn2d"), 3, DONE)]
    progress = Progress(tasks, Forecaster(host="here"))
    assert [progress.follows(number) for number in (2, 0, 1)] == [False, True, True]
    assert progress.label() == "cell 2 of 4"
    assert str(progress.left()) == "3 cells left"
    progress.ended(2, result(seed=2))
    assert progress.label() == "cell 3 of 4"
    assert str(progress.left()) == "2 cells left | about 1 min 00 s, 4.0 kJ"


def test_what_is_left_in_words():
    assert str(Left(1, 90.0, 0.0, 0)) == "1 cell left | about 1 min 30 s"
    assert str(Left(9, 90.0, 85.4, 7)) == "9 cells left | about 1 min 30 s, 85 J for 2 of them"
    assert str(left([Task(plan(), None, DONE)], Forecaster(host="here"))) == "0 cells left"
    assert [joules(energy) for energy in (0.4, 999.0, 4200.0, 3.14e6)] == ["0 J", "999 J", "4.2 kJ", "3.1 MJ"]


def test_memory_that_is_not_there_says_so():
    assert memory(plan()) == "3.0 / 12.0 GiB"
    short = plan()
    short.memory_bytes = 13 * 1024**3
    assert memory(short) == "13.0 / 12.0 GiB, too much"
    short.memory_bytes = None
    assert memory(short) == "-"


def test_the_table_of_a_dry_run():
    tasks = [("first", Task(plan(), 0, DONE)), ("second", Task(plan(seed=1), 1, TO_RUN, "cut short"))]
    table = cells_table(tasks, Forecaster([result(seed=2)], host="here"))
    columns = {column.header: list(column.cells) for column in table.columns}
    assert columns["time"] == ["-", "30 s"]
    assert columns["state"] == ["done", "to run (cut short)"]
    assert columns["devices"] == ["1 x TITAN X"] * 2
