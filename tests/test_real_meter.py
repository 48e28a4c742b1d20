"""benchmarks/real_meter.py on two fake cards: it is made for visits to real ones, which must not end in a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from energybench.testing import Server, hopper, maxwell, square
from energybench.testing.fixtures import fake_nvml  # noqa: F401

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "real_meter.py"


def run(tmp_path, *arguments):
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "found"), *arguments]
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
        assert card["throughput"]["low"] < card["throughput"]["ratio"] < card["throughput"]["high"]
    assert done.stdout.count("inside what is stated (k = 2):") == 2 == done.stdout.count("training, meter on / off:")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--gpu", "3"], "--gpu 3: the driver shows 1 cards, numbered from 0"),
        (["--pairs", "2"], "--pairs: 2 tells no interval; give 4 or more"),
        (["--gpu", "0"], "has no energy counter to compare with; choose another"),
    ],
)
def test_what_cannot_be_done_is_a_line(fake_nvml, tmp_path, arguments, said):  # noqa: F811
    fake_nvml(Server((maxwell(square(100, 600, 0.7)),)), 5.0)
    done = run(tmp_path, *arguments)
    assert done.returncode and said in done.stderr and "Traceback" not in done.stderr
