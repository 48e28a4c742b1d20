"""What every node of several does: one connection or more, what came over them, and who is gone."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

import psutil

from energybench.run.engine import Spanning
from energybench.run.nodes.alone import Alone, NodesError
from energybench.run.nodes.facts import facts
from energybench.run.nodes.link import Link
from energybench.run.preflight import Plan
from energybench.run.result import Failure

T = TypeVar("T")

TICK_S = 0.5

VERDICT_S = 60.0
"""Longest wait for why a run ended, and for what a node found: each has its workers to end, and much to work out. Where
the first node itself may be waiting so long for another, twice that."""


class Several(Alone):
    """What the first node and the others have in common.

    Args:
        plan: of the run.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._options = plan.experiment.nodes
        self._changed = threading.Condition()
        self._links: dict[int, Link] = {}
        self._hosts: dict[int, str] = {}
        self._said: dict[tuple[int, str], Mapping[str, Any]] = {}
        self._gone: dict[int, str] = {}
        self._news: Failure | None = None
        self._closed = threading.Event()
        self._facts = facts(plan)
        self.prefix = f"node{self._options.number}."

    def ranks(self, workers: int) -> tuple[int, int]:
        """Every node has as many."""
        return self._options.number * workers, self._options.count * workers

    def environment(self) -> Mapping[str, str]:
        """As the engine wants it for the network interface by which this node reaches the others."""
        assert isinstance(self._plan.engine, Spanning)
        address = next(iter(self._links.values())).address
        return self._plan.engine.spanning(interface_of(address))

    def news(self) -> Failure | None:
        """Remembered, so that it is not taken for what happened here."""
        if (found := self._heard()) is not None:
            self._news = found
        return found

    def _heard(self) -> Failure | None:
        raise NotImplementedError

    def close(self) -> None:
        """Without a word: the others have what they need, or are gone."""
        self._closed.set()
        for link in self._links.values():
            link.close()

    def _name(self, rank: int) -> str:
        host = self._hosts.get(rank)
        return f"node {rank} ({host})" if host else f"node {rank}"

    def _hears(self, rank: int) -> None:
        def heard(message: Mapping[str, Any], time_ns: int) -> None:
            if not self._quickly(rank, message, time_ns):
                with self._changed:
                    self._said[rank, message["kind"]] = message
                    self._changed.notify_all()

        def ended(why: str) -> None:
            with self._changed:
                self._gone[rank] = why
                self._changed.notify_all()

        self._links[rank].follow(heard, ended)

    def _quickly(self, rank: int, message: Mapping[str, Any], time_ns: int) -> bool:
        """Deals with what the reading thread itself deals with; False where it is for others."""
        raise NotImplementedError

    def _lost(self, rank: int) -> Failure:
        return Failure("lost", f"{self._name(rank)} was lost: {self._gone[rank]}; look there for why")

    def _until(
        self, done: Callable[[], T | None], timeout_s: float, show: Callable[[], None] | None = None
    ) -> T | None:
        """What `done` gives when it gives something; None when it did not within `timeout_s`.

        Raises:
            NodesError: with `show` only: there is news.
        """
        end = time.monotonic() + timeout_s
        while True:
            if show is not None:
                show()
                self._raise_news()
            with self._changed:
                if (found := done()) is not None:
                    return found
                if (left_s := end - time.monotonic()) <= 0:
                    return None
                self._changed.wait(min(left_s, TICK_S))

    def _raise_news(self) -> None:
        if (found := self.news()) is not None:
            raise NodesError(found.kind, found.message)

    def _raise(self, kind: str, message: str) -> NoReturn:
        raise NodesError(kind, message)


def may_follow(failure: Failure) -> bool:
    """Whether a worker may have failed so because one elsewhere was gone: by an error of its framework, or abort()."""
    return failure.kind == "crashed" or "SIGABRT" in failure.message


def interface_of(address: str) -> str:
    """The network interface that has an address; "lo" where none has."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address.partition("%")[0] == address for one in addresses):
            return name
    return "lo"


def words_of(error: OSError) -> str:
    """As the system has them, without what Python adds."""
    return (
        os.strerror(error.errno)
        if error.errno and error.errno > 0 and not isinstance(error, socket.gaierror)
        else str(error)
    )
