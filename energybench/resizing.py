"""Images of one size brought to another, and of one channel to several."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from energybench.architecture import Shape
from energybench.errors import DataError

BLOCK_PIXELS = 2**17
"""Pixels worked on at a time: their floats stay in the processor's cache."""

METHOD = "bilinear 1"
"""Part of what cached images are found by: changes when `resize` comes to give other bytes."""


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
    require_channels(name, images.shape[1], channels)
    if images.shape[2:] != (height, width):
        from scipy.ndimage import zoom

        factors = (1, 1, height / images.shape[2], width / images.shape[3])
        images = zoom(images, factors, order=1, mode="nearest", grid_mode=True)
    return np.ascontiguousarray(np.broadcast_to(images, (len(images), channels, height, width)), dtype=np.float32)


def resize(images: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Bilinear, as `fit_images` does it, rounded: (N, C, H, W) uint8 -> (N, C, height, width) uint8."""
    count, channels, old_height, old_width = images.shape
    down, across = _weights(old_height, height), _weights(old_width, width)
    resized = np.empty((count, channels, height, width), np.uint8)
    step = max(BLOCK_PIXELS // (channels * height * width), 1)
    for start in range(0, count, step):
        block = np.matmul(down, images[start : start + step].astype(np.float32))
        block = (block.reshape(-1, old_width) @ across.T).reshape(-1, channels, height, width)
        block += 0.5
        resized[start : start + step] = block
    return resized


@functools.cache
def _weights(old: int, new: int) -> NDArray[np.float32]:
    """(new, old): how much each old pixel of a line counts in each new one.

    Resizing is linear and the axes are independent, so what scipy makes of each single pixel says it all, and two
    products of matrices do a hundred times faster what `zoom` does pixel by pixel.
    """
    from scipy.ndimage import zoom

    weights = zoom(np.eye(old), (new / old, 1), order=1, mode="nearest", grid_mode=True)
    return np.ascontiguousarray(weights, np.float32)


def require_channels(name: str, channels: int, wanted: int) -> None:
    """Raises DataError where a data set's images have neither one channel nor as many as a network takes."""
    if channels not in (1, wanted):
        raise DataError(
            f"dataset {name!r} has {channels} channels and the network takes {wanted}; choose another dataset"
        )
