"""Earlier attempts at a run that goes on from its own checkpoint: what they took is part of what the run took.

While a run that saves checkpoints goes on, what was measured up to the last of them is kept as attempt.json: should its
supervisor be killed, that much is known. When the run goes on, the files of the earlier attempt move to `attempt-1`,
`attempt-2`, ... beside its checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from energybench.errors import DataError
from energybench.experiment import AUTO, Checkpoint
from energybench.run.checkpoint import CHECKPOINT_FILE
from energybench.run.result import (
    EVENTS_FILE,
    OUTPUT_FILES,
    RESULT_FILE,
    Attempt,
    ChannelEnergy,
    Failure,
    Phase,
    Result,
)

SNAPSHOT_FILE = "attempt.json"
CUT = Failure("killed", "the supervisor was killed; measured until its last checkpoint")
UNKNOWN = Failure("killed", "nothing is known of it but its checkpoint")
NOT_KNOWN = Attempt("", UNKNOWN, "", "", (), ())
PLACES = "attempt-*"


def goes_on(directory: Path, options: Checkpoint) -> bool:
    """Whether a run in this folder goes on from a checkpoint of its own."""
    return options.resume == AUTO and (directory / CHECKPOINT_FILE).exists()


def earlier(directory: Path) -> tuple[Attempt, ...]:
    """The attempts that a run which goes on follows, oldest first; their files are moved out of its way."""
    before = last(directory)
    if before is not None:
        found = _until(before)
    else:
        found = _put_away_before(directory)
        if not found or (directory / EVENTS_FILE).exists():  # it had begun
            found = (*found, NOT_KNOWN)
    _put_away(directory)
    return found


def _until(result: Result) -> tuple[Attempt, ...]:
    return (*result.attempts, _attempt(result))


def _put_away_before(directory: Path) -> tuple[Attempt, ...]:
    """Those whose files are out of the way: of a run that ended before it had anything to say of them."""
    untold = 0
    for place in sorted(directory.glob(PLACES), key=_number, reverse=True):
        with suppress(DataError):
            return (*_until(Result.read(place / SNAPSHOT_FILE)), *[NOT_KNOWN] * untold)
        untold += 1
    return (NOT_KNOWN,) * untold


def _number(place: Path) -> int:
    number = place.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def last(directory: Path) -> Result | None:
    """What is known of the last attempt in this folder; None: nothing."""
    for name in (RESULT_FILE, SNAPSHOT_FILE):
        try:
            return Result.read(directory / name)
        except DataError:
            continue
    return None


def _attempt(result: Result) -> Attempt:
    failure = result.failure or Failure("finished", "its budget was spent")
    return Attempt(result.run_id, failure, result.started_at, result.ended_at, result.scope, result.phases)


def _put_away(directory: Path) -> None:
    """What tells of the attempt goes last: until then whoever goes on finds it where it was."""
    if not any(path for pattern in (RESULT_FILE, SNAPSHOT_FILE, *OUTPUT_FILES) for path in directory.glob(pattern)):
        return
    place = directory / f"attempt-{1 + max(map(_number, directory.glob(PLACES)), default=0)}"
    place.mkdir()
    for pattern in (*OUTPUT_FILES, SNAPSHOT_FILE):
        for path in directory.glob(pattern):
            path.rename(place / path.name)
    if (directory / RESULT_FILE).exists():  # under a name that no reader of results takes for one
        (directory / RESULT_FILE).rename(place / SNAPSHOT_FILE)


def joined(attempts: Sequence[Attempt], phases: Sequence[Phase], scope: Sequence[str]) -> list[Phase]:
    """The phases of all attempts, the channels that energy_j adds up named as in the last.

    It may have trained on another card of the same kind; which channel stands for which is told by their order.
    """
    before = [_renamed(phase, dict(zip(one.scope, scope, strict=False))) for one in attempts for phase in one.phases]
    return [*before, *phases]


def _renamed(phase: Phase, names: dict[str, str]) -> Phase:
    channels: dict[str, ChannelEnergy] = {names.get(name, name): energy for name, energy in phase.channels.items()}
    return replace(phase, channels=channels)


def cut(attempts: Sequence[Attempt]) -> bool:
    """Whether one of them was killed with its supervisor, so that what it took at its end is not known."""
    return any(one.failure in (CUT, UNKNOWN) for one in attempts)
