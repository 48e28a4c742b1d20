"""Data sets that fit in memory, as arrays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from energybench.architecture import Shape
from energybench.dataset import Batch, Split
from energybench.errors import DataError


class ArrayDataset:
    """A data set held as arrays.

    Args:
        splits: split name -> (images (N, C, H, W) float32, labels (N,) int64).
        seed: fixes the order of training samples together with the epoch.
    """

    def __init__(self, splits: dict[Split, tuple[NDArray[np.float32], NDArray[np.int64]]], seed: int) -> None:
        self._splits = splits
        self._seed = seed

    def batches(self, split: Split, batch: int, epoch: int) -> Iterator[Batch]:
        """See `energybench.dataset.Dataset.batches`."""
        images, labels = self._splits[split]
        for chosen in selections(len(images), split, batch, self._seed, epoch):
            yield Batch(images[chosen], labels[chosen])


def selections(samples: int, split: Split, batch: int, seed: int, epoch: int) -> Iterator[slice | NDArray[np.int64]]:
    """What each batch of one pass takes, as an index: see `energybench.dataset.Dataset.batches`."""
    if split == "validation":
        yield from (slice(start, start + batch) for start in range(0, samples, batch))
        return
    order = epoch_order(samples, seed, epoch)
    yield from (order[start : start + batch] for start in range(0, samples - batch + 1, batch))


def epoch_order(samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of 0..samples-1, (samples,) int64, that depends on seed and epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(samples)


def fit_images(images: NDArray[np.float32], shape: Shape, name: str) -> NDArray[np.float32]:
    """Brings images to a network's input: bilinear resize, and one channel repeated to as many as are wanted.

    Args:
        images: (N, C, H, W) float32.
        shape: (C, H, W) wanted.
        name: of the data set, for the message.

    Returns:
        (N, C', H', W') float32, C-contiguous.

    Raises:
        DataError: the channels cannot be matched.
    """
    channels, height, width = shape
    if images.shape[1] not in (1, channels):
        raise DataError(
            f"dataset {name!r} has {images.shape[1]} channels and the network takes {channels}; choose another dataset"
        )
    if images.shape[2:] != (height, width):
        from scipy.ndimage import zoom

        factors = (1, 1, height / images.shape[2], width / images.shape[3])
        images = zoom(images, factors, order=1, mode="nearest", grid_mode=True)
    return np.ascontiguousarray(np.broadcast_to(images, (len(images), channels, height, width)), dtype=np.float32)
