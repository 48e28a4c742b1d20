"""Follows the conditions of the cards in a thread of its own, apart from the sampler's."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from energybench.power.conditions import Condition, TellsConditions
from energybench.power.meter import Session

log = logging.getLogger(__name__)

PERIOD_S = 1.0
LONG_RUN_S = 3600.0
"""After so long a run is looked at ever more seldom, so that the looks of a day fit in memory."""

SPACING_S = 0.1
"""Shortest time between two looks, however many phases begin and end in it."""

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Observed:
    """A condition, and which of the processes on the card were ours when it was seen.

    Attributes:
        condition: as the driver told it.
        ours: pids of `condition.processes` that belong to this run.
    """

    condition: Condition
    ours: frozenset[int] = frozenset()


class Monitor:
    """Looks at the cards once a second, and at once when asked to, from `start()` to `stop()`.

    Args:
        sessions: opened meters; those that tell no conditions are passed over.
        owns: whether the process of this number belongs to the run.
    """

    def __init__(self, sessions: Sequence[Session], owns: Callable[[int], bool]) -> None:
        self._tellers = [session for session in sessions if isinstance(session, TellsConditions)]
        self._owns = owns
        self._observed: list[Observed] = []
        self._last: dict[str, Condition] = {}
        self._warned = False
        self._wake, self._stop, self._first = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="energybench-monitor", daemon=True)

    def start(self) -> None:
        """Starts the thread, if there is anything to look at, and returns after the first look."""
        if self._tellers:
            self._thread.start()
            self._first.wait(TIMEOUT_S)

    def stop(self) -> None:
        """Looks a last time and ends the thread; a second call does nothing."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is None:
            return
        self._thread.join(TIMEOUT_S)
        if self._thread.is_alive():
            log.warning("the driver did not tell the cards' conditions within %g s", TIMEOUT_S)

    def soon(self) -> None:
        """Asks for a look now, as when a phase begins or ends; returns at once."""
        self._wake.set()

    def observed(self) -> list[Observed]:
        """What was seen so far, in the order of time."""
        return list(self._observed)

    def latest(self) -> dict[str, Condition]:
        """Channel -> its last condition."""
        return dict(self._last)

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._stop.is_set():
            self._wake.clear()
            self._look()
            self._first.set()
            self._stop.wait(SPACING_S)
            self._wake.wait(PERIOD_S * max(1.0, (time.monotonic() - begun) / LONG_RUN_S) - SPACING_S)
        self._look()

    def _look(self) -> None:
        for teller in self._tellers:
            try:
                found = teller.conditions()
            except Exception as error:
                if not self._warned:
                    log.warning("the cards' conditions cannot be told: %s: %s", type(error).__name__, error)
                self._warned = True
                continue
            for condition in found:
                self._keep(condition)

    def _keep(self, condition: Condition) -> None:
        self._last[condition.channel] = condition
        pids = [process.pid for process in condition.processes or ()]
        self._observed.append(Observed(condition, frozenset(pid for pid in pids if self._owns(pid))))
