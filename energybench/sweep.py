"""Runs a command line: Hydra calls the job for every cell; the exit code comes from their results."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from energybench import tracking
from energybench.cells import Command, call_hydra, naming_cell
from energybench.config import Tracking, fit, resolve
from energybench.console import RunView, console, finished_line
from energybench.credentials import redact, sealed
from energybench.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    ConfigError,
    EnergybenchError,
    TrackingError,
)
from energybench.registry import Registry
from energybench.run.execute import Place, execute, failed, internal, new_id
from energybench.run.preflight import Machine, prepare
from energybench.run.result import RESULT_FILE, Failure, Result
from energybench.study.summary import details, table, verdict

SWEEP_FILE = "sweep.json"


@dataclass(frozen=True)
class Sweep:
    """What the cells of a sweep share; written into the sweep's folder before the first of them starts.

    Attributes:
        sweep_id: unique for ever.
        name: readable.
        tracking_run_id: the tracker's parent run; None where there is none.
        cells: the overrides of every cell, in the order in which they run; empty where the sweeper chooses as it goes.
    """

    sweep_id: str
    name: str
    tracking_run_id: str | None
    cells: tuple[tuple[str, ...], ...] = ()

    def write(self, directory: Path) -> None:
        """Into `directory`."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / SWEEP_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> Sweep:
        """From `directory`."""
        return cls(**json.loads((directory / SWEEP_FILE).read_text(encoding="utf-8")))


def run(argv: Sequence[str], command: Command, registry: Registry) -> int:
    """Runs every cell, shows the results and says how it went.

    Returns:
        0 all finished; 1 a run failed; 130 interrupted.

    Raises:
        EnergybenchError: a cell cannot be run here; nothing has been started.
    """
    machine = Machine(registry)
    for cell in command.cells:
        with naming_cell(cell.overrides if len(command.cells) > 1 else ()):
            prepare(cell.experiment, machine)
    options = _tracking(command)
    sweep = _begin(command, options) if command.multirun else None
    begun = datetime.now().astimezone()
    interrupted = False
    try:
        interrupted = _hand_to_hydra(argv, command, options)
    finally:
        results = _results(command, sweep, begun)
        if sweep is not None:
            _end(sweep, command.directory, options, results)
        _show(results, command, options)
    if interrupted or any(result.status == "interrupted" for result in results):
        return EXIT_INTERRUPTED
    missing = command.known and len(results) < len(command.cells)
    return EXIT_FAILED if missing or any(result.status != "finished" for result in results) else EXIT_DONE


def _tracking(command: Command) -> Tracking:
    """Where the runs are recorded; raises ConfigError where cells differ in it, or it cannot be used."""
    options, *others = dict.fromkeys(cell.experiment.tracking for cell in command.cells)
    if others:
        raise ConfigError("tracking: it holds for the whole sweep; give one value of each of its keys")
    if options.name == "mlflow":
        state = tracking.available(tracking.resolve_uri(options))
        if not state.ok:
            raise ConfigError(f"tracking=mlflow: {state}")
    return options


def _hand_to_hydra(argv: Sequence[str], command: Command, options: Tracking) -> bool:
    """Lets Hydra call the job for each cell; True if the user interrupted it. It writes down what it is given."""
    key = "hydra.sweep.dir" if command.multirun else "hydra.run.dir"
    try:
        with sealed(argv, options.uri) as words:
            call_hydra([*words, f"{key}='{command.directory}'"], job)
    except KeyboardInterrupt:
        return True
    return False


@lru_cache(maxsize=4)
def _tracker(uri: str, experiment: str) -> tracking.MlflowTracker:
    """One connection a store for all cells of this process."""
    return tracking.MlflowTracker(uri, experiment)


def _connected(options: Tracking) -> tracking.MlflowTracker:
    return _tracker(tracking.resolve_uri(options), options.experiment)


@contextmanager
def _never_in_the_way(directory: Path) -> Iterator[None]:
    """A tracking store that fails costs no run: the user is told, and how to deliver the results later."""
    try:
        yield
    except TrackingError as error:
        print(f"energybench: warning: {error}; later: energybench sync {directory}", file=sys.stderr)


def _begin(command: Command, options: Tracking) -> Sweep:
    """The sweep exists on disk, and in the tracker its parent run, before the first cell."""
    cells = tuple(tuple(map(redact, cell.overrides)) for cell in command.cells) if command.known else ()
    sweep = Sweep(new_id(), _sweep_name(command), None, cells)
    if options.name != "none":
        with _never_in_the_way(command.directory):
            parent = _connected(options).begin_sweep(sweep.sweep_id, sweep.name)
            sweep = replace(sweep, tracking_run_id=parent)
    sweep.write(command.directory)
    return sweep


def _sweep_name(command: Command) -> str:
    """'lenet batch=64,128,256': the networks, and what varies between the cells."""
    models = dict.fromkeys(cell.experiment.model.name for cell in command.cells)
    values: dict[str, dict[str, None]] = {}
    for cell in command.cells:
        for key, _, value in (override.partition("=") for override in cell.overrides):
            values.setdefault(key, {})[value] = None
    varying = [f"{key}={','.join(seen)}" for key, seen in values.items() if len(seen) > 1 and key != "model"]
    return " ".join([",".join(models), *varying])


