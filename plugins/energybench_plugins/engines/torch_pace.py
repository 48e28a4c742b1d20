"""Keeps the host ahead of the device, but not far: the device stays busy, progress true. Imports PyTorch."""

from __future__ import annotations

from typing import Any

import torch

STEPS = 4
"""The host is between so many steps and twice as many ahead."""


class Pace:
    """Told of each step; every STEPS steps it waits for the one that was STEPS earlier.

    Args:
        loss: () float32 on the device, mean loss of the step done last.
    """

    def __init__(self, loss: Any) -> None:
        self._loss = loss
        self._asynchronous = loss.device.type == "cuda"
        self._copies = [torch.zeros((), pin_memory=self._asynchronous) for _ in range(2)]
        self._events = [torch.cuda.Event(blocking=True) for _ in range(2)] if self._asynchronous else []
        self.restart()

    def restart(self) -> None:
        """Forgets the steps so far; the device must have done them."""
        self._steps = 0
        self._finished: float | None = None

    def stepped(self) -> None:
        """A step was enqueued."""
        self._steps += 1
        if not self._asynchronous or self._steps % STEPS:
            return
        now = self._steps // STEPS % 2
        self._copies[now].copy_(self._loss, non_blocking=True)
        self._events[now].record()
        if self._steps > STEPS:
            before = 1 - now
            self._events[before].synchronize()
            self._finished = float(self._copies[before])

    @property
    def loss(self) -> float | None:
        """Mean loss of a step that is known to be finished; None before there is one."""
        if self._asynchronous:
            return self._finished
        return float(self._loss) if self._steps else None
