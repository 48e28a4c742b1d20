"""Contestants in processes of their own, told in turn to train for a while, and what each drew meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TrainFor = Callable[[float], tuple[int, float]]


def answer(make: Callable[[], TrainFor]) -> None:
    """The contestant's side: ready on the first line, then for each line of seconds steps made and seconds taken."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    sys.stdin.readline()
    begun = time.perf_counter()
    train_for = make()
    print(json.dumps({"ready_s": time.perf_counter() - begun}), file=out, flush=True)
    for line in sys.stdin:
        steps, seconds = train_for(float(line))
        print(json.dumps({"steps": steps, "seconds": seconds}), file=out, flush=True)


class Counter:
    """NVML's energy counter of a card, read where it ticks; of the CPU nothing."""

    def __init__(self, device: str, number: int = 0) -> None:
        self._handle: Any = None
        if device == "cuda":
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(number)

    def tick(self) -> tuple[float, float] | None:
        """Seconds and joules at the counter's next change."""
        if self._handle is None:
            return None
        last = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        limit = time.perf_counter() + 1.0
        while (now := self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) == last:
            if time.perf_counter() > limit:
                return None
        return time.perf_counter(), now / 1000

    def name(self) -> str:
        return "cpu" if self._handle is None else str(self._nvml.nvmlDeviceGetName(self._handle))

    def driver(self) -> str:
        return "" if self._handle is None else str(self._nvml.nvmlSystemGetDriverVersion())


@dataclass
class Contestant:
    """One process.

    Attributes:
        name: as tables show it.
        command: what it is started with, behind the interpreter.
        ready_s: seconds it took to become ready.
        windows: of each turn images/s, watts and joules an image; watts and joules None where nothing was read.
    """

    name: str
    command: Sequence[str]
    batch: int
    ready_s: float | None = None
    windows: list[dict[str, float | None]] = field(default_factory=list)
    failure: str = ""
    _process: subprocess.Popen[str] | None = None

    def start(self, log: Path, environment: dict[str, str]) -> None:
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, *self.command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **environment},
            )
        self._log = log

    def _ask(self, line: str) -> dict[str, float] | None:
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
            said = self._process.stdout.readline()
        except BrokenPipeError:
            said = ""
        if not said:
            lines = self._log.read_text(errors="replace").strip().splitlines()
            self.failure = lines[-1] if lines else "ended"
            return None
        found: dict[str, float] = json.loads(said)
        return found

    def prepare(self) -> None:
        if (said := self._ask("ready")) is not None:
            self.ready_s = said["ready_s"]

    def turn(self, seconds: float, counter: Counter) -> None:
        """One window; power is taken between two ticks of the counter inside it, away from its edges."""
        import threading

        ticks: list[tuple[float, float] | None] = []

        def watch() -> None:
            time.sleep(min(0.3, seconds / 4))
            ticks.append(counter.tick())
            time.sleep(max(seconds - 0.9, seconds / 4))
            ticks.append(counter.tick())

        watcher = threading.Thread(target=watch)
        watcher.start()
        said = self._ask(str(seconds))
        watcher.join()
        if said is None:
            return
        rate = said["steps"] * self.batch / said["seconds"]
        first, last = ticks
        watts = None
        if first is not None and last is not None and last[0] > first[0]:
            watts = (last[1] - first[1]) / (last[0] - first[0])
        self.windows.append(
            {"images_per_s": rate, "power_w": watts, "j_per_image": None if watts is None else watts / rate}
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "batch": self.batch, "ready_s": self.ready_s, "failure": self.failure,
            "windows": self.windows, "command": list(self.command),
        }  # fmt: skip