def _end(sweep: Sweep, directory: Path, options: Tracking, results: Sequence[Result]) -> None:
    if sweep.tracking_run_id is not None:
        with _never_in_the_way(directory):
            _connected(options).end_sweep(sweep.tracking_run_id, [result.status for result in results])


class Recorder:
    """Records one run in the tracker, if there is one; a store that fails is a warning."""

    def __init__(self, options: Tracking, place: Place, run_id: str, parent: str | None) -> None:
        self._options = options
        self._directory = place.directory
        self._mlflow_run_id: str | None = None
        self.where: dict[str, str] = {}
        if options.name == "none":
            return
        with _never_in_the_way(place.directory):
            tracker = _connected(options)
            self._mlflow_run_id = tracker.begin(run_id, place.name, parent)
            self.where = tracker.where(self._mlflow_run_id)

    def finish(self, result: Result) -> None:
        """Delivers the result; where the run could not be begun in the store, as `sync` would."""
        if self._options.name == "none":
            return
        with _never_in_the_way(self._directory):
            tracker = _connected(self._options)
            if self._mlflow_run_id is None:
                tracker.deliver(result, self._directory)
            else:
                tracker.finish(result, self._directory, self._mlflow_run_id)


def job(config: DictConfig) -> None:
    """One cell. It never raises for what goes wrong in it, so Hydra goes on to the next; an interrupt is passed on."""
    hydra = HydraConfig.get()
    sweep = Sweep.read(Path(hydra.sweep.dir)) if hydra.mode == RunMode.MULTIRUN else None
    place, out = _place(config, sweep), console()
    label = place.name if sweep is None else f"{hydra.job.num}: {place.name}"
    try:
        registry = Registry()
        experiment = resolve(config, registry)
        plan = prepare(experiment, Machine(registry))
    except Exception as error:
        known = isinstance(error, EnergybenchError)
        result = failed(place, _plain(config), Failure("config", str(error)) if known else internal(error))
        _record_refusal(config, place, result, sweep)
        out.print(finished_line(label, result), markup=False, soft_wrap=True)
        return
    run_id = new_id()
    recorder = Recorder(experiment.tracking, place, run_id, sweep.tracking_run_id if sweep else None)
    with RunView(out, label) as view:
        result = execute(plan, replace(place, tracking=recorder.where), view, run_id)
    recorder.finish(result)
    out.print(finished_line(label, result), markup=False, soft_wrap=True)
    if result.status == "interrupted":
        raise KeyboardInterrupt  # Hydra goes on after any other exception; here the user wants it to end


def _record_refusal(config: DictConfig, place: Place, result: Result, sweep: Sweep | None) -> None:
    """A cell that could not be run is a run of the sweep too, if its configuration says where it is recorded."""
    with suppress(EnergybenchError):
        options = fit("tracking", Tracking, _plain(config).get("tracking", {}), "tracking")
        Recorder(options, place, result.run_id, sweep.tracking_run_id if sweep else None).finish(result)


def _place(config: DictConfig, sweep: Sweep | None) -> Place:
    hydra = HydraConfig.get()
    overrides = tuple(redact(text) for text in hydra.overrides.task)
    return Place(
        directory=Path(hydra.runtime.output_dir),
        name=tracking.run_name(_plain(config), overrides),
        follows=sweep is not None and hydra.job.num > 0,
        overrides=overrides,
        sweep_id=sweep.sweep_id if sweep else None,
        sweep_name=sweep.name if sweep else None,
    )


def _plain(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _results(command: Command, sweep: Sweep | None, begun: datetime) -> list[Result]:
    """The results of this command, in the order in which they were started; its folder may hold others' too."""
    found = command.directory.rglob(RESULT_FILE) if sweep else command.directory.glob(RESULT_FILE)
    ours = []
    for path in found:
        try:
            result = Result.read(path)
        except EnergybenchError as error:
            print(f"energybench: warning: {error}; left out", file=sys.stderr)
            continue
        if result.sweep_id == sweep.sweep_id if sweep else datetime.fromisoformat(result.started_at) >= begun:
            ours.append(result)
    return sorted(ours, key=lambda result: result.started_at)


def _show(results: Sequence[Result], command: Command, options: Tracking) -> None:
    """The table, what it allows to be said, and where to look further."""
    out = console()
    if results:
        out.print()
        out.print(table(results) if command.multirun else details(results[0]))
        for line in verdict(results):
            out.print(line, markup=False, soft_wrap=True)
    out.print(f"results: {command.directory}", markup=False, soft_wrap=True)
    if options.name != "none" and results:
        store = f" --uri {options.uri}" if options.uri and redact(options.uri) == options.uri else ""
        out.print(f"compare runs in the browser: {_python()} -m energybench ui{store}", markup=False, soft_wrap=True)


def _python() -> str:
    """What a user types to get this interpreter: 'python' where its environment is active, else its path."""
    active = shutil.which("python")
    if active is not None and Path(active).absolute() == Path(sys.executable).absolute():
        return "python"
    path = Path(sys.executable).absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
