"""Brings batches to the device: those that come again stay there, others are copied while the device still works.

Imports PyTorch: only for the training process.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from energybench.architecture import Shape
from energybench.dataset import Batch, Consumer
from energybench.images import EncodedBatch, Held, HeldBatch, Normalisation, PixelBatch, require_input_channels
from energybench.run.memory import keeping
from energybench_plugins.engines.process_memory import available_bytes
from energybench_plugins.engines.torch_decode import Arrival, Decoding

SLOTS = 3
"""Batches on their way: one that is trained on, one that is copied, one that is made."""

RESIDENT_BYTES = 2 * 1024**3
"""Most memory on the device for batches that come again."""


@dataclass(frozen=True)
class Layout:
    """How images lie on the device.

    Attributes:
        device: a torch.device.
        dtype: of the arithmetic, and so of the images: float32, bfloat16 or float16.
        memory_format: of maps: torch.contiguous_format or torch.channels_last.
    """

    device: Any
    dtype: Any
    memory_format: Any

    def images(self, count: int, shape: Shape) -> Any:
        """Room for `count` images of `shape` (C, H, W), all zero."""
        room = torch.zeros((count, *shape), dtype=self.dtype, device=self.device)
        return room.contiguous(memory_format=self.memory_format)

    def labels(self, count: int) -> Any:
        """Room for `count` labels."""
        return torch.zeros(count, dtype=torch.int64, device=self.device)

    def buffers(self, count: int, shape: Shape) -> Staged:
        """A batch that never moves."""
        return Staged(self.images(count, shape), self.labels(count))


@dataclass(frozen=True)
class Staged:
    """A batch on the device, or on its way there.

    Attributes:
        images: (N, C, H, W); or (N,) int64, places in `held`.
        labels: (N,) int64.
        key: as the batch's; None for one that does not come again.
        slot: that holds it or makes it, None where it stays.
        affine: of images that are bytes: scale and shift, each (C, 1, 1) float32, that make them floats; else None.
        held: images (M, C, H, W) that the device keeps and out of which these are taken; else None.
        channels: as many as the one of the images becomes; None: they have what is wanted.
    """

    images: Any
    labels: Any
    key: Hashable | None = None
    slot: Slot | Arrival | None = None
    affine: tuple[Any, Any] | None = None
    held: Any | None = None
    channels: int | None = None

    def floats(self) -> Any:
        """The images, normalised, their one channel shown as all."""
        images = self.images if self.held is None else _taken(self.held, self.images)
        if self.affine is not None:
            scale, shift = self.affine
            images = torch.addcmul(shift, images.float(), scale)
        return images if self.channels is None else images.expand(-1, self.channels, -1, -1)

    def take(self, other: Staged) -> None:
        """Copies the first of these images and labels from `other`, once it has arrived."""
        if other.slot is not None:
            other.slot.arrived()
        images, count = other.floats(), len(other.labels)
        require_input_channels(images.shape[1], self.images.shape[1])
        self.images[:count].copy_(images)
        self.labels[:count].copy_(other.labels)
        if other.slot is not None:
            other.slot.taken()


class Slot:
    """Pinned memory and its twin on the GPU: the copy between them runs beside the computation."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._host: Staged | None = None
        self._there: Staged | None = None
        self._copied = torch.cuda.Event(blocking=True)
        self._free = torch.cuda.Event()

    def send(self, images: NDArray[Any], labels: NDArray[np.int64], device: Any, affine: Any) -> Staged:
        """Starts the copy; waits only for the copy that used this memory before."""
        self._copied.synchronize()
        count = len(images)
        host, there = self._room(images, device)
        _fill(host.images[:count], images)
        _fill(host.labels[:count], labels)
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._free)
            there.images[:count].copy_(host.images[:count], non_blocking=True)
            there.labels[:count].copy_(host.labels[:count], non_blocking=True)
            self._copied.record(self._stream)
        return Staged(there.images[:count], there.labels[:count], slot=self, affine=affine)

    def _room(self, images: NDArray[Any], device: Any) -> tuple[Staged, Staged]:
        if self._host is None or self._there is None or not _fits(self._host.images, images):
            kind = {"dtype": torch.from_numpy(images[:0].copy()).dtype, "memory_format": _memory_format(images)}
            shape, count = images.shape, len(images)
            self._host = Staged(
                torch.empty(shape, pin_memory=True, **kind), torch.empty(count, dtype=torch.int64, pin_memory=True)
            )
            self._there = Staged(
                torch.empty(shape, device=device, **kind), torch.empty(count, dtype=torch.int64, device=device)
            )
            self._stream.wait_stream(torch.cuda.current_stream())
        return self._host, self._there

    def arrived(self) -> None:
        """What is enqueued after this sees the batch."""
        torch.cuda.current_stream().wait_event(self._copied)

    def taken(self) -> None:
        """What was enqueued before this was the last to need it."""
        self._free.record()


