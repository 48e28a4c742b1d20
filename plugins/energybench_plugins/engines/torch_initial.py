"""The values that training begins with. Imports PyTorch: only for the training process."""

from __future__ import annotations

from typing import Any

from torch import nn

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def initialize(net: Any, initializer: str) -> None:
    """Draws the weights of convolutions and fully connected layers from torch's random numbers; biases become 0.

    He et al. 2015 (normal, fan-in, gain of a ReLU) or Glorot & Bengio 2010 (uniform, both fans). Other modules keep
    what they were made with.
    """
    for module in net.modules():
        if isinstance(module, WEIGHTED):
            _draw(module.weight, initializer)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _draw(weight: Any, initializer: str) -> None:
    if initializer == "he":
        nn.init.kaiming_normal_(weight, nonlinearity="relu")
    else:
        nn.init.xavier_uniform_(weight)
