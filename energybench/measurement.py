"""What `energybench.measure` says of one window."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from energybench.errors import DataError
from energybench.run.result import ChannelEnergy

SCHEMA_VERSION = 1
TOTAL = "total"


@dataclass(frozen=True)
class Measurement:
    """Energy of one window.

    Attributes:
        name: the window's name; "total" for the whole block, the function's name for a call.
        energy_j: joules of the devices that train (`scope`); None where a part of it was not read at all.
        uncertainty_j: expanded uncertainty (k = 2), both parts; None as energy_j.
        independent_uncertainty_j: expanded (k = 2), without what all windows on the same boards share.
        time_s: length of the window, seconds.
        power_mean_w: mean power over the time that readings cover; None as energy_j.
        scope: "gpu" or "cpu": the kind of channel that energy_j adds up.
        meter: name of the meter that read them.
        estimated: True where no sensor stands behind energy_j.
        complete: False where an exception ended the window.
        quality: what speaks against the number; empty where nothing does.
        channels: channel name -> energy, of everything that was read.
        provenance: channels with UUIDs, PCI addresses and origins; start and end on CLOCK_MONOTONIC; process.
    """

    name: str
    energy_j: float | None
    uncertainty_j: float | None
    independent_uncertainty_j: float | None
    time_s: float
    power_mean_w: float | None
    scope: str
    meter: str
    estimated: bool
    complete: bool
    quality: tuple[str, ...]
    channels: Mapping[str, ChannelEnergy]
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        said = "" if self.name == TOTAL else f"{self.name}: "
        how = "estimated" if self.estimated else "measured"
        sources = sorted({energy.source for name, energy in self.channels.items() if name in self._in_scope()})
        flags = "".join(f"; {flag}" for flag in self.quality)
        if self.energy_j is None or self.uncertainty_j is None or self.power_mean_w is None:
            return f"{said}no energy in {self.time_s:.3g} s ({self.scope}, {self.meter} gave no reading{flags})"
        return (
            f"{said}{_number(self.energy_j)} J ± {_number(self.uncertainty_j)} J in {_number(self.time_s)} s, "
            f"{_number(self.power_mean_w)} W ({self.scope}, {how} by {self.meter} {'+'.join(sources)}{flags})"
        )

    def _in_scope(self) -> list[str]:
        return [channel["name"] for channel in self.provenance.get("channels", []) if channel["kind"] == self.scope]

    def to_json(self) -> str:
        """As JSON text, schema version first."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Measurement:
        """The inverse of `to_json`; raises DataError where it is none."""
        try:
            data = json.loads(text)
            version = data.pop("schema_version", None)
            if version != SCHEMA_VERSION:
                raise DataError(f"measurement: schema version {version!r}; this release reads {SCHEMA_VERSION}")
            channels = {name: ChannelEnergy.from_json(energy) for name, energy in data.pop("channels").items()}
            return cls(**{**data, "channels": channels, "quality": tuple(data["quality"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"measurement: not a measurement of energybench: {error}") from error


def _number(value: float) -> str:
    """Three digits, and no exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"