@dataclass
class Feed:
    """Takes the share of one rank of each batch.

    Attributes:
        layout: of what it gives.
        rank, world: the rank takes the part number `rank` of `world` equal parts of each batch.
        decoding: of files, on the device; None: it decodes none.
    """

    layout: Layout
    rank: int = 0
    world: int = 1
    decoding: Decoding | None = None
    _resident: dict[tuple[Hashable, int], Staged] = field(default_factory=dict)
    _affines: dict[Normalisation, tuple[Any, Any]] = field(default_factory=dict)
    _held: dict[Held, Any] = field(default_factory=dict)
    _bytes: int = 0
    _slots: list[Slot] = field(default_factory=list)
    _next: int = 0

    def __call__(self, batches: Iterable[Batch]) -> Iterator[Staged]:
        """The rank's share of each batch, which may be all that its data set gives it."""
        for given in batches:
            if isinstance(given, HeldBatch):
                yield self._cut(given)
                continue
            batch = self._decoded(given) if isinstance(given, EncodedBatch) else given
            if isinstance(batch, Staged):
                yield batch
                continue
            size = len(batch.labels) if batch.whole is None else batch.whole
            share = Consumer(self.rank, self.world).share(size) if batch.whole is None else slice(None)
            known = self._resident.get((batch.key, size)) if batch.key is not None else None
            if isinstance(batch, PixelBatch):
                affine = self._affine(batch)
                staged = known or self._stage(batch.pixels[share], batch.labels[share], batch.key, size, affine)
                yield replace(staged, channels=batch.channels)
            else:
                yield known or self._stage(batch.images[share], batch.labels[share], batch.key, size)

    def _decoded(self, batch: EncodedBatch) -> Staged | PixelBatch:
        """On the device where that can be, else by the data set."""
        made = self.decoding(batch) if self.decoding is not None else None
        if made is None:
            return batch.decoded()
        images, arrival = made
        labels = _tensor(batch.labels).to(self.layout.device)
        return Staged(images, labels, slot=arrival, affine=self._affine(batch))

    def keep(self, held: Held) -> Any:
        """The images (N, C, H, W) on the device, where they go the first time; raises DataError for want of room."""
        if held not in self._held:
            with keeping(held.pixels.nbytes, self._free_bytes):
                self._held[held] = _tensor(held.pixels, read=True).to(self.layout.device)
        return self._held[held]

    def _free_bytes(self) -> int:
        device = self.layout.device
        return available_bytes() if device.type == "cpu" else int(torch.cuda.mem_get_info(device)[0])

    def _cut(self, batch: HeldBatch) -> Staged:
        """Out of the images that the device keeps."""
        device, affine, held = self.layout.device, self._affine(batch), self.keep(batch.held)
        if batch.view is None:
            staged = self._stage(batch.chosen, batch.labels, None, len(batch.labels), affine)
            return replace(staged, held=held, channels=batch.channels)
        chosen, rows = _tensor(batch.chosen), torch.from_numpy(batch.view.affine(*held.shape[2:]))
        images = _taken(held, chosen.to(device)).float()
        size = [*images.shape[:2], *batch.view.size]
        grid = torch.nn.functional.affine_grid(rows.to(device), size, align_corners=True)
        views = torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=True)
        return Staged(views, _tensor(batch.labels).to(device), affine=affine, channels=batch.channels)

    def _affine(self, batch: PixelBatch | EncodedBatch | HeldBatch) -> tuple[Any, Any]:
        """Scale and shift on the device."""
        known = self._affines.get(batch.normalisation)
        if known is None:
            scale, shift = (torch.from_numpy(part).to(self.layout.device) for part in batch.normalisation.affine())
            known = self._affines[batch.normalisation] = (scale, shift)
        return known

    def _stage(
        self,
        images: NDArray[Any],
        labels: NDArray[np.int64],
        key: Hashable | None,
        size: int,
        affine: tuple[Any, Any] | None = None,
    ) -> Staged:
        kept_bytes = images.size * self.layout.dtype.itemsize
        if key is not None and self._bytes + kept_bytes <= RESIDENT_BYTES:
            return self._keep(images, labels, (key, size), affine)
        if self.layout.device.type == "cpu":
            return Staged(_tensor(images), _tensor(labels), affine=affine)
        return self._slot().send(images, labels, self.layout.device, affine)

    def _keep(
        self, images: NDArray[Any], labels: NDArray[np.int64], key: tuple[Hashable, int], affine: tuple[Any, Any] | None
    ) -> Staged:
        there = self.layout.images(len(images), images.shape[1:])
        there.copy_(Staged(_tensor(images).to(self.layout.device), None, affine=affine).floats())
        staged = Staged(there, _tensor(labels).to(self.layout.device), key)
        self._resident[key] = staged
        self._bytes += there.nbytes
        return staged

    def _slot(self) -> Slot:
        if not self._slots:
            stream = torch.cuda.Stream()
            self._slots = [Slot(stream) for _ in range(SLOTS)]
        self._next = (self._next + 1) % SLOTS
        return self._slots[self._next]


