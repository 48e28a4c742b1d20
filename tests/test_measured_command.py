"""`energybench measure -- COMMAND ...`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from energybench.measurement import Measurement
from energybench.power.trace import read_trace
from energybench.testing import Server, constant, volta
from energybench.testing.fixtures import fake_nvml  # noqa: F401

MEASURE = [sys.executable, "-m", "energybench", "measure"]
TDP = ["--meter", "tdp", "--gpus", "none"]


def measure(*arguments, cwd=None, **environment):
    env = {**os.environ, **environment}
    return subprocess.run([*MEASURE, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


def test_the_command_s_output_and_exit_code_are_its_own(tmp_path):
    done = measure(*TDP, "--json", "m.json", "--", "sh", "-c", "echo out; echo err >&2; exit 3", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "out\n")
    err, told = done.stderr.splitlines()
    assert err == "err"
    assert "J ± " in told
    assert Measurement.from_json((tmp_path / "m.json").read_text()).scope == "cpu"


def test_json_follows_the_command_s_output():
    done = measure(*TDP, "--json", "--", "echo", "--json")
    first, second = done.stdout.splitlines()
    assert first == "--json"
    assert Measurement.from_json(second).energy_j > 0


def test_a_signal_that_ends_the_command_is_told_as_a_shell_does():
    assert measure(*TDP, "--", "sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--", "no-such-program"], "no-such-program: No such file"),
        ([], "no command"),
        (["--json", "no/such/m.json", "--", "true"], "no such folder"),
        (["--gpus", "7", "--", "true"], "gpus=7"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_2(arguments, said):
    done = measure("--meter", "tdp", *arguments, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_command_and_its_energy_is_told(number):
    command = "import signal, time\ntry:\n    print('up', flush=True); time.sleep(60)\nfinally:\n    print('down')"
    if number == signal.SIGTERM:
        command = f"import signal; signal.signal(15, signal.default_int_handler)\n{command}"
    process = subprocess.Popen(
        [*MEASURE, *TDP, "--", sys.executable, "-c", command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert out == "down\n"
    assert "J ± " in err
    assert process.returncode == 128 + signal.SIGINT


def test_it_measures_the_cards_that_the_environment_shows_and_keeps_every_reading(fake_nvml, tmp_path):  # noqa: F811
    server = fake_nvml(Server(tuple(volta(constant(100.0 + 10 * number)) for number in range(8))))
    arguments = ["--json", "m.json", "--trace", "t.parquet", "--", "sleep", "0.5"]
    before = time.monotonic()
    done = measure(*arguments, cwd=tmp_path, **{**server.environment(), "CUDA_VISIBLE_DEVICES": "3,6"})
    assert done.returncode == 0, done.stderr
    result = Measurement.from_json((tmp_path / "m.json").read_text())
    assert result.power_mean_w == pytest.approx(290, rel=0.08)
    assert result.time_s < time.monotonic() - before
    readings, metadata = read_trace(tmp_path / "t.parquet")
    assert [one["device_id"] for name, one in metadata.channels.items() if name.startswith("gpu")] == [
        server.server.cards[number].uuid for number in (3, 6)
    ]
    assert readings
