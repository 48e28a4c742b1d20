"""What data sets of filmed walks share: prepared by the user, then read like any other."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from energybench.architecture import Shape
from energybench.availability import Availability
from energybench.dataset import Dataset, DatasetInfo, Split
from energybench.errors import DataError
from energybench.prepared import MANIFEST, Preparation, Prepared
from energybench_plugins.gait.flow import require_flow
from energybench_plugins.gait.layout import FilmedWalk, parts_of
from energybench_plugins.gait.prepared_walks import WalksJob, about, opened, settings
from energybench_plugins.gait.walk import no_opencv, require_finder

WALKS_OF_A_PART = 50
"""Some 35 MB of maps, and minutes of work that a kill loses at most."""


@dataclass(frozen=True)
class FilmedOptions:
    """What every data set of filmed walks can be asked for.

    Attributes:
        path: folder of the videos.
        prepared: folder of the prepared files.
        flow: how motion is found, see `gait.flow.flow_method`.
        finder: how the walker is found: `background` or `hog`.
        mirror: whether every other training sample, by chance, is mirrored.
        resident: whether all samples are cut while the run loads and kept on the devices: what fits there.
    """

    path: str | None = None
    prepared: str | None = None
    flow: str = "dis_medium"
    finder: str = "background"
    mirror: bool = True
    resident: bool = False

    def __post_init__(self) -> None:
        require_flow(self.flow)
        require_finder(self.finder)


Options = TypeVar("Options", bound=FilmedOptions)


class Filmed(ABC, Generic[Options]):
    """See `energybench.dataset.DatasetPlugin` and `energybench.prepared.Preparable`."""

    name: ClassVar[str]

    def __init__(self, options: Options) -> None:
        self._options = options

    @abstractmethod
    def walks(self, root: Path) -> tuple[Sequence[str], Mapping[Split, Sequence[FilmedWalk]]]:
        """Names of the people, by label, and the walks of each split; raises DataError where they are not there."""

    @abstractmethod
    def choice(self) -> dict[str, object]:
        """The options that decide which walks are taken."""

    def check(self) -> Availability:
        """Whether they have been prepared, or what to do."""
        try:
            folder = self._folder
            info = self.info()
        except DataError as error:
            return Availability(False, str(error).removeprefix(f"dataset {self.name!r}: "))
        found = f"{info.train_images:,} + {info.validation_images:,} samples of {info.classes} people in {folder}"
        return Availability(True, found)

    def info(self) -> DatasetInfo:
        """See DatasetPlugin."""
        from energybench_plugins.gait.walks_dataset import sample_count

        prepared = self._prepared()
        counts = {split: sample_count(prepared, split) for split in ("train", "validation")}
        return DatasetInfo(len(prepared.manifest.about["people"]), True, counts["train"], counts["validation"])

    def open(self, input_shape: Shape, seed: int) -> Dataset:
        """See DatasetPlugin."""
        from energybench_plugins.gait.walks_dataset import WalksDataset

        mirror, resident = self._options.mirror, self._options.resident
        return WalksDataset(self.name, self._prepared(), input_shape, seed, mirror=mirror, resident=resident)

    def preparation(self) -> Preparation:
        """Fifty walks a part."""
        if (missing := no_opencv()) is not None:
            raise DataError(f"dataset {self.name!r}: {missing}")
        root = self._root
        if not root.is_dir():
            raise DataError(f"dataset.path={root}: no such folder; give that of the videos")
        people, walks = self.walks(root)
        stamps = json.dumps([walk.stamp() for chosen in walks.values() for walk in chosen])
        made_of = {
            **self.choice(),
            **settings(self._options.flow, self._options.finder),
            "videos": hashlib.sha256(stamps.encode()).hexdigest(),
        }
        jobs = [
            WalksJob(split, part, sum(walk.length - 1 for walk in part), self._options.flow, self._options.finder)
            for split, chosen in walks.items()
            for part in parts_of(chosen, WALKS_OF_A_PART)
        ]
        return Preparation(self.name, self._folder, made_of, about(people, made_up=False), jobs)

    def _prepared(self) -> Prepared:
        folder = self._folder
        if not (folder / MANIFEST).is_file():
            ask = f"energybench prepare dataset={self.name} dataset.path=FOLDER"
            raise DataError(f"dataset {self.name!r}: {folder} holds no prepared walks; run {ask}")
        return opened(folder, {**self.choice(), **settings(self._options.flow, self._options.finder)})

    @property
    def _root(self) -> Path:
        if self._options.path is None:
            raise DataError(f"dataset {self.name!r}: set dataset.path to the folder of the videos")
        return Path(self._options.path).expanduser().resolve()

    @property
    def _folder(self) -> Path:
        if self._options.prepared is not None:
            return Path(self._options.prepared).expanduser()
        return self._root / "prepared"
