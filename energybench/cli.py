"""The command line: argv -> a sub-command or Hydra. The one place where an error becomes a message and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from energybench import __version__, interruption
from energybench.credentials import redact
from energybench.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    EnergybenchError,
    TrackingError,
)

if TYPE_CHECKING:
    from energybench.registry import Registry


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code.

    0 done; 1 a run failed (of a sweep: any, after all have run); 2 wrong usage or configuration; 3 what `compare
    --fail-if` names has come about; 130 interrupted.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    interruption.listen()
    try:
        return _dispatch(given)
    except EnergybenchError as error:
        print(f"energybench: {redact(str(error))}", file=sys.stderr)
        return EXIT_FAILED if isinstance(error, TrackingError) else EXIT_USAGE
    except KeyboardInterrupt:
        print("energybench: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone, as `| head` does: nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE


def _dispatch(argv: list[str]) -> int:
    first = argv[0] if argv else ""
    if first == "--version":
        print(f"energybench {__version__}")
        return EXIT_DONE
    if first in COMMANDS:
        return COMMANDS[first](argv[1:])
    if first and first[0] not in "-+~" and "=" not in first:
        from energybench.errors import ConfigError

        raise ConfigError(
            f"unknown command {first!r}; commands: {', '.join(COMMANDS)}; or write overrides as key=value"
        )
    return _hydra(argv)


def _registry(*, ours: bool = True) -> Registry:
    """Every plugin; what is broken or ambiguous is said at once, in one line each."""
    from energybench.registry import Registry

    registry = Registry(ours=ours)
    for line in [*map(str, registry.broken), *registry.duplicates()]:
        print(f"energybench: warning: {line}", file=sys.stderr)
    return registry


def _hydra(argv: list[str]) -> int:
    from energybench import cells

    arguments = cells.arguments(argv)
    informs = arguments.cfg or arguments.info or arguments.help or arguments.hydra_help or arguments.shell_completion
    registry = _registry(ours=not informs)
    if arguments.shell_completion and any(word.startswith("query=") for word in arguments.overrides):
        return _complete(argv, registry)
    if informs:
        return cells.inform(argv, registry)
    command = cells.read(arguments, registry)
    from energybench import sweep

    return sweep.run(argv, command, registry)


def _complete(argv: list[str], registry: Registry) -> int:
    """What a shell may put behind the line it passes in COMP_LINE: sub-commands are ours, all else is Hydra's."""
    from energybench import cells

    program, _, rest = os.environ.get("COMP_LINE", "").partition(" ")
    first, space, overrides = rest.lstrip().partition(" ")
    if space and first in COMMANDS:
        if first not in ("describe", "prepare"):
            return EXIT_DONE
        os.environ["COMP_LINE"] = f"{program} {overrides}"
    elif program and not space:
        print(*(name for name in COMMANDS if name.startswith(first)))
    return cells.inform(argv, registry)


def _parser(name: str, about: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"energybench {name}", description=about)


def _composed(name: str, about: str, argv: list[str], *flags: str) -> tuple[argparse.Namespace, Registry]:
    """A sub-command that takes overrides, and flags of its own."""
    parser = _parser(name, about)
    parser.add_argument("overrides", nargs="*", help="overrides, as for a run: model=lenet batch=64")
    for flag in flags:
        parser.add_argument(flag, action="store_true")
    return parser.parse_args(argv), _registry()


def _describe(argv: list[str]) -> int:
    """A network as a table."""
    given, registry = _composed("describe", _describe.__doc__ or "", argv, "--json")
    from energybench import cells
    from energybench.config import make, make_architecture
    from energybench.describe import describe_json, describe_table

    command = cells.read(cells.arguments(given.overrides), registry)
    for cell in command.cells:
        info = make(registry, "dataset", cell.experiment.dataset).info()
        architecture = make_architecture(registry, cell.experiment.model, info.classes)
        if given.json:
            import json

            print(json.dumps(describe_json(architecture), indent=2))
        else:
            from energybench.console import console

            console().print(describe_table(architecture))
    return EXIT_DONE


