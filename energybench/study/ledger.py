"""The ledger of a sweep's folder: which cell is in which of its folders, so that the sweep can go on after any end."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from energybench.errors import ConfigError, DataError
from energybench.run import reserve
from energybench.run.result import RESULT_FILE
from energybench.whole import remove_partial, whole

SWEEP_FILE = "sweep.json"
LOCK_FILE = "sweep.lock"
ATTEMPTS = "attempts"
SUPERSEDED_FILE = "superseded.json"
"""A result.json that a later attempt at the same cell has taken the place of: readers of results do not meet it."""


@dataclass(frozen=True)
class Sweep:
    """What the cells of a sweep share; written into the sweep's folder before the first of them starts.

    Attributes:
        sweep_id: unique for ever.
        name: readable.
        tracking_run_id: the tracker's parent run; None where there is none.
        cells: the overrides of every cell, each at the number of its folder; empty where the sweeper chooses them.
        keys: what identifies each of `cells` wherever it is asked for again.
        queue: the numbers of the cells that are to run now, in their order.
        going_on: those of them that go on from a checkpoint in their folder.
        awaited: those of them that a cluster may have, or have brought to their end since.
    """

    sweep_id: str
    name: str
    tracking_run_id: str | None
    cells: tuple[tuple[str, ...], ...] = ()
    keys: tuple[str, ...] = ()
    queue: tuple[int, ...] = field(default=())
    going_on: tuple[int, ...] = ()
    awaited: tuple[int, ...] = ()

    def key(self, number: int) -> str:
        """What identifies the cell of a number; its number where the sweeper chooses the cells."""
        return self.keys[number] if number < len(self.keys) else str(number)

    def write(self, directory: Path) -> None:
        """Into `directory`, whole or not at all."""
        directory.mkdir(parents=True, exist_ok=True)
        with whole(directory / SWEEP_FILE) as file:
            file.write(f"{json.dumps(asdict(self), indent=2)}\n".encode())
        folder = os.open(directory, os.O_RDONLY)
        os.fsync(folder)  # without it a power cut may take the new name back, and with it the cells' numbers
        os.close(folder)

    @classmethod
    def read(cls, directory: Path) -> Sweep:
        """From `directory`; raises DataError where there is none to be read."""
        path = directory / SWEEP_FILE
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            sweep = cls(**{f.name: data[f.name] for f in fields(cls) if f.name in data})
            return replace(
                sweep,
                cells=tuple(tuple(cell) for cell in sweep.cells),
                keys=tuple(sweep.keys),
                queue=tuple(sweep.queue),
                going_on=tuple(sweep.going_on),
                awaited=tuple(sweep.awaited),
            )
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path}: no sweep can be read from it: {error}; choose another folder") from error

    def numbered(self, cells: Sequence[tuple[str, ...]], keys: Sequence[str]) -> tuple[Sweep, list[int]]:
        """The sweep with `cells` in it, and the number of each: its old one where it was in it before.

        Args:
            cells: overrides of every cell of a command.
            keys: what identifies each; of equal ones the first has the lowest number.
        """
        waiting: dict[str, list[int]] = {}
        for number, key in enumerate(self.keys):
            waiting.setdefault(key, []).append(number)
        all_cells, all_keys, numbers = list(self.cells), list(self.keys), []
        for overrides, key in zip(cells, keys, strict=True):
            if waiting.get(key):
                number = waiting[key].pop(0)
                all_cells[number] = overrides
            else:
                number = len(all_cells)
                all_cells.append(overrides)
                all_keys.append(key)
            numbers.append(number)
        return replace(self, cells=tuple(all_cells), keys=tuple(all_keys)), numbers


def told(overrides: Sequence[str], cells: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The overrides that tell one cell from the others; all of them where there are no others."""
    same = set.intersection(*map(set, cells)) if len(cells) > 1 else set()
    return tuple(text for text in overrides if text not in same)


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Has a sweep's folder to itself; the kernel lets it go however the process ends.

    Raises:
        ConfigError: another process is running the same sweep.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"{directory}: another process is running this sweep; let it end, or choose another folder with "
                "hydra.sweep.dir=..."
            ) from error
        yield
    finally:
        os.close(file)


def is_held(directory: Path) -> bool:
    """Whether a process is running the sweep in this folder now; leaves nothing there."""
    if not (directory / LOCK_FILE).exists():
        return False
    try:
        with held(directory):
            return False
    except ConfigError:
        return True


def set_aside(directory: Path, number: int) -> None:
    """Moves what an earlier attempt left in a cell's folder to attempts/, where nothing takes it for a result."""
    folder = directory / str(number)
    if not folder.exists():
        return
    reserve.free(folder)  # of a supervisor that was killed
    remove_partial(folder)
    result = folder / RESULT_FILE
    if result.exists():
        result.rename(folder / SUPERSEDED_FILE)
    attempts = directory / ATTEMPTS
    attempts.mkdir(exist_ok=True)
    earlier = [path.name for path in attempts.glob(f"{number}.*")]
    folder.rename(attempts / f"{number}.{1 + max((int(name.partition('.')[2]) for name in earlier), default=0)}")
