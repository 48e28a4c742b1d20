"""Dense optical flow as maps of bytes: what two frames say of motion, in little room."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from energybench.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAP_HEIGHT, MAP_WIDTH = 60, 80
"""Rows and columns of a map."""

STILL = 128
"""The byte that means no motion."""

LEVELS = 16
"""Steps a pixel of the map: motion is rounded to 1/16 and cut at 127/16; of a 640 wide video, 0.5 and 63 pixels."""

QUIET = 1
"""Steps up to which motion is taken for none: twice what a still background seems to move by, of a camera's noise."""

FARNEBACK = {
    "pyr_scale": 0.5, "levels": 3, "winsize": 15, "iterations": 3, "poly_n": 5, "poly_sigma": 1.2, "flags": 0,
}  # fmt: skip
"""The parameters of OpenCV's own example of dense flow."""

Method = Callable[["NDArray[np.uint8]", "NDArray[np.uint8]"], "NDArray[np.float32]"]


def flow_method(name: str) -> Method:
    """The function that takes two grey frames (H, W) uint8 to the motion between them (H, W, 2) float32, in pixels.

    `dis_fast`, `dis_medium` and `dis_ultrafast` are the presets of Dense Inverse Search (Kroeger et al., ECCV 2016),
    `farneback` is that of Farnebäck (SCIA 2003).
    """
    import cv2

    if name == "farneback":
        farneback: Any = cv2.calcOpticalFlowFarneback
        return lambda before, after: farneback(before, after, None, **FARNEBACK)
    search: Any = cv2.DISOpticalFlow.create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{name.removeprefix('dis_').upper()}"))
    return lambda before, after: search.calc(before, after, None)


FLOWS = ("dis_ultrafast", "dis_fast", "dis_medium", "farneback")


def require_flow(name: str) -> None:
    """Raises ConfigError for a name that is none of FLOWS."""
    if name not in FLOWS:
        raise ConfigError(f"dataset.flow={name!r}: give one of {', '.join(FLOWS)}")


def flow_map(motion: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Motion (H, W, 2) in pixels of its frame -> (2, 60, 80), x then y, in bytes a pixel of the map around STILL.

    The mean of each region is what a map's pixel gets. A byte is never 0, so that 256 - byte is the motion mirrored.
    """
    import cv2
    import numpy as np

    height, width = motion.shape[:2]
    small = cv2.resize(motion, (MAP_WIDTH, MAP_HEIGHT), interpolation=cv2.INTER_AREA)
    small *= np.array([LEVELS * MAP_WIDTH / width, LEVELS * MAP_HEIGHT / height], np.float32)
    np.clip(np.rint(small, out=small), 1 - STILL, STILL - 1, out=small)
    small[np.abs(small) <= QUIET] = 0
    return np.ascontiguousarray((small + STILL).astype(np.uint8).transpose(2, 0, 1))


def motion_of(maps: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The inverse: bytes of any shape -> pixels of the map, float32."""
    return (maps.astype("float32") - STILL) / LEVELS