def _doctor(argv: list[str]) -> int:
    """What works on this machine, and why not: devices, meters, engines, data sets, tracking."""
    _parser("doctor", _doctor.__doc__ or "").parse_args(argv)
    from energybench.doctor import report

    return EXIT_DONE if report(_registry()) else EXIT_FAILED


def _measure(argv: list[str]) -> int:
    """Runs a program under the meter and prints its joules: energybench measure [options] -- COMMAND ..."""
    parser = _parser("measure", _measure.__doc__ or "")
    parser.usage = "energybench measure [--meter NAME] [--gpus LIST] [--json [FILE]] [--trace FILE] -- COMMAND ..."
    parser.add_argument("--meter", default="auto", help="meter's name (auto)")
    parser.add_argument("--gpus", default="auto", help="indices, UUIDs or PCI addresses, with commas; none; auto")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="the result as JSON; on stdout, or in FILE"
    )
    parser.add_argument("--trace", metavar="FILE", help="every reading, as Parquet")
    split = argv.index("--") if "--" in argv else len(argv)
    given = parser.parse_args(argv[:split])
    from energybench.measured_command import run

    return run(argv[split + 1 :], meter=given.meter, gpus=given.gpus, json_to=given.json, trace_to=given.trace)


def _plugins(argv: list[str]) -> int:
    """Every registered name and the plugin that owns it."""
    _parser("plugins", _plugins.__doc__ or "").parse_args(argv)
    registry = _registry()
    entries = list(registry.entries())
    kinds = max((len(entry.kind) for entry in entries), default=0)
    names = max((len(entry.name) for entry in entries), default=0)
    for entry in entries:
        print(f"{entry.kind:{kinds}} {entry.name:{names}}  {entry.owner}")
    return EXIT_DONE


def _sources(name: str, about: str, default: list[str]) -> argparse.ArgumentParser:
    """A sub-command that reads results, from files or from a tracking store."""
    parser = _parser(name, about)
    said = "result.json, a folder of them, or of the tracking store a run's id, a sweep's name or id, an experiment"
    parser.add_argument("sources", nargs="*", default=default, metavar="SOURCE", help=said)
    parser.add_argument("--uri", help="tracking store (MLFLOW_TRACKING_URI, else mlflow.db in this folder)")
    return parser


def _recommend(argv: list[str]) -> int:
    """Which setting to train with: the least energy that meets what you ask, how sure that is, and what to repeat."""
    parser = _sources("recommend", _recommend.__doc__ or "", ["runs"])
    parser.add_argument("--json", action="store_true", help="the answer as JSON")
    parser.add_argument("--min-accuracy", metavar="SHARE", help="top-1 accuracy that it must reach: 97%% or 0.97")
    parser.add_argument("--max-slowdown", metavar="SHARE", help="against the fastest that reaches it: 10%% or 0.1")
    parser.add_argument("--max-energy", metavar="J", help="what it may take, for what --per says: 12.5, 3kJ, 0.2kWh")
    parser.add_argument("--per", default="image", help="image, epoch, run or target-accuracy (image)")
    parser.add_argument("--criterion", default="energy", help="what is made least: energy, time, edp or ed2p (energy)")
    parser.add_argument("--baseline", metavar="SETTING", help="your present setting: 'batch=64 gpu.count=2'")
    parser.add_argument("--price-per-kwh", metavar="PRICE", help="what a kilowatt-hour costs you")
    parser.add_argument("--currency", help="the price's currency")
    parser.add_argument("--pue", metavar="NUMBER", help="power usage effectiveness of your site")
    parser.add_argument("--carbon-g-per-kwh", metavar="GRAMS", help="CO2 equivalent of a kilowatt-hour of your grid")
    given = parser.parse_args(argv)
    from energybench.study import commands

    return commands.recommend(given)


