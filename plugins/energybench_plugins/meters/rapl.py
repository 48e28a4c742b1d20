"""RAPL: the energy counters of Intel and AMD processors, read through Linux's powercap tree.

The tree: https://docs.kernel.org/power/powercap/powercap.html. The kernel names the zones intel-rapl on AMD too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from energybench.availability import Availability
from energybench.devices import CPU, Device
from energybench.errors import ConfigError, MeterError
from energybench.hookspecs import Register
from energybench.power.meter import Channel, Sample, Source

JOULES_PER_UNIT = 1e-6
UPDATE_S = 0.001
"""Intel's manual (SDM volume 3B, 16.10.1): the counters are updated about every millisecond."""

CONTROL_TYPES = ("intel-rapl", "intel-rapl-tpmi", "intel-rapl-mmio")
"""The kernel's ways to the same counters; where two offer the same package, the first gives it."""

PACKAGE = re.compile(r"package-(\d+)(?:-die-(\d+))?")
PSYS = re.compile(r"psys(?:-(\d+))?")


@dataclass(frozen=True)
class RaplOptions:
    """Options of `meter=rapl`.

    Attributes:
        root: the powercap tree.
        period_s: how often each counter is read, seconds; the processor updates it about every millisecond.
        gain_uncertainty: relative standard uncertainty (k = 1) common to all runs on one machine. Neither Intel nor
            AMD publishes an accuracy of these counters. 0.05 is an assumption, not a measurement: it says that the true
            energy is expected within 10 % (k = 2) of the counter's. Give your own where you have compared with a meter.
    """

    root: str = "/sys/class/powercap"
    period_s: float = 0.05
    gain_uncertainty: float = 0.05


@dataclass(frozen=True)
class _Zone:
    """One counter of the tree and the channel that it gives."""

    folder: Path
    channel: str
    kind: str
    device_id: str


class RaplMeter:
    """Reads processor packages ("cpu.N"), their memory ("dram.N") and, where there is one, the platform ("psys.N")."""

    def __init__(self, options: RaplOptions) -> None:
        if not (math.isfinite(options.period_s) and options.period_s > 0):
            raise ConfigError(f"meter.period_s={options.period_s}: give seconds above 0")
        if not (math.isfinite(options.gain_uncertainty) and options.gain_uncertainty >= 0):
            raise ConfigError(f"meter.gain_uncertainty={options.gain_uncertainty}: give a share from 0, such as 0.05")
        self._options = options
        self._root = Path(options.root)

    def check(self) -> Availability:
        """Whether there are counters and this user may read them."""
        zones = _zones(self._root)
        if not any(zone.kind == CPU for zone in zones):
            return _no_zones(self._root)
        try:
            values = [_read_j(zone.folder) for zone in zones if zone.kind == CPU]
        except PermissionError as error:
            return _no_permission(self._root, error)
        except (OSError, ValueError) as error:
            return Availability(False, f"RAPL: {error}", "choose another meter, such as meter=tdp")
        if not any(values):
            return Availability(
                False, "RAPL: every counter is 0, as a virtual machine shows them", "choose meter=tdp, an estimate"
            )
        return Availability(True, "RAPL: " + ", ".join(zone.channel for zone in zones))

    def devices(self) -> Sequence[Device]:
        """None: the CPU is known without it."""
        return []

    def covers(self, device: Device) -> bool:
        """The CPU, whatever its make."""
        return device.kind == CPU

    def open(self, devices: Sequence[Device]) -> RaplSession:
        """Opens every counter; raises MeterError where they cannot be read or a device is no CPU."""
        strangers = [device.name for device in devices if not self.covers(device)]
        if strangers:
            raise MeterError(f"meter 'rapl': reads processors, not {', '.join(strangers)}; choose meter=auto")
        availability = self.check()
        if not availability.ok:
            raise MeterError(f"meter 'rapl': {availability}")
        return RaplSession(_zones(self._root), self._options)


class RaplSession:
    """The counters of one machine. Nothing stays open between two reads, so there is nothing to release."""

    def __init__(self, zones: Sequence[_Zone], options: RaplOptions) -> None:
        self.channels = [_channel(zone, options) for zone in zones]
        self.sources = [_source(zone, options) for zone in zones]
        self._folders = {zone.channel: zone.folder for zone in zones}

    def read(self, source: Source) -> Sequence[Sample]:
        """The counter's value, joules; raises MeterError where the kernel does not give it."""
        try:
            return [Sample(_read_j(self._folders[source.channel]))]
        except (OSError, ValueError) as error:
            raise MeterError(f"RAPL: {error}") from error

    def close(self) -> None:
        """Does nothing."""


