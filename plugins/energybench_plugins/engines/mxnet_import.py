"""The one way to import MXNet: its last release is older than the numpy it runs on."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from energybench.errors import ConfigError

_INSTALL = "pip install 'energybench[gluon]' (CPU) or 'energybench[gluon-cuda]' (NVIDIA), or use engine=torch"

_ALIASES: dict[str, type] = {
    "bool": bool,
    "int": int,
    "float": float,
    "object": object,
    "complex": complex,
    "str": str,
}
"""Names of builtins that numpy 1.24 dropped and MXNet 1.9.1 still uses, at import and later."""


def import_mxnet() -> Any:
    """Imports MXNet and returns the module; the first call takes seconds.

    Raises:
        ConfigError: MXNet is not installed, its numpy is too new, or a library it links is missing; the message says
            what to install.
    """
    if importlib.util.find_spec("mxnet") is None:
        raise ConfigError(f"engine=gluon: MXNet is not installed; {_INSTALL}")
    _restore_aliases()
    try:
        return importlib.import_module("mxnet")
    except ModuleNotFoundError as error:
        # Python 3.12 dropped distutils, which setuptools brings back.
        package = "setuptools" if error.name and error.name.split(".")[0] == "distutils" else error.name
        raise ConfigError(f"engine=gluon: MXNet needs {error.name!r}; pip install {package}") from error
    except OSError as error:
        # The CUDA builds link libraries of CUDA 11 that they do not carry.
        raise ConfigError(f"engine=gluon: MXNet could not load its libraries ({error}); {_INSTALL}") from error


def _restore_aliases() -> None:
    import numpy as np

    if int(np.__version__.split(".")[0]) > 1:
        raise ConfigError(
            f"engine=gluon: MXNet needs numpy below 2, not {np.__version__}; pip install 'numpy<2', or use engine=torch"
        )
    for name, builtin in _ALIASES.items():
        # Through the dictionary: asking numpy for a dropped name warns.
        vars(np).setdefault(name, builtin)
