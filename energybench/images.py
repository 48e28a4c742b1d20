"""Data sets of images that fit in memory as bytes, and as floats at a network's size do not."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from energybench.architecture import Shape
from energybench.arrays import selections
from energybench.dataset import Batch, Consumer, Split
from energybench.errors import DataError
from energybench.image_cache import ResizedImages
from energybench.resizing import require_channels, resize

FLOAT_BYTES = 512 * 1024**2
"""Images that came in the shape wanted are held as float32 up to so many bytes, which spares converting each batch."""


@dataclass(frozen=True)
class Normalisation:
    """How bytes become floats: (value / 255 - mean) / std.

    Attributes:
        mean: of each channel, on a scale from 0 to 1.
        std: of each channel, on the same scale.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, images: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        """Normalises images (N, C, H, W) into `out` of the same shape."""
        scale, shift = self.affine()
        np.multiply(images, scale, out=out)
        out += shift

    def affine(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scale and shift, each (C, 1, 1) float32, by which a byte becomes byte * scale + shift."""
        std = np.array(self.std)[:, None, None]
        return (1 / (255 * std)).astype(np.float32), (-np.array(self.mean)[:, None, None] / std).astype(np.float32)


def _fill(given: Mapping[str, Any]) -> None:
    """Sets a frozen batch's attributes: what its constructor was given, the batch itself as `self`."""
    for name, value in given.items():
        if name != "self":
            object.__setattr__(given["self"], name, value)


def _repeated(images: NDArray[np.float32], channels: int | None) -> NDArray[np.float32]:
    """Images (N, C, H, W) with their one channel repeated, C-contiguous; with None, or none to repeat, themselves."""
    count, found, *size = images.shape
    return np.ascontiguousarray(np.broadcast_to(images, (count, channels or found, *size)))


def require_input_channels(found: int, wanted: int) -> None:
    """What an engine asks of a batch once its one channel has been repeated to `channels`.

    Raises:
        DataError: the images have other channels than the network takes.
    """
    if found != wanted:
        raise DataError(
            f"the images of a batch have {found} and the network takes {wanted} channels; the data set must give "
            f"as many, or one channel and channels={wanted} to PixelBatch or HeldBatch"
        )


class PixelBatch(Batch):
    """A batch of bytes: a quarter of what floats are on their way to a device that normalises them.

    An engine that knows of it takes `pixels`, `normalisation` and `channels`, to which it repeats the one channel; any
    other takes `images`, which are made when they are asked for.

    Args:
        pixels: (N, C, H, W) uint8, in any order of memory: decoders give (N, H, W, C).
        labels, key, whole: see Batch.
        normalisation: by which they become floats.
        channels: as many as the one of `pixels` becomes once it is normalised; None: they have what is wanted.
    """

    pixels: NDArray[np.uint8]
    normalisation: Normalisation
    channels: int | None = None

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64],
        normalisation: Normalisation,
        key: Hashable | None = None,
        whole: int | None = None,
        channels: int | None = None,
    ) -> None:
        _fill(locals())

    @functools.cached_property
    def images(self) -> NDArray[np.float32]:
        """(N, channels, H, W) float32, C-contiguous."""
        floats = np.empty(self.pixels.shape, np.float32)
        self.normalisation.apply(self.pixels, floats)
        return _repeated(floats, self.channels)


@dataclass(frozen=True)
class View:
    """What is to be seen of some images.

    Attributes:
        boxes: (N, 4) int64: top, left, height and width in pixels of the image.
        flips: (N,) bool: whether it is mirrored.
        size: height and width to which the box is brought, bilinearly.
    """

    boxes: NDArray[np.int64]
    flips: NDArray[np.bool_]
    size: tuple[int, int]

    def affine(self, height: int, width: int) -> NDArray[np.float32]:
        """(N, 2, 3) float32: from places in the view to places in images of one size, x before y.

        Both are counted from -1 to 1 between the centres of the outermost pixels, as spatial transformers do
        (Jaderberg et al. 2015, equation 1; `align_corners` of PyTorch). Views are cut where they would reach out of the
        image by part of a pixel.
        """
        top, left, tall, wide = self.boxes.T.astype(np.float64)
        rows = np.zeros((len(self.boxes), 2, 3), np.float32)
        axes = ((left, wide, width, self.size[1]), (top, tall, height, self.size[0]))
        for axis, (first, extent, length, wanted) in enumerate(axes):
            middle = first + (extent - 1) / 2
            reach = np.minimum(extent / wanted * (wanted - 1) / 2, np.minimum(middle, length - 1 - middle))
            rows[:, axis, axis] = 2 * reach / max(length - 1, 1)
            rows[:, axis, 2] = 2 * middle / max(length - 1, 1) - 1
        rows[self.flips, 0, 0] *= -1
        return rows


