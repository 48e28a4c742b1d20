"""Where the walker is: the column of the centroid, frame by frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LOOK_HEIGHT, LOOK_WIDTH = 120, 160
"""Rows and columns of the small frames that the walker is looked for in."""

BACKGROUND_FRAMES = 41
"""Most frames of a walk whose median is its background."""

LEAST_CONTRAST = 12.0
"""Grey levels by which a pixel must differ from the background, however quiet the camera is."""

NOISES = 6.0
"""And in standard deviations of the camera's noise."""

LEAST_SHARE = 0.005
"""Of all pixels: what differs in fewer is no person."""

HOG_EVERY = 5
"""Frames from one search for a person to the next, between which the walker goes evenly."""

HOG_HEIGHT = 240
"""Rows of the frames that are searched: the detector's person is 96 rows high."""


def look_frame(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame (H, W), small: (120, 160) uint8."""
    import cv2

    look: NDArray[np.uint8] = cv2.resize(frame, (LOOK_WIDTH, LOOK_HEIGHT), interpolation=cv2.INTER_AREA)
    return look


def moving_columns(looks: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """The column of what moves before a still background, as a share of the width; nan where nothing does.

    Args:
        looks: small frames (120, 160) uint8 of one walk.

    Returns:
        (frames,) float64, 0 to 1: the centroid of the largest region that differs from the walk's median frame.
    """
    import numpy as np

    chosen = np.unique(np.linspace(0, len(looks) - 1, min(BACKGROUND_FRAMES, len(looks))).astype(int))
    background = _median(np.stack([looks[index] for index in chosen]))
    return np.array([_column(look, background) for look in looks])


def _median(values: NDArray[np.uint8]) -> Any:
    """The upper median along the first axis; several times faster than what makes it a float."""
    import numpy as np

    middle = len(values) // 2
    return np.partition(values, middle, axis=0)[middle]


def _column(look: NDArray[np.uint8], background: NDArray[np.uint8]) -> float:
    import cv2
    import numpy as np

    differences = cv2.absdiff(look, background)
    noise = 1.4826 * float(_median(differences.reshape(-1)))  # of a normal distribution, from its median magnitude
    _, mask = cv2.threshold(differences, max(LEAST_CONTRAST, NOISES * noise), 1, cv2.THRESH_BINARY)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((13, 7), np.uint8))  # joins limbs, above one another first
    _, _, regions, centroids = cv2.connectedComponentsWithStats(mask)
    areas = regions[1:, cv2.CC_STAT_AREA]
    if not len(areas) or areas.max() < LEAST_SHARE * look.size:
        return math.nan
    return float(centroids[1 + areas.argmax(), 0] + 0.5) / look.shape[1]


class PeopleDetector:
    """Finds people by histograms of oriented gradients (Dalal and Triggs, 2005), where the camera moves too."""

    def __init__(self) -> None:
        import cv2

        self._hog: Any = cv2.HOGDescriptor()
        self._hog.setSVMDetector(cv2.HOGDescriptor.getDefaultPeopleDetector())

    def column(self, frame: NDArray[np.uint8]) -> float:
        """The column of the surest person in a frame (H, W), as a share of the width; nan where there is none."""
        import cv2

        height, width = frame.shape
        small = cv2.resize(frame, (round(width * HOG_HEIGHT / height), HOG_HEIGHT), interpolation=cv2.INTER_AREA)
        boxes, weights = self._hog.detectMultiScale(small, winStride=(8, 8), padding=(16, 16), scale=1.05)
        if not len(boxes):
            return math.nan
        left, _, wide, _ = boxes[weights.argmax()]
        return float(left + wide / 2) / float(small.shape[1])


def between(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fills the frames between two searches that both found somebody: (frames,) with nan -> (frames,)."""
    import numpy as np

    filled = columns.copy()
    found = np.flatnonzero(~np.isnan(columns))
    for first, second in pairwise(found):
        if second - first <= HOG_EVERY:
            filled[first : second + 1] = np.linspace(columns[first], columns[second], second - first + 1)
    return filled
