"""Tests whether a network that nobody described can be trained to classify: by one step. Imports PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from energybench.architecture import Network
from energybench.errors import ConfigError, reason

SAMPLES = 2
"""Enough for a batch normalisation over maps of one pixel."""


def require_classifier(net: Any, network: Network, device: Any) -> None:
    """One step without an update on random samples, by a copy of the network.

    Args:
        net: what a builder made.
        network: its name, the (C, H, W) of its input and the classes it is to tell apart.
        device: on which the step is made.

    Raises:
        ConfigError: it is no classifier of such inputs; the message says what came out instead, or what failed.
    """
    if not isinstance(net, nn.Module):
        raise _refusal(network, f"its builder made a {type(net).__name__}, which is no torch.nn.Module")
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise _refusal(network, "none of its parameters is trained")
    trial = copy.deepcopy(net).to(device).train()
    images = torch.randn((SAMPLES, *network.input_shape), device=device)
    try:
        output = trial(images)
        _require_scores(output, network)
        output.sum().backward()
    except ConfigError:
        raise
    except Exception as error:  # a foreign network fails in any way it likes
        raise _refusal(
            network, f"a training step on images of shape {tuple(images.shape)} fails: {reason(error)}"
        ) from error


def _require_scores(output: Any, network: Network) -> None:
    wanted = (SAMPLES, network.classes)
    if isinstance(output, Sequence):
        raise _refusal(network, f"it gives {len(output)} outputs, not one of shape {wanted}")
    shape = getattr(output, "shape", None)
    if shape is None or tuple(shape) != wanted:
        given = type(output).__name__ if shape is None else tuple(shape)
        raise _refusal(network, f"it gives {given} for {SAMPLES} images, not {wanted}")


def _refusal(network: Network, reason: str) -> ConfigError:
    return ConfigError(
        f"model.network={network.name}: it cannot be trained to tell {network.classes} classes apart: {reason}; "
        "choose a classification network, or another model.input_size"
    )
