"""Handwritten digits, 8x8 pixels, inside scikit-learn: real data without a download.

1,797 samples of the UCI set "Optical Recognition of Handwritten Digits" (its test part, 43 writers), as
`sklearn.datasets.load_digits` brings them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from energybench.architecture import Shape
from energybench.availability import Availability
from energybench.dataset import Dataset, DatasetInfo, Split
from energybench.errors import ConfigError
from energybench.hookspecs import Register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
        train_images: the first so many of the others to train on; None: all.
    """

    validation_images: int = 360
    train_images: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.validation_images < SAMPLES:
            raise ConfigError(
                f"dataset.validation_images={self.validation_images}: give a number from 0 to {SAMPLES - 1}"
            )
        rest = SAMPLES - self.validation_images
        if self.train_images is not None and not 1 <= self.train_images <= rest:
            raise ConfigError(f"dataset.train_images={self.train_images}: give a number from 1 to {rest}, or null")


class Digits:
    """See `energybench.dataset.DatasetPlugin`."""

    def __init__(self, options: DigitsOptions) -> None:
        self._held_out = options.validation_images
        rest = SAMPLES - self._held_out
        self._trained = rest if options.train_images is None else options.train_images

    def check(self) -> Availability:
        """scikit-learn carries them."""
        if find_spec("sklearn") is None:
            return Availability(False, "scikit-learn is not installed", "pip install scikit-learn")
        return Availability(True, f"{SAMPLES:,} images of 8x8 pixels, inside scikit-learn")

    def info(self) -> DatasetInfo:
        """See DatasetPlugin."""
        return DatasetInfo(CLASSES, True, self._trained, self._held_out)

    def open(self, input_shape: Shape, seed: int) -> Dataset:
        """Samples scaled to 0...1 and brought to `input_shape`."""
        import numpy as np
        from sklearn.datasets import load_digits

        from energybench.arrays import ArrayDataset
        from energybench.resizing import fit_images

        digits = load_digits()
        images = (digits.images[:, None] / BRIGHTEST).astype(np.float32)
        labels = digits.target.astype(np.int64)
        order = np.random.default_rng(SPLIT_SEED).permutation(SAMPLES)
        train, held_out = order[self._held_out :][: self._trained], order[: self._held_out]
        splits: dict[Split, NDArray[np.int64]] = {"train": train, "validation": held_out}
        fitted = {split: fit_images(images[chosen], input_shape, "digits") for split, chosen in splits.items()}
        return ArrayDataset({split: (fitted[split], labels[chosen]) for split, chosen in splits.items()}, seed)


def energybench_register_datasets(register: Register) -> None:
    """Registers `digits`."""
    register("digits", Digits, DigitsOptions)
