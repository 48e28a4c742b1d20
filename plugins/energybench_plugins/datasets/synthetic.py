"""Random images and labels, for measuring speed and energy where no data are at hand. No accuracy comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from energybench.architecture import Shape
from energybench.availability import Availability
from energybench.dataset import Batch, Dataset, DatasetInfo, Split
from energybench.errors import ConfigError
from energybench.hookspecs import Register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

POOL_BYTES = 256 * 1024**2
"""Most memory the distinct images take; an epoch repeats them as often as it needs."""


@dataclass(frozen=True)
class SyntheticOptions:
    """Options of `dataset=synthetic`.

    Attributes:
        classes: number of classes.
        images: images an epoch.
        validation_images: images a validation pass.
    """

    classes: int = 1000
    images: int = 1280
    validation_images: int = 0

    def __post_init__(self) -> None:
        for key, least in (("classes", 2), ("images", 1), ("validation_images", 0)):
            if getattr(self, key) < least:
                raise ConfigError(f"dataset.{key}={getattr(self, key)}: give a whole number from {least}")


class Synthetic:
    """See `energybench.dataset.DatasetPlugin`."""

    def __init__(self, options: SyntheticOptions) -> None:
        self._options = options

    def check(self) -> Availability:
        """Always there."""
        return Availability(True, "random images in memory; accuracy means nothing on them")

    def info(self) -> DatasetInfo:
        """See DatasetPlugin."""
        options = self._options
        return DatasetInfo(options.classes, False, options.images, options.validation_images)

    def open(self, input_shape: Shape, seed: int) -> Dataset:
        """Standard normal pixels of `input_shape`, uniform labels, both by `seed`."""
        return SyntheticDataset(self._options, input_shape, seed)


class SyntheticDataset:
    """A pool of random samples, walked through again and again in whole batches, which engines may keep."""

    def __init__(self, options: SyntheticOptions, shape: Shape, seed: int) -> None:
        import numpy as np

        self._images: dict[Split, int] = {"train": options.images, "validation": options.validation_images}
        pool = max(min(max(self._images.values()), POOL_BYTES // (4 * int(np.prod(shape)))), 1)
        random = np.random.default_rng(seed)
        self._pool: NDArray[np.float32] = random.standard_normal((pool, *shape), dtype=np.float32)
        self._labels: NDArray[np.int64] = random.integers(0, options.classes, pool)
        self._longer: dict[int, Batch] = {}

    def batches(self, split: Split, batch: int, epoch: int) -> Iterator[Batch]:
        """See `energybench.dataset.Dataset.batches`; the order is that of the pool, going round."""
        count = self._images[split]
        end = count if split == "validation" else count - batch + 1
        for number, start in enumerate(range(0, end, batch)):
            yield self._take(number, batch, min(batch, count - start))

    def _take(self, number: int, batch: int, size: int) -> Batch:
        """The first `size` of batch `number`: of those that the pool has room for, going round."""
        if batch > len(self._pool):
            return self._long(size)
        first = number % (len(self._pool) // batch) * batch
        return Batch(self._pool[first : first + size], self._labels[first : first + size], key=first)

    def _long(self, size: int) -> Batch:
        """A batch longer than the pool: made once, as others would be waited for at each step."""
        import numpy as np

        if size not in self._longer:
            chosen = np.arange(size) % len(self._pool)
            self._longer[size] = Batch(self._pool[chosen], self._labels[chosen], key=0)
        return self._longer[size]


def energybench_register_datasets(register: Register) -> None:
    """Registers `synthetic`."""
    register("synthetic", Synthetic, SyntheticOptions)
