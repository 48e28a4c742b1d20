"""real_meter.py and meter_cost.py on fake cards: they are made for visits to real ones, which must not end badly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from energybench.testing import Server, hopper, maxwell, square
from energybench.testing.fixtures import fake_nvml  # noqa: F401

SCRIPTS = Path(__file__).parents[1] / "benchmarks"


def run(tmp_path, *arguments, script="real_meter.py"):
    command = [sys.executable, str(SCRIPTS / script), "--out", str(tmp_path / "found"), *arguments]
    return subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=180
    )


def test_two_cards_are_metered_each_by_itself(fake_nvml, tmp_path):  # noqa: F811
    server = fake_nvml(Server((hopper(square(100, 600, 0.7)), hopper(square(90, 300, 1.1)))), 5.0)
    done = run(tmp_path, "--quick")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found" / "real_meter.json").read_text(encoding="utf-8"))
    assert [card["metered"] for card in found["cards"].values()] == [[uuid] for uuid in server.truths]
    for card in found["cards"].values():
        assert {row["way"] for row in card["agreement"]} >= {
            "nvml: all",
            "nvml: without the counter",
            "nvidia_smi: all",
        }
        assert [row["bursts"] for row in card["bursts"]] == [6, 6]
        assert all(len(row["start_ns"]) == len(row["stated_j"]) == 6 for row in card["bursts"])
    assert done.stdout.count("inside what is stated (k = 2):") == 2


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--gpu", "3"], "--gpu 3: the driver shows 1 cards, numbered from 0"),
        (["--gpu", "0"], "has no energy counter to compare with; choose another"),
    ],
)
def test_what_cannot_be_done_is_a_line(fake_nvml, tmp_path, arguments, said):  # noqa: F811
    fake_nvml(Server((maxwell(square(100, 600, 0.7)),)), 5.0)
    done = run(tmp_path, *arguments)
    assert done.returncode and said in done.stderr and "Traceback" not in done.stderr


def test_what_metering_costs_is_told_of_a_thread_and_of_a_process(fake_nvml, tmp_path):  # noqa: F811
    server = fake_nvml(Server((hopper(square(100, 600, 0.7)),)), 5.0)
    done = run(tmp_path, "--quick", script="meter_cost.py")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found").read_text(encoding="utf-8"))
    assert [found["uuid"]] == list(server.truths)
    [loop] = found["loops"].values()
    assert all(len(loop["steps_per_s"][how]) == 4 for how in ("off", "thread", "process"))
    for how in ("thread", "process"):
        ratio, low, high = loop["ratios"][how]
        assert low < ratio < high
        assert f"{ratio:.4f} ({low:.4f} to {high:.4f}): at least 0.998 is" in done.stdout


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--rounds", "2"], "--rounds: 2 tells no interval; give 4 or more"),
        (["--gpu", "3"], "--gpu 3: the driver shows 1 cards, numbered from 0"),
    ],
)
def test_what_the_cost_cannot_be_told_of_is_a_line(fake_nvml, tmp_path, arguments, said):  # noqa: F811
    fake_nvml(Server((hopper(square(100, 600, 0.7)),)), 5.0)
    done = run(tmp_path, *arguments, script="meter_cost.py")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
