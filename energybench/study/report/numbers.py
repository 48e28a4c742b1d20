"""Numbers as people read them: a fitting multiple of the unit, and no digit that the uncertainty does not carry."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from energybench.study.words import plus_minus, real

_DECIMAL = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_PREFIXED = {"J", "J s", "J s²", "W"}
_TIME = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_ENOUGH = {"h": 3.0, "min": 10.0}
"""A unit of time is taken from so many of it on: 90 s read better than 1.5 min."""


@dataclass(frozen=True)
class Scale:
    """What a column, an axis or a sentence counts in.

    Attributes:
        unit: "kJ", "min", "%", ""; what is to be written.
        factor: one of it in the base unit: 1000 for kJ.
    """

    unit: str
    factor: float = 1.0

    @property
    def in_brackets(self) -> str:
        """' (kJ)' behind a heading; nothing for a plain number."""
        return f" ({self.unit})" if self.unit else ""

    def text(self, value: float, half: float | None = None) -> str:
        """'15.2 ± 7.6', or three significant digits of a value without an interval; without the unit."""
        scaled = value / self.factor
        if half := real(half, value):
            return plus_minus(scaled, half / self.factor)
        return significant(scaled)

    def with_unit(self, value: float, half: float | None = None) -> str:
        """'15.2 ± 7.6 kJ'."""
        return f"{self.text(value, half)} {self.unit}".rstrip()


def scale(unit: str, values: Iterable[float], *, share: bool = False) -> Scale:
    """The multiple of `unit` in which `values` are easiest to read, by their median.

    Args:
        unit: the base unit: "J", "s", "W", ...
        values: in the base unit.
        share: whether they lie from 0 to 1 and are shown in per cent.
    """
    if share:
        return Scale("%", 0.01)
    known = sorted(abs(value) for value in values if value)
    middle = known[len(known) // 2] if known else 1.0
    if unit == "s":
        return _of_time(middle)
    if unit not in _PREFIXED:
        return Scale(unit)
    # Ten of a multiple before it is taken: 1,520 J read as well as 1.52 kJ and need no second look.
    factor, prefix = next(((f, p) for f, p in _DECIMAL if middle >= (10 * f if f > 1 else f)), _DECIMAL[-1])
    return Scale(f"{prefix}{unit}", factor)


def _of_time(middle: float) -> Scale:
    factor, unit = next(((f, u) for f, u in _TIME if middle >= f * _ENOUGH.get(u, 1.0)), _TIME[-1])
    return Scale(unit, factor)


def significant(value: float, digits: int = 3) -> str:
    """At least `digits` significant digits, never an exponent: 0.0108, 1.52, 15,181."""
    if value == 0 or not math.isfinite(value):
        return f"{value:,g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"
