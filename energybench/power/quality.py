"""What speaks against a measured energy, as short flags."""

from __future__ import annotations

from collections.abc import Iterable

from energybench.run.result import ChannelEnergy

MIN_COVERAGE = 0.99
"""A window counts as measured throughout from this share of its time on."""

MIN_READINGS = 60
"""Fewest sensor updates in a window that is reported: MLPerf's practice for power measurements."""


def flags(energies: Iterable[ChannelEnergy]) -> list[str]:
    """The flags that hold for at least one of `energies`; an empty list where nothing speaks against them.

    Args:
        energies: one window of each channel, or several windows.

    Returns:
        "no_readings": no energy at all; "gaps": readings cover less than 99 % of the window; "few_updates": a sensor
        gave fewer than 60 readings in the window (an estimate has no sensor, so it is never flagged so); and the doubts
        that the timeline has of an energy: "part_time_sampling", "sources_disagree".
    """
    found: set[str] = set()
    for energy in energies:
        if energy.energy_j is None:
            found.add("no_readings")
        if energy.coverage < MIN_COVERAGE:
            found.add("gaps")
        if not energy.estimated and energy.readings < MIN_READINGS:
            found.add("few_updates")
        found.update(energy.doubts)
    return sorted(found)
