"""Runs a command line: Hydra calls the job for every cell; the exit code comes from their results."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote

from omegaconf import DictConfig

from energybench import tracking
from energybench.cells import Command, call_hydra, naming_cell
from energybench.cluster.request import Cluster
from energybench.console import console
from energybench.credentials import redact, sealed, without_credentials
from energybench.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    ConfigError,
    DataError,
    DeviceError,
    EnergybenchError,
)
from energybench.experiment import Tracking
from energybench.job import job
from energybench.recording import connected, never_in_the_way, parent_run
from energybench.registry import Registry
from energybench.run.execute import new_id
from energybench.run.preflight import Machine, Plan, prepare
from energybench.run.result import RESULT_FILE, Result, is_original, result_files
from energybench.study.collect import Collected
from energybench.study.forecast import Forecaster
from energybench.study.ledger import ATTEMPTS, SWEEP_FILE, Sweep, held, is_held, told
from energybench.study.limits import PRUNED
from energybench.study.listing import cells_table
from energybench.study.progress import DONE, FAILED, NO_RESULT, Progress, Task, left, task
from energybench.study.report import page_of_sweep
from energybench.study.sameness import cell_of
from energybench.study.summary import details, table, verdict
from energybench.whole import writable


def run(argv: Sequence[str], command: Command, registry: Registry) -> int:
    """Runs every cell, shows the results and says how it went.

    A sweep in a folder that holds an earlier one goes on with it: cells that are done are not run again.

    Returns:
        0 all finished; 1 a run failed; 130 interrupted.

    Raises:
        EnergybenchError: a cell cannot be run here; nothing has been started.
    """
    machine = Machine(registry) if command.cluster is None else Cluster(registry, command.cluster)
    command, plans, left_out = _planned(command, machine)
    options = command.cells[0].experiment
    if options.sweep.dry_run:
        if not command.known:
            raise ConfigError(
                "sweep.dry_run: this sweeper chooses its cells as it goes, so there are none to be listed"
            )
        _dry_run(command, plans, left_out, machine.host)
        return EXIT_DONE
    _require_tracking(command)
    writable(command.directory)
    if not command.multirun:
        return _run_one(argv, command)
    with held(command.directory):
        return _run_sweep(argv, command, plans, left_out, machine.host)


def _planned(command: Command, machine: Machine) -> tuple[Command, list[Plan], Counter[str]]:
    """Every cell that can run here with its plan, and why others of a grid over the devices here cannot."""
    cells, plans, left_out = [], [], Counter[str]()
    for cell in command.cells:
        with naming_cell(cell.overrides if len(command.cells) > 1 else ()):
            try:
                plans.append(prepare(cell.experiment, machine))
            except DeviceError as error:
                if not cell.implied:
                    raise
                left_out[str(error)] += 1
                continue
        cells.append(cell)
    if not cells:
        raise DeviceError(f"no cell of this sweep can run here: {next(iter(left_out))}")
    return replace(command, cells=tuple(cells)), plans, left_out


def _run_one(argv: Sequence[str], command: Command) -> int:
    before = {result.run_id for result in _readable(command.directory.glob(RESULT_FILE))}
    interrupted, results = False, []
    try:
        interrupted = _hand_to_hydra(argv, command, job)
    finally:
        found = _results(command.directory.glob(RESULT_FILE))
        results = [result for result in found if result.run_id not in before]
        _show(results, command)
    return _exit_code(results, interrupted, len(command.cells))


def _run_sweep(
    argv: Sequence[str], command: Command, plans: Sequence[Plan], left_out: Mapping[str, int], host: str
) -> int:
    sweep, tasks = _begin(command, plans, host)
    forecaster = Forecaster([result for task in tasks if (result := task.result)], host=host)
    for line in [*_left_out_lines(left_out), *_going_on_lines(sweep, tasks, forecaster)]:
        console().print(line, markup=False, soft_wrap=True)
    progress = Progress(tasks, forecaster) if command.known else None
    interrupted = False
    try:
        if sweep.queue or not command.known:
            interrupted = _hand_to_hydra(argv, command, partial(job, progress=progress))
    finally:
        numbers = {str(task.number) for task in tasks}
        found = [
            (path.parent, result)
            for path in command.directory.rglob(RESULT_FILE)
            if is_original(path.relative_to(command.directory))
            for result in _results([path])
            if result.sweep_id == sweep.sweep_id
        ]
        results = _in_order(result for folder, result in found if folder.name in numbers or not command.known)
        _show(results, command, interrupted)
        ended = _in_order(result for _, result in found)
        page = page_of_sweep(
            Collected(tuple(ended), (), {run.run_id: folder for folder, run in found}), command.directory
        )
        _end(sweep, command, ended, [page] if page else [])
    return _exit_code(results, interrupted, len(command.cells) if command.known else 0)


def _exit_code(results: Sequence[Result], interrupted: bool, wanted: int) -> int:
    if interrupted:
        return EXIT_INTERRUPTED
    failed = [result for result in results if result.failure is not None and result.failure.kind not in PRUNED]
    return EXIT_FAILED if failed or len(results) < wanted else EXIT_DONE


def _require_tracking(command: Command) -> None:
    """Raises ConfigError where cells differ in where they are recorded, or runs cannot be recorded there."""
    options, *others = dict.fromkeys(cell.experiment.tracking for cell in command.cells)
    if others:
        raise ConfigError("tracking: it holds for the whole sweep; give one value of each of its keys")
    if options.name == "mlflow":
        state = tracking.available(tracking.named(options))
        if not state.ok:
            raise ConfigError(f"tracking=mlflow: {state}")


def _hand_to_hydra(argv: Sequence[str], command: Command, task: Callable[[DictConfig], None]) -> bool:
    """Lets Hydra call the job for each cell; True if the user interrupted it. It writes down what it is given."""
    key = "hydra.sweep.dir" if command.multirun else "hydra.run.dir"
    try:
        with sealed(argv, command.cells[0].experiment.tracking.uri) as words:
            call_hydra([*words, f"{key}='{command.directory}'"], task)
    except KeyboardInterrupt:
        return True
    return False


def _begin(command: Command, plans: Sequence[Plan], host: str) -> tuple[Sweep, list[Task]]:
    """The sweep exists on disk, and in the tracker its parent run, before the first cell; or is that of before."""
    directory, options = command.directory, command.cells[0].experiment
    name = options.sweep.name or _sweep_name(command)
    earlier = (directory / SWEEP_FILE).exists()
    if earlier and command.known and not command.goes_on:
        raise ConfigError(
            f"{directory}: there is a sweep in it, and this sweeper cannot go on with it; use hydra/sweeper=ordered, "
            "or another hydra.sweep.dir"
        )
    sweep = Sweep.read(directory) if earlier else Sweep(new_id(), name, None)
    tasks: list[Task] = []
    if command.known:
        cells = [tuple(without_credentials(cell.overrides, options.tracking.uri)) for cell in command.cells]
        sweep, numbers = sweep.numbered(cells, [cell_of(plan, host) for plan in plans])
        tasks = [task(plan, number, directory, sweep.sweep_id) for plan, number in zip(plans, numbers, strict=True)]
        sweep = replace(
            sweep,
            queue=tuple(number for one, number in zip(tasks, numbers, strict=True) if one.to_run),
            going_on=tuple(number for one, number in zip(tasks, numbers, strict=True) if one.goes_on),
            awaited=tuple(number for one, number in zip(tasks, numbers, strict=True) if one.why == NO_RESULT),
        )
    if options.tracking.name != "none":
        with never_in_the_way(directory):
            standing = {one.number: one.result for one in tasks if one.number is not None and one.result is not None}
            sweep = replace(sweep, tracking_run_id=parent_run(sweep, standing, options.tracking, directory))
    sweep.write(directory)
    return sweep, tasks


def _left_out_lines(left_out: Mapping[str, int]) -> list[str]:
    return [f"left out: {count} cell{'s' if count > 1 else ''}: {why}" for why, count in left_out.items()]


def _going_on_lines(sweep: Sweep, tasks: Sequence[Task], forecaster: Forecaster) -> list[str]:
    """What a sweep that goes on found, and what it makes of it; nothing of one that begins."""
    states = Counter(one.state for one in tasks)
    whys = Counter(one.why for one in tasks if one.why and not one.goes_on)
    resumed = sum(one.goes_on for one in tasks)
    others = len(sweep.cells) - len(tasks)
    if not (states[DONE] or states[FAILED] or whys or resumed or (tasks and others)):
        return []
    lines = [f"going on with {sweep.name}: {states[DONE]} of {len(tasks)} cells are done"]
    if states[FAILED]:
        lines.append(f"failed before and not run again: {states[FAILED]}; to run them again: rerun=failed")
    if without := whys.pop(NO_RESULT, 0):
        lines.append(f"without a result: {without}; those that the cluster still has are waited for, others run again")
    lines += [f"run again: {count} ({why}); what they left is kept in {ATTEMPTS}/" for why, count in whys.items()]
    if resumed:
        lines.append(f"going on from their checkpoints: {resumed}")
    if any(why.startswith("other code") for why in whys):
        lines.append("to keep results of other code: sweep.code=any")
    if others:
        lines.append(f"cells of other settings or boards in this folder, which are left as they are: {others}")
    return [*lines, str(left(tasks, forecaster))] if sweep.queue else lines


def _sweep_name(command: Command) -> str:
    """'lenet batch=64,128,256': the networks, and what varies between the cells."""
    models = dict.fromkeys(cell.experiment.model.name for cell in command.cells)
    values: dict[str, dict[str, None]] = {}
    for cell in command.cells:
        for key, _, value in (override.partition("=") for override in cell.overrides):
            values.setdefault(key, {})[value] = None
    varying = [f"{key}={','.join(seen)}" for key, seen in values.items() if len(seen) > 1 and key != "model"]
    return " ".join([",".join(models), *varying])


def _end(sweep: Sweep, command: Command, results: Sequence[Result], artifacts: Sequence[Path]) -> None:
    if sweep.tracking_run_id is not None:
        with never_in_the_way(command.directory):
            tracker = connected(command.cells[0].experiment.tracking)
            tracker.end_sweep(sweep.tracking_run_id, [result.status for result in results], artifacts)


def _results(paths: Iterable[Path]) -> list[Result]:
    """The results in these files, in the order in which they were started."""
    found = []
    for path in paths:
        try:
            found.append(Result.read(path))
        except EnergybenchError as error:
            print(f"energybench: warning: {error}; left out", file=sys.stderr)
    return _in_order(found)


def _in_order(results: Iterable[Result]) -> list[Result]:
    return sorted(results, key=lambda result: result.started_at)


def _show(results: Sequence[Result], command: Command, interrupted: bool = False) -> None:
    """The table, what it allows to be said, and where to look further; of several nodes the first shows it."""
    if command.cells[0].experiment.nodes.number:
        return
    out, options = console(), command.cells[0].experiment.tracking
    if results:
        out.print()
        out.print(table(results) if command.multirun else details(results[0]))
        one_seed = command.known and not interrupted and len({cell.experiment.seed for cell in command.cells}) == 1
        for line in verdict(results, one_seed=one_seed):
            out.print(line, markup=False, soft_wrap=True)
    if interrupted:
        out.print(_interrupted_line(results, command), markup=False, soft_wrap=True)
    out.print(f"results: {command.directory}", markup=False, soft_wrap=True)
    if options.name != "none" and results:
        store = f" --uri {options.uri}" if options.uri and redact(options.uri) == options.uri else ""
        named = f" --experiment {quote(options.experiment)}" if options.experiment != Tracking().experiment else ""
        command_line = f"{_python()} -m energybench ui{store}{named}"
        out.print(f"compare runs in the browser: {command_line}", markup=False, soft_wrap=True)


def _interrupted_line(results: Sequence[Result], command: Command) -> str:
    """How far the sweep has come, and how it goes on."""
    done = sum(result.status == "finished" for result in results)
    said = f"interrupted, {done}{f' of {len(command.cells)}' if command.known else ''} cells done"
    if not command.goes_on:
        return said
    if command.cells[0].experiment.sweep.name:
        return f"{said}; give the same command again to go on"
    return f"{said}; to go on, give the same command again with hydra.sweep.dir={quote(str(command.directory))}"


def _dry_run(command: Command, plans: Sequence[Plan], left_out: Mapping[str, int], host: str) -> None:
    """Lists the cells, how each stands and what it will take; writes nothing."""
    directory = command.directory
    numbers: list[int | None] = [None] * len(plans)
    sweep_id = ""
    if command.multirun and (directory / SWEEP_FILE).exists():
        sweep = Sweep.read(directory)
        _, found = sweep.numbered([cell.overrides for cell in command.cells], [cell_of(plan, host) for plan in plans])
        numbers = [number if number < len(sweep.cells) else None for number in found]
        sweep_id = sweep.sweep_id
    tasks = [task(plan, number, directory, sweep_id) for plan, number in zip(plans, numbers, strict=True)]
    out, forecaster = console(), Forecaster(_earlier(directory), host=host)
    out.print(cells_table(list(zip(_names(command), tasks, strict=True)), forecaster))
    if is_held(directory):
        out.print("another process is running this sweep now")
    states = Counter(one.state for one in tasks)
    out.print(
        f"{len(tasks)} cell{'s' if len(tasks) > 1 else ''}: "
        + ", ".join(f"{count} {state}" for state, count in states.items())
    )
    remainder = left(tasks, forecaster)
    for line in [*([str(remainder)] if remainder.cells else []), *_left_out_lines(left_out)]:
        out.print(line, markup=False, soft_wrap=True)


def _names(command: Command) -> list[str]:
    cells = [cell.overrides for cell in command.cells]
    return [tracking.run_name(cell.experiment.to_json(), told(cell.overrides, cells)) for cell in command.cells]


def _earlier(directory: Path) -> list[Result]:
    """Results that may tell what a sweep takes: those of its folder, and of the folder of all runs that it is in."""
    root = directory if directory.is_absolute() else Path(directory.parts[0])
    return _readable(result_files(root))


def _readable(paths: Iterable[Path]) -> list[Result]:
    """The results in these files, damaged ones left out: whoever wants those themselves is told."""
    found = []
    for path in paths:
        with suppress(DataError):
            found.append(Result.read(path))
    return found


def _python() -> str:
    """What a user types to get this interpreter: 'python' where its environment is active, else its path."""
    active = shutil.which("python")
    if active is not None and Path(active).absolute() == Path(sys.executable).absolute():
        return "python"
    path = Path(sys.executable).absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
