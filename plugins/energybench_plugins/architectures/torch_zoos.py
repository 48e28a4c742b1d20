"""The model zoos of torchvision and timm: their networks by the names that they are registered under.

Importing either imports torch, so the names are read from the sources: both mark each network's function.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path

from energybench.errors import ConfigError

LIBRARIES = ("torchvision", "timm")
BUILDERS = {"torch": "energybench_plugins.engines.torch_networks:build"}
_REGISTERED = re.compile(
    r"^@register_model(?:\((?:name=)?[\"']?([\w.]*)[\"']?\))?\s*\n(?:@.*\n)*def (\w+)", re.MULTILINE
)


def names(library: str) -> tuple[str, ...]:
    """Every network of the installed library, sorted; of torchvision those for images alone.

    Raises:
        ConfigError: it is not installed, or its sources mark no network.
    """
    found = importlib.util.find_spec(library)
    if found is None or found.origin is None:
        raise ConfigError(f"model=zoo: {library} is not installed; pip install {library}")
    folder = Path(found.origin).parent / "models"
    known = _registered(folder)
    if not known:
        raise ConfigError(f"model=zoo: {folder} marks no networks; install another release of {library}")
    return known


@functools.cache
def _registered(folder: Path) -> tuple[str, ...]:
    texts = (path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py")))
    return tuple(sorted({given or function for text in texts for given, function in _REGISTERED.findall(text)}))
