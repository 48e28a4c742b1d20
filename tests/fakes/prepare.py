"""Prepares in this process, and says nothing."""

from __future__ import annotations

from pathlib import Path

from energybench.prepare import prepare
from energybench.prepared import Preparable


def prepared(plugin: Preparable) -> Path:
    """The folder."""
    plan = plugin.preparation()
    prepare(plan, 1, lambda progress: None)
    return plan.folder
