"""An external instrument: a stream of watts over a serial line, TCP or a file, as the power of GPUs or of the machine.

`instrument_link` connects, `instrument_reader` keeps the stream flowing, `instrument_lines` reads lines,
`instrument_time` and `instrument_clock` place them on CLOCK_MONOTONIC.
"""

from __future__ import annotations

import logging
import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Sequence

from energybench.availability import Availability
from energybench.devices import CPU, GPU, Device
from energybench.errors import MeterError
from energybench.hookspecs import Register
from energybench.power.meter import Channel, Sample, Source
from energybench_plugins.meters.instrument_lines import Lines, Row, UnreadableLineError
from energybench_plugins.meters.instrument_link import link_of
from energybench_plugins.meters.instrument_options import OWN, InstrumentChannel, InstrumentOptions
from energybench_plugins.meters.instrument_reader import Reader
from energybench_plugins.meters.instrument_time import Placed, stated_uncertainty_s, timekeeper

log = logging.getLogger(__name__)

SOURCE = "stream"
PERIOD_S = 0.5
OPEN_S = 10.0
LONGEST_WAIT_S = 2.0
"""A read waits no longer for a sample that is newer than its beginning."""

QUOTED = 80


class InstrumentMeter:
    """One instrument. It discovers no devices; a channel may be bound to one.

    Args:
        options: the options.

    Raises:
        ConfigError: the URL names nothing that can be opened.
    """

    def __init__(self, options: InstrumentOptions) -> None:
        self._options = options
        if options.url is not None:
            link_of(options.url, from_end=False, header=False, comment="#")

    def check(self) -> Availability:
        """Whether its options are whole; whether the instrument answers is found out when it is opened."""
        unfit = self._options.unfit
        if unfit:
            return Availability(False, "no instrument can be read", unfit)
        return Availability(True, f"instrument at {self._options.url}, opened when it is needed")

    def devices(self) -> Sequence[Device]:
        """None: it reads what others discover."""
        return []

    def covers(self, device: Device) -> bool:
        """Whether a channel is bound to the GPU, or is the CPU's."""
        return any(_bound(channel, device) for channel in self._options.channels)

    def open(self, devices: Sequence[Device]) -> InstrumentSession:
        """Connects and waits until lines come and their times can be told.

        Of channels of kind gpu and cpu those of `devices` are read, of other kinds all.

        Raises:
            MeterError: the options are not whole, a device has no channel, or the instrument does not answer.
        """
        if self._options.unfit:
            raise MeterError(f"meter 'instrument': {self._options.unfit}")
        strangers = [device.name for device in devices if not self.covers(device)]
        if strangers:
            raise MeterError(
                f"meter 'instrument': no channel is bound to {', '.join(strangers)}; give one kind and device_id"
            )
        session = InstrumentSession(self._options, devices)
        try:
            session.begin()
        except BaseException:
            session.close()
            raise
        return session


