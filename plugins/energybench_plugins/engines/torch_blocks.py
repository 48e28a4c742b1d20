"""Turns a description into PyTorch modules, layer for layer. Imports PyTorch: only for the training process.

Parameters carry the names that the description's rows and the engine gluon give them, so weights can be copied between
engines.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

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

NORMALISATION_NAMES = {"weight": "gamma", "bias": "beta"}

FRESH = (BatchNorm, Conv2d, Dense, Residual)
"""Layers whose output nothing else needs, the way back included: an activation may take its place in memory."""


class Normalisation(nn.BatchNorm2d):  # type: ignore[misc]
    """Batch normalisation by a description: without torch's count of batches, which costs a kernel a step."""

    def __init__(self, layer: BatchNorm, channels: int) -> None:
        super().__init__(channels, eps=layer.eps, momentum=1 - layer.momentum)
        self.num_batches_tracked = None


class LocalResponseNorm(nn.Module):  # type: ignore[misc]
    """LRN as a sum of shifted slices, in float32: torch's own goes through a pooling over an added axis."""

    def __init__(self, layer: LRN) -> None:
        super().__init__()
        self._size, self._alpha, self._beta, self._k = layer.size, layer.alpha, layer.beta, layer.k

    def forward(self, x: Any) -> Any:
        """Normalises x: (N, C, H, W) across C."""
        channels, before = x.shape[1], self._size // 2
        squares = nn.functional.pad(x.float().square(), (0, 0, 0, 0, before, self._size - 1 - before))
        total = squares[:, :channels]
        for shift in range(1, self._size):
            total = total + squares[:, shift : shift + channels]
        return (x * (self._k + self._alpha / self._size * total).pow(-self._beta)).to(x.dtype)


class ResidualSum(nn.Module):  # type: ignore[misc]
    """Sum of a body and a shortcut; no shortcut is the identity."""

    def __init__(self, body: Any, shortcut: Any | None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Any) -> Any:
        """Adds the two ways through for x: (N, C, H, W)."""
        return self.body(x) + (x if self.shortcut is None else self.shortcut(x))


class Linear(nn.Linear):  # type: ignore[misc]
    """Fully connected, after maps were flattened in (C, H, W) order."""

    def forward(self, x: Any) -> Any:
        """(N, units) of x: (N, C, H, W) or (N, units)."""
        return super().forward(torch.flatten(x, 1))


def build(architecture: Architecture) -> Any:
    """Builds the network on torch's default device, with the values that torch gives new parameters.

    Args:
        architecture: the network described; its last layer's output is returned as it is, without a softmax.

    Returns:
        A Module from (N, C, H, W) to (N, classes).

    Raises:
        PluginError: there is no module for one of the layers.
    """
    return _sequence(architecture.layers, architecture.input_shape)


def named_tensors(net: Any) -> dict[str, Any]:
    """Parameters and running statistics, of a described network by "<row>.<weight|bias|gamma|beta|running_...>"."""
    normalisations = {name for name, module in net.named_modules() if isinstance(module, Normalisation)}
    return {_name(name, normalisations): tensor for name, tensor in net.state_dict(keep_vars=True).items()}


def _name(name: str, normalisations: set[str]) -> str:
    owner, _, kind = name.rpartition(".")
    return f"{owner}.{NORMALISATION_NAMES.get(kind, kind)}" if owner in normalisations else name


def _sequence(layers: tuple[Layer, ...], shape: Shape) -> Any:
    modules: list[Any] = []
    for index, layer in enumerate(layers):
        in_place = index > 0 and isinstance(layers[index - 1], FRESH)
        modules.append(nn.ReLU(in_place) if isinstance(layer, ReLU) else _block(layer, shape))
        shape = layer.output_shape(shape)
    return nn.Sequential(*modules)


def _block(layer: Layer, shape: Shape) -> Any:
    """The module of any other layer for an input of `shape`, (C, H, W) or (units,)."""
    match layer:
        case Residual(body, shortcut):
            return ResidualSum(_sequence(body, shape), _sequence(shortcut, shape) if shortcut else None)
        case Conv2d(channels, kernel, stride, padding, groups, bias):
            return nn.Conv2d(shape[0], channels, kernel, stride, padding, groups=groups, bias=bias)
        case Dense(units, bias):
            return Linear(math.prod(shape), units, bias=bias)
        case BatchNorm():
            return Normalisation(layer, shape[0])
        case MaxPool(kernel, stride, padding):
            return nn.MaxPool2d(kernel, stride, padding)
        case GlobalAvgPool():
            return nn.AdaptiveAvgPool2d(1)
        case Dropout(rate):
            return nn.Dropout(rate)
        case LRN():
            return LocalResponseNorm(layer)
    raise PluginError(f"engine torch has no module for a layer of kind {layer.kind!r}")
