"""Runs of the fake engine inside a test's own process, and what they may have left running."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
from omegaconf import OmegaConf

from energybench.config import resolve
from energybench.registry import Registry
from energybench.run.preflight import Machine, prepare


def planned(*, gpu=None, meter=None, measure=None, epochs=2, checkpoint=None, **engine):
    registry = Registry()
    config = {
        "model": {"name": "lenet"},
        "dataset": {"name": "tiny"},
        "engine": {"name": "standin", **engine},
        "meter": {"name": "scripted", **(meter or {})},
        "gpu": {"name": "pascal", "count": 1, **(gpu or {})},
        "batch": 8,
        "budget": {"epochs": epochs},
        "measure": {"baseline_s": 0.0, "warmup_steps": 0, "watchdog_s": 60.0, **(measure or {})},
        "checkpoint": checkpoint or {},
        "tracking": {"name": "none"},
    }
    return prepare(resolve(OmegaConf.create(config), registry), Machine(registry))


def left(directory, before=()):
    """Living processes of a run in `directory`: those that hold its log files open."""
    found = []
    for process in psutil.process_iter():
        if process.pid not in before and process.pid != os.getpid():
            try:
                files = [str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in (1, 2)]
            except OSError:
                continue
            if process.status() != psutil.STATUS_ZOMBIE and any(str(directory) in file for file in files):
                found.append(process)
    return found
