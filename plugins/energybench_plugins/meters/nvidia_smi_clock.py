"""The stamps of nvidia-smi's lines, put on CLOCK_MONOTONIC.

The tool stamps a line when it begins to ask the card, in wall time cut to whole milliseconds, and the line comes some
0.2 ms later (an H200, driver 580). The wall clock may be set at any time, so that each stamp is checked against the
line's arrival, and one that does not fit gives way to it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from energybench.power.clock import realtime_offset_ns

log = logging.getLogger(__name__)

STAMP = "%Y/%m/%d %H:%M:%S.%f"
TICK_NS = 1_000_000
STEP_NS = 2_000_000
"""A wall clock that moved further against CLOCK_MONOTONIC between two lines was set: NTP slews by 0.5 ms a second."""

LATEST_NS = 5_000_000_000
"""A line that seems to have come later than this after its stamp has a stamp of another clock."""

UNSETTLED_NS = 2_000_000_000
"""How long after a step lines may still come that were stamped before it."""


def stamp_ns(text: str) -> int | None:
    """Nanoseconds since 1970 of a stamp in UTC; None where it is none."""
    try:
        moment = datetime.strptime(text, STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None
    return (int(moment.replace(microsecond=0).timestamp()) * 1_000_000 + moment.microsecond) * 1000


class Clock:
    """Says when the lines of one stream were stamped.

    Args:
        offset_ns: gives CLOCK_REALTIME - CLOCK_MONOTONIC, nanoseconds.

    Attributes:
        by_arrival: lines placed by their arrival, as their stamp did not fit.
    """

    def __init__(self, offset_ns: Callable[[], int] = realtime_offset_ns) -> None:
        self._offset = offset_ns
        self._offset_ns = offset_ns()
        self._unsettled_until_ns = 0
        self._last_ns: dict[str, int] = {}
        self._warned = False
        self.by_arrival = 0

    def time_ns(self, card: str, stamp: str, arrival_ns: int) -> int:
        """When the line was stamped, CLOCK_MONOTONIC: the middle of the stamp's millisecond, else the arrival.

        Args:
            card: whose line it is; the times of each card's lines rise.
            stamp: as the tool printed it.
            arrival_ns: CLOCK_MONOTONIC when the line was there; later with each line.
        """
        self._follow(arrival_ns)
        time_ns = self._stamped_ns(stamp, arrival_ns, self._last_ns.get(card, 0))
        if time_ns is None:
            self._note(stamp)
            time_ns = arrival_ns
        self._last_ns[card] = time_ns
        return time_ns

    def _follow(self, arrival_ns: int) -> None:
        offset_ns, before_ns = self._offset(), self._offset_ns
        self._offset_ns = offset_ns
        if abs(offset_ns - before_ns) > STEP_NS:
            self._unsettled_until_ns = arrival_ns + UNSETTLED_NS

    def _stamped_ns(self, stamp: str, arrival_ns: int, last_ns: int) -> int | None:
        wall_ns = stamp_ns(stamp)
        if wall_ns is None or arrival_ns < self._unsettled_until_ns:
            return None
        begin_ns = wall_ns - self._offset_ns
        if not -TICK_NS <= arrival_ns - begin_ns <= LATEST_NS:
            return None
        time_ns = min(begin_ns + TICK_NS // 2, arrival_ns)
        return time_ns if time_ns > last_ns else None

    def _note(self, stamp: str) -> None:
        self.by_arrival += 1
        if not self._warned:
            self._warned = True
            log.warning("nvidia-smi: the stamp %s does not fit this clock; lines are placed by their arrival", stamp)
