"""A run on one machine: what several would do together, it does alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from energybench.errors import EnergybenchError
from energybench.run.observation import Observation
from energybench.run.result import Failure, Result

Show = Callable[[str], None]

INTERRUPTED = "interrupted"

REST, START, END = "rest", "start", "end"
"""Where all nodes wait for each other: before idle is measured, before workers are started, after they have ended."""


class NodesError(EnergybenchError):
    """Something about another node ends the run."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(kind, message)


class Alone:
    """The only node: everything is as it is."""

    prefix = ""
    """Before the names of this node's channels."""

    meeting: str | None = None
    """HOST:PORT where the training processes of all nodes meet."""

    checkpoint: str | None = None
    """The run's own checkpoint to go on from, where it is not in the folder of this node."""

    def ranks(self, workers: int) -> tuple[int, int]:
        """Number of this node's first worker among those of all nodes, and how many these are."""
        return 0, workers

    def environment(self) -> Mapping[str, str]:
        """Variables that workers start with because they are not alone."""
        return {}

    def join(self, show: Show) -> None:
        """Waits until all nodes are there; raises NodesError."""

    def together(self, name: str, show: Show) -> None:
        """Waits until all nodes have come to this point; raises NodesError."""

    def news(self) -> Failure | None:
        """Why the run is to end, as another node tells or by its silence."""

    def interrupted(self) -> None:
        """Says that this node was asked to end; the first worker may yet save a checkpoint."""

    def tell(self, failure: Failure | None) -> None:
        """Why the run ends, at once and before anything else is done about it."""

    def verdict(self, failure: Failure | None) -> Failure | None:
        """Why the run ended, the same on all nodes: what failed first, and where."""
        return failure

    def shared(self, seen: Observation) -> Observation:
        """What was seen here, with the phases of the workers of all nodes by the clock of this one."""
        return seen

    def gathered(self, own: Result, join: Callable[[Result, Mapping[int, Result]], Result]) -> Result:
        """The result of the run, made by `join` of this node's and, by their numbers, of the others'."""
        return join(own, {})

    def lost(self) -> list[int]:
        """Numbers of the nodes whose results are missing."""
        return []

    def told(self) -> list[dict[str, Any]]:
        """What is to be recorded of each node."""
        return []

    def close(self) -> None:
        """Ends the connections; a second call does nothing."""
