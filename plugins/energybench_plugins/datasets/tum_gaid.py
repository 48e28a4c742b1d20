"""`dataset=tum_gaid`: people identified by their gait, filmed from the side.

Hofmann, Geiger, Bachmann, Schuller, Rigoll: The TUM Gait from Audio, Image and Depth (GAID) database, Journal of Visual
Communication and Image Representation, 2014. 305 people; its authors give it out on request, so it is read where the
user has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from energybench.dataset import Split
from energybench.errors import ConfigError, DataError
from energybench.hookspecs import Register
from energybench_plugins.gait.filmed import Filmed, FilmedOptions
from energybench_plugins.gait.layout import LISTS, TUM_WALK, FilmedWalk, tum_persons, tum_walks

NAME = "tum_gaid"


@dataclass(frozen=True)
class TumGaidOptions(FilmedOptions):
    """Options of `dataset=tum_gaid`, besides those of all filmed walks.

    Attributes:
        persons: `test`: the 155 that the study tells apart; `train`: the 150 of training and validation.
        lists: folder of the data set's lists of persons; null: looked for in and beside `path`.
        gallery: walks of each person for training; null: n01 to n04 of `test`, n01 to n05, b01 and s01 of `train`.
        probes: walks for validation; null: n05, n06, b01, b02, s01, s02 of `test`, n06, b02 and s02 of `train`.
    """

    persons: str = "test"
    lists: str | None = None
    gallery: list[str] | None = None
    probes: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.persons not in LISTS:
            raise ConfigError(f"dataset.persons={self.persons!r}: give one of {', '.join(LISTS)}")
        for key in ("gallery", "probes"):
            for name in getattr(self, key) or ():
                if TUM_WALK.fullmatch(name) is None:
                    raise ConfigError(f"dataset.{key}: {name!r} is no walk; give names such as n01, b02 and s01")
        splits = self.splits
        if twice := sorted(set(splits["train"]) & set(splits["validation"])):
            raise ConfigError(f"dataset.probes: {', '.join(twice)} would be trained on too; take them from one list")
        if not splits["train"]:
            raise ConfigError("dataset.gallery=[]: give the walks to train on")

    @property
    def splits(self) -> dict[Split, tuple[str, ...]]:
        """The names of the walks of each split."""
        usual = USUAL[self.persons]
        gallery, probes = self.gallery, self.probes
        return {
            "train": usual["train"] if gallery is None else tuple(gallery),
            "validation": usual["validation"] if probes is None else tuple(probes),
        }


USUAL: dict[str, dict[Split, tuple[str, ...]]] = {
    "test": {
        "train": ("n01", "n02", "n03", "n04"),
        "validation": ("n05", "n06", "b01", "b02", "s01", "s02"),
    },
    "train": {
        "train": ("n01", "n02", "n03", "n04", "n05", "b01", "s01"),
        "validation": ("n06", "b02", "s02"),
    },
}


class TumGaid(Filmed[TumGaidOptions]):
    """See `energybench_plugins.gait.filmed.Filmed`."""

    name = NAME

    def choice(self) -> dict[str, object]:
        """See Filmed."""
        splits = self._options.splits
        return {"persons": self._options.persons, "gallery": splits["train"], "probes": splits["validation"]}

    def walks(self, root: Path) -> tuple[Sequence[str], Mapping[Split, Sequence[FilmedWalk]]]:
        """See Filmed. A person of whom there is no walk to train on is no class."""
        lists = None if self._options.lists is None else Path(self._options.lists).expanduser()
        there, splits = tum_walks(root), self._options.splits
        wanted = tum_persons(root, self._options.persons, lists)
        people = [person for person in wanted if any(name in there.get(person, {}) for name in splits["train"])]
        if not people:
            raise DataError(
                f"dataset.path={root}: no walk of its {len(wanted)} persons is there; "
                "give the folder that holds p001/n01/*.jpg or p001-n01.avi"
            )
        numbers = {(person, name): 0 for person in people for names in splits.values() for name in names}
        numbers = {key: number for number, key in enumerate(numbers)}
        return [f"p{person:03d}" for person in people], {
            split: [
                FilmedWalk(there[person][name], f"p{person:03d}-{name}", numbers[person, name], label)
                for label, person in enumerate(people)
                for name in names
                if name in there[person]
            ]
            for split, names in splits.items()
        }


def energybench_register_datasets(register: Register) -> None:
    """Registers `tum_gaid`."""
    register(NAME, TumGaid, TumGaidOptions)
