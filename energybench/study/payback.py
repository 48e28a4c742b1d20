"""When what a setting takes before it trains, compiling and recording, is earned back by what it saves an image."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from energybench.console import duration
from energybench.study.quantities import BEFORE, PREPARATION, Quantity, per, preparations
from energybench.study.rows import Row
from energybench.study.words import rounded, sized

CRITERIA = ("energy", "time")
"""What is earned back. Products of the two do not add up over phases."""


@dataclass(frozen=True)
class Payback:
    """Of a setting that prepares more than another one, by the means of both.

    Attributes:
        phases: in which it prepares: ("compile", "capture").
        unit: "J" or "s".
        more: that it takes more before it trains, warming up included.
        images: after how many images of training the two have taken the same; infinite where it saves nothing an image.
        time_s: how long it trains on them.
    """

    phases: tuple[str, ...]
    unit: str
    more: float
    images: float
    time_s: float

    def to_json(self) -> dict[str, Any]:
        """Its numbers; `images` and `time_s` are null where it saves nothing an image."""
        return {key: None if value == math.inf else value for key, value in asdict(self).items()}

    def words(self, other: str) -> str:
        """'4.34 kJ more than batch=64 before it trains (compile), earned back after about 251,000 images ...'."""
        said = f"{sized(self.more, self.unit, 3)} more than {other} before it trains ({', '.join(self.phases)})"
        if not math.isfinite(self.images):
            return f"{said}, and saves nothing an image"
        return f"{said}, earned back after about {rounded(self.images)} images ({duration(self.time_s)} of training)"


def payback(row: Row, other: Row, criterion: str = "energy") -> Payback | None:
    """None where the setting prepares no more than the other one, or where one of the numbers is not known.

    Args:
        row: the setting that may prepare more.
        other: what it is compared with.
        criterion: energy | time.
    """
    metrics = per("image")
    preparing = _difference(row, other, PREPARATION[criterion])
    more = _difference(row, other, BEFORE[criterion])
    saved = _difference(other, row, metrics[criterion])
    image = row.estimate(metrics["time"])
    if preparing is None or preparing <= 0 or more is None or more <= 0 or saved is None or image is None:
        return None
    images = more / saved if saved > 0 else math.inf
    return Payback(preparations(row.finished[0]), BEFORE[criterion].unit, more, images, images * image.mean)


def paid_back_last(row: Row, others: Iterable[Row], criterion: str = "energy") -> tuple[Row, Payback] | None:
    """The other one that takes less for the longest, as it prepares less; None where none does."""
    found = [(other, back) for other in others if (back := payback(row, other, criterion)) is not None]
    return max(found, key=lambda one: one[1].images, default=None)


def _difference(row: Row, other: Row, metric: Quantity) -> float | None:
    mine, theirs = row.estimate(metric), other.estimate(metric)
    return None if mine is None or theirs is None else mine.mean - theirs.mean
