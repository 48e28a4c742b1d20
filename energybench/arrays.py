"""Data sets that fit in memory, as arrays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from energybench.dataset import Batch, Split


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


def selections(samples: int, split: Split, batch: int, seed: int, epoch: int) -> Iterator[NDArray[np.int64]]:
    """The numbers (n,) of the samples in each batch of one pass: see `energybench.dataset.Dataset.batches`."""
    if split == "validation":
        yield from (np.arange(start, min(start + batch, samples)) for start in range(0, samples, batch))
        return
    order = epoch_order(samples, seed, epoch)
    yield from (order[start : start + batch] for start in range(0, samples - batch + 1, batch))


def epoch_order(samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of 0..samples-1, (samples,) int64, that depends on seed and epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(samples)
