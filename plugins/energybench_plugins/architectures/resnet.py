"""Residual networks of bottlenecks: ResNetIm for images, the gait ResNet for stacked optical flow, and ResNet-50.

A reconstruction: the study's abstract gives the number of layers of the first two, 94 and 167, and no more. The block
is the bottleneck of He et al., "Deep Residual Learning for Image Recognition" (2015), with the stride on the 3x3
convolution; stages of [2, 2, 2, 2] and [3, 4, 6, 2] bottlenecks are those with which the counts come out. With
[3, 4, 6, 3] the same function makes ResNet-50 in the form that benchmarks call v1.5.
"""

from __future__ import annotations

from dataclasses import dataclass

from energybench.architecture import (
    Architecture,
    BatchNorm,
    Conv2d,
    Dense,
    GlobalAvgPool,
    Layer,
    MaxPool,
    ReLU,
    Residual,
)
from energybench.hookspecs import Register
from energybench_plugins.architectures.sizes import square_input

WIDTHS = (64, 128, 256, 512)
"""Channels inside the bottlenecks of each stage."""

EXPANSION = 4
"""Channels that a bottleneck gives, as a multiple of its width."""

BN_EPS = 1e-5
IMAGE_STAGES = (2, 2, 2, 2)
GAIT_STAGES = (3, 4, 6, 2)
RESNET50_STAGES = (3, 4, 6, 3)
RGB_CHANNELS = 3


@dataclass(frozen=True)
class ResnetImOptions:
    """Options of `model=resnetim`.

    Attributes:
        input_size: height and width of an RGB sample in pixels.
    """

    input_size: int = 224


@dataclass(frozen=True)
class ResnetOptions:
    """Options of `model=resnet`, the gait network.

    Attributes:
        channels: x and y flow of 25 frames.
        input_size: height and width of a sample in pixels.
    """

    channels: int = 50
    input_size: int = 60


@dataclass(frozen=True)
class Resnet50Options:
    """Options of `model=resnet50`.

    Attributes:
        input_size: height and width of an RGB sample in pixels.
    """

    input_size: int = 224


def resnetim(options: ResnetImOptions, classes: int) -> Architecture:
    """Describes ResNetIm; raises ConfigError for an input that is too small.

    The published count of 94 is that of the layers: each convolution, normalisation, activation, pooling, sum and fully
    connected layer is one, those of the projections included.
    """
    layers = bottleneck_network(IMAGE_STAGES, classes)
    shape = square_input("resnetim", layers, RGB_CHANNELS, options.input_size)
    return Architecture("resnetim", shape, classes, layers)


def resnet(options: ResnetOptions, classes: int) -> Architecture:
    """Describes the gait ResNet; raises ConfigError for an input that is too small.

    The published count of 167 is that of the training graph: 164 layers, the loss, and the top-1 and top-5 errors.
    """
    layers = bottleneck_network(GAIT_STAGES, classes)
    shape = square_input("resnet", layers, options.channels, options.input_size)
    return Architecture("resnet", shape, classes, layers, counted_nodes=("loss", "top-1", "top-5"))


def resnet50(options: Resnet50Options, classes: int) -> Architecture:
    """Describes ResNet-50 v1.5; raises ConfigError for an input that is too small."""
    layers = bottleneck_network(RESNET50_STAGES, classes)
    shape = square_input("resnet50", layers, RGB_CHANNELS, options.input_size)
    return Architecture("resnet50", shape, classes, layers)


def bottleneck_network(stages: tuple[int, ...], classes: int) -> tuple[Layer, ...]:
    """Layers of a residual network with `stages[i]` bottlenecks of width `WIDTHS[i]`."""
    stem = (*_convolution(64, 7, stride=2), ReLU(), MaxPool(3, 2, padding=1))
    blocks: list[Layer] = []
    for index, (width, count) in enumerate(zip(WIDTHS, stages, strict=True)):
        blocks += _stage(width, count, stride=1 if index == 0 else 2)
    return (*stem, *blocks, GlobalAvgPool(), Dense(classes))


def _stage(width: int, count: int, stride: int) -> list[Layer]:
    """The first bottleneck changes resolution and channels, so its shortcut is a projection."""
    projection = _convolution(width * EXPANSION, 1, stride)
    head = Residual(_bottleneck(width, stride), projection)
    tail = Residual(_bottleneck(width, 1))
    return [head, ReLU()] + [tail, ReLU()] * (count - 1)


def _bottleneck(width: int, stride: int) -> tuple[Layer, ...]:
    return (
        *_convolution(width, 1),
        ReLU(),
        *_convolution(width, 3, stride),
        ReLU(),
        *_convolution(width * EXPANSION, 1),
    )


def _convolution(channels: int, kernel: int, stride: int = 1) -> tuple[Layer, ...]:
    """A convolution with its normalisation, whose beta does the work of a bias."""
    convolution = Conv2d(channels, kernel, stride, padding=kernel // 2, bias=False)
    return convolution, BatchNorm(eps=BN_EPS)


def energybench_register_architectures(register: Register) -> None:
    """Registers `resnetim`, `resnet` and `resnet50`."""
    register("resnetim", resnetim, ResnetImOptions)
    register("resnet50", resnet50, Resnet50Options)
    register("resnet", resnet, ResnetOptions)
