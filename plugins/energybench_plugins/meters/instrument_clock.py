"""Places an instrument's samples on CLOCK_MONOTONIC.

A clock of its own has an unknown offset and rate. A line comes late by a delay that varies and is never below some
least: so the pairs (stamp, arrival) lie on or above a line, and that line, the lower envelope, is the clock. It is the
one below all pairs whose distances to them add up to the least (Moon, Skelly, Towsley, "Estimation and removal of clock
skew from network delay measurements", INFOCOM 1999): the edge of the lower convex hull under the mean of the stamps.
How large the least delay is no such fit can tell; that is the user's `delay_s`, with its uncertainty.
"""

from __future__ import annotations

import math
import statistics
from collections import OrderedDict, deque
from collections.abc import Sequence

from energybench.errors import MeterError

SECOND_NS = 1_000_000_000
RATE_AFTER_S = 10.0
"""From here on the pairs tell the rate better than the nominal one does."""

NOMINAL_RATE_LIMIT = 1e-4
"""Crystals are within 100 parts in a million of their nominal rate."""

RATE_LIMIT = 0.01
"""No clock that is one is off by more: the unit of the time column is another than said."""

WINDOW_S = 300
"""Rates change with temperature: the fit looks back no further."""

RECENT = 500


class OwnClock:
    """The envelope of one clock, and what is known of it."""

    def __init__(self) -> None:
        self._origin: tuple[int, int] | None = None
        self._least: OrderedDict[int, tuple[float, float]] = OrderedDict()
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)
        self._offset_s = 0.0
        self._rate = 0.0
        self._fitted = False

    @property
    def span_s(self) -> float:
        """Seconds from the first pair to the last."""
        return self._recent[-1][0] if self._recent else 0.0

    @property
    def rate(self) -> float:
        """By how much its second is longer than ours, as a share; 0 before it is known."""
        self._fit()
        return self._rate

    def add(self, stamp_ns: int, arrival_ns: int) -> None:
        """One pair: of lines that came together the last, which waited least."""
        if self._origin is None:
            self._origin = (stamp_ns, arrival_ns)
        stamp_s, lag_s = self._relative(stamp_ns, arrival_ns)
        self._recent.append((stamp_s, lag_s))
        second = math.floor(stamp_s)
        if second not in self._least or lag_s < self._least[second][1]:
            self._least[second] = (stamp_s, lag_s)
            self._fitted = False
        while len(self._least) > WINDOW_S:
            self._least.popitem(last=False)

    def time_ns(self, stamp_ns: int) -> int:
        """CLOCK_MONOTONIC of a stamp, as if the least delay were nothing."""
        self._fit()
        origin_ns, arrival_ns = self._start()
        stamp_s = (stamp_ns - origin_ns) / 1e9
        return stamp_ns - origin_ns + arrival_ns + round((self._offset_s + self._rate * stamp_s) * 1e9)

    def delay_s(self, stamp_ns: int, arrival_ns: int) -> float:
        """How much longer than the least delay a line took."""
        return (arrival_ns - self.time_ns(stamp_ns)) / 1e9

    @property
    def uncertainty_s(self) -> float:
        """Standard uncertainty of the envelope, seconds.

        It is the median delay above the least one and, before the rate is known, what the nominal one may be off by
        (rectangular, GUM 4.3.7).
        """
        self._fit()
        if not self._recent:
            return 0.0
        above_s = [lag_s - self._offset_s - self._rate * stamp_s for stamp_s, lag_s in self._recent]
        unknown_s = 0.0 if self._rate else NOMINAL_RATE_LIMIT * min(self.span_s, RATE_AFTER_S) / math.sqrt(3)
        return math.hypot(max(0.0, statistics.median(above_s)), unknown_s)

    def check(self) -> None:
        """Raises MeterError where the stamps are not of the unit that they are said to be."""
        if len(self._recent) < 2 or self.span_s == 0:
            return
        first, last = self._recent[0], self._recent[-1]
        seconds = last[0] - first[0]
        ours_s = seconds + last[1] - first[1]
        if not 0.5 < seconds / max(ours_s, 1e-9) < 2:
            raise MeterError(
                f"its clock went {seconds:.4g} s in {ours_s:.4g} s of ours; set meter.time.unit to what a stamp counts"
            )

    def _start(self) -> tuple[int, int]:
        assert self._origin is not None, "no pair yet"
        return self._origin

    def _relative(self, stamp_ns: int, arrival_ns: int) -> tuple[float, float]:
        """Seconds since the first stamp, and by how much the arrival lags behind them."""
        origin_ns, first_ns = self._start()
        stamp_ns -= origin_ns
        return stamp_ns / 1e9, (arrival_ns - first_ns - stamp_ns) / 1e9

    def _fit(self) -> None:
        if self._fitted:
            return
        points = sorted(self._least.values())
        self._offset_s, self._rate = envelope(points) if self.span_s >= RATE_AFTER_S else (_least(points), 0.0)
        if abs(self._rate) > RATE_LIMIT:
            self._offset_s, self._rate = _least(points), 0.0
        self._fitted = True


def _least(points: Sequence[tuple[float, float]]) -> float:
    return min(lag_s for _, lag_s in points)


def envelope(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The line below all points whose distances to them add up to the least.

    Args:
        points: (stamp, lag) in the order of stamps, seconds.

    Returns:
        Its value at stamp 0, and its slope.
    """
    hull: list[tuple[float, float]] = []
    for point in points:
        while len(hull) > 1 and _turns_down(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    mean = statistics.fmean(stamp for stamp, _ in points)
    after = next((i for i, (stamp, _) in enumerate(hull) if stamp >= mean), len(hull) - 1)
    (x0, y0), (x1, y1) = hull[max(0, after - 1)], hull[after]
    slope = (y1 - y0) / (x1 - x0) if x1 > x0 else 0.0
    return y0 - slope * x0, slope


def _turns_down(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Whether b lies on or above the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])
