"""The grid of a sweep: what is written, and the devices of this machine where it is to run over those."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import Override, RangeSweep

from energybench.devices import Device
from energybench.errors import ConfigError
from energybench.order import ordered

AXES = ("gpu", "gpu.count")
MOST_CELLS = 100_000


@dataclass(frozen=True)
class GridCell:
    """One cell as written.

    Attributes:
        overrides: of the cell.
        implied: whether the grid over this machine's devices brought it, and not the user by name: one that cannot run
            is then left out.
    """

    overrides: list[str]
    implied: bool = False


def grid(overrides: list[Override], shuffle: int | None, gpus: Callable[[], Sequence[Device]] | None) -> list[GridCell]:
    """Every cell of a sweep, in the order in which they run.

    Args:
        overrides: the parsed command line, behind the sweeper's own parameters.
        shuffle: seed of the order; None: as written, the last override varying fastest and the devices faster still.
        gpus: tells this machine's GPUs, where the grid is to run over them; None: the overrides name the devices.

    Raises:
        ConfigError: more cells than anyone runs.
    """
    if math.prod(map(_values, overrides)) > MOST_CELLS:
        raise ConfigError(f"a sweep of more than {MOST_CELLS:,} cells; give fewer values")
    written = {override.key_or_group for override in overrides}
    if gpus is None or written >= set(AXES):
        return [GridCell(cell) for cell in ordered(overrides, shuffle)]
    cards = Counter(device.generation for device in gpus())
    return ordered(overrides, shuffle, lambda cell: list(_over_devices(cell, cards)))


def _values(override: Override) -> int:
    """How many values an override gives, without making them: range(0,1000000000) is written quickly."""
    if not override.is_sweep_override():
        return 1
    given = override.value()
    if not isinstance(given, RangeSweep):
        return sum(1 for _ in override.sweep_iterator())
    assert given.start is not None and given.stop is not None
    count = (given.stop - given.start) / given.step if given.step else 0.0
    return max(math.ceil(min(count, MOST_CELLS + 1)), 0) if not math.isnan(count) else 0


def _over_devices(cell: list[str], cards: Counter[str]) -> Iterator[GridCell]:
    """The cell on every choice of devices that its own overrides leave open."""
    given = dict(text.partition("=")[::2] for text in cell)
    name, count = (given.get(axis) for axis in AXES)
    if not cards or (name is not None and name not in cards):
        yield GridCell(cell)  # the CPU, which is one device; or what this machine has not, which is then refused
    elif name is not None:
        yield from (GridCell([*cell, f"gpu.count={n}"], True) for n in range(1, cards[name] + 1))
    elif count is None:
        for generation, here in cards.items():
            yield from (GridCell([*cell, f"gpu={generation}", f"gpu.count={n}"], True) for n in range(1, here + 1))
    else:
        enough = [generation for generation, here in cards.items() if not count.isdigit() or int(count) <= here]
        most = max(cards, key=lambda generation: cards[generation])
        yield from (GridCell([*cell, f"gpu={generation}"], bool(enough)) for generation in enough or [most])
