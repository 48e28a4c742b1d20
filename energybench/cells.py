"""From a command line to the cells it stands for: composed by Hydra, validated before the first joule."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NoReturn

from hydra import compose, initialize_config_module
from hydra import main as hydra_main
from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from energybench.config_files import screen_files
from energybench.errors import ConfigError, EnergybenchError
from energybench.grid import GridCell, grid
from energybench.hydra_errors import line, translate
from energybench.node_options import Nodes
from energybench.order import SEARCHER, SWEEPER, install_plugins
from energybench.patience import within
from energybench.registry import KINDS, Registry

if TYPE_CHECKING:
    from energybench.cluster.options import ClusterOptions
    from energybench.devices import Device
    from energybench.experiment import Experiment

CONFIG_MODULE = "energybench.conf"
CONFIG_NAME = "config"
HYDRA_ERRORS = (HydraException, OmegaConfBaseException, YAMLError, ValueError, RecursionError)
"""What Hydra raises for what a user wrote; `model=null` is a plain ValueError."""

NOT_OF_A_CELL = ("hydra.", "hydra/", "rerun=", "sweep.code=", "sweep.dry_run=")
"""Overrides that say what is to be done with cells, and nothing in one of them."""

PLAIN_NUMBER = re.compile(r"(batch|seed)=(0|[1-9][0-9]*)")
"""Overrides that decide nothing but their own value, which interpolations follow."""

LONGEST_S = 20.0
"""Processor time after which composing one cell, a matter of milliseconds, is given up."""

MOST_SHOWN = 200
"""Characters of an override in an error."""

BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


OmegaConf.register_new_resolver("named_or", lambda name, other: name or other, replace=True)


@dataclass(frozen=True)
class Cell:
    """One run of a command line.

    Attributes:
        overrides: of this cell.
        experiment: what they make.
        implied: whether the grid over this machine's devices brought it; see `energybench.grid.GridCell`.
    """

    overrides: tuple[str, ...]
    experiment: Experiment
    implied: bool = False


@dataclass(frozen=True)
class Command:
    """What a command line stands for.

    Attributes:
        cells: every run, in order; of a sweeper that chooses as it goes, only the starting point.
        multirun: whether Hydra sweeps.
        directory: where Hydra puts the run, or the sweep.
        known: False where the sweeper chooses its cells itself.
        goes_on: whether the sweeper leaves out what an earlier command has done in the same folder: ours do.
        cluster: what is said of the cluster that the cells are handed to; None: they run here.
    """

    cells: tuple[Cell, ...]
    multirun: bool
    directory: Path
    known: bool
    goes_on: bool = False
    cluster: ClusterOptions | None = None


class _Parser(argparse.ArgumentParser):
    """Raises what argparse would print with a page of usage."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see energybench --help")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Hydra's own arguments; its overrides may stand before and behind its flags. Raises ConfigError."""
    parser = get_args_parser()
    parser.__class__ = _Parser
    parsed = parser.parse_intermixed_args(list(argv))
    if parsed.config_dir and not Path(parsed.config_dir).is_dir():
        raise ConfigError(f"--config-dir {parsed.config_dir}: no such folder")
    return parsed


def _flags_first(argv: Sequence[str]) -> list[str]:
    """The same command line as Hydra's parser wants it: it takes no override behind a flag that follows another."""
    overrides = list(arguments(argv).overrides)
    waiting = list(overrides)
    flags = [word for word in argv if not (waiting and word == waiting[0] and waiting.pop(0))]
    return [*flags, *overrides]


class _PluginConfigs(SearchPathPlugin):
    """Adds each plugin's folder behind ours. One class for the whole process: Hydra keeps every one it is given."""

    paths: ClassVar[tuple[tuple[str, str], ...]] = ()

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for owner, path in self.paths:
            search_path.append(provider=owner, path=path)


def _extend_search_path(registry: Registry) -> None:
    """Lets Hydra find the YAML files that plugins bring, and our sweepers and launchers."""
    install_plugins()
    screen_files()
    _PluginConfigs.paths = tuple((owner, _place(path)) for owner, path in registry.config_paths)
    Plugins.instance().register(_PluginConfigs)


