"""Reads every source of a meter at its own pace, in one thread, and keeps what each said."""

from __future__ import annotations

import heapq
import logging
import math
import threading
import time
from array import array
from collections.abc import Iterator
from operator import attrgetter
from types import TracebackType

from energybench.errors import MeterError
from energybench.power.meter import Reading, Session, Source

log = logging.getLogger(__name__)

OK = "ok"
NO_TIME = -(2**63)
SHORTEST_PERIOD_NS = 1_000_000
FIRST_ROUND_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0


def next_due_ns(due_ns: int, period_ns: int, now_ns: int) -> int:
    """The first beat after `now_ns` of a rhythm with a beat at `due_ns`: skips what was missed, keeps the phase."""
    return due_ns + max(0, (now_ns - due_ns) // period_ns + 1) * period_ns


class Sampler:
    """Samples a session from `start()` to `stop()`.

    Every source is read once before `start()` returns and once more in `stop()`, so that each window in between has a
    reading before its start and one after its end. All calls into the session, `close` included, are made by the one
    sampler thread. A read that fails is a reading without value whose status is the reason.

    Args:
        session: an opened meter. The sampler closes it when it stops.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._series = [_Series(source) for source in session.sources]
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
        """Reads every source a last time, closes the session and ends the thread; a second call does nothing.

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
        with self._lock:
            copies = [series.copy() for series in self._series if channel in (None, series.source.channel)]
        return heapq.merge(*copies, key=attrgetter("read_start_ns"))

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
        own = [series for series in self._series if series.source.channel == channel]
        own.sort(key=lambda series: series.source.quantity != "power_w")
        return next((power for series in own if (power := series.latest_power_w()) is not None), None)

    def _run(self) -> None:
        try:
            self._read_all()
            self._first_round.set()
            self._follow()
            self._read_all()
        finally:
            self._close()

    def _follow(self) -> None:
        now_ns = time.monotonic_ns()
        periods = [max(SHORTEST_PERIOD_NS, round(series.source.period_s * 1e9)) for series in self._series]
        due = [now_ns + period for period in periods]
        while not self._stop.wait(_seconds_until(due)):
            now_ns = time.monotonic_ns()
            for i, series in enumerate(self._series):
                if due[i] <= now_ns and not self._stop.is_set():
                    self._read(series)
                    due[i] = next_due_ns(due[i], periods[i], time.monotonic_ns())

    def _read_all(self) -> None:
        for series in self._series:
            self._read(series)

    def _read(self, series: _Series) -> None:
        start_ns = time.monotonic_ns()
        try:
            samples = [(float(sample.value), sample.sensor_ns) for sample in self._session.read(series.source)]
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


def _seconds_until(due: list[int]) -> float | None:
    """Seconds to the earliest of the times `due`; None, for ever, where there is none."""
    return max(0, min(due) - time.monotonic_ns()) / 1e9 if due else None


class _Series:
    """The readings of one source as columns: 36 bytes a reading, where an object takes ten times that."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._read_start_ns = array("q")
        self._read_end_ns = array("q")
        self._sensor_ns = array("q")
        self._value = array("d")
        self._code = array("I")
        self._codes = {OK: 0}

    def add(self, start_ns: int, end_ns: int, value: float, sensor_ns: int | None, status: str) -> None:
        """Appends one reading; of one that failed, `value` is not looked at."""
        self._read_start_ns.append(start_ns)
        self._read_end_ns.append(end_ns)
        self._sensor_ns.append(NO_TIME if sensor_ns is None else sensor_ns)
        self._value.append(value)
        self._code.append(self._codes.setdefault(status, len(self._codes)))

    def copy(self) -> _Series:
        """A snapshot that later readings do not change."""
        twin = _Series(self.source)
        twin._read_start_ns = self._read_start_ns[:]
        twin._read_end_ns = self._read_end_ns[:]
        twin._sensor_ns = self._sensor_ns[:]
        twin._value = self._value[:]
        twin._code = self._code[:]
        twin._codes = dict(self._codes)
        return twin

    def __iter__(self) -> Iterator[Reading]:
        statuses = list(self._codes)
        return (self._reading(i, statuses[code]) for i, code in enumerate(self._code))

    def _reading(self, i: int, status: str) -> Reading:
        sensor_ns = self._sensor_ns[i]
        return Reading(
            channel=self.source.channel,
            source=self.source.name,
            quantity=self.source.quantity,
            read_start_ns=self._read_start_ns[i],
            read_end_ns=self._read_end_ns[i],
            value=self._value[i] if status == OK else None,
            sensor_ns=None if sensor_ns == NO_TIME else sensor_ns,
            status=status,
        )

    def latest_power_w(self) -> float | None:
        """The last value of a power source, the last step of a counter; None where the last read failed."""
        last = [self._reading(i, OK) for i in range(max(0, len(self._code) - 2), len(self._code)) if not self._code[i]]
        if not last or self._code[-1]:
            return None
        if self.source.quantity == "power_w":
            return last[-1].value
        return _mean_power_w(last[0], last[-1])


def _mean_power_w(before: Reading, after: Reading) -> float | None:
    """Mean power between two readings of a counter; None where it cannot be told, as across a reset."""
    step_ns = after.time_ns - before.time_ns
    if before.value is None or after.value is None or step_ns <= 0 or after.value < before.value:
        return None
    return (after.value - before.value) / step_ns * 1e9
