"""Reads every source of a meter at its own pace, in one thread, and keeps what each said."""

from __future__ import annotations

import heapq
import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator
from operator import attrgetter
from types import TracebackType

from energybench.errors import MeterError
from energybench.power.meter import Reading, Session, Source
from energybench.power.series import OK, Columns, Key, Series

log = logging.getLogger(__name__)

SHORTEST_PERIOD_NS = 1_000_000
FIRST_ROUND_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0

SLOW_COUNTER_S = 0.02
"""A counter renewed less often than this has a beat that is worth finding before the first window."""

LOCATE_CHANGES = 2
LOCATE_UPDATES = 3.5
LOCATE_READS = 1000
SETTLE_UPDATES = 1.3
LONGEST_SETTLING_S = 0.5


def next_due_ns(due_ns: int, period_ns: int, now_ns: int) -> int:
    """The first beat after `now_ns` of a rhythm with a beat at `due_ns`: skips what was missed, keeps the phase."""
    return due_ns + max(0, (now_ns - due_ns) // period_ns + 1) * period_ns


class Sampler:
    """Samples a session from `start()` to `stop()`.

    Every source is read before `start()` returns and in `stop()` until each has had a new value, counters until they
    were seen to change, so that each window in between has an update before its start and one after its end. All calls
    into the session, `close` included, are made by the one sampler thread.
    A read that fails is a reading without value whose status is the reason.

    Args:
        session: an opened meter. The sampler closes it when it stops.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sources = list(session.sources)
        self._series = [Series(one.channel, one.name, one.quantity) for one in self._sources]
        self._kinds = {channel.name: channel.kind for channel in session.channels}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._first_round = threading.Event()
        self._thread = threading.Thread(target=self._run, name="energybench-sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout_s: float = FIRST_ROUND_TIMEOUT_S) -> None:
        """Starts the thread and returns when every source was read once; a sampler starts only once.

        Args:
            timeout_s: longest wait for the first round, seconds.

        Raises:
            MeterError: a read did not return within `timeout_s`.
        """
        self._thread.start()
        if not self._first_round.wait(timeout_s):
            self._stop.set()
            raise MeterError(f"the meter's first read did not return within {timeout_s:g} s; its driver hangs")

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Reads on until every sensor has had its next value, closes the session and ends the thread.

        That takes half a second at most. A second call does nothing.

        Args:
            timeout_s: longest wait, seconds; a driver that hangs for longer is left behind with a warning.
        """
        self._stop.set()
        if self._thread.ident is None:
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("the meter's read did not return within %g s; the last readings are missing", timeout_s)

    def readings(self, channel: str | None = None) -> list[Reading]:
        """What was read so far, in the order of reading; safe to call from any thread, at any time.

        Args:
            channel: only this channel; None: all.
        """
        return list(self.iter_readings(channel))

    def iter_readings(self, channel: str | None = None) -> Iterator[Reading]:
        """As `readings`, one at a time: a long run's trace need not be in memory as objects."""
        found = self.columns()
        copies = [one for one in found.values() if channel in (None, one.channel)]
        return heapq.merge(*copies, key=attrgetter("read_start_ns"))

    def columns(self, since_ns: int | None = None) -> dict[Key, Columns]:
        """What was read so far, by channel and source; safe to call from any thread, at any time.

        Args:
            since_ns: only what was read from then on; None: all.
        """
        with self._lock:
            return {(series.channel, series.source): series.columns(since_ns=since_ns) for series in self._series}

    def latest_power_w(self, kind: str) -> float | None:
        """Power now, watts, summed over the channels of `kind`; for a live display.

        A channel's power is the last value of its power sources, else the difference of its counter's last two.

        Returns:
            None where there is no such channel or one of them has no power to show: part of a sum is no sum.
        """
        names = [name for name, channel_kind in self._kinds.items() if channel_kind == kind]
        with self._lock:
            powers = [self._channel_power_w(name) for name in names]
        known = [power for power in powers if power is not None]
        return sum(known) if known and len(known) == len(powers) else None

    def _channel_power_w(self, channel: str) -> float | None:
        own = [series for series in self._series if series.channel == channel]
        own.sort(key=lambda series: series.quantity != "power_w")
        latest = (_latest_power_w(series.columns(last=2)) for series in own)
        return next((power for power in latest if power is not None), None)

    def _run(self) -> None:
        try:
            settling_ns = round(settling_s(self._sources) * 1e9)
            ready_ns = time.monotonic_ns() + settling_ns
            self._read_all()
            self._locate()
            if settling_ns:
                self._follow(ready_ns)
            self._first_round.set()
            self._follow(None)
            if settling_ns:
                self._follow(time.monotonic_ns() + settling_ns)
            self._read_all()
        finally:
            self._close()

    def _locate(self) -> None:
        """Reads slow counters without a pause until each was seen to change, so that their beat is known at once."""
        slow = {i for i, source in enumerate(self._sources) if _is_slow_counter(source)}
        end_s = time.monotonic() + LOCATE_UPDATES * max((self._sources[i].update_s or 0.0 for i in slow), default=0.0)
        while slow and time.monotonic() < end_s and not self._stop.is_set():
            for i in sorted(slow):
                self._read(i)
                if _changes(self._series[i]) >= LOCATE_CHANGES:
                    slow.discard(i)
            time.sleep(SHORTEST_PERIOD_NS / 1e9)

    def _follow(self, until_ns: int | None) -> None:
        """Reads each source when it is due: until the sampler is stopped, or, being stopped, until `until_ns`."""
        now_ns = time.monotonic_ns()
        periods = [max(SHORTEST_PERIOD_NS, round(source.period_s * 1e9)) for source in self._sources]
        # Spread over their periods: the slow reads of several cards in a row would delay the others.
        due = [now_ns + period * (i + 1) // len(periods) for i, period in enumerate(periods)]
        while not self._over(due, until_ns):
            i = _most_urgent(due, periods)
            if i is not None:
                self._read(i)
                due[i] = next_due_ns(due[i], periods[i], time.monotonic_ns())

    def _over(self, due: list[int], until_ns: int | None) -> bool:
        """Waits for the next read; True when there is to be none."""
        if until_ns is None:
            return self._stop.wait(_seconds_until(due))
        if min(due, default=until_ns) >= until_ns:
            time.sleep(max(0, until_ns - time.monotonic_ns()) / 1e9)
            return True
        time.sleep(_seconds_until(due) or 0.0)
        return False

    def _read_all(self) -> None:
        for i in range(len(self._sources)):
            self._read(i)

    def _read(self, i: int) -> None:
        source, series = self._sources[i], self._series[i]
        start_ns = time.monotonic_ns()
        try:
            samples = [(float(sample.value), sample.sensor_ns) for sample in self._session.read(source)]
            failure = ""
        except MeterError as error:
            samples, failure = [], str(error) or "MeterError"
        except Exception as error:
            samples, failure = [], f"{type(error).__name__}: {error}"
        end_ns = time.monotonic_ns()
        with self._lock:
            if failure:
                series.add(start_ns, end_ns, math.nan, None, failure)
            for value, sensor_ns in samples:
                status = OK if math.isfinite(value) else f"the sensor gave {value}"
                series.add(start_ns, end_ns, value, sensor_ns, status)

    def _close(self) -> None:
        try:
            self._session.close()
        except Exception:
            log.warning("the meter could not be closed", exc_info=True)


def settling_s(sources: Iterable[Source]) -> float:
    """How long after a moment its energy can be told: until each sensor has had its next value, at most half a second.

    What a mean tells is half of its length old, what a low-pass tells its time constant. Of a mean over longer than two
    updates, which draws no edges, only the update counts.
    """
    waits = [SETTLE_UPDATES * one.update_s + (one.lag_s or _half_mean_s(one)) for one in sources if one.update_s]
    return min(max(waits, default=0.0), LONGEST_SETTLING_S)


def _half_mean_s(source: Source) -> float:
    averaging_s, update_s = source.averaging_s or 0.0, source.update_s or 0.0
    return averaging_s / 2 if averaging_s <= 2 * update_s else 0.0


def _is_slow_counter(source: Source) -> bool:
    return source.quantity == "energy_j" and (source.update_s or 0.0) >= SLOW_COUNTER_S


def _changes(series: Series) -> int:
    columns = series.columns(last=LOCATE_READS)
    return int((columns.value[1:] != columns.value[:-1]).sum())


def _most_urgent(due: list[int], periods: list[int]) -> int | None:
    """Of the sources that are due the one whose next beat comes first; None: none is due."""
    now_ns = time.monotonic_ns()
    ready = [i for i, at_ns in enumerate(due) if at_ns <= now_ns]
    return min(ready, key=lambda i: due[i] + periods[i], default=None)


def _seconds_until(due: list[int]) -> float | None:
    """Seconds to the earliest of the times `due`; None, for ever, where there is none."""
    return max(0, min(due) - time.monotonic_ns()) / 1e9 if due else None


def _latest_power_w(columns: Columns) -> float | None:
    """The last value of a power source, the last step of a counter; None where the last read failed."""
    if not len(columns) or columns.code[-1]:
        return None
    last = [reading for reading in columns if reading.status == OK]
    if columns.quantity == "power_w":
        return last[-1].value
    return _mean_power_w(last[0], last[-1])


def _mean_power_w(before: Reading, after: Reading) -> float | None:
    """Mean power between two readings of a counter; None where it cannot be told, as across a reset."""
    step_ns = after.time_ns - before.time_ns
    if before.value is None or after.value is None or step_ns <= 0 or after.value < before.value:
        return None
    return (after.value - before.value) / step_ns * 1e9
