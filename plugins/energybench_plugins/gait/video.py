"""Frames of a walk: a folder of images, or a video file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from energybench.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IMAGES = (".jpg", ".jpeg", ".png")
VIDEOS = (".avi", ".mp4", ".mpg", ".mpeg", ".mov", ".mkv", ".webm")


def is_walk(path: Path) -> bool:
    """Whether a folder holds images, or a file is called as videos are."""
    return bool(images_of(path)) if path.is_dir() else path.suffix.lower() in VIDEOS


def images_of(folder: Path) -> list[Path]:
    """The images of a folder in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES)


def grey_frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Every frame (H, W) uint8, all of one size.

    Raises:
        DataError: a frame cannot be read or is of another size, or there is none.
    """
    shape: tuple[int, ...] | None = None
    for name, frame in _of_images(path) if path.is_dir() else _of_video(path):
        if shape is not None and frame.shape != shape:
            sizes = " and ".join(f"{width}x{height}" for height, width in (shape, frame.shape))
            raise DataError(f"{name}: frames of {sizes} pixels in one walk; take one of them away")
        shape = frame.shape
        yield frame
    if shape is None:
        raise DataError(f"{path}: no frame can be read; is it a video that OpenCV can decode?")


def _of_images(folder: Path) -> Iterator[tuple[Path, NDArray[np.uint8]]]:
    import cv2

    for path in images_of(folder):
        frame = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if frame is None:
            raise DataError(f"{path}: not an image that can be read; copy it again, or take it away")
        yield path, frame


def _of_video(path: Path) -> Iterator[tuple[Path, NDArray[np.uint8]]]:
    import cv2

    video = cv2.VideoCapture(str(path))
    try:
        while True:
            there, frame = video.read()
            if not there:
                return
            yield path, cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    finally:
        video.release()
