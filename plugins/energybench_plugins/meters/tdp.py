"""TDP: an estimate for CPUs that no sensor reads. Constant power, from the option, a table, or so much a core.

A thermal design power is what the cooler must carry at the base clock under load. It is no measurement: an idle
processor draws a fraction of it, one that boosts draws more. Hence the wide uncertainty, and hence the channel's
origin, which every table prints.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from energybench.availability import Availability
from energybench.devices import CPU, Device, cpu_name
from energybench.errors import ConfigError, MeterError
from energybench.hookspecs import Register
from energybench.power.meter import Channel, Sample, Source

GAIN_UNCERTAINTY = 0.25
"""Relative standard uncertainty (k = 1): 50 % expanded (k = 2). An assumption."""

WATTS_PER_CORE = 8.0
"""For a CPU outside the table. An assumption: about the median of the table, whose parts take 3 to 24 W a core."""

IF_KNOWN = (
    "if you know the thermal design power of the processors, give it: meter=tdp meter.tdp_w=WATTS; in a virtual "
    "machine that of its share of the cores"
)

PERIOD_S = 1.0
INTEL, AMD = "Intel product specifications", "AMD product specifications"


@dataclass(frozen=True)
class Processor:
    """One CPU package as its vendor specifies it.

    Attributes:
        product: the vendor's product name, under which the specification page is found.
        model: the part of the system's CPU name that tells it from all others.
        tdp_w: thermal design power of a package, watts (Intel since 2021: processor base power).
        cores: physical cores of a package.
        source: where the vendor publishes them.
    """

    product: str
    model: str
    tdp_w: float
    cores: int
    source: str


def _intel(family: str, model: str, tdp_w: float, cores: int) -> Processor:
    return Processor(f"Intel {family} {model}", model, tdp_w, cores, INTEL)


def _amd(model: str, tdp_w: float, cores: int) -> Processor:
    return Processor(f"AMD {model}", model, tdp_w, cores, AMD)


PROCESSORS = (
    _intel("Xeon", "E5-2620 v3", 85, 6),
    _intel("Xeon", "E5-2680 v3", 120, 12),
    _intel("Xeon", "E5-2620 v4", 85, 8),
    _intel("Xeon", "E5-2630 v4", 85, 10),
    _intel("Xeon", "E5-2650 v4", 105, 12),
    _intel("Xeon", "E5-2680 v4", 120, 14),
    _intel("Xeon", "E5-2690 v4", 135, 14),
    _intel("Xeon", "E5-2699 v4", 145, 22),
    _intel("Xeon", "Silver 4210", 85, 10),
    _intel("Xeon", "Gold 6130", 125, 16),
    _intel("Xeon", "Gold 6148", 150, 20),
    _intel("Xeon", "Gold 6248", 150, 20),
    _intel("Xeon", "Platinum 8168", 205, 24),
    _intel("Xeon", "Platinum 8180", 205, 28),
    _intel("Xeon", "Platinum 8280", 205, 28),
    _intel("Xeon", "Platinum 8380", 270, 40),
    _intel("Xeon", "Platinum 8480+", 350, 56),
    _intel("Core", "i7-5930K", 140, 6),
    _intel("Core", "i7-5960X", 140, 8),
    _intel("Core", "i7-6700K", 91, 4),
    _intel("Core", "i7-7700K", 91, 4),
    _intel("Core", "i7-8700K", 95, 6),
    _intel("Core", "i9-9900K", 95, 8),
    _intel("Core", "i9-10900K", 125, 10),
    _intel("Core", "i9-12900K", 125, 16),
    _amd("EPYC 7551", 180, 32),
    _amd("EPYC 7601", 180, 32),
    _amd("EPYC 7502", 180, 32),
    _amd("EPYC 7702", 200, 64),
    _amd("EPYC 7742", 225, 64),
    _amd("EPYC 7763", 280, 64),
    _amd("EPYC 9654", 360, 96),
    _amd("Ryzen 7 3700X", 65, 8),
    _amd("Ryzen 9 3950X", 105, 16),
    _amd("Ryzen 7 5800X", 105, 8),
    _amd("Ryzen 9 5950X", 105, 16),
    _amd("Ryzen 9 7950X", 170, 16),
    _amd("Ryzen Threadripper 3970X", 280, 32),
)
"""Common server and desktop parts, by the vendors' specification pages of the products named."""


