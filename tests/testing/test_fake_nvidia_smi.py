"""The fake nvidia-smi tells of the same cards as the fake driver, and prints and ends as the real tool does."""

import math
import os
import re
import subprocess
import time
from datetime import UTC, datetime

import pytest

from energybench.testing import Card, Failure, Server, constant, hopper, maxwell, pascal
from energybench.testing.fixtures import fake_nvml  # noqa: F401


@pytest.fixture
def start(fake_nvml):  # noqa: F811
    return lambda *cards, **server: fake_nvml(Server(cards, **server))


def smi(*arguments, **variables):
    done = subprocess.run(
        ["nvidia-smi", *arguments], capture_output=True, text=True, timeout=30, env={**os.environ, **variables}
    )
    return done.returncode, done.stdout


def test_its_lines_have_the_real_tool_s_format(start):
    start(maxwell(constant(250), gain=1.0), hopper(constant(120)))
    fields = "index,uuid,power.draw,power.draw.instant,clocks.sm,memory.total,compute_cap,clocks_event_reasons.active"
    code, text = smi(f"--query-gpu={fields}", "--format=csv")
    header, first, second = text.splitlines()
    assert code == 0
    assert header == (
        "index, uuid, power.draw [W], power.draw.instant [W], clocks.current.sm [MHz], memory.total [MiB], "
        "compute_cap, clocks_event_reasons.active"
    )
    assert first == (
        "0, GPU-00000000-fa4e-0000-0000-000000000000, 250.00 W, [N/A], 1400 MHz, 12288 MiB, 5.2, 0x0000000000000000"
    )
    assert second.split(", ")[2:4] == ["120.00 W", "120.00 W"]
    assert smi("--query-gpu=power.draw", "--format=csv,noheader,nounits") == (0, "250.00\n120.00\n")
    assert (
        smi("-L")[1].splitlines()[1] == "GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-00000001-fa4e-0000-0000-000000000000)"
    )


def test_cards_are_chosen_by_index_uuid_and_address_in_the_driver_s_order(start):
    server = start(pascal(constant(1)), pascal(constant(2)), pascal(constant(3))).server
    ids = f"{server.cards[2].uuid},0"
    assert smi("--query-gpu=index", "--format=csv,noheader", "-i", ids) == (0, "0\n2\n")
    assert smi("--query-gpu=index", "--format=csv,noheader", "--id=00000000:02:00.0") == (0, "1\n")
    assert smi("--query-gpu=index", "-i", "GPU-0") == (6, "No devices were found\n")


def test_it_knows_the_fields_of_its_driver(start):
    start(pascal(constant(80)), driver="470.256.02")
    assert smi("--query-gpu=index,power.draw.instant") == (
        2,
        'Field "power.draw.instant" is not a valid field to query.\n\n',
    )
    _, words = smi("--help-query-gpu")
    assert '"power.draw"' in words
    assert '"power.draw.instant"' not in words
    assert '"compute_cap"' not in words


def test_its_help_needs_no_driver():
    from energybench.testing import driver

    done = subprocess.run([driver.program(), "--help"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert "--query-gpu" in done.stdout


def test_without_a_driver_it_says_so():
    from energybench.testing import driver

    done = subprocess.run([driver.program(), "-L"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 9
    assert done.stdout.startswith("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")


def test_errors_stand_in_the_place_of_values(start):
    start(
        pascal(constant(80), failures=(Failure("nvmlDeviceGetPowerUsage", 999),)),
        pascal(constant(80), failures=(Failure("nvmlDeviceGetPowerUsage", 15),)),
        Card(),
    )
    assert smi("--query-gpu=power.draw", "--format=csv,noheader") == (0, "[Unknown Error]\n[GPU is lost]\n[N/A]\n")


def test_a_card_that_is_lost_ends_it_at_its_start_but_not_for_its_neighbour(start):
    server = start(pascal(constant(80), lost=((-math.inf, math.inf),)), pascal(constant(90), gain=1.0)).server
    code, words = smi("--query-gpu=power.draw")
    assert code == 15
    assert words.startswith("Unable to determine the device handle for GPU0: GPU is lost")
    assert smi("--query-gpu=power.draw", "--format=csv,noheader,nounits", "-i", server.cards[1].uuid) == (0, "90.00\n")


def test_its_stamps_are_local_time_with_milliseconds(start):
    start(pascal(constant(80)))
    moments = []
    for zone in ("UTC", "Asia/Tokyo"):
        _, text = smi("--query-gpu=timestamp", "--format=csv,noheader", TZ=zone)
        assert re.fullmatch(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{3}\n", text)
        moments.append(datetime.strptime(text.strip(), "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=UTC).timestamp())
    assert moments[0] == pytest.approx(time.time(), abs=30)
    assert moments[1] - moments[0] == pytest.approx(9 * 3600, abs=30)


def test_its_stream_flushes_each_round_and_ends_when_nobody_reads(start):
    start(pascal(constant(80), gain=1.0), pascal(constant(90), gain=1.0))
    command = ["nvidia-smi", "--query-gpu=index,power.draw", "--format=csv,noheader,nounits", "-lms", "10"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        lines = [process.stdout.readline() for _ in range(6)]
        assert lines == [b"0, 80.00\n", b"1, 90.00\n"] * 3
        assert process.poll() is None
        process.stdout.close()
        assert process.wait(30) == -13


def test_its_wall_clock_steps(start):
    running = start(pascal(constant(80)), wall_steps=((5.0, -3600.0),))
    _, text = smi("--query-gpu=timestamp", "--format=csv,noheader", **running.environment(), TZ="UTC")
    stamp = datetime.strptime(text.strip(), "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=UTC).timestamp()
    assert stamp - time.time() == pytest.approx(-3600, abs=30)
