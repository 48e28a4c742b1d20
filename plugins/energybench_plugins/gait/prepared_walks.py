"""Walks as prepared files: a row for each map, and the data set that cuts samples out of them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from energybench.architecture import Shape
from energybench.dataset import Batch, Split
from energybench.errors import DataError
from energybench.prepared import Prepared, PreparedSplit, Sample, Skipped
from energybench_plugins.gait.flow import LEVELS, MAP_HEIGHT, MAP_WIDTH, STILL
from energybench_plugins.gait.samples import FRAMES, LEAST_SEEN, SIDE, STEP, cut, windows
from energybench_plugins.gait.walk import see

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHAPE: Shape = (2 * FRAMES, SIDE, SIDE)
"""Of a sample."""

SPREAD = 0.2
"""Pixels of the map that become 1 in a network: about the standard deviation over a made-up walker's samples."""


AHEAD = 2
"""Batches that are cut before they are asked for."""

CHUNK = 8
"""Samples that a thread cuts at a time."""

MOST_THREADS = 8


class Source(Protocol):
    """A walk that can be looked at. It is pickled, so it holds paths or seeds, not frames.

    Attributes:
        name: for people.
        number: of the walk, among all of the data set.
        label: number of the person, from 0.
    """

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def number(self) -> int:
        """Of the walk."""
        ...

    @property
    def label(self) -> int:
        """Of the person."""
        ...

    def frames(self) -> Iterable[NDArray[np.uint8]]:
        """Grey frames (H, W) uint8 in order; raises DataError where one cannot be had."""


@dataclass(frozen=True)
class WalksJob:
    """See `energybench.prepared.PartJob`.

    Attributes:
        split: that its walks belong to.
        walks: what goes into one part.
        expected: frames, about.
        flow, finder: see `walk.see`.
    """

    split: Split
    walks: Sequence[Source]
    expected: int
    flow: str
    finder: str

    def samples(self) -> Iterator[Sample | Skipped]:
        """The maps of each walk, and whole walks that are left out."""
        import cv2

        cv2.setNumThreads(1)  # each process looks at walks of its own
        for walk in self.walks:
            try:
                seen = see(walk.frames(), self.flow, self.finder)
            except DataError as error:
                yield Skipped(walk.name, str(error))
                continue
            if not len(windows(seen.columns)):
                found = f"somebody found in {(seen.columns >= 0).sum()} of {len(seen.columns) + 1} frames"
                needed = f"a sample takes {FRAMES + 1} in a row, and somebody in {LEAST_SEEN:.0%} of them"
                yield Skipped(walk.name, f"{found}; {needed}")
                continue
            for flow, column in zip(seen.maps, seen.columns.tolist(), strict=True):
                yield Sample(flow, {"label": walk.label, "walk": walk.number, "column": column})


def settings(flow: str, finder: str) -> dict[str, Any]:
    """What decides how maps come out, for `Preparation.made_of`."""
    return {"flow": flow, "finder": finder, "map": [MAP_HEIGHT, MAP_WIDTH, LEVELS]}


def about(people: Sequence[str], made_up: bool) -> dict[str, Any]:
    """What a reader of prepared walks wants to know, for `Preparation.about`."""
    return {"people": list(people), "generated": made_up, "columns": "column of the centroid, -1: nobody found"}


def sample_count(prepared: Prepared, split: Split) -> int:
    """Samples that can be cut from a split."""
    return len(_Cuts(prepared.open(split)))


class WalksDataset:
    """Samples of optical flow, cut out of prepared maps batch by batch.

    Args:
        name: of the data set, for messages.
        prepared: its files.
        shape: (C, H, W) that the network takes.
        seed: fixes the order of training samples, and which are mirrored, together with the epoch.
        mirror: whether every other training sample, by chance, is mirrored.

    Raises:
        DataError: the network takes samples of another shape.
    """

    def __init__(self, name: str, prepared: Prepared, shape: Shape, seed: int, *, mirror: bool) -> None:
        if tuple(shape) != SHAPE:
            wanted, had = ("x".join(map(str, one)) for one in (shape, SHAPE))
            raise DataError(
                f"dataset {name!r} has samples of {had} and the network takes {wanted}; "
                "choose a gait network and leave its size, or choose another dataset"
            )
        self._seed, self._mirror = seed, mirror
        self._threads = ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), MOST_THREADS), "cut")
        splits: tuple[Split, ...] = ("train", "validation")
        self._cuts = {split: _Cuts(prepared.open(split)) for split in splits}

    def batches(self, split: Split, batch: int, epoch: int) -> Iterator[Batch]:
        """See `energybench.dataset.Dataset.batches`."""
        import numpy as np

        from energybench.arrays import selections

        cuts = self._cuts[split]
        chance = np.random.default_rng([self._seed, epoch, 1])
        waiting: deque[_Coming] = deque()
        for chosen in selections(len(cuts), split, batch, self._seed, epoch):
            numbers = np.arange(len(cuts))[chosen]
            mirrored = self._mirror and split == "train"
            turned = chance.random(len(numbers)) < 0.5 if mirrored else np.zeros(len(numbers), bool)
            waiting.append(_Coming(cuts, numbers, turned, self._threads))
            if len(waiting) > AHEAD:
                yield waiting.popleft().batch()
        while waiting:
            yield waiting.popleft().batch()

    def sequences(self, split: Split) -> NDArray[np.int64]:
        """See `energybench.dataset.Sequences`."""
        return self._cuts[split].walks


def to_floats(flow: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    """Bytes of flow -> what a network takes: motion in pixels of the map, over SPREAD."""
    import numpy as np

    np.multiply(flow, np.float32(1 / (LEVELS * SPREAD)), out=out)
    out -= np.float32(STILL / (LEVELS * SPREAD))


class _Cuts:
    """Where the samples of one split lie.

    Attributes:
        labels: (samples,) int64, the person.
        walks: (samples,) int64, number of the walk in the split, from 0.
    """

    def __init__(self, split: PreparedSplit) -> None:
        import numpy as np

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

    def take(self, numbers: NDArray[np.int64], mirrored: NDArray[np.bool_], out: NDArray[np.float32]) -> None:
        """Samples `numbers` (n,) into `out` (n, 50, 60, 60), maps of x, y, x, y, ...; as in a mirror where `mirrored`."""
        import numpy as np

        flow = np.empty((FRAMES, 2, SIDE, SIDE), np.uint8)
        for row, (part, first, left) in enumerate(self._places[numbers].tolist()):
            cut(self._parts[part][first : first + FRAMES], left, flow, mirrored=bool(mirrored[row]))
            to_floats(flow.reshape(SHAPE), out[row])


class _Coming:
    """A batch that threads work on."""

    def __init__(
        self, cuts: _Cuts, numbers: NDArray[np.int64], mirrored: NDArray[np.bool_], threads: ThreadPoolExecutor
    ) -> None:
        import numpy as np

        self._labels = cuts.labels[numbers]
        self._images = np.empty((len(numbers), *SHAPE), np.float32)
        rows = [slice(start, start + CHUNK) for start in range(0, len(numbers), CHUNK)]
        self._work = [threads.submit(cuts.take, numbers[some], mirrored[some], self._images[some]) for some in rows]

    def batch(self) -> Batch:
        """Waits for it."""
        for part in self._work:
            part.result()
        return Batch(self._images, self._labels)


def most_samples(frames: int) -> int:
    """Samples of a walk of so many frames in which somebody is found all the time."""
    return max((frames - 1 - FRAMES) // STEP + 1, 0)
