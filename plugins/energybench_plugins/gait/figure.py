"""Draws made-up people before a camera: textured limbs, far ones darker, a background, noise and a shaking hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from energybench_plugins.gait.body import Body, Pose, poses

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WIDTH, HEIGHT = 320, 240
"""Of a frame, pixels; a fourth of the area of TUM-GAID's, so that making them stays quick."""

RATE_HZ = 30.0
"""Frames a second."""

SCALE = 95.0
"""Pixels a metre."""

GROUND = 218.0
"""Row of the ground."""


@dataclass(frozen=True)
class Part:
    """A limb as a picture that is turned and laid over a frame.

    Attributes:
        picture: (h, w, 2) float32: grey levels times the share of each pixel that the limb covers, and that share. The
            limb hangs down from its joint at ((w - 1) / 2, margin).
        margin: rows above the joint.
        length: pixels from joint to joint.
    """

    picture: NDArray[np.float32]
    margin: float
    length: float


@dataclass(frozen=True)
class Camera:
    """How a walk is filmed.

    Attributes:
        leftward: whether the walker goes to the left.
        scale: pixels a metre.
        ground: row of the ground.
        shake: standard deviation of the camera's place, pixels.
        noise: standard deviation of a pixel, grey levels.
    """

    leftward: bool
    scale: float
    ground: float
    shake: float
    noise: float


