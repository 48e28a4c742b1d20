"""ImageNet (ILSVRC-2012), or any set of JPEG files in a folder a class: from folders, RecordIO packs or prepared files.

Russakovsky et al.: ImageNet Large Scale Visual Recognition Challenge, IJCV 2015, doi 10.1007/s11263-015-0816-y. It must
not be passed on: it is read where the user has it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from energybench.architecture import Shape
from energybench.availability import Availability
from energybench.dataset import Dataset, DatasetInfo, Split
from energybench.errors import ConfigError, DataError, reason
from energybench.hookspecs import Register
from energybench.prepared import MANIFEST, Preparation, Prepared, Sample, Skipped

if TYPE_CHECKING:
    from energybench_plugins.datasets.image_files import ImageFiles, Packable

NAME = "imagenet"
FOLDER = "imagenet"
PREPARED = "energybench"
"""Folder of the prepared files, in the data set's own."""

DATA_VARIABLE = "ENERGYBENCH_DATA"
SPLITS: tuple[Split, ...] = ("train", "validation")
SOURCES = ("auto", "prepared", "folders", "records")
ON_CORRUPT = ("skip", "fail")
DECODERS = ("auto", "cpu", "gpu")
PART_BYTES = 128 * 1024**2
SAMPLE_BYTES = 128 * 1024
"""Of an image of ImageNet, about: a part has so many that it comes near to PART_BYTES."""

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""Of each channel over ImageNet's training images on a scale from 0 to 1, as torchvision's references have them."""

REMEDY = "set dataset.root to its folder (with train and val, or with .rec packs), or ENERGYBENCH_DATA to the one above"


@dataclass(frozen=True)
class ImagenetOptions:
    """Options of `dataset=imagenet`.

    Attributes:
        root: folder with `train` and `val`, or with one `.rec` pack for each; null: $ENERGYBENCH_DATA/imagenet.
        prepared: folder of the files that `energybench prepare` makes; null: `energybench` below root.
        source: what is read: prepared | folders | records; auto: the first of these that is there.
        classes: a file with the name of a class's folder in each line, in the order of their labels; those that it does
            not name are left out. null: all folders, sorted.
        on_corrupt: of an image that cannot be read: skip (it is named in unreadable.tsv and counted) | fail.
        decode: where JPEG files are decoded: cpu | gpu (by nvJPEG, engine torch) | auto.
        workers: threads that decode, over all workers of the run; null: as many as the run may use processors.
        ahead: batches that are decoded before they are asked for.
        resident: whether all images are decoded once, while the run loads, and kept on the devices: what fits there.
        scale: least and largest share of its area that a training view shows of an image.
        ratio: least and largest ratio of width to height of a training view.
        flip: probability that a training view is mirrored.
        centre: share of the shorter side that a validation view shows.
        mean: of each channel, on a scale from 0 to 1.
        std: of each channel, on the same scale.
        shorter_side: pixels to which `prepare` brings the shorter side of larger images; null: they stay as they are.
        quality: of the JPEG files that `prepare` writes.
    """

    root: str | None = None
    prepared: str | None = None
    source: str = "auto"
    classes: str | None = None
    on_corrupt: str = "skip"
    decode: str = "auto"
    workers: int | None = None
    ahead: int = 2
    resident: bool = False
    scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    ratio: list[float] = field(default_factory=lambda: [3 / 4, 4 / 3])
    flip: float = 0.5
    centre: float = 224 / 256
    mean: list[float] = field(default_factory=lambda: list(MEAN))
    std: list[float] = field(default_factory=lambda: list(STD))
    shorter_side: int | None = 256
    quality: int = 95

    def __post_init__(self) -> None:
        for key, names in (("source", SOURCES), ("on_corrupt", ON_CORRUPT), ("decode", DECODERS)):
            _require(getattr(self, key) in names, key, getattr(self, key), f"one of {', '.join(names)}")
        _require(self.workers is None or self.workers > 0, "workers", self.workers, "a whole number from 1, or null")
        _require(self.ahead >= 0, "ahead", self.ahead, "a whole number from 0")
        rising = len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1] <= 1
        _require(rising, "scale", self.scale, "two rising shares above 0, up to 1")
        rising = len(self.ratio) == 2 and 0 < self.ratio[0] <= self.ratio[1]
        _require(rising, "ratio", self.ratio, "two rising numbers above 0")
        _require(0 <= self.flip <= 1, "flip", self.flip, "a number from 0 to 1")
        _require(0 < self.centre <= 1, "centre", self.centre, "a number above 0, up to 1")
        _require(len(self.mean) == 3, "mean", self.mean, "three numbers")
        _require(len(self.std) == 3 and min(self.std) > 0, "std", self.std, "three numbers above 0")
        side = self.shorter_side
        _require(side is None or side > 0, "shorter_side", side, "a whole number above 0, or null")
        _require(0 < self.quality <= 100, "quality", self.quality, "a whole number from 1 to 100")


def _require(condition: bool, key: str, value: object, wanted: str) -> None:
    if not condition:
        raise ConfigError(f"dataset.{key}={value}: give {wanted}")


class Imagenet:
    """See `energybench.dataset.DatasetPlugin` and `energybench.prepared.Preparable`."""

    def __init__(self, options: ImagenetOptions) -> None:
        self._options = options

    def check(self) -> Availability:
        """What was found where, without a look at each image."""
        if missing := _missing_libraries():
            return Availability(False, f"{missing} is not installed", "pip install 'energybench[images]'")
        try:
            source = self._source()
        except DataError as error:
            detail, _, remedy = str(error).removeprefix(f"dataset {NAME!r}: ").partition("; ")
            return Availability(False, detail, remedy)
        return Availability(True, f"{source}, in {self._prepared if source == 'prepared' else self._root()}")

    def info(self) -> DatasetInfo:
        """See DatasetPlugin. Of packs each record is looked at, of folders each is listed."""
        counts = {split: len(files) for split, files in self._files.items()}
        return DatasetInfo(len(self._classes), True, counts["train"], counts.get("validation", 0))

    def open(self, input_shape: Shape, seed: int) -> Dataset:
        """Starts no thread yet."""
        from energybench.images import Normalisation
        from energybench_plugins.datasets.image_batches import Decoding, EncodedImages
        from energybench_plugins.datasets.views import CentreCrop, RandomCrop

        if input_shape[0] != 3:
            raise DataError(f"dataset {NAME!r} has 3 channels and the network takes {input_shape[0]}; choose another")
        options = self._options
        threads = options.workers or len(os.sched_getaffinity(0))
        return EncodedImages(
            self._files,
            input_shape,
            Normalisation(tuple(options.mean), tuple(options.std)),
            seed,
            Decoding(threads, options.decode, options.ahead, options.resident, options.on_corrupt == "skip"),
            RandomCrop((options.scale[0], options.scale[1]), (options.ratio[0], options.ratio[1]), options.flip),
            CentreCrop(options.centre),
        )

    def _root(self) -> Path:
        if self._options.root is not None:
            return Path(self._options.root).expanduser()
        data = os.environ.get(DATA_VARIABLE)
        if data is None:
            raise DataError(f"dataset {NAME!r}: no folder is named; {REMEDY}")
        return Path(data).expanduser() / FOLDER

    @property
    def _prepared(self) -> Path:
        given = self._options.prepared
        return Path(given).expanduser() if given is not None else self._root() / PREPARED

    def _source(self, among: Sequence[str] = SOURCES[1:]) -> str:
        """The kind of files that are read; raises DataError where they are not there."""
        wanted = self._options.source
        there = [name for name in among if wanted in ("auto", name) and self._has(name)]
        if not there:
            where = self._prepared if wanted == "prepared" else self._root()
            kind = "images" if wanted == "auto" else f"{wanted} (dataset.source)"
            raise DataError(f"dataset {NAME!r}: no {kind} found in {where}; {REMEDY}")
        return there[0]

    def _has(self, source: str) -> bool:
        from energybench_plugins.datasets.image_files import split_folder, split_pack

        if source == "prepared":
            given = self._options.prepared is not None
            return (given or self._rooted) and (self._prepared / MANIFEST).is_file()
        find = split_folder if source == "folders" else split_pack
        return self._rooted and find(self._root(), "train") is not None

    @property
    def _rooted(self) -> bool:
        return self._options.root is not None or DATA_VARIABLE in os.environ

    @cached_property
    def _files(self) -> Mapping[Split, ImageFiles]:
        """The images of each split that is there."""
        source = self._source()
        if source == "prepared":
            from energybench_plugins.datasets.image_files import PreparedImages

            opened = Prepared(self._prepared)
            there = [split for split in SPLITS if opened.count(split)]
            files: dict[Split, ImageFiles] = {
                split: PreparedImages(opened.open(split), f"{self._prepared} {split}") for split in there
            }
        else:
            files = dict(self._sources(source))
        if not len(files.get("train", ())):
            raise DataError(f"dataset {NAME!r}: {self._root()} holds no training image; {REMEDY}")
        return files

    def _sources(self, source: str) -> Mapping[Split, Packable]:
        from energybench_plugins.datasets.image_files import ClassFolders, RecordPack, split_folder, split_pack
        from energybench_plugins.datasets.recordio import RecordFile

        root = self._root()
        if source == "folders":
            folders = {split: folder for split in SPLITS if (folder := split_folder(root, split))}
            return {split: ClassFolders.found(folder, self._folders(folders)) for split, folder in folders.items()}
        packs = {split: pack for split in SPLITS if (pack := split_pack(root, split))}
        return {split: RecordPack(RecordFile(pack)) for split, pack in packs.items()}

    def _folders(self, folders: Mapping[Split, Path]) -> list[str]:
        """Names of the classes, which every split must have."""
        from energybench_plugins.datasets.image_files import class_folders

        listed = self._listed
        names = class_folders(folders["train"]) if listed is None else listed
        for folder in folders.values():
            missing = sorted(set(names) - set(class_folders(folder)))
            if missing:
                raise DataError(
                    f"dataset {NAME!r}: {folder} lacks {len(missing)} of {len(names)} classes: {missing[0]}"
                )
        return names

    @cached_property
    def _listed(self) -> list[str] | None:
        """The classes that the user has named."""
        from energybench_plugins.datasets.image_files import class_list

        given = self._options.classes
        return None if given is None else class_list(Path(given).expanduser())

    @cached_property
    def _classes(self) -> list[str]:
        """Names of the classes in the order of their labels; of a pack that has none, their numbers."""
        source, listed = self._source(), self._listed
        if source == "prepared":
            packed: list[str] = Prepared(self._prepared).manifest.about["classes"]
            if listed is not None and listed != packed:
                raise DataError(f"dataset.classes={self._options.classes}: {self._prepared} was prepared with others")
            return packed
        if source == "folders":
            return self._folders({split: files.root for split, files in self._files.items()})  # type: ignore[attr-defined]
        highest = max(int(files.labels.max(initial=0)) for files in self._files.values())
        if listed is not None and highest >= len(listed):
            raise DataError(f"dataset.classes={self._options.classes}: {len(listed)} names, and a label is {highest}")
        return listed or [str(label) for label in range(highest + 1)]

    def preparation(self) -> Preparation:
        """See Preparable."""
        if missing := _missing_libraries():
            raise DataError(f"dataset {NAME!r}: {missing} is not installed; pip install 'energybench[images]'")
        options = self._options
        if options.source == "prepared":
            raise DataError(
                "dataset.source=prepared: what is prepared is not prepared again; use folders, records or auto"
            )
        source = self._source(among=SOURCES[2:])
        plain = Imagenet(replace(options, source=source))
        files = plain._sources(source)
        made_of = {
            "source": source,
            "images": {split: images.fingerprint() for split, images in files.items()},
            "classes": hashlib.sha256("\n".join(plain._classes).encode()).hexdigest(),
            "shorter_side": options.shorter_side,
            "quality": options.quality,
        }
        about = {"classes": plain._classes}
        jobs = [job for split, images in files.items() for job in _jobs(split, images, options)]
        return Preparation(NAME, self._prepared, made_of, about, jobs)


@dataclass(frozen=True)
class PackJob:
    """See `energybench.prepared.PartJob`: images brought to one length of their shorter side."""

    split: Split
    files: Packable
    shorter_side: int | None
    quality: int
    skip: bool

    @property
    def expected(self) -> int:
        """See PartJob."""
        return len(self.files)

    def samples(self) -> Iterator[Sample | Skipped]:
        """See PartJob."""
        from energybench_plugins.datasets import jpeg

        jpeg.one_thread_each()
        for number, label in enumerate(self.files.labels.tolist()):
            try:
                data = jpeg.resized(self.files.read(number), self.shorter_side, self.quality)
                height, width = jpeg.size(data)
            except (DataError, OSError) as error:
                if not self.skip:
                    raise DataError(f"{self.files.name(number)}: {reason(error)}") from error
                yield Skipped(self.files.name(number), reason(error))
                continue
            yield Sample(data, {"label": label, "height": height, "width": width})


def _jobs(split: Split, files: Packable, options: ImagenetOptions) -> Iterator[PackJob]:
    each = PART_BYTES // SAMPLE_BYTES
    for start in range(0, len(files), each):
        part = files.part(start, min(start + each, len(files)))
        yield PackJob(split, part, options.shorter_side, options.quality, options.on_corrupt == "skip")


def _missing_libraries() -> str:
    """Names of the libraries that decode and are not installed."""
    needed = {"simplejpeg": "simplejpeg", "cv2": "opencv-python"}
    return ", ".join(name for module, name in needed.items() if find_spec(module) is None)


def energybench_register_datasets(register: Register) -> None:
    """Registers `imagenet`."""
    register(NAME, Imagenet, ImagenetOptions)
