"""Tests whether a Gluon network that nobody described can be trained to classify: by one step. Imports MXNet."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from energybench.architecture import Network
from energybench.errors import ConfigError, reason
from energybench_plugins.engines.mxnet_import import import_mxnet

mx = import_mxnet()

SAMPLES = 2
"""Enough for a batch normalisation over maps of one pixel."""


def require_classifier(net: Any, network: Network, context: Any, *, hybridize: bool) -> None:
    """One step without an update on two random samples; afterwards every parameter's shape is known.

    The network is left initialised; initialise it anew (`force_reinit`) before training.

    Args:
        net: a Gluon Block, not initialised.
        network: its name, the (C, H, W) of its input and the classes it is to tell apart.
        context: the device on which it will be trained.
        hybridize: whether it will be trained as a graph, which fewer networks can.

    Raises:
        ConfigError: it is no classifier of such inputs; the message says what came out instead, or what failed.
    """
    if not isinstance(net, mx.gluon.HybridBlock):
        raise _refusal(network, f"its builder made a {type(net).__name__}, which is no HybridBlock")
    net.initialize(mx.init.Xavier(), ctx=context, force_reinit=True)  # some come with weights
    net.hybridize(hybridize)
    images = mx.nd.random.normal(shape=(SAMPLES, *network.input_shape), ctx=context)
    try:
        with warnings.catch_warnings(), mx.autograd.record():
            warnings.simplefilter(
                "ignore"
            )  # of parameters that are not used: they make no network less of a classifier
            output = net(images)
            _require_scores(output, network)
            total = output.sum()
        total.backward()
        mx.nd.waitall()
    except ConfigError:
        raise
    except Exception as error:  # a foreign network fails in any way it likes
        shape = (SAMPLES, *network.input_shape)
        raise _refusal(network, f"a training step on images of shape {shape} fails: {reason(error)}") from error
    if not any(parameter.grad_req != "null" for parameter in net.collect_params().values()):
        raise _refusal(network, "none of its parameters is trained")


def _require_scores(output: Any, network: Network) -> None:
    wanted = (SAMPLES, network.classes)
    if isinstance(output, Sequence):
        shapes = ", ".join(str(getattr(part, "shape", type(part).__name__)) for part in output)
        raise _refusal(network, f"it gives {len(output)} outputs ({shapes}), not one of shape {wanted}")
    if output.shape != wanted:
        raise _refusal(network, f"it gives {output.shape} for {SAMPLES} images, not {wanted}")


def _refusal(network: Network, reason: str) -> ConfigError:
    return ConfigError(
        f"model.network={network.name}: it cannot be trained to tell {network.classes} classes apart: {reason}; "
        "choose a classification network, or another model.input_size"
    )
