"""Every hook of energybench. A plugin is a module with functions of these names; nothing else is asked of it.

Hooks are found by name, as pytest's are: a function called `energybench_...` that is not listed here is refused when
the plugin is loaded, so that a misspelt hook cannot pass unnoticed. A plugin is made known by an entry point of the
group `energybench` in its package, or, where it lives in no package, by `ENERGYBENCH_PLUGINS=module,module`.

Importing a plugin must be cheap: frameworks and drivers are imported inside factories and methods.

Each `register` takes `(name, factory, schema)`. `name` is what the user selects by and what the YAML file's `name:`
says; `schema` is a dataclass of the part's options, one field a key of the YAML file, with defaults and types that are
checked; `factory` is called with an instance of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

hookspec = pluggy.HookspecMarker("energybench")


class Register(Protocol):
    """Registers one named part."""

    def __call__(self, name: str, factory: Callable[..., Any], schema: type) -> None:
        """Raises PluginError where the arguments do not fit."""


@hookspec
def energybench_register_architectures(register: Register) -> None:
    """Registers networks.

    `factory(options, classes)` returns an `energybench.architecture.Architecture` whose last layer tells `classes`
    classes apart, or, for a network that cannot be described, an `energybench.architecture.ZooNetwork` that names a
    builder for each engine. Raises ConfigError for options that make no network.
    """


@hookspec
def energybench_register_engines(register: Register) -> None:
    """Registers frameworks. `factory(options)` returns an `energybench.run.engine.Engine`."""


@hookspec
def energybench_register_datasets(register: Register) -> None:
    """Registers data sets. `factory(options)` returns an `energybench.dataset.DatasetPlugin`."""


@hookspec
def energybench_register_meters(register: Register) -> None:
    """Registers power backends. `factory(options)` returns an `energybench.power.meter.Meter`.

    A meter also discovers the devices of its driver: what `gpu=` can select is what the registered meters report.
    """


@hookspec
def energybench_register_synchronizers(register: Register) -> None:
    """Registers what waits for a framework's work at the edges of `energybench.measure`'s windows.

    `factory(options)` returns a function without arguments that returns when all work that was enqueued through the
    framework is done. Where the framework is not loaded or has started no device, it does nothing: it imports nothing
    and makes no context.
    """


@hookspec
def energybench_config_path() -> str:  # type: ignore[empty-body]
    """A package of YAML files, such as "pkg://my_plugin.conf", added to Hydra's search path.

    Its folders are the groups: `model/`, `dataset/`, `engine/`, `meter/`, `experiment/`.
    """
