"""One cell, as Hydra calls it: from its configuration to its result, whatever happens in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from energybench import interruption, tracking
from energybench.config import resolve
from energybench.console import RunView, console, finished_line
from energybench.credentials import redact
from energybench.errors import EnergybenchError
from energybench.order import SEARCHER
from energybench.recording import NOWHERE, Recorder, recorded
from energybench.registry import Registry
from energybench.run.execute import Place, execute, failed, internal, new_id
from energybench.run.preflight import Machine, prepare
from energybench.run.result import Failure, Result
from energybench.study.ledger import Sweep, told
from energybench.study.limits import LimitedView, asked, infeasible
from energybench.study.progress import Progress


def job(config: DictConfig, progress: Progress | None = None, *, records: bool = True) -> None:
    """One cell. It never raises for what goes wrong in it, so Hydra goes on to the next; an interrupt is passed on.

    Args:
        config: composed by Hydra.
        progress: of the sweep, where this process runs all of it.
        records: whether the run is recorded in the tracker; on a node of a cluster it is not: who sent it does that.
    """
    interruption.check()
    hydra = HydraConfig.get()
    sweep = Sweep.read(Path(hydra.sweep.dir)) if hydra.mode == RunMode.MULTIRUN else None
    rank = OmegaConf.select(config, "nodes.rank")
    number = int(hydra.job.num) if sweep is not None else 0
    place, out = _place(config, sweep, progress), console()
    label = place.name if sweep is None else f"{progress.label() if progress else number}: {place.name}"
    limits = asked(hydra.sweeper.limits) if hydra.sweeper.get("_target_") == SEARCHER and sweep else None
    if rank:  # the first node shows what goes on, for all
        label = f"node {rank}: {label}"
    view = RunView(Console(quiet=True) if rank else out, label, progress)
    result = _run_cell(config, place, sweep, number, view, limits, records)
    out.print(finished_line(label, result), markup=False, soft_wrap=True)
    if progress is not None:
        progress.ended(number, result)
        remainder = progress.left()
        if remainder.cells and result.status != "interrupted" and not rank:
            out.print(str(remainder), markup=False, soft_wrap=True)
    if result.status == "interrupted":
        raise KeyboardInterrupt  # Hydra goes on after any other exception; here the user wants it to end


def _run_cell(
    config: DictConfig,
    place: Place,
    sweep: Sweep | None,
    number: int,
    view: RunView,
    limits: Mapping[str, float] | None,
    records: bool,
) -> Result:
    """Runs it, unless it cannot be; `limits` are those of a search, which does not try what it knows to be in vain."""
    cell = sweep.key(number) if sweep is not None else str(number)
    try:
        registry = Registry()
        experiment = resolve(config, registry)
        plan = prepare(experiment, Machine(registry))
    except Exception as error:
        known = isinstance(error, EnergybenchError)
        failure = Failure("config", str(error)) if known else internal(error)
        return _refused(config, place, failure, sweep, cell, records)
    if limits is not None and (vain := infeasible(plan)):
        return _refused(config, place, vain, sweep, cell, records)
    run_id = new_id()
    recorder = Recorder(experiment.tracking if records else NOWHERE, place, run_id, sweep, cell)
    with view:
        watched = LimitedView(view, limits) if limits else view
        result = execute(plan, replace(place, tracking=recorder.where), watched, run_id)
    recorder.finish(result)
    return result


def _refused(
    config: DictConfig, place: Place, failure: Failure, sweep: Sweep | None, cell: str, records: bool
) -> Result:
    """A cell that could not be run is a run of the sweep too, recorded where its configuration says, if it does."""
    result = failed(place, _plain(config), failure)
    if records:
        recorded(result, place, sweep, cell)
    return result


def _place(config: DictConfig, sweep: Sweep | None, progress: Progress | None) -> Place:
    hydra = HydraConfig.get()
    overrides = tuple(redact(text) for text in hydra.overrides.task)
    named = told(overrides, sweep.cells if sweep else ())
    return Place(
        directory=Path(hydra.runtime.output_dir),
        name=tracking.run_name(_plain(config), named),
        follows=sweep is not None and (progress.follows(hydra.job.num) if progress else hydra.job.num > 0),
        overrides=overrides,
        sweep_id=sweep.sweep_id if sweep else None,
        sweep_name=sweep.name if sweep else None,
    )


def _plain(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
