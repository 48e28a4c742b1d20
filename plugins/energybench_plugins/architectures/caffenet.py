"""CaffeNet: the two-group variant of AlexNet that Caffe brought, which pools before it normalises.

A reconstruction: the study's abstract gives the number of layers, 25, and no more. The layers are those of Caffe's
public `bvlc_reference_caffenet` definition (Jia et al., "Caffe: Convolutional Architecture for Fast Feature Embedding",
2014; after Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012).
"""

from __future__ import annotations

from dataclasses import dataclass

from energybench.architecture import LRN, Architecture, Conv2d, Dense, Dropout, Layer, MaxPool, ReLU
from energybench.hookspecs import Register
from energybench_plugins.architectures.sizes import square_input

CHANNELS = 3


@dataclass(frozen=True)
class CaffenetOptions:
    """Options of `model=caffenet`.

    Attributes:
        input_size: height and width of an RGB sample in pixels.
    """

    input_size: int = 227


def caffenet(options: CaffenetOptions, classes: int) -> Architecture:
    """Describes CaffeNet; raises ConfigError for an input that is too small.

    The published count of 25 is that of the training graph: 22 layers, the loss, and the top-1 and top-5 errors.
    """
    layers = (*_features(), *_classifier(classes))
    shape = square_input("caffenet", layers, CHANNELS, options.input_size)
    return Architecture("caffenet", shape, classes, layers, counted_nodes=("loss", "top-1", "top-5"))


def _features() -> tuple[Layer, ...]:
    """Five convolutions; at 227 pixels the maps are 55, 27, 13 and 6 wide."""
    norm = LRN(size=5, alpha=1e-4, beta=0.75, k=1.0)
    return (
        *(Conv2d(96, 11, stride=4), ReLU(), MaxPool(3, 2), norm),
        *(Conv2d(256, 5, padding=2, groups=2), ReLU(), MaxPool(3, 2), norm),
        *(Conv2d(384, 3, padding=1), ReLU()),
        *(Conv2d(384, 3, padding=1, groups=2), ReLU()),
        *(Conv2d(256, 3, padding=1, groups=2), ReLU(), MaxPool(3, 2)),
    )


def _classifier(classes: int) -> tuple[Layer, ...]:
    hidden = (Dense(4096), ReLU(), Dropout(0.5))
    return (*hidden, *hidden, Dense(classes))


def energybench_register_architectures(register: Register) -> None:
    """Registers `caffenet`."""
    register("caffenet", caffenet, CaffenetOptions)