def film(body: Body, camera: Camera, frames: int, random: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    """Frames (240, 320) uint8 of somebody who walks across the middle of the picture."""
    import cv2
    import numpy as np

    pose = poses(body, np.arange(frames) / RATE_HZ, random.random())
    start = WIDTH / 2 - camera.scale * pose.hip[-1, 0] / 2 + 6 * random.normal()
    scene = _scene(random)
    dressed = _Dressed(body, camera, random)
    shakes = _shakes(camera.shake, frames, random)
    noises = random.normal(0, camera.noise, (8, HEIGHT, WIDTH)).astype(np.float32)
    for number in range(frames):
        canvas = scene.copy()
        dressed.draw(canvas, pose, number, start)
        seen = np.array([[1, 0, shakes[number, 0]], [0, 1, shakes[number, 1]]])
        frame = cv2.warpAffine(canvas, seen, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        rolled = np.roll(noises[random.integers(8)].reshape(-1), random.integers(WIDTH * HEIGHT)).reshape(frame.shape)
        picture = cv2.add(frame, rolled, dtype=cv2.CV_8U)  # rounded, and cut at black and white
        yield np.ascontiguousarray(picture[:, ::-1]) if camera.leftward else picture


def _scene(random: np.random.Generator) -> NDArray[np.float32]:
    """A wall with panels and stains above a floor, (240, 320) float32."""
    import cv2

    scene = 130 + 9 * _clouds(HEIGHT, WIDTH, 2.0, random) + 9 * _clouds(HEIGHT, WIDTH, 12.0, random)
    scene[:, :: random.integers(45, 75)] -= 35
    scene[int(GROUND) - 12 :] -= 30
    blurred: NDArray[np.float32] = cv2.GaussianBlur(scene, (0, 0), 0.7)
    return blurred


def _clouds(height: int, width: int, size: float, random: np.random.Generator) -> NDArray[np.float32]:
    """A texture of mean 0 and standard deviation 1 whose grains are `size` pixels wide."""
    import cv2
    import numpy as np

    clouds = cv2.GaussianBlur(random.normal(size=(height, width)).astype(np.float32), (0, 0), size)
    made: NDArray[np.float32] = (clouds - clouds.mean()) / clouds.std()
    return made


def _shakes(size: float, frames: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Where the camera is in each frame: it wanders, and comes back, (frames, 2) pixels."""
    import numpy as np

    places, place = np.empty((frames, 2)), np.zeros(2)
    for number in range(frames):
        place = 0.9 * place + np.sqrt(1 - 0.9**2) * size * random.normal(size=2)
        places[number] = place
    return places


class _Dressed:
    """A body with clothes on, ready to be drawn."""

    def __init__(self, body: Body, camera: Camera, random: np.random.Generator) -> None:
        self._camera = camera
        shirt, trousers, skin = _grey(random), random.uniform(30, 80), random.uniform(180, 225)
        scale = camera.scale

        def part(length: float, top: float, bottom: float, grey: float) -> Part:
            return _part(length * scale, top * scale, bottom * scale, grey, random)

        self.thigh = part(body.thigh, body.thigh_girth, 0.75 * body.thigh_girth, trousers)
        self.shank = part(body.shank, body.shank_girth * 1.05, 0.65 * body.shank_girth, trousers)
        self.foot = part(body.foot, 1.1 * body.foot_height, 0.7 * body.foot_height, 40)
        self.trunk = part(body.trunk, body.trunk_girth * 0.95, body.trunk_girth, shirt)
        self.head = part(0.55 * body.head, 0.68 * body.head, 0.6 * body.head, skin)
        self.upper_arm = part(body.upper_arm, body.arm_girth * 1.15, body.arm_girth, shirt)
        self.forearm = part(body.forearm, body.arm_girth, 0.8 * body.arm_girth, skin)
        self.bag = part(0.75 * body.trunk, body.bag, 1.15 * body.bag, _grey(random)) if body.bag else None
        self._body = body

    def draw(self, canvas: NDArray[np.float32], pose: Pose, number: int, start: float) -> None:
        """Lays every part over the canvas (240, 320) float32: the far side, the middle, the near side."""
        import numpy as np

        scale, ground = self._camera.scale, self._camera.ground
        hip = np.array([start + scale * pose.hip[number, 0], ground - scale * pose.hip[number, 1]])
        lean = pose.trunk[number]
        neck = hip + self.trunk.length * np.array([np.sin(lean), -np.cos(lean)])
        self._leg(canvas, pose, number, 1, hip, 0.72)
        self._arm(canvas, pose, number, 1, neck, 0.72)
        if self.bag is not None:
            behind = self._body.trunk_girth * scale * 0.45
            strap = neck + 0.12 * (hip - neck) - behind * np.array([np.cos(lean), np.sin(lean)])
            _lay(canvas, self.bag, strap, -lean, 1.0)
        _lay(canvas, self.trunk, neck, -lean, 1.0)
        nod = pose.head[number]
        crown = neck + 0.9 * self._body.head * scale * np.array([np.sin(nod), -np.cos(nod)])
        _lay(canvas, self.head, crown, -nod, 1.0)
        self._leg(canvas, pose, number, 0, hip, 1.0)
        self._arm(canvas, pose, number, 0, neck, 1.0)

    def _leg(
        self, canvas: NDArray[np.float32], pose: Pose, number: int, side: int, hip: NDArray[np.float64], light: float
    ) -> None:
        import numpy as np

        thigh, shank, foot = pose.thigh[side, number], pose.shank[side, number], pose.foot[side, number]
        knee = _end(hip, thigh, self.thigh.length)
        ankle = _end(knee, shank, self.shank.length)
        heel = ankle - 0.25 * self.foot.length * np.array([np.cos(foot), -np.sin(foot)])
        _lay(canvas, self.foot, heel, foot + np.pi / 2, light)
        _lay(canvas, self.shank, knee, shank, light)
        _lay(canvas, self.thigh, hip, thigh, light)

    def _arm(
        self, canvas: NDArray[np.float32], pose: Pose, number: int, side: int, neck: NDArray[np.float64], light: float
    ) -> None:
        import numpy as np

        before = self._camera.scale * pose.shoulder[side, number]
        shoulder = neck + np.array([before, 0.06 * self._camera.scale])
        upper, fore = pose.upper_arm[side, number], pose.forearm[side, number]
        elbow = _end(shoulder, upper, self.upper_arm.length)
        _lay(canvas, self.forearm, elbow, fore, light)
        _lay(canvas, self.upper_arm, shoulder, upper, light)


def _grey(random: np.random.Generator) -> float:
    """Of cloth: dark or light, and not that of the wall, before which its motion could not be seen."""
    dark, light = random.uniform(30, 85), random.uniform(175, 230)
    return float(dark if random.random() < 0.5 else light)


def _end(joint: NDArray[np.float64], angle: float, length: float) -> NDArray[np.float64]:
    """The other joint of a limb that hangs at an angle from straight down, forward positive."""
    import numpy as np

    end: NDArray[np.float64] = joint + length * np.array([np.sin(angle), np.cos(angle)])
    return end


def _part(length: float, top: float, bottom: float, grey: float, random: np.random.Generator) -> Part:
    """A limb with round ends, lighter in its middle, in cloth of some pattern."""
    import numpy as np

    margin = max(top, bottom) / 2 + 2
    height, width = int(np.ceil(length + 2 * margin)), int(np.ceil(max(top, bottom))) + 5
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    along = np.clip((rows - margin) / length, 0, 1)
    radius = (top + (bottom - top) * along) / 2
    away = np.hypot(columns - (width - 1) / 2, rows - margin - along * length)
    mask = np.clip(radius - away + 0.5, 0, 1).astype(np.float32)
    shading = 1.1 - 0.35 * np.minimum(away / np.maximum(radius, 1), 1) ** 2
    cloth = grey * shading + 14 * _clouds(height, width, 1.2, random)
    return Part(np.stack([cloth * mask, mask], axis=2).astype(np.float32), margin, length)


def _lay(canvas: NDArray[np.float32], part: Part, joint: NDArray[np.float64], angle: float, light: float) -> None:
    """Lays a part over the canvas, its joint at (x, y), turned from straight down by an angle, forward positive."""
    import cv2
    import numpy as np

    height, width = part.picture.shape[:2]
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]])
    moved = joint - turn @ [(width - 1) / 2, part.margin]
    corners = moved + np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ turn.T
    left, upper = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
    right, lower = np.minimum(np.ceil(corners.max(axis=0)) + 1, (WIDTH, HEIGHT)).astype(int)
    if right <= left or lower <= upper:
        return
    place = np.column_stack([turn, moved - [left, upper]])
    laid = cv2.warpAffine(part.picture, place, (int(right - left), int(lower - upper)), flags=cv2.INTER_LINEAR)
    region = canvas[upper:lower, left:right]
    region *= 1 - laid[..., 1]
    region += light * laid[..., 0]
