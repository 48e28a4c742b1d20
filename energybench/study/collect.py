"""From what a user names to results: files, folders, and whatever a tracking store knows by a name."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from energybench.credentials import redact
from energybench.errors import ConfigError, DataError, TrackingError
from energybench.run.result import RESULT_FILE, Result, result_files
from energybench.tracking import MlflowReader, named


@dataclass(frozen=True)
class Store:
    """The store that names are looked up in; `uri=None`: MLFLOW_TRACKING_URI, else mlflow.db in the current folder."""

    uri: str | None = None


@dataclass(frozen=True)
class Collected:
    """What sources gave.

    Attributes:
        results: each run once, in the order in which they were found.
        problems: files that could not be read, one line each; what they held is missing in `results`.
        folders: run id -> its folder, with its power trace, of the runs that lie on disk.
    """

    results: tuple[Result, ...]
    problems: tuple[str, ...] = ()
    folders: Mapping[str, Path] = field(default_factory=dict)


def collect(sources: Sequence[str], *, uri: str | None = None) -> Collected:
    """Reads every result that `sources` stand for.

    What lies on disk comes first: a result.json, or a folder that is searched (a run's, a sweep's, `runs`). Anything
    else is looked up in the tracking store: a run's id, a sweep's id or name, an experiment's name. MLflow is imported
    only for those, and a store that is not there is not created.

    Args:
        sources: paths or names.
        uri: the tracking store; None: see `Store`.

    Returns:
        Each run once: of two records of one run the more complete, and of several attempts at one cell of a sweep not
        those that failed where another finished.

    Raises:
        ConfigError: a source is nothing, or holds no result.
        DataError: a result.json that was named itself cannot be read.
        TrackingError: the store cannot be used, or several sweeps have that name.
    """
    results: list[Result] = []
    problems: list[str] = []
    folders: dict[str, Path] = {}
    reader: MlflowReader | None = None
    with _nothing_to_collect():
        for source in sources:
            if Path(source).exists():
                found = _from_disk(Path(source), problems, folders)
            else:
                reader = reader or _reader(source, uri)
                found = reader.find(source)
            if not found:
                raise ConfigError(_nothing(source, reader, problems))
            results += found
        return Collected(tuple(finished_attempts(once(results))), tuple(problems), folders)


@contextmanager
def _nothing_to_collect() -> Iterator[None]:
    """Without the cyclic garbage collector, which would go through a million new objects again and again.

    What is read has no cycles. A fifth of the time that 10,000 runs take to read.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _reader(source: str, uri: str | None) -> MlflowReader:
    try:
        return MlflowReader(named(Store(uri)))
    except (ConfigError, TrackingError) as error:
        raise ConfigError(f"{source}: no such file or folder; and {error}") from error


def _nothing(source: str, reader: MlflowReader | None, problems: Sequence[str]) -> str:
    if Path(source).exists():
        damaged = f"; {problems[-1]}" if problems else ""
        return f"{source}: no {RESULT_FILE} of a run in it{damaged}"
    place = redact(reader.uri) if reader else ""
    known = f"; experiments there: {', '.join(reader.experiments)}" if reader and reader.experiments else ""
    return f"{source}: no such file or folder, and no run, sweep or experiment of that name in {place}{known}"


def _from_disk(path: Path, problems: list[str], folders: dict[str, Path]) -> list[Result]:
    found = []
    for file in result_files(path):
        try:
            result = Result.read(file)
        except DataError as error:
            if not path.is_dir():
                raise
            problems.append(str(error))
            continue
        found.append(result)
        folders[result.run_id] = file.parent
    return sorted(found, key=lambda result: result.started_at)


def once(results: Iterable[Result]) -> list[Result]:
    """Each run id once: a finished record before an unfinished one, one with phases before one without."""
    kept: dict[str, Result] = {}
    for result in results:
        other = kept.get(result.run_id)
        if other is None or _weight(result) > _weight(other):
            kept[result.run_id] = result
    return list(kept.values())


def _weight(result: Result) -> tuple[bool, bool, str]:
    return result.status == "finished", bool(result.phases), result.ended_at


def finished_attempts(results: Sequence[Result]) -> list[Result]:
    """Without the attempts at a cell of a sweep that did not finish, where another attempt at the same cell did."""
    if all(result.status == "finished" for result in results):
        return list(results)
    done = {_cell(result) for result in results if result.status == "finished"} - {None}
    return [result for result in results if result.status == "finished" or _cell(result) not in done]


def _cell(result: Result) -> str | None:
    """Identifies a cell: its sweep and its whole configuration, the seed included; None outside a sweep."""
    if result.sweep_id is None:
        return None
    config = {key: value for key, value in result.config.items() if key not in ("tracking", "checkpoint")}
    return json.dumps([result.sweep_id, config], sort_keys=True)
