"""Made-up people: how long their limbs are, how they move them, and what a day, a bag or shoes change of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VARIATIONS = {"n": "normal", "b": "backpack", "s": "shoes"}
"""As TUM-GAID calls its sequences."""


@dataclass(frozen=True)
class Body:
    """A person, or a person on one walk. Lengths are in metres, angles in degrees, times in shares of a stride.

    The means of the lengths are the shares of the height that Winter gives (Biomechanics and Motor Control of Human
    Movement, 4th ed., 2009, fig. 4.1); the angles follow the shape of his curves of normal gait.
    """

    thigh: float
    shank: float
    foot: float
    trunk: float
    head: float
    upper_arm: float
    forearm: float
    thigh_girth: float
    shank_girth: float
    trunk_girth: float
    arm_girth: float
    cadence: float  # steps a second
    hip_swing: float
    hip_mean: float
    hip_second: float  # of the second harmonic
    knee_stance: float
    knee_swing: float
    knee_time: float  # of the swing's peak
    ankle: float  # share of the usual movement
    arm_swing: float
    arm_mean: float
    elbow_mean: float
    elbow_swing: float
    lean: float
    nod: float
    sway: float  # of the shoulders, metres
    limp: float  # of one leg behind the half stride
    foot_height: float = 0.06
    bag: float = 0.0  # depth of the backpack, metres


MEANS = {
    **{"thigh": 0.245, "shank": 0.246, "foot": 0.152, "trunk": 0.288, "head": 0.13},  # shares of the height
    **{"upper_arm": 0.186, "forearm": 0.19, "thigh_girth": 0.088, "shank_girth": 0.06},
    **{"trunk_girth": 0.13, "arm_girth": 0.045},
    **{"cadence": 1.85, "hip_swing": 20.0, "hip_mean": 9.0, "hip_second": 2.5, "knee_stance": 12.0, "knee_swing": 55.0},
    **{"knee_time": 0.72, "ankle": 1.0, "arm_swing": 20.0, "arm_mean": -4.0, "elbow_mean": 32.0, "elbow_swing": 14.0},
    **{"lean": 4.0, "nod": 6.0, "sway": 0.03, "limp": 0.0},
}

BETWEEN = {
    **{"thigh": 0.05, "shank": 0.05, "foot": 0.035, "trunk": 0.055, "head": 0.035},
    **{"upper_arm": 0.04, "forearm": 0.04, "thigh_girth": 0.045, "shank_girth": 0.03},
    **{"trunk_girth": 0.075, "arm_girth": 0.024},
    **{"cadence": 0.33, "hip_swing": 5.0, "hip_mean": 8.0, "hip_second": 2.0, "knee_stance": 6.0, "knee_swing": 25.0},
    **{"knee_time": 0.06, "ankle": 0.9, "arm_swing": 16.0, "arm_mean": 18.0, "elbow_mean": 30.0, "elbow_swing": 14.0},
    **{"lean": 11.0, "nod": 22.0, "sway": 0.05, "limp": 0.06},
}
"""How far people are from the mean at most, any distance as likely: they differ more than pedestrians do, so that few
walks are enough to learn from."""

WITHIN = 0.045
"""Standard deviation of one person from walk to walk, as a share of that distance, at difficulty 1."""

HEIGHT_M, HEIGHT_STD_M = 1.72, 0.1
LENGTHS = tuple(list(MEANS)[:11])
"""Those that grow with the height."""

MOVEMENTS = tuple(list(MEANS)[11:])
"""Those that differ from walk to walk."""


def person(random: np.random.Generator) -> Body:
    """Somebody new."""
    height = HEIGHT_M + HEIGHT_STD_M * _normal(random)
    drawn = {name: mean + BETWEEN[name] * random.uniform(-1, 1) for name, mean in MEANS.items()}
    return Body(**{name: value * height if name in LENGTHS else value for name, value in drawn.items()})


def on_a_walk(body: Body, variation: str, difficulty: float, random: np.random.Generator) -> Body:
    """The same person on one walk: never quite the same, and changed by what is carried or worn."""
    changed = {name: getattr(body, name) + difficulty * WITHIN * BETWEEN[name] * _normal(random) for name in MOVEMENTS}
    changed["thigh_girth"] = body.thigh_girth * (1 + 0.04 * difficulty * _normal(random))  # clothes
    walker = replace(body, **changed)
    if variation == "b":
        return replace(
            walker,
            bag=0.2 + 0.03 * _normal(random),
            lean=walker.lean + 3.0 + _normal(random),
            arm_swing=0.75 * walker.arm_swing,
            hip_mean=walker.hip_mean + 2.0,
        )
    if variation == "s":
        return replace(
            walker,
            foot=1.15 * walker.foot,
            foot_height=0.09,
            cadence=0.95 * walker.cadence,
            hip_swing=0.95 * walker.hip_swing,
            knee_swing=walker.knee_swing + 6.0,
            ankle=0.7 * walker.ankle,
        )
    return walker


def _normal(random: np.random.Generator) -> float:
    """Normally distributed, but never a giant: cut at two and a half."""
    return float(min(max(random.normal(), -2.5), 2.5))


@dataclass(frozen=True)
class Pose:
    """A walker at T times, seen from the side, walking to the right: x forward and y up in metres, angles in radians.

    Attributes:
        hip: (T, 2) between the legs; its x is the way walked.
        thigh, shank, foot: (2, T) angles of both legs from straight down, forward positive; of feet from the ground.
        upper_arm, forearm: (2, T) likewise.
        trunk: (T,) from straight up, forward positive.
        head: (T,) likewise.
        shoulder: (2, T) metres by which each shoulder is before the middle.
    """

    hip: NDArray[np.float64]
    thigh: NDArray[np.float64]
    shank: NDArray[np.float64]
    foot: NDArray[np.float64]
    upper_arm: NDArray[np.float64]
    forearm: NDArray[np.float64]
    trunk: NDArray[np.float64]
    head: NDArray[np.float64]
    shoulder: NDArray[np.float64]


def poses(body: Body, time_s: NDArray[np.float64], phase: float) -> Pose:
    """How somebody moves.

    Args:
        body: who.
        time_s: (T,) seconds, evenly spaced.
        phase: of the near leg at time 0, in strides.
    """
    import numpy as np

    near = phase + time_s * body.cadence / 2
    strides = np.stack([near, near + 0.5 + body.limp])
    thigh, knee, ankle = _legs(body, strides)
    shank = thigh - knee
    swing = np.sin(2 * np.pi * (strides + 0.5) + np.pi / 2)  # an arm goes with the other leg
    upper_arm = np.radians(body.arm_mean) + np.radians(body.arm_swing) * swing
    forearm = upper_arm + np.radians(body.elbow_mean) + np.radians(body.elbow_swing) * np.maximum(swing, -0.3)
    trunk = np.radians(body.lean + 1.2 * np.sin(4 * np.pi * near))
    reach = body.thigh * np.cos(thigh) + body.shank * np.cos(shank)
    height = reach.max(axis=0) + body.foot_height
    hip = np.stack([_speed(body) * time_s, height], axis=1)
    head = trunk + np.radians(body.nod) + 0.03 * np.sin(4 * np.pi * near + 1)
    return Pose(hip, thigh, shank, shank + ankle, upper_arm, forearm, trunk, head, body.sway * swing)


def _legs(body: Body, strides: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Angles of thigh, knee and ankle in radians at some strides; a stride begins when the heel touches the ground."""
    import numpy as np

    turn = 2 * np.pi * strides
    thigh = body.hip_mean + body.hip_swing * np.cos(turn) - body.hip_second * np.cos(2 * turn)
    knee = 5 + body.knee_stance * _bump(strides, 0.15, 0.07) + body.knee_swing * _bump(strides, body.knee_time, 0.095)
    usual = -5 * _bump(strides, 0.07, 0.04) + 10 * _bump(strides, 0.42, 0.1) - 18 * _bump(strides, 0.63, 0.05)
    return np.radians(thigh), np.radians(knee), np.radians(body.ankle * usual)


def _bump(strides: NDArray[np.float64], where: float, width: float) -> NDArray[np.float64]:
    """A bell once a stride."""
    import numpy as np

    away = (strides - where + 0.5) % 1 - 0.5
    bell: NDArray[np.float64] = np.exp(-0.5 * (away / width) ** 2)
    return bell


def _speed(body: Body) -> float:
    """Metres a second with which the standing foot slides least: as fast as it goes back under the hip."""
    import numpy as np

    standing = np.linspace(0.08, 0.52, 45)
    thigh, knee, _ = _legs(body, standing)
    ahead = body.thigh * np.sin(thigh) + body.shank * np.sin(thigh - knee)
    return float(-np.polyfit(standing, ahead, 1)[0] * body.cadence / 2)
