"""The view of MLflow's page that shows runs side by side: columns, order and charts, kept in a tag of the experiment.

Without it the page opens on the sweeps alone, with their runs folded away, and draws a chart of every metric there is.
A user may change it or leave it; theirs is kept by their browser.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

KEY = "energybench"
TAG = f"mlflow.sharedViewState.{KEY}"

_PARAMETERS = ("model.name", "batch", "gpu.name", "gpu.count", "precision", "seed")
_METRICS = (
    "energy_j",
    "energy_uncertainty_j",
    "time_s",
    "power_mean_w",
    "images_per_s",
    "energy_per_image_j",
    "gflops_per_w",
    "accuracy_top1",
)
_TAGS = ("device", "energy_source", "energy_scope", "quality")
_BARS = ("energy_per_image_j", "energy_j", "images_per_s", "power_mean_w", "gflops_per_w", "accuracy_top1")
_LINES = ("epoch.accuracy_top1", "epoch.loss", "epoch.energy_j")


def experiment_tags() -> dict[str, str]:
    """The tags that give an experiment this view and name its first metric."""
    return {"mlflow.experiment.primaryMetric.name": _BARS[0], TAG: json.dumps(_state(), separators=(",", ":"))}


def address(root: str, experiment_id: str) -> str:
    """The address of the view: MLflow's page at `root`, e.g. "http://127.0.0.1:5000"."""
    query = urlencode({"workflowType": "machine_learning", "viewStateShareKey": KEY})
    return f"{root.rstrip('/')}/#/experiments/{experiment_id}/runs?{query}"


def compare_address(root: str, experiment_id: str, run_ids: Sequence[str]) -> str:
    """The address of MLflow's page that compares `run_ids`."""
    lists = {"runs": json.dumps(list(run_ids)), "experiments": json.dumps([experiment_id])}
    return f"{root.rstrip('/')}/#/compare-runs?{urlencode({**lists, 'workflowType': 'machine_learning'})}"


def _state() -> dict[str, Any]:
    return {
        # Any order but by date shows runs without folding them away below their sweep.
        "orderByKey": f"metrics.`{_BARS[0]}`",
        "orderByAsc": True,
        "selectedColumns": [
            *(f"params.`{name}`" for name in _PARAMETERS),
            *(f"metrics.`{name}`" for name in _METRICS),
            *(f"tags.`{name}`" for name in _TAGS),
        ],
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunCharts": _charts(),
        "compareRunSections": [
            _section("runs", "Runs side by side", shown=True),
            _section("epochs", "Over the epochs", shown=True),
            _section("others", "Model metrics", shown=False),  # where the page puts a chart of every other metric
        ],
        "isAccordionReordered": True,
    }


def _charts() -> list[dict[str, Any]]:
    trade = {"xaxis": {"key": "time_s", "type": "METRIC"}, "yaxis": {"key": "energy_j", "type": "METRIC"}}
    axes = {"selectedParams": ["batch"], "selectedMetrics": ["time_s", _BARS[0]], "showAllRuns": True}
    return [
        *(_chart("BAR", name, "runs", metricKey=name, displayName=name) for name in _BARS),
        _chart("SCATTER", "trade", "runs", **trade),
        _chart("PARALLEL", "axes", "runs", **axes),
        *(
            _chart("LINE", name, "epochs", metricKey=name, selectedMetricKeys=[name], displayName=name)
            for name in _LINES
        ),
    ]


def _chart(kind: str, name: str, section: str, **fields: Any) -> dict[str, Any]:
    made = {"uuid": f"{KEY}.{name}", "type": kind, "metricSectionId": f"{KEY}.{section}", "runsCountToCompare": 20}
    return {**made, "deleted": False, "isGenerated": False, **fields}


def _section(name: str, title: str, *, shown: bool) -> dict[str, Any]:
    made = {"uuid": f"{KEY}.{name}", "name": title, "display": shown}
    return {**made, "isReordered": True, "deleted": False, "isGenerated": False}
