"""How long MXNet's devices had nothing to do because their next batch was not there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

WATCHED_S = 1e-3
"""A batch that the host waited for longer than this makes the next one be watched: each watch wakes a thread."""


class Waits:
    """Times each batch by the clock of the host, which may be steps ahead of the devices.

    The devices wait from when they have done all that was enqueued until the batch is there. MXNet tells neither when a
    step ended nor whether it has; so while the host waits for a batch that is likely to be late, a thread of its own
    waits for the last step, and notes when it has ended. What that thread sees it sees up to 5 ms late where the host
    makes the batch in Python (sys.getswitchinterval).

    Args:
        finish: returns when the devices have done all that was enqueued; called from another thread.
    """

    def __init__(self, finish: Callable[[], None]) -> None:
        self._finish = finish
        self._watcher = ThreadPoolExecutor(1, "watch")
        self._late = True
        self._total_s = 0.0

    def restart(self) -> None:
        """Forgets what was; the devices have done all that was enqueued."""
        self._late = True
        self._total_s = 0.0

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches, each waited for by the clock."""
        while True:
            began_s = time.perf_counter()
            watch = self._watcher.submit(self._ended_s) if self._late else None
            batch = next(batches, None)
            now_s = time.perf_counter()
            self._late = now_s - began_s > WATCHED_S
            if batch is None:
                return
            self._total_s += _idle_s(watch, began_s, now_s)
            yield batch

    def total_s(self) -> float:
        """Seconds since `restart`."""
        return self._total_s

    def _ended_s(self) -> float:
        self._finish()
        return time.perf_counter()


def _idle_s(watch: Future[float] | None, began_s: float, now_s: float) -> float:
    """How much of the time from `began_s` to `now_s` was left when the last step had ended; 0 if it goes on."""
    if watch is None or not watch.done():
        return 0.0
    return max(now_s - max(watch.result(), began_s), 0.0)
