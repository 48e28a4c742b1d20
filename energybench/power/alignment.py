"""How the clock of another host stands to ours, and how far that may be wrong.

CLOCK_MONOTONIC begins anew at each host's boot, so two hosts' times differ by days. What is known of the difference
comes from questions and answers over the network. Whatever the way there and the way back take, the question was heard
after it was sent, and the answer told before it came back (Cristian 1989; NTP's own bound, RFC 5905): each exchange
puts the difference between two limits, which no asymmetry of the network can break. Clocks run at slightly different
and slowly changing rates, so that an exchange says less the longer ago it was; the limits of all of them together are
the envelope that is used here (as Marzullo's intersection, for clocks that drift).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RATE = 200e-6
"""How much faster one host's clock may run than another's: quartz is within 100 parts in a million, and so is what NTP
does to it in ordinary times. Where the exchanges themselves show more, more is allowed for."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Exchange:
    """A question and its answer, in nanoseconds of CLOCK_MONOTONIC.

    Attributes:
        sent_ns: when we sent the question, by our clock.
        heard_ns: when the other host had it, by its clock.
        told_ns: when the other host sent the answer, by its clock.
        back_ns: when we had the answer, by our clock.
    """

    sent_ns: int
    heard_ns: int
    told_ns: int
    back_ns: int

    @property
    def round_trip_ns(self) -> int:
        """Time on the network, both ways."""
        return (self.back_ns - self.sent_ns) - (self.told_ns - self.heard_ns)


class Alignment:
    """The difference of another host's clock from ours, over time.

    Args:
        exchanges: at least one, in any order.
        rate: see `RATE`; doubled until it allows for all of the exchanges.
    """

    def __init__(self, exchanges: Sequence[Exchange], rate: float = RATE) -> None:
        if not exchanges:
            raise ValueError("without an exchange nothing is known of the other clock")
        found = sorted(exchanges, key=lambda one: one.sent_ns + one.back_ns)
        self.round_trip_ns = min(one.round_trip_ns for one in found)
        # Counted from the first exchange, so that float64 resolves a nanosecond for 100 days.
        self._zero_ns = found[0].sent_ns
        self._base_ns = found[0].heard_ns - found[0].sent_ns
        self._middle = np.array([(one.sent_ns + one.back_ns) / 2 - self._zero_ns for one in found])
        self._whole_ns = np.array([one.back_ns - one.sent_ns for one in found], np.float64)
        self._highest = np.array([one.heard_ns - one.sent_ns - self._base_ns for one in found], np.float64)
        self._lowest = np.array([one.told_ns - one.back_ns - self._base_ns for one in found], np.float64)
        self.rate = rate
        self._envelope()
        while not self._consistent():
            self.rate *= 2
            self._envelope()

    def _envelope(self) -> None:
        """What the exchanges before and behind each of them say, as straight lines at the highest rate."""
        rate, spread = self.rate, self.rate * self._whole_ns
        high, low, drift = self._highest + spread, self._lowest - spread, rate * self._middle
        self._high_before = np.minimum.accumulate(high - drift)
        self._high_behind = np.minimum.accumulate((high + drift)[::-1])[::-1]
        self._low_before = np.maximum.accumulate(low + drift)
        self._low_behind = np.maximum.accumulate((low - drift)[::-1])[::-1]

    def _consistent(self) -> bool:
        low, high = self._limits(self._middle)
        return bool(np.all(low <= high))

    def _limits(self, since: Floats) -> tuple[Floats, Floats]:
        """(n,) times since the first exchange -> lowest and highest difference, from that of the first."""
        last = len(self._middle) - 1
        behind = np.searchsorted(self._middle, since, side="right")
        before, after = np.clip(behind - 1, 0, last), np.clip(behind, 0, last)
        drift, some_before, some_after = self.rate * since, behind > 0, behind <= last
        high = np.minimum(
            np.where(some_before, self._high_before[before] + drift, np.inf),
            np.where(some_after, self._high_behind[after] - drift, np.inf),
        )
        low = np.maximum(
            np.where(some_before, self._low_before[before] - drift, -np.inf),
            np.where(some_after, self._low_behind[after] + drift, -np.inf),
        )
        return low, high

    def offset(self, time_ns: int) -> tuple[int, int]:
        """The other clock less ours when ours is `time_ns`, and how far that may be wrong, both nanoseconds.

        The truth lies within: it is the middle between the limits, and half of what is between them, rounded up.
        """
        low, high = (float(limit[0]) for limit in self._limits(np.array([time_ns - self._zero_ns], np.float64)))
        return self._base_ns + round((low + high) / 2), int(np.ceil((high - low) / 2)) + 1

    def theirs(self, time_ns: int) -> int:
        """A time of our clock by theirs."""
        return time_ns + self.offset(time_ns)[0]

    def ours(self, time_ns: int) -> int:
        """A time of their clock by ours."""
        found = time_ns - self._base_ns
        for _ in range(3):  # the offset changes by less than a thousandth of the time: this settles at once
            found = time_ns - self.offset(found)[0]
        return found
