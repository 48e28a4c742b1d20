"""Numbers and tables of the report: fitting units, no digit too many, and the same table in every format."""

from __future__ import annotations

import csv
import io

import pytest

from energybench.study.report.numbers import Scale, scale, significant
from energybench.study.report.tables import Cell, Column, Table, as_csv, as_latex, as_markdown, without_empty_columns


@pytest.mark.parametrize(
    ("unit", "values", "shown"),
    [
        ("J", [1520.0], "1,520 J"),
        ("J", [15_181.0], "15.2 kJ"),
        ("J", [3.2e7], "32.0 MJ"),
        ("J", [0.0108], "10.8 mJ"),
        ("J s", [2.5e-9], "2.50 nJ s"),
        ("W", [231.4], "231 W"),
        ("s", [8.41], "8.41 s"),
        ("s", [540.0], "540 s"),
        ("s", [900.0], "15.0 min"),
        ("s", [20_000.0], "5.56 h"),
        ("s", [0.0021], "2.10 ms"),
        ("images/s", [1483.95], "1,484 images/s"),
        ("", [1.5], "1.50"),
    ],
)
def test_a_fitting_multiple_of_the_unit(unit, values, shown):
    assert scale(unit, values).with_unit(values[0]) == shown


def test_a_column_has_one_unit_by_its_median():
    assert scale("J", [1.0, 20_000.0, 50_000.0]).unit == "kJ"
    assert scale("J", [0.0, 5.0]).unit == "J"
    assert scale("J", []).unit == "J"


def test_shares_are_per_cent():
    accuracy = scale("", [0.9806], share=True)
    assert accuracy.with_unit(0.9806, 0.0032) == "98.06 ± 0.32 %"


@pytest.mark.parametrize(
    ("value", "half", "shown"),
    [
        (152.4, 76.2, "152 ± 76"),
        (10.782, 0.0543, "10.782 ± 0.054"),
        (3.0, 0.0, "3.00"),
        (3.0, None, "3.00"),
        (16.000000000000004, 2e-14, "16.0"),  # of a power that is constant, the mean's own rounding
    ],
)
def test_the_interval_says_how_many_digits(value, half, shown):
    assert Scale("J").text(value, half) == shown


def test_no_exponents():
    assert (significant(1_234_567.0), significant(0.000123), significant(0.0)) == ("1,234,567", "0.000123", "0")


TABLE = Table(
    "results",
    "Energy & time",
    (
        Column("setting", "setting"),
        Column("energy_j", "energy (kJ)", True, Scale("kJ", 1000.0)),
        Column("accuracy_top1", "top-1 (%)", True, Scale("%", 0.01)),
        Column("gone", "nobody has it", True),
    ),
    (
        (Cell("batch=64 | a_b"), Cell("15.2 ± 1.1", 15_234.5, 1100.0, best=True), Cell("98.1", 0.981), Cell("")),
        (Cell("batch=128"), Cell("14.0", 14_000.0), Cell(""), Cell("")),
    ),
    "± is an interval.",
)


def test_a_column_that_nobody_has_is_left_out():
    assert [column.name for column in without_empty_columns(TABLE).columns] == ["setting", "energy_j", "accuracy_top1"]


def test_csv_has_full_precision_in_base_units_and_nothing_for_what_does_not_exist():
    rows = list(csv.DictReader(io.StringIO(as_csv(TABLE))))
    assert [float(row["energy_j"]) for row in rows] == [15_234.5, 14_000.0]
    assert [row["energy_j.half_width"] for row in rows] == ["1100.0", ""]
    assert [row["accuracy_top1"] for row in rows] == ["0.981", ""]
    assert rows[0]["setting"] == "batch=64 | a_b"


def test_markdown():
    lines = as_markdown(TABLE).splitlines()
    assert lines[2] == "| setting | energy (kJ) | top-1 (%) | nobody has it |"
    assert lines[3] == "| --- | ---: | ---: | ---: |"
    assert lines[4] == r"| batch=64 \| a_b | **15.2 ± 1.1** | 98.1 |  |"
    assert lines[-1] == "± is an interval."


def test_latex_has_booktabs_and_escapes():
    text = as_latex(TABLE)
    for part in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{lrrr}", r"\caption{Energy \& time."):
        assert part in text
    assert r"batch=64 | a\_b & \boldmath$15.2 \pm 1.1$ & $98.1$ &  \\" in text
    assert r"top-1 (\%)" in text


def test_numbers_stand_below_each_other():
    assert (TABLE.half_width_ch(1), TABLE.half_width_ch(2)) == (len("± 1.1"), 0)