@dataclass(frozen=True)
class TdpOptions:
    """Options of `meter=tdp`.

    Attributes:
        tdp_w: watts of all the processors of the machine together; None: from the table, else by cores.
    """

    tdp_w: float | None = None


class TdpMeter:
    """Gives one channel, "cpu.0": the machine's processors together.

    Args:
        options: the options.
        name: the system's CPU name; None: this machine's.
        cores: physical cores that the system shows; None: this machine's.

    Raises:
        ConfigError: `tdp_w` is not above 0.
    """

    def __init__(self, options: TdpOptions, name: str | None = None, cores: int | None = None) -> None:
        tdp_w = options.tdp_w
        if tdp_w is not None and not (math.isfinite(tdp_w) and tdp_w > 0):
            raise ConfigError(f"meter.tdp_w={tdp_w}: give the processor's watts, above 0, or null to look them up")
        self._tdp_w = tdp_w
        self._name = name
        self._cores = cores

    def check(self) -> Availability:
        """Always available; the detail says where the watts come from, the remedy how to have better ones."""
        better = "" if self._tdp_w is not None or find(self._cpu()) else IF_KNOWN
        return Availability(True, f"estimate, no sensor: {self._estimate()[1]}", better)

    def devices(self) -> Sequence[Device]:
        """None: the CPU is known without it."""
        return []

    def covers(self, device: Device) -> bool:
        """The CPU, whatever its make."""
        return device.kind == CPU

    def open(self, devices: Sequence[Device]) -> TdpSession:
        """A session of constant power; raises MeterError where a device is no CPU."""
        strangers = [device.name for device in devices if not self.covers(device)]
        if strangers:
            raise MeterError(f"meter 'tdp': estimates processors, not {', '.join(strangers)}; choose meter=auto")
        return TdpSession(*self._estimate())

    def _estimate(self) -> tuple[float, str]:
        if self._tdp_w is not None:
            return self._tdp_w, f"{self._tdp_w:g} W, meter.tdp_w"
        return estimate(self._cpu(), physical_cores() if self._cores is None else self._cores)

    def _cpu(self) -> str:
        return cpu_name() if self._name is None else self._name


class TdpSession:
    """Constant power."""

    def __init__(self, power_w: float, origin: str) -> None:
        self.channels = [
            Channel("cpu.0", CPU, CPU, estimated=True, gain_uncertainty=GAIN_UNCERTAINTY, origin=origin),
        ]
        self.sources = [Source("cpu.0", "constant", "power_w", PERIOD_S, interpolation="hold")]
        self._power_w = power_w

    def read(self, source: Source) -> Sequence[Sample]:
        """The same watts every time."""
        return [Sample(self._power_w)]

    def close(self) -> None:
        """Does nothing."""


def estimate(name: str, cores: int) -> tuple[float, str]:
    """The power of the machine's processors and where the number comes from.

    A table entry is scaled by visible / package cores: a virtual machine shows a part of a package, a server of two
    sockets twice as many.

    Args:
        name: the system's CPU name, such as "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz".
        cores: physical cores that the system shows.

    Returns:
        Watts, and the origin in words, the watts first.
    """
    processor = find(name)
    if processor is None:
        power_w = WATTS_PER_CORE * cores
        return power_w, f"{power_w:g} W, assumed: {WATTS_PER_CORE:g} W a core x {cores} ({name} is not in the table)"
    power_w = processor.tdp_w * cores / processor.cores
    origin = f"{power_w:.4g} W, {processor.product} ({processor.source})"
    if cores == processor.cores:
        return power_w, origin
    share = (
        f"{cores} of {processor.cores} cores" if cores < processor.cores else f"{cores} cores, {processor.cores} each"
    )
    return power_w, f"{origin}: {processor.tdp_w:g} W a package, scaled to {share}"


def find(name: str) -> Processor | None:
    """The table's entry for the system's CPU name; None where there is none. "i7-6700" is not "i7-6700K"."""
    return next((processor for processor in PROCESSORS if _names(processor, name)), None)


def _names(processor: Processor, name: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(processor.model)}(?![\w+-])", name) is not None


def physical_cores() -> int:
    """Physical cores that the system shows; its logical ones where it tells no others."""
    return psutil.cpu_count(logical=False) or os.cpu_count() or 1


def energybench_register_meters(register: Register) -> None:
    """Registers `tdp`."""
    register("tdp", TdpMeter, TdpOptions)
