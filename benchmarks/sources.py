"""The driver's cards, and the channels and sources of a meter, for whoever works on its readings afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from energybench.config import make
from energybench.devices import Device
from energybench.experiment import Part
from energybench.power.meter import Channel, Source
from energybench.registry import Registry


def cards() -> list[Device]:
    """Those that the driver shows, in its order."""
    return list(make(Registry(), "meter", Part("nvml")).devices())


def sources_of(meter: str, devices: Sequence[Device]) -> tuple[list[Channel], list[Source]]:
    """What a meter tells of the devices; nothing where it does not work here."""
    one = make(Registry(), "meter", Part(meter))
    if not one.check().ok:
        return [], []
    session = one.open(devices)
    try:
        return list(session.channels), list(session.sources)
    finally:
        session.close()