def _place(path: str) -> str:
    """A package without `__init__.py` as its folder, as Hydra cannot list it with Python 3.12; other paths as given."""
    scheme, _, name = path.partition("://")
    spec = None
    with suppress(ImportError, ValueError):  # Hydra says what cannot be found
        spec = find_spec(name) if scheme == "pkg" else None
    folders = list(spec.submodule_search_locations or ()) if spec is not None and spec.origin is None else []
    return f"file://{folders[0]}" if len(folders) == 1 else path


def read(arguments: argparse.Namespace, registry: Registry) -> Command:
    """Composes and validates every cell.

    Raises:
        EnergybenchError: the first cell that is wrong, in one line.
    """
    _extend_search_path(registry)
    try:
        return _read(arguments, registry)
    except (HydraException, OmegaConfBaseException) as error:  # of the sweeper, of Hydra's own node
        raise translate(error, registry) from error


def _read(arguments: argparse.Namespace, registry: Registry) -> Command:
    with _hydra():
        composer = _Composer(arguments, registry)
        base = composer.common()
        multirun = bool(arguments.multirun) or base.hydra.mode == RunMode.MULTIRUN
        directory = Path(str(base.hydra.sweep.dir if multirun else base.hydra.run.dir))
        sweeper = base.hydra.sweeper.get("_target_")
        known = not multirun or sweeper in (BASIC_SWEEPER, SWEEPER)
        cluster = _cluster(base, multirun)
        if multirun:
            _check_order(arguments.overrides, base)
        written = [GridCell(list(arguments.overrides))]
        if multirun and known:
            written = _expand(arguments.overrides, base, registry, cluster)
        elif multirun:
            written = [GridCell(_example(arguments.overrides, base))]
        cells = []
        for one in written:
            with naming_cell(one.overrides if len(written) > 1 else ()):
                cells.append(_cell(composer, one, registry))
    nodes = _nodes(cells, known, cluster)
    goes_on = multirun and sweeper in (SWEEPER, SEARCHER)
    return Command(tuple(cells), multirun, nodes.folder(directory), known, goes_on, cluster)


def _cluster(base: DictConfig, multirun: bool) -> ClusterOptions | None:
    """What is said of the cluster that cells are handed to; raises ConfigError where it is wrong, or there are none."""
    if str(base.hydra.launcher.get("_target_")) == BASIC_LAUNCHER:
        return None
    from energybench.cluster.options import options_of

    options = options_of(base.hydra.launcher)
    if options is not None and not multirun:
        raise ConfigError("hydra/launcher: it is for the cells of a sweep, of which there may be one; add -m")
    return options


def _nodes(cells: Sequence[Cell], known: bool, cluster: ClusterOptions | None) -> Nodes:
    """The nodes of all cells, which meet for each in turn; raises ConfigError."""
    nodes, *others = dict.fromkeys(cell.experiment.nodes for cell in cells)
    if others:
        raise ConfigError("nodes: it holds for the whole sweep; give one value of each of its keys")
    if nodes.count > 1 and not known:
        raise ConfigError(
            f"nodes.count={nodes.count}: this sweeper chooses its cells as it goes, on each node others; use "
            "hydra/sweeper=ordered, or nodes.count=1"
        )
    if nodes.count > 1 and cluster is not None:
        raise ConfigError(
            f"nodes.count={nodes.count}: hydra/launcher hands each cell to one node; within an allocation of several, "
            "start the command on each without a launcher (srun ... nodes=slurm)"
        )
    return nodes


def _cell(composer: _Composer, written: GridCell, registry: Registry) -> Cell:
    from energybench.config import resolve

    config = composer.compose(written.overrides)
    with within(LONGEST_S, "working out its interpolations"):
        experiment = resolve(config, registry)
    kept = (override for override in written.overrides if not override.lstrip("+~").startswith(NOT_OF_A_CELL))
    return Cell(tuple(kept), experiment, written.implied)


@contextmanager
def naming_cell(overrides: Sequence[str]) -> Iterator[None]:
    """Adds to an error which cell of a sweep it is about."""
    try:
        yield
    except EnergybenchError as error:
        raise type(error)(f"{error} [in {' '.join(overrides)}]" if overrides else str(error)) from error


