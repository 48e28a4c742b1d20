"""Waiting for cells where the scheduler is silent, forgets, or ends one in between: it says what it is told to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import studies
from omegaconf import OmegaConf

from energybench.cluster.options import ClusterOptions
from energybench.cluster.scheduler import ENDED, QUEUED, RUNNING, Standing
from energybench.cluster.ticket import Ticket
from energybench.cluster.watch import Watch
from energybench.errors import ClusterError
from energybench.run.result import Failure
from energybench.study.ledger import Sweep
from hydra_plugins.energybench_launcher import ClusterLauncher

SWEEP = Sweep("s" * 32, "a sweep", None, (("a=1",), ("a=2",)), ("key 1", "key 2"), (0, 1), awaited=(0, 1))
RESULT = replace(
    studies.run("lenet", "pascal", 1, 64, 0), config={"tracking": {"name": "none"}, "model": {"name": "lenet"}}
)
CUT = replace(RESULT, run_id="cut", status="interrupted", failure=Failure("interrupted", "stopped at its time limit"))


class Told:
    """Answers each question with the next of `answers`, the last one for ever."""

    title = "SLURM"

    def __init__(self, *answers):
        self.answers = list(answers)

    def standing(self, numbers):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        for action in [one for one in answer.values() if callable(one)]:
            action()
        return {number: one for number, one in answer.items() if not callable(one)}


@pytest.fixture
def watched(tmp_path, capsys):
    """What is said while one cell is waited for."""

    def watched(scheduler):
        watch = Watch(tmp_path, SWEEP, scheduler, ClusterOptions(look_s=0.01, ask_s=0.01))
        watch.until_ended([Ticket(0, "a cell", OmegaConf.create({}), "/")])
        return capsys.readouterr().out.splitlines()

    return watched


def keep(result, folder):
    folder.mkdir(exist_ok=True)
    result.write(folder)


def test_a_cell_cut_short_before_is_no_result_of_now(watched, tmp_path):
    keep(CUT, tmp_path / "0")
    said = watched(Told({0: Standing(QUEUED, "7", "PENDING (Priority)")}, {0: Standing(ENDED, "7", "CANCELLED")}))
    assert said == [
        "1 cell queued: PENDING (Priority)",
        "cell 0: a cell | lost, without a result: SLURM job 7: CANCELLED; the same command runs it again",
    ]


def test_a_cell_cut_short_may_be_queued_again_and_counts_when_it_is_gone(watched, tmp_path):
    cut, end = (lambda: keep(CUT, tmp_path / "0")), (lambda: keep(RESULT, tmp_path / "0"))
    said = watched(Told({0: Standing(RUNNING, "7"), 1: cut}, {0: Standing(QUEUED, "7", "PENDING")}, {1: end}))
    assert said[0] == "1 cell queued: PENDING"
    assert said[1].startswith("cell 0: a cell | ")
    assert "interrupted" not in said[1]
    (tmp_path / "0" / "result.json").unlink()
    said = watched(Told({0: Standing(RUNNING, "7"), 1: cut}, {}))
    assert said == ["cell 0: a cell | interrupted: stopped at its time limit"]


def test_a_scheduler_that_does_not_answer_is_told_once_and_results_are_taken(watched, tmp_path):
    silent = ClusterError("squeue: Unable to contact slurm controller")
    said = watched(Told(silent, silent, silent, {1: lambda: keep(RESULT, tmp_path / "0")}, silent))
    assert said[0] == "squeue: Unable to contact slurm controller; results are waited for all the same"
    assert len(said) == 2
    assert said[1].startswith("cell 0: a cell | ")


def test_a_cell_that_ends_between_two_questions_is_left_alone(tmp_path):
    class Launcher(ClusterLauncher):
        def _scheduler(self):
            return Told({1: Standing(RUNNING, "7_1")}), ClusterOptions()

    SWEEP.write(tmp_path)
    launcher = Launcher()
    launcher.setup(
        hydra_context=None, task_function=None, config=OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    )
    assert launcher.standing([0, 1]) == {1}
    keep(RESULT, tmp_path / "0")
    assert launcher.standing([0, 1]) == {0, 1}
    replace(SWEEP, awaited=()).write(tmp_path)  # it had a result before, and is to be run again
    assert launcher.standing([0, 1]) == {1}
