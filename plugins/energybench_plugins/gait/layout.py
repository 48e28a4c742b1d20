"""Where walks lie on disk: in TUM-GAID, and in any folder with one folder a person."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energybench.errors import DataError
from energybench_plugins.gait.video import grey_frames, images_of, is_walk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FRAMES_OF_A_VIDEO = 75
"""Guessed for what is shown of progress; a walk of TUM-GAID has about so many."""

TUM_PLACES = ("", "image", "images", "video", "videos", "TUMGAIDimage", "TUMGAIDimage/image")
"""Folders below the one that is given in which TUM-GAID's persons are looked for."""

TUM_PERSON = re.compile(r"p(\d{3})")
TUM_WALK = re.compile(r"[nbs]\d{2}")
"""n: normal, b: with a backpack, s: with coated shoes. Other folders of a person (back, back2) show nobody."""

TUM_FILE = re.compile(r"p(\d{3})-([nbs]\d{2})")
LISTS = {"train": ("tumgaidtrainids.lst", "tumgaidvalids.lst"), "test": ("tumgaidtestids.lst",)}
"""The data set's own lists of persons, 100 + 50 and 155."""

TUM_LIST_PLACES = ("", "labels", "label", "..", "../labels")


@dataclass(frozen=True)
class FilmedWalk:
    """See `energybench_plugins.gait.prepared_walks.Source`.

    Attributes:
        path: a folder of images or a video file.
    """

    path: Path
    name: str
    number: int
    label: int

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Reads them."""
        return grey_frames(self.path)

    @property
    def length(self) -> int:
        """Frames, or a guess."""
        return len(images_of(self.path)) if self.path.is_dir() else FRAMES_OF_A_VIDEO

    def stamp(self) -> list[Any]:
        """What tells it from another walk of that name: files, bytes and the time of the last change."""
        files = images_of(self.path) if self.path.is_dir() else [self.path]
        stats = [file.stat() for file in files]
        return [self.name, len(stats), sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)]


def tum_walks(root: Path) -> dict[int, dict[str, Path]]:
    """Number of the person -> 'n01' -> its folder or file.

    Taken are `p001/n01/` with images, `p001/n01.avi` and `p001-n01.avi`, in the folder itself or in `image`, `video`...
    """
    found: dict[int, dict[str, Path]] = {}
    for place in TUM_PLACES:
        folder = root / place
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if (person := TUM_PERSON.fullmatch(path.name)) is not None and path.is_dir():
                for walk in sorted(path.iterdir()):
                    if TUM_WALK.fullmatch(walk.stem) and is_walk(walk):
                        found.setdefault(int(person[1]), {}).setdefault(walk.stem, walk)
            elif (named := TUM_FILE.fullmatch(path.stem)) is not None and is_walk(path):
                found.setdefault(int(named[1]), {}).setdefault(named[2], path)
    return found


def tum_persons(root: Path, persons: str, lists: Path | None) -> list[int]:
    """The persons of TUM-GAID's own split, in rising order.

    Raises:
        DataError: its lists are not there or not readable.
    """
    places = [lists] if lists is not None else [root / place for place in TUM_LIST_PLACES]
    chosen: set[int] = set()
    for name in LISTS[persons]:
        path = next((place / name for place in places if (place / name).is_file()), None)
        if path is None:
            looked = ", ".join(str(place) for place in places)
            raise DataError(f"{name} is not in {looked}; it comes with TUM-GAID: set dataset.lists to its folder")
        try:
            chosen |= {int(word) for word in path.read_text(encoding="utf-8").split()}
        except ValueError as error:
            raise DataError(f"{path}: not a list of numbers of persons ({error})") from error
    return sorted(chosen)


def person_folders(root: Path) -> dict[str, list[Path]]:
    """Name of a folder, which is the person -> its walks, in the order of their names."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {folder.name: [path for path in sorted(folder.iterdir()) if is_walk(path)] for folder in folders}
    return {name: walks for name, walks in found.items() if walks}


def parts_of(walks: Sequence[FilmedWalk], size: int) -> Iterator[Sequence[FilmedWalk]]:
    """The walks in runs of at most `size`: what goes into one part each."""
    for start in range(0, len(walks), size):
        yield walks[start : start + size]
