"""Where a result comes from: software, machine and code, so that two results can be told to be comparable."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib import metadata
from typing import Any

from energybench.devices import Device, cpu_name
from energybench.power.meter import Session


@lru_cache(maxsize=1)
def environment() -> dict[str, Any]:
    """Packages, Python, system, CPU and git commit: the same for every run of this process."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "host": platform.node(),
        "cpu": {"name": cpu_name(), "logical_cores": os.cpu_count()},
        "git": _git(),
        "packages": _packages(),
    }


def provenance(
    devices: Iterable[Device], sessions: Sequence[Session], trainer_environment: dict[str, str]
) -> dict[str, Any]:
    """All of it for one run: environment, devices that train, channels that were read, the framework's own words."""
    return {
        **environment(),
        "devices": [device.to_json() for device in devices],
        "channels": [
            {**asdict(channel), "contains": list(channel.contains)}
            for session in sessions
            for channel in session.channels
        ],
        "engine": trainer_environment,
    }


def _packages() -> dict[str, str]:
    found = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    return dict(sorted((name, version) for name, version in found.items() if name))


def _git() -> dict[str, str] | None:
    """Commit of the working directory and whether it had changes; None outside a repository."""
    commit, status = _ask_git("rev-parse", "HEAD"), _ask_git("status", "--porcelain", "--untracked-files=no")
    if commit is None or status is None:
        return None
    return {"commit": commit, "changes": "yes" if status else "no"}


def _ask_git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
