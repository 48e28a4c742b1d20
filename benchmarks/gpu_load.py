"""Work for a card to do while it is measured, and what stands in where there is no card."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, Protocol

SIZE = 8192
HOST_SIZE = 512
TOGETHER = 4


class Load(Protocol):
    def work(self, pieces: int) -> None:
        """Makes so many equal pieces of work and waits for them."""

    def train_for(self, seconds: float) -> tuple[int, float]:
        """Steps made and seconds taken."""


class Torch:
    """bf16 matrix products on the first card that CUDA shows, and ResNet-50 trained there; on the CPU without one."""

    def __init__(self, batch: int, image: int, way: str) -> None:
        import torch

        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        size = SIZE if self._device == "cuda" else HOST_SIZE
        self._a = torch.randn(size, size, device=self._device, dtype=torch.bfloat16)
        self._out = torch.empty_like(self._a)
        precision = "bf16" if self._device == "cuda" else "fp32"
        self._trained = argparse.Namespace(
            way=way, mode="default", device=self._device, precision=precision, batch=batch, size=image, world=1
        )
        self._hand: Any = None

    def work(self, pieces: int) -> None:
        for _ in range(pieces):
            self._torch.mm(self._a, self._a, out=self._out)
        if self._device == "cuda":
            self._torch.cuda.synchronize()

    def train_for(self, seconds: float) -> tuple[int, float]:
        if self._hand is None:
            from resnet50_by_hand import Hand

            self._hand = Hand(self._trained)
            self._hand.load()
            self._hand.ready()
        steps, took = self._hand.train(seconds, exchange=False)
        return steps, took


class Numpy:
    """Matrix products on the host, so that everything around them can be tried where there is no card."""

    def __init__(self) -> None:
        import numpy as np

        self._a = np.ones((HOST_SIZE, HOST_SIZE), np.float32)

    def work(self, pieces: int) -> None:
        for _ in range(pieces):
            self._a @ self._a

    def train_for(self, seconds: float) -> tuple[int, float]:
        return counted(self.work, seconds)


class Nothing:
    """A piece of no work takes a millisecond."""

    def work(self, pieces: int) -> None:
        time.sleep(pieces / 1000)

    def train_for(self, seconds: float) -> tuple[int, float]:
        return counted(self.work, seconds)


LOADS = ("torch", "numpy", "none")


def make(name: str, batch: int = 64, image: int = 224, way: str = "eager") -> Load:
    """The load of this name; `batch`, `image` and `way` are those of the network that is trained."""
    if name == "torch":
        return Torch(batch, image, way)
    return Numpy() if name == "numpy" else Nothing()


def counted(work: Callable[[int], None], seconds: float) -> tuple[int, float]:
    """Calls `work` with one piece until the time is up: calls made and seconds taken."""
    steps, begun = 0, time.perf_counter()
    while not steps or time.perf_counter() - begun < seconds:
        work(1)
        steps += 1
    return steps, time.perf_counter() - begun


def busy(load: Load, seconds: float) -> int:
    """Works for about so long; how many pieces were made."""
    pieces, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        load.work(TOGETHER)
        pieces += TOGETHER
    return pieces


def square(load: Load, seconds: float, period_s: float, duty: float) -> None:
    """Works for the share `duty` of each period."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        busy(load, period_s * duty)
        time.sleep(period_s * (1 - duty))


def pieces_for(load: Load, seconds: float) -> int:
    """How many pieces take about so long when they are made without a pause."""
    pieces = TOGETHER
    while True:
        begun = time.perf_counter()
        load.work(pieces)
        took = time.perf_counter() - begun
        if took >= seconds / 4:
            return max(1, round(pieces * seconds / took))
        pieces *= 2
