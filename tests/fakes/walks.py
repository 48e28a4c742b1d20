"""Made-up walks written to disk as gait data sets lay them out: folders of JPEG, or video files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from energybench_plugins.datasets.walkers import MadeUpWalk, WalkersOptions

FRAMES = 36
SAMPLES = 3
"""Of a walk of so many frames, all of them with somebody."""

OPTIONS = WalkersOptions(persons=400, frames=FRAMES, flow="dis_ultrafast")


def frames_of(label: int, name: str = "n01", place: int = 0):
    """Frames (240, 320) uint8 of one walk."""
    return MadeUpWalk(OPTIONS, label, place, f"w-{name}", 0).frames()


def as_images(folder: Path, frames) -> None:
    """`001.jpg`, `002.jpg`, ... in colour, 640x480 as TUM-GAID's."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, start=1):
        cv2.imwrite(str(folder / f"{number:03d}.jpg"), cv2.cvtColor(_large(frame), cv2.COLOR_GRAY2BGR))


def as_video(path: Path, frames) -> None:
    """A video file of 640x480 pixels, in motion JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30.0, (640, 480))
    assert video.isOpened()
    for frame in frames:
        video.write(cv2.cvtColor(_large(frame), cv2.COLOR_GRAY2BGR))
    video.release()


def _large(frame: np.ndarray) -> np.ndarray:
    return cv2.resize(frame, (640, 480), interpolation=cv2.INTER_LINEAR)
