"""The timeline of a channel with the correction of its board: what every window's energy is taken from."""

from __future__ import annotations

from collections.abc import Iterable

from energybench.power.calibration import Calibration, corrected
from energybench.power.meter import Channel, Reading, Source
from energybench.power.timeline import Timeline
from energybench.run.result import ChannelEnergy


class CalibratedTimeline(Timeline):
    """A timeline whose energies are corrected by the channel's calibration."""

    def __init__(
        self, channel: Channel, sources: Iterable[Source], readings: Iterable[Reading], calibration: Calibration
    ) -> None:
        super().__init__(channel, sources, readings)
        self._calibration = calibration

    def energy(self, start_ns: int, end_ns: int) -> ChannelEnergy:
        """As `Timeline.energy`, corrected."""
        return corrected(super().energy(start_ns, end_ns), (end_ns - start_ns) / 1e9, self._calibration)


def timeline(channel: Channel, sources: Iterable[Source], readings: Iterable[Reading]) -> Timeline:
    """The timeline of `channel`, with its calibration if it has one."""
    if channel.calibration is None:
        return Timeline(channel, sources, readings)
    return CalibratedTimeline(channel, sources, readings, channel.calibration)
