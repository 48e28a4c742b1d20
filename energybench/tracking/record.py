"""What of a result is recorded, as plain values: nothing here talks to a store."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from energybench.credentials import redact
from energybench.run.result import Result, devices_of

RUN_TAG = "energybench.run_id"
SWEEP_TAG = "energybench.sweep_id"
CELL_TAG = "energybench.cell"
SUPERSEDED_TAG = "energybench.superseded"
COMPLETE_TAG = "energybench.complete"
FAILURE_TAG = "energybench.failure"
OVERRIDES_TAG = "energybench.overrides"
EPOCH_IMAGES_TAG = "energybench.epoch_images"
ORIGIN_TAG = "energybench.origin"
PARENT_TAG = "mlflow.parentRunId"
NAME_TAG = "mlflow.runName"

STATUSES = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
EPOCH_PREFIX = "epoch."

# MLflow's limits; tags by the smaller one of older servers.
_MAX_KEY, _MAX_PARAMETER, _MAX_TAG, _MAX_NAME = 250, 6000, 5000, 200
_NOT_IN_A_KEY = re.compile(r"[^\w./ :-]", re.ASCII)


def flatten(config: Mapping[str, Any]) -> dict[str, str]:
    """Nested configuration as one level: {"model": {"name": "lenet"}} -> {"model.name": "lenet"}."""
    return dict(_leaves(config, ""))


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield _key(f"{prefix}{key}"), _cut(text, _MAX_PARAMETER)


def metrics(result: Result) -> list[tuple[str, float, int, int]]:
    """(name, value, time in ms since 1970, step) of every scalar (step 0) and of the series over epochs (step = epoch).

    Times come from the result, so that recording it again writes the same rows.
    """
    end_ms = millis(result.ended_at)
    rows = [(_key(name), value, end_ms, 0) for name, value in result.metrics.items()]
    for epoch in result.epochs:
        step = int(epoch["epoch"])
        time_ms = _epoch_end_ms(result, step, end_ms)
        rows += [(_key(EPOCH_PREFIX + name), value, time_ms, step) for name, value in epoch.items() if name != "epoch"]
    return [row for row in rows if math.isfinite(row[1])]


def _epoch_end_ms(result: Result, epoch: int, end_ms: int) -> int:
    ends = [phase.end_ns for phase in result.phases if phase.epoch == epoch]
    last = max((phase.end_ns for phase in result.phases), default=0)
    return end_ms - (last - max(ends)) // 1_000_000 if ends else end_ms


def tags(result: Result) -> dict[str, str]:
    """The tags of a run, without those that say where it belongs and whether it is complete."""
    found = {**result.tags, **identity(result.run_id, run_name(result.config, result.overrides))}
    if result.failure is not None:
        found[FAILURE_TAG] = f"{result.failure.kind}: {result.failure.message}"
    found[OVERRIDES_TAG] = _json(list(result.overrides))
    found[ORIGIN_TAG] = _json(_origin(result.provenance))
    if result.epochs and "images" in result.epochs[0]:
        found[EPOCH_IMAGES_TAG] = str(round(result.epochs[0]["images"]))
    git = result.provenance.get("git")
    if isinstance(git, Mapping) and "commit" in git:
        found["mlflow.source.git.commit"] = git["commit"]
    return clean_tags(found)


def _origin(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What of the provenance decides whether two runs can be compared: boards, engine, code."""
    kept: dict[str, Any] = {
        "devices": [
            {key: device.get(key) for key in ("kind", "uuid", "name", "generation")}
            for device in devices_of(provenance)
        ]
    }
    kept |= {key: provenance[key] for key in ("host", "python", "git", "engine") if key in provenance}
    packages = provenance.get("packages")
    known = packages if isinstance(packages, Mapping) else {}
    return kept | {"packages": {name: known[name] for name in ("energybench",) if name in known}}


def identity(run_id: str, name: str) -> dict[str, str]:
    """The tags that a run has from its beginning."""
    return {RUN_TAG: run_id, NAME_TAG: name, **source()}


def source() -> dict[str, str]:
    """The tags that tell MLflow what made a run."""
    return {"mlflow.source.name": "energybench", "mlflow.source.type": "LOCAL"}


def clean_tags(found: Mapping[str, str]) -> dict[str, str]:
    """Tags as MLflow takes them: valid names, bounded values, no credentials."""
    return {_key(name): _cut(redact(str(value)), _MAX_TAG) for name, value in found.items()}


def run_name(config: Mapping[str, Any], overrides: Sequence[str] = ()) -> str:
    """A short name: the model, the batch, and whatever else was asked for: "lenet batch=64 gpu=volta"."""
    model = config.get("model")
    words = [str(model.get("name", "")) if isinstance(model, Mapping) else str(model or "")]
    if "batch" in config:
        words.append(f"batch={config['batch']}")
    hidden = ("model=", "batch=", "experiment=", "tracking", "hydra", "~", "nodes.rank=", "nodes.rendezvous=")
    words += [word for word in (override.lstrip("+") for override in overrides) if not word.startswith(hidden)]
    return redact(_cut(" ".join(filter(None, words)), _MAX_NAME)) or "run"


def without_credentials(result: Result) -> Result:
    """The same result with `redact` applied to every text in it: configuration and command lines may hold a URI."""
    return Result.from_json(json.dumps(_redacted(json.loads(result.to_json()))))


def _redacted(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _redacted(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_redacted(value) for value in node]
    return redact(node) if isinstance(node, str) else node


def millis(moment: str) -> int:
    """An ISO 8601 time in milliseconds since 1970."""
    return int(datetime.fromisoformat(moment).timestamp() * 1000)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return _NOT_IN_A_KEY.sub("_", name)[:_MAX_KEY]


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
