"""What a supervisor sees of a run: its phases, readings, conditions and end."""

from __future__ import annotations

from dataclasses import dataclass, field

from energybench.power.monitor import Observed
from energybench.power.series import Columns, Key
from energybench.run.result import Failure


@dataclass
class Span:
    """A phase as told by one worker or by the supervisor itself.

    Attributes:
        name, epoch, values, rank: as in its events.
        start_ns: when it began.
        end_ns: when it ended; None while it runs.
        told_ns: time of the last event about it.
    """

    name: str
    epoch: int | None
    start_ns: int
    end_ns: int | None = None
    values: dict[str, float] = field(default_factory=dict)
    rank: int = 0
    told_ns: int = 0


@dataclass
class Observation:
    """All that was seen of a run: what a Result is made of.

    `flags` are those of energybench.power.flags that the supervisor itself found. `workers_ns` is when the first worker
    was started, None where none was. `edge_doubt_s` is how far the edges of its phases may be off where workers on
    other machines made them, by clocks of their own.
    `training_flops` are of one sample, counted by the engine; None where the description tells, or nobody can.
    """

    spans: list[Span] = field(default_factory=list)
    readings: dict[Key, Columns] = field(default_factory=dict)
    observed: list[Observed] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)
    workers_ns: int | None = None
    environment: dict[str, str] = field(default_factory=dict)
    memory_bytes: float | None = None
    training_flops: int | None = None
    failure: Failure | None = None
    end_ns: int = 0
    edge_doubt_s: float = 0.0
