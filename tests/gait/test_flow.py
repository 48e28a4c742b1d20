"""Motion as bytes: right in size, sign and place, whatever the size of the video."""

from __future__ import annotations

import numpy as np
import pytest

from energybench.errors import ConfigError
from energybench_plugins.datasets.walkers import WalkersOptions
from energybench_plugins.gait.flow import FLOWS, LEVELS, STILL, flow_map, flow_method, motion_of

cv2 = pytest.importorskip("cv2", reason="needs OpenCV (pip install 'energybench[images]')")


def textured(height, width):
    noise = np.random.default_rng(3).normal(size=(height, width)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def moved(frame, x, y):
    shift = np.array([[1, 0, x], [0, 1, y]], np.float32)
    return cv2.warpAffine(frame, shift, frame.shape[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("scale", [1, 2], ids=["320x240", "640x480"])
def test_a_moved_picture_moves_by_as_much_whatever_the_method_and_the_size(name: str, scale: int) -> None:
    frame = textured(240 * scale, 320 * scale)
    found = motion_of(flow_map(flow_method(name)(frame, moved(frame, 3.0 * scale, -2.0 * scale))))
    assert found.shape == (2, 60, 80)
    inner = found[:, 5:-5, 5:-5]
    assert np.median(inner[0]) == pytest.approx(3 / 4, abs=1 / LEVELS)
    assert np.median(inner[1]) == pytest.approx(-2 / 4, abs=1 / LEVELS)


def test_a_map_s_pixel_is_the_mean_of_its_region_in_steps_that_are_cut_at_the_ends() -> None:
    motion = np.zeros((240, 320, 2), np.float32)
    motion[:4, :2, 0] = 8.0  # half of the first region, 2 pixels of the map
    motion[4:8, :4] = -1000.0
    found = flow_map(motion)
    assert found.dtype == np.uint8
    assert found[0, 0, 0] == STILL + LEVELS
    assert found[:, 1, 0].tolist() == [1, 1]
    assert np.all(np.delete(found.reshape(2, -1), [0, 80], axis=1) == STILL)


def test_one_step_is_taken_for_none() -> None:
    motion = np.zeros((60, 80, 2), np.float32)
    motion[0, :3, 0] = [1 / LEVELS, -1.4 / LEVELS, 2 / LEVELS]
    assert flow_map(motion)[0, 0, :4].tolist() == [STILL, STILL, STILL + 2, STILL]


def test_an_unknown_method_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"dataset.flow='tvl1': give one of dis_ultrafast, .*farneback"):
        WalkersOptions(flow="tvl1")
