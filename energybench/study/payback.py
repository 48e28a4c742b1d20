"""When what a setting takes before it trains, compiling and recording, is earned back by what it saves an image."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from energybench.console import duration
from energybench.study.intervals import CONFIDENCE, ratio_of
from energybench.study.quantities import BEFORE, Quantity, per, preparations
from energybench.study.rows import Row
from energybench.study.words import rounded, sized

CRITERIA = ("energy", "time")
"""What is earned back. Products of the two do not add up over phases."""


@dataclass(frozen=True)
class Payback:
    """Of a setting that prepares what another one does not, by the means of both.

    Attributes:
        phases: that it has and the other has not: ("compile",).
        unit: "J" or "s".
        more: that it takes more before it trains, warming up included.
        images: after how many images of training the two have taken the same; infinite where it saves nothing an image.
        time_s: how long it trains on them.
        sure: whether what the two take an image is told apart.
    """

    phases: tuple[str, ...]
    unit: str
    more: float
    images: float
    time_s: float
    sure: bool

    def to_json(self) -> dict[str, Any]:
        """Its numbers; `images` and `time_s` are null where it saves nothing an image."""
        return {key: None if value == math.inf else value for key, value in asdict(self).items()}

    def words(self, other: str) -> str:
        """'4.34 kJ more than batch=64 before it trains (compile), earned back after about 251,000 images ...'."""
        said = f"{sized(self.more, self.unit, 3)} more than {other} before it trains ({', '.join(self.phases)})"
        doubt = "" if self.sure else ", by means that are not told apart"
        if not math.isfinite(self.images):
            return f"{said}, and saves nothing an image{doubt}"
        trained = f"{rounded(max(self.images, 1))} images ({duration(self.time_s)} of training)"
        return f"{said}, earned back after about {trained}{doubt}"


def payback(row: Row, other: Row, criterion: str = "energy") -> Payback | None:
    """None where the setting has no phase of preparing that the other one lacks, or a number is not known.

    How long the same phase takes scatters by far more than settings differ: of that nothing is said. Neither is of
    other networks or data, nor of a run that prepared several times, as it was interrupted.

    Args:
        row: the setting that may prepare more.
        other: what it is compared with.
        criterion: energy | time.
    """
    metrics = per("image")
    phases = tuple(phase for phase in _phases(row) if phase not in _phases(other))
    if not phases or not _alternatives(row, other):
        return None
    more = _difference(row, other, BEFORE[criterion])
    saved = _difference(other, row, metrics[criterion])
    image = row.estimate(metrics["time"])
    if more is None or more <= 0 or saved is None or image is None:
        return None
    images = more / saved if saved > 0 else math.inf
    sure = _told_apart(row, other, metrics[criterion])
    return Payback(phases, BEFORE[criterion].unit, more, images, images * image.mean, sure)


def paid_back_last(row: Row, others: Iterable[Row], criterion: str = "energy") -> tuple[Row, Payback] | None:
    """The other one that takes less for the longest, as it prepares less; None where none does."""
    found = [(other, back) for other in others if (back := payback(row, other, criterion)) is not None]
    return max(found, key=lambda one: one[1].images, default=None)


def _phases(row: Row) -> tuple[str, ...]:
    return preparations(row.finished[0]) if row.finished else ()


def _alternatives(row: Row, other: Row) -> bool:
    """Whether an image of the one is one of the other, and both prepared once."""
    same = all(row.factors.get(key) == other.factors.get(key) for key in ("model.name", "dataset.name"))
    return same and not any(result.attempts for result in (*row.finished, *other.finished))


def _told_apart(row: Row, other: Row, metric: Quantity) -> bool:
    found = ratio_of(other.sample(metric), row.sample(metric))
    return found is not None and found.p is not None and found.p <= 1 - CONFIDENCE


def _difference(row: Row, other: Row, metric: Quantity) -> float | None:
    mine, theirs = row.estimate(metric), other.estimate(metric)
    return None if mine is None or theirs is None else mine.mean - theirs.mean
