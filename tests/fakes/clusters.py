"""Commands that hand small cells to a cluster, and what to look at while they run."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

from energybench.run.result import Result
from energybench.testing import Server, constant, pascal, volta

PATIENCE_S = 180.0

LAUNCHER = ["hydra/launcher=slurm", "hydra.launcher.look_s=0.2", "hydra.launcher.ask_s=1.5", "hydra.launcher.cpus=1"]
LAUNCHER += ["hydra.launcher.constraint.pascal=p100", "hydra.launcher.exclusive=false"]
CELL = ["model=lenet", "dataset=tiny", "engine=standin", "engine.step_s=0", "budget.epochs=1", "measure.warmup_steps=0"]
CELL += ["measure.baseline_s=0", "measure.context_s=0", "batch=8", "hydra.sweep.dir=out", "-m"]


NODES = {  # name of a node -> its cards
    "old1": Server(tuple(pascal(constant(150.0), uuid=f"GPU-0000000{n}-0000-0000-0000-00000000000a") for n in (0, 1))),
    "new1": Server(tuple(volta(constant(200.0), uuid=f"GPU-0000000{n}-0000-0000-0000-00000000000b") for n in (0, 1))),
}


def free_ports(count):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def until(condition, *arguments, process=None):
    """Waits for what a condition gives, and gives it."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := condition(*arguments):
            return found
        assert process is None or process.poll() is None, process.said()
        time.sleep(0.1)
    raise AssertionError("it did not come")


def results(folder):
    """Number of a cell -> its result."""
    return {int(path.parent.name): Result.read(path) for path in folder.glob("[0-9]*/result.json")}


def trains(folder, number=0, fraction=0.0):
    """Whether a cell has begun to train, and spent a share of its budget."""
    path = folder / str(number) / "events.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    told = [event for event in events if event["phase"] == "train"]
    return bool(told) and (not fraction or any(event["values"].get("fraction", 0) >= fraction for event in told))


class Command:
    """A sweep that has been started; what it says goes into a file."""

    def __init__(self, words, folder):
        self._log = folder / f"said-{len(list(folder.glob('said-*')))}"
        with self._log.open("wb") as file:
            line = [sys.executable, "-u", "-m", "energybench", *words]
            self.process = subprocess.Popen(line, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
        self.poll = self.process.poll

    @property
    def returncode(self):
        return self.process.returncode

    def said(self):
        return self._log.read_text()

    def end(self, number=None):
        """Waits for its end, which a signal may bring about, and gives what it said."""
        if number is not None:
            self.process.send_signal(number)
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.said()) from None
        return self.said()
