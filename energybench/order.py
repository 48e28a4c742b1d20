"""The order in which the cells of a sweep run.

Drift of a machine (its temperature, its neighbours) falls on cells in the order in which they run. Shuffled, it falls
on all of them alike.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeVar, overload

from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins

SWEEPER = "hydra_plugins.energybench_sweeper.OrderedSweeper"
"""Our sweeper, as Hydra's configuration names it."""


SEARCHER = "hydra_plugins.energybench_sweeper.search.OptunaSweeper"
"""The one that searches."""

T = TypeVar("T")


@overload
def ordered(overrides: list[Override], shuffle: int | None) -> list[list[str]]: ...
@overload
def ordered(overrides: list[Override], shuffle: int | None, spread: Callable[[list[str]], list[T]]) -> list[T]: ...


def ordered(
    overrides: list[Override], shuffle: int | None, spread: Callable[[list[str]], list[Any]] | None = None
) -> list[Any]:
    """Every cell of a sweep as its overrides, in the order in which they run.

    Args:
        overrides: the parsed command line.
        shuffle: seed of the order; None: as written, the last override varying fastest.
        spread: makes several cells of one, before they are shuffled.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    [cells] = BasicSweeper.split_arguments(overrides, None)
    made = cells if spread is None else [one for cell in cells for one in spread(cell)]
    if shuffle is not None:
        random.Random(shuffle).shuffle(made)
    return made


def install_plugins() -> None:
    """Makes our sweepers and launchers known to Hydra, which finds none in an editable installation by itself.

    Hydra executes the modules of its own plugins anew when it looks for plugins first: a class derived from one before
    that would have another base than Hydra's.
    """
    plugins = Plugins.instance()
    from hydra_plugins.energybench_launcher import RayLauncher, SlurmLauncher
    from hydra_plugins.energybench_sweeper import OrderedSweeper
    from hydra_plugins.energybench_sweeper.search import OptunaSweeper

    for plugin in (OrderedSweeper, OptunaSweeper, SlurmLauncher, RayLauncher):
        plugins.register(plugin)
