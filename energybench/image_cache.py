"""Resized images on disk: brought to a size once, copied from then on."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from energybench.architecture import Shape
from energybench.dataset import Split
from energybench.resizing import BLOCK_PIXELS, METHOD, resize
from energybench.whole import PARTIAL, whole

log = logging.getLogger(__name__)

STALE_S = 3600.0
"""Seconds without a write after which a file that was being written has no writer any more."""


class ResizedImages:
    """Images brought to other sizes, kept on disk as memory-mapped bytes.

    Files are found by the bytes they were made of. Those of one data set and size are made together or not at all;
    to make room the files that have not been used for longest are removed.

    Args:
        folder: where the files are; made when it is needed.
        name: of the data set; file names begin with it.
        limit_bytes: most that all files of the folder may take.
    """

    def __init__(self, folder: Path, name: str, limit_bytes: int) -> None:
        self._folder = folder
        self._name = name
        self._limit_bytes = limit_bytes

    def resized(
        self, splits: dict[Split, NDArray[np.uint8]], height: int, width: int
    ) -> dict[Split, NDArray[np.uint8]] | None:
        """The images (N, C, H, W) of each split as (N, C, height, width), read-only; None where there is no room.

        What is not on disk yet is made here, which takes seconds for each gigabyte.
        """
        total = sum(len(images) * images.shape[1] * height * width for images in splits.values())
        if total > self._limit_bytes:
            self._say(f"{total / 1e9:.2f} GB do not fit into a cache of {self._limit_bytes / 1e9:g} GB")
            return None
        paths = {split: self._path(images, height, width) for split, images in splits.items()}
        try:
            self._complete(splits, paths, height, width)
            return {split: _load(paths[split], _resized(images, height, width)) for split, images in splits.items()}
        except (OSError, ValueError, EOFError) as error:
            self._say(f"{self._folder}: {error}")
            return None

    def _say(self, reason: str) -> None:
        log.warning("%s: images are resized batch by batch, at the cost of every epoch: %s", self._name, reason)

    def _path(self, images: NDArray[np.uint8], height: int, width: int) -> Path:
        made_of = hashlib.sha256(f"{METHOD} {images.shape}".encode())
        made_of.update(np.ascontiguousarray(images).data)
        return self._folder / f"{self._name}-{height}x{width}-{made_of.hexdigest()[:16]}.npy"

    def _complete(
        self, splits: dict[Split, NDArray[np.uint8]], paths: dict[Split, Path], height: int, width: int
    ) -> None:
        shapes = {split: _resized(images, height, width) for split, images in splits.items()}
        missing = [split for split in splits if not _usable(paths[split], shapes[split])]
        if not missing:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._make_room(sum(int(np.prod(shapes[split])) for split in missing), set(paths.values()))
        for split in missing:
            _write(paths[split], splits[split], height, width)

    def _make_room(self, wanted: int, needed: set[Path]) -> None:
        """Removes files other than `needed`, oldest first, until `wanted` bytes more keep to the limit."""
        for partial in self._folder.glob(PARTIAL):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - partial.stat().st_mtime > STALE_S:
                    partial.unlink()
        files = {path: path.stat() for path in self._folder.glob("*.npy")}
        total = sum(file.st_size for file in files.values())
        for path in sorted(set(files) - needed, key=lambda path: files[path].st_mtime):
            if total + wanted <= self._limit_bytes:
                break
            path.unlink(missing_ok=True)
            total -= files[path].st_size
        free = shutil.disk_usage(self._folder).free
        if free < 2 * wanted:  # the disk is others' too
            raise OSError(errno.ENOSPC, f"{wanted / 1e9:.2f} GB are wanted and {free / 1e9:.2f} GB free")


def _resized(images: NDArray[np.uint8], height: int, width: int) -> Shape:
    return (*images.shape[:2], height, width)


def _usable(path: Path, shape: Shape) -> bool:
    try:
        _load(path, shape)
    except (OSError, ValueError, EOFError):
        return False
    with contextlib.suppress(OSError):  # others' files can be read and not touched
        os.utime(path)
    return True


def _load(path: Path, shape: Shape) -> NDArray[np.uint8]:
    found = np.load(path, mmap_mode="r")
    if found.shape != shape or found.dtype != np.uint8:
        raise ValueError(f"{path.name} holds {found.dtype} of {found.shape}")
    return np.asarray(found)


def _write(path: Path, images: NDArray[np.uint8], height: int, width: int) -> None:
    """Resizes block by block into a file that appears when it is complete."""
    shape = _resized(images, height, width)
    write_header: Callable[..., None] = np.lib.format.write_array_header_1_0
    with whole(path, shared=True) as file:
        write_header(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        step = max(BLOCK_PIXELS // int(np.prod(shape[1:])), 1)
        for start in range(0, len(images), step):
            file.write(resize(images[start : start + step], height, width).data)
