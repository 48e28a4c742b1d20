"""The headline command on a server of two Maxwell and two Pascal cards, whichever meter reads them."""

import json
import os
import subprocess
import sys

import pytest

from energybench.testing import Server, constant, maxwell, pascal

HEADLINE = ["model=resnetim", "batch=128", "gpu=pascal", "-m"]
STANDIN = ["engine=standin", "dataset=tiny", "dataset.images=128", "dataset.validation_images=8", "tracking=none",
           "gpu.count=2", "budget.epochs=2", "measure.baseline_s=0.3", "engine.step_s=0.5"]  # fmt: skip


def without_library(environment, folder):
    """As on a machine where the program is there and its library is not: what the loader finds first is none."""
    (folder / "libnvidia-ml.so.1").write_text("")
    return {**environment, "LD_LIBRARY_PATH": str(folder)}


@pytest.mark.parametrize(
    ("asked", "library", "taken"),
    [("auto", True, "nvml"), ("auto", False, "nvidia_smi"), ("nvidia_smi", True, "nvidia_smi")],
)
def test_gpu_pascal_meters_the_cards_that_train_and_no_other(asked, library, taken, tmp_path, fakes):
    """The Maxwell cards stand first and draw more."""
    cards = (maxwell(constant(300)), maxwell(constant(300)), pascal(constant(150)), pascal(constant(150)))
    running = Server(cards).start(tmp_path)
    environment = {**os.environ, **running.environment()}
    if not library:
        environment = without_library(environment, tmp_path)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "energybench",
            *HEADLINE,
            *STANDIN,
            f"meter={asked}",
            f"hydra.sweep.dir={tmp_path}/runs",
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (tmp_path / "runs").rglob("result.json")
    result = json.loads(file.read_text())
    channels = [channel for channel in result["provenance"]["channels"] if channel["kind"] == "gpu"]
    assert sorted(channel["device_id"] for channel in channels) == [card.uuid for card in running.server.cards[2:]]
    metrics = result["metrics"]
    assert metrics["power_mean_w"] == pytest.approx(2 * 150 * 1.01, rel=0.01)
    assert metrics["energy_j"] == pytest.approx(metrics["energy_j.gpu.0"] + metrics["energy_j.gpu.1"])
    assert result["tags"]["energy_source"] == "measured"
    assert taken in result["tags"]["meter"].split("+")
