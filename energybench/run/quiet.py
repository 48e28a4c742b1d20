"""What happens before the first worker is started: the devices are had for oneself, rest, and show their idle power."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise

from energybench.errors import MeterError
from energybench.experiment import Measurement
from energybench.power.lock import BusyError, Lock
from energybench.power.meter import Session
from energybench.power.monitor import Monitor
from energybench.power.sampler import Sampler
from energybench.power.steadiness import is_steady, parts_of
from energybench.power.timeline import Timeline
from energybench.run.metrics import COOLDOWN, IDLE, SETTLE
from energybench.run.observation import Observation, Span

TICK_S = 0.5
"""Between two looks at what is waited for."""

CHECKS = 4
"""Looks a baseline's length at whether it has become steady: each costs a moment of a CPU that is being measured."""

MIN_CHECK_S = 0.25


def locked(key: str, name: str, *, shared: bool, waiting: Callable[[str], None] | None) -> Lock:
    """The lock of a device.

    Args:
        key: the device's UUID.
        name: of the run.
        shared: see Lock.
        waiting: called now and then with who is waited for; None: nobody is.

    Raises:
        BusyError: another run holds it.
        MeterError: there can be no lock.
    """
    while True:
        try:
            return Lock(key, name, shared=shared)
        except BusyError as busy:
            if waiting is None:
                raise
            waiting(str(busy))
            time.sleep(TICK_S)


class Quiet:
    """Rest and baseline of the devices that train.

    Args:
        measure: how long.
        channels: names of the channels of the devices that train, without those that are estimated.
        sessions: opened meters.
        samplers: of the sessions, in the same order, running.
        monitor: of the sessions, running.
        seen: takes the phases and flags.
        show: shows the phase that is going on.
    """

    def __init__(
        self,
        measure: Measurement,
        channels: Sequence[str],
        sessions: Sequence[Session],
        samplers: Sequence[Sampler],
        monitor: Monitor,
        seen: Observation,
        show: Callable[[Span], None],
    ) -> None:
        self._measure = measure
        self._channels = channels
        self._sessions = sessions
        self._samplers = samplers
        self._monitor = monitor
        self._seen = seen
        self._show = show

    def cool(self, meter: str, *, follows: bool) -> None:
        """Rest, until enough time has passed and the devices are as cool as asked for.

        Args:
            meter: name of their meter.
            follows: whether another cell of the sweep ran before.

        Raises:
            MeterError: a temperature is asked for and not told.
        """
        rest_s = self._measure.cooldown_s if follows else 0.0
        limit_c = self._measure.cooldown_c
        if limit_c is not None and self.temperature_c() is None:
            raise MeterError(
                f"measure.cooldown_c={limit_c:g}: meter {meter!r} tells no temperature; use measure.cooldown_s"
            )
        begun = time.monotonic()
        end = begun + max(rest_s, self._measure.cooldown_max_s)
        span = Span(COOLDOWN, None, time.monotonic_ns())
        while time.monotonic() < min(begun + rest_s, end) or (self._too_warm() and time.monotonic() < end):
            if span not in self._seen.spans:
                self._seen.spans.append(span)
            self._show(span)
            time.sleep(TICK_S)
        span.end_ns = time.monotonic_ns()

    def _too_warm(self) -> bool:
        limit_c, now_c = self._measure.cooldown_c, self.temperature_c()
        return limit_c is not None and now_c is not None and now_c > limit_c

    def temperature_c(self) -> float | None:
        """Of the warmest device that trains."""
        latest = self._monitor.latest()
        known = [latest[name].temperature_c for name in self._channels if name in latest]
        return max((celsius for celsius in known if celsius is not None), default=None)

    def baseline(self) -> None:
        """Waits for steady idle just before the run; where nothing but an estimate reads the devices there is none.

        The baseline itself is what `measured` then makes of it.
        """
        window_s = self._measure.baseline_s
        if not (window_s and self._channels):
            return
        span = Span(IDLE, None, time.monotonic_ns())
        self._seen.spans.append(span)
        self._monitor.soon()
        begun = time.monotonic()
        end = begun + max(window_s, self._measure.baseline_max_s)
        self._rest(span, begun + window_s)
        while not (steady := self._is_steady(window_s)) and time.monotonic() < end:
            self._rest(span, min(end, time.monotonic() + max(window_s / CHECKS, MIN_CHECK_S)))
        if not steady:
            self._seen.flags.add("idle_not_idle")

    def measured(self) -> None:
        """Ends the baseline now: its last `baseline_s` seconds are the idle; what is older becomes `settle`."""
        window_s = self._measure.baseline_s
        span = next((span for span in self._seen.spans if span.name == IDLE and span.end_ns is None), None)
        if span is None:
            return
        self._monitor.soon()
        span.end_ns = time.monotonic_ns()
        start_ns = span.end_ns - round(window_s * 1e9)
        if start_ns - span.start_ns > MIN_CHECK_S * 1e9:
            settled = Span(SETTLE, None, span.start_ns, start_ns)
            self._seen.spans.insert(self._seen.spans.index(span), settled)
            span.start_ns = start_ns

    def _rest(self, span: Span, until_s: float) -> None:
        while (left := until_s - time.monotonic()) > 0:
            self._show(span)
            time.sleep(min(left, TICK_S))

    def _is_steady(self, window_s: float) -> bool:
        """Whether the power of every device that trains was steady in the last `window_s` seconds."""
        end_ns, count = time.monotonic_ns(), parts_of(window_s)
        edges = [end_ns - round(window_s * 1e9 * (count - i) / count) for i in range(count + 1)]
        parts = list(pairwise(edges))
        return all(is_steady([line.energy(*part).power_mean_w for part in parts]) for line in self._power_lines())

    def _power_lines(self) -> list[Timeline]:
        """Of each measured device."""
        lines = []
        for session, sampler in zip(self._sessions, self._samplers, strict=True):
            columns = sampler.columns()
            own = [channel for channel in session.channels if channel.name in self._channels]
            lines += [Timeline(channel, session.sources, columns) for channel in own]
        return lines
