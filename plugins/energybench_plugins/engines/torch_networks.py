"""Builds networks of torchvision's and timm's zoos. Imports PyTorch: only for the training process."""

from __future__ import annotations

import importlib
from typing import Any

from energybench.architecture import ZooNetwork
from energybench.errors import ConfigError, reason


def build(network: ZooNetwork) -> Any:
    """The untrained network for the wanted classes and channels.

    Args:
        network: named "torchvision/<name>" or "timm/<name>".

    Raises:
        ConfigError: the library does not start beside the installed torch, or does not build it.
    """
    library, _, name = network.name.partition("/")
    try:
        module = importlib.import_module("torchvision.models" if library == "torchvision" else "timm")
    except Exception as error:  # a build for another torch fails in ways of its own
        raise ConfigError(
            f"model.network={network.name}: {library} does not start beside the installed torch: {reason(error)}; "
            "install the torchvision that was built for it"
        ) from error
    try:
        return _torchvision(module, name, network) if library == "torchvision" else _timm(module, name, network)
    except Exception as error:
        raise ConfigError(f"model.network={network.name}: {library} does not build it: {reason(error)}") from error


def _torchvision(models: Any, name: str, network: ZooNetwork) -> Any:
    """Networks with a second output for a second loss are built without it."""
    options = {"weights": None, "num_classes": network.classes}
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": False}
    return models.get_model(name, **options)


def _timm(timm: Any, name: str, network: ZooNetwork) -> Any:
    options = {"pretrained": False, "num_classes": network.classes, "in_chans": network.input_shape[0]}
    return timm.create_model(name, **options)
