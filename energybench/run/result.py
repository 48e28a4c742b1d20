"""The result of one run: what result.json holds, and the one place that reads and writes it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from energybench.errors import DataError
from energybench.node_options import FOLDER
from energybench.run.strict import check
from energybench.whole import whole

SCHEMA_VERSION = 1
RESULT_FILE = "result.json"
TRACE_FILE = "power.parquet"
EVENTS_FILE = "events.jsonl"
PLOT_FILE = "power.png"
REPORT_FILE = "report.html"
"""Of a sweep, in its folder."""

UNREADABLE_FILES = "unreadable*.tsv"
"""Of each worker, the samples that it could not read: a name, a tab and why in each line."""

OUTPUT_FILES = (TRACE_FILE, EVENTS_FILE, PLOT_FILE, UNREADABLE_FILES, "worker-*.out", "worker-*.err", "rendezvous")
"""Patterns of what a run leaves in its folder beside result.json; a checkpoint is the next run's too."""

Status = Literal["finished", "failed", "interrupted"]


@dataclass(frozen=True)
class ChannelEnergy:
    """Energy of one channel in one window.

    Attributes:
        energy_j: joules over the covered part of the window; None where nothing was read.
        independent_u_j: standard uncertainty (k = 1) that is other in every window: edges, gaps, sampling.
        common_u_j: standard uncertainty (k = 1) that is the same in every run on this board.
        power_mean_w: energy over the covered time; None where nothing was read.
        power_peak_w: highest power seen; of a counter, the highest mean between two readings.
        readings: number of the sensor's updates inside the window that were read.
        longest_gap_s: longest time without a valid reading, the window's edges counted.
        coverage: share of the window that readings cover, 0 to 1.
        source: name of the source that gave the energy; "counter+buffer": one gave the total, the other its course.
        estimated: True where no sensor stands behind it.
        update_s: how often that source was found to have a new value, seconds; None where it could not be told.
        doubts: what speaks against the number: "part_time_sampling", "sources_disagree"; see `power.quality`.
        edges_u_j: what of `independent_u_j` the window's edges make: it has the same sign in every window of a load
            that repeats. 0 in results of before it was told apart.
    """

    energy_j: float | None
    independent_u_j: float | None
    common_u_j: float | None
    power_mean_w: float | None
    power_peak_w: float | None
    readings: int
    longest_gap_s: float
    coverage: float
    source: str
    estimated: bool
    update_s: float | None = None
    doubts: tuple[str, ...] = ()
    edges_u_j: float = 0.0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ChannelEnergy:
        """From plain JSON values."""
        return cls(**{**data, "doubts": tuple(data.get("doubts", ()))})


@dataclass(frozen=True)
class Phase:
    """One phase of a run: `cooldown`, `settle`, `idle`, `load`, `context`, `warmup`, `train`, `validate`, ...

    Attributes:
        name: the phase.
        epoch: 1, 2, ... for phases inside an epoch, else None.
        start_ns: CLOCK_MONOTONIC, after the devices were synchronised; of several workers the earliest.
        end_ns: likewise; of several workers the latest.
        complete: False where the worker died inside it.
        channels: channel name -> energy.
        values: what the worker reported at its end: images, steps, loss, accuracy_top1, ...
    """

    name: str
    epoch: int | None
    start_ns: int
    end_ns: int
    complete: bool
    channels: dict[str, ChannelEnergy]
    values: dict[str, float]

    @property
    def time_s(self) -> float:
        """Length in seconds."""
        return (self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True)
class Failure:
    """Why a run did not finish.

    Attributes:
        kind: "out_of_memory", "nan_loss", "killed", "crashed", "hung", "interrupted", "meter", "busy",
            "disk", "quality", "config", "infeasible", "limit"; of several nodes "rendezvous" (they did not meet) and
            "lost" (one has gone); ...
        message: one line for the user: what happened and what to do.
    """

    kind: str
    message: str


