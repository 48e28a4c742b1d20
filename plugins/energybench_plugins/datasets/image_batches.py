"""Batches of encoded images: decoded ahead by threads, in an order that does not depend on how many there are."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from energybench.architecture import Shape
from energybench.arrays import selections
from energybench.dataset import Batch, Consumer, Split
from energybench.errors import DataError, reason
from energybench.images import Normalisation, PixelBatch
from energybench_plugins.datasets import jpeg
from energybench_plugins.datasets.image_files import ImageFiles
from energybench_plugins.datasets.views import CentreCrop, Draws, RandomCrop

CHUNK = 16
"""Images that a thread works on at a time: fewer leave threads waiting for each other, more make the last one late."""


@dataclass(frozen=True)
class Decoding:
    """How images are read.

    Attributes:
        threads: that decode.
        ahead: batches that are decoded before they are asked for.
        skip: whether an image that cannot be read is left out; False: it is an error.
    """

    threads: int
    ahead: int = 2
    skip: bool = True


class EncodedImages:
    """See `energybench.dataset.Dataset`, `Adapting` and `Reporting`.

    In training an image that cannot be read gives its place to the next of the batch that can, so that batches keep their
    size; in validation it is left out.

    Args:
        files: split -> its images.
        shape: (3, H, W) wanted.
        normalisation: of the pixels.
        seed: fixes order and views.
        decoding: how they are read.
        crop: of training images.
        centre: of validation images.
    """

    def __init__(
        self,
        files: Mapping[Split, ImageFiles],
        shape: Shape,
        normalisation: Normalisation,
        seed: int,
        decoding: Decoding,
        crop: RandomCrop | None = None,
        centre: CentreCrop | None = None,
    ) -> None:
        self._files = files
        self._size = shape[1:]
        self._normalisation = normalisation
        self._seed = seed
        self._decoding = decoding
        self._crop = crop or RandomCrop()
        self._centre = centre or CentreCrop()
        self._consumer = Consumer()
        self._sizes = {split: images.sizes() for split, images in files.items()}
        self._bad: dict[str, str] = {}
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        jpeg.one_thread_each()

    def adapt(self, consumer: Consumer) -> None:
        """See Adapting. Workers of one machine share its processors."""
        self._consumer = consumer

    def unreadable(self) -> Mapping[str, str]:
        """See Reporting."""
        with self._lock:
            return dict(self._bad)

    def batches(self, split: Split, batch: int, epoch: int) -> Iterator[Batch]:
        """See Dataset."""
        waiting: deque[_Coming] = deque()
        try:
            for number, chosen in enumerate(selections(len(self._files[split]), split, batch, self._seed, epoch)):
                waiting.append(self._start(split, chosen, epoch, number))
                if len(waiting) > self._decoding.ahead:
                    yield self._finish(waiting.popleft())
            while waiting:
                yield self._finish(waiting.popleft())
        finally:
            for coming in waiting:
                coming.cancel()

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            count = max(self._decoding.threads // self._consumer.world, 1)
            self._pool = ThreadPoolExecutor(count, "decode")
        return self._pool

    def _start(self, split: Split, chosen: slice | NDArray[np.int64], epoch: int, number: int) -> _Coming:
        """Sends this consumer's part of a batch to the threads."""
        indices = (
            np.arange(chosen.start, min(chosen.stop, len(self._files[split]))) if isinstance(chosen, slice) else chosen
        )
        share = self._consumer.share(len(indices))
        mine = indices[share]
        drawn = None
        if split == "train":
            drawn = self._crop.draw(len(indices), np.random.default_rng([self._seed, epoch, number]))[share]
        pixels = np.empty((len(mine), *self._size, 3), np.uint8)
        good = np.ones(len(mine), bool)
        futures = [
            self._threads().submit(
                self._decode, split, mine[rows], drawn[rows] if drawn else None, pixels[rows], good[rows]
            )
            for rows in (slice(start, start + CHUNK) for start in range(0, len(mine), CHUNK))
        ]
        return _Coming(split, mine, len(indices), pixels, good, futures)

    def _decode(
        self,
        split: Split,
        indices: NDArray[np.int64],
        drawn: Draws | None,
        pixels: NDArray[np.uint8],
        good: NDArray[np.bool_],
    ) -> None:
        """Some images of a batch into their places; what is random was drawn for the whole batch, whoever decodes it."""
        files = self._files[split]
        encoded: list[jpeg.Buffer] = []
        heights, widths = np.ones((2, len(indices)), np.int64)
        known = self._sizes[split]
        for row, index in enumerate(indices.tolist()):
            try:
                encoded.append(files.read(index))
                heights[row], widths[row] = (known[0][index], known[1][index]) if known else jpeg.size(encoded[row])
            except (DataError, OSError) as error:
                encoded[row:] = [b""]
                good[row] = False
                self._failed(files.name(index), error)
        boxes = self._boxes(heights, widths, drawn)
        flips = np.zeros(len(indices), bool) if drawn is None else drawn.flips
        for row in np.flatnonzero(good).tolist():
            whole = (int(heights[row]), int(widths[row]))
            try:
                jpeg.view(encoded[row], whole, boxes[row].tolist(), bool(flips[row]), pixels[row])
            except DataError as error:
                good[row] = False
                self._failed(files.name(int(indices[row])), error)

    def _boxes(self, heights: NDArray[np.int64], widths: NDArray[np.int64], drawn: Draws | None) -> NDArray[np.int64]:
        if drawn is None:
            return self._centre.boxes(heights, widths, *self._size)
        return self._crop.boxes(heights, widths, drawn)

    def _finish(self, coming: _Coming) -> Batch:
        for future in coming.futures:
            future.result()
        pixels, labels = coming.pixels, self._files[coming.split].labels[coming.indices]
        if not coming.good.all():
            kept = _instead(coming.good) if coming.split == "train" else np.flatnonzero(coming.good)
            if not len(kept) and len(labels) and coming.split == "train":
                raise DataError("of a whole batch not one image can be read; see the run's unreadable.tsv")
            pixels, labels = pixels[kept], labels[kept]
        whole = coming.whole if self._consumer.world > 1 else None
        return PixelBatch(pixels.transpose(0, 3, 1, 2), labels, self._normalisation, whole=whole)

    def _failed(self, name: str, error: Exception) -> None:
        if not self._decoding.skip:
            raise DataError(f"{name}: {reason(error)}; set dataset.on_corrupt=skip to go on without it") from error
        with self._lock:
            self._bad[name] = reason(error)


def _instead(good: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each place, itself or the next good one, going round; empty where none is good."""
    rows = np.flatnonzero(good)
    if not len(rows):
        return rows
    return rows[np.searchsorted(rows, np.arange(len(good))) % len(rows)]


@dataclass(frozen=True)
class _Coming:
    """A batch that threads work on."""

    split: Split
    indices: NDArray[np.int64]
    whole: int
    pixels: NDArray[np.uint8]
    good: NDArray[np.bool_]
    futures: list[Future[None]]

    def cancel(self) -> None:
        for future in self.futures:
            future.cancel()
