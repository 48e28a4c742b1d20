"""The 2D CNN for gait: plain convolutions without padding over stacked optical flow.

A reconstruction: the study's abstract gives the number of layers, 15, and no more. The layers are those of the public
deployment file of the same group's gait work (IWANN 2017): 18,682,491 parameters and 783,448,832 multiply-accumulates
a sample at 155 classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from energybench.architecture import LRN, Architecture, Conv2d, Dense, Dropout, Layer, MaxPool, ReLU
from energybench.hookspecs import Register
from energybench_plugins.architectures.sizes import square_input


@dataclass(frozen=True)
class Cnn2dOptions:
    """Options of `model=cnn2d`.

    Attributes:
        channels: x and y flow of 25 frames.
        input_size: height and width of a sample in pixels.
    """

    channels: int = 50
    input_size: int = 60


def cnn2d(options: Cnn2dOptions, classes: int) -> Architecture:
    """Describes the 2D CNN; raises ConfigError for an input that is too small.

    The published count of 15 is that of the deployed graph, which ends in a softmax and has no dropout.
    """
    layers = (*_features(), Dense(2048), Dropout(0.4), Dense(classes))
    shape = square_input("cnn2d", layers, options.channels, options.input_size)
    counted, uncounted = ("softmax",), ("dropout",)
    return Architecture("cnn2d", shape, classes, layers, counted_nodes=counted, uncounted_kinds=uncounted)


def _features() -> tuple[Layer, ...]:
    """Four convolutions; at 60 pixels the maps are 54, 27, 12, 6, 4, 2 and 1 wide."""
    return (
        *(Conv2d(96, 7), ReLU(), MaxPool(2, 2), LRN(size=5, alpha=1e-4, beta=0.75, k=1.0)),
        *(Conv2d(192, 5, stride=2), ReLU(), MaxPool(2, 2)),
        *(Conv2d(512, 3), ReLU(), MaxPool(2, 2)),
        *(Conv2d(4096, 2), ReLU()),
    )


def energybench_register_architectures(register: Register) -> None:
    """Registers `cnn2d`."""
    register("cnn2d", cnn2d, Cnn2dOptions)
