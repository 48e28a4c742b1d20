"""`meter=wattfile`: the processors' power as another program knows it, in a file that it writes again and again.

The file holds one number: what all processors of this machine draw together, in watts. Who writes it, a daemon that
asks the board's management controller or a script that guesses, this meter cannot see; so its energy counts as
estimated until `meter.estimated=false` says that a sensor stands behind it. A file that is not written any more is no
reading.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from energybench.availability import Availability
from energybench.devices import CPU, Device
from energybench.errors import MeterError
from energybench.hookspecs import Register
from energybench.power.meter import Channel, Sample, Source


@dataclass(frozen=True)
class WattfileOptions:
    """Options of `meter=wattfile`.

    Attributes:
        path: the file.
        period_s: how often it is read, seconds.
        max_age_s: a file that was written longer ago than this is no reading, seconds.
        gain_uncertainty: relative standard uncertainty (k = 1) of its watts.
        estimated: False where a sensor stands behind it.
    """

    path: str = "/run/watts"
    period_s: float = 0.5
    max_age_s: float = 10.0
    gain_uncertainty: float = 0.25
    estimated: bool = True


class WattfileMeter:
    """See `energybench.power.meter.Meter`."""

    def __init__(self, options: WattfileOptions) -> None:
        self._options = options

    def check(self) -> Availability:
        """Whether the file holds watts now."""
        try:
            power_w = read_w(self._options)
        except MeterError as error:
            return Availability(False, str(error), "start what writes it, or name the file: meter.path=...")
        return Availability(True, f"{power_w:g} W in {self._options.path}")

    def devices(self) -> Sequence[Device]:
        """None: the CPU is known without it."""
        return []

    def covers(self, device: Device) -> bool:
        """The CPU alone."""
        return device.kind == CPU

    def open(self, devices: Sequence[Device]) -> WattfileSession:
        """Raises MeterError where the file cannot be read."""
        read_w(self._options)
        return WattfileSession(self._options)


class WattfileSession:
    """See `energybench.power.meter.Session`."""

    def __init__(self, options: WattfileOptions) -> None:
        self._options = options
        gain, origin = options.gain_uncertainty, f"watts written to {options.path} by another program"
        self.channels = [
            Channel("cpu.0", CPU, CPU, estimated=options.estimated, gain_uncertainty=gain, origin=origin),
        ]
        self.sources = [Source("cpu.0", "file", "power_w", options.period_s, interpolation="hold")]

    def read(self, source: Source) -> Sequence[Sample]:
        """The watts now; MeterError, where there are none, becomes a gap in the trace and never a zero."""
        return [Sample(read_w(self._options))]

    def close(self) -> None:
        """Nothing stays open."""


def read_w(options: WattfileOptions) -> float:
    """The file's number, watts; raises MeterError where it is missing, no power, or too old."""
    path = Path(options.path)
    try:
        power_w, age_s = float(path.read_text()), time.time() - path.stat().st_mtime
    except (OSError, ValueError) as error:
        raise MeterError(f"no watts in {path}: {error}") from error
    if not 0 < power_w < float("inf"):
        raise MeterError(f"no watts in {path}: {power_w:g} is no power")
    if age_s > options.max_age_s:
        raise MeterError(f"no watts in {path}: written {age_s:.0f} s ago, and meter.max_age_s={options.max_age_s:g}")
    return power_w


def energybench_register_meters(register: Register) -> None:
    """Registers `wattfile`."""
    register("wattfile", WattfileMeter, WattfileOptions)
