"""Finds plugins, loads them one by one and keeps what they register: kind and name -> factory, schema, owner."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import pluggy

from energybench import hookspecs
from energybench.errors import ConfigError, PluginError

GROUP = "energybench"
OWN_PACKAGE = "energybench_plugins."
HOOK_PREFIX = "energybench_"
PLUGINS_VARIABLE = "ENERGYBENCH_PLUGINS"

KINDS = {
    "model": "energybench_register_architectures",
    "dataset": "energybench_register_datasets",
    "engine": "energybench_register_engines",
    "meter": "energybench_register_meters",
}
"""Config group -> the hook that fills it."""

HOOKS = {**KINDS, "synchronizer": "energybench_register_synchronizers"}
"""Every kind of registered part, those that no configuration chooses too -> the hook that fills it."""


@dataclass(frozen=True)
class Entry:
    """One registered part and the plugin that owns it."""

    kind: str
    name: str
    factory: Callable[..., Any]
    schema: type
    owner: str


@dataclass(frozen=True)
class Broken:
    """A plugin that could not be loaded, wholly or in part."""

    plugin: str
    reason: str

    def __str__(self) -> str:
        return f"plugin {self.plugin} could not be loaded: {self.reason}"


class _Manager(pluggy.PluginManager):
    """Takes every function whose name begins with the prefix for a hook, marked or not."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        if name.startswith(HOOK_PREFIX) and inspect.isroutine(getattr(plugin, name, None)):
            return {}
        return None


class Registry:
    """Loads every plugin at once and answers by kind and name.

    A plugin that fails is left out and remembered in `broken`; a name registered twice is remembered with both owners
    and refused when it is asked for, so that which one wins never depends on the order of loading.

    Args:
        ours: False leaves out energybench's own plugins. They bring no configuration path: where nothing but Hydra's
            search path is wanted, their import is not worth its time.
    """

    def __init__(self, *, ours: bool = True) -> None:
        self.broken: list[Broken] = []
        self.config_paths: list[tuple[str, str]] = []
        self._entries: dict[tuple[str, str], list[Entry]] = {}
        self._manager = _Manager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        for owner, load in _candidates(ours):
            try:
                self._load(owner, load())
            except Exception as error:
                self.broken.append(Broken(owner, _one_line(error)))

    def _load(self, owner: str, plugin: Any) -> None:
        known = {name for name in vars(hookspecs) if name.startswith(HOOK_PREFIX)}
        hooks = [name for name in dir(plugin) if name.startswith(HOOK_PREFIX)]
        for name in hooks:
            if name not in known:
                raise PluginError(f"unknown hook {name!r}; the hooks are {', '.join(sorted(known))}")
        if not hooks:
            raise PluginError(f"no hook in it; the hooks are {', '.join(sorted(known))}")
        if self._manager.is_registered(plugin):
            return
        self._manager.register(plugin, owner)
        try:
            self._collect(owner, plugin)
        except Exception:
            self._manager.unregister(plugin)
            raise

    def _collect(self, owner: str, plugin: Any) -> None:
        entries: list[Entry] = []
        others = self._manager.get_plugins() - {plugin}
        for kind, hook in HOOKS.items():
            caller = self._manager.subset_hook_caller(hook, others)
            caller(register=_registrar(kind, owner, entries))
        paths = self._manager.subset_hook_caller(f"{HOOK_PREFIX}config_path", others)()
        for entry in entries:
            self._entries.setdefault((entry.kind, entry.name), []).append(entry)
        self.config_paths.extend((owner, path) for path in paths)

    def get(self, kind: str, name: str) -> Entry:
        """The part registered as `name`.

        Raises:
            ConfigError: there is none; the message lists those there are, and what could not be loaded.
            PluginError: two plugins registered it.
        """
        entries = self._entries.get((kind, name), [])
        if len(entries) > 1:
            owners = " and ".join(entry.owner for entry in entries)
            raise PluginError(f"{kind} {name!r} is registered by {owners}; uninstall one of them or rename its {kind}")
        if not entries:
            message = f"{kind} {name!r} is not registered; there is: {', '.join(self.names(kind)) or 'none'}"
            raise ConfigError("; ".join([message, *map(str, self.broken)]))
        return entries[0]

    def registered(self, kind: str) -> list[Entry]:
        """Everything of a kind that can be used, in the order of registration."""
        return [entries[0] for (of, _), entries in self._entries.items() if of == kind and len(entries) == 1]

    def names(self, kind: str) -> list[str]:
        """Every name of a kind, sorted."""
        return sorted(name for registered, name in self._entries if registered == kind)

    def entries(self) -> Iterator[Entry]:
        """Everything registered, duplicates included, by kind and name."""
        for key in sorted(self._entries):
            yield from self._entries[key]

    def duplicates(self) -> list[str]:
        """One line for each name that two plugins claim."""
        return [
            f"{kind} {name!r} is registered by {' and '.join(entry.owner for entry in entries)}; it cannot be used"
            for (kind, name), entries in sorted(self._entries.items())
            if len(entries) > 1
        ]


def _registrar(kind: str, owner: str, entries: list[Entry]) -> hookspecs.Register:
    def register(name: str, factory: Callable[..., Any], schema: type) -> None:
        if not isinstance(name, str) or not name:
            raise PluginError(f"register: the {kind}'s name is {name!r}, not a word")
        if not callable(factory):
            raise PluginError(f"register: the factory of {kind} {name!r} cannot be called")
        if not (isinstance(schema, type) and dataclasses.is_dataclass(schema)):
            raise PluginError(f"register: the schema of {kind} {name!r} is not a dataclass")
        entries.append(Entry(kind, name, factory, schema, owner))

    return register


def _candidates(ours: bool) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Owner and loader of every plugin; one that is installed twice, as beside its own source, counts once."""
    seen = set()
    for distribution in metadata.distributions():
        points = [
            point for point in distribution.entry_points.select(group=GROUP) if (point.name, point.value) not in seen
        ]
        owner = f"({distribution.metadata['Name']} {distribution.version})" if points else ""
        for point in points:
            seen.add((point.name, point.value))
            if ours or not point.value.startswith(OWN_PACKAGE):
                yield f"{point.name} {owner}", point.load
    for module in filter(None, (part.strip() for part in os.environ.get(PLUGINS_VARIABLE, "").split(","))):
        yield f"{module} ({PLUGINS_VARIABLE})", lambda module=module: importlib.import_module(module)  # type: ignore[misc]


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}"
