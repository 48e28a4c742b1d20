"""Turns a description into Gluon blocks, layer for layer. Imports MXNet: only for the training process.

Children and parameters carry the names of the description's rows, so weights can be copied between engines.
"""

from __future__ import annotations

import math
from typing import Any

from energybench.architecture import (
    LRN,
    Architecture,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    GlobalAvgPool,
    Layer,
    MaxPool,
    ReLU,
    Residual,
    Shape,
)
from energybench.errors import PluginError
from energybench_plugins.engines.mxnet_import import import_mxnet

mx = import_mxnet()
nn = mx.gluon.nn
HybridBlock: Any = mx.gluon.HybridBlock


class LocalResponseNorm(HybridBlock):  # type: ignore[misc]
    """Gluon has no block for MXNet's LRN operator.

    The operator divides alpha by the window's size, as the description does; its k is 2 unless given.
    """

    def __init__(self, layer: LRN, prefix: str) -> None:
        super().__init__(prefix=prefix)
        self._options = {"nsize": layer.size, "alpha": layer.alpha, "beta": layer.beta, "knorm": layer.k}

    def hybrid_forward(self, ops: Any, x: Any) -> Any:
        """Normalises x: (N, C, H, W) across C."""
        return ops.LRN(x, **self._options)


class ResidualSum(HybridBlock):  # type: ignore[misc]
    """Sum of a body and a shortcut; no shortcut is the identity."""

    def __init__(self, body: Any, shortcut: Any | None, prefix: str) -> None:
        super().__init__(prefix=prefix)
        self.body = body
        self.shortcut = shortcut

    def hybrid_forward(self, ops: Any, x: Any) -> Any:
        """Adds the two ways through for x: (N, C, H, W)."""
        return ops.elemwise_add(self.body(x), x if self.shortcut is None else self.shortcut(x))


def build(architecture: Architecture) -> Any:
    """Builds the network with float32 parameters of known shapes, not yet initialised.

    Args:
        architecture: the network described; its last layer's output is returned as it is, without a softmax.

    Returns:
        A HybridBlock from (N, C, H, W) to (N, classes).

    Raises:
        PluginError: Gluon has no block for one of the layers.
    """
    return _sequence(architecture.layers, architecture.input_shape, "")


def named_parameters(net: Any) -> dict[str, Any]:
    """Parameters by "<row>.<weight|bias|gamma|beta|running_mean|running_var>", in the order of the rows.

    Names follow from where a block stands in its parents, so those of any network are the same in every process.
    Shapes are Gluon's: convolutions (out, in / groups, kH, kW), dense layers (units, inputs).
    """
    return dict(net._collect_params_with_prefix())  # what Gluon's save_parameters calls


def _sequence(layers: tuple[Layer, ...], shape: Shape, prefix: str) -> Any:
    # Outside name_scope() a prefix is taken as it stands, so a parameter's name is that of its row.
    sequence = nn.HybridSequential(prefix=prefix)
    for index, layer in enumerate(layers):
        sequence.add(_block(layer, shape, f"{prefix}{index}."))
        shape = layer.output_shape(shape)
    return sequence


def _block(layer: Layer, shape: Shape, prefix: str) -> Any:
    """The block of one layer for an input of `shape`, (C, H, W) or (units,)."""
    match layer:
        case Residual(body, shortcut):
            side = _sequence(shortcut, shape, f"{prefix}shortcut.") if shortcut else None
            return ResidualSum(_sequence(body, shape, f"{prefix}body."), side, prefix)
        case Conv2d(channels, kernel, stride, padding, groups, bias):
            return nn.Conv2D(
                channels, kernel, stride, padding, groups=groups, use_bias=bias, in_channels=shape[0], prefix=prefix
            )
        case Dense(units, bias):
            return nn.Dense(units, use_bias=bias, in_units=math.prod(shape), flatten=True, prefix=prefix)
        case BatchNorm(eps, momentum):
            return nn.BatchNorm(epsilon=eps, momentum=momentum, in_channels=shape[0], prefix=prefix)
        case MaxPool(kernel, stride, padding):
            return nn.MaxPool2D(kernel, stride, padding, ceil_mode=False, prefix=prefix)
        case GlobalAvgPool():
            return nn.GlobalAvgPool2D(prefix=prefix)
        case ReLU():
            return nn.Activation("relu", prefix=prefix)
        case Dropout(rate):
            return nn.Dropout(rate, prefix=prefix)
        case LRN():
            return LocalResponseNorm(layer, prefix)
    raise PluginError(f"engine gluon has no block for a layer of kind {layer.kind!r}")
