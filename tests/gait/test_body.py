"""Made-up people walk as people do, differ from each other, and less from themselves."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from energybench_plugins.gait.body import MOVEMENTS, on_a_walk, person, poses


def people(count: int):
    return [person(np.random.default_rng([0, number])) for number in range(count)]


def vector(body) -> np.ndarray:
    return np.array([asdict(body)[name] for name in MOVEMENTS])


def test_the_standing_foot_stays_where_it_is() -> None:
    for body in people(5):
        time_s = np.arange(0, 2, 1 / 200)
        pose = poses(body, time_s, 0.0)
        ankle = pose.hip[:, 0] + body.thigh * np.sin(pose.thigh[0]) + body.shank * np.sin(pose.shank[0])
        stride = time_s * body.cadence / 2
        standing = (stride > 0.1) & (stride < 0.5)
        walked = pose.hip[standing, 0]
        slid = np.ptp(ankle[standing])
        assert slid < 0.2 * np.ptp(walked)
        speed = pose.hip[-1, 0] / time_s[-1]
        assert 0.5 < speed < 2.2  # metres a second


def test_a_leg_never_goes_below_the_ground_and_one_always_stands_on_it() -> None:
    for body in people(5):
        pose = poses(body, np.arange(60) / 30, 0.3)
        height = pose.hip[:, 1] - body.thigh * np.cos(pose.thigh) - body.shank * np.cos(pose.shank)
        np.testing.assert_allclose(height.min(axis=0), body.foot_height, atol=1e-9)


def test_legs_take_turns_and_arms_go_with_the_other_leg() -> None:
    [body] = people(1)
    pose = poses(body, np.linspace(0, 2 * 2 / body.cadence, 200, endpoint=False), 0.0)  # two strides
    near, far = pose.thigh
    assert np.corrcoef(near, far)[0, 1] < -0.5
    assert np.corrcoef(near, pose.upper_arm[0])[0, 1] < -0.5


def test_people_differ_more_from_each_other_than_from_themselves() -> None:
    random = np.random.default_rng(0)
    everybody = people(20)
    scale = np.std([vector(body) for body in everybody], axis=0)
    again = [vector(on_a_walk(body, "n", 1.0, random)) - vector(body) for body in everybody]
    assert np.sqrt(np.mean((np.array(again) / scale) ** 2)) < 0.5
    assert all(np.array_equal(vector(on_a_walk(body, "n", 0.0, random)), vector(body)) for body in everybody)


@pytest.mark.parametrize(
    ("variation", "more", "less"),
    [("b", ("bag", "lean"), ("arm_swing",)), ("s", ("foot", "foot_height", "knee_swing"), ("cadence", "ankle"))],
)
def test_a_variation_changes_what_it_changes(variation: str, more: tuple[str, ...], less: tuple[str, ...]) -> None:
    everybody = people(8)
    normal = [on_a_walk(body, "n", 0.0, np.random.default_rng(1)) for body in everybody]
    changed = [on_a_walk(body, variation, 0.0, np.random.default_rng(1)) for body in everybody]
    for names, sign in ((more, 1), (less, -1)):
        for name in names:
            shift = np.mean([getattr(a, name) - getattr(b, name) for a, b in zip(changed, normal, strict=True)])
            assert sign * shift > 0, name
    assert all(a.thigh == b.thigh and a.shank == b.shank for a, b in zip(changed, normal, strict=True))
