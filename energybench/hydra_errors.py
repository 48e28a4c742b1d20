"""What Hydra and OmegaConf say of a command line, as one line that names what is wrong and what there is."""

from __future__ import annotations

import re
from collections.abc import Callable

from energybench.errors import ConfigError, EnergybenchError
from energybench.registry import KINDS, Registry


def translate(
    error: Exception, registry: Registry, chosen: Callable[[str], str | None] = lambda section: None
) -> EnergybenchError:
    """Hydra's and OmegaConf's errors as one line of ours; `chosen` tells the part of a section."""
    text = str(error)
    if found := re.search(r"Could not override '([^']*)'", text):
        return _unknown_override(found[1], registry, chosen)
    if found := re.search(r"Could not find '(?:([^']*)/)?([^'/]*)'", text):
        return _unknown_choice(found[1] or "", found[2], text, registry)
    if found := re.search(r"Ambiguous value for argument '([^']*)'", text):
        return ConfigError(f"{found[1]}: more than one value; add -m to sweep over them, or write key=[a,b] for a list")
    return ConfigError(line(error))


def _unknown_override(key: str, registry: Registry, chosen: Callable[[str], str | None]) -> ConfigError:
    if key.startswith("hydra."):
        return ConfigError(f"unknown key {key!r} of Hydra; energybench --cfg hydra lists its keys")
    from energybench.config import unknown_key

    section = key.partition(".")[0]
    return unknown_key(key, registry, chosen(section) if section in KINDS else None)


def _unknown_choice(group: str, name: str, text: str, registry: Registry) -> ConfigError:
    """Hydra lists the options one a line behind "Available options in 'group':"."""
    listed = text.partition("Available options in")[2].partition("Config search path")[0]
    names = ", ".join(filter(None, map(str.strip, listed.splitlines()[1:]))) or "none"
    return ConfigError(
        "; ".join([f"{group or 'config'} {name!r} is not known; there is: {names}", *map(str, registry.broken)])
    )


def line(error: Exception) -> str:
    """What an error says, in one line."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    said = " ".join(str(error).split()).removesuffix("full_key:").strip()
    if not said and isinstance(error.__cause__, Exception):
        return line(error.__cause__)
    return said or type(error).__name__
