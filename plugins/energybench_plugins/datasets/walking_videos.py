"""`dataset=walking_videos`: videos of your own, in one folder a person."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from energybench.dataset import Split
from energybench.errors import ConfigError, DataError
from energybench.hookspecs import Register
from energybench_plugins.gait.filmed import Filmed, FilmedOptions
from energybench_plugins.gait.layout import FilmedWalk, person_folders

NAME = "walking_videos"


@dataclass(frozen=True)
class WalkingVideosOptions(FilmedOptions):
    """Options of `dataset=walking_videos`, besides those of all filmed walks.

    Attributes:
        validation_share: of each person's walks, the last by name, rounded up; but one at least is trained on.
    """

    validation_share: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.validation_share < 1:
            raise ConfigError(f"dataset.validation_share={self.validation_share}: give a number from 0, below 1")


class WalkingVideos(Filmed[WalkingVideosOptions]):
    """See `energybench_plugins.gait.filmed.Filmed`."""

    name = NAME

    def choice(self) -> dict[str, object]:
        """See Filmed."""
        return {"validation_share": self._options.validation_share}

    def walks(self, root: Path) -> tuple[Sequence[str], Mapping[Split, Sequence[FilmedWalk]]]:
        """See Filmed."""
        people = person_folders(root)
        if len(people) < 2:
            raise DataError(
                f"dataset.path={root}: walks of {len(people)} people; give a folder with one folder a person, "
                "and in each a video, or a folder of images, for every walk"
            )
        splits: dict[Split, list[FilmedWalk]] = {"train": [], "validation": []}
        for label, (name, paths) in enumerate(people.items()):
            held_out = min(math.ceil(self._options.validation_share * len(paths)), len(paths) - 1)
            for place, path in enumerate(paths):
                split: Split = "train" if place < len(paths) - held_out else "validation"
                number = sum(map(len, splits.values()))
                splits[split].append(FilmedWalk(path, f"{name}/{path.name}", number, label))
        return list(people), splits


def energybench_register_datasets(register: Register) -> None:
    """Registers `walking_videos`."""
    register(NAME, WalkingVideos, WalkingVideosOptions)
