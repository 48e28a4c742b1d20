"""nvidia-smi: the power of NVIDIA cards through the driver's own program, where its library cannot be loaded.

`nvidia_smi_tool` is the door to the program, `nvidia_smi_stream` keeps one of it running for all cards,
`nvidia_smi_clock` places its lines in time. It tells no energy counter and no sample buffer: where meter=nvml works it
is the better one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from energybench.availability import Availability
from energybench.devices import GPU, Device
from energybench.errors import ConfigError, MeterError
from energybench.hookspecs import Register
from energybench.power.meter import Channel, Sample, Source
from energybench_plugins.meters.nvidia_smi_stream import Stream
from energybench_plugins.meters.nvidia_smi_tool import (
    ABSENT,
    GONE,
    POWER_FIELDS,
    failure_in,
    known_fields,
    listed,
    query,
)
from energybench_plugins.meters.nvml_generations import (
    Sensors,
    board_notes,
    check_gain,
    gain_of,
    generation_of,
    sensors_of,
)

IDENTITY = ("uuid", "name", "pci.bus_id", "memory.total", "driver_version")
CAPABILITY = "compute_cap"
MIG = "mig.mode.current"
MIB = 1024**2
STAMP_S = 0.001
"""The tool cuts its stamps to whole milliseconds."""

EDGE = 0.9
"""A read that comes before this share of the period has passed is not the sampler's beat, but an edge."""


@dataclass(frozen=True)
class NvidiaSmiOptions:
    """Options of `meter=nvidia_smi`.

    Attributes:
        period_s: how often the tool asks all cards, seconds, in whole milliseconds; None: twice as often as the fastest
            of their sensors has a new value, as the tool's beat is a little slower than asked and would miss some.
        gain_uncertainty: as of meter=nvml: relative standard uncertainty (k = 1); None: by generation.
        timeout_s: longest wait for an answer, seconds; a driver without persistence mode takes seconds to wake up.
    """

    period_s: float | None = None
    gain_uncertainty: float | None = None
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if self.period_s is not None and not (math.isfinite(self.period_s) and self.period_s >= 0.001):
            raise ConfigError(f"meter.period_s={self.period_s}: give seconds from 0.001, or null")
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise ConfigError(f"meter.timeout_s={self.timeout_s}: give seconds above 0")
        check_gain(self.gain_uncertainty)


class NvidiaSmiMeter:
    """Finds NVIDIA's cards and reads them; each is a channel "gpu.N", numbered in the order in which they are given."""

    def __init__(self, options: NvidiaSmiOptions) -> None:
        self._options = options

    def check(self) -> Availability:
        """Whether the tool runs and finds cards."""
        try:
            cards = self._cards()
        except MeterError as error:
            detail, _, remedy = str(error).partition("; ")
            return Availability(False, detail, remedy or "choose another meter")
        if not cards:
            return Availability(False, "nvidia-smi: no card that answers", "see `nvidia-smi -L` and `dmesg`")
        names = ", ".join(card["name"] for card in cards)
        return Availability(True, f"nvidia-smi, driver {cards[0]['driver_version']}: {names}")

    def devices(self) -> Sequence[Device]:
        """The cards in the driver's order; none where there is no tool. A card that is lost is left out."""
        try:
            return [_device(card) for card in self._cards()]
        except MeterError:
            return []

    def covers(self, device: Device) -> bool:
        """A GPU whose UUID the tool knows."""
        return device.kind == GPU and any(found.uuid == device.uuid for found in self.devices())

    def open(self, devices: Sequence[Device]) -> NvidiaSmiSession:
        """Opens the cards, bound by UUID; raises MeterError where one of them is unknown or tells no power."""
        strangers = [device.name for device in devices if device.kind != GPU]
        if strangers:
            raise MeterError(f"meter 'nvidia_smi': reads NVIDIA's GPUs, not {', '.join(strangers)}; choose meter=auto")
        return NvidiaSmiSession(devices, self._options)

    def _cards(self) -> list[dict[str, str]]:
        """What each card is. One that is lost makes the tool fail for all, so that then each is asked alone."""
        timeout_s = self._options.timeout_s
        known = known_fields(timeout_s)
        fields = [*IDENTITY, *({CAPABILITY} & known)]
        try:
            cards = query(fields, None, timeout_s)
        except MeterError:
            cards = [card for uuid in listed(timeout_s) for card in _answer(fields, uuid, timeout_s)]
            if not cards:
                raise
        return [card for card in cards if not failure_in(card["uuid"])]


