"""Which 25 maps make a sample, and where each is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energybench_plugins.gait.flow import MAP_WIDTH, STILL

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FRAMES = 25
"""Maps of a sample."""

STEP = 5
"""Maps from one sample's first to the next's."""

SIDE = 60
"""Rows and columns of a sample; of a map's rows all are taken."""

CENTRE = 30
"""Column of a sample at which the walker's centroid is, in the middle frame."""

NOBODY = -1
"""Instead of a column."""

LEAST_SEEN = 0.8
"""Share of a sample's frames in which the walker must have been found."""


def windows(columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """The samples of one walk.

    Args:
        columns: (maps,) int64, the map's column of the walker's centroid; NOBODY where nobody was found.

    Returns:
        (samples, 2) int64: number of the first map, and the map's column that becomes the sample's first (it may be
        negative). A sample whose middle frame shows nobody, or in which the walker is seen too seldom, is left out.
    """
    import numpy as np

    seen = columns != NOBODY
    chosen = []
    for first in range(0, len(columns) - FRAMES + 1, STEP):
        middle = first + FRAMES // 2
        if seen[middle] and seen[first : first + FRAMES].mean() >= LEAST_SEEN:
            chosen.append((first, columns[middle] - CENTRE))
    return np.array(chosen, np.int64).reshape(-1, 2)


def cut(maps: NDArray[np.uint8], left: int, out: NDArray[np.uint8], *, mirrored: bool = False) -> None:
    """Writes one sample.

    Args:
        maps: (25, 2, 60, 80) uint8, the maps of a window.
        left: the map's column that becomes the sample's first; beyond the map's edges nothing moves.
        out: (25, 2, 60, 60) uint8, written to: as (50, 60, 60) its maps are x, y, x, y, ...
        mirrored: as if the walker went the other way: columns turned round, and x with the opposite sign.
    """
    start, end = max(left, 0), min(left + SIDE, MAP_WIDTH)
    if start > left or end < left + SIDE:
        out.fill(STILL)
    target = out[..., ::-1] if mirrored else out
    target[..., start - left : end - left] = maps[..., start:end]
    if mirrored:
        x = out[:, 0]
        x[...] = -x  # of a byte around 128 the mirror image is 256 less it, which is what bytes make of a minus
