"""What is asked of a scheduler, whichever it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from energybench.cluster.ticket import Ticket

QUEUED, RUNNING, ENDED = "queued", "running", "ended"


@dataclass(frozen=True)
class Standing:
    """How a cell stands with its scheduler.

    Attributes:
        state: queued | running | ended.
        job: what the scheduler calls it.
        words: the scheduler's own on it: 'TIMEOUT on node3'.
    """

    state: str
    job: str
    words: str = ""


class Scheduler(Protocol):
    """Takes cells of one sweep, runs each on a node, and knows of them by what it was given, whoever asks.

    Attributes:
        title: what it is called.
    """

    title: str

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """Takes cells, all of them or none; raises ClusterError in one line."""

    def standing(self, numbers: Iterable[int]) -> Mapping[int, Standing]:
        """How cells stand; those that it knows nothing of, or no longer, are left out. Raises ClusterError."""

    def cancel(self, numbers: Iterable[int]) -> None:
        """Ends cells, running ones with time to keep what they have. Raises ClusterError."""
