"""Batches of encoded images: decoded ahead by threads, in an order that does not depend on how many there are."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from energybench.architecture import Shape
from energybench.arrays import selections
from energybench.dataset import Batch, Consumer, Split
from energybench.errors import DataError, reason
from energybench.images import EncodedBatch, Held, HeldBatch, Normalisation, PixelBatch, View, require_holding
from energybench_plugins.datasets import jpeg
from energybench_plugins.datasets.image_files import ImageFiles
from energybench_plugins.datasets.views import CentreCrop, Draws, RandomCrop

CHUNK = 16
"""Images that a thread works on at a time: fewer leave threads waiting for each other, more make the last one late."""

FEW_THREADS = 8
"""Threads for each device below which `auto` leaves decoding to a device that can. Assumed: benchmarks/input_gpu.py
measures how many a card needs."""


@dataclass(frozen=True)
class Decoding:
    """How images are read.

    Attributes:
        threads: that read and decode.
        where: cpu | gpu | auto: on a device that can, where there are fewer than FEW_THREADS for it.
        ahead: batches that are decoded before they are asked for.
        resident: whether the images are decoded once, to the size from which views are cut, and kept on the devices.
        skip: whether an image that cannot be read is left out; False: it is an error.
    """

    threads: int
    where: str = "cpu"
    ahead: int = 2
    resident: bool = False
    skip: bool = True


class EncodedImages:
    """See `energybench.dataset.Dataset`, `Adapting`, `Holding` and `Reporting`.

    In training an image that cannot be read gives its place to the next of the batch that can, so that batches keep
    their size; in validation it is left out.

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
        self._size = (shape[1], shape[2])
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
        self._keeps_files = False
        self._held: dict[Split, tuple[Held, NDArray[np.int64]]] = {}
        jpeg.one_thread_each()

    def adapt(self, consumer: Consumer) -> None:
        """See Adapting. Workers of one machine share its processors."""
        self._consumer = consumer
        if self._decoding.resident:
            self._hold(consumer)
        decodes = EncodedBatch in consumer.kinds
        if self._decoding.where == "gpu" and not decodes:
            raise DataError(
                "dataset.decode=gpu: it takes engine=torch on a GPU, with a torchvision that has nvJPEG; use decode=cpu"
            )
        few = self._decoding.threads // consumer.world < FEW_THREADS
        where = self._decoding.where
        self._keeps_files = decodes and (where == "gpu" or (where == "auto" and few))

    def unreadable(self) -> Mapping[str, str]:
        """See Reporting."""
        with self._lock:
            return dict(self._bad)

    def held(self, split: Split) -> Held | None:
        """See Holding."""
        return self._held[split][0] if split in self._held else None

    def batches(self, split: Split, batch: int, epoch: int) -> Iterator[Batch]:
        """See Dataset."""
        if split in self._held:
            yield from self._from_held(split, batch, epoch)
            return
        waiting: deque[_Coming] = deque()
        try:
            for number, indices in enumerate(selections(len(self._files[split]), split, batch, self._seed, epoch)):
                waiting.append(self._start(split, indices, epoch, number))
                if len(waiting) > self._decoding.ahead:
                    yield self._finish(waiting.popleft())
            while waiting:
                yield self._finish(waiting.popleft())
        finally:
            for coming in waiting:
                coming.cancel()

    def _hold(self, consumer: Consumer) -> None:
        """Decodes every image once: its middle, of the network's shape, as large as an image that `prepare` shrinks."""
        size = (round(self._size[0] / self._centre.share), round(self._size[1] / self._centre.share))
        needed = sum(len(files) for files in self._files.values()) * size[0] * size[1] * 3
        require_holding(consumer, needed, "fewer (dataset.classes)")
        for split, files in self._files.items():
            whole = _Coming(split, np.arange(len(files)), len(files), None)
            whole = replace(whole, pixels=np.empty((len(files), *size, 3), np.uint8), good=np.ones(len(files), bool))
            for future in self._sent(whole, self._decode).futures:
                future.result()
            if not whole.good.any():
                raise DataError(
                    f"not one image of the {split} split can be read; see unreadable.tsv in the run's folder"
                )
            kept = np.flatnonzero(whole.good)
            pixels = whole.pixels if len(kept) == len(files) else whole.pixels[kept]
            self._held[split] = (Held(pixels.transpose(0, 3, 1, 2)), files.labels[kept])

    def _from_held(self, split: Split, batch: int, epoch: int) -> Iterator[Batch]:
        held, labels = self._held[split]
        tall, wide = held.pixels.shape[2:]
        for number, indices in enumerate(selections(len(labels), split, batch, self._seed, epoch)):
            share = self._consumer.share(len(indices))
            heights, widths = np.full(len(indices), tall), np.full(len(indices), wide)
            drawn = self._drawn(split, len(indices), epoch, number)
            boxes = self._boxes(heights, widths, drawn)
            flips = np.zeros(len(indices), bool) if drawn is None else drawn.flips
            view = View(boxes[share], flips[share], self._size)
            mine, whole = indices[share], self._consumer.whole(len(indices))
            yield HeldBatch(held, mine, view, labels[mine], self._normalisation, whole)

    def _drawn(self, split: Split, count: int, epoch: int, number: int) -> Draws | None:
        """For a whole batch; nothing for validation."""
        return self._crop.draw(count, np.random.default_rng([self._seed, epoch, number])) if split == "train" else None

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            count = max(self._decoding.threads // self._consumer.world, 1)
            self._pool = ThreadPoolExecutor(count, "decode")
        return self._pool

    def _start(self, split: Split, indices: NDArray[np.int64], epoch: int, number: int) -> _Coming:
        """Sends this consumer's part of a batch to the threads."""
        share = self._consumer.share(len(indices))
        drawn = self._drawn(split, len(indices), epoch, number)
        mine = None if drawn is None else drawn[share]
        coming = _Coming(split, indices[share], len(indices), mine)
        return self._sent(coming, self._read) if self._keeps_files else self._decoding_of(coming)

    def _decoding_of(self, coming: _Coming) -> _Coming:
        """The same batch, which threads decode into one array."""
        count = len(coming.indices)
        room = replace(coming, pixels=np.empty((count, *self._size, 3), np.uint8), good=np.ones(count, bool))
        return self._sent(room, self._decode)

    def _sent(self, coming: _Coming, work: Callable[[_Coming, slice], object]) -> _Coming:
        count = len(coming.indices)
        rows = (slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK))
        return replace(coming, futures=[self._threads().submit(work, coming, some) for some in rows])

    def _decode(self, coming: _Coming, rows: slice) -> None:
        """Some images into their places; what is random was drawn for the whole batch, whoever decodes it."""
        read = self._read(coming, rows)
        good, pixels = coming.good[rows], coming.pixels[rows]
        good[:] = read.good
        for row in np.flatnonzero(good).tolist():
            try:
                box, flip = read.boxes[row].tolist(), bool(read.flips[row])
                jpeg.view(read.files[row], read.sizes[row], box, flip, pixels[row])
            except DataError as error:
                good[row] = False
                self._failed(coming.split, int(coming.indices[rows][row]), error)

    def _read(self, coming: _Coming, rows: slice) -> _Read:
        """The files of some images, and what is to be seen of them."""
        files, known = self._files[coming.split], self._sizes[coming.split]
        indices = coming.indices[rows].tolist()
        encoded: list[jpeg.Buffer] = [b""] * len(indices)
        sizes, good = [(1, 1)] * len(indices), np.ones(len(indices), bool)
        for row, index in enumerate(indices):
            try:
                encoded[row] = files.read(index)
                sizes[row] = (int(known[0][index]), int(known[1][index])) if known else jpeg.size(encoded[row])
            except (DataError, OSError) as error:
                good[row] = False
                self._failed(coming.split, index, error)
        heights, widths = np.array(sizes, np.int64).T
        drawn = None if coming.drawn is None else coming.drawn[rows]
        flips = np.zeros(len(indices), bool) if drawn is None else drawn.flips
        if drawn is None and len(coming.pixels):
            whole = CentreCrop(1.0) if self._decoding.resident else self._centre
            boxes = whole.boxes(heights, widths, *coming.pixels.shape[1:3])
        else:
            boxes = self._boxes(heights, widths, drawn)
        return _Read(encoded, sizes, boxes, flips, good)

    def _boxes(self, heights: NDArray[np.int64], widths: NDArray[np.int64], drawn: Draws | None) -> NDArray[np.int64]:
        if drawn is None:
            return self._centre.boxes(heights, widths, *self._size)
        return self._crop.boxes(heights, widths, drawn)

    def _finish(self, coming: _Coming) -> Batch:
        done = [future.result() for future in coming.futures]
        if not self._keeps_files:
            return self._pixels(coming)
        if not done or not all(one.good.all() for one in done):
            return self._decoded(coming)
        view = View(
            np.concatenate([one.boxes for one in done]), np.concatenate([one.flips for one in done]), self._size
        )
        files = [file for one in done for file in one.files]
        labels = self._files[coming.split].labels[coming.indices]
        return EncodedBatch(
            files, view, labels, self._normalisation, lambda: self._decoded(coming), self._consumer.whole(coming.whole)
        )

    def _decoded(self, coming: _Coming) -> PixelBatch:
        """The batch of files decoded by the CPU."""
        sent = self._decoding_of(coming)
        for future in sent.futures:
            future.result()
        return self._pixels(sent)

    def _pixels(self, coming: _Coming) -> PixelBatch:
        pixels, good, labels = coming.pixels, coming.good, self._files[coming.split].labels[coming.indices]
        if not good.all():
            kept = _instead(good) if coming.split == "train" else np.flatnonzero(good)
            if not len(kept) and coming.split == "train":
                raise DataError("not one image of a batch can be read; see unreadable.tsv in the run's folder")
            pixels, labels = pixels[kept], labels[kept]
        return PixelBatch(
            pixels.transpose(0, 3, 1, 2), labels, self._normalisation, whole=self._consumer.whole(coming.whole)
        )

    def _failed(self, split: Split, index: int, error: Exception) -> None:
        name = self._files[split].name(index)
        if not self._decoding.skip:
            raise DataError(f"{name}: {reason(error)}; set dataset.on_corrupt=skip to go on without it") from error
        with self._lock:
            self._bad[name] = reason(error)


def _instead(good: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each place, itself or the next good one, going round; empty where none is good."""
    rows = np.flatnonzero(good)
    if not len(rows):
        return rows
    following: NDArray[np.int64] = rows[np.searchsorted(rows, np.arange(len(good))) % len(rows)]
    return following


@dataclass(frozen=True)
class _Coming:
    """A batch that threads work on.

    Attributes:
        split, indices: the samples of this consumer, of `whole` in all.
        drawn: for them.
        pixels, good: where they are decoded, and whether each could be.
        futures: what the threads do.
    """

    split: Split
    indices: NDArray[np.int64]
    whole: int
    drawn: Draws | None
    pixels: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 0, 0, 3), np.uint8))
    good: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))
    futures: Sequence[Future[Any]] = ()

    def cancel(self) -> None:
        for future in self.futures:
            future.cancel()


@dataclass(frozen=True)
class _Read:
    """Files of some images, their heights and widths, and the view of each; `good` is False where there is none."""

    files: list[jpeg.Buffer]
    sizes: list[tuple[int, int]]
    boxes: NDArray[np.int64]
    flips: NDArray[np.bool_]
    good: NDArray[np.bool_]
