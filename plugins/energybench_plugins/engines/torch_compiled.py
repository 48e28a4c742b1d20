"""torch.compile, with a cache of its own for each run unless one is asked for. Imports PyTorch."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from energybench.errors import ConfigError
from energybench_plugins.engines.torch_options import TorchOptions

FOLDERS = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""Variables that name the compilers' caches -> their folder in ours."""


class Compiler:
    """Compiles modules as the options say.

    Attributes:
        state: "cold" where everything is compiled anew, "warm" where the cache holds what other runs left, "none".

    Args:
        options: of the engine.
        directory: the run's folder; None: the system's for temporary files.

    Raises:
        ConfigError: the installed torch has none of the options of this name, or takes other values.
    """

    def __init__(self, options: TorchOptions, directory: Path | None) -> None:
        self._mode = options.compile
        self._options = _checked(options.compile_options)
        if not self.compiles:
            self.state = "none"
            return
        warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")  # `precision` chose, not forgot
        if options.compile_cache is None:
            cache = Path(tempfile.mkdtemp(prefix="compiled-", dir=directory))
            atexit.register(shutil.rmtree, cache, ignore_errors=True)
        else:
            cache = Path(options.compile_cache).expanduser().absolute()
        self.state = "warm" if cache.is_dir() and any(cache.iterdir()) else "cold"
        for variable, folder in FOLDERS.items():
            os.environ[variable] = str(cache / folder)

    @property
    def compiles(self) -> bool:
        """Whether anything is compiled."""
        return self._mode != "none"

    def __call__(self, module: Any) -> Any:
        """The module, compiled for the shapes it is first called with; as it is where nothing is compiled."""
        if not self.compiles:
            return module
        if not self._options:
            return torch.compile(module, mode=self._mode, dynamic=False)
        chosen = {**torch._inductor.list_mode_options(self._mode), **self._options}  # torch takes one or the other
        return torch.compile(module, options=chosen, dynamic=False)


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    if not options:
        return {}
    from torch._inductor import config

    known = config.get_config_copy()
    for name, value in options.items():
        if name not in known:
            raise ConfigError(f"engine.compile_options.{name}: torch {torch.__version__} has no such option")
        if known[name] is not None and type(value) is not type(known[name]):
            kind = type(known[name]).__name__
            raise ConfigError(f"engine.compile_options.{name}={value}: give a value of type {kind}, as {known[name]}")
    return dict(options)
