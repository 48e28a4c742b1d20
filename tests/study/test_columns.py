"""Tables for narrow terminals: what is left out, and what never is."""

from __future__ import annotations

import re

import pytest
from results import repeats
from rich.console import Console
from rich.text import Text

from energybench.study import recommendation, summary
from energybench.study.columns import Column, Columns
from energybench.study.decision import Question, decide


def drawn(renderable, width):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def cells(text):
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]


def texts(*words):
    return [Text(word) for word in words]


@pytest.fixture
def runs():
    wanted = (("lenet", 64), ("resnet50", 128), ("resnet50", 256))
    return [
        result
        for model, batch in wanted
        for result in repeats(
            batch,
            (0.1, 0.101, 0.102),
            overrides=(f"batch={batch}", f"model={model}", f"training.learning_rate={batch / 1000}"),
            config={"model": {"name": model}, "training": {"learning_rate": batch / 1000}},
            metrics={"gflops_per_w": 3.25},
        )
    ]


@pytest.mark.parametrize("width", [80, 100, 140])
def test_a_sweeps_end_names_every_row_and_cuts_no_number(runs, width):
    text = drawn(summary.table(runs), width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("batch=64", "batch=256", "model=resnet50", "training.learning_rate=0.064", "1,010 ± 25", "90.00%"):
        assert word in text
    assert ("GFLOPS/W" in text) == (width > 100)


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("criterion", ["energy", "edp"])
def test_advice_names_every_row_and_keeps_what_was_asked(runs, width, criterion):
    [decision] = decide(runs, Question(criterion=criterion))
    text = drawn(recommendation.table(decision), width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("batch=64", "batch=256", "model=resnet50", "training.learning_rate=0.064", "101.0 ± 2.5"):
        assert word in text
    heads = re.sub(r"\s+", " ", text)
    assert ("EDP" in heads) == (width > 80 or criterion == "edp")
    assert "ED²P" not in heads or width > 80


def test_room_goes_to_the_names_first():
    table = Columns("", (Column("setting", texts("a=1 b=2"), number=False), Column("more", texts("x"), spare=1)))
    assert cells(drawn(table, 40)) == [["a=1 b=2", "x"]]
    assert cells(drawn(table, 18)) == [["a=1 b=2", "x"]]
    assert cells(drawn(table, 17)) == [["a=1 b=2"]]


def test_a_number_is_whole_where_there_is_no_room_at_all():
    table = Columns("", (Column("setting", texts("n" * 30), number=False), Column("J", texts("1.000 ± 0.002"))))
    text = drawn(table, 30)
    assert "1.000 ± 0.002" in text
    assert text.count("n") - text.count("setting") == 30
