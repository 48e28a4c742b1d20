"""LeNet: the smallest network that is worth training, for first runs and tests. Not one of the study's four.

The variant that Caffe and MatConvNet bring with their MNIST examples: no non-linearity between the convolutions, a
ReLU after the first fully connected layer. A reconstruction from that description, not a copy of either file.
"""

from __future__ import annotations

from dataclasses import dataclass

from energybench.architecture import Architecture, Conv2d, Dense, Layer, MaxPool, ReLU
from energybench.hookspecs import Register
from energybench_plugins.architectures.sizes import square_input


@dataclass(frozen=True)
class LenetOptions:
    """Options of `model=lenet`.

    Attributes:
        channels: channels of a sample: 1 for grey, 3 for RGB.
        input_size: height and width of a sample in pixels.
    """

    channels: int = 1
    input_size: int = 28


def lenet(options: LenetOptions, classes: int) -> Architecture:
    """Describes LeNet; raises ConfigError for an input that is too small."""
    layers: tuple[Layer, ...] = (
        Conv2d(20, 5),
        MaxPool(2, 2),
        Conv2d(50, 5),
        MaxPool(2, 2),
        Dense(500),
        ReLU(),
        Dense(classes),
    )
    return Architecture("lenet", square_input("lenet", layers, options.channels, options.input_size), classes, layers)


def energybench_register_architectures(register: Register) -> None:
    """Registers `lenet`."""
    register("lenet", lenet, LenetOptions)
