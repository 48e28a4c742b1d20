"""Two sides measured in turn, and their ratio: what the benchmarks share."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from energybench.devices import cpu_name


def alternate(a: Callable[[], float], b: Callable[[], float], rounds: int) -> tuple[list[float], list[float]]:
    """Measures a, b, a, b, ... after one uncounted round."""
    a(), b()
    pairs = [(a(), b()) for _ in range(rounds)]
    return [first for first, _ in pairs], [second for _, second in pairs]


def ratio_line(name: str, a: Sequence[float], b: Sequence[float], unit: str) -> str:
    """Medians, the ratio of the medians, and the smallest and largest ratio of one pair."""
    ratios = [first / second for first, second in zip(a, b, strict=True)]
    middle = statistics.median(a) / statistics.median(b)
    return (
        f"{name}: {statistics.median(a):,.4g} / {statistics.median(b):,.4g} {unit} = {middle:.3f} "
        f"(pairs {min(ratios):.3f} to {max(ratios):.3f}, n = {len(ratios)})"
    )


def described(data: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with the machine it was taken on."""
    machine = {"cpu": cpu_name(), "system": platform.platform(), "python": platform.python_version()}
    return {"machine": machine, **data}


def write(path: str | None, data: Mapping[str, Any]) -> None:
    """The raw numbers with the machine they were taken on; nothing without a path."""
    if path is not None:
        Path(path).write_text(json.dumps(described(data), indent=2) + "\n", encoding="utf-8")