class InstrumentSession:
    """An opened instrument. One thread takes in lines, another reads samples."""

    def __init__(self, options: InstrumentOptions, devices: Sequence[Device]) -> None:
        self._options = options
        self._lines = Lines(options)
        self._bound = dict(_bindings(options, devices))
        self._places = {
            channel.name: place
            for place, channel in enumerate(options.channels)
            if channel.kind not in (GPU, CPU) or channel.name in self._bound
        }
        if not self._places:
            raise MeterError("meter 'instrument': none of its channels is of a device that is read")
        self._time = timekeeper(options, time.monotonic_ns())
        self._news = threading.Condition()
        self._waiting: deque[Placed] = deque()
        self._queues: dict[str, deque[Sample]] = {name: deque() for name in self._places}
        self._taken = dict.fromkeys(self._places, 0)
        self._awaited = self._count = 0
        self._newest_ns = 0
        self._updates_s: deque[float] = deque(maxlen=200)
        self._came_ns = time.monotonic_ns()
        self._failure, self._connected = "", False
        self._rows = self._corrupt = 0
        self._first_corrupt = ""
        self._link = link_of(
            str(options.url),
            from_end=options.time.column is None or options.time.clock == OWN,
            header=self._lines.has_header,
            comment=options.comment,
        )
        self._skip_line = False
        self._reader = Reader(self._link, self, (options.send or "").encode(), options.reconnects)

    # ---- for who reads ----

    @property
    def channels(self) -> Sequence[Channel]:
        """What it tells apart; `origin` says how many lines there were so far and how times are told."""
        with self._news:
            return [self._channel(self._options.channels[place]) for place in self._places.values()]

    @property
    def sources(self) -> Sequence[Source]:
        """One a channel; the uncertainty of its times is the worst so far."""
        with self._news:
            return [self._source(self._options.channels[place]) for place in self._places.values()]

    def begin(self) -> None:
        """Connects; raises MeterError where no line comes that can be read, or its times cannot be told."""
        self._reader.start()
        limit_s = self._options.timeout_s or OPEN_S
        deadline = time.monotonic() + limit_s
        with self._news:
            while not self._time.settled():
                left_s = deadline - time.monotonic()
                if self._failure and (not self._connected or not self._rows):
                    raise MeterError(f"{self._name}: {self._failure}")
                if left_s <= 0:
                    raise MeterError(f"{self._name}: {self._silence(limit_s)}")
                self._news.wait(left_s)

    def read(self, source: Source) -> Sequence[Sample]:
        """The samples since the last call.

        Waits for one that is newer than the call, though not for long: the last read of a run then reaches its end.

        Raises:
            MeterError: the link is broken, or nothing came for `timeout_s`.
        """
        name = source.channel
        with self._news:
            if self._taken[name] >= self._awaited:
                self._wait_until(time.monotonic_ns())
                self._awaited = self._count
            self._place()
            samples = list(self._queues[name])
            self._queues[name].clear()
            self._taken[name] = self._count
            if not samples:
                self._raise_failure()
            return samples

    def close(self) -> None:
        """Ends the thread and the connection; a second call does nothing."""
        self._reader.stop()
        corrupt, self._first_corrupt = self._first_corrupt, ""
        if corrupt:
            log.warning("%s: %d lines could not be used, the first: %s", self._name, self._bad, corrupt)

    # ---- for the reader's thread ----

    def connected(self) -> None:
        """A connection begins."""
        with self._news:
            self._place()
            self._lines.restart()
            self._time.restart()
            self._connected, self._failure = True, ""
            self._came_ns = time.monotonic_ns()
            self._skip_line = self._link.joins_late and not self._lines.has_header

    def lines(self, lines: list[str], arrival_ns: int) -> bool:
        """Lines that came together; whether any of them was of use."""
        with self._news:
            if self._skip_line:
                lines, self._skip_line = lines[1:], False
            rows = [row for line in lines if (row := self._row(line)) is not None]
            placed = self._time.take(rows, arrival_ns)
            self._rows += len(placed)
            self._count += len(placed)
            self._waiting.extend(placed)
            if placed:
                self._came_ns = arrival_ns
            self._news.notify_all()
            return bool(placed)

    def broken(self, words: str, *, final: bool) -> None:
        """The link broke."""
        with self._news:
            again = "" if final else "; it is tried again"
            self._failure = f"{words}{again}"
            self._news.notify_all()

    # ---- inside, with the lock held ----

    @property
    def _name(self) -> str:
        return f"instrument {self._options.url}"

    @property
    def _bad(self) -> int:
        return self._corrupt + self._time.refused

    @property
    def _update_s(self) -> float | None:
        return statistics.median(self._updates_s) if self._updates_s else None

    def _row(self, line: str) -> Row | None:
        try:
            return self._lines.row(line)
        except UnreadableLineError as error:
            self._corrupt += 1
            self._first_corrupt = self._first_corrupt or f"{line.strip()[:QUOTED]!r}: {error}"
            return None

    def _place(self) -> None:
        """Moves what came to the queues of the channels, each row with its time as it is known now."""
        delay_ns = round(self._options.delay_s * 1e9)
        while self._waiting:
            placed = self._waiting.popleft()
            time_ns = max(placed.time_ns - delay_ns, self._newest_ns + 1)
            if self._newest_ns:
                self._updates_s.append((time_ns - self._newest_ns) / 1e9)
            self._newest_ns = time_ns
            for name, place in self._places.items():
                self._queues[name].append(Sample(placed.watts[place], time_ns))

    def _wait_until(self, now_ns: int) -> None:
        """Until a sample is as new as `now_ns`, at most two updates long."""
        self._place()
        wait_s = min(LONGEST_WAIT_S, 2 * (self._update_s or PERIOD_S) + 0.1)
        deadline = time.monotonic() + wait_s
        while self._newest_ns < now_ns and not self._failure and (left_s := deadline - time.monotonic()) > 0:
            self._news.wait(left_s)
            self._place()

    def _raise_failure(self) -> None:
        if self._failure:
            raise MeterError(f"{self._name}: {self._failure}")
        silent_s, limit_s = (time.monotonic_ns() - self._came_ns) / 1e9, self._options.timeout_s
        if limit_s is not None and silent_s > limit_s:
            raise MeterError(f"{self._name}: {self._silence(silent_s)}")

    def _silence(self, seconds: float) -> str:
        if self._first_corrupt:
            return f"no line that can be used for {seconds:.3g} s; the first that could not: {self._first_corrupt}"
        if self._time.refused:
            return f"no line with a time that can be for {seconds:.3g} s; see meter.time (clock, unit)"
        return f"no line for {seconds:.3g} s; is it switched on and sending? see also meter.time and meter.send"

    def _channel(self, declared: InstrumentChannel) -> Channel:
        device = self._bound.get(declared.name)
        gain = self._options.gain_uncertainty or 0.0
        spread_s = self._time_uncertainty_s()
        corrupt = f", {self._bad} of them unusable" if self._bad else ""
        return Channel(
            name=declared.name,
            kind=declared.kind,
            device_id=device.uuid if device else declared.device_id or str(self._options.url),
            pci_bus_id=device.pci_bus_id if device else None,
            contains=tuple(declared.contains),
            gain_uncertainty=gain,
            origin=f"{self._name}, columns {' + '.join(declared.power)}; {self._rows + self._bad} lines{corrupt}; "
            f"time: {self._time.words}, standard uncertainty {spread_s:.2g} s; gain uncertainty {gain:g} (k = 1): "
            "meter.gain_uncertainty",
        )

    def _source(self, declared: InstrumentChannel) -> Source:
        update_s = self._update_s
        return Source(
            channel=declared.name,
            name=SOURCE,
            quantity="power_w",
            period_s=max(PERIOD_S, 2 * update_s if update_s else 0.0),
            resolution=declared.resolution_w,
            update_s=update_s,
            averaging_s=self._options.averaging_s,
            time_uncertainty_s=self._time_uncertainty_s(),
        )

    def _time_uncertainty_s(self) -> float:
        return math.hypot(stated_uncertainty_s(self._options), self._time.uncertainty_s)


def _bindings(options: InstrumentOptions, devices: Sequence[Device]) -> list[tuple[str, Device]]:
    return [(channel.name, device) for channel in options.channels for device in devices if _bound(channel, device)]


def _bound(channel: InstrumentChannel, device: Device) -> bool:
    """Whether a channel is the power of `device`."""
    if channel.kind != device.kind:
        return False
    known = {device.uuid.lower(), (device.pci_bus_id or device.uuid).lower()}
    return device.kind == CPU or str(channel.device_id).lower() in known


def energybench_register_meters(register: Register) -> None:
    """Registers `instrument`."""
    register("instrument", InstrumentMeter, InstrumentOptions)
