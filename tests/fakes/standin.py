"""A framework and a data set that need nothing, and a training process that dies on request."""

from __future__ import annotations

import atexit
import math
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np

from energybench.arrays import ArrayDataset
from energybench.availability import Availability
from energybench.dataset import DatasetInfo
from energybench.errors import ConfigError
from energybench.run.engine import Evaluation


@dataclass(frozen=True)
class StandinOptions:
    """`mode` strikes at step `at_step` (from 1, warm-up not counted) of worker `in_rank`.

    That step lasts until CLOCK_MONOTONIC is `until_s`, if it is not past that.
    """

    step_s: float = 0.01
    mode: str = "train"
    at_step: int = 3
    in_rank: int = 0
    processes: bool = False
    slower_by_rank_s: float = 0.0
    until_s: float = 0.0

    def __post_init__(self):
        if self.mode not in STRIKES:
            raise ConfigError(f"engine.mode={self.mode}: give one of {', '.join(STRIKES)}")


def _raise(error):
    raise error


def _die(number):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), number)


def _last_words():
    print("first line\nlibfoo: cannot go on", file=sys.stderr, flush=True)
    os._exit(3)


def _fork():
    """A copy of this process, open files and all, as a data loader of `multiprocessing` is."""
    if os.fork() == 0:
        time.sleep(600)


def _fork_and_die():
    _fork()
    _die(signal.SIGKILL)


def _fill_memory():
    """Host memory runs out for real."""
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    np.zeros(8 << 30, np.uint8)


STRIKES = {
    "train": lambda: None,
    "crash": lambda: _die(signal.SIGSEGV),
    "raise": lambda: _raise(RuntimeError("shapes do not match\nand more about it")),
    "sigkill": lambda: _die(signal.SIGKILL),
    "hang": lambda: time.sleep(600),
    "nan": lambda: None,
    "memory": lambda: _raise(MemoryError("no room for 5 GiB")),
    "host_memory": _fill_memory,
    "gpu_memory": lambda: _raise(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")),
    "child": lambda: subprocess.Popen(["sleep", "600"]),
    "fork_child": _fork,
    "fork_and_die": _fork_and_die,
    "exit0": lambda: sys.exit(0),
    "linger": lambda: atexit.register(time.sleep, 600),  # done, but does not end: a framework's exit handler
    "stderr": _last_words,
    "stubborn": lambda: (signal.signal(signal.SIGTERM, signal.SIG_IGN), time.sleep(600)),
}


class StandinEngine:
    def __init__(self, options):
        self.options = options

    def check(self):
        return Availability(True, "standin 1.0")

    probe = check

    def refuses(self, device):
        return None

    def validate(self, experiment, devices):
        pass

    def workers(self, devices):
        return [[device] for device in devices] if self.options.processes else [devices]

    def environment(self, devices):
        return {"STANDIN_VISIBLE_DEVICES": ",".join(device.uuid for device in devices)}

    def spanning(self, interface):
        return {"STANDIN_INTERFACE": interface}

    def trainer(self, task):
        return StandinTrainer(task, self.options)


class StandinTrainer:
    """Its loss is 1 / number of steps; it finds every second validation image right."""

    def __init__(self, task, options):
        self.task = task
        self.options = options
        self.steps = 0

    def begin_epoch(self, epoch, lr):
        pass

    def feed(self, batches):
        return iter(batches)

    def step(self, batch):
        self.steps += 1
        time.sleep(self.options.step_s + self.options.slower_by_rank_s * self.task.rank)
        if (self.steps, self.task.rank) == (self.options.at_step, self.options.in_rank):
            STRIKES[self.options.mode]()
            time.sleep(max(self.options.until_s - time.monotonic(), 0.0))

    def warm_up(self, training, validation):
        for _ in training:
            time.sleep(self.options.step_s)

    def recent_loss(self):
        if self.options.mode == "nan" and self.steps >= self.options.at_step:
            return math.nan
        return 1 / self.steps if self.steps else None

    def take_loss(self):
        return self.recent_loss()

    def evaluate(self, batches):
        images = sum(len(batch.images) for batch in batches)
        return Evaluation(images, images // 2, None, 0.5)

    def synchronize(self):
        pass

    def state(self):
        return {"parameters/steps": np.array(self.steps)}

    def restore(self, state):
        self.steps = int(state["parameters/steps"])

    def memory_bytes(self):
        return 4096

    def environment(self):
        return {
            "engine": "standin 1.0",
            "visible": os.environ["STANDIN_VISIBLE_DEVICES"],
            "interface": os.environ.get("STANDIN_INTERFACE", ""),
            "meeting": self.task.meeting or "",
            "cuda": os.environ["CUDA_DEVICE_ORDER"] + " " + os.environ["CUDA_VISIBLE_DEVICES"],
        }


@dataclass(frozen=True)
class TinyOptions:
    images: int = 64
    validation_images: int = 20


class Tiny:
    """Black images of four classes."""

    def __init__(self, options):
        self.options = options

    def check(self):
        return Availability(True, "made up")

    def info(self):
        return DatasetInfo(4, True, self.options.images, self.options.validation_images)

    def open(self, input_shape, seed):
        return ArrayDataset(
            {
                split: (np.zeros((count, *input_shape), np.float32), np.arange(count) % 4)
                for split, count in (("train", self.options.images), ("validation", self.options.validation_images))
            },
            seed,
        )


def energybench_register_engines(register):
    register("standin", StandinEngine, StandinOptions)


def energybench_register_datasets(register):
    register("tiny", Tiny, TinyOptions)


def energybench_config_path():
    return "pkg://standin_conf"
