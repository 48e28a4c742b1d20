"""Contestants told in turn to train for a while, and what each drew meanwhile.

A contestant is one process, or one for each of its cards. It becomes ready in two steps: `load` is what the host does
(importing, building, compiling), which all do at once; `ready` is what needs the device for itself (choosing cuDNN's
ways, recording), which they do one after the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

VISIBLE = "CUDA_VISIBLE_DEVICES"


class Training(Protocol):
    """The contestant's side."""

    def load(self) -> None: ...

    def ready(self) -> None: ...

    def train(self, seconds: float, exchange: bool) -> tuple[int, float]:
        """Steps made and seconds taken; without `exchange`, of several, each for itself."""


@contextmanager
def undecided() -> Iterator[None]:
    """While others use the device too, cuDNN takes ways that it forgets again, so that it can try them all later.

    It keeps a way for each convolution, one that was found without trying as well, and keeps those that are
    deterministic apart.
    """
    import torch

    cudnn = torch.backends.cudnn
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = False, True


def answer(make: Callable[[], Training]) -> None:
    """Does as each line of JSON says: {"do": load | ready | train | profile, ...}; answers by one line each."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    training = make()
    for line in sys.stdin:
        asked, begun, said = json.loads(line), time.perf_counter(), {}
        if asked["do"] == "load":
            training.load()
        elif asked["do"] == "ready":
            training.ready()
        elif asked["do"] == "profile":
            said = profiled(training, asked["seconds"])
        else:
            steps, seconds = training.train(asked["seconds"], asked.get("exchange", True))
            said = {"steps": steps, "seconds": seconds}
        print(json.dumps({"took_s": time.perf_counter() - begun, **said}), file=out, flush=True)


def profiled(training: Training, seconds: float) -> dict[str, float]:
    """Seconds of a window, and those of them in which a kernel of an all-reduce ran, by torch.profiler."""
    import torch

    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profiler:
        steps, took = training.train(seconds, True)
    events = [event for event in profiler.events() if "nccldevkernel" in event.name.lower() or "gloo:" in event.name]
    spans = sorted((event.time_range.start, event.time_range.end) for event in events)
    busy_us, until = 0.0, float("-inf")
    for start, end in spans:
        busy_us += max(end - max(start, until), 0.0)
        until = max(until, end)
    return {"steps": steps, "seconds": took, "exchange_s": busy_us / 1e6}


def cards(device: str) -> list[str]:
    """Names of the cards that this process may use, as CUDA_VISIBLE_DEVICES takes them; of the CPU as many as asked."""
    if device == "cpu":
        return [""] * (os.cpu_count() or 1)
    if os.environ.get(VISIBLE):
        return os.environ[VISIBLE].split(",")
    import pynvml

    pynvml.nvmlInit()
    return [str(index) for index in range(pynvml.nvmlDeviceGetCount())]


class Counter:
    """NVML's energy counters, read where they tick; of the CPU nothing.

    Args:
        device: cuda or cpu.
        number: of the only card that is read, as nvidia-smi counts; None: all that this process may use.
    """

    def __init__(self, device: str, number: int | None = None) -> None:
        self._handles: list[Any] = []
        if device == "cuda":
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            names = cards(device) if number is None else [str(number)]
            by_index, by_uuid = pynvml.nvmlDeviceGetHandleByIndex, pynvml.nvmlDeviceGetHandleByUUID
            self._handles = [by_index(int(one)) if one.isdigit() else by_uuid(one) for one in names]

    def ticks(self) -> list[tuple[float, float] | None]:
        """Of each card, seconds and joules at its counter's next change."""
        return [self._tick(handle) for handle in self._handles]

    def tick(self) -> tuple[float, float] | None:
        """Of the first card."""
        return self._tick(self._handles[0]) if self._handles else None

    def _tick(self, handle: Any) -> tuple[float, float] | None:
        last = self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        limit = time.perf_counter() + 1.0
        while (now := self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) == last:
            if time.perf_counter() > limit:
                return None
        return time.perf_counter(), now / 1000

    def idle(self, seconds: float) -> list[float | None]:
        """Watts of each card over a rest."""
        return watts(*self._around(lambda: time.sleep(seconds)))

    def _around(self, work: Callable[[], None]) -> tuple[list[Any], list[Any]]:
        first = self.ticks()
        work()
        return first, self.ticks()

    def name(self) -> str:
        return str(self._nvml.nvmlDeviceGetName(self._handles[0])) if self._handles else "cpu"

    def driver(self) -> str:
        return str(self._nvml.nvmlSystemGetDriverVersion()) if self._handles else ""

    def uuids(self) -> list[str]:
        return [str(self._nvml.nvmlDeviceGetUUID(handle)) for handle in self._handles]


def watts(first: Sequence[Any], last: Sequence[Any]) -> list[float | None]:
    """Of each card, mean power between two ticks."""
    pairs = zip(first, last, strict=True)
    return [(b[1] - a[1]) / (b[0] - a[0]) if a and b and b[0] > a[0] else None for a, b in pairs]


