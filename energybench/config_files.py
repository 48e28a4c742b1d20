"""YAML files that a user gives, looked over before Hydra reads them: no few lines may grow to fill the memory.

An alias counts as often as it is used: nine lists, each of nine times the one before, are a hundred million values.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult

from energybench.errors import ConfigError

MOST_BYTES = 256 * 1024
MOST_VALUES = 10_000
MOST_CHARACTERS = 4096
"""Of one value or key. A plain number longer than that is no number, and takes long to be read as one."""

DEEPEST = 40
REMEDY = "write it shorter"


class ScreenedFileSource(FileConfigSource):
    """Hydra's source of configuration files, each looked over first."""

    def load_config(self, config_path: str) -> ConfigResult:
        """As Hydra's; raises ConfigError for a file that is no configuration."""
        path = Path(self.path, self._normalize_file_name(config_path))
        if path.is_file():
            state = path.stat()
            screen(path, state.st_mtime_ns, state.st_size)
        return super().load_config(config_path)


def screen_files() -> None:
    """Lets Hydra read files through `ScreenedFileSource`; what packages bring is code and not looked over."""
    Plugins.instance()  # registers Hydra's own sources, once
    SourcesRegistry.instance().types["file"] = ScreenedFileSource


@lru_cache(maxsize=256)
def screen(path: Path, mtime_ns: int, size: int) -> None:
    """Raises ConfigError where a file in this state is too large, too deep, or no text; other mistakes Hydra finds."""
    if size > MOST_BYTES:
        raise ConfigError(f"{path}: {size:,} bytes; a configuration has {MOST_BYTES:,} at most; {REMEDY}")
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: {error.reason} at byte {error.start}; save it as UTF-8") from error
    try:
        _weigh(path, yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError:
        return  # Hydra says where


def _weigh(path: Path, events: Iterable[Any]) -> None:
    """Counts the values of a file as if its aliases were written out."""
    known: dict[str | None, int] = {}
    around: list[tuple[str | None, int]] = [(None, 0)]
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            around.append((event.anchor, 0))
            if len(around) > DEEPEST:
                raise ConfigError(f"{path}: more than {DEEPEST} levels deep; {REMEDY}")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, count = around.pop()
            count += 1
        elif isinstance(event, yaml.ScalarEvent):
            anchor, count = event.anchor, 1
            if len(event.value) > MOST_CHARACTERS:
                raise ConfigError(f"{path}: a value of {len(event.value):,} characters; {REMEDY}")
        elif isinstance(event, yaml.AliasEvent):
            anchor, count = event.anchor, known.get(event.anchor, 1)
            if any(anchor == name for name, _ in around):
                raise ConfigError(f"{path}: *{anchor} stands within &{anchor}; {REMEDY}")
        else:
            continue
        known[anchor] = count
        name, before = around.pop()
        around.append((name, before + count))
        if before + count > MOST_VALUES:
            raise ConfigError(f"{path}: more than {MOST_VALUES:,} values, its aliases written out; {REMEDY}")
