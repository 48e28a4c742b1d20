"""A load whose rhythm is faster than a sensor's updates: what its alias tells of it. Pure arithmetic.

Power that swings f times an update, f near a whole number, is told as if it swung |f - 1| (|f - 2|, ...) times. The
readings are then those of a slow, small swing, and nothing in them tells the one from the other: only that the fast one
must be much larger to be seen as large, and that no power is below 0 W.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import median_filter

from energybench.power.series import Floats

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Seen:
    """How a sensor sees a swing.

    Attributes:
        share: of swings of so many turns an update, how much of their amplitude it shows.
        lengths: so many updates are looked at together; the next so many begin half-way. In more of them a slower alias
            is found, and of a slow one the sensor must show so little that hardly anything slow is taken for one.
    """

    share: Callable[[Floats], Floats]
    lengths: tuple[int, ...]


SHORTEST = 24
"""Fewer than so many updates tell no rhythm."""

SLOWEST = 3
"""Turns within a stretch that is looked at; what is slower is the course of a training."""

PROMINENT = 40.0
"""A rhythm stands out of what is around it in the spectrum: so many times the median of `BESIDE` neighbours. Noise does
so in one stretch of fifteen."""

BESIDE = 17

DEEPEST = 1.3
"""A swing has at most so many times the mean power as its amplitude: 4 / pi, if it is a square down to 0 W for half of
the time. One that would need more is below 0 W, so it is not there, and what is seen is what it seems."""

AS_JUMP = 1.56
"""A swing of amplitude A and period T puts the energy between two instants off by 0.163 x A x T, root mean square,
whether it is a square of any duty or a sine; a jump by D at an unknown instant of a stretch of length L by
D x L x x(1 - x) / sqrt(3), which over all x is 0.105 x D x L."""

HALF_TURN = 0.1
"""An alias of amplitude a and period P shows up to a x P / pi that is not there, in half a turn: the variances of all
the updates in it, each this x a^2 x P in updates, add up to the mean square of that."""

ROWS = 2**12
"""Stretches that are transformed at a time."""


MEANS = Seen(lambda turns: np.abs(np.sinc(turns)), (96, 256))
"""Means over the time between two updates: of a swing that is nearly in step with them they show nearly nothing."""


def low_pass(decay: float) -> Seen:
    """A low-pass undone, whose reading falls by exp(-decay) between two updates: what is in step with it shows, too."""

    def share(turns: Floats) -> Floats:
        turned = decay + 2j * np.pi * turns
        return np.asarray(np.abs((np.exp(turned) - 1) / turned) * (decay / np.expm1(decay)))

    return Seen(share, (96,))


@dataclass(frozen=True)
class Hidden:
    """What a rhythm that is faster than the updates may hide.

    Attributes:
        course_w: (n,) the jump at an unknown instant that hides as much energy as the swing may; 0 where the readings
            show no rhythm, or none that may be the alias of a faster one.
        sampling_w2: (n,) variance of each stretch's power, if what is told of the swing is not there at all, and times
            the square of the stretch's length adds up to the right energy in half a turn of the alias.
    """

    course_w: Floats
    sampling_w2: Floats


def hidden(power_w: Floats, touching: Bools, seen: Seen = MEANS) -> Hidden:
    """What a rhythm that is faster than the updates may hide, where the readings show what may be its alias.

    Args:
        power_w: (n,) what is told of each stretch between two updates.
        touching: (n - 1,) whether each stretch is followed by the next.
        seen: how the sensor sees a swing.
    """
    found = Hidden(np.zeros(len(power_w)), np.zeros(len(power_w)))
    for length in sorted({min(length, len(power_w)) for length in seen.lengths}):
        if length >= SHORTEST:
            _look(power_w, touching, seen, length, found)
    return found


def _look(power_w: Floats, touching: Bools, seen: Seen, length: int, found: Hidden) -> None:
    """Raises `found` by what stretches of this length tell."""
    half = length // 2
    starts = np.arange(0, len(power_w) - length + 1, half)
    stretches = sliding_window_view(power_w, length)
    parts = [_swings(stretches[starts[i : i + ROWS]], seen) for i in range(0, len(starts), ROWS)]
    apart = np.concatenate(([0], np.cumsum(~touching)))
    broken = apart[starts + length - 1] != apart[starts]
    for column, of_each in zip(zip(*parts, strict=True), (found.course_w, found.sampling_w2), strict=True):
        values = np.where(broken, 0.0, np.concatenate(column))
        np.maximum(of_each, _of_each(values, half, len(power_w)), out=of_each)


def _of_each(column: Floats, half: int, count: int) -> Floats:
    """Of each update the larger of the two stretches that it lies in; the last stretch goes on to the end."""
    larger = np.maximum(np.append(column, column[-1]), np.insert(column, 0, column[0]))
    return np.pad(np.repeat(larger, half), (0, count - len(larger) * half), mode="edge")


def _swings(power_w: Floats, seen: Seen) -> tuple[Floats, Floats]:
    """Of each stretch (m, length) the strongest rhythm, as `Hidden` has it.

    A Hann window keeps the slow course of the power out of the other frequencies; three bins hold what it spreads.
    """
    length = power_w.shape[1]
    window = np.hanning(length + 1)[:-1]
    place = np.arange(length) - (length - 1) / 2
    mean_w = power_w.mean(axis=1)
    level_w = power_w - mean_w[:, None]
    level_w -= (level_w @ place / (place @ place))[:, None] * place
    spectrum = np.abs(np.fft.rfft(level_w * window, axis=1)) ** 2
    line = spectrum.copy()
    line[:, 1:-1] += spectrum[:, 2:] + spectrum[:, :-2]
    line[spectrum <= PROMINENT * median_filter(spectrum, size=(1, BESIDE), mode="nearest")] = 0.0
    line[:, :SLOWEST] = 0.0
    strongest = np.maximum(line.argmax(axis=1), SLOWEST)
    turns = strongest / length
    told_w = 2 * np.sqrt(line[np.arange(len(line)), strongest] / (length * (window @ window)))
    swing_w = told_w / np.maximum(seen.share(1 - turns), 1e-9)
    may_be = swing_w <= DEEPEST * mean_w
    course_w = np.where(may_be, AS_JUMP * swing_w / (1 - turns), 0.0)
    return course_w, np.where(may_be, HALF_TURN * told_w**2 / turns, 0.0)
