"""Which maps make a sample, where they are cut, and what a mirror makes of them."""

from __future__ import annotations

import numpy as np

from energybench_plugins.gait.flow import STILL, motion_of
from energybench_plugins.gait.samples import NOBODY, cut, windows


def test_a_sample_begins_every_five_maps_and_takes_twenty_five() -> None:
    columns = np.arange(40)
    found = windows(columns)
    assert found.tolist() == [[0, 12 - 30], [5, 17 - 30], [10, 22 - 30], [15, 27 - 30]]
    assert windows(columns[:25]).tolist() == [[0, -18]]
    assert windows(columns[:24]).shape == (0, 2)


def test_the_walker_must_be_found_in_the_middle_and_in_four_fifths() -> None:
    columns = np.full(25, 40)
    columns[[0, 1, 2, 3, 24]] = NOBODY
    assert len(windows(columns)) == 1
    columns[23] = NOBODY
    assert len(windows(columns)) == 0
    columns[:] = 40
    columns[12] = NOBODY
    assert len(windows(columns)) == 0


def maps(column: int) -> np.ndarray:
    """25 maps of which one column moves to the right and down, each map by more than the one before."""
    made = np.full((25, 2, 60, 80), STILL, np.uint8)
    made[:, 0, :, column] = STILL + 1 + np.arange(25)[:, None]
    made[:, 1, :, column] = STILL + 60
    return made


def test_the_walker_s_column_comes_to_the_thirtieth() -> None:
    for column in (30, 41, 49):
        out = np.empty((25, 2, 60, 60), np.uint8)
        cut(maps(column), column - 30, out)
        moving = np.flatnonzero((out != STILL).any(axis=(0, 1, 2)))
        assert moving.tolist() == [30]
        assert out.reshape(50, 60, 60)[:4, 0, 30].tolist() == [STILL + 1, STILL + 60, STILL + 2, STILL + 60]


def test_beyond_the_edges_of_the_map_nothing_moves() -> None:
    for column in (3, 77):
        out = np.empty((25, 2, 60, 60), np.uint8)
        out.fill(7)
        cut(maps(column), column - 30, out)
        assert np.flatnonzero((out != STILL).any(axis=(0, 1, 2))).tolist() == [30]


def test_in_a_mirror_columns_and_the_sign_of_x_are_turned_round() -> None:
    random = np.random.default_rng(0)
    made = random.integers(1, 256, (25, 2, 60, 80)).astype(np.uint8)
    for left in (-13, 4, 31):
        plain, mirrored = (np.empty((25, 2, 60, 60), np.uint8) for _ in range(2))
        cut(made, left, plain)
        cut(made, left, mirrored, mirrored=True)
        np.testing.assert_array_equal(motion_of(mirrored[:, 0]), -motion_of(plain[:, 0, :, ::-1]))
        np.testing.assert_array_equal(motion_of(mirrored[:, 1]), motion_of(plain[:, 1, :, ::-1]))
