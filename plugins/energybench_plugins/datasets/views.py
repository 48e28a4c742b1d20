"""Which part of an image a network sees: the usual crops of ImageNet training, drawn for a whole batch at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ATTEMPTS = 10
"""Boxes drawn for an image before the largest one in its middle is taken, as torchvision does it."""


@dataclass(frozen=True)
class Draws:
    """Random numbers for some images, drawn before their sizes are known.

    Attributes:
        areas: (n, ATTEMPTS) shares of the image's area.
        ratios: (n, ATTEMPTS) of width to height.
        places: (n, 2) from 0 to 1, from the top and from the left.
        flips: (n,) bool.
    """

    areas: NDArray[np.float64]
    ratios: NDArray[np.float64]
    places: NDArray[np.float64]
    flips: NDArray[np.bool_]

    def __getitem__(self, rows: slice) -> Draws:
        return Draws(self.areas[rows], self.ratios[rows], self.places[rows], self.flips[rows])


@dataclass(frozen=True)
class RandomCrop:
    """A box of random area and shape (Szegedy et al. 2015, section 6), half of the time mirrored.

    Attributes:
        scale: least and largest share of the image's area.
        ratio: least and largest ratio of width to height; its logarithm is uniformly distributed.
        flip: probability of mirroring.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    def draw(self, count: int, random: np.random.Generator) -> Draws:
        """For `count` images."""
        areas = random.uniform(self.scale[0], self.scale[1], (count, ATTEMPTS))
        ratios = np.exp(random.uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), (count, ATTEMPTS)))
        return Draws(areas, ratios, random.uniform(size=(count, 2)), random.uniform(size=count) < self.flip)

    def boxes(self, heights: NDArray[np.int64], widths: NDArray[np.int64], drawn: Draws) -> NDArray[np.int64]:
        """One view of each image: the first of the boxes drawn that fits into it.

        Args:
            heights: (n,) pixels.
            widths: (n,) pixels.
            drawn: for these images.

        Returns:
            (n, 4) int64: top, left, height, width of the box in pixels.
        """
        areas = drawn.areas * (heights * widths)[:, None]
        tall = np.rint(np.sqrt(areas / drawn.ratios)).astype(np.int64)
        wide = np.rint(np.sqrt(areas * drawn.ratios)).astype(np.int64)
        fits = (tall > 0) & (tall <= heights[:, None]) & (wide > 0) & (wide <= widths[:, None])
        rows, first = np.arange(len(heights)), fits.argmax(1)
        found = fits[rows, first]
        largest_tall, largest_wide = self._largest(heights, widths)
        tall, wide = np.where(found, tall[rows, first], largest_tall), np.where(found, wide[rows, first], largest_wide)
        places = np.where(found[:, None], drawn.places, 0.5)
        top = np.minimum((places[:, 0] * (heights - tall + 1)).astype(np.int64), heights - tall)
        left = np.minimum((places[:, 1] * (widths - wide + 1)).astype(np.int64), widths - wide)
        return np.stack([top, left, tall, wide], 1)

    def _largest(
        self, heights: NDArray[np.int64], widths: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The largest box of an allowed ratio."""
        least, most = self.ratio
        ratios = widths / heights
        tall = np.where(ratios < least, np.rint(widths / least), heights).astype(np.int64)
        wide = np.where(ratios > most, np.rint(heights * most), widths).astype(np.int64)
        return np.clip(tall, 1, heights), np.clip(wide, 1, widths)


@dataclass(frozen=True)
class CentreCrop:
    """The middle of an image: of its shorter side's length times `share`, in the shape of the network's input.

    Attributes:
        share: 224/256 is the usual evaluation: shorter side to 256 pixels, then the middle 224.
    """

    share: float = 224 / 256

    def boxes(
        self, heights: NDArray[np.int64], widths: NDArray[np.int64], height: int, width: int
    ) -> NDArray[np.int64]:
        """(n, 4) int64: top, left, height, width, of the ratio height to width."""
        unit = np.minimum(heights / height, widths / width) * self.share
        tall = np.clip(np.rint(unit * height), 1, heights).astype(np.int64)
        wide = np.clip(np.rint(unit * width), 1, widths).astype(np.int64)
        return np.stack([(heights - tall) // 2, (widths - wide) // 2, tall, wide], 1)