def _compare(argv: list[str]) -> int:
    """Runs, sweeps or experiments against the first of them: ratios with intervals, and what differs."""
    parser = _sources("compare", _compare.__doc__ or "", [])
    parser.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="'METRIC +N%'",
        help="exit 3 where the change is beyond it: 'energy_per_image_j +5%%', 'accuracy_top1 -0.5pp'; repeatable",
    )
    parser.add_argument("--sure", action="store_true", help="only where the whole 95 %% interval is beyond it")
    parser.add_argument("--markdown", action="store_true", help="tables as Markdown")
    parser.add_argument("--json", action="store_true", help="the answer as JSON")
    given = parser.parse_args(argv)
    from energybench.study import commands

    return commands.compare(given)


def _report(argv: list[str]) -> int:
    """A page on a study that needs no network and no other file, and its tables and figures for a paper."""
    parser = _sources("report", _report.__doc__ or "", ["runs"])
    parser.add_argument("--out", default="report", metavar="FOLDER", help="where it is written (report)")
    parser.add_argument("--title", default="", help="heading of the page (the name of the sweep)")
    given = parser.parse_args(argv)
    from energybench.study import commands

    return commands.report(given)


def _prepare(argv: list[str]) -> int:
    """Packs a data set into files that training reads at full speed: energybench prepare dataset=NAME [options]."""
    parser = _parser("prepare", _prepare.__doc__ or "")
    parser.add_argument("overrides", nargs="*", help="overrides, as for a run: dataset=imagenet dataset.root=FOLDER")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (as many as there are processor cores)")
    parser.add_argument("--again", action="store_true", help="make everything anew, also what is there")
    parser.add_argument("--verify", action="store_true", help="make nothing: compare every part with its checksum")
    given = parser.parse_intermixed_args(argv)
    from energybench.prepare_command import run

    return run(given.overrides, _registry(), workers=given.workers, again=given.again, verify=given.verify)


def _store(name: str, about: str, argv: list[str], paths: bool = False) -> argparse.Namespace:
    """A sub-command that works on a tracking store."""
    parser = _parser(name, about)
    if paths:
        parser.add_argument("paths", nargs="*", default=["runs"], help="result.json files, or folders of them (runs)")
    else:
        parser.add_argument("--port", type=int, default=5000, help="port on the loopback address (5000)")
    parser.add_argument("--experiment", default="energybench", help="MLflow experiment (energybench)")
    parser.add_argument("--uri", help="tracking store (MLFLOW_TRACKING_URI, else mlflow.db in this folder)")
    return parser.parse_args(argv)


def _sync(argv: list[str]) -> int:
    """Brings result.json files into MLflow, each exactly once."""
    given = _store("sync", _sync.__doc__ or "", argv, paths=True)
    from pathlib import Path

    from energybench import tracking

    tracker = tracking.MlflowTracker(tracking.named(given), given.experiment)
    report = tracking.sync([Path(path) for path in given.paths], tracker)
    for path, reason in report.failed.items():
        print(f"energybench: {path}: {reason}", file=sys.stderr)
    print(f"{len(report.delivered)} delivered, {len(report.already)} there already, {len(report.failed)} failed")
    return EXIT_FAILED if report.failed else EXIT_DONE


def _ui(argv: list[str]) -> int:
    """Opens MLflow's UI on the store, on the loopback address."""
    given = _store("ui", _ui.__doc__ or "", argv)
    from energybench import tracking

    tracking.ui(tracking.named(given), port=given.port, experiment=given.experiment)
    return EXIT_DONE


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "compare": _compare,
    "describe": _describe,
    "doctor": _doctor,
    "measure": _measure,
    "plugins": _plugins,
    "prepare": _prepare,
    "recommend": _recommend,
    "report": _report,
    "sync": _sync,
    "ui": _ui,
}
