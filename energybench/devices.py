"""Devices that can train: what is there, and which of them an experiment gets.

Meters discover devices (they talk to the drivers); this module chooses among what they report and knows no vendor.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from energybench.errors import ConfigError, DeviceError

CPU = "cpu"
GPU = "gpu"


@dataclass(frozen=True)
class Device:
    """One device that trains.

    Attributes:
        kind: "cpu" or "gpu".
        uuid: what identifies this very board, the same in every process and after a reboot ("cpu" for the CPU).
        name: product name.
        generation: architecture as `gpu=` names it ("pascal"); "cpu" for the CPU.
        rank: orders generations; the newer, the higher (compute capability 6.1 -> 61).
        pci_bus_id: PCI address, where there is one.
        memory_bytes: total memory, where known.
        instances: names of the instances that the card is divided into (NVIDIA's MIG); empty for an undivided card.
        instance: the one of them that a process uses; the power is that of the whole card all the same.
    """

    kind: str
    uuid: str
    name: str
    generation: str
    rank: int = 0
    pci_bus_id: str | None = None
    memory_bytes: int | None = None
    instances: tuple[str, ...] = ()
    instance: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "instances", tuple(self.instances))  # a list, from JSON

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def cpu_name() -> str:
    """The processor's model name, or the machine type where the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cpu_device() -> Device:
    """The CPU of this machine as a device."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device(kind=CPU, uuid=CPU, name=cpu_name(), generation=CPU, memory_bytes=memory)


def unique(devices: Iterable[Device]) -> list[Device]:
    """Devices by UUID, first report kept: two meters may see the same card."""
    seen: dict[str, Device] = {}
    for device in devices:
        seen.setdefault(device.uuid, device)
    return list(seen.values())


def inventory(devices: Sequence[Device]) -> str:
    """What is there, for messages: '2 x pascal (TITAN X), cpu (Intel ...)'."""
    groups: dict[tuple[str, str], int] = {}
    for device in devices:
        key = (device.generation, device.name)
        groups[key] = groups.get(key, 0) + 1
    return ", ".join(
        f"{generation} ({name})" if generation == CPU else f"{n} x {generation} ({name})"
        for (generation, name), n in groups.items()
    )


def take(devices: Sequence[Device], generation: str, count: int | str, available: Sequence[Device]) -> list[Device]:
    """The first `count` of `devices`; `available` is listed when there are too few.

    Raises:
        ConfigError: `count` is neither a positive number nor "all".
        DeviceError: fewer devices than asked for.
    """
    if not devices:
        raise DeviceError(
            f"gpu={generation}: no such device on this machine; there is: {inventory(available)}; "
            "choose gpu=auto or gpu=cpu"
        )
    if count == "all":
        return list(devices)
    if not isinstance(count, int) or count < 1:
        raise ConfigError(f"gpu.count={count}: give a number of devices from 1, or all")
    if count > len(devices):
        raise DeviceError(
            f"gpu.count={count}: only {len(devices)} of gpu={generation} here; there is: {inventory(available)}"
        )
    return list(devices[:count])
