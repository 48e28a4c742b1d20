"""The data set that cuts samples of motion out of prepared walks, batch by batch or all at once. Imports numpy."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from energybench.architecture import Shape
from energybench.arrays import selections
from energybench.dataset import Batch, Consumer, Split
from energybench.errors import DataError
from energybench.images import Held, HeldBatch, Normalisation, PixelBatch, require_holding
from energybench.prepared import Prepared, PreparedSplit
from energybench_plugins.gait.flow import LEVELS, MAP_HEIGHT, MAP_WIDTH, STILL
from energybench_plugins.gait.samples import FRAMES, SIDE, cut, windows

SHAPE: Shape = (2 * FRAMES, SIDE, SIDE)
"""Of a sample."""

SPREAD = 0.2
"""Pixels of the map that become 1 in a network: about the standard deviation over a made-up walker's samples."""

NORMALISATION = Normalisation((STILL / 255,), (SPREAD * LEVELS / 255,))
"""Bytes of flow -> what a network takes: motion in pixels of the map, over SPREAD."""


AHEAD = 2
"""Batches that are cut before they are asked for."""

CHUNK = 8
"""Samples that a thread cuts at a time."""

MOST_THREADS = 8


def sample_count(prepared: Prepared, split: Split) -> int:
    """Samples that can be cut from a split."""
    return len(_Cuts(prepared.open(split)))


class WalksDataset:
    """Samples of optical flow, cut out of prepared maps: batch by batch, or once for the devices to keep.

    Args:
        name: of the data set, for messages.
        prepared: its files.
        shape: (C, H, W) that the network takes.
        seed: fixes the order of training samples, and which are mirrored, together with the epoch.
        mirror: whether every other training sample, by chance, is mirrored.
        resident: whether the devices keep all samples, those of training both ways round where they are mirrored.

    Raises:
        DataError: the network takes samples of another shape.
    """

    def __init__(
        self, name: str, prepared: Prepared, shape: Shape, seed: int, *, mirror: bool, resident: bool = False
    ) -> None:
        if tuple(shape) != SHAPE:
            wanted, had = ("x".join(map(str, one)) for one in (shape, SHAPE))
            raise DataError(
                f"dataset {name!r} has samples of {had} and the network takes {wanted}; "
                "choose a gait network and leave its size, or choose another dataset"
            )
        self._seed, self._mirror, self._resident = seed, mirror, resident
        self._consumer = Consumer()
        self._threads = ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), MOST_THREADS), "cut")
        splits: tuple[Split, ...] = ("train", "validation")
        self._cuts = {split: _Cuts(prepared.open(split)) for split in splits}
        self._held: dict[Split, Held] = {}

    def adapt(self, consumer: Consumer) -> None:
        """See `energybench.dataset.Adapting`."""
        self._consumer = consumer
        if self._resident:
            ways: dict[Split, int] = {"train": 2 if self._mirror else 1, "validation": 1}
            samples = sum(len(cuts) * ways[split] for split, cuts in self._cuts.items())
            require_holding(consumer, samples * math.prod(SHAPE), "fewer walks")
            self._held = {split: self._all(cuts, ways[split]) for split, cuts in self._cuts.items()}

    def _all(self, cuts: _Cuts, ways: int) -> Held:
        """Every sample as it is, and where there are two `ways` every one as in a mirror after them."""
        samples = np.arange(ways * len(cuts))
        mirrored = samples >= len(cuts)
        return Held(WalkBatch(cuts, samples % max(len(cuts), 1), mirrored, self._threads, None, None).pixels)

    def held(self, split: Split) -> Held | None:
        """See `energybench.dataset.Holding`."""
        return self._held.get(split)

    def batches(self, split: Split, batch: int, epoch: int) -> Iterator[Batch]:
        """See `energybench.dataset.Dataset.batches`.

        Training batches are cut ahead. Those of validation come again, and are cut when they are first looked at.
        """
        cuts, training = self._cuts[split], split == "train"
        chance = np.random.default_rng([self._seed, epoch, 1])
        waiting: deque[WalkBatch] = deque()
        for number, samples in enumerate(selections(len(cuts), split, batch, self._seed, epoch)):
            turned = chance.random(len(samples)) < (0.5 if self._mirror and training else 0.0)
            mine = self._consumer.share(len(samples))
            whole = self._consumer.whole(len(samples))
            if self._held:
                places = samples[mine] + len(cuts) * turned[mine]
                yield HeldBatch(self._held[split], places, None, cuts.labels[samples[mine]], NORMALISATION, whole)
                continue
            key = None if training else (split, number)
            made = WalkBatch(cuts, samples[mine], turned[mine], self._threads, key, whole)
            if not training:
                yield made
                continue
            made.start()
            waiting.append(made)
            if len(waiting) > AHEAD:
                yield waiting.popleft()
        yield from waiting

    def sequences(self, split: Split) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """See `energybench.dataset.Sequences`."""
        walks, labels = self._cuts[split].walks, self._cuts[split].labels
        return walks, labels[np.unique(walks, return_index=True)[1]]


