"""Handwritten digits, 8x8 pixels, inside scikit-learn: real data without a download.

1,797 samples of the UCI set "Optical Recognition of Handwritten Digits" (its test part, 43 writers), as
`sklearn.datasets.load_digits` brings them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from energybench.architecture import Shape
from energybench.availability import Availability
from energybench.dataset import Dataset, DatasetInfo
from energybench.errors import ConfigError
from energybench.hookspecs import Register

SAMPLES = 1797
CLASSES = 10
BRIGHTEST = 16
"""Pixels are counts from 0 to 16."""

SPLIT_SEED = 0
"""The split is the same whatever the run's seed, so that accuracies can be compared."""


@dataclass(frozen=True)
class DigitsOptions:
    """Options of `dataset=digits`.

    Attributes:
        validation_images: samples held out for validation.
    """

    validation_images: int = 360

    def __post_init__(self) -> None:
        if not 0 <= self.validation_images < SAMPLES:
            raise ConfigError(
                f"dataset.validation_images={self.validation_images}: give a number from 0 to {SAMPLES - 1}"
            )


class Digits:
    """See `energybench.dataset.DatasetPlugin`."""

    def __init__(self, options: DigitsOptions) -> None:
        self._held_out = options.validation_images

    def check(self) -> Availability:
        """scikit-learn carries them."""
        if find_spec("sklearn") is None:
            return Availability(False, "scikit-learn is not installed", "pip install scikit-learn")
        return Availability(True, f"{SAMPLES:,} images of 8x8 pixels, inside scikit-learn")

    def info(self) -> DatasetInfo:
        """See DatasetPlugin."""
        return DatasetInfo(CLASSES, True, SAMPLES - self._held_out, self._held_out)

    def open(self, input_shape: Shape, seed: int) -> Dataset:
        """Samples scaled to 0...1 and brought to `input_shape`."""
        import numpy as np
        from sklearn.datasets import load_digits

        from energybench.arrays import ArrayDataset, fit_images

        digits = load_digits()
        images = fit_images((digits.images[:, None] / BRIGHTEST).astype(np.float32), input_shape, "digits")
        labels = digits.target.astype(np.int64)
        order = np.random.default_rng(SPLIT_SEED).permutation(SAMPLES)
        train, held_out = order[self._held_out :], order[: self._held_out]
        return ArrayDataset(
            {"train": (images[train], labels[train]), "validation": (images[held_out], labels[held_out])}, seed
        )


def energybench_register_datasets(register: Register) -> None:
    """Registers `digits`."""
    register("digits", Digits, DigitsOptions)
