"""Weights in half precision for the passes, in float32 for the optimiser. Imports PyTorch.

Autocast casts each weight on the way forward and each gradient on the way back: two small kernels a layer and step, and
of gradients that several ranks add up, four bytes each. A copy that is brought up to date by one kernel a step computes
the same numbers.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class HalfCopy:
    """A network's twin whose convolutions and dense layers hold their weights in half precision.

    Everything else, normalisations and their statistics too, is the network's own.

    Attributes:
        net: the twin.

    Args:
        net: whose weights, float32, an optimiser updates.
        dtype: of the twin's.
    """

    def __init__(self, net: Any, dtype: Any) -> None:
        self.net = copy.deepcopy(net)
        self._masters: list[Any] = []
        self._copies: list[Any] = []
        for mine, theirs in zip(self.net.modules(), net.modules(), strict=True):
            mine._buffers.update(theirs._buffers)
            for name, parameter in theirs._parameters.items():
                if parameter is not None and isinstance(theirs, nn.Conv2d | nn.Linear):
                    mine._parameters[name] = nn.Parameter(parameter.detach().to(dtype))
                    self._masters.append(parameter)
                    self._copies.append(mine._parameters[name])
                else:
                    mine._parameters[name] = parameter
        self._gradients = [torch.zeros_like(master) for master in self._masters]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def hand_over(self) -> None:
        """Gives the copies' gradients to the weights, and takes them from the copies."""
        torch._foreach_copy_(self._gradients, [one.grad for one in self._copies])
        for master, one, gradient in zip(self._masters, self._copies, self._gradients, strict=True):
            master.grad, one.grad = gradient, None

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def refresh(self) -> None:
        """Brings the copies up to date."""
        torch._foreach_copy_(self._copies, self._masters)
