"""Worker processes: started as fresh interpreters, followed through their event pipes, never left behind."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from energybench.power import identity
from energybench.run.assignment import Assignment
from energybench.run.events import Event

GRACE_S = 5.0
"""How long a worker may take to end after SIGTERM before it is killed."""


@dataclass
class Worker:
    """One running worker."""

    rank: int
    process: subprocess.Popen[bytes]
    events: int
    errors: Path
    ended: bool = False
    _partial: bytes = field(default=b"", repr=False)

    def receive(self) -> list[Event]:
        """The events that have arrived; sets `ended` at the end of the pipe. A torn last line is no event."""
        data = os.read(self.events, 1 << 16)
        if not data:
            self.ended = True
            return []
        *lines, self._partial = (self._partial + data).split(b"\n")
        return [Event.from_line(line) for line in lines]


def start(
    assignment: Assignment, directory: Path, environment: Mapping[str, str], *, module: str = "energybench.run.worker"
) -> Worker:
    """Starts a worker in a session of its own, so that Ctrl-C in the terminal reaches the supervisor alone.

    It sees its own cards and no other, whatever its framework: bound by UUID, in the order of its devices.
    Its output goes to `worker-<rank>.out` and `.err` in `directory`.
    """
    read_end, write_end = os.pipe()
    errors = directory / f"worker-{assignment.rank}.err"
    with (directory / f"worker-{assignment.rank}.out").open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(write_end)],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            env={**os.environ, **identity.environment_of(assignment.devices), **environment},
            pass_fds=(write_end,),
            start_new_session=True,
        )
    os.close(write_end)
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it died at once: the end of its event pipe tells
        process.stdin.write(assignment.to_line())
        process.stdin.flush()
    return Worker(assignment.rank, process, read_end, errors)


def follow(workers: Sequence[Worker], tick_s: float) -> Iterator[tuple[Worker, Event | None] | None]:
    """Events of all workers as they come, (worker, None) when one's pipe ends, and None at least every `tick_s`."""
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.events, selectors.EVENT_READ, worker)
        while selector.get_map():
            for key, _ in selector.select(tick_s):
                worker = key.data
                for event in worker.receive():
                    yield worker, event
                if worker.ended:
                    selector.unregister(worker.events)
                    yield worker, None
            yield None


def stop(workers: Sequence[Worker]) -> None:
    """Ends every worker and everything it started: SIGTERM, then SIGKILL after GRACE_S."""
    running = [worker for worker in workers if worker.process.poll() is None]
    for worker in running:
        _signal(worker, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    for worker in running:
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C: no more patience
            worker.process.wait(max(deadline - time.monotonic(), 0.01))
    for worker in workers:
        _signal(worker, signal.SIGKILL)  # the whole group: data loaders and compilers that the worker left
        with suppress(subprocess.TimeoutExpired):  # stuck in the kernel, as when its card is off the bus
            worker.process.wait(GRACE_S)
        if worker.process.stdin is not None:
            with suppress(BrokenPipeError):
                worker.process.stdin.close()
        with suppress(OSError):
            os.close(worker.events)


def _signal(worker: Worker, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.process.pid, number)
