"""Where images lie: in a folder a class, in RecordIO packs, or packed by `energybench prepare`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from energybench.dataset import Split
from energybench.errors import DataError
from energybench.prepared import PreparedSplit
from energybench_plugins.datasets.recordio import RecordFile

SUFFIXES = (".jpeg", ".jpg", ".png")
FOLDERS: dict[Split, tuple[str, ...]] = {"train": ("train",), "validation": ("val", "validation")}
"""Split -> what its folder, or its pack, may be called."""


class ImageFiles(Protocol):
    """The encoded images of one split; may be read by several threads at once."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) int64."""

    def __len__(self) -> int:
        """How many."""

    def read(self, number: int) -> bytes | memoryview | NDArray[np.uint8]:
        """The file of an image; raises DataError or OSError where it cannot be read."""

    def name(self, number: int) -> str:
        """By which a user finds it."""

    def sizes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Heights and widths, each (n,) int64, where they are known without a look at each file."""


class Packable(ImageFiles, Protocol):
    """Images that can be packed anew."""

    def part(self, start: int, end: int) -> Packable:
        """Those from `start` to before `end`, for another process."""

    def fingerprint(self) -> str:
        """Tells these images from others, without a look into each."""


@dataclass(frozen=True)
class ClassFolders:
    """One folder a class.

    Attributes:
        root: with a folder for each class.
        names: paths of the images below root.
        labels: (n,) int64.
    """

    root: Path
    names: list[str]
    labels: NDArray[np.int64]

    @classmethod
    def found(cls, root: Path, classes: Sequence[str]) -> ClassFolders:
        """All images of `classes`, the names of folders in the order of their labels."""
        listed = [[f"{name}/{file}" for file in images_in(root / name)] for name in classes]
        labels = np.repeat(np.arange(len(classes)), [len(files) for files in listed])
        return cls(root, [name for files in listed for name in files], labels.astype(np.int64))

    def __len__(self) -> int:
        return len(self.names)

    def read(self, number: int) -> bytes:
        """See ImageFiles."""
        return Path(self.name(number)).read_bytes()

    def name(self, number: int) -> str:
        """Its path."""
        return f"{self.root}/{self.names[number]}"

    def sizes(self) -> None:
        """In the files alone."""

    def part(self, start: int, end: int) -> ClassFolders:
        """See Packable."""
        return ClassFolders(self.root, self.names[start:end], self.labels[start:end])

    def fingerprint(self) -> str:
        """Of all names."""
        return hashlib.sha256("\n".join(self.names).encode(errors="surrogateescape")).hexdigest()


@dataclass(frozen=True)
class RecordPack:
    """An `im2rec` pack.

    Attributes:
        file: the `.rec` file.
    """

    file: RecordFile

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Of all records, each of which is looked at."""
        return np.array([self.file.image(number).label for number in range(len(self))], np.int64)

    def __len__(self) -> int:
        return len(self.file)

    def read(self, number: int) -> memoryview:
        """See ImageFiles."""
        return self.file.image(number).data

    def name(self, number: int) -> str:
        """The pack and where in it the record lies."""
        return f"{self.file.path}, record at byte {self.file.offsets[number]}"

    def sizes(self) -> None:
        """In the images alone."""

    def part(self, start: int, end: int) -> RecordPack:
        """See Packable."""
        return RecordPack(RecordFile(self.file.path, self.file.offsets[start:end]))

    def fingerprint(self) -> str:
        """Of where its records lie."""
        return hashlib.sha256(np.array(self.file.offsets, np.int64).tobytes()).hexdigest()


class PreparedImages:
    """What `energybench prepare` has packed.

    Args:
        split: of the prepared files.
        name: of the folder and the split, for messages.
    """

    def __init__(self, split: PreparedSplit, name: str) -> None:
        self._split = split
        self._name = name
        self.labels = split.numbers("label")

    def __len__(self) -> int:
        return len(self._split)

    def read(self, number: int) -> NDArray[np.uint8]:
        """See ImageFiles."""
        return self._split[number]

    def name(self, number: int) -> str:
        """The split and the number in it."""
        return f"{self._name}, sample {number}"

    def sizes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As they were packed."""
        return self._split.numbers("height"), self._split.numbers("width")


def split_folder(root: Path, split: Split) -> Path | None:
    """The folder of a split, if there is one."""
    return next((root / name for name in FOLDERS[split] if (root / name).is_dir()), None)


def split_pack(root: Path, split: Split) -> Path | None:
    """The one `.rec` file whose name speaks of the split; raises DataError where there are several."""
    found = sorted(path for name in FOLDERS[split] for path in root.glob(f"*{name}*.rec"))
    found = list(dict.fromkeys(found))
    if len(found) > 1:
        raise DataError(f"{root}: several packs for the {split} split: {', '.join(path.name for path in found)}")
    return found[0] if found else None


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in it, sorted as torchvision and im2rec number them."""
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}") from error


def images_in(folder: Path) -> list[str]:
    """Names of the images in a folder, sorted."""
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(SUFFIXES))
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}; give a class list that fits the folders") from error


def class_list(path: Path) -> list[str]:
    """The first word of each line of a file: `n01440764 tench, Tinca tinca`; empty lines and those with # do not count.

    Raises:
        DataError: it cannot be read, names nothing, or names a class twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"dataset.classes={path}: {error}") from error
    names = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise DataError(f"dataset.classes={path}: names no class; write one a line")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"dataset.classes={path}: {twice!r} stands there twice")
    return names
