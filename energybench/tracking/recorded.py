"""Runs as a tracking store holds them, from a tracking server or straight from an SQL database."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from energybench.tracking.record import EPOCH_PREFIX
from energybench.tracking.store import load

_PAGE = 1000


@dataclass
class Recorded:
    """One active run of a store.

    Attributes:
        run_id: MLflow's.
        experiment_id: of its experiment.
        status: MLflow's word.
        start_ms: milliseconds since 1970; None where the store has none.
        end_ms: likewise.
        params: flattened configuration.
        metrics: last values; series over epochs are left out.
        tags: all of them.
    """

    run_id: str
    experiment_id: str
    status: str
    start_ms: int | None
    end_ms: int | None
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class Runs(Protocol):
    """Where recorded runs are read."""

    def experiments(self) -> dict[str, str]:
        """Name -> id of those that are not deleted."""

    def one(self, run_id: str) -> Recorded | None:
        """The run with MLflow's id; None where there is none."""

    def tagged(self, tag: str, value: str) -> list[Recorded]:
        """The runs with this tag, of all experiments, the earliest first."""

    def of_experiment(self, experiment_id: str) -> list[Recorded]:
        """The runs of an experiment, the earliest first."""


def open_runs(uri: str) -> Runs:
    """The quickest way to the runs of a store."""
    return DatabaseRuns(uri) if uri.partition(":")[0].partition("+")[0] in DIRECT else ServerRuns(uri)


DIRECT = ("sqlite", "postgresql")
"""Databases that are read without MLflow's client; others quote names in other ways."""


class ServerRuns:
    """Through MLflow's client, a page at a time: what every store offers."""

    def __init__(self, uri: str) -> None:
        self._mlflow = load(uri)
        self._client = self._mlflow.MlflowClient(tracking_uri=uri)

    def experiments(self) -> dict[str, str]:
        """See Runs."""
        return {found.name: str(found.experiment_id) for found in self._client.search_experiments()}

    def one(self, run_id: str) -> Recorded | None:
        """See Runs."""
        try:
            run = self._client.get_run(run_id)
        except self._mlflow.MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None
        return _recorded(run) if run.info.lifecycle_stage == "active" else None

    def tagged(self, tag: str, value: str) -> list[Recorded]:
        """See Runs."""
        mark = '"' if "'" in value else "'"
        return list(self._search(list(self.experiments().values()), f"tags.`{tag}` = {mark}{value}{mark}"))

    def of_experiment(self, experiment_id: str) -> list[Recorded]:
        """See Runs."""
        return list(self._search([experiment_id], ""))

    def _search(self, experiments: list[str], query: str) -> Iterator[Recorded]:
        token = None
        while True:
            page = self._client.search_runs(
                experiments, query, max_results=_PAGE, order_by=["attributes.start_time ASC"], page_token=token
            )
            yield from map(_recorded, page)
            token = page.token
            if not token:
                return


def _recorded(run: Any) -> Recorded:
    info, data = run.info, run.data
    metrics = {key: value for key, value in data.metrics.items() if not key.startswith(EPOCH_PREFIX)}
    return Recorded(
        info.run_id,
        str(info.experiment_id),
        info.status,
        info.start_time,
        info.end_time,
        data.params,
        metrics,
        data.tags,
    )


class DatabaseRuns:
    """Straight from the database's tables, read only: MLflow's client takes a minute for what is read here in seconds.

    The tables and columns are those that MLflow has had since 1.2; where one is missing, the error says which.
    """

    def __init__(self, uri: str) -> None:
        import sqlalchemy

        self._text = sqlalchemy.text
        self._engine = sqlalchemy.create_engine(uri)

    def experiments(self) -> dict[str, str]:
        """See Runs."""
        query = "SELECT name, experiment_id FROM experiments WHERE lifecycle_stage = 'active'"
        return {name: str(identity) for name, identity in self._rows(query)}

    def one(self, run_id: str) -> Recorded | None:
        """See Runs."""
        return next(iter(self._runs("r.run_uuid = :id", id=run_id)), None)

    def tagged(self, tag: str, value: str) -> list[Recorded]:
        """See Runs."""
        where = (
            "r.run_uuid IN (SELECT run_uuid FROM tags WHERE key = :tag AND value = :value) AND r.experiment_id IN "
            "(SELECT experiment_id FROM experiments WHERE lifecycle_stage = 'active')"
        )
        return self._runs(where, tag=tag, value=value)

    def of_experiment(self, experiment_id: str) -> list[Recorded]:
        """See Runs."""
        return self._runs("r.experiment_id = :id", id=int(experiment_id))

    def _runs(self, where: str, **values: Any) -> list[Recorded]:
        chosen = f"runs r WHERE {where} AND r.lifecycle_stage = 'active'"
        query = f"SELECT r.run_uuid, r.experiment_id, r.status, r.start_time, r.end_time FROM {chosen}"
        order = " ORDER BY r.start_time, r.run_uuid"
        runs = {row[0]: Recorded(row[0], str(row[1]), *row[2:]) for row in self._rows(query + order, **values)}
        within = f"run_uuid IN (SELECT r.run_uuid FROM {chosen})"
        for kind in ("params", "tags"):
            texts: dict[str, dict[str, str]] = {run_id: getattr(run, kind) for run_id, run in runs.items()}
            for run_id, key, value in self._rows(f"SELECT run_uuid, key, value FROM {kind} WHERE {within}", **values):
                if run_id in texts:  # another process may have begun one since
                    texts[run_id][sys.intern(key)] = sys.intern(value or "")
        query = f"SELECT run_uuid, key, value, is_nan FROM latest_metrics WHERE {within} AND key NOT LIKE :series"
        for run_id, key, value, is_nan in self._rows(query, **values, series=f"{EPOCH_PREFIX}%"):
            if run_id in runs and not is_nan:
                runs[run_id].metrics[sys.intern(key)] = float(value)
        return list(runs.values())

    def _rows(self, query: str, **values: Any) -> Iterable[Any]:
        with self._engine.connect() as connection:
            # The driver's own tuples: SQLAlchemy's rows double the time of a million of them.
            cursor = connection.execute(self._text(query), values).cursor
            while part := cursor.fetchmany(_PAGE):
                yield from part
