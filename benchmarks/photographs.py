"""JPEG files as hard to decode as photographs, since they are pieces of two of them: scikit-learn's samples."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

SIZE = (375, 500)
"""Height and width in pixels of the usual image of ImageNet."""

NOISE = 4.0
"""Standard deviation of what is added, as of a camera's sensor: enlarged pieces have too little detail."""

QUALITY = 94


def make(root: Path, images: int, classes: int, size: tuple[int, int] = SIZE) -> None:
    """`images` files in train/, a tenth as many in val/, in a folder each of `classes`."""
    jobs = [(root / "train", images, 0), (root / "val", max(images // 10, classes), 1)]
    count = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        waiting = [
            pool.submit(_some, folder, range(start, number, count), classes, size, [seed, start])
            for folder, number, seed in jobs
            for start in range(count)
        ]
        for one in waiting:
            one.result()


def _some(folder: Path, numbers: range, classes: int, size: tuple[int, int], seed: list[int]) -> None:
    import cv2
    import numpy as np
    from sklearn.datasets import load_sample_images

    cv2.setNumThreads(0)
    photographs, random = load_sample_images().images, np.random.default_rng(seed)
    for number in numbers:
        photograph = photographs[number % len(photographs)]
        share = random.uniform(0.5, 1.0)
        tall, wide = (int(share * length) for length in photograph.shape[:2])
        top = int(random.integers(0, photograph.shape[0] - tall + 1))
        left = int(random.integers(0, photograph.shape[1] - wide + 1))
        piece = cv2.resize(photograph[top : top + tall, left : left + wide], size[::-1])
        noise = random.normal(0, NOISE, piece.shape)
        path = folder / f"class{number % classes:04d}" / f"{number:07d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(piece[..., ::-1] + noise, 0, 255).astype(np.uint8)
        cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
