"""`energybench measure -- COMMAND ...`: any program under the meter."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from energybench.errors import ConfigError, EnergybenchError
from energybench.measured_block import measure
from energybench.measurement import Measurement

PASSED_ON = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
"""What a terminal sends to a whole job, the command included."""


def run(
    command: Sequence[str], *, meter: str = "auto", gpus: str = "auto", json_to: str | None, trace_to: str | None
) -> int:
    """Runs `command` and tells its energy on standard error; its own output and its input stay as they are.

    Args:
        command: program and arguments.
        meter: name of a meter, or auto.
        gpus: as `energybench.measure` takes them.
        json_to: a file for the measurement as JSON, "-" for standard output, None for neither.
        trace_to: a file for all readings, or None.

    Returns:
        The command's exit code; 128 + n where signal n ended it.

    Raises:
        ConfigError: no command, it cannot be started, or a file cannot be written.
        EnergybenchError: nothing reads the devices.
    """
    if not command:
        raise ConfigError("measure: no command; write energybench measure [options] -- COMMAND ...")
    for path in (json_to, trace_to):
        if path not in (None, "-") and not Path(path).absolute().parent.is_dir():
            raise ConfigError(f"measure: {path}: no such folder to write into")
    block = measure(meter, gpus)
    with block:
        code = _follow(command)
    _tell(block.total, json_to)
    if trace_to is not None:
        block.write_trace(trace_to)
    return code


def _tell(result: Measurement, json_to: str | None) -> None:
    sys.stdout.flush()
    print(f"energybench: {result}", file=sys.stderr)
    if json_to == "-":
        print(result.to_json())
    elif json_to is not None:
        try:
            Path(json_to).write_text(result.to_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise EnergybenchError(f"measure: {json_to}: {error.strerror}") from error


def _follow(command: Sequence[str]) -> int:
    """Starts the command in this process group, so that the terminal's keys reach it, and waits for its end."""
    child: list[int] = []
    with _passing_on(child):
        try:
            child.append(os.posix_spawnp(command[0], list(command), os.environ, setsigdef=PASSED_ON))
        except OSError as error:
            raise ConfigError(f"measure: {command[0]}: {error.strerror}") from error
        _, status = os.waitpid(child[0], 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


@contextmanager
def _passing_on(child: list[int]) -> Iterator[None]:
    """Signals end the command, never the measuring; what the terminal sent has reached the command already."""

    def handle(number: int, frame: FrameType | None) -> None:
        if child and not (number in FROM_TERMINAL and _in_foreground()):
            os.kill(child[0], number)

    before = {number: signal.signal(number, handle) for number in PASSED_ON}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """Whether this process belongs to the job that its terminal's keys reach."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
