"""How the clocks of one host stand to each other."""

from __future__ import annotations

import time


def realtime_offset_ns(tries: int = 5) -> int:
    """CLOCK_REALTIME minus CLOCK_MONOTONIC, nanoseconds.

    Each try reads monotonic, realtime, monotonic; the one with the least time between its ends counts, because the
    offset is uncertain by half of that.
    """
    return min(_offset_and_width() for _ in range(tries))[1]


def _offset_and_width() -> tuple[int, int]:
    before_ns, wall_ns, after_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
    return after_ns - before_ns, wall_ns - (before_ns + after_ns) // 2
