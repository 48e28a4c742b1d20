"""real_meter.py and meter_cost.py on fake cards: they are made for visits to real ones, which must not end badly."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from energybench.errors import DeviceError, EnergybenchError
from energybench.testing import Server, hopper, maxwell, square
from energybench.testing.fixtures import fake_nvml  # noqa: F401

SCRIPTS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def meter_cost(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("meter_cost")


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


def test_a_process_that_stops_metering_is_noticed(fake_nvml, meter_cost):  # noqa: F811
    server = fake_nvml(Server((hopper(square(100, 600, 0.7)),)), 5.0)
    [uuid] = server.truths
    with (
        pytest.raises(EnergybenchError, match="the process with the meter ended with -9"),
        meter_cost.in_a_process(uuid),
    ):
        [holding] = [child for child in psutil.Process().children() if meter_cost.HOLD in child.cmdline()]
        holding.kill()


@pytest.mark.parametrize("arguments, visible", [(["--gpu", "1"], "0"), ([], "1")])
def test_the_metered_card_is_the_one_that_trains(
    fake_nvml,  # noqa: F811
    meter_cost,
    monkeypatch,
    tmp_path,
    arguments,
    visible,
):
    server = fake_nvml(Server((hopper(square(100, 600, 0.7)), hopper(square(90, 300, 1.1)))), 5.0)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    seen = []

    def make(*arguments):
        seen.append((os.environ["CUDA_DEVICE_ORDER"], os.environ["CUDA_VISIBLE_DEVICES"]))
        return meter_cost.gpu_load.Nothing()

    monkeypatch.setattr(meter_cost.gpu_load, "make", make)
    monkeypatch.setattr(sys, "argv", ["meter_cost.py", "--quick", "--out", str(tmp_path / "found"), *arguments])
    assert meter_cost.main() == 0
    _, uuid = server.truths
    assert json.loads((tmp_path / "found").read_text(encoding="utf-8"))["uuid"] == uuid
    assert seen == [("PCI_BUS_ID", uuid)]


def test_where_no_card_is_seen_none_is_metered(fake_nvml, meter_cost, monkeypatch):  # noqa: F811
    fake_nvml(Server((hopper(square(100, 600, 0.7)),)), 5.0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(DeviceError, match="sees no card"):
        meter_cost.chosen(None)
