"""Corrects the known bias of a board: what was found by comparing its sensor with a better instrument.

A sensor with a gain and an offset reads `reading = gain * true + offset_w`, so `true = (reading - offset_w) / gain`.
Readings, and the trace that keeps them, stay as the sensor gave them. The correction is linear, so it is made on the
energy of a window: there it is exact for counters, which wrap and stand still, as for power.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from energybench.errors import ConfigError
from energybench.power.conditions import Condition, TellsConditions

if TYPE_CHECKING:
    from energybench.power.meter import Channel, Sample, Session, Source
    from energybench.run.result import ChannelEnergy


@dataclass(frozen=True)
class Calibration:
    """How one board's readings relate to the truth.

    Attributes:
        gain: reading per true watt; 1.02 for a sensor that reads 2 % too much.
        offset_w: what it reads at 0 W, watts.
        gain_uncertainty: relative standard uncertainty (k = 1) that is left after the correction, that of the reference
            instrument included; takes the place of the meter's own. It must be given.
        reference: what it was compared with, in words.
    """

    gain: float = 1.0
    offset_w: float = 0.0
    gain_uncertainty: float | None = None
    reference: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gain) and self.gain > 0):
            raise ConfigError(f"gain={self.gain}: give a number above 0, such as 1.02 for 2 % too much")
        if not math.isfinite(self.offset_w):
            raise ConfigError(f"offset_w={self.offset_w}: give the watts that it reads at 0 W")
        uncertainty = self.gain_uncertainty
        if uncertainty is None or not (math.isfinite(uncertainty) and uncertainty >= 0):
            raise ConfigError(
                f"gain_uncertainty={uncertainty}: give the relative standard uncertainty (k = 1) that "
                "is left, the reference instrument's included, such as 0.005"
            )

    def __str__(self) -> str:
        sign = "-" if self.offset_w > 0 else "+"
        offset = f"(reading {sign} {abs(self.offset_w):g} W)" if self.offset_w else "reading"
        reference = f", {self.reference}" if self.reference else ""
        return (
            f"meter.calibration: true = {offset} / {self.gain:g}, gain uncertainty {self.gain_uncertainty:g} "
            f"(k = 1){reference}"
        )


def corrected(energy: ChannelEnergy, time_s: float, calibration: Calibration) -> ChannelEnergy:
    """The energy of a window after correction.

    Independent uncertainty is divided by the gain; the common part is a share of the energy and stays so.

    Args:
        energy: as the readings have it, its common part already from the calibration's `gain_uncertainty`.
        time_s: length of the window, seconds; the offset counts for the covered part of it.
        calibration: the correction.
    """
    if energy.energy_j is None:
        return energy
    true_j = (energy.energy_j - calibration.offset_w * energy.coverage * time_s) / calibration.gain
    scale = abs(true_j / energy.energy_j) if energy.energy_j else 1 / calibration.gain
    return replace(
        energy,
        energy_j=true_j,
        independent_u_j=None if energy.independent_u_j is None else energy.independent_u_j / calibration.gain,
        edges_u_j=energy.edges_u_j / calibration.gain,
        common_u_j=None if energy.common_u_j is None else energy.common_u_j * scale,
        power_mean_w=_power_w(energy.power_mean_w, calibration),
        power_peak_w=_power_w(energy.power_peak_w, calibration),
    )


def _power_w(reading_w: float | None, calibration: Calibration) -> float | None:
    return None if reading_w is None else (reading_w - calibration.offset_w) / calibration.gain


class CalibratedSession:
    """A session whose channels know their calibration; what it reads stays as the sensor gives it."""

    def __init__(self, session: Session, calibrations: Mapping[str, Calibration]) -> None:
        self._session = session
        self._calibrations = dict(calibrations)

    @property
    def channels(self) -> Sequence[Channel]:
        """The session's, those that are calibrated with the calibration, its uncertainty and its words."""
        return [self._calibrated(channel) for channel in self._session.channels]

    @property
    def sources(self) -> Sequence[Source]:
        """The session's."""
        return self._session.sources

    def read(self, source: Source) -> Sequence[Sample]:
        """What the sensor says; raises MeterError when it fails."""
        return self._session.read(source)

    def close(self) -> None:
        """Closes the session."""
        self._session.close()

    def _calibrated(self, channel: Channel) -> Channel:
        calibration = self._calibrations.get(channel.device_id)
        if calibration is None or calibration.gain_uncertainty is None:
            return channel
        return replace(
            channel,
            calibration=calibration,
            gain_uncertainty=calibration.gain_uncertainty,
            origin=f"{channel.origin}; corrected by {calibration}, in place of the meter's own",
        )


class CalibratedTellingSession(CalibratedSession):
    """One that also tells its cards' conditions."""

    def conditions(self) -> Sequence[Condition]:
        """The session's."""
        assert isinstance(self._session, TellsConditions)
        return self._session.conditions()


def calibrated(session: Session, calibrations: Mapping[str, Calibration]) -> Session:
    """`session` with its channels calibrated.

    Args:
        session: an opened meter.
        calibrations: device id (a GPU's UUID) -> correction; of boards that are not there it is ignored, so that one
            file serves every machine of a laboratory.
    """
    if not calibrations:
        return session
    kind = CalibratedTellingSession if isinstance(session, TellsConditions) else CalibratedSession
    return kind(session, calibrations)
