"""What a data set is: the contract between a data plugin, the configuration and the training process.

Light by design: a plugin module imports this and no array library until `open`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from energybench.architecture import Shape
from energybench.availability import Availability

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from energybench.images import Held

Split = Literal["train", "validation"]


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before it is opened.

    Attributes:
        classes: number of classes.
        labelled: False where labels mean nothing (synthetic): accuracy is then absent.
        train_images: images in the training split.
        validation_images: images in the validation split; 0 where there is none.
        generated: whether the samples were made up by a program, though their labels mean something.
    """

    classes: int
    labelled: bool
    train_images: int
    validation_images: int
    generated: bool = False


@dataclass(frozen=True)
class Batch:
    """Some samples. `energybench.images.PixelBatch` is one whose floats are made by whoever asks for them.

    Attributes:
        images: (N, C, H, W) float32, C-contiguous.
        labels: (N,) int64, from 0.
        key: batches of one data set and one size with the same key hold the same samples all through a run, so that an
            engine may keep them on the device; None for a batch that need not come again.
        whole: where these are the samples of one of several workers alone (see `Adapting`), how many the batch has for
            all of them; None: these are all.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    key: Hashable | None = None
    whole: int | None = None


@dataclass(frozen=True)
class Consumer:
    """Who takes the batches.

    Attributes:
        rank: number of this worker among `world`, each of which is given its own part of every batch.
        world: how many workers there are.
        kinds: of batches that it knows beside Batch and PixelBatch: `energybench.images.EncodedBatch`, `HeldBatch`.
        local_world: how many of the workers are on this machine and so share its memory.
        host_copies: that each of them makes, in this memory, of images it keeps: one for each CPU it copies them to.
    """

    rank: int = 0
    world: int = 1
    kinds: tuple[type[Batch], ...] = ()
    local_world: int = 1
    host_copies: int = 0

    def share(self, size: int) -> slice:
        """Its part of `size` samples; the parts are as equal as can be."""
        return slice(size * self.rank // self.world, size * (self.rank + 1) // self.world)

    def whole(self, size: int) -> int | None:
        """What `Batch.whole` says of its part of a batch of `size` samples."""
        return size if self.world > 1 else None


class Dataset(Protocol):
    """An opened data set, in the training process."""

    def batches(self, split: Split, batch: int, epoch: int) -> Iterator[Batch]:
        """One pass over `split`.

        Training batches are shuffled by seed and epoch and all of size `batch`: what is left over at the end is
        dropped. Validation comes in order, every image once, the last batch as large as what is left.
        """


@runtime_checkable
class Sequences(Protocol):
    """An opened data set some of whose samples belong together, as those that were cut out of one video do.

    All samples of a sequence have one label. A network decides on a sequence by the sum of what it says of its samples.
    """

    def sequences(self, split: Split) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The sequence of each sample, and the label of each sequence.

        Returns:
            (samples,) int64, numbers from 0 in the order of validation, of all workers' samples; (sequences,) int64.
        """


@runtime_checkable
class MadeOnFirstUse(Protocol):
    """A data plugin that makes its samples once, before the first run on this machine.

    Until then its `info` tells what will be made.
    """

    def make(self) -> None:
        """Makes what is not there yet, telling a person how far it is; raises DataError where it cannot be made."""


@runtime_checkable
class Adapting(Protocol):
    """An opened data set that spares its work where it is not wanted.

    Of several workers each is given whole batches and takes its part of them, unless its data set has this method.
    """

    def adapt(self, consumer: Consumer) -> None:
        """From now on yields that consumer's part of each batch alone, with `whole` set where there are several.

        Called once, after `open` and before the first batch. Raises DataError where what was asked for takes a kind of
        batch that the consumer does not know.
        """


@runtime_checkable
class Holding(Protocol):
    """An opened data set whose images can be brought to the devices while the run loads."""

    def held(self, split: Split) -> Held | None:
        """What its batches of `split` are taken from, where they are `energybench.images.HeldBatch`; else None.

        Called after `adapt`. Images that are not told of are brought there with the first batch.
        """


@runtime_checkable
class Reporting(Protocol):
    """An opened data set that goes on where a sample cannot be read."""

    def unreadable(self) -> Mapping[str, str]:
        """Name of each sample that could not be read so far -> why, in one line."""


class DatasetPlugin(Protocol):
    """A data plugin. Its constructor takes the options dataclass it was registered with and reads nothing."""

    def check(self) -> Availability:
        """Whether the data are there, and if not, why and what to do."""

    def info(self) -> DatasetInfo:
        """Sizes and classes, without reading the samples; raises DataError where the data are not there."""

    def open(self, input_shape: Shape, seed: int) -> Dataset:
        """Opens it with samples of `input_shape` (C, H, W); raises DataError where they cannot be brought to it."""