@dataclass(frozen=True)
class Attempt:
    """An earlier attempt at a run, from whose checkpoint it went on.

    Attributes:
        run_id: of its own result; empty where nothing is known of it.
        failure: why it ended.
        started_at: as of a result.
        ended_at: as of a result; of one whose supervisor was killed, when it was last known to run.
        scope: names of its channels that energy_j adds up.
        phases: in order of their start.
    """

    run_id: str
    failure: Failure
    started_at: str
    ended_at: str
    scope: tuple[str, ...]
    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        run_id: unique for ever; trackers use it to record a run exactly once.
        status: finished, failed or interrupted. A failed run keeps what was measured.
        failure: why, where the status is not finished.
        config: the resolved configuration.
        started_at: start, ISO 8601 with offset (wall clock; for people, never for arithmetic).
        ended_at: end, likewise.
        phases: in order of their start; of the last attempt.
        metrics: of all attempts together; contract names -> values; a value that does not exist is absent.
        epochs: one mapping a completed epoch: "epoch" and its metrics, for series.
        tags: energy_source, energy_scope, meter, engine, quality, tdp_source, ...
        conditions: channel -> temperature, clocks, limits and what else was told of the card; what was not is absent.
        provenance: channels, devices, packages, driver, CPU, git commit.
        overrides: the command line's overrides of this run, as given ("batch=128").
        sweep_id: identifies the sweep the run belongs to, or None.
        sweep_name: readable name of the sweep, or None.
        tracking: where it was recorded: {"run_id": ..., "uri": ...}; empty if nowhere yet.
        scope: names of the channels that energy_j adds up.
        attempts: earlier ones, from whose checkpoint it went on; oldest first.
    """

    run_id: str
    status: Status
    failure: Failure | None
    config: dict[str, Any]
    started_at: str
    ended_at: str
    phases: tuple[Phase, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    epochs: tuple[dict[str, float], ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    conditions: dict[str, dict[str, Any]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    sweep_id: str | None = None
    sweep_name: str | None = None
    tracking: dict[str, str] = field(default_factory=dict)
    scope: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()

    def to_json(self) -> str:
        """As JSON text, schema version first."""
        data = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Result:
        """The inverse of `to_json`.

        Raises:
            DataError: not JSON, another schema version, or fields missing, unknown or of the wrong kind.
        """
        try:
            data = json.loads(text, parse_float=_finite, parse_constant=_finite)
            if not isinstance(data, dict):
                raise TypeError("a result is an object")
            version = data.pop("schema_version", None)
            if version != SCHEMA_VERSION:
                raise DataError(f"result: schema version {version!r}; this release reads version {SCHEMA_VERSION}")
            _check(data)
            return _build(data)
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(f"result: not a result of energybench: {error}") from error

    def write(self, directory: Path, name: str = RESULT_FILE) -> Path:
        """Writes result.json into `directory`, whole or not at all."""
        path = directory / name
        with whole(path) as file:
            file.write(f"{self.to_json()}\n".encode())
        return path

    @classmethod
    def read(cls, path: Path) -> Result:
        """Reads a result.json, or the one inside a folder; raises DataError naming the path."""
        file = path / RESULT_FILE if path.is_dir() else path
        try:
            return cls.from_json(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, DataError) as error:
            raise DataError(f"{file}: {error}") from error


def devices_of(provenance: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The devices that trained, as a provenance tells them; empty where it does not."""
    found = provenance.get("devices")
    return [device for device in found if isinstance(device, Mapping)] if isinstance(found, list) else []


# MLflow's own folders hold copies of what was delivered.
_COPIES = {"mlartifacts", "mlruns"}


def result_files(path: Path) -> Iterator[Path]:
    """The result.json files at or below `path`, in order; `path` itself where it is no folder."""
    if not path.is_dir():
        yield path
        return
    for found in sorted(path.rglob(RESULT_FILE)):
        if is_original(found.relative_to(path)):
            yield found


def is_original(path: Path) -> bool:
    """Whether a result.json below some folder is a run's own: no copy of MLflow's, nor that of a node but the first."""
    return not any(part in _COPIES or re.fullmatch(rf"{FOLDER}\d+", part) for part in path.parts)


def _finite(text: str) -> float:
    """A number of a result; NaN and infinities, which JSON has not, are in none of ours."""
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is no finite number")
    return value


_WRITTEN = ("phases", "metrics", "epochs", "tags", "provenance", "overrides", "tracking")
"""Fields that every release has written, though a result that is made in hand may leave them out."""


def _check(data: dict[str, Any]) -> None:
    """Raises TypeError or ValueError for a field of another kind than its own."""
    check(data, Result, "result")
    for name in _WRITTEN:
        if name not in data:
            raise TypeError(f"{name} is missing")
    if not all("epoch" in row for row in data["epochs"]):
        raise TypeError("an epoch has no number")
    for name in ("started_at", "ended_at"):
        if datetime.fromisoformat(data[name]).tzinfo is None:
            raise ValueError(f"{name} is {data[name]!r}, without an offset from UTC")


def _build(data: dict[str, Any]) -> Result:
    failure, lists = data.pop("failure"), ("epochs", "overrides", "scope")
    rest: dict[str, Any] = {key: tuple(value) if key in lists else value for key, value in data.items()}
    return Result(
        **{
            **rest,
            "failure": None if failure is None else Failure(**failure),
            "phases": _phases(data["phases"]),
            "attempts": tuple(map(_attempt, data.get("attempts", ()))),
        }
    )


def _attempt(data: dict[str, Any]) -> Attempt:
    parts = {"failure": Failure(**data["failure"]), "scope": tuple(data["scope"]), "phases": _phases(data["phases"])}
    return Attempt(**{**data, **parts})


def _phases(data: list[dict[str, Any]]) -> tuple[Phase, ...]:
    return tuple(
        Phase(
            **{**phase, "channels": {name: ChannelEnergy.from_json(each) for name, each in phase["channels"].items()}}
        )
        for phase in data
    )
