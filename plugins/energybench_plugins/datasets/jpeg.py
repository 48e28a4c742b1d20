"""Decodes images: libjpeg-turbo by simplejpeg, resized by OpenCV. Both let other threads run meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from energybench.errors import DataError

JPEG = b"\xff\xd8"
TRUNCATED = "Premature end"
"""What libjpeg says of an image whose end is missing; other warnings speak of bytes that do no harm."""

Buffer = bytes | memoryview | NDArray[np.uint8]

_own = threading.local()


def size(data: Buffer) -> tuple[int, int]:
    """Height and width in pixels; raises DataError where it is no image."""
    if bytes(data[:2]) != JPEG:
        image = _any(data)
        return image.shape[0], image.shape[1]
    try:
        return _header(data)
    except ValueError as error:
        raise DataError(str(error)) from error


def _header(data: Buffer) -> tuple[int, int]:
    """Height and width of a JPEG; raises ValueError."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except KeyError as error:  # what simplejpeg makes of a header that ends early
        raise ValueError("its header is not whole") from error
    return height, width


def decode(data: Buffer, least: tuple[int, int] = (0, 0)) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, RGB, of an image; valid until this thread decodes another.

    Args:
        data: a JPEG, or another file that OpenCV reads: ImageNet has a PNG and some CMYK images.
        least: height and width that the result may have at least: libjpeg decodes to 1/2, 1/4, ... for less work.

    Raises:
        DataError: it is no whole image.
    """
    if bytes(data[:2]) != JPEG:
        return _any(data)
    options: dict[str, object] = {"fastdct": True, "fastupsample": True, "min_height": least[0], "min_width": least[1]}
    try:
        return _jpeg(data, options, strict=True)
    except ValueError as error:
        if TRUNCATED in str(error):
            raise DataError(str(error)) from error
    try:
        return _jpeg(data, options, strict=False)
    except ValueError as error:
        return _any(data, error)


def _jpeg(data: Buffer, options: dict[str, object], *, strict: bool) -> NDArray[np.uint8]:
    height, width = _header(data)
    room = getattr(_own, "room", None)
    if room is None or len(room) < height * width * 3:
        room = _own.room = np.empty(height * width * 3, np.uint8)
    found: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", buffer=room, strict=strict, **options)
    return found


def _any(data: Buffer, cause: Exception | None = None) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if len(data) else None
    if image is None:
        raise DataError(str(cause or "no image that can be decoded")) from cause
    return np.asarray(image, np.uint8)


def view(data: Buffer, whole: tuple[int, int], box: Sequence[int], flip: bool, out: NDArray[np.uint8]) -> None:
    """Decodes an image and brings a box of it to the size of `out`, bilinearly.

    Args:
        data: of the image.
        whole: its height and width.
        box: top, left, height and width in pixels.
        flip: whether it is mirrored.
        out: (height, width, 3), C-contiguous.

    Raises:
        DataError: it is no whole image.
    """
    top, left, tall, wide = box
    height, width = out.shape[:2]
    shrink = min(tall / height, wide / width)
    least = (int(whole[0] / shrink), int(whole[1] / shrink)) if shrink >= 2 else (whole[0], whole[1])
    image = decode(data, least)
    if image.shape[:2] != whole:
        down, across = image.shape[0] / whole[0], image.shape[1] / whole[1]
        top, tall = int(top * down), max(int(tall * down), 1)
        left, wide = int(left * across), max(int(wide * across), 1)
    part = image[top : top + tall, left : left + wide]
    if flip:
        cv2.flip(cv2.resize(part, (width, height)), 1, dst=out)
    else:
        cv2.resize(part, (width, height), dst=out)


def resized(data: Buffer, shorter: int | None, quality: int) -> bytes:
    """The same image as a JPEG whose shorter side has at most `shorter` pixels; a JPEG that is no larger stays so.

    Raises:
        DataError: it is no whole image.
    """
    height, width = size(data)
    scale = min(shorter / min(height, width), 1.0) if shorter is not None else 1.0
    image = decode(data, (int(height * min(scale * 2, 1)), int(width * min(scale * 2, 1))))
    if scale == 1 and bytes(data[:2]) == JPEG:
        return bytes(data)
    smaller = cv2.resize(
        image, (max(round(width * scale), 1), max(round(height * scale), 1)), interpolation=cv2.INTER_AREA
    )
    encoded: bytes = simplejpeg.encode_jpeg(smaller, quality=quality, colorspace="RGB", colorsubsampling="420")
    return encoded


def one_thread_each() -> None:
    """Images are decoded side by side; OpenCV would divide each of them once more."""
    cv2.setNumThreads(0)