@dataclass(frozen=True, eq=False)
class Held:
    """All images of a split, brought to one size.

    Attributes:
        pixels: (N, C, H, W) uint8, in any order of memory that keeps each image in one piece; devices keep that order.
    """

    pixels: NDArray[np.uint8]


class HeldBatch(Batch):
    """A batch out of images that a device keeps.

    Args:
        held: the images, the same object all through a run.
        chosen: (n,) int64, the places of the batch's images among them.
        view: of them; None: they are taken whole and as they are, so nothing is to be cut or resized.
        labels, whole: see Batch.
        normalisation: of the bytes.
        channels: see PixelBatch.
    """

    held: Held
    chosen: NDArray[np.int64]
    view: View | None
    normalisation: Normalisation
    channels: int | None

    def __init__(
        self,
        held: Held,
        chosen: NDArray[np.int64],
        view: View | None,
        labels: NDArray[np.int64],
        normalisation: Normalisation,
        whole: int | None = None,
        channels: int | None = None,
    ) -> None:
        _fill({**locals(), "key": None})

    @functools.cached_property
    def images(self) -> NDArray[np.float32]:
        """(n, channels, H, W) float32, C-contiguous, made by the CPU."""
        if self.view is not None:
            return self._viewed(self.view)
        pixels = self.held.pixels[self.chosen]
        return PixelBatch(pixels, self.labels, self.normalisation, channels=self.channels).images

    def _viewed(self, view: View) -> NDArray[np.float32]:
        from scipy.ndimage import map_coordinates

        _, channels, height, width = self.held.pixels.shape
        tall, wide = view.size
        places = np.stack([*np.meshgrid(np.linspace(-1, 1, wide), np.linspace(-1, 1, tall)), np.ones((tall, wide))])
        pixels = np.empty((len(self.chosen), channels, tall, wide), np.float32)
        for row, (number, rows) in enumerate(zip(self.chosen, view.affine(height, width), strict=True)):
            across, down = np.tensordot(rows.astype(np.float64), places, 1)
            at = [(down + 1) / 2 * (height - 1), (across + 1) / 2 * (width - 1)]
            for channel in range(channels):
                image = self.held.pixels[number, channel].astype(np.float32)
                pixels[row, channel] = map_coordinates(image, at, order=1, mode="nearest")
        scale, shift = self.normalisation.affine()
        return _repeated(pixels * scale + shift, self.channels)


def require_holding(consumer: Consumer, images_bytes: int, fewer: str, made_bytes: int | None = None) -> None:
    """Before a data set makes all its images for the devices to keep (`dataset.resident=true`).

    All workers of a machine ask at about the same time, before any of them has made its images.

    Args:
        consumer: who is to keep them.
        images_bytes: that the images take.
        fewer: what would take less, for the message.
        made_bytes: of those that the data set has yet to make; None: of all. Others lie in memory or in mapped files.

    Raises:
        DataError: the consumer keeps no images, or this machine has no memory free for those of all its workers.
    """
    if HeldBatch not in consumer.kinds:
        raise DataError("dataset.resident=true: the engine keeps no images on its devices; use engine=torch or gluon")
    made_bytes = images_bytes if made_bytes is None else made_bytes
    needed_bytes = consumer.local_world * (made_bytes + consumer.host_copies * images_bytes)
    room_bytes = psutil.virtual_memory().available
    if needed_bytes > room_bytes:
        raise DataError(
            f"dataset.resident=true: the images take {needed_bytes / 1e9:,.1f} GB, all copies on this machine counted, "
            f"and {room_bytes / 1e9:,.1f} GB of memory are free; use {fewer}, or resident=false"
        )


class EncodedBatch(Batch):
    """A batch of files, which a device decodes.

    Args:
        files: of N images.
        view: of them.
        labels, whole: see Batch.
        normalisation: of the decoded bytes.
        decoded: the same batch decoded by the CPU, without what cannot be read.
    """

    files: Sequence[Any]
    view: View
    normalisation: Normalisation
    decoded: Callable[[], PixelBatch]

    def __init__(
        self,
        files: Sequence[Any],
        view: View,
        labels: NDArray[np.int64],
        normalisation: Normalisation,
        decoded: Callable[[], PixelBatch],
        whole: int | None = None,
    ) -> None:
        _fill({**locals(), "key": None})

    @functools.cached_property
    def images(self) -> NDArray[np.float32]:
        """(N, C, H, W) float32, decoded by the CPU."""
        return self.decoded().images


