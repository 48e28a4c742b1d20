"""Reads results back from an MLflow store: what parameters, metrics and tags hold of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from energybench.credentials import redact
from energybench.errors import TrackingError
from energybench.run.result import Failure, Result
from energybench.tracking import record
from energybench.tracking.record import NAME_TAG, PARENT_TAG, RUN_TAG, SUPERSEDED_TAG, SWEEP_TAG
from energybench.tracking.recorded import Recorded, Runs, open_runs
from energybench.tracking.store import available, sqlite_path, tracking_errors


class MlflowReader:
    """Finds what a name stands for in one store and reads its runs; writes nothing and creates no store.

    Attributes:
        uri: the store, with its credentials; show `redact(uri)`.
        experiments: name -> id of those that are not deleted.

    Every method raises TrackingError, in one line, where the store cannot be used.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        database = sqlite_path(uri)
        if database is not None and not database.exists():
            raise TrackingError(f"there is no tracking store at {database}; name one with --uri")
        state = available(uri)
        if not state.ok:
            raise TrackingError(f"tracking: {state}")
        with tracking_errors(uri, "open the store"):
            self._runs: Runs = open_runs(uri)
            self.experiments = self._runs.experiments()

    def find(self, name: str) -> list[Result]:
        """The results that `name` stands for; empty where it stands for nothing here.

        Args:
            name: an experiment's name, an MLflow run's id, a run's own id, a sweep's id or name; the first of them
                that is there. Of a sweep and of an experiment, every run.

        Raises:
            TrackingError: several sweeps have this name.
        """
        with tracking_errors(self.uri, f"read {name!r}"):
            if name in self.experiments:
                return self._named(self._runs.of_experiment(self.experiments[name]))
            run = self._runs.one(name)
            if run is None:
                return self._named(self._runs.tagged(RUN_TAG, name)) or self._of_sweep(name)
            return self._named([run]) if RUN_TAG in run.tags else self._of_parent(run)

    def _of_sweep(self, name: str) -> list[Result]:
        named = self._runs.tagged(SWEEP_TAG, name) or self._runs.tagged(NAME_TAG, name)
        sweeps = [run for run in named if SWEEP_TAG in run.tags]
        if len(sweeps) > 1:
            ids = ", ".join(run.run_id for run in sweeps)
            raise TrackingError(f"{len(sweeps)} sweeps are called {name!r}; name one of them by its id: {ids}")
        return self._of_parent(sweeps[0]) if sweeps else []

    def _of_parent(self, parent: Recorded) -> list[Result]:
        return self._named([parent, *self._runs.tagged(PARENT_TAG, parent.run_id)])

    def _named(self, runs: Sequence[Recorded]) -> list[Result]:
        """The runs of ours as results, each with its sweep's id and name; not those whose cell was run again."""
        tags: dict[str, Mapping[str, str]] = {run.run_id: run.tags for run in runs if SWEEP_TAG in run.tags}
        results = []
        for run in (run for run in runs if RUN_TAG in run.tags and SUPERSEDED_TAG not in run.tags):
            above = run.tags.get(PARENT_TAG, "")
            if above and above not in tags:
                parent = self._runs.one(above)
                tags[above] = parent.tags if parent else {}
            results.append(as_result(run, tags.get(above, {}), self.uri))
        return results


def as_result(run: Recorded, sweep: Mapping[str, str], uri: str) -> Result:
    """What a recorded run holds of its result: everything but phases, conditions and most of the provenance.

    Args:
        run: as the store has it.
        sweep: the tags of the sweep's run; empty outside a sweep.
        uri: the store it is from.
    """
    tags = run.tags
    status = next((ours for ours, theirs in record.STATUSES.items() if theirs == run.status), "interrupted")
    return Result(
        run_id=tags[RUN_TAG],
        status=status,  # type: ignore[arg-type]  # the keys of STATUSES are the statuses
        failure=_failure(tags, status),
        config=unflatten(run.params),
        started_at=_moment(run.start_ms),
        ended_at=_moment(run.end_ms),
        metrics=run.metrics,
        tags={key: value for key, value in tags.items() if not key.startswith(_NOT_OURS) or key in _KEPT},
        provenance=_json(tags.get(record.ORIGIN_TAG), {}),
        overrides=tuple(_json(tags.get(record.OVERRIDES_TAG), [])),
        sweep_id=sweep.get(SWEEP_TAG),
        sweep_name=sweep.get(record.NAME_TAG) if SWEEP_TAG in sweep else None,
        tracking={"run_id": run.run_id, "uri": redact(uri)},
    )


_NOT_OURS = ("mlflow.", "energybench.")
_KEPT = (record.EPOCH_IMAGES_TAG,)


def _failure(tags: Mapping[str, str], status: str) -> Failure | None:
    if status == "finished":
        return None
    kind, _, message = tags.get(record.FAILURE_TAG, "unfinished: it goes on, or its process was killed").partition(": ")
    return Failure(kind, message)


def _moment(milliseconds: int | None) -> str:
    return "" if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


def unflatten(parameters: Mapping[str, str]) -> dict[str, Any]:
    """The inverse of `record.flatten`: {"model.name": "lenet", "batch": "64"} -> {"model": {...}, "batch": 64}.

    Repeats, which differ in their seed alone, share what lies below the first level: change none of it.
    """
    seed = parameters.get(_SEED)
    if seed is None:
        return dict(_tree(tuple(parameters.items())))
    shared = _tree(tuple((key, "" if key == _SEED else text) for key, text in parameters.items()))
    return {**shared, _SEED: _scalar(seed)}


_SEED = "seed"


@lru_cache(maxsize=1024)
def _tree(parameters: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, text in parameters:
        node = tree
        sections, last = _path(key)
        for section in sections:
            inner = node.get(section)
            if not isinstance(inner, dict):
                inner = node[section] = {}
            node = inner
        node[last] = _json(text, text) if text[:1] in "[{" else _scalar(text)
    return tree


@lru_cache(maxsize=4096)  # thousands of runs share their keys, and most of their values
def _path(key: str) -> tuple[tuple[str, ...], str]:
    *sections, last = key.split(".")
    return tuple(sections), last


@lru_cache(maxsize=65536)
def _scalar(text: str) -> Any:
    return _json(text, text)


def _json(text: str | None, otherwise: Any) -> Any:
    if text is None:
        return otherwise
    try:
        return json.loads(text)
    except ValueError:
        return otherwise
