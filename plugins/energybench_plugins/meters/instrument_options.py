"""Options of `meter=instrument`: where the stream is, what its lines hold, what its channels are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from energybench.errors import ConfigError

UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
ISO_8601 = "iso8601"
OWN, REALTIME, MONOTONIC = "own", "realtime", "monotonic"
CLOCKS = (OWN, REALTIME, MONOTONIC)

ADAPTER_DELAY_S = 0.016
"""How long a USB serial adapter may keep bytes back: the default latency timer of FTDI's chips (AN232B-04)."""

DEFAULT_TIME_UNCERTAINTY_S = {OWN: ADAPTER_DELAY_S / math.sqrt(12), REALTIME: 0.01, MONOTONIC: 0.0}
"""What no fit shows, where the user does not say. Own clock or none: the least delay lies anywhere between nothing and
an adapter's (rectangular, GUM 4.3.7). Wall time: an assumption for two clocks that NTP keeps."""


@dataclass(frozen=True)
class TimeOptions:
    """Where a line says when.

    Attributes:
        column: its number, from 1, or its name in the header line; None: lines have no time, their arrival counts.
        unit: s | ms | us | ns | iso8601, or the seconds of one tick ("0.0005").
        clock: own: the instrument's, of unknown offset and rate; realtime: wall time (UTC since 1970) kept by NTP, as
            this machine's; monotonic: this machine's CLOCK_MONOTONIC.
    """

    column: str | None = None
    unit: str = "s"
    clock: str = OWN

    def __post_init__(self) -> None:
        if self.clock not in CLOCKS:
            raise ConfigError(f"meter.time.clock={self.clock}: give one of {', '.join(CLOCKS)}")
        if self.unit != ISO_8601 and not _positive(self.tick_s):
            names = ", ".join([*UNITS_S, ISO_8601])
            raise ConfigError(f"meter.time.unit={self.unit}: give one of {names}, or the seconds of one tick")
        if self.unit == ISO_8601 and self.clock == MONOTONIC:
            raise ConfigError("meter.time.unit=iso8601: that is wall time; choose meter.time.clock=realtime or own")

    @property
    def tick_s(self) -> float:
        """Seconds of one unit; NaN where it is none."""
        try:
            return UNITS_S.get(self.unit) or float(self.unit)
        except ValueError:
            return math.nan


@dataclass(frozen=True)
class InstrumentChannel:
    """One thing that the instrument measures.

    Attributes:
        name: of the channel: "wall.0", "gpu.0".
        kind: "wall", or "gpu" or "cpu" for a device that trains, or any other word, such as "rail".
        device_id: UUID or PCI address of the GPU whose power it is; needed for kind gpu.
        contains: kinds whose energy it includes: [cpu, gpu] for a meter at the wall.
        power: columns that are added up, by number from 1 or by name: "2" is in watts, "3*4" volts times amps.
        scale: watts of one unit; 0.001 for milliwatts.
        max_w: no power above it is possible, watts: a line that says so is corrupt; None: any is.
        resolution_w: smallest step of its readings, watts.
    """

    name: str = "wall.0"
    kind: str = "wall"
    device_id: str | None = None
    contains: list[str] = field(default_factory=list)
    power: list[str] = field(default_factory=lambda: ["1"])
    scale: float = 1.0
    max_w: float | None = None
    resolution_w: float = 0.0

    def __post_init__(self) -> None:
        where = f"meter.channels, {self.name!r}"
        if not (self.name and self.kind):
            raise ConfigError(f"{where}: give name and kind")
        if not self.power or not all(0 < len(term.split("*")) < 3 and all(term.split("*")) for term in self.power):
            raise ConfigError(f'{where}: power={self.power}: give columns, such as ["2", "3*4"]')
        if self.kind == "gpu" and not self.device_id:
            raise ConfigError(f"{where}: give device_id, the UUID of the GPU (`energybench doctor` lists them)")
        if not (math.isfinite(self.scale) and self.scale != 0):
            raise ConfigError(f"{where}: scale={self.scale}: give the watts of one unit")
        if self.max_w is not None and not _positive(self.max_w):
            raise ConfigError(f"{where}: max_w={self.max_w}: give watts above 0, or null")
        if not (math.isfinite(self.resolution_w) and self.resolution_w >= 0):
            raise ConfigError(f"{where}: resolution_w={self.resolution_w}: give watts from 0")


@dataclass(frozen=True)
class InstrumentOptions:
    """Options of `meter=instrument`.

    Attributes:
        url: serial:///dev/ttyUSB0?baud=115200 | tcp://host:port | file:///path or a path; None: no instrument.
        send: text that the instrument waits for before it begins, sent when it is connected.
        delimiter: between two columns; None: white space.
        comment: lines that begin with it are passed over.
        time: the time of a line.
        channels: what it measures.
        gain_uncertainty: relative standard uncertainty (k = 1) of its power, from its data sheet; must be given.
        delay_s: from when the power was so to the line's arrival (of absolute clocks: to its time stamp), seconds, as
            far as known: what no fit shows.
        time_uncertainty_s: standard uncertainty of that, or of an absolute clock, seconds; None: by clock (16 ms /
            sqrt(12), a serial adapter's; 10 ms for wall time; 0 for this machine's monotonic clock).
        averaging_s: how much of the past a value is the mean of, seconds; None: not known.
        timeout_s: without a line for so long its readings fail, seconds; None: never, as for a file in chunks.
        reconnects: how often a broken connection is tried again before it is given up.
    """

    url: str | None = None
    send: str | None = None
    delimiter: str | None = ","
    comment: str = "#"
    time: TimeOptions = field(default_factory=TimeOptions)
    channels: list[InstrumentChannel] = field(default_factory=list)
    gain_uncertainty: float | None = None
    delay_s: float = 0.0
    time_uncertainty_s: float | None = None
    averaging_s: float | None = None
    timeout_s: float | None = 10.0
    reconnects: int = 5

    def __post_init__(self) -> None:
        names = [channel.name for channel in self.channels]
        if len(set(names)) < len(names):
            raise ConfigError(f"meter.channels: two channels of one name: {', '.join(names)}")
        for key in ("gain_uncertainty", "time_uncertainty_s", "averaging_s"):
            value = getattr(self, key)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"meter.{key}={value}: give a number from 0, or null")
        if not math.isfinite(self.delay_s):
            raise ConfigError(f"meter.delay_s={self.delay_s}: give seconds")
        if self.timeout_s is not None and not _positive(self.timeout_s):
            raise ConfigError(f"meter.timeout_s={self.timeout_s}: give seconds above 0, or null")
        if self.reconnects < 0:
            raise ConfigError(f"meter.reconnects={self.reconnects}: give a whole number from 0")
        if self.delimiter == "" or not self.comment:
            raise ConfigError("meter.delimiter and meter.comment: give a character; delimiter null is white space")

    @property
    def unfit(self) -> str:
        """What is missing before it can be read, empty where nothing is."""
        if self.url is None:
            return "no instrument is named; give meter.url (serial:///dev/ttyUSB0?baud=115200, tcp://host:port, a file)"
        if not self.channels:
            return "nothing says what it measures; give meter.channels"
        if self.gain_uncertainty is None:
            return "give meter.gain_uncertainty: the relative standard uncertainty (k = 1) of its data sheet"
        return ""


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0
