"""From the frames of one walk to its maps and its samples: the one way that videos and made-up people go."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from energybench.availability import Availability
from energybench.errors import ConfigError
from energybench_plugins.gait.flow import MAP_HEIGHT, MAP_WIDTH, flow_map, flow_method
from energybench_plugins.gait.person import HOG_EVERY, PeopleDetector, between, look_frame, moving_columns
from energybench_plugins.gait.samples import NOBODY

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FINDERS = ("background", "hog")


@dataclass(frozen=True)
class Walk:
    """What is kept of a walk of F + 1 frames.

    Attributes:
        maps: (F, 2, 60, 80) uint8 between each frame and the next, see `flow.flow_map`.
        columns: (F,) int64, the map's column of the walker's centroid in the first frame of each, or NOBODY.
    """

    maps: NDArray[np.uint8]
    columns: NDArray[np.int64]


def require_finder(name: str) -> None:
    """Raises ConfigError for a name that is none of FINDERS."""
    if name not in FINDERS:
        raise ConfigError(f"dataset.finder={name!r}: give one of {', '.join(FINDERS)}")


def no_opencv() -> Availability | None:
    """What is missing where OpenCV is not installed; None where it is."""
    if find_spec("cv2") is not None:
        return None
    remedy = "pip install 'energybench[images]', or choose dataset=synthetic_gait"
    return Availability(False, "OpenCV is not installed, which finds motion", remedy)


def see(frames: Iterable[NDArray[np.uint8]], flow: str, finder: str) -> Walk:
    """Looks at the frames (H, W) uint8 of one walk in order, holding no two at full size for longer than it must.

    Args:
        frames: grey, all of one size.
        flow: see `flow.flow_method`.
        finder: `background`: what differs from the walk's median frame; `hog`: a detector of people.
    """
    import numpy as np

    method = flow_method(flow)
    detector = PeopleDetector() if finder == "hog" else None
    before: NDArray[np.uint8] | None = None
    looks, columns, maps = [], [], []
    for number, frame in enumerate(frames):
        if detector is None:
            looks.append(look_frame(frame))
        else:
            columns.append(math.nan if number % HOG_EVERY else detector.column(frame))
        if before is not None:
            maps.append(flow_map(method(before, frame)))
        before = frame
    found = (moving_columns(looks) if detector is None else between(np.array(columns)))[: len(maps)]
    places = np.where(np.isnan(found), NOBODY, np.floor(found * MAP_WIDTH)).astype(np.int64)
    return Walk(np.stack(maps) if maps else np.empty((0, 2, MAP_HEIGHT, MAP_WIDTH), np.uint8), places)