@contextmanager
def _hydra() -> Iterator[None]:
    GlobalHydra.instance().clear()
    try:
        screen_files()
        with initialize_config_module(CONFIG_MODULE, job_name="energybench", version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().clear()


def _given(arguments: argparse.Namespace, overrides: Sequence[str]) -> list[str]:
    """The overrides that Hydra composes from."""
    more = [f"hydra.searchpath=[file://{Path(arguments.config_dir).absolute()}]"] if arguments.config_dir else []
    return [*overrides, *more]


def _chosen(config_name: str | None, given: Sequence[str], section: str) -> str | None:
    """The part that overrides choose for a section, whatever else is wrong with them; None where they do not."""
    choosing = (*KINDS, "experiment", "hydra.searchpath")
    with suppress(*HYDRA_ERRORS):
        config = compose(config_name or CONFIG_NAME, [text for text in given if text.partition("=")[0] in choosing])
        name = OmegaConf.select(config, f"{section}.name")
        return name if isinstance(name, str) else None
    return None


def _compose(arguments: argparse.Namespace, overrides: Sequence[str], registry: Registry) -> DictConfig:
    """The configuration of one cell, Hydra's own node with it."""
    given = _given(arguments, overrides)
    try:
        with within(LONGEST_S, "composing the configuration"):
            return compose(arguments.config_name or CONFIG_NAME, given, return_hydra_config=True)
    except EnergybenchError:
        raise
    except (HydraException, OmegaConfBaseException) as error:
        raise translate(error, registry, partial(_chosen, arguments.config_name, given)) from error
    except Exception as error:  # `model=null`, a file that is no YAML or includes itself: what, but not where
        raise ConfigError(f"{line(error)} [in {' '.join(given)}]") from error


class _Composer:
    """Composes the cells of a command: once for all that differ in plain numbers alone, as composing takes its time."""

    def __init__(self, arguments: argparse.Namespace, registry: Registry) -> None:
        self._arguments = arguments
        self._registry = registry
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def common(self) -> DictConfig:
        """What all cells have in common, with the first value of the rest: a cell's configuration, if one is of them.

        It holds until the first is asked for.
        """
        return self.compose(_firsts(self._arguments.overrides, self._registry))

    @staticmethod
    def _key(overrides: Sequence[str]) -> tuple[str, ...]:
        """The same for cells that differ in plain numbers alone."""
        return tuple(text.partition("=")[0] if PLAIN_NUMBER.fullmatch(text) else text for text in overrides)

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration of one cell. It holds until the next is asked for."""
        numbers = dict(text.split("=") for text in overrides if PLAIN_NUMBER.fullmatch(text))
        key = self._key(overrides)
        if key not in self._composed:
            self._composed[key] = _compose(self._arguments, overrides, self._registry)
        for name, value in numbers.items():
            OmegaConf.update(self._composed[key], name, int(value))
        return self._composed[key]


def _parsed(text: str, registry: Registry) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except (HydraException, RecursionError, ValueError) as error:
        short = text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
        raise ConfigError(f"{short!r} is no override{_remedy(text, error, registry)}") from error


def _remedy(text: str, error: Exception, registry: Registry) -> str:
    """What to write in its place; what Hydra's parser says of it only where that is not known."""
    kinds = [f"{kind}={text}" for kind in KINDS if text in registry.names(kind)]
    if kinds:
        return f"; write {' or '.join(kinds)}"
    if "=" in text and text.endswith(","):
        return f"; write {text.rstrip(',')}"
    said = f": {line(error).partition(' expecting ')[0][:MOST_SHOWN]}" if "=" in text else ""
    return f"{said}; write key=value"


def _is_sweep(text: str) -> bool:
    """Of one that Hydra's parser has taken before."""
    return bool(OverridesParser.create().parse_override(text).is_sweep_override())


def _firsts(overrides: Sequence[str], registry: Registry) -> list[str]:
    """Those of all cells, and the first values of the others."""
    return [first for text in overrides for first in _first(text, registry)]


def _first(text: str, registry: Registry) -> list[str]:
    """The override, of one that varies its first value; none where that is no list."""
    override = _parsed(text, registry)
    if not override.is_sweep_override():
        return [text]
    if not isinstance(override.value(), ChoiceSweep):
        return []
    return [f"{override.get_key_element()}={next(override.sweep_string_iterator())}"]


def _expand(
    overrides: Sequence[str], base: DictConfig, registry: Registry, cluster: ClusterOptions | None
) -> list[GridCell]:
    """Every cell, as the sweeper makes them: its own parameters, then the command line."""
    params = base.hydra.sweeper.params or {}
    texts = [f"{key}={value}" for key, value in params.items()] + list(overrides)
    parsed = OverridesParser.create().parse_overrides(texts)
    for override in parsed:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise ConfigError(
                f"{override.input_line}: an interval is no list; a search takes one, hydra/sweeper=optuna"
            )
    over_devices = OmegaConf.select(base, "sweep.devices") is not None
    return grid(parsed, base.hydra.sweeper.get("shuffle"), (lambda: _gpus(registry, cluster)) if over_devices else None)


def _example(overrides: Sequence[str], base: DictConfig) -> list[str]:
    """What is validated where the sweeper chooses its cells as it goes: of ours one, of others what all have in common.

    Raises:
        ConfigError: our search cannot be made of this.
    """
    if base.hydra.sweeper.get("_target_") != SEARCHER:
        return [text for text in overrides if not _is_sweep(text)]
    from energybench.study.limits import check_limits
    from energybench.study.search import check_search
    from energybench.study.space import Space

    options = base.hydra.sweeper
    limits, params = options.get("limits"), options.get("params")
    check_search(options.get("objectives"), options.get("trials"))
    check_limits({} if limits is None else limits)
    space = Space.read({} if params is None else params, overrides)
    if not space.swept:
        raise ConfigError("hydra/sweeper=optuna: nothing to choose from; write key=a,b or key=interval(1,2)")
    return space.example()


def _gpus(registry: Registry, cluster: ClusterOptions | None) -> Sequence[Device]:
    if cluster is not None:
        from energybench.cluster.request import Cluster

        return Cluster(registry, cluster).inventory()
    from energybench.run.preflight import Machine

    return Machine(registry).gpus


def _check_order(overrides: Sequence[str], base: DictConfig) -> None:
    """Raises ConfigError where `sweep.shuffle` or `sweep.devices` would be passed over."""
    for text in overrides:
        if text.startswith(("sweep.", "rerun=")) and _is_sweep(text):
            raise ConfigError(f"{text}: it holds for the whole sweep; give one value")
    if base.hydra.sweeper.get("_target_") == SWEEPER:
        return
    shuffle = OmegaConf.select(base, "sweep.shuffle")
    if shuffle is not None:
        raise ConfigError(
            f"sweep.shuffle={shuffle}: this sweeper orders its cells itself; use hydra/sweeper=ordered, "
            "or sweep.shuffle=null"
        )
    if OmegaConf.select(base, "sweep.devices") is not None:
        raise ConfigError(
            "sweep.devices: this sweeper chooses its cells itself; use hydra/sweeper=ordered, or name gpu and gpu.count"
        )


def inform(argv: Sequence[str], registry: Registry) -> int:
    """Lets Hydra print what --cfg, --info, --help, --hydra-help or --shell-completion ask for; the exit code."""
    _extend_search_path(registry)
    try:
        with within(LONGEST_S, "composing the configuration"):
            call_hydra(argv, lambda config: None)
    except HYDRA_ERRORS as error:
        every, parsed = Registry(), arguments(argv)  # what only informs goes without our own parts
        with _hydra():
            chosen = partial(_chosen, parsed.config_name, _given(parsed, _firsts(parsed.overrides, every)))
            raise translate(error, every, chosen) from error
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def call_hydra(argv: Sequence[str], job: Callable[[DictConfig], None]) -> None:
    """Hydra's main on `argv`: calls `job` for each cell, or prints. Errors are raised, not printed."""
    decorated = hydra_main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name=CONFIG_NAME)(job)
    with _process_state(_flags_first(argv)):
        decorated()


@contextmanager
def _process_state(argv: Sequence[str]) -> Iterator[None]:
    """Hydra reads sys.argv and nothing else, and prints errors unless HYDRA_FULL_ERROR is set; both are put back."""
    kept, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [kept[0], *argv]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = kept
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full
