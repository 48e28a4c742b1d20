"""Between a command and the tracker: one connection a store, and failures that cost no run."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from energybench import tracking
from energybench.config import fit
from energybench.errors import EnergybenchError, TrackingError
from energybench.experiment import Tracking
from energybench.run.execute import Place
from energybench.run.result import Result
from energybench.study.ledger import Sweep

NOWHERE = Tracking("none")


@lru_cache(maxsize=4)
def _tracker(uri: str, experiment: str) -> tracking.MlflowTracker:
    """One connection a store for all cells of this process."""
    return tracking.MlflowTracker(uri, experiment)


def connected(options: Tracking) -> tracking.MlflowTracker:
    """The tracker that these options name; raises TrackingError."""
    return _tracker(tracking.resolve_uri(options), options.experiment)


@contextmanager
def never_in_the_way(directory: Path) -> Iterator[None]:
    """A tracking store that fails costs no run: the user is told, and how to deliver the results later."""
    try:
        yield
    except TrackingError as error:
        print(f"energybench: warning: {error}; later: energybench sync {directory}", file=sys.stderr)


def parent_run(sweep: Sweep, standing: Mapping[int, Result], options: Tracking, directory: Path) -> str:
    """A sweep's parent run; what an earlier end kept from being recorded below it is recorded now.

    Args:
        sweep: the sweep, the same one if it goes on.
        standing: the results that stand, by the numbers of their cells.
        options: where runs are recorded.
        directory: the sweep's folder.
    """
    tracker = connected(options)
    parent = tracker.begin_sweep(sweep.sweep_id, sweep.name)
    recorded = tracker.recorded(parent) if standing else set()
    for number, result in standing.items():
        if result.run_id not in recorded:
            tracker.deliver(result, directory / str(number))
    return parent


class Recorder:
    """Records one run in the tracker, if there is one; a store that fails is a warning.

    Args:
        options: where.
        place: of the run.
        run_id: of its result.
        sweep, cell: the sweep that it is a cell of, and what identifies the cell.
        started_at: when it was started, ISO 8601; None: now.
    """

    def __init__(
        self,
        options: Tracking,
        place: Place,
        run_id: str,
        sweep: Sweep | None,
        cell: str | None,
        started_at: str | None = None,
    ) -> None:
        self._options = options
        self._directory = place.directory
        self._mlflow_run_id: str | None = None
        self.where: dict[str, str] = {}
        if options.name == "none":
            return
        with never_in_the_way(place.directory):
            tracker = connected(options)
            parent = sweep.tracking_run_id if sweep else None
            self._mlflow_run_id = tracker.begin(run_id, place.name, parent, cell, started_at)
            self.where = tracker.where(self._mlflow_run_id)

    def finish(self, result: Result) -> None:
        """Delivers the result; where the run could not be begun in the store, as `sync` would."""
        if self._options.name == "none":
            return
        with never_in_the_way(self._directory):
            tracker = connected(self._options)
            if self._mlflow_run_id is None:
                tracker.deliver(result, self._directory)
            else:
                tracker.finish(result, self._directory, self._mlflow_run_id)


def recorded(result: Result, place: Place, sweep: Sweep | None, cell: str) -> None:
    """Records a run that has ended, where its configuration says; one that says nothing of it is not recorded."""
    with suppress(EnergybenchError):
        options = fit("tracking", Tracking, result.config.get("tracking", {}), "tracking")
        Recorder(options, place, result.run_id, sweep, cell, result.started_at).finish(result)
