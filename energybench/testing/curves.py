"""Power curves whose energy is known in closed form. Time is in seconds since the scenario's start."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

Knot = tuple[float, float]


@dataclass(frozen=True)
class Part:
    """Straight lines between knots; nothing outside [from_s, to_s).

    Attributes:
        knots: (time in seconds, watts), in the order of time; two of one time make a jump. The power before the first
            and after the last is theirs.
        period_s: the knots, from 0 to this time, are repeated for ever, before and after; None: they are not.
        phase_s: time of the knots' 0.
        from_s, to_s: outside, the part adds nothing.
    """

    knots: tuple[Knot, ...]
    period_s: float | None = None
    phase_s: float = 0.0
    from_s: float = -math.inf
    to_s: float = math.inf

    def __post_init__(self) -> None:
        times = [time_s for time_s, _ in self.knots]
        if not times or times != sorted(times):
            raise ValueError(f"knots at {times} s: give at least one, in the order of time")
        if self.period_s is not None and not (times[0] == 0 and times[-1] == self.period_s > 0):
            raise ValueError(f"knots at {times} s: those of a period begin at 0 and end at {self.period_s:g} s")

    def power_w(self, time_s: float) -> float:
        """Power at `time_s`, watts; of a jump, the later."""
        if not self.from_s <= time_s < self.to_s:
            return 0.0
        return _knots_power_w(self.knots, self._local(time_s)[1])

    def integral_j(self, time_s: float) -> float:
        """An antiderivative of the power, joules."""
        periods, local_s = self._local(min(max(time_s, self.from_s), self.to_s))
        whole_j = _knots_energy_j(self.knots, self.period_s or 0.0)
        return (periods * whole_j if periods else 0.0) + _knots_energy_j(self.knots, local_s)

    def shifted(self, by_s: float) -> Part:
        """The same, `by_s` later."""
        return replace(self, phase_s=self.phase_s + by_s, from_s=self.from_s + by_s, to_s=self.to_s + by_s)

    def _local(self, time_s: float) -> tuple[float, float]:
        """Whole periods and the time inside the period."""
        local_s = time_s - self.phase_s
        if self.period_s is None:
            return 0.0, local_s
        periods = math.floor(local_s / self.period_s)
        return periods, local_s - periods * self.period_s


@dataclass(frozen=True)
class Curve:
    """A true power over time: the sum of its parts. Curves add up with `+`."""

    parts: tuple[Part, ...]

    def power_w(self, time_s: float) -> float:
        """Power at `time_s`, watts."""
        return sum(part.power_w(time_s) for part in self.parts)

    def energy_j(self, start_s: float, end_s: float) -> float:
        """Energy from `start_s` to `end_s`, joules, exact but for rounding."""
        return sum(part.integral_j(end_s) - part.integral_j(start_s) for part in self.parts)

    def shifted(self, by_s: float) -> Curve:
        """The same, `by_s` later."""
        return Curve(tuple(part.shifted(by_s) for part in self.parts))

    def between(self, from_s: float, to_s: float) -> Curve:
        """The same inside [from_s, to_s), 0 W outside."""
        clipped = (replace(part, from_s=max(part.from_s, from_s), to_s=min(part.to_s, to_s)) for part in self.parts)
        return Curve(tuple(part for part in clipped if part.from_s < part.to_s))

    def __add__(self, other: Curve) -> Curve:
        return Curve(self.parts + other.parts)


def linear(knots: Sequence[Knot], period_s: float | None = None, phase_s: float = 0.0) -> Curve:
    """Straight lines between (seconds, watts), repeated every `period_s` if it is given."""
    return Curve((Part(tuple(knots), period_s, phase_s),))


def constant(power_w: float) -> Curve:
    """The same watts for ever."""
    return linear([(0.0, power_w)])


def step(at_s: float, before_w: float, after_w: float) -> Curve:
    """A jump at `at_s`."""
    return linear([(at_s, before_w), (at_s, after_w)])


def idle_load_idle(idle_w: float, load_w: float, start_s: float, end_s: float, ramp_s: float = 0.0) -> Curve:
    """Idle, a ramp of `ramp_s` from `start_s` on, load, idle again from `end_s` on."""
    return linear([(start_s, idle_w), (start_s + ramp_s, load_w), (end_s, load_w), (end_s, idle_w)])


def square(low_w: float, high_w: float, period_s: float, duty: float = 0.5, phase_s: float = 0.0) -> Curve:
    """High for the share `duty` of each period, which begins at `phase_s`; then low."""
    if not 0 < duty < 1:
        raise ValueError(f"duty={duty}: give a share above 0 and below 1")
    edge_s = duty * period_s
    return linear([(0.0, high_w), (edge_s, high_w), (edge_s, low_w), (period_s, low_w)], period_s, phase_s)


def sequence(pieces: Sequence[tuple[float, Curve]]) -> Curve:
    """Curves one after the other, each from its own time 0 for so many seconds; the first also fills the time before.

    Args:
        pieces: (duration in seconds, curve); the last goes on for ever.
    """
    parts: tuple[Part, ...] = ()
    start_s = 0.0
    for number, (duration_s, curve) in enumerate(pieces):
        from_s = start_s if number else -math.inf
        to_s = start_s + duration_s if number < len(pieces) - 1 else math.inf
        parts += curve.shifted(start_s).between(from_s, to_s).parts
        start_s += duration_s
    return Curve(parts)


def training(seed: int, idle_w: float, load_w: float, epochs: int = 3, epoch_s: float = 2.0) -> Curve:
    """As networks train: idle, then epochs of load that wavers, each followed by a dip for validation, then idle.

    Args:
        seed: of how it wavers; the same seed gives the same curve.
        idle_w: power before 0 and after the last epoch, watts.
        load_w: the highest power, watts.
        epochs: number of epochs.
        epoch_s: length of each with its dip, seconds.
    """
    chance = random.Random(seed)
    knots: list[Knot] = [(0.0, idle_w)]
    for epoch in range(epochs):
        begin_s, dip_s = epoch * epoch_s, (epoch + chance.uniform(0.75, 0.9)) * epoch_s
        for tenth in range(10):
            share = chance.uniform(0.8, 1.0)
            knots.append((begin_s + (dip_s - begin_s) * tenth / 10, idle_w + share * (load_w - idle_w)))
        low_w = idle_w + chance.uniform(0.2, 0.5) * (load_w - idle_w)
        knots += [(dip_s, knots[-1][1]), (dip_s, low_w), ((epoch + 1) * epoch_s, low_w)]
    return linear([*knots, (epochs * epoch_s, idle_w)])


def _knots_power_w(knots: Sequence[Knot], time_s: float) -> float:
    if time_s < knots[0][0]:
        return knots[0][1]
    for (a_s, a_w), (b_s, b_w) in pairwise(knots):
        if time_s < b_s:
            return a_w + (b_w - a_w) * (time_s - a_s) / (b_s - a_s)
    return knots[-1][1]


def _knots_energy_j(knots: Sequence[Knot], time_s: float) -> float:
    """Energy from the first knot to `time_s`; negative before it."""
    if time_s < knots[0][0]:
        return knots[0][1] * (time_s - knots[0][0])
    energy_j = 0.0
    for (a_s, a_w), (b_s, b_w) in pairwise(knots):
        if time_s < b_s:
            return energy_j + (a_w + _knots_power_w(knots, time_s)) / 2 * (time_s - a_s)
        energy_j += (a_w + b_w) / 2 * (b_s - a_s)
    return energy_j + knots[-1][1] * (time_s - knots[-1][0])
