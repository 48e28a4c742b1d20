"""energybench: declare a network, a data set, the devices and a power meter; get joules, seconds and accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from energybench.measured_block import measure as measure
    from energybench.measurement import Measurement as Measurement

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Loads what measures when it is asked for: the command line prints its help without it."""
    if name == "measure":
        from energybench.measured_block import measure

        return measure
    if name == "Measurement":
        from energybench.measurement import Measurement

        return Measurement
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
