"""Model zoos: GluonCV's networks by the names that GluonCV gives them, built by the engine gluon.

Those of torchvision and timm, which the engine torch builds, have the library's name before theirs (`torch_zoos`).
Whether a network can be trained to classify is tested when it is built (`engines.gluon_check`, `engines.torch_check`),
not looked up here.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from energybench.architecture import ZooNetwork
from energybench.errors import ConfigError
from energybench.hookspecs import Register
from energybench_plugins.architectures import torch_zoos

BUILDERS = {"gluon": "energybench_plugins.engines.gluoncv_networks:build"}
IMAGENET_SIZE = 224
NEAREST = 5
"""Names that a message lists."""

SIZES = {"cifar": 32, "inception": 299, "xception": 299}
"""Part of a name -> the input size that its networks were published with, where it is not ImageNet's usual one."""


@dataclass(frozen=True)
class ZooOptions:
    """Options of `model=zoo`.

    Attributes:
        network: a name of GluonCV's model zoo, torchvision/<name> or timm/<name>.
        channels: channels of a sample.
        input_size: height and width of a sample in pixels; null: what the network was made for, by its name.
    """

    network: str = "resnet50_v1"
    channels: int = 3
    input_size: int | None = None


def zoo(options: ZooOptions, classes: int) -> ZooNetwork:
    """Names the network and its input; raises ConfigError where its library is missing or knows no such network."""
    library, _, own = options.network.lower().rpartition("/")
    if library and library not in torch_zoos.LIBRARIES:
        raise ConfigError(
            f"model.network={options.network}: there is no zoo {library!r}; give torchvision/<name>, timm/<name>, "
            "or a name of GluonCV's alone"
        )
    known = torch_zoos.names(library) if library else names()
    name = f"{library}/{own}" if library else own
    if own not in known:
        near = ", ".join(difflib.get_close_matches(own, known, n=NEAREST, cutoff=0.0))
        raise ConfigError(
            f"model.network={options.network}: {library or 'GluonCV'} has no such network; "
            f"the nearest of its {len(known)} are {near}"
        )
    size = options.input_size if options.input_size is not None else default_size(name)
    if size < 1 or options.channels < 1:
        raise ConfigError(f"model.input_size={size}, model.channels={options.channels}: give numbers from 1")
    builders = torch_zoos.BUILDERS if library else BUILDERS
    return ZooNetwork(name, (options.channels, size, size), classes, builders)


def default_size(name: str) -> int:
    """Height and width in pixels of the images that a network of this name was made for."""
    return next((size for part, size in SIZES.items() if part in name), IMAGENET_SIZE)


def names() -> tuple[str, ...]:
    """Every name of the installed GluonCV's zoo, sorted.

    Importing GluonCV imports MXNet, so its table is read from its source: one dictionary of names, which `get_model`
    looks up and which has kept its place through all releases.

    Raises:
        ConfigError: GluonCV is not installed, or its source has no such table.
    """
    found = importlib.util.find_spec("gluoncv")
    if found is None or found.origin is None:
        raise ConfigError("model=zoo: GluonCV is not installed; pip install 'energybench[gluon]'")
    source = Path(found.origin).parent / "model_zoo" / "model_zoo.py"
    return _table(source)


@functools.cache
def _table(source: Path) -> tuple[str, ...]:
    try:
        tree = ast.parse(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"model=zoo: {source} cannot be read ({error}); reinstall gluoncv") from error
    keys = [key for node in ast.walk(tree) if isinstance(node, ast.Assign) and _is_table(node) for key in _keys(node)]
    if not keys:
        raise ConfigError(f"model=zoo: {source} has no table of networks; install gluoncv 0.10.5")
    return tuple(sorted(keys))


def _is_table(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "_models" for target in node.targets)


def _keys(node: ast.Assign) -> Iterable[str]:
    keys = node.value.keys if isinstance(node.value, ast.Dict) else []
    return [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]


def energybench_register_architectures(register: Register) -> None:
    """Registers `zoo`."""
    register("zoo", zoo, ZooOptions)
