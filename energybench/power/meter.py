"""What a meter is: the contract between a power backend (a plugin) and everything that reads it.

A `Meter` is cheap to make and finds out what it could read. Opened on devices it becomes a `Session`, which is read
from one sampler thread and closed by the same. Time stamps are CLOCK_MONOTONIC nanoseconds (`time.monotonic_ns`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from energybench.availability import Availability
from energybench.devices import Device

if TYPE_CHECKING:
    from energybench.power.calibration import Calibration

Quantity = Literal["power_w", "energy_j"]
Interpolation = Literal["linear", "hold"]


@dataclass(frozen=True)
class Channel:
    """One thing whose energy is told apart, such as one GPU or one CPU package.

    Attributes:
        name: "gpu.0", "cpu.0", "dram.0", ...; unique within a run.
        kind: "gpu", "cpu", "dram", "wall", ...; energy_j of a run adds the channels of the kind that trains.
        device_id: what identifies the board (GPU UUID, "package-0").
        pci_bus_id: PCI address, where there is one.
        contains: kinds whose energy this channel includes; a container is never added to its contents.
        estimated: True where no sensor stands behind the number.
        gain_uncertainty: relative standard uncertainty (k = 1) common to every window on this board.
        origin: where the number comes from, in words, with the source of `gain_uncertainty`.
        calibration: the correction of this board's energy; a meter leaves it None, the core sets it where
            `meter.calibration` names the board. Readings are never corrected.
    """

    name: str
    kind: str
    device_id: str
    pci_bus_id: str | None = None
    contains: tuple[str, ...] = ()
    estimated: bool = False
    gain_uncertainty: float = 0.0
    origin: str = ""
    calibration: Calibration | None = None


@dataclass(frozen=True)
class Source:
    """One way to read one channel.

    Attributes:
        channel: name of the channel.
        name: "counter", "buffer", "instant", "average", "usage", "constant", ...
        quantity: "energy_j" for a cumulative counter, "power_w" for power.
        period_s: how often reading is worth while, seconds.
        interpolation: how the quantity runs between two readings: "linear", or "hold" (keeps its value until the next).
        wraps_at_j: a counter's highest value; one `resolution` more is zero again. None: it does not wrap.
        resolution: smallest step of a reading, in the quantity's unit.
        update_s: how often the sensor itself has a new value, seconds; None: not known.
        averaging_s: how much of the past a power value is the mean of, seconds: after a step it is right again only
            when so much time has passed. 0: none of it, the value is instantaneous; None: not known, so do not take it
            for instantaneous.
        lag_s: time constant of a first-order low-pass that the sensor sees the power through, seconds; None: there is
            none, or it is not known.
        time_uncertainty_s: standard uncertainty of a sample's time, seconds, common to all of them: how far the
            instrument's clock may be from CLOCK_MONOTONIC, and how late the sensor may tell what it sees. 0: the read
            itself says when.
        jitter_s: standard uncertainty of each sample's own time, seconds, of a sensor that says when it took it.
        scatter: relative standard uncertainty of each sample's own power, as the mean over the time since the one
            before: some of that time a sensor may not see.
        stamps_reads: whether a sample's time is when the sensor was asked, and not when it took the value.
    """

    channel: str
    name: str
    quantity: Quantity
    period_s: float
    interpolation: Interpolation = "linear"
    wraps_at_j: float | None = None
    resolution: float = 0.0
    update_s: float | None = None
    averaging_s: float | None = None
    lag_s: float | None = None
    time_uncertainty_s: float = 0.0
    jitter_s: float = 0.0
    scatter: float = 0.0
    stamps_reads: bool = False


@dataclass(frozen=True)
class Sample:
    """A value as a source gave it.

    Attributes:
        value: in the source's quantity: watts, or joules since an arbitrary start.
        sensor_ns: when the sensor took it, CLOCK_MONOTONIC; None where the source does not say.
    """

    value: float
    sensor_ns: int | None = None


@dataclass(frozen=True)
class Reading:
    """One row of a power trace: a sample, or a failed attempt, and when it was read.

    Attributes:
        channel: name of the channel.
        source: name of the source.
        quantity: "power_w" or "energy_j".
        read_start_ns: CLOCK_MONOTONIC before the call.
        read_end_ns: CLOCK_MONOTONIC after the call.
        value: None where the read failed.
        sensor_ns: when the sensor took it, or None.
        status: "ok", or the reason of the failure.
    """

    channel: str
    source: str
    quantity: Quantity
    read_start_ns: int
    read_end_ns: int
    value: float | None
    sensor_ns: int | None = None
    status: str = "ok"

    @property
    def time_ns(self) -> int:
        """When the value held: the sensor's own time, else the middle of the read."""
        return self.sensor_ns if self.sensor_ns is not None else (self.read_start_ns + self.read_end_ns) // 2


class Session(Protocol):
    """An opened meter."""

    @property
    def channels(self) -> Sequence[Channel]:
        """What it tells apart."""

    @property
    def sources(self) -> Sequence[Source]:
        """The ways to read them."""

    def read(self, source: Source) -> Sequence[Sample]:
        """The samples of `source` since the last call, oldest first; raises MeterError when the sensor fails."""

    def close(self) -> None:
        """Releases the driver; a second call does nothing."""


class Meter(Protocol):
    """A power backend. Its constructor takes the options dataclass it was registered with and touches no driver."""

    def check(self) -> Availability:
        """Whether it can read anything here, and if not, why and what to do."""

    def devices(self) -> Sequence[Device]:
        """The devices that its driver reports, in the driver's order; empty where there are none or no driver."""

    def covers(self, device: Device) -> bool:
        """Whether it can read the power of `device`."""

    def open(self, devices: Sequence[Device]) -> Session:
        """Opens it on `devices`; raises MeterError where one of them cannot be read."""
