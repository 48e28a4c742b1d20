"""The one door to the program nvidia-smi: asks it once, names its errors, knows what its fields say.

What it prints, when it flushes and how it ends is as seen of the tool of driver 580 on an H200.
"""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Sequence

from energybench.errors import MeterError

COMMAND = "nvidia-smi"
POWER_FIELDS = {"usage": "power.draw", "average": "power.draw.average", "instant": "power.draw.instant"}
"""Source -> field. Drivers before 530 know the first alone."""

ABSENT = ("N/A", "Not Supported", "Insufficient Permissions")
"""Words that mean that a card will not give a field, as against one that fails now."""

GONE = ("GPU is lost", "GPU requires reset", "GPU requires restart")

REMEDIES = {
    2: "see `nvidia-smi --help-query-gpu`",
    4: "ask the administrator for read access to /dev/nvidia*",
    6: "no such card; `nvidia-smi -L` lists the cards",
    9: "load the driver (`sudo modprobe nvidia`); in a container, start it with --gpus all",
    12: "the driver's library libnvidia-ml.so.1 is missing; in a container, start it with --gpus all",
    15: "a card fell off the bus; see `dmesg` for an Xid, reset the card or reboot",
    18: "the driver was updated while in use; reboot, or reload its kernel modules",
}
"""Exit code -> what the user can do. The codes are those of NVML; RETURN VALUE in the tool's manual page."""


def environment() -> dict[str, str]:
    """The tool stamps its lines in the local time of its environment: here UTC, which no summer time moves."""
    return {**os.environ, "TZ": "UTC", "LC_ALL": "C"}


def ended(code: int, words: str) -> MeterError:
    """That the tool ended with `code`, what it said last, and what to do."""
    said = " ".join(words.split()) or "it said nothing"
    how = f"ended by signal {-code}" if code < 0 else f"ended with code {code}"
    return MeterError(f"nvidia-smi {how}: {said}; {REMEDIES.get(code, 'run it by hand to see more')}")


def not_started(error: OSError) -> MeterError:
    """That the tool cannot be run."""
    if isinstance(error, FileNotFoundError):
        return MeterError("nvidia-smi: not found on PATH; install the NVIDIA driver's tools, or choose another meter")
    return MeterError(f"nvidia-smi: {error}; make it executable, or choose another meter")


def ask(arguments: Sequence[str], timeout_s: float) -> str:
    """What the tool prints.

    Raises:
        MeterError: there is no such tool, it fails, or it does not end within `timeout_s` seconds.
    """
    code, words = _run(arguments, timeout_s)
    if code:
        raise ended(code, words)
    return words


def listed(timeout_s: float) -> list[str]:
    """The UUIDs that `nvidia-smi -L` names, even where it fails for a card that is lost."""
    _, words = _run(["-L"], timeout_s)
    return [line.rpartition("(UUID: ")[2].rstrip(")") for line in words.splitlines() if "(UUID: GPU-" in line]


def _run(arguments: Sequence[str], timeout_s: float) -> tuple[int, str]:
    """Exit code and what it printed."""
    try:
        done = subprocess.run(
            [COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(),
            timeout=timeout_s,
        )
    except OSError as error:
        raise not_started(error) from error
    except subprocess.TimeoutExpired as error:
        raise MeterError(
            f"nvidia-smi: no answer within {timeout_s:g} s; see `dmesg`, or raise meter.timeout_s"
        ) from error
    return done.returncode, done.stdout.decode(errors="replace")


def query(fields: Sequence[str], uuids: Sequence[str] | None, timeout_s: float) -> list[dict[str, str]]:
    """The fields of each card, without units, in the driver's order.

    Args:
        fields: names that this driver's tool knows.
        uuids: only these cards; None: all.
        timeout_s: longest wait, seconds.

    Raises:
        MeterError: the tool fails, or prints something else.
    """
    which = [] if uuids is None else ["-i", ",".join(uuids)]
    words = ask([f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", *which], timeout_s)
    rows = [line.split(", ") for line in words.splitlines() if line.strip()]
    for row in rows:
        if len(row) != len(fields):
            raise MeterError(
                f"nvidia-smi: printed {', '.join(row)!r} for {', '.join(fields)}; run it by hand to see more"
            )
    return [dict(zip(fields, row, strict=True)) for row in rows]


def known_fields(timeout_s: float) -> set[str]:
    """The names of all fields that this driver's tool knows; raises MeterError where it fails."""
    lines = ask(["--help-query-gpu"], timeout_s).splitlines()
    return {name for line in lines if line.startswith('"') for name in line.split('"')[1::2]}


def failure_in(value: str) -> str | None:
    """The words of a failure that stands in the place of a value, as "[Unknown Error]"; None: it is a value."""
    return value[1:-1] if value.startswith("[") and value.endswith("]") else None


def watts(value: str) -> float:
    """Power in watts; raises MeterError with the words that stand in its place."""
    if words := failure_in(value):
        raise MeterError(f"nvidia-smi: {words}")
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise MeterError(f"nvidia-smi: {value!r} is no power")
    return found
