"""The walker is found where it is drawn, and nobody where nobody is."""

from __future__ import annotations

import numpy as np
import pytest

from energybench_plugins.gait.person import between, look_frame, moving_columns

cv2 = pytest.importorskip("cv2", reason="needs OpenCV (pip install 'energybench[images]')")


def frames(places, noise=3.0, shape=(480, 640)):
    """A box as large as a person at each of `places` (x in pixels; None: nobody), before a textured wall."""
    random = np.random.default_rng(1)
    wall = 120 + 20 * cv2.GaussianBlur(random.normal(size=shape).astype(np.float32), (0, 0), 2) * 5
    for x in places:
        frame = wall.copy()
        if x is not None:
            frame[120:420, x - 40 : x + 40] = 30
        yield np.clip(frame + random.normal(0, noise, shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("noise", [0.0, 3.0, 8.0])
def test_the_centroid_is_found_within_a_pixel_of_the_map(noise: float) -> None:
    places = list(range(80, 560, 20))
    found = moving_columns([look_frame(frame) for frame in frames(places, noise)])
    np.testing.assert_allclose(found * 640, np.array(places) - 0.5, atol=8)


def test_nobody_is_found_in_an_empty_scene() -> None:
    found = moving_columns([look_frame(frame) for frame in frames([None] * 12)])
    assert np.isnan(found).all()


def test_somebody_who_comes_and_goes_is_found_while_there() -> None:
    places = [None] * 10 + list(range(100, 540, 40)) + [None] * 10
    found = moving_columns([look_frame(frame) for frame in frames(places)])
    assert (~np.isnan(found)).tolist() == [place is not None for place in places]


def test_between_two_finds_the_walker_goes_evenly_but_not_over_a_gap() -> None:
    nan = float("nan")
    columns = np.array([nan, 0.2, nan, nan, nan, nan, 0.3, nan, nan, nan, nan, nan, nan, 0.9])
    found = between(columns)
    np.testing.assert_allclose(found[1:7], [0.2, 0.22, 0.24, 0.26, 0.28, 0.3])
    assert np.isnan(found[[0, *range(7, 13)]]).all()
    assert found[13] == 0.9
