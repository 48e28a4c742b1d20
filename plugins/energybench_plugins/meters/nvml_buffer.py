"""The driver's own buffer of power samples, put on CLOCK_MONOTONIC.

NVML stamps the samples in microseconds of "a CPU clock" and does not say which. So the clock is found by looking, its
offset to CLOCK_MONOTONIC is taken around each fetch, and a wall clock that was set in between moves no sample.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median

from energybench.errors import MeterError
from energybench.power.clock import realtime_offset_ns
from energybench.power.meter import Sample

Raw = tuple[int, float]
"""A sample as the driver gives it: stamp in nanoseconds of its clock, and watts."""

EARLIEST_AGE_NS = -50_000_000
LATEST_AGE_NS = 3_000_000_000
"""The newest sample's age, were the clock the right one: a little below 0, as clocks are read one after the other, and
no more than the buffer's own length (2.4 s on an H100)."""

STEP_NS = 2_000_000
"""A wall clock that moved further against CLOCK_MONOTONIC between two fetches was set: NTP slews by 0.5 ms a second."""

JITTER_NS = 1_000_000
"""A sample no later than this after the last is that one again, whose stamp the driver has worked out anew."""

MIXED_NS = 10_000_000_000
"""How long after a step the buffer may hold stamps of before it; only then is its order not that of the stamps."""


def clock_of(newest_ns: int, monotonic_ns: int, realtime_ns: int) -> str | None:
    """The clock, "realtime" or "monotonic", by which the newest stamp is plausibly old; None unless it is just one."""
    ages = {"realtime": realtime_ns - newest_ns, "monotonic": monotonic_ns - newest_ns}
    fit = [name for name, age_ns in ages.items() if EARLIEST_AGE_NS <= age_ns <= LATEST_AGE_NS]
    return fit[0] if len(fit) == 1 else None


def unseen(before: Sequence[Raw], now: Sequence[Raw]) -> tuple[list[Raw], bool]:
    """Of the samples fetched `now` those that were not there `before`, and whether they follow without a gap.

    Both are in the order of time. The overlap is found by comparing samples, not stamps: a clock set back gives some
    stamps twice.
    """
    for count in range(min(len(before), len(now)), 0, -1):
        if now[count - 1] == before[-1] and list(now[:count]) == list(before[-count:]):
            return list(now[count:]), True
    return list(now), False


def placed(stamps_ns: Sequence[int], old_ns: int, new_ns: int, last_ns: int | None, now_ns: int) -> list[int] | None:
    """Stamps of a wall clock that was set somewhere among them, on CLOCK_MONOTONIC.

    The first so many are of before the step, the others of after it; how many is told by the samples' regular beat.

    Args:
        stamps_ns: (n,) wall clock, in the order of time.
        old_ns: CLOCK_REALTIME - CLOCK_MONOTONIC before the step.
        new_ns: likewise, after it.
        last_ns: time of the sample just before the first, on CLOCK_MONOTONIC; None: not known.
        now_ns: CLOCK_MONOTONIC now.

    Returns:
        (n,) times; None where no place of the step makes them follow each other.
    """
    steps_ns = [abs(after - before) for before, after in pairwise(stamps_ns)]
    beat_ns = median(steps_ns) if steps_ns else 0
    best: tuple[float, list[int]] | None = None
    for count in range(len(stamps_ns) + 1):
        times_ns = [stamp - (old_ns if i < count else new_ns) for i, stamp in enumerate(stamps_ns)]
        known_ns = times_ns if last_ns is None else [last_ns, *times_ns]
        gaps_ns = [after - before for before, after in pairwise(known_ns)]
        if min(gaps_ns, default=1) <= 0 or times_ns[-1] > now_ns - EARLIEST_AGE_NS:
            continue
        worst_ns = max((abs(gap - beat_ns) for gap in gaps_ns), default=0.0)
        if best is None or worst_ns < best[0]:
            best = worst_ns, times_ns
    return None if best is None else best[1]


class Buffer:
    """One card's buffer.

    Args:
        fetch: gives all the samples that the buffer holds; raises MeterError.

    Attributes:
        clock: "realtime" or "monotonic".

    Raises:
        MeterError: the buffer cannot be read, is empty, or follows no clock known here.
    """

    def __init__(self, fetch: Callable[[], list[Raw]]) -> None:
        self._fetch = fetch
        self._offset_ns = realtime_offset_ns()
        self._held: list[Raw] = []
        self._last_ns: int | None = None
        self._mixed_until_ns = 0
        now_ns = time.monotonic_ns()
        samples = fetch()
        if not samples:
            raise MeterError("the buffer is empty")
        newest_ns = max(stamp_ns for stamp_ns, _ in samples)
        clock = clock_of(newest_ns, now_ns, now_ns + self._offset_ns)
        if clock is None:
            raise MeterError("its stamps follow neither CLOCK_REALTIME nor CLOCK_MONOTONIC, so they cannot be placed")
        self.clock = clock

    def read(self) -> list[Sample]:
        """The samples since the last read, oldest first, with their times on CLOCK_MONOTONIC.

        Raises:
            MeterError: the driver fails, or the samples cannot be placed in time.
        """
        samples = self._fetch()
        offset_ns, now_ns = realtime_offset_ns(), time.monotonic_ns()
        old_ns, self._offset_ns = self._offset_ns, offset_ns
        stepped = self.clock == "realtime" and abs(offset_ns - old_ns) > STEP_NS
        if stepped:
            self._mixed_until_ns = now_ns + MIXED_NS
        if now_ns >= self._mixed_until_ns:
            samples = sorted(samples)
        new, follows = unseen(self._held, samples)
        self._held = samples
        if not new:
            return []
        times_ns = self._times(
            new, (old_ns, offset_ns) if stepped else None, self._last_ns if follows else None, now_ns
        )
        last_ns = self._last_ns
        self._last_ns = times_ns[-1] if last_ns is None else max(last_ns, times_ns[-1])
        return [
            Sample(power_w, time_ns)
            for time_ns, (_, power_w) in zip(times_ns, new, strict=True)
            if last_ns is None or time_ns > last_ns + JITTER_NS
        ]

    def _times(self, new: Sequence[Raw], step: tuple[int, int] | None, last_ns: int | None, now_ns: int) -> list[int]:
        stamps_ns = [stamp_ns for stamp_ns, _ in new]
        zero_ns = self._offset_ns if self.clock == "realtime" else 0
        times_ns = placed(stamps_ns, *step, last_ns, now_ns) if step else [stamp - zero_ns for stamp in stamps_ns]
        if times_ns is None or not EARLIEST_AGE_NS <= now_ns - times_ns[-1] <= LATEST_AGE_NS:
            raise MeterError(f"NVML: power samples: their stamps no longer follow the {self.clock} clock")
        return times_ns
