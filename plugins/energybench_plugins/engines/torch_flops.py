"""Counts the FLOPs of a built network with torch's own counter. Imports PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from energybench.architecture import TRAINING_PASSES, Shape


def training_flops(net: Any, input_shape: Shape) -> int | None:
    """FLOPs to train on one sample of `input_shape` (C, H, W): 3 times the forward pass; see `forward_flops`."""
    forward = forward_flops(net, input_shape)
    return None if forward is None else TRAINING_PASSES * forward


def forward_flops(net: Any, input_shape: Shape) -> int | None:
    """FLOPs of one forward pass of one sample: 2 a multiply-accumulate of convolutions and matrix products.

    The network is left as it was. None where the counter saw nothing that it counts.
    """
    parameter = next(net.parameters())
    training = net.training
    counter = FlopCounterMode(display=False)
    net.eval()
    with torch.no_grad(), counter:
        net(torch.zeros((1, *input_shape), device=parameter.device, dtype=parameter.dtype))
    net.train(training)
    return int(counter.get_total_flops()) or None
