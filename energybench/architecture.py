"""Networks as data: layers as dataclasses, and everything that follows from them without a framework.

A description is built once by a plugin and turned into blocks by every engine. Shapes are
``(channels, height, width)`` or ``(units,)`` of one sample; the batch axis is never part of them.

A network that is not described, such as a model zoo's, is a `ZooNetwork`: it names what builds it for each engine, and
what follows from layers is not known of it until it is built.
"""

# ruff: noqa: D102  (what a layer overrides is documented once, in Layer)

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from energybench.errors import ConfigError, PluginError

Shape = tuple[int, ...]

FLOPS_PER_MAC = 2
TRAINING_PASSES = 3
"""Training counts three times the forward pass: forward, gradient of inputs, gradient of weights."""

ACTIVATION_BYTES = 4
"""Bytes of one activation in float32."""


class Network(Protocol):
    """What a run asks of a network, described or not."""

    @property
    def name(self) -> str:
        """What the network is called."""

    @property
    def input_shape(self) -> Shape:
        """(C, H, W) of one sample."""

    @property
    def classes(self) -> int:
        """Number of classes its output tells apart."""

    @property
    def training_flops(self) -> int | None:
        """FLOPs to train on one sample; None where only the engine that builds it can count them."""

    def training_bytes(self, samples: int, optimizer_slots: int) -> int | None:
        """Memory that training takes, see `Architecture.training_bytes`; None where it cannot be told beforehand."""

    def refuses(self, engine: str) -> str | None:
        """Why the engine registered as `engine` cannot build it, with what to do instead; None where it can."""


def _window(size: int, kernel: int, stride: int, padding: int, what: str) -> int:
    out = (size + 2 * padding - kernel) // stride + 1
    if size + 2 * padding < kernel or out < 1:
        raise ConfigError(
            f"{what}: a window of {kernel} does not fit a map of {size} with padding {padding}; use a larger input size"
        )
    return out


