"""Results of runs that were never run: real `Result`s with the numbers that a test wants."""

from __future__ import annotations

import itertools
from typing import Any

from energybench.run.result import Failure, Result

_numbers = itertools.count()


def run(
    batch: int = 64,
    seed: int = 0,
    *,
    image_j: float | None = 0.1,
    image_s: float = 0.002,
    accuracy: float | None = 0.9,
    status: str = "finished",
    board: str | None = "GPU-1",
    tags: dict[str, str] | None = None,
    config: dict[str, Any] | None = None,
    overrides: tuple[str, ...] | None = None,
    independent: float = 0.001,
    common: float = 0.02,
    images: int = 10_000,
    metrics: dict[str, float] | None = None,
    **fields: Any,
) -> Result:
    """One run; `independent` and `common` are relative standard uncertainties of its energy."""
    found: dict[str, float | None] = {"images": float(images), "time_s": images * image_s, "images_per_s": 1 / image_s}
    if image_j is not None:
        energy = image_j * images
        found |= {
            "energy_j": energy,
            "energy_uncertainty_j": 2 * energy * (independent**2 + common**2) ** 0.5,
            "energy_independent_uncertainty_j": 2 * energy * independent,
            "energy_per_image_j": image_j,
            "edp_js": energy * images * image_s,
            "power_mean_w": image_j / image_s,
        }
    found |= {"accuracy_top1": accuracy, **(metrics or {})}
    settings: dict[str, Any] = {
        "model": {"name": "lenet", "options": {}},
        "dataset": {"name": "digits", "options": {}},
        "gpu": {"name": "pascal", "count": 1},
        "batch": batch,
        "seed": seed,
        "precision": "fp32",
    }
    return Result(
        **{
            "run_id": f"{next(_numbers):032x}",
            "status": status,
            "failure": None if status == "finished" else Failure("nan_loss", "no number"),
            "config": {**settings, **(config or {})},
            "started_at": "2026-01-01T00:00:00+00:00",
            "ended_at": "2026-01-01T00:00:20+00:00",
            "metrics": {name: value for name, value in found.items() if value is not None},
            "epochs": ({"epoch": 1.0, "images": 1000.0},),
            "tags": {"energy_source": "measured", "energy_scope": "gpu", "meter": "nvml", "device": "TITAN Xp"}
            | {"generation": "pascal", "engine": "gluon", "quality": "ok"}
            | (tags or {}),
            "overrides": (f"batch={batch}", f"seed={seed}") if overrides is None else overrides,
            "provenance": {"host": "server", "devices": [{"uuid": board, "name": "TITAN Xp"}]} if board else {},
            **fields,
        }
    )


def repeats(batch: int, energies: Any, **changes: Any) -> list[Result]:
    """One run a value of J/image, with seeds 0, 1, ..."""
    return [run(batch, seed, image_j=value, **changes) for seed, value in enumerate(energies)]
