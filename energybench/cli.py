"""The command line: argv -> a sub-command or Hydra. The one place where an error becomes a message and an exit code."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from energybench import __version__
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

    0 done; 1 a run failed (of a sweep: any, after all have run); 2 wrong usage or configuration; 130 interrupted.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _interrupt)
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


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM, and a terminal that goes away, end a run as Ctrl-C does: with what was measured."""
    raise KeyboardInterrupt


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
    cells.extend_search_path(registry)
    if arguments.shell_completion and any(word.startswith("query=") for word in arguments.overrides):
        return _complete(argv)
    if informs:
        return cells.inform(argv)
    command = cells.read(arguments, registry)
    from energybench import sweep

    return sweep.run(argv, command, registry)


def _complete(argv: list[str]) -> int:
    """What a shell may put behind the line it passes in COMP_LINE: sub-commands are ours, all else is Hydra's."""
    from energybench import cells

    program, _, rest = os.environ.get("COMP_LINE", "").partition(" ")
    first, space, overrides = rest.lstrip().partition(" ")
    if space and first in COMMANDS:
        if first != "describe":
            return EXIT_DONE
        os.environ["COMP_LINE"] = f"{program} {overrides}"
    elif program and not space:
        print(*(name for name in COMMANDS if name.startswith(first)))
    return cells.inform(argv)


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

    cells.extend_search_path(registry)
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


def _store(name: str, about: str, argv: list[str], paths: bool = False) -> argparse.Namespace:
    """A sub-command that works on a tracking store."""
    parser = _parser(name, about)
    if paths:
        parser.add_argument("paths", nargs="*", default=["runs"], help="result.json files, or folders of them (runs)")
        parser.add_argument("--experiment", default="energybench", help="MLflow experiment (energybench)")
    else:
        parser.add_argument("--port", type=int, default=5000, help="port on the loopback address (5000)")
    parser.add_argument("--uri", help="tracking store (MLFLOW_TRACKING_URI, else mlflow.db in this folder)")
    return parser.parse_args(argv)


def _sync(argv: list[str]) -> int:
    """Brings result.json files into MLflow, each exactly once."""
    given = _store("sync", _sync.__doc__ or "", argv, paths=True)
    from pathlib import Path

    from energybench import tracking

    tracker = tracking.MlflowTracker(tracking.resolve_uri(given), given.experiment)
    report = tracking.sync([Path(path) for path in given.paths], tracker)
    for path, reason in report.failed.items():
        print(f"energybench: {path}: {reason}", file=sys.stderr)
    print(f"{len(report.delivered)} delivered, {len(report.already)} there already, {len(report.failed)} failed")
    return EXIT_FAILED if report.failed else EXIT_DONE


def _ui(argv: list[str]) -> int:
    """Opens MLflow's UI on the store, on the loopback address."""
    given = _store("ui", _ui.__doc__ or "", argv)
    from energybench import tracking

    tracking.ui(tracking.resolve_uri(given), port=given.port)
    return EXIT_DONE


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "describe": _describe,
    "doctor": _doctor,
    "measure": _measure,
    "plugins": _plugins,
    "sync": _sync,
    "ui": _ui,
}
