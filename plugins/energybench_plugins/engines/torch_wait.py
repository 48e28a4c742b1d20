"""How long the device had nothing to do because its next batch was not there. Imports PyTorch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

HOST_S = 50e-6
"""A batch that the host had to wait for longer than this may have been missed by the device."""

LEAST_S = 20e-6
"""Gaps up to this length are those between two kernels."""

OPEN = 32
"""Steps whose times are not asked for yet: the host is never so far ahead, so that asking waits for nothing."""


@dataclass(frozen=True)
class _Gap:
    """Events around one step's beginning, and how long the host waited for its batch."""

    idle: Any
    begun: Any
    arrived: Any
    host_s: float


class Waits:
    """Told of each step's beginning and end.

    A GPU works on while the host waits for data, so the host's time says nothing by itself. Three events on the
    device's own stream do: the end of a step, the beginning of the next one's work, and the arrival of its batch. The
    device waits between the first two, as far as the host waited for data then (it may be late for other reasons), and
    between the last two, while the batch is copied. The CPU works in the host's own thread: it waits whenever the host
    does.

    Args:
        device: a torch.device.
    """

    def __init__(self, device: Any) -> None:
        self._gpu = device.type == "cuda"
        self._spare: list[Any] = []
        self._gaps: deque[_Gap] = deque()
        self._host_s = 0.0
        self._total_s = 0.0
        self._idle: Any = None

    def restart(self) -> None:
        """Forgets what was; the device has done all that was enqueued."""
        self._spare.extend(event for gap in self._gaps for event in (gap.idle, gap.begun, gap.arrived))
        self._gaps.clear()
        self._total_s = 0.0
        self.ended()

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches, each waited for by the clock."""
        while True:
            began_s = time.perf_counter()
            batch = next(batches, None)
            self._host_s = time.perf_counter() - began_s
            if batch is None:
                return
            yield batch

    def begins(self, *, copied: bool) -> Any | None:
        """A step is about to use the batch that came last; `copied` where the device may have to wait for its copy.

        Returns what `arrived` takes.
        """
        if not self._gpu:
            self._total_s += self._host_s
            return None
        if self._idle is None or (not copied and self._host_s < HOST_S):
            return None
        return self._recorded()

    def arrived(self, begun: Any | None) -> None:
        """The batch is there, as seen from the device's stream."""
        if begun is not None:
            self._gaps.append(_Gap(self._idle, begun, self._recorded(), self._host_s))
            self._idle = None
        if len(self._gaps) > OPEN:
            self._close(self._gaps.popleft())

    def ended(self) -> None:
        """A step was enqueued."""
        if self._gpu:
            if self._idle is not None:
                self._spare.append(self._idle)
            self._idle = self._recorded()

    def total_s(self) -> float:
        """Seconds since `restart`; the device has done all that was enqueued."""
        while self._gaps:
            self._close(self._gaps.popleft())
        return self._total_s

    def _close(self, gap: _Gap) -> None:
        late_s = gap.idle.elapsed_time(gap.begun) / 1e3
        copy_s = gap.begun.elapsed_time(gap.arrived) / 1e3
        self._total_s += sum(wait_s for wait_s in (min(late_s, gap.host_s), copy_s) if wait_s > LEAST_S)
        self._spare.extend((gap.idle, gap.begun, gap.arrived))

    def _recorded(self) -> Any:
        event = self._spare.pop() if self._spare else torch.cuda.Event(enable_timing=True)
        event.record()
        return event
