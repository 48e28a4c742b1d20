"""Walks as prepared files: a row for each map of motion, with the person, the walk and where the walker is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from energybench.dataset import Split
from energybench.errors import DataError
from energybench.prepared import Prepared, Sample, Skipped
from energybench_plugins.gait.flow import LEVELS, MAP_HEIGHT, MAP_WIDTH
from energybench_plugins.gait.samples import FRAMES, LEAST_SEEN, NOBODY, STEP, windows
from energybench_plugins.gait.walk import see

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
                found = f"somebody found in {(seen.columns != NOBODY).sum()} of {len(seen.columns) + 1} frames"
                needed = f"a sample takes {FRAMES + 1} in a row, and somebody in {LEAST_SEEN:.0%} of them"
                yield Skipped(walk.name, f"{found}; {needed}")
                continue
            for flow, column in zip(seen.maps, seen.columns.tolist(), strict=True):
                yield Sample(flow, {"label": walk.label, "walk": walk.number, "column": column})


def settings(flow: str, finder: str) -> dict[str, Any]:
    """What decides how maps come out, for `Preparation.made_of`."""
    return {"flow": flow, "finder": finder, "map": [MAP_HEIGHT, MAP_WIDTH, LEVELS]}


def opened(folder: Path, wanted: Mapping[str, Any]) -> Prepared:
    """Prepared walks.

    Args:
        folder: of the files.
        wanted: what must have decided their content, see `Preparation.made_of`.

    Raises:
        DataError: they are not there or not whole, or were made of something else.
    """
    prepared = Prepared(folder)
    found = prepared.manifest.made_of
    other = [key for key, value in json.loads(json.dumps(wanted)).items() if found.get(key) != value]
    if other:
        raise DataError(
            f"{folder} was prepared with another dataset.{other[0]}; prepare it again, "
            "or set dataset.prepared to another folder"
        )
    return prepared


def about(people: Sequence[str], made_up: bool) -> dict[str, Any]:
    """What a reader of prepared walks wants to know, for `Preparation.about`."""
    return {"people": list(people), "generated": made_up, "columns": "column of the centroid, -1: nobody found"}


def most_samples(frames: int) -> int:
    """Samples of a walk of so many frames in which somebody is found all the time."""
    return max((frames - 1 - FRAMES) // STEP + 1, 0)
