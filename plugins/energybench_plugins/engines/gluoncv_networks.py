"""Builds networks of GluonCV's zoo. Imports MXNet: only for the training process."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any, NoReturn

from energybench.architecture import ZooNetwork
from energybench.errors import ConfigError
from energybench_plugins.engines.mxnet_import import import_mxnet

DOWNLOADERS = ("gluoncv.model_zoo.model_store", "mxnet.gluon.model_zoo.model_store")
"""Modules through whose `download` every zoo network gets its weights."""


def build(network: ZooNetwork) -> Any:
    """The untrained network, not initialised, for the wanted classes where its constructor takes a number of them.

    Args:
        network: its name and classes; the number of channels comes with the first batch.

    Raises:
        ConfigError: GluonCV cannot build it without its trained weights.
    """
    get_model = _get_model()
    with _without_downloads(network.name):
        for options in _options(network.classes):
            try:
                return get_model(network.name, **options)
            except (TypeError, Warning) as error:  # GluonCV's way to say that an option is unknown
                reason = str(error) or type(error).__name__
            except ConfigError:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
                break
    raise ConfigError(f"model.network={network.name}: GluonCV does not build it: {reason}")


def _options(classes: int) -> Iterator[dict[str, Any]]:
    """Options from the fullest down: constructors differ in what they take, and some swallow what they do not know.

    `pretrained_base` belongs to networks that begin with another, whose trained weights they would fetch; `use_aux` to
    those that give a second output for a second loss while they are trained.
    """
    counts: list[dict[str, int]] = [
        {"classes": classes, "num_classes": classes},
        {"classes": classes},
        {"num_classes": classes},
        {},
    ]
    bases: list[dict[str, bool]] = [
        {"pretrained": False, "pretrained_base": False},
        {"pretrained": False, "use_aux": False},
        {"pretrained": False},
    ]
    for base, count in product(bases, counts):
        yield {**count, **base}


def _get_model() -> Any:
    import_mxnet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch beside MXNet, and of numpy's and scipy's old names
        with _without_torch():
            return importlib.import_module("gluoncv.model_zoo").get_model


@contextmanager
def _without_torch() -> Iterator[None]:
    """GluonCV ends with an error where it finds a torch of this decade, though its Gluon networks need none."""
    found = sys.modules.get("torch")
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]
        if found is not None:
            sys.modules["torch"] = found


@contextmanager
def _without_downloads(name: str) -> Iterator[None]:
    """Some constructors fetch weights whatever they are told; here they end with an error instead."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise ConfigError(f"model.network={name}: it is only made from trained weights; choose one that is not")

    modules = [importlib.import_module(module) for module in DOWNLOADERS]
    kept = [module.download for module in modules]
    for module in modules:
        module.download = refuse  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module, download in zip(modules, kept, strict=True):
            module.download = download  # type: ignore[attr-defined]
