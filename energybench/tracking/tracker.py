"""Writes runs and sweeps to an MLflow store, in as few calls as it allows and without MLflow's global state."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

from energybench.credentials import redact
from energybench.run.result import RESULT_FILE, Result, Status
from energybench.tracking import record, view
from energybench.tracking.folder import locked, staged, sweep_folder
from energybench.tracking.record import CELL_TAG, COMPLETE_TAG, PARENT_TAG, RUN_TAG, SUPERSEDED_TAG, SWEEP_TAG
from energybench.tracking.store import artifact_location, create, load, tracking_errors

# One call takes 1000 values in all, of which 100 parameters and 100 tags.
_METRICS, _PARAMETERS, _TAGS = 800, 100, 100
# Has MLflow's UI open the experiment as model training, not as a language model's application.
_KIND = {"mlflow.experimentKind": "custom_model_development"}
_T = TypeVar("_T")


class MlflowTracker:
    """Records runs in one experiment of one store.

    Attributes:
        uri: the store, with its credentials; show `redact(uri)`.
        experiment: name of the experiment, created if it is not there.

    Every method raises TrackingError, in one line, where the store cannot be used.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri = uri
        self.experiment = experiment
        self._mlflow = load(uri)
        with tracking_errors(uri, f"open experiment {experiment!r}"):
            create(uri)
            self._client = self._mlflow.MlflowClient(tracking_uri=uri)
            self._experiment_id = self._open_experiment()

    def begin_sweep(
        self,
        sweep_id: str,
        name: str,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Finds or creates the parent run of a sweep and sets it running; attaches to MLFLOW_RUN_ID where it can.

        Args:
            sweep_id: identifies the sweep; the same one gives the same parent.
            name: readable name.
            params: configuration that all cells share; nested mappings are flattened.
            tags: more tags.

        Returns:
            The MLflow run id, for `begin` and `end_sweep`.
        """
        texts = record.clean_tags({**(tags or {}), record.NAME_TAG: name, **record.source(), SWEEP_TAG: sweep_id})
        with tracking_errors(self.uri, "begin the sweep"):
            run_id = self._find(SWEEP_TAG, sweep_id)
            if run_id is None:
                run_id = self._attach_or_create(texts)
            else:
                self._client.update_run(run_id, status="RUNNING")
                texts[COMPLETE_TAG] = "false"
            self._log(self._client.get_run(run_id), texts, record.flatten(params or {}), [])
        return run_id

    def begin(
        self,
        run_id: str,
        name: str,
        parent: str | None = None,
        cell: str | None = None,
        started_at: str | None = None,
    ) -> str:
        """Creates the MLflow run of a run that starts now, or attaches to MLFLOW_RUN_ID.

        A run of the same cell that was begun and whose process died before it recorded anything is taken over; one that
        is complete keeps what it has and is marked as superseded.

        Args:
            run_id: the result's run id.
            name: what the run is called, see `run_name`.
            parent: what `begin_sweep` returned; None outside a sweep.
            cell: identifies the cell within the sweep; None where it is none that may be run again.
            started_at: when it was started, ISO 8601; None: now.

        Returns:
            The MLflow run id, for `finish` and `Result.tracking`.
        """
        texts = record.clean_tags(record.identity(run_id, name))
        with tracking_errors(self.uri, "begin the run"):
            if parent is None:
                return self._attach_or_create(texts)
            start_ms = None if started_at is None else record.millis(started_at)
            if cell is None:
                return self._create(texts, parent, start_ms)
            return self._begin_cell(texts | {CELL_TAG: cell}, parent, start_ms)

    def _begin_cell(self, tags: dict[str, str], parent: str, start_ms: int | None) -> str:
        begun = None
        for run in self._below(parent, f"tags.`{CELL_TAG}` = '{tags[CELL_TAG]}'"):
            if run.data.tags.get(COMPLETE_TAG) != "true":
                begun = run
            elif SUPERSEDED_TAG not in run.data.tags:
                self._client.set_tag(run.info.run_id, SUPERSEDED_TAG, "true")
        if begun is None:
            return self._create(tags, parent, start_ms)
        self._client.update_run(begun.info.run_id, status="RUNNING")
        self._log(begun, tags, {}, [])
        return str(begun.info.run_id)

    def recorded(self, parent: str) -> set[str]:
        """The result run ids of every run below a sweep's parent that is recorded wholly."""
        with tracking_errors(self.uri, "look for the sweep's runs"):
            found = self._below(parent, f"tags.`{COMPLETE_TAG}` = 'true'")
            return {run.data.tags[RUN_TAG] for run in found if RUN_TAG in run.data.tags}

    def _below(self, parent: str, condition: str) -> Iterator[Any]:
        """The active runs below a parent that meet a further condition."""
        experiment, token = self._client.get_run(parent).info.experiment_id, None
        while True:
            query = f"tags.`{PARENT_TAG}` = '{parent}' and {condition}"
            page = self._client.search_runs([experiment], query, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def finish(self, result: Result, directory: Path, mlflow_run_id: str) -> None:
        """Records everything of a run that has ended and gives it its status.

        Args:
            result: what is recorded.
            directory: the run's folder: result.json, power.parquet, events.jsonl, worker logs.
            mlflow_run_id: what `begin` returned.
        """
        with tracking_errors(self.uri, f"record run {result.run_id}"), locked(directory / RESULT_FILE):
            self._complete(record.without_credentials(result), directory, mlflow_run_id)

    def deliver(self, result: Result, directory: Path) -> tuple[str, bool]:
        """Records a result that may be recorded already, wholly or in part, whoever else does the same at this moment.

        Returns:
            The MLflow run id, and whether anything was missing.
        """
        result = record.without_credentials(result)
        with tracking_errors(self.uri, f"record run {result.run_id}"), locked(directory / RESULT_FILE):
            run_id = self._find(RUN_TAG, result.run_id) or self._create_for(result, directory)
            return run_id, self._complete(result, directory, run_id)

    def end_sweep(self, parent: str, statuses: Iterable[Status], artifacts: Iterable[Path] = ()) -> None:
        """Ends a sweep's parent run.

        Args:
            parent: what `begin_sweep` returned.
            statuses: the statuses of its runs.
            artifacts: files and folders for the parent run, such as the report.
        """
        reached: list[str] = list(statuses)
        with tracking_errors(self.uri, "end the sweep"):
            for artifact in artifacts:
                self._upload(parent, artifact)
            counts = {f"energybench.{status}": str(reached.count(status)) for status in record.STATUSES}
            self._log(self._client.get_run(parent), {**counts, COMPLETE_TAG: "true"}, {}, [])
            self._client.set_terminated(parent, _sweep_status(reached))

    def close_sweep(self, sweep_id: str, statuses: Iterable[Status], artifacts: Iterable[Path] = ()) -> None:
        """Ends the parent run of a sweep whose process could not; does nothing if it is ended or not there."""
        with tracking_errors(self.uri, "end the sweep"):
            parent = self._find(SWEEP_TAG, sweep_id)
            if parent is None or self._client.get_run(parent).data.tags.get(COMPLETE_TAG) == "true":
                return
        self.end_sweep(parent, statuses, artifacts)

    def where(self, mlflow_run_id: str) -> dict[str, str]:
        """The value of `Result.tracking` for a run recorded here; without credentials."""
        return {"run_id": mlflow_run_id, "uri": redact(self.uri)}

    # -- experiments and look-up

    def _open_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            found = self._create_experiment()
        if found.lifecycle_stage == "deleted":
            raise self._mlflow.MlflowException(
                f"it is deleted; run 'mlflow experiments restore -x {found.experiment_id}', "
                "or set tracking.experiment to another name"
            )
        self._give_view(found)
        return str(found.experiment_id)

    def _give_view(self, experiment: Any) -> None:
        """Lets MLflow's page show runs side by side; of an experiment that others write to as well, adds no more."""
        for name, value in view.experiment_tags().items():
            if experiment.tags.get(name) is None or (name == view.TAG and experiment.tags[name] != value):
                self._client.set_experiment_tag(experiment.experiment_id, name, value)

    def _create_experiment(self) -> Any:
        location = artifact_location(self.uri, self.experiment)
        try:
            return self._client.get_experiment(self._client.create_experiment(self.experiment, location, _KIND))
        except self._mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return self._client.get_experiment_by_name(self.experiment)  # another process was quicker

    def _find(self, tag: str, value: str) -> str | None:
        """Looks in every experiment: `mlflow run` chooses its own, and a user may have moved to another since."""
        mark = '"' if "'" in value else "'"
        experiments = [found.experiment_id for found in self._client.search_experiments()]
        runs = self._client.search_runs(
            experiments, f"tags.`{tag}` = {mark}{value}{mark}", max_results=1, order_by=["attributes.start_time ASC"]
        )
        return str(runs[0].info.run_id) if runs else None

    def _existing(self, run_id: str) -> Any | None:
        try:
            run = self._client.get_run(run_id)
        except self._mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run.info.lifecycle_stage == "active" else None

    # -- creating runs

    def _attach_or_create(self, tags: dict[str, str]) -> str:
        """Takes the run that `mlflow run` started; where that one is in use already, a run nested in it."""
        given = os.environ.get("MLFLOW_RUN_ID")
        run = self._existing(given) if given else None
        if run is None:
            return self._create(tags, None)
        if {RUN_TAG, SWEEP_TAG} & set(run.data.tags):
            return self._create(tags, run.info.run_id)
        self._log(run, tags, {}, [])
        return str(run.info.run_id)

    def _create(self, tags: dict[str, str], parent: str | None, start_ms: int | None = None) -> str:
        experiment_id = self._experiment_id
        if parent is not None:
            # MLflow shows a run below its parent only inside the parent's experiment.
            experiment_id = self._client.get_run(parent).info.experiment_id
            tags = {**tags, PARENT_TAG: parent}
        run = self._client.create_run(experiment_id, start_time=start_ms, tags={**_user(), **tags})
        return str(run.info.run_id)

    def _create_for(self, result: Result, directory: Path) -> str:
        return self._create(record.tags(result), self._parent(result, directory), record.millis(result.started_at))

    def _parent(self, result: Result, directory: Path) -> str | None:
        """The parent run of the result's sweep; created, once, where the sweep's own process could not."""
        if result.sweep_id is None:
            return None
        with locked(sweep_folder(directory)):
            name = result.sweep_name or f"sweep {result.sweep_id}"
            texts = {record.NAME_TAG: name, **record.source(), SWEEP_TAG: result.sweep_id}
            found = self._find(SWEEP_TAG, result.sweep_id)
            return found or self._create(record.clean_tags(texts), None, record.millis(result.started_at))

    # -- writing

    def _complete(self, result: Result, directory: Path, run_id: str) -> bool:
        """Writes a result to its run unless that is done; the tag that says so is written last."""
        run = self._client.get_run(run_id)
        if run.data.tags.get(COMPLETE_TAG) == "true":
            return False
        tags = record.tags(result)
        if PARENT_TAG not in run.data.tags and (parent := self._parent(result, directory)) not in (None, run_id):
            tags[PARENT_TAG] = str(parent)
        self._log(run, tags, record.flatten(result.config), record.metrics(result))
        # Before the artifacts: without them a run should still show that it ended.
        self._client.set_terminated(run_id, record.STATUSES[result.status], record.millis(result.ended_at))
        with staged(replace(result, tracking=self.where(run_id)), directory) as folder:
            self._client.log_artifacts(run_id, str(folder))
        self._client.set_tag(run_id, COMPLETE_TAG, "true")
        return True

    def _log(
        self,
        run: Any,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        metrics: Sequence[tuple[str, float, int, int]],
    ) -> None:
        """Adds to a run what it lacks: a parameter is written once, and MLflow's own tags are its launcher's."""
        entities = self._mlflow.entities
        old_tags, old_params = run.data.tags, run.data.params
        tag_list = [
            entities.RunTag(key, value)
            for key, value in tags.items()
            if old_tags.get(key) != value and not (key.startswith("mlflow.") and key in old_tags)
        ]
        param_list = [entities.Param(key, value) for key, value in params.items() if key not in old_params]
        metric_list = [entities.Metric(*row) for row in metrics]
        batches = zip_longest(
            _chunks(metric_list, _METRICS), _chunks(param_list, _PARAMETERS), _chunks(tag_list, _TAGS), fillvalue=()
        )
        for some_metrics, some_params, some_tags in batches:
            self._client.log_batch(
                run.info.run_id, metrics=some_metrics, params=some_params, tags=some_tags, synchronous=True
            )

    def _upload(self, run_id: str, artifact: Path) -> None:
        if artifact.is_dir():
            self._client.log_artifacts(run_id, str(artifact), artifact.name)
        else:
            self._client.log_artifact(run_id, str(artifact))


def _sweep_status(statuses: Sequence[str]) -> str:
    worst = "interrupted" if "interrupted" in statuses else "failed" if "failed" in statuses else "finished"
    return record.STATUSES[worst]


def _chunks(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _user() -> dict[str, str]:
    try:
        return {"mlflow.user": getpass.getuser()}
    except (OSError, KeyError):  # a container's numeric user has no name
        return {}