@dataclass
class Contestant:
    """One process, or several that train together.

    Attributes:
        name: as tables show it.
        command: what each process is started with, behind the interpreter; of several, "--rank R" follows.
        batch: images a step, of all together.
        devices: places in `cards()` of the cards it trains on.
        ready_s: seconds it took to become ready, alone and with the others.
        windows: of each turn images/s, watts of its cards, joules an image, watts of the cards that rest; watts and
            joules None where nothing was read.
        apart: images/s in windows without exchange.
    """

    name: str
    command: Sequence[str]
    batch: int
    devices: Sequence[int] = (0,)
    ready_s: float | None = None
    windows: list[dict[str, float | None]] = field(default_factory=list)
    apart: list[float] = field(default_factory=list)
    failure: str = ""
    profile: dict[str, float] | None = None
    _processes: list[subprocess.Popen[str]] = field(default_factory=list)
    _logs: list[Path] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, int, int]:
        return self.name, self.batch, len(self.devices)

    def start(self, folder: Path, environment: dict[str, str], names: Sequence[str]) -> None:
        stem = f"{self.name}-{self.batch}-{len(self.devices)}".replace("/", "-")
        for rank, place in enumerate(self.devices):
            log = folder / f"{stem}-{rank}.err"
            several = ["--rank", str(rank), "--world", str(len(self.devices)), "--meeting", str(folder / stem)]
            with log.open("w") as errors:
                process = subprocess.Popen(
                    [sys.executable, *self.command, *(several if len(self.devices) > 1 else [])],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    env={**os.environ, **environment, VISIBLE: names[place], "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
                )
            self._processes.append(process)
            self._logs.append(log)

    def tell(self, what: str, **more: Any) -> None:
        """Asks all its processes at once."""
        for process in self._processes:
            try:
                assert process.stdin is not None
                process.stdin.write(json.dumps({"do": what, **more}) + "\n")
                process.stdin.flush()
            except BrokenPipeError:
                self._lost()

    def hear(self, patience_s: float) -> dict[str, float] | None:
        """What the first answered, once all have; None where one ended, or all were silent for so long."""
        heard = threading.Event()

        def watch() -> None:
            """Others wait for ever for one that ended."""
            limit = time.monotonic() + patience_s
            while not heard.wait(0.2):
                if time.monotonic() > limit:
                    self.failure = self.failure or f"no answer in {patience_s:.0f} s"
                    self.stop()
                elif any(process.poll() is not None for process in self._processes):
                    self._lost()

        watcher = threading.Thread(target=watch)
        watcher.start()
        lines = []
        for process in self._processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                self._lost()
            lines.append(line)
        heard.set()
        watcher.join()
        return None if self.failure else json.loads(lines[0])

    def _lost(self) -> None:
        """Says why the first that ended did."""
        if not self.failure:
            ended = (log for log, one in zip(self._logs, self._processes, strict=True) if one.poll() is not None)
            lines = next(ended, self._logs[0]).read_text(errors="replace").strip().splitlines()
            self.failure = lines[-1] if lines else "ended"
        self.stop()

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "batch": self.batch, "world": len(self.devices), "ready_s": self.ready_s,
            "failure": self.failure, "windows": self.windows, "apart": self.apart, "profile": self.profile,
            "command": [Path(self.command[0]).name, *self.command[1:]],
        }  # fmt: skip

    def take_up(self, earlier: Sequence[dict[str, Any]]) -> None:
        """Goes on from the windows of an earlier call."""
        for old in earlier:
            if (old["name"], old["batch"], old.get("world", 1)) == self.key:
                self.windows, self.apart = list(old["windows"]), list(old.get("apart", []))
                self.profile = old.get("profile")


def make_ready(
    found: Sequence[Contestant], folder: Path, environment: dict[str, str], device: str, load_s: float = 240.0
) -> list[Contestant]:
    """Starts and loads all at once, readies them one after the other; those that are ready, and loaded in `load_s`."""
    begun, names = time.monotonic(), cards(device)
    for one in found:
        one.start(folder, environment, names)
        one.tell("load")
    loaded = [one for one in found if one.hear(max(begun + load_s - time.monotonic(), 1.0)) is not None]
    print(f"loaded in {time.monotonic() - begun:.1f} s", flush=True)
    for one in loaded:
        one.tell("ready")
        said = one.hear(60.0)
        if said is not None:
            one.ready_s = said["took_s"]
    for one in found:
        said = one.failure or f"ready in {one.ready_s:.1f} s more"
        print(f"{one.name} batch {one.batch} on {len(one.devices)}: {said}", flush=True)
    return [one for one in loaded if not one.failure]


def heats(found: Sequence[Contestant]) -> list[list[Contestant]]:
    """Those whose cards differ run at the same time."""
    packed: list[list[Contestant]] = []
    for one in found:
        for heat in packed:
            if not {place for other in heat for place in other.devices} & set(one.devices):
                heat.append(one)
                break
        else:
            packed.append([one])
    return packed


def turn(heat: Sequence[Contestant], seconds: float, counter: Counter, *, exchange: bool = True) -> None:
    """One window of each at the same time; power is taken between two ticks inside it, away from its edges."""
    running = [one for one in heat if not one.failure]
    ticks: list[list[tuple[float, float] | None]] = []

    def watch() -> None:
        time.sleep(min(0.3, seconds / 4))
        ticks.append(counter.ticks())
        time.sleep(max(seconds - 1.0, seconds / 4))
        ticks.append(counter.ticks())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for one in running:
        one.tell("train", seconds=seconds, exchange=exchange)
    said = {one.key: one.hear(seconds + 60.0) for one in running}
    watcher.join()
    power = watts(*ticks)
    busy = {place for one in running for place in one.devices}
    rest = [watt for place, watt in enumerate(power) if place not in busy]
    for one in running:
        answered = said[one.key]
        if answered is None:
            continue
        rate = answered["steps"] * one.batch / answered["seconds"]
        if not exchange:
            one.apart.append(rate)
            continue
        own = [power[place] for place in one.devices] if power else [None]
        total = None if None in own else sum(watt for watt in own if watt is not None)
        one.windows.append({
            "images_per_s": rate, "power_w": total, "j_per_image": None if total is None else total / rate,
            "resting_w": sum(watt for watt in rest if watt is not None) if power and None not in rest else None,
        })  # fmt: skip


def numbers(one: Contestant, key: str) -> list[float]:
    return [value for window in one.windows if (value := window.get(key)) is not None]