class ImageDataset:
    """Images held as bytes, brought to the size and the channels that a network takes.

    Where the size differs, the images are resized once if `cache` has room for them, else batch by batch; the batches
    are the same either way. They leave as bytes, of the channels that the images have: whoever normalises them repeats
    the one. Images that came as the network takes them and are few are held as floats, and leave as such. Where they
    are to be resident, a batch is a choice among them (see `energybench.dataset.Adapting`).

    Args:
        name: of the data set, for messages.
        splits: split name -> (images (N, C, H, W) uint8, labels (N,) int64).
        shape: (C, H, W) wanted.
        normalisation: of the channels that `splits` have.
        seed: fixes the order of training samples together with the epoch.
        cache: keeps resized images; None: resize batch by batch.
        resident: whether the devices keep all images.

    Raises:
        DataError: the channels cannot be matched.
    """

    def __init__(
        self,
        name: str,
        splits: dict[Split, tuple[NDArray[np.uint8], NDArray[np.int64]]],
        shape: Shape,
        normalisation: Normalisation,
        seed: int,
        cache: ResizedImages | None = None,
        *,
        resident: bool = False,
    ) -> None:
        self._consumer = Consumer()
        self._resident = resident
        self._held: dict[Split, Held] = {}
        self._shape = shape
        self._normalisation = normalisation
        self._seed = seed
        self._labels = {split: labels for split, (_, labels) in splits.items()}
        self._images = {split: images for split, (images, _) in splits.items()}
        for images in self._images.values():
            require_channels(name, images.shape[1], shape[0])
        self._floats = {} if resident else self._as_floats()
        if cache is not None and any(images.shape[2:] != shape[1:] for images in self._images.values()):
            self._images = cache.resized(self._images, *shape[1:]) or self._images

    def adapt(self, consumer: Consumer) -> None:
        """See `energybench.dataset.Adapting`."""
        self._consumer = consumer
        if self._resident:
            _, height, width = self._shape
            sized = [len(images) * images.shape[1] * height * width for images in self._images.values()]
            resized = [images.shape[2:] != (height, width) for images in self._images.values()]
            require_holding(consumer, sum(sized), "fewer images", made_bytes=sum(itertools.compress(sized, resized)))
            self._held = {split: Held(self._sized(images)) for split, images in self._images.items()}
            self._images = {}

    def held(self, split: Split) -> Held | None:
        """See `energybench.dataset.Holding`."""
        return self._held.get(split)

    def batches(self, split: Split, batch: int, epoch: int) -> Iterator[Batch]:
        """See `energybench.dataset.Dataset.batches`."""
        labels = self._labels[split]
        for samples in selections(len(labels), split, batch, self._seed, epoch):
            mine = samples[self._consumer.share(len(samples))]
            yield self._batch(split, mine, self._consumer.whole(len(samples)))

    def _batch(self, split: Split, mine: NDArray[np.int64], whole: int | None) -> Batch:
        labels, normalisation, channels = self._labels[split][mine], self._normalisation, self._shape[0]
        if self._held:
            return HeldBatch(self._held[split], mine, None, labels, normalisation, whole, channels)
        if self._floats:
            return Batch(self._floats[split][mine], labels, whole=whole)
        return PixelBatch(self._sized(self._images[split][mine]), labels, normalisation, None, whole, channels)

    def _as_floats(self) -> dict[Split, NDArray[np.float32]]:
        """All images, normalised, where they came in the shape wanted and fit; else nothing."""
        fitting = all(images.shape[1:] == tuple(self._shape) for images in self._images.values())
        if not fitting or sum(images.size * 4 for images in self._images.values()) > FLOAT_BYTES:
            return {}
        floats = {split: np.empty(images.shape, np.float32) for split, images in self._images.items()}
        for split, images in self._images.items():
            self._normalisation.apply(images, floats[split])
        self._images = {}
        return floats

    def _sized(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(N, C, H, W) with the height and the width wanted."""
        return images if images.shape[2:] == self._shape[1:] else resize(images, *self._shape[1:])