class NvidiaSmiSession:
    """Opened cards. What each tells was asked once; a value that fails later is a MeterError."""

    def __init__(self, devices: Sequence[Device], options: NvidiaSmiOptions) -> None:
        self.channels: list[Channel] = []
        self.sources: list[Source] = []
        self._timeout_s = options.timeout_s
        self._uuids: dict[str, str] = {}
        self._read_ns: dict[tuple[str, str], int] = {}
        self._edge_ns = 0
        names, cards = _powers([device.uuid for device in devices], options.timeout_s)
        sensors = [sensors_of(device, _major(cards[device.uuid])) for device in devices]
        self._period_s = options.period_s or min((one.update_s for one in sensors), default=0.1) / 2
        for number, (device, known) in enumerate(zip(devices, sensors, strict=True)):
            self._add(f"gpu.{number}", device, known, names, cards[device.uuid], options)
        self._stream = Stream(list(self._uuids.values()), names, self._period_s, options.timeout_s)

    def read(self, source: Source) -> Sequence[Sample]:
        """The samples of `source` since the last call; raises MeterError where the tool does not give them.

        A read ahead of its time is one at an edge: it waits for a line of after the call, so that the edge is read.
        """
        now_ns, key = time.monotonic_ns(), (source.channel, source.name)
        if (now_ns - self._read_ns.get(key, 0)) / 1e9 < EDGE * source.period_s:
            if (now_ns - self._edge_ns) / 1e9 > source.period_s:
                self._edge_ns = now_ns
            since_ns = self._edge_ns
        else:
            since_ns = 0
        self._read_ns[key] = now_ns
        return self._stream.take(self._uuids[source.channel], source.name, since_ns, 2 * self._period_s + 0.1)

    def close(self) -> None:
        """Ends the tool; a second call does nothing."""
        self._stream.close()

    def _add(
        self,
        channel: str,
        device: Device,
        sensors: Sensors,
        names: Sequence[str],
        card: dict[str, str],
        options: NvidiaSmiOptions,
    ) -> None:
        absent = {name: words for name in names if (words := failure_in(card[POWER_FIELDS[name]])) in ABSENT}
        told = [name for name in names if name not in absent]
        left_out = [f"without {name}: {words}" for name, words in absent.items()]
        if not told:
            raise MeterError(
                f"meter 'nvidia_smi': {device.name} tells no power ({'; '.join(left_out)}); "
                "choose another meter, such as one at the wall"
            )
        averaging = {"usage": sensors.usage_averaging_s, "average": 1.0, "instant": sensors.instant_averaging_s}
        self.sources += [
            Source(
                channel,
                name,
                "power_w",
                self._period_s,
                resolution=0.01,
                update_s=sensors.update_s,
                averaging_s=averaging[name],
                lag_s=sensors.lag_s if name == "usage" else None,
                time_uncertainty_s=math.hypot(sensors.late_s, STAMP_S / math.sqrt(12)),
                stamps_reads=True,
            )
            for name in told
        ]
        gain, reason = gain_of(sensors, options.gain_uncertainty)
        notes = [
            f"nvidia-smi, driver {card['driver_version']}: {', '.join(told)}, asked every {1000 * self._period_s:g} ms",
            "times are the tool's stamps, checked against the lines' arrival",
            *left_out,
            *board_notes(device.name, card.get(MIG) == "Enabled"),
            f"gain uncertainty {gain:.3g} (k = 1): {reason}",
        ]
        self._uuids[channel] = device.uuid
        self.channels.append(
            Channel(channel, GPU, device.uuid, device.pci_bus_id, gain_uncertainty=gain, origin="; ".join(notes))
        )


def _powers(uuids: Sequence[str], timeout_s: float) -> tuple[list[str], dict[str, dict[str, str]]]:
    """The sources that this driver's tool knows, and each card's values now; raises MeterError where one is missing."""
    known = known_fields(timeout_s)
    names = [name for name, field in POWER_FIELDS.items() if field in known]
    fields = ["uuid", "driver_version", *(POWER_FIELDS[name] for name in names), *({MIG} & known)]
    cards = {card["uuid"]: card for card in query(fields, uuids, timeout_s)}
    for uuid in uuids:
        if uuid not in cards:
            raise MeterError(f"nvidia-smi: no card {uuid}; `nvidia-smi -L` lists the cards")
        if lost := {failure_in(value) for value in cards[uuid].values()} & set(GONE):
            raise MeterError(f"nvidia-smi: card {uuid}: {lost.pop()}; see `dmesg` for an Xid, reset the card or reboot")
    return names, cards


def _answer(fields: Sequence[str], uuid: str, timeout_s: float) -> list[dict[str, str]]:
    try:
        return query(fields, [uuid], timeout_s)
    except MeterError:
        return []


def _device(card: dict[str, str]) -> Device:
    """Drivers before 510 do not tell the compute capability: then generation and rank are not known."""
    major, _, minor = card.get(CAPABILITY, "").partition(".")
    known = major.isdigit() and minor.isdigit()
    memory = card["memory.total"]
    return Device(
        kind=GPU,
        uuid=card["uuid"],
        name=card["name"],
        generation=generation_of(int(major), int(minor)) if known else "unknown",
        rank=10 * int(major) + int(minor) if known else 0,
        pci_bus_id=card["pci.bus_id"],
        memory_bytes=int(memory) * MIB if memory.isdigit() else None,
    )


def _major(card: dict[str, str]) -> int:
    major = card["driver_version"].partition(".")[0]
    return int(major) if major.isdigit() else 0


def energybench_register_meters(register: Register) -> None:
    """Registers `nvidia_smi`."""
    register("nvidia_smi", NvidiaSmiMeter, NvidiaSmiOptions)