def _fits(room: Any, images: NDArray[Any]) -> bool:
    """Whether pinned memory takes such images."""
    alike = room.numpy().dtype == images.dtype and room.shape[1:] == images.shape[1:]
    return alike and len(room) >= len(images) and room.is_contiguous(memory_format=_memory_format(images))


def _memory_format(images: NDArray[Any]) -> Any:
    """The one of torch's in which the array lies, so that it can be copied as a whole."""
    last = images.ndim == 4 and not images.flags.c_contiguous and images.transpose(0, 2, 3, 1).flags.c_contiguous
    return torch.channels_last if last else torch.contiguous_format


def _fill(pinned: Any, array: NDArray[np.generic]) -> None:
    """Copies by several threads where torch takes the array: it warns of one that is read-only."""
    if array.flags.writeable and not _backwards(array):
        pinned.copy_(torch.from_numpy(array))
    else:
        np.copyto(pinned.numpy(), array)


def _tensor(array: NDArray[np.generic], *, read: bool = False) -> Any:
    """The same memory as a tensor; a copy of an array that runs backwards, or is read-only and not only `read`."""
    if _backwards(array) or not (read or array.flags.writeable):
        return torch.from_numpy(array.copy("K"))
    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it cannot be written
        return torch.from_numpy(array)


def _backwards(array: NDArray[np.generic]) -> bool:
    """Whether an axis is reversed, as channels are by [..., ::-1]: torch has no such tensors."""
    return any(stride < 0 for stride in array.strides)


def _taken(held: Any, chosen: Any) -> Any:
    """Images (n, C, H, W) out of `held` (N, C, H, W), each in its order of memory, so that it is copied as it lies."""
    if held.is_contiguous():
        return held.index_select(0, chosen)
    return held.permute(0, 2, 3, 1).index_select(0, chosen).permute(0, 3, 1, 2)
