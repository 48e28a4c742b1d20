"""How probable it is that a setting is the best, from its repeats and those of the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from energybench.study.intervals import Sample
from energybench.study.quantities import Quantity
from energybench.study.rows import Row

if TYPE_CHECKING:
    import numpy as np

DRAWS = 4000
SEED = 20180808
"""Of the generator, so that the same results give the same answer."""


def shares_of_best(table: Sequence[Row], metric: Quantity) -> dict[str, float]:
    """Label -> share of redraws in which the row's mean is the least; empty where any row was run but once.

    A mean is redrawn from its mean and standard error with Student's t, which is what is known of it after its repeats
    where nothing was known before (Box & Tiao, Bayesian Inference in Statistical Analysis, 2.4). What the meter adds is
    its least scatter, and what it hides at the edges of phases is drawn too; the gain of each set of boards is drawn
    once for all rows on it.
    """
    samples = [(row.label, sample) for row in table if (sample := row.sample(metric)) is not None]
    if not samples or any(len(sample.values) < 2 for _, sample in samples):
        return {}
    import numpy as np

    generator = np.random.default_rng(SEED)
    gains: dict[Any, np.ndarray[Any, Any]] = {}
    best = np.full(DRAWS, np.inf)
    winner = np.full(DRAWS, -1)
    for index, (_, sample) in enumerate(samples):
        key = sample.boards or index  # boards that are not known are no others' boards
        if key not in gains:
            gains[key] = generator.standard_normal(DRAWS)
        drawn = _redraw(sample, gains[key], generator)
        better = drawn < best
        best[better], winner[better] = drawn[better], index
    counts = np.bincount(winner, minlength=len(samples))
    return {label: float(count) / DRAWS for (label, _), count in zip(samples, counts, strict=True)}


def _redraw(sample: Sample, gain: np.ndarray[Any, Any], generator: np.random.Generator) -> np.ndarray[Any, Any]:
    import numpy as np

    error = math.sqrt(max(sample.scatter or 0.0, sample.meter))
    drawn: np.ndarray[Any, Any] = np.asarray(
        sample.mean + error * generator.standard_t(len(sample.values) - 1, DRAWS) + sample.common_u * gain
    )
    return drawn + sample.edges_u * generator.standard_normal(DRAWS) if sample.edges_u else drawn
