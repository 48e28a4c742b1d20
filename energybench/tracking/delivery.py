"""Brings results that lie on disk into a store: `energybench sync`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from energybench.errors import DataError, EnergybenchError
from energybench.run.result import REPORT_FILE, Result, Status, result_files
from energybench.tracking.folder import sweep_folder
from energybench.tracking.tracker import MlflowTracker


@dataclass
class SyncReport:
    """What a sync did, by result.json.

    Attributes:
        delivered: recorded now, wholly or what was missing.
        already: nothing was missing.
        failed: could not be read or recorded -> why, in one line.
    """

    delivered: list[Path] = field(default_factory=list)
    already: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)


def sync(paths: Iterable[Path], tracker: MlflowTracker) -> SyncReport:
    """Records every result below `paths` exactly once, those of a sweep under one parent run.

    Args:
        paths: result.json files, or folders that are searched.
        tracker: where to.
    """
    report = SyncReport()
    sweeps: dict[str, list[tuple[Path, Status]]] = {}
    for path in _unique(paths):
        with _collected(path, report):
            result = _deliver(path, tracker, report)
            if result.sweep_id is not None:
                sweeps.setdefault(result.sweep_id, []).append((path, result.status))
    for sweep_id, cells in sweeps.items():
        with _collected(cells[-1][0], report):
            page = sweep_folder(cells[-1][0].parent) / REPORT_FILE
            tracker.close_sweep(sweep_id, [status for _, status in cells], [page] if page.exists() else [])
    return report


@contextmanager
def _collected(path: Path, report: SyncReport) -> Iterator[None]:
    """One result that cannot be recorded keeps none of the others back."""
    try:
        yield
    except EnergybenchError as error:
        report.failed[path] = str(error).removeprefix(f"{path}: ")


def _deliver(path: Path, tracker: MlflowTracker, report: SyncReport) -> Result:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    result = Result.read(path)
    run_id, missing = tracker.deliver(result, path.parent)
    (report.delivered if missing else report.already).append(path)
    # Only who delivered writes: two at once would write the same file. The store knows the run by its tag in any case,
    # so an archive may be read-only.
    if missing and result.tracking != tracker.where(run_id):
        with suppress(OSError):
            replace(result, tracking=tracker.where(run_id)).write(path.parent)
    return result


def _unique(paths: Iterable[Path]) -> Iterator[Path]:
    return iter(dict.fromkeys(found for path in paths for found in result_files(path)))