class _Cuts:
    """Where the samples of one split lie.

    Attributes:
        labels: (samples,) int64, the person.
        walks: (samples,) int64, number of the walk in the split, from 0.
    """

    def __init__(self, split: PreparedSplit) -> None:
        self._parts = split.arrays((2, MAP_HEIGHT, MAP_WIDTH), np.uint8)
        ends = np.cumsum([0, *map(len, self._parts)])
        walks, columns, labels = (split.numbers(name) for name in ("walk", "column", "label"))
        edges = np.flatnonzero(np.diff(walks, prepend=-1, append=-1))
        places, labelled, walked = [np.empty((0, 3), np.int64)], [], []
        for number, (first, last) in enumerate(pairwise(edges)):
            found = windows(columns[first:last])
            part = int(ends.searchsorted(first, "right")) - 1
            places.append(np.insert(found + np.array([first - ends[part], 0]), 0, part, axis=1))
            labelled += [labels[first]] * len(found)
            walked += [number] * len(found)
        self._places = np.concatenate(places)
        self.labels = np.array(labelled, np.int64)
        self.walks = np.array(walked, np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def take(self, samples: NDArray[np.int64], mirrored: NDArray[np.bool_], out: NDArray[np.uint8]) -> None:
        """Cuts some samples.

        Args:
            samples: (n,) their numbers.
            mirrored: (n,) whether each is shown as in a mirror.
            out: (n, 50, 60, 60), written to: maps of x, y, x, y, ...
        """
        shaped = out.reshape(len(out), FRAMES, 2, SIDE, SIDE)
        for row, (part, first, left) in enumerate(self._places[samples].tolist()):
            cut(self._parts[part][first : first + FRAMES], left, shaped[row], mirrored=bool(mirrored[row]))


class WalkBatch(PixelBatch):
    """A batch whose bytes are cut when they are asked for, or from `start` on."""

    _cut: tuple[_Cuts, NDArray[np.int64], NDArray[np.bool_], ThreadPoolExecutor]

    def __init__(
        self,
        cuts: _Cuts,
        samples: NDArray[np.int64],
        mirrored: NDArray[np.bool_],
        threads: ThreadPoolExecutor,
        key: Hashable | None,
        whole: int | None,
    ) -> None:
        told = {"labels": cuts.labels[samples], "normalisation": NORMALISATION, "key": key, "whole": whole}
        for name, value in {**told, "_cut": (cuts, samples, mirrored, threads)}.items():
            object.__setattr__(self, name, value)

    def start(self) -> None:
        """Sends it to the threads."""
        _ = self._cutting

    @cached_property
    def _cutting(self) -> tuple[NDArray[np.uint8], list[Future[None]]]:
        cuts, samples, mirrored, threads = self._cut
        out = np.empty((len(samples), *SHAPE), np.uint8)
        rows = [slice(start, start + CHUNK) for start in range(0, len(out), CHUNK)]
        return out, [threads.submit(cuts.take, samples[some], mirrored[some], out[some]) for some in rows]

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:  # type: ignore[override]
        """(N, 50, 60, 60) uint8, C-contiguous."""
        out, work = self._cutting
        for part in work:
            part.result()
        return out
