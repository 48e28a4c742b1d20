"""A run's folder: the lock on it, and what of it goes with the run."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from energybench.errors import EnergybenchError
from energybench.run.result import OUTPUT_FILES, PLOT_FILE, RESULT_FILE, Result

_LOG = logging.getLogger(__name__)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on a file or folder that exists anyway; does nothing where it does not exist."""
    handle = _open(path)
    if handle is None:
        yield
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int | None:
    if not path.exists():
        return None
    try:
        # NFS locks exclusively only what is open for writing; a folder cannot be, nor can a read-only archive.
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def sweep_folder(directory: Path) -> Path:
    """The folder that all runs of a sweep share: the one with Hydra's multirun.yaml, else the one above the run's."""
    parents = directory.resolve().parents
    return next((parent for parent in parents if (parent / "multirun.yaml").exists()), parents[0])


@contextmanager
def staged(result: Result, directory: Path) -> Iterator[Path]:
    """Everything that goes with a run in one folder, so that one call uploads it; what exists is linked, not copied.

    Args:
        result: without credentials.
        directory: the run's folder; the power plot is drawn into it.
    """
    _draw(result, directory)
    folder = Path(tempfile.mkdtemp(prefix="energybench-"))
    try:
        _write(result, folder)
        for path in (found for pattern in OUTPUT_FILES for found in directory.glob(pattern)):
            if path.is_file() and path.stat().st_size:
                (folder / path.name).symlink_to(path.resolve())
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(result: Result, folder: Path) -> None:
    config = yaml.safe_dump(result.config, sort_keys=False, allow_unicode=True)
    environment = json.dumps(result.provenance, indent=2, ensure_ascii=False) + "\n"
    texts = {RESULT_FILE: result.to_json() + "\n", "config.yaml": config, "environment.json": environment}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _draw(result: Result, directory: Path) -> None:
    """Leaves the power plot in the run's folder; a run is worth recording without it."""
    if (directory / PLOT_FILE).exists():
        return
    from energybench.power_plot import plot_power  # who only reads a store needs no arrays

    try:
        plot_power(result, directory)
    except (EnergybenchError, OSError, ImportError) as error:
        _LOG.warning("no power plot for %s: %s", directory, error)
