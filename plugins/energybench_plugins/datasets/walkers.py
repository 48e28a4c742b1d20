"""`dataset=walkers`: made-up people walking before a made-up camera, for machines without gait videos.

Nothing of it was filmed. What is drawn goes the same way as a video: the walker is found, optical flow is computed,
samples are cut. As of TUM-GAID's training persons, five normal walks, one with a backpack and one in other shoes are
for training, and one of each for validation.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from energybench.architecture import Shape
from energybench.availability import Availability
from energybench.dataset import Dataset, DatasetInfo, Split
from energybench.errors import ConfigError, DataError
from energybench.hookspecs import Register
from energybench.prepared import MANIFEST, Preparation
from energybench.whole import writable
from energybench_plugins.datasets.download import user_cache
from energybench_plugins.gait.flow import require_flow
from energybench_plugins.gait.prepared_walks import WalksJob, about, most_samples, opened, settings
from energybench_plugins.gait.samples import FRAMES
from energybench_plugins.gait.walk import no_opencv

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "walkers"

WALKS: dict[Split, tuple[str, ...]] = {
    "train": ("n01", "n02", "n03", "n04", "n05", "b01", "s01"),
    "validation": ("n06", "b02", "s02"),
}
"""Of each person."""

MADE_BY = 2
"""Changes when the same options come to give other walks."""

SHAKE, NOISE = 0.15, 3.0
"""Standard deviations at difficulty 1: of the camera's place in pixels, of a pixel in grey levels."""

PLACE = 0.015
"""Standard deviation of the distance to the camera, as a share, at difficulty 1."""


@dataclass(frozen=True)
class WalkersOptions:
    """Options of `dataset=walkers`.

    Attributes:
        persons: made-up people, which are the classes.
        difficulty: how much a person differs from walk to walk and how unsteady the camera is; 0: not at all.
        frames: of each walk.
        flow: how motion is found, see `gait.flow.flow_method`.
        mirror: whether every other training sample, by chance, is mirrored.
        set_seed: other people and walks; `seed` of a run changes none of them.
        prepared: folder of the made walks; null: in the user's cache.
        resident: whether all samples are cut while the run loads and kept on the devices: what fits there.
    """

    persons: int = 32
    difficulty: float = 1.0
    frames: int = 64
    flow: str = "dis_fast"
    mirror: bool = True
    set_seed: int = 0
    prepared: str | None = None
    resident: bool = False

    def __post_init__(self) -> None:
        require_flow(self.flow)
        if self.persons < 2:
            raise ConfigError(f"dataset.persons={self.persons}: give a whole number from 2")
        if self.frames <= FRAMES:
            raise ConfigError(f"dataset.frames={self.frames}: give a whole number from {FRAMES + 1}")
        if not 0 <= self.difficulty <= 10:
            raise ConfigError(f"dataset.difficulty={self.difficulty}: give a number from 0 to 10")
        if self.set_seed < 0:
            raise ConfigError(f"dataset.set_seed={self.set_seed}: give a whole number from 0")


@dataclass(frozen=True)
class MadeUpWalk:
    """See `energybench_plugins.gait.prepared_walks.Source`."""

    options: WalkersOptions
    label: int
    place: int  # among the walks of the person
    name: str
    number: int

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Draws them."""
        import numpy as np

        from energybench_plugins.gait.body import on_a_walk, person
        from energybench_plugins.gait.figure import GROUND, SCALE, Camera, film

        options, seed = self.options, self.options.set_seed
        random = np.random.default_rng([seed, self.label, self.place + 1])
        variation = self.name.rpartition("-")[2][0]
        who = person(np.random.default_rng([seed, self.label]))
        walker = on_a_walk(who, variation, options.difficulty, random)
        camera = Camera(
            leftward=self.place % 2 == 1,
            scale=SCALE * (1 + PLACE * options.difficulty * float(np.clip(random.normal(), -2, 2))),
            ground=GROUND + 2 * options.difficulty * float(np.clip(random.normal(), -2, 2)),
            shake=SHAKE * options.difficulty,
            noise=NOISE * options.difficulty,
        )
        return film(walker, camera, options.frames, random)


class Walkers:
    """See `energybench.dataset.DatasetPlugin`, `MadeOnFirstUse` and `energybench.prepared.Preparable`."""

    def __init__(self, options: WalkersOptions) -> None:
        self._options = options

    def check(self) -> Availability:
        """Whether OpenCV is there to make them, or they have been made."""
        people = f"{self._options.persons} made-up people"
        if self._made:
            return Availability(True, f"{people}, made, in {self._folder}")
        if (missing := no_opencv()) is not None:
            return missing
        return Availability(True, f"{people}, to be made on first use, in {self._folder}")

    def info(self) -> DatasetInfo:
        """See DatasetPlugin. Before they are made, as many samples as they should have."""
        counts: dict[Split, int]
        if self._made:
            from energybench_plugins.gait.walks_dataset import sample_count

            prepared = opened(self._folder, self._made_of)
            counts = {split: sample_count(prepared, split) for split in WALKS}
        else:
            each = self._options.persons * most_samples(self._options.frames)
            counts = {split: each * len(names) for split, names in WALKS.items()}
        return DatasetInfo(self._options.persons, True, counts["train"], counts["validation"], generated=True)

    def make(self) -> None:
        """Makes them, saying how far it is; nothing where they are there. Whoever comes second waits for the first."""
        if self._made:
            return
        from energybench.prepare_command import prepare_aloud

        with (writable(self._folder) / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._made:
                prepare_aloud(self.preparation(), len(os.sched_getaffinity(0)))

    def preparation(self) -> Preparation:
        """A part for each person and split."""
        options = self._options
        people = [f"w{label + 1:03d}" for label in range(options.persons)]
        names = [name for split in WALKS.values() for name in split]
        jobs = []
        for split, chosen in WALKS.items():
            for label, who in enumerate(people):
                walks = tuple(
                    MadeUpWalk(
                        options, label, names.index(name), f"{who}-{name}", label * len(names) + names.index(name)
                    )
                    for name in chosen
                )
                jobs.append(WalksJob(split, walks, len(walks) * (options.frames - 1), options.flow, "background"))
        return Preparation(NAME, self._folder, self._made_of, about(people, made_up=True), jobs)

    def open(self, input_shape: Shape, seed: int) -> Dataset:
        """See DatasetPlugin."""
        from energybench_plugins.gait.walks_dataset import WalksDataset

        if not self._made:
            raise DataError(f"{self._folder} holds no made-up walks; run energybench prepare dataset={NAME}")
        prepared, mirror, resident = opened(self._folder, self._made_of), self._options.mirror, self._options.resident
        return WalksDataset(NAME, prepared, input_shape, seed, mirror=mirror, resident=resident)

    @property
    def _made_of(self) -> dict[str, object]:
        options = self._options
        drawn = {"persons": options.persons, "difficulty": options.difficulty, "frames": options.frames}
        return {"made_by": MADE_BY, "set_seed": options.set_seed, **drawn, **settings(options.flow, "background")}

    @property
    def _folder(self) -> Path:
        if self._options.prepared is not None:
            return Path(self._options.prepared).expanduser()
        key = hashlib.sha256(json.dumps(self._made_of, sort_keys=True).encode()).hexdigest()[:12]
        return user_cache() / NAME / key

    @property
    def _made(self) -> bool:
        return (self._folder / MANIFEST).is_file()


def energybench_register_datasets(register: Register) -> None:
    """Registers `walkers`."""
    register(NAME, Walkers, WalkersOptions)