def _maps(shape: Shape, what: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ConfigError(f"{what} takes maps of shape (C, H, W), not {shape}")
    return shape[0], shape[1], shape[2]


@dataclass(frozen=True)
class Layer:
    """One layer. Subclasses override what differs from an element-wise layer without weights."""

    @property
    def kind(self) -> str:
        """Lower-case name of the layer's type, as tables show it."""
        return type(self).__name__.lower()

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for an input of `shape`; raises ConfigError where the input does not fit."""
        return shape

    def parameters(self, shape: Shape) -> int:
        """Number of trained parameters (running statistics are not trained)."""
        return 0

    def macs(self, shape: Shape) -> int:
        """Multiply-accumulates of one forward pass of one sample."""
        return 0


@dataclass(frozen=True)
class Conv2d(Layer):
    """2-D convolution with square kernel; `groups` splits input and output channels."""

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    bias: bool = True

    def output_shape(self, shape: Shape) -> Shape:
        channels, height, width = _maps(shape, "conv2d")
        if channels % self.groups or self.channels % self.groups:
            raise ConfigError(f"conv2d: {channels} -> {self.channels} channels do not divide into {self.groups} groups")
        return (
            self.channels,
            _window(height, self.kernel, self.stride, self.padding, "conv2d"),
            _window(width, self.kernel, self.stride, self.padding, "conv2d"),
        )

    def parameters(self, shape: Shape) -> int:
        weights = self.channels * (shape[0] // self.groups) * self.kernel**2
        return weights + (self.channels if self.bias else 0)

    def macs(self, shape: Shape) -> int:
        return math.prod(self.output_shape(shape)) * (shape[0] // self.groups) * self.kernel**2


@dataclass(frozen=True)
class Dense(Layer):
    """Fully connected layer; maps are flattened in (C, H, W) order first."""

    units: int
    bias: bool = True

    def output_shape(self, shape: Shape) -> Shape:
        return (self.units,)

    def parameters(self, shape: Shape) -> int:
        return math.prod(shape) * self.units + (self.units if self.bias else 0)

    def macs(self, shape: Shape) -> int:
        return math.prod(shape) * self.units


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalisation over N, H, W; `momentum` is the share of the old running statistics that is kept."""

    eps: float = 1e-5
    momentum: float = 0.9

    def parameters(self, shape: Shape) -> int:
        return 2 * shape[0]


@dataclass(frozen=True)
class ReLU(Layer):
    """max(x, 0)."""


@dataclass(frozen=True)
class MaxPool(Layer):
    """Maximum over square windows, floor convention: a last window that does not fit is dropped."""

    kernel: int
    stride: int
    padding: int = 0

    def output_shape(self, shape: Shape) -> Shape:
        channels, height, width = _maps(shape, "maxpool")
        return (
            channels,
            _window(height, self.kernel, self.stride, self.padding, "maxpool"),
            _window(width, self.kernel, self.stride, self.padding, "maxpool"),
        )


@dataclass(frozen=True)
class GlobalAvgPool(Layer):
    """Mean of each map."""

    def output_shape(self, shape: Shape) -> Shape:
        return (_maps(shape, "globalavgpool")[0], 1, 1)


@dataclass(frozen=True)
class LRN(Layer):
    """Local response normalisation across channels: x / (k + alpha/size * sum(x^2)) ** beta.

    `alpha` is divided by `size`, and `k` is 1 (Caffe's and torch's convention; MXNet's default k is 2).
    """

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0


@dataclass(frozen=True)
class Dropout(Layer):
    """Zeroes each activation with probability `rate` while training."""

    rate: float = 0.5


@dataclass(frozen=True)
class Residual(Layer):
    """Sum of `body` and `shortcut` (empty: the identity). An activation after the sum is a layer of its own."""

    body: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()

    def output_shape(self, shape: Shape) -> Shape:
        main, side = through(self.body, shape), through(self.shortcut, shape)
        if main != side:
            raise ConfigError(f"residual: body gives {main}, shortcut gives {side}; they must be equal to be summed")
        return main


def through(layers: Iterable[Layer], shape: Shape) -> Shape:
    """Shape after `layers` in turn for an input of `shape`; raises ConfigError where one does not fit."""
    for layer in layers:
        shape = layer.output_shape(shape)
    return shape


@dataclass(frozen=True)
class Row:
    """One layer in its place: what `describe` prints and what engines name their weights after."""

    name: str
    layer: Layer
    input_shape: Shape
    output_shape: Shape

    @property
    def kind(self) -> str:
        """The layer's type; the sum that closes a residual block is a `sum`."""
        return "sum" if isinstance(self.layer, Residual) else self.layer.kind

    @property
    def parameters(self) -> int:
        """Trained parameters of this layer alone."""
        return self.layer.parameters(self.input_shape)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of this layer alone, one sample, forward."""
        return self.layer.macs(self.input_shape)

    @property
    def flops(self) -> int:
        """FLOPs of this layer alone, one sample, forward: 2 a multiply-accumulate."""
        return FLOPS_PER_MAC * self.macs

    @property
    def activation_bytes(self) -> int:
        """Bytes of the layer's output for one sample in float32."""
        return math.prod(self.output_shape) * ACTIVATION_BYTES


def _rows(layers: tuple[Layer, ...], shape: Shape, prefix: str) -> Iterator[Row]:
    for index, layer in enumerate(layers):
        name = f"{prefix}{index}"
        if isinstance(layer, Residual):
            yield from _rows(layer.body, shape, f"{name}.body.")
            yield from _rows(layer.shortcut, shape, f"{name}.shortcut.")
        output = layer.output_shape(shape)
        yield Row(name, layer, shape, output)
        shape = output


@dataclass(frozen=True)
class Architecture:
    """A network described.

    Attributes:
        name: registered name.
        input_shape: (C, H, W) of one sample.
        classes: number of classes the last layer tells apart.
        layers: the tree of layers, input first.
        counted_nodes: nodes the published layer count includes beside the layers, such as the loss.
        uncounted_kinds: kinds of layers that the published count leaves out.
    """

    name: str
    input_shape: Shape
    classes: int
    layers: tuple[Layer, ...]
    counted_nodes: tuple[str, ...] = ()
    uncounted_kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        output = through(self.layers, self.input_shape)
        if output != (self.classes,):
            raise ConfigError(f"architecture {self.name!r} ends in {output}, not in {self.classes} classes")

    def rows(self) -> tuple[Row, ...]:
        """Every layer in order; a residual block's layers precede its sum."""
        return tuple(_rows(self.layers, self.input_shape, ""))

    @property
    def parameters(self) -> int:
        """Trained parameters in all."""
        return sum(row.parameters for row in self.rows())

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward pass of one sample."""
        return sum(row.macs for row in self.rows())

    @property
    def forward_flops(self) -> int:
        """FLOPs of one forward pass of one sample: 2 a multiply-accumulate of convolutions and dense layers."""
        return FLOPS_PER_MAC * self.macs

    @property
    def training_flops(self) -> int:
        """FLOPs to train on one sample: 3 times the forward pass."""
        return TRAINING_PASSES * self.forward_flops

    @property
    def activation_bytes(self) -> int:
        """Bytes of every layer's output for one sample in float32."""
        return sum(row.activation_bytes for row in self.rows())

    @property
    def counted_layers(self) -> int:
        """Layers of the description that the published count includes: every node is one, but for `uncounted_kinds`."""
        return sum(row.kind not in self.uncounted_kinds for row in self.rows())

    def training_bytes(self, samples: int, optimizer_slots: int) -> int:
        """Memory that training takes in float32, as the description tells: what must be kept at the same time.

        Parameters, their gradients and `optimizer_slots` values of the optimiser for each; every layer's output for
        the backward pass; the input; and the gradients of the largest layer's output and input while they are worked
        on. Work space of the kernels, which a framework chooses, is not in it.

        Args:
            samples: samples on one device at a time.
            optimizer_slots: values the optimiser keeps for each parameter.
        """
        weights = self.parameters * (2 + optimizer_slots) * ACTIVATION_BYTES
        largest = max(row.activation_bytes for row in self.rows())
        inputs = math.prod(self.input_shape) * ACTIVATION_BYTES
        return weights + samples * (self.activation_bytes + inputs + 2 * largest)

    @property
    def layer_count(self) -> int:
        """Layers as the study counts them: `counted_layers` and `counted_nodes`."""
        return self.counted_layers + len(self.counted_nodes)

    def refuses(self, engine: str) -> str | None:
        """Every engine builds what is described."""
        return None


@dataclass(frozen=True)
class ZooNetwork:
    """A network that is not described but built by a function of its own for each engine. See `Network`.

    Attributes:
        name: name in its zoo.
        input_shape: (C, H, W) of one sample.
        classes: number of classes its output tells apart.
        builders: engine's name -> the function that builds it there, called with this ZooNetwork in the training
            process; or "module:function", so that naming it imports no framework. It returns what the engine trains
            (gluon: a HybridBlock from (N, C, H, W) to (N, classes), not initialised), and raises ConfigError where
            there is no such network. The engine tests what it is given and counts its FLOPs.
    """

    name: str
    input_shape: Shape
    classes: int
    builders: Mapping[str, str | Callable[[ZooNetwork], Any]]

    @property
    def training_flops(self) -> int | None:
        """Not known before it is built."""
        return None

    def training_bytes(self, samples: int, optimizer_slots: int) -> int | None:
        """Not known before it is built."""
        return None

    def refuses(self, engine: str) -> str | None:
        """An engine without a builder cannot build it."""
        if engine in self.builders:
            return None
        return f"it cannot build {self.name!r}; use engine={' or engine='.join(sorted(self.builders))}"

    def build(self, engine: str) -> Any:
        """What the builder for `engine` makes; imports its framework.

        Raises:
            ConfigError: there is no such builder, or the builder knows no such network.
            PluginError: the builder is named wrongly.
        """
        if reason := self.refuses(engine):
            raise ConfigError(f"engine={engine}: {reason}")
        builder = self.builders[engine]
        return (_imported(builder) if isinstance(builder, str) else builder)(self)


def _imported(name: str) -> Callable[[ZooNetwork], Any]:
    module, _, function = name.partition(":")
    try:
        found: Callable[[ZooNetwork], Any] = getattr(importlib.import_module(module), function)
    except AttributeError as error:
        raise PluginError(f"builder {name!r}: module {module!r} has no function {function!r}") from error
    return found
