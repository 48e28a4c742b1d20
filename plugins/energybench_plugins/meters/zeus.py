"""Zeus (ml.energy): GPUs through its device layer, for cards that no meter of ours reads, such as AMD's.

Its two other layers are left out: for processors it starts a process a counter that lives on after the meter is closed
(`rapl` reads the same counters), and of systems on a chip it integrates power itself, in a process of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from energybench.availability import Availability
from energybench.devices import GPU, Device
from energybench.errors import ConfigError, MeterError
from energybench.hookspecs import Register
from energybench.power.meter import Channel, Quantity, Sample, Source
from energybench_plugins.meters.nvml_generations import LATE_S
from energybench_plugins.meters.zeus_cards import GAIN_LIMIT, GAIN_UNCERTAINTY, Card, Cards, ask

PERIOD_S = 0.1
PER_UNIT = 1e-3
"""Zeus tells milliwatts and millijoules."""


@dataclass(frozen=True)
class ZeusOptions:
    """Options of `meter=zeus`.

    Attributes:
        period_s: how often counter and power are read, seconds.
        gain_uncertainty: relative standard uncertainty (k = 1) common to all runs on one board; None: 0.075, because
            Zeus does not tell which sensor it reads: boards were found within 13 % of an external meter at the worst
            (Turing, SC'24), a rectangular distribution's limits.
    """

    period_s: float = PERIOD_S
    gain_uncertainty: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.period_s) and self.period_s > 0):
            raise ConfigError(f"meter.period_s={self.period_s}: give seconds above 0")
        gain = self.gain_uncertainty
        if gain is not None and not (math.isfinite(gain) and gain >= 0):
            raise ConfigError(f"meter.gain_uncertainty={gain}: give a share from 0, such as 0.03, or null")


class ZeusMeter:
    """Reads GPUs through Zeus; each is a channel "gpu.N", numbered in the order in which they are given."""

    def __init__(self, options: ZeusOptions) -> None:
        self._options = options

    def check(self) -> Availability:
        """Whether Zeus is installed and finds a card."""
        try:
            with Cards() as found:
                names = [card.device.name for card in found.cards]
        except MeterError as error:
            detail, _, remedy = str(error).partition("; ")
            return Availability(False, detail, remedy)
        if not names:
            return Availability(False, "Zeus: no card with a driver", "install NVIDIA's driver or ROCm from 6.2 on")
        return Availability(True, f"Zeus {_version()}: {', '.join(names)}")

    def devices(self) -> Sequence[Device]:
        """The cards that Zeus finds; none where it is not installed."""
        try:
            with Cards() as found:
                return [card.device for card in found.cards]
        except MeterError:
            return []

    def covers(self, device: Device) -> bool:
        """A GPU whose UUID one of Zeus's cards has."""
        return device.kind == GPU and any(found.uuid == device.uuid for found in self.devices())

    def open(self, devices: Sequence[Device]) -> ZeusSession:
        """Opens the cards, bound by UUID; raises MeterError where one of them is unknown or tells no power."""
        cards = Cards(counters=True)
        try:
            return ZeusSession(cards, devices, self._options)
        except BaseException:
            cards.close()
            raise


class ZeusSession:
    """Opened cards. What Zeus reads of each was found out by trying; a reading that fails later is a MeterError."""

    def __init__(self, cards: Cards, devices: Sequence[Device], options: ZeusOptions) -> None:
        self.channels: list[Channel] = []
        self.sources: list[Source] = []
        self._cards = cards
        self._options = options
        self._readers: dict[tuple[str, str], Callable[[], int]] = {}
        known = {card.device.uuid: card for card in cards.cards}
        for number, device in enumerate(devices):
            if device.uuid not in known:
                raise MeterError(f"meter 'zeus': does not know {device.name} ({device.uuid}); choose meter=auto")
            self._open(f"gpu.{number}", known[device.uuid])

    def read(self, source: Source) -> Sequence[Sample]:
        """The value of `source`; raises MeterError where Zeus does not give it."""
        what = f"{source.name} of {source.channel}"
        return [Sample(ask(what, self._readers[source.channel, source.name]) * PER_UNIT)]

    def close(self) -> None:
        """Gives the driver back; a second call does nothing."""
        self._cards.close()

    def _open(self, channel: str, card: Card) -> None:
        """Finds the sources of a card, the counter first, then what sees all of the time before what does not."""
        found, missing = _readers(card)
        if not found:
            raise MeterError(
                f"meter 'zeus': Zeus reads neither energy nor power of {card.device.name} ({'; '.join(missing)}); "
                "choose meter=auto"
            )
        for name, reader in found.items():
            self._readers[channel, name] = reader
            self.sources.append(_source(channel, name, card, self._options))
        self.channels.append(_channel(channel, card, list(found), missing, self._options))


def _readers(card: Card) -> tuple[dict[str, Callable[[], int]], list[str]]:
    """What answers, by name, and why the rest does not."""
    gpu = card.gpu
    candidates: dict[str, Callable[[], int]] = {
        "counter": gpu.get_total_energy_consumption,
        "average": gpu.get_average_power_usage,
        "instant": gpu.get_instant_power_usage,
    }
    found, missing = {}, []
    for name, reader in candidates.items():
        try:
            ask(name, reader)
            found[name] = reader
        except MeterError as error:
            missing.append(f"{name}: {str(error).split(': ')[2]}")
    return found, missing


def _source(channel: str, name: str, card: Card, options: ZeusOptions) -> Source:
    """Neither the sensor's rhythm nor what it averages over is told by Zeus, so neither is said."""
    quantity: Quantity = "energy_j" if name == "counter" else "power_w"
    resolution = PER_UNIT if name == "counter" else card.resolution_w
    return Source(channel, name, quantity, options.period_s, resolution=resolution, time_uncertainty_s=LATE_S)


def _channel(channel: str, card: Card, found: Sequence[str], missing: Sequence[str], options: ZeusOptions) -> Channel:
    if options.gain_uncertainty is None:
        gain, why = GAIN_UNCERTAINTY, f"assumed, boards within {GAIN_LIMIT:.0%} (arXiv 2312.02741), rectangular"
    else:
        gain, why = options.gain_uncertainty, "meter.gain_uncertainty"
    notes = [f"Zeus {_version()}: {', '.join(found)}", *(f"without {words}" for words in missing), card.note]
    notes.append(f"gain uncertainty {gain:.3g} (k = 1): {why}")
    return Channel(
        name=channel,
        kind=GPU,
        device_id=card.device.uuid,
        pci_bus_id=card.device.pci_bus_id,
        gain_uncertainty=gain,
        origin="; ".join(note for note in notes if note),
    )


def _version() -> str:
    from importlib import metadata

    return metadata.version("zeus")


def energybench_register_meters(register: Register) -> None:
    """Registers `zeus`."""
    register("zeus", ZeusMeter, ZeusOptions)
