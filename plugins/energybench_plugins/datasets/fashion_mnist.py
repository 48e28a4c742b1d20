"""Fashion-MNIST: 70,000 grey pictures of clothes, 28x28 pixels, ten classes.

Xiao, Rasul, Vollgraf: Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms, 2017,
https://github.com/zalandoresearch/fashion-mnist, MIT licence. Its training set is the training split here, its test
set the validation split.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from energybench.architecture import Shape
from energybench.availability import Availability
from energybench.dataset import Dataset, DatasetInfo, Split
from energybench.errors import ConfigError, DataError
from energybench.hookspecs import Register
from energybench_plugins.datasets import idx
from energybench_plugins.datasets.download import fetch, user_cache

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "fashion_mnist"
FOLDER = "fashion-mnist"
CLASSES = 10
PIXELS = (28, 28)

DATA_VARIABLE = "ENERGYBENCH_DATA"
"""Environment variable: a folder with one folder for each data set."""

DEBIAN_FOLDER = Path("/usr/share/datasets") / FOLDER
"""Where Debian's package dataset-fashion-mnist puts the files."""

FILES: dict[Split, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "validation": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""Split -> its images and its labels; each may also be gzipped, with .gz behind its name."""

URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
"""Where the README of the data set has them downloaded from."""

SHA256 = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
"""Of the published files, whose MD5 sums the README gives (Debian's hold the same, compressed anew)."""

MEAN, STD = 0.28604, 0.35302
"""Of all pixels of the 60,000 training images, on a scale from 0 to 1."""

REMEDY = "apt-get install dataset-fashion-mnist, or set dataset.download=true, or dataset.path to their folder"


@dataclass(frozen=True)
class FashionMnistOptions:
    """Options of `dataset=fashion_mnist`.

    Attributes:
        path: folder with the four files; null: they are looked for.
        download: whether they are downloaded where they are not found: to `path`, else to the user's cache.
        url: address of the folder they are downloaded from.
        train_images: so many, the first in the file; null: all.
        validation_images: so many, the first in the file; null: all.
        cache_gb: 10^9 bytes on disk that resized images may take in the user's cache; 0: resize batch by batch.
        resident: whether all images are brought to the network's size while the run loads, and kept on the devices as
            bytes of one channel: what fits there.
    """

    path: str | None = None
    download: bool = False
    url: str = URL
    train_images: int | None = None
    validation_images: int | None = None
    cache_gb: float = 4.0
    resident: bool = False

    def __post_init__(self) -> None:
        for key, least in (("train_images", 1), ("validation_images", 0)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise ConfigError(f"dataset.{key}={value}: give a whole number from {least}, or null for all")
        if self.cache_gb < 0:
            raise ConfigError(f"dataset.cache_gb={self.cache_gb}: give a number from 0, in 10^9 bytes")


class FashionMnist:
    """See `energybench.dataset.DatasetPlugin`."""

    def __init__(self, options: FashionMnistOptions) -> None:
        self._options = options

    def check(self) -> Availability:
        """Where the files were found, or how to get them."""
        folder = _first_complete(self._places())
        if folder is None and self._options.download:
            return Availability(True, f"to be downloaded from {self._options.url} to {self._places()[-1]}")
        if folder is None:
            return Availability(False, self._missing(), REMEDY)
        try:
            found = {split: _count(folder, split) for split in FILES}
        except DataError as error:
            return Availability(False, str(error))
        return Availability(True, f"{found['train']:,} + {found['validation']:,} images of 28x28 pixels in {folder}")

    def info(self) -> DatasetInfo:
        """See DatasetPlugin. Downloads the files where that is asked for and needed: before anything is measured."""
        folder = self._folder()
        sizes: dict[Split, int] = {split: self._wanted(split, _count(folder, split)) for split in FILES}
        return DatasetInfo(CLASSES, True, sizes["train"], sizes["validation"])

    def open(self, input_shape: Shape, seed: int) -> Dataset:
        """Pixels with mean 0 and standard deviation 1 over the training images, brought to `input_shape`."""
        from energybench.image_cache import ResizedImages
        from energybench.images import ImageDataset, Normalisation

        folder = self._folder()
        limit_bytes = round(self._options.cache_gb * 1e9)
        cache = ResizedImages(user_cache() / "resized", NAME, limit_bytes) if limit_bytes else None
        splits = {split: self._read(folder, split) for split in FILES}
        normalisation, resident = Normalisation((MEAN,), (STD,)), self._options.resident
        return ImageDataset(NAME, splits, input_shape, normalisation, seed, cache, resident=resident)

    def _read(self, folder: Path, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        wanted = self._wanted(split, _count(folder, split))
        images, labels = (idx.read(_present(folder, name), axes) for name, axes in _axes(split))
        if len(labels) and labels.max() >= CLASSES:
            raise DataError(f"{_present(folder, FILES[split][1])}: label {labels.max()} of {CLASSES} classes from 0")
        return images[:wanted, None], labels[:wanted].astype("int64")

    def _wanted(self, split: Split, there: int) -> int:
        key = f"{split}_images"
        limit: int | None = getattr(self._options, key)
        if limit is not None and limit > there:
            raise DataError(f"dataset.{key}={limit}: there are {there:,}; give at most so many, or null for all")
        return there if limit is None else limit

    def _places(self) -> list[Path]:
        """Folders to look in; the last is downloaded to."""
        if self._options.path is not None:
            return [Path(self._options.path).expanduser()]
        data = os.environ.get(DATA_VARIABLE)
        return [*([Path(data).expanduser() / FOLDER] if data else []), DEBIAN_FOLDER, user_cache() / FOLDER]

    def _folder(self) -> Path:
        folder = _first_complete(self._places())
        if folder is None and self._options.download:
            folder = self._places()[-1]
            for name in _absent(folder):
                fetch(f"{self._options.url.rstrip('/')}/{name}.gz", SHA256[f"{name}.gz"], folder / f"{name}.gz")
        if folder is None:
            raise DataError(f"dataset {NAME!r}: {self._missing()}; {REMEDY}")
        return folder

    def _missing(self) -> str:
        places = self._places()
        if len(places) == 1 and places[0].is_dir():
            return f"{places[0]} lacks {', '.join(f'{name}[.gz]' for name in _absent(places[0]))}"
        return f"not found in {', '.join(map(str, places))}"


def _axes(split: Split) -> tuple[tuple[str, int], tuple[str, int]]:
    """The files of a split and how many dimensions each has."""
    images, labels = FILES[split]
    return (images, 3), (labels, 1)


def _count(folder: Path, split: Split) -> int:
    """Images of a split by the headers of its two files, which must agree."""
    (images, *pixels), (labels,) = (idx.read_sizes(_present(folder, name), axes) for name, axes in _axes(split))
    if tuple(pixels) != PIXELS:
        path = _present(folder, FILES[split][0])
        raise DataError(f"{path}: images of {'x'.join(map(str, pixels))} pixels, not 28x28; {idx.REMEDY}")
    if images != labels:
        raise DataError(f"{folder}: {images:,} images of the {split} split have {labels:,} labels; {idx.REMEDY}")
    return images


def _first_complete(places: list[Path]) -> Path | None:
    return next((folder for folder in places if not _absent(folder)), None)


def _absent(folder: Path) -> list[str]:
    return [name for names in FILES.values() for name in names if _file(folder, name) is None]


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _present(folder: Path, name: str) -> Path:
    path = _file(folder, name)
    if path is None:
        raise DataError(f"{folder / name}[.gz]: gone; {REMEDY}")
    return path


def energybench_register_datasets(register: Register) -> None:
    """Registers `fashion_mnist`."""
    register(NAME, FashionMnist, FashionMnistOptions)