def _channel(zone: _Zone, options: RaplOptions) -> Channel:
    return Channel(
        name=zone.channel,
        kind=zone.kind,
        device_id=zone.device_id,
        contains=("cpu", "dram") if zone.kind == "psys" else (),
        gain_uncertainty=options.gain_uncertainty,
        origin=f"RAPL counter; gain uncertainty {options.gain_uncertainty:g} (k = 1): meter.gain_uncertainty, assumed",
    )


def _source(zone: _Zone, options: RaplOptions) -> Source:
    return Source(
        channel=zone.channel,
        name="counter",
        quantity="energy_j",
        period_s=options.period_s,
        wraps_at_j=_range_j(zone.folder),
        resolution=JOULES_PER_UNIT,
        update_s=UPDATE_S,
    )


def _zones(root: Path) -> list[_Zone]:
    """Every counter that is told apart, each once, in the order of the kernel's numbers."""
    found: dict[str, _Zone] = {}
    for control_type in CONTROL_TYPES:
        for folder in _numbered(root, control_type):
            for zone in _package_zones(folder):
                found.setdefault(zone.channel, zone)
    return list(found.values())


def _package_zones(folder: Path) -> list[_Zone]:
    """A package and its memory, or the platform; cores and graphics are part of their package and left out."""
    name = _name(folder)
    if match := PSYS.fullmatch(name):
        return [_Zone(folder, f"psys.{match[1] or 0}", "psys", name)]
    match = PACKAGE.fullmatch(name)
    if not match:
        return []
    number = ".".join(part for part in match.groups() if part is not None)
    memory = [child for child in _children(folder) if _name(child) == "dram"]
    zones = [_Zone(folder, f"cpu.{number}", CPU, name)]
    return zones + [_Zone(child, f"dram.{number}", "dram", f"{name}/dram") for child in memory]


def _children(folder: Path) -> list[Path]:
    """The zones inside a zone: sysfs lists them inside its folder and again beside it."""
    return _numbered(folder, folder.name) or _numbered(folder.parent, folder.name)


def _numbered(folder: Path, prefix: str) -> list[Path]:
    """The folders "prefix:N" inside `folder`, by number: 10 comes after 2."""
    pattern = re.compile(re.escape(prefix) + r":(\d+)")
    try:
        matches = [(int(match[1]), path) for path in folder.iterdir() if (match := pattern.fullmatch(path.name))]
    except OSError:
        return []
    return [path for _, path in sorted(matches)]


def _name(folder: Path) -> str:
    try:
        return (folder / "name").read_text().strip()
    except OSError:
        return ""


def _read_j(folder: Path) -> float:
    return int((folder / "energy_uj").read_text()) * JOULES_PER_UNIT


def _range_j(folder: Path) -> float | None:
    """Where the counter wraps, joules; None where the kernel does not say: a wrap then counts as a reset, a gap."""
    try:
        return int((folder / "max_energy_range_uj").read_text()) * JOULES_PER_UNIT
    except (OSError, ValueError):
        return None


def _no_zones(root: Path) -> Availability:
    return Availability(
        False,
        f"RAPL: no processor package under {root}: a virtual machine or a container, or the kernel module "
        "intel_rapl_common is not loaded",
        "on a machine of your own try `sudo modprobe intel_rapl_msr`; else choose meter=tdp, an estimate",
    )


def _no_permission(root: Path, error: PermissionError) -> Availability:
    return Availability(
        False,
        f"RAPL: no permission to read {error.filename}: Linux lets only root read it since CVE-2020-8694 (PLATYPUS, "
        "power readings that give away secrets of other users' programs)",
        f"where you trust every user, `sudo chmod a+r {root}/*/energy_uj` until the next start; for good, a udev rule: "
        'SUBSYSTEM=="powercap", ACTION=="add", RUN+="/bin/chmod a+r /sys%p/energy_uj" in '
        "/etc/udev/rules.d/60-powercap.rules; else choose meter=tdp, an estimate",
    )


def energybench_register_meters(register: Register) -> None:
    """Registers `rapl`."""
    register("rapl", RaplMeter, RaplOptions)
