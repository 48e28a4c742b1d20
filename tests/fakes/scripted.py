"""A meter of constant, known power, and four GPUs that are not there."""

from __future__ import annotations

import time
from dataclasses import dataclass

from energybench.availability import Availability
from energybench.devices import Device
from energybench.errors import MeterError
from energybench.power.meter import Channel, Sample, Source

GPUS = [
    Device(
        kind="gpu",
        uuid=f"GPU-{number:08d}-0000-0000-0000-000000000000",
        name=name,
        generation=generation,
        rank=rank,
        pci_bus_id=f"00000000:0{number}:00.0",
        memory_bytes=12 * 1024**3,
    )
    for number, (name, generation, rank) in enumerate(
        [("TITAN X", "maxwell", 52)] * 2 + [("TITAN Xp", "pascal", 61)] * 2
    )
]


@dataclass(frozen=True)
class ScriptedOptions:
    """Reads `kind` devices at `watts` each; from read number `fails_from` on, every read fails."""

    kind: str = "gpu"
    watts: float = 100.0
    counter: bool = True
    power: bool = False
    fails_from: int | None = None
    period_s: float = 0.005


class ScriptedMeter:
    def __init__(self, options):
        self.options = options
        self.broken = False

    def check(self):
        return Availability(True, "constant power")

    def devices(self):
        return GPUS if self.options.kind == "gpu" else []

    def covers(self, device):
        return device.kind == self.options.kind

    def open(self, devices):
        return ScriptedSession(devices, self)


class ScriptedSession:
    """Channels are numbered as the driver numbers its cards."""

    def __init__(self, devices, meter):
        self.meter = meter
        self.options = options = meter.options
        self.reads = 0
        numbers = {device.uuid: number for number, device in enumerate(GPUS)}
        self.channels = [
            Channel(f"{device.kind}.{numbers.get(device.uuid, 0)}", device.kind, device.uuid, device.pci_bus_id)
            for device in devices
        ]
        kinds = [("counter", "energy_j")] * options.counter + [("instant", "power_w")] * options.power
        self.sources = [
            Source(channel.name, name, quantity, options.period_s)
            for channel in self.channels
            for name, quantity in kinds
        ]

    def read(self, source):
        self.reads += 1
        first = self.options.fails_from
        if self.meter.broken or (first is not None and self.reads >= first):
            raise MeterError("the sensor is gone")
        watts = self.options.watts
        return [Sample(watts * time.monotonic() if source.quantity == "energy_j" else watts)]

    def close(self):
        pass


def energybench_register_meters(register):
    register("scripted", ScriptedMeter, ScriptedOptions)
