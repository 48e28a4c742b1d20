"""What is refused before the first joule, beyond what the command line's tests show."""

from __future__ import annotations

import itertools

import pytest
from omegaconf import OmegaConf

from energybench.config import resolve
from energybench.doctor import findings
from energybench.errors import ConfigError, DeviceError, reason
from energybench.registry import Registry
from energybench.run.preflight import Machine, prepare


def plan(**sections):
    registry = Registry()
    config = {
        "model": {"name": "lenet"},
        "dataset": {"name": "digits"},
        "engine": {"name": "standin"},
        "meter": {"name": "tdp"},
        "gpu": {"name": "cpu"},
        "batch": 64,
        "tracking": {"name": "none"},
    }
    return prepare(resolve(OmegaConf.merge(config, sections), registry), Machine(registry))


@pytest.mark.usefixtures("fakes")
class TestTargetAccuracy:
    def test_it_needs_labels_that_mean_something(self):
        with pytest.raises(ConfigError, match="accuracy means nothing"):
            plan(budget={"target_accuracy": 0.9}, dataset={"name": "synthetic", "classes": 10, "validation_images": 64})

    @pytest.mark.parametrize(
        "sections", [{"measure": {"validate": False}}, {"dataset": {"name": "digits", "validation_images": 0}}]
    )
    def test_it_needs_validation(self, sections):
        with pytest.raises(ConfigError, match="without validation"):
            plan(budget={"target_accuracy": 0.9}, **sections)

    def test_with_both_it_is_taken(self):
        assert plan(budget={"target_accuracy": 0.9}).experiment.budget.target_accuracy == 0.9


@pytest.mark.usefixtures("fakes")
class TestMemory:
    def test_the_contexts_of_a_cpu_share_its_memory(self):
        one, two = plan(), plan(gpu={"name": "cpu", "count": 2})
        weights = one.architecture.training_bytes(0, 1)
        assert two.memory_bytes == pytest.approx(one.memory_bytes + weights, rel=1e-6)

    def test_no_figure_is_better_than_one_for_another_precision(self):
        assert plan(precision="bf16").memory_bytes is None


@pytest.mark.usefixtures("fakes")
def test_a_dry_run_makes_no_data(tmp_path):
    pytest.importorskip("cv2", reason="needs OpenCV (pip install 'energybench[images]')")
    folder = tmp_path / "walks"
    options = {"name": "walkers", "persons": 2, "frames": 31, "prepared": str(folder)}
    assert plan(batch=8, dataset=options, sweep={"dry_run": True}).dataset.train_images == 28
    assert not folder.exists()


TRACEBACK = "Traceback (most recent call last):\n  File x, line 3"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("no room", "no room"),
        ("  \n first\n second", "first"),
        ("", "RuntimeError"),
        (
            "Traceback (most recent call last):\n  File x, line 3\nMXNetError: Check failed: a == b",
            "Check failed: a == b",
        ),
        (
            "Traceback (most recent call last):\n  bt\nError in operator conv0: shapes",
            "Error in operator conv0: shapes",
        ),
    ],
)
def test_an_errors_reason_is_one_line_that_says_it(said, wanted):
    assert reason(RuntimeError(said)) == wanted


@pytest.mark.usefixtures("fakes")
class TestVisibleCards:
    """A job that holds some of a server's cards, as schedulers say it."""

    def test_a_run_takes_its_cards_from_those_alone(self, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,0")
        machine = Machine(Registry())
        assert [device.generation for device in machine.gpus] == ["pascal", "maxwell"]
        assert len(machine.installed) == 4
        with pytest.raises(DeviceError, match=r"gpu\.count=2: only 1"):
            plan(gpu={"name": "maxwell", "count": 2}, meter={"name": "scripted"})

    def test_a_run_on_no_card_is_one_on_the_cpu(self, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert plan(gpu={"name": "auto"}).scope == "cpu"

    def test_doctor_tells_which_cards_are_hidden(self, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
        found = [state for _, _, state in itertools.takewhile(lambda one: one[0] == "device", findings(Registry()))]
        assert [state.ok for state in found] == [False, False, True, False, True]
        assert "hidden by CUDA_VISIBLE_DEVICES=2" in str(found[0])
