"""What people see of a run, on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from energybench import console as shown
from energybench.console import RunView, duration, finished_line, moment_line
from energybench.run.result import Failure, Result
from energybench.run.supervisor import Moment


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7620, "2 h 07 min"),
        (360000, "100 h 00 min"),
    ],
)
def test_duration(seconds, expected):
    assert duration(seconds) == expected


def moment(phase="train", epoch=None, power_w=None, images_per_s=None, fraction=0.0, left_s=None):
    return Moment(phase, epoch, power_w, images_per_s, fraction, left_s)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (moment("load"), "lenet | load"),
        (moment("idle", power_w=0.0), "lenet | idle | 0.0 W"),
        (
            moment("train", 3, 61.23, 5120.4, 0.4, 12.0),
            "lenet | train 3 | 61.2 W | 5,120 images/s | 40% | 12 s left",
        ),
    ],
)
def test_moment_line(given, expected):
    assert moment_line("lenet", given) == expected


def result(status="finished", failure=None, tags=None, **metrics):
    return Result("a", status, failure, {}, "", "", metrics=metrics, tags=tags or {})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (result("failed", Failure("killed", "by SIGKILL")), "lenet | failed: by SIGKILL"),
        (result(), "lenet"),
        (result(time_s=2.0, images_per_s=1234.0), "lenet | 2.00 s | 1,234 images/s"),
        (
            result(energy_j=1234.56, energy_uncertainty_j=7.8, accuracy_top1=0.957),
            "lenet | 1,234.6 ± 7.8 J | 95.70% top-1",
        ),
        (
            result(energy_j=10.0, energy_uncertainty_j=5.0, tags={"energy_source": "estimated"}),
            "lenet | 10.0 ± 5.0 J (estimated)",
        ),
    ],
)
def test_finished_line(given, expected):
    assert finished_line("lenet", given) == expected


def lines(moments, monkeypatch, step_s=0.25):
    """What a view prints that is no terminal; a clock that goes on by `step_s` an update."""
    stream, now = io.StringIO(), [1000.0]
    monkeypatch.setattr(shown.time, "monotonic", lambda: now[0])
    with RunView(shown.console(stream), "lenet") as view:
        for each in moments:
            view.update(each)
            now[0] += step_s
    return stream.getvalue().splitlines()


class TestPlain:
    def test_a_phase_is_a_line_not_each_update(self, monkeypatch):
        moments = [moment("idle")] * 5 + [moment("load")] * 5
        assert lines(moments, monkeypatch) == ["lenet | idle", "lenet | load"]

    def test_epochs_are_a_line_now_and_then(self, monkeypatch):
        printed = lines([moment("train", 1 + i // 20, fraction=i / 200) for i in range(200)], monkeypatch)
        assert 4 <= len(printed) <= 6  # 50 s at one line in 10 s
        assert all(line.startswith("lenet | train") for line in printed)

    def test_short_epochs_do_not_flood(self, monkeypatch):
        moments = [moment(name, epoch) for epoch in range(1, 21) for name in ("train", "validate")]
        assert len(lines(moments, monkeypatch)) <= 2

    def test_brackets_are_text_and_no_colours_are_left(self, monkeypatch):
        [line] = lines([moment("[red]load[/red]")], monkeypatch)
        assert line == "lenet | [red]load[/red]"

    def test_a_long_line_is_one_line(self, monkeypatch):
        assert len(lines([moment("x" * 200)], monkeypatch)) == 1


def test_a_terminal_has_one_line_that_is_rewritten():
    stream = io.StringIO()
    out = Console(file=stream, force_terminal=True, width=60)
    with RunView(out, "lenet") as view:
        view.update(moment("load"))
        view.update(moment("train", 1, fraction=0.5))
        view._live.refresh()
    text = stream.getvalue()
    assert "lenet | train 1 | 50%" in text
    assert "\x1b[2K" in text  # the line is taken away at the end


def test_results_keep_their_width_where_there_is_no_terminal():
    assert shown.console(io.StringIO()).width == 140
