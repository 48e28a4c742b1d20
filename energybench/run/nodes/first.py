"""The first node: the others come to it, and it tells and adds up."""

from __future__ import annotations

import platform
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from energybench.errors import DataError
from energybench.experiment import AUTO
from energybench.power.alignment import Alignment, Exchange
from energybench.run.checkpoint import CHECKPOINT_FILE
from energybench.run.nodes.alone import INTERRUPTED, START, Show
from energybench.run.nodes.facts import difference, digest_of
from energybench.run.nodes.link import LONGEST_GREETING, Link, StrangerError
from energybench.run.nodes.several import VERDICT_S, Several, may_follow, words_of
from energybench.run.observation import Observation, Span
from energybench.run.preflight import Plan
from energybench.run.result import Failure, Result

WORD_S = 1.0
"""Between two words to each node, and two looks at its clock."""

QUICK, QUICK_S = 10, 0.02
"""Looks at a clock where much depends on it, at the start and at the end, and the time between them."""

SETTLE_S = 2.0
"""A worker whose peer is gone fails too: for so long what made the first one fail may still be on its way."""


class First(Several):
    """Node 0.

    Args:
        plan: of the run.
        directory: the run's folder.
    """

    def __init__(self, plan: Plan, directory: Path) -> None:
        super().__init__(plan)
        self._hosts[0] = platform.node()
        self._directory = directory.absolute()
        self._failures: list[tuple[int, Failure]] = []
        self._exchanges: dict[int, list[Exchange]] = {}
        self._clocks: dict[int, dict[str, float]] = {}
        self._refused: str | None = None
        self._results: set[int] = set()
        self._others = range(1, self._options.count)

    def join(self, show: Show) -> None:
        """Listens until all have come."""
        options, (host, port) = self._options, self._options.address
        try:
            listener = _listening(port)
        except OSError as error:
            why = f"nodes.rendezvous={options.rendezvous}: node 0 cannot listen on port {port}: {words_of(error)}"
            self._raise("rendezvous", f"{why}; choose another port")
        threading.Thread(target=self._accept, args=(listener,), name="energybench-rendezvous", daemon=True).start()
        threading.Thread(target=self._talk, name="energybench-words", daemon=True).start()
        try:
            where = f"{host}:{port}"
            self._until(self._complete, options.join_timeout_s, lambda: show(f"{self._missing() or 'all'}, at {where}"))
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._changed:
            refused, missing = self._refused, self._missing()
        if refused:
            self._raise("config", refused)
        if missing:
            waited = f"did not come to {where} within {options.join_timeout_s:g} s"
            self._raise("rendezvous", f"{missing} {waited}; is the same command running there, and can it get here?")
        self._look()
        self._tell_all("go join")

    def _complete(self) -> bool | None:
        return True if self._refused or not self._missing() else None

    def _missing(self) -> str:
        missing = [str(rank) for rank in self._others if rank not in self._links]
        return f"node{'s' if len(missing) > 1 else ''} {', '.join(missing)}" if missing else ""

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # closed, when all have come
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=self._greet, args=(connection,), daemon=True).start()

    def _greet(self, connection: socket.socket) -> None:
        """Whoever comes: another node, or a stranger, who is sent away."""
        link = Link(connection, self._options.lost_after_s)
        try:
            hello = link.receive(LONGEST_GREETING)
            rank, host, there = int(hello["rank"]), str(hello["host"]), hello["facts"]
            why = difference(f"node {rank} ({host})", there, self._facts)
        except (EOFError, TimeoutError, StrangerError, KeyError, TypeError, ValueError, AttributeError):
            link.close()
            return
        with self._changed:
            if why is None and (rank in self._links or rank not in self._others):
                mine = self._hosts.get(rank)
                twice = f"node {rank} is there already ({mine}); give each node a nodes.rank of its own"
                link.send("refused", why=f"{twice}, and start one command a node")
                link.close()
                return
            link.send("welcome" if why is None else "refused", why=why, host=self._hosts[0])
            if why is None:
                self._hosts[rank], self._links[rank], self._exchanges[rank] = host, link, []
                self._hears(rank)
            else:
                self._refused = self._refused or why
                link.close()
            self._changed.notify_all()

    def _quickly(self, rank: int, message: Mapping[str, Any], time_ns: int) -> bool:
        if message["kind"] == "failed":
            with self._changed:
                self._failures.append((rank, Failure(str(message["failure"]), str(message["message"]))))
                self._changed.notify_all()
            return True
        if message["kind"] != "word":
            return False
        sent_ns, heard_ns, told_ns = (int(message[key]) for key in ("sent_ns", "heard_ns", "told_ns"))
        self._exchanges[rank].append(Exchange(sent_ns, heard_ns, told_ns, time_ns))
        return True

    def _talk(self) -> None:
        while not self._closed.wait(WORD_S):
            self._words()

    def _words(self) -> None:
        for link in list(self._links.values()):
            link.send("word", sent_ns=time.monotonic_ns())

    def _look(self) -> None:
        """Looks at the clocks of all in a row."""
        for _ in range(QUICK):
            self._words()
            time.sleep(QUICK_S)

    def _living(self) -> list[int]:
        return [rank for rank in self._links if rank not in self._gone]

    def _tell_all(self, kind: str, **values: Any) -> None:
        for rank in self._living():
            self._links[rank].send(kind, **values)

    def _heard(self) -> Failure | None:
        with self._changed:
            return self._cause() if self._failures or self._gone else None

    def _cause(self) -> Failure:
        """Of all that is known, what the rest followed from: crashes and losses follow from other failures."""
        found = [
            *[one for one in self._failures if one[1].kind == INTERRUPTED],
            *[one for one in self._failures if not (one[1].kind == INTERRUPTED or may_follow(one[1]))],
            *[(rank, self._lost(rank)) for rank in self._gone],
            *[one for one in self._failures if may_follow(one[1])],
        ]
        rank, failure = found[0]
        if failure.kind == "lost":
            return failure
        if failure.kind != INTERRUPTED:
            return replace(failure, message=f"{self._name(rank)}: {failure.message}")
        own = next((one for of, one in found if of == 0 and one.kind == INTERRUPTED), failure)
        return replace(own, message=f"{own.message} (on {self._name(rank)})")

    def together(self, name: str, show: Show) -> None:
        """Waits for the others and lets them go on; before the start they are told where workers meet."""
        wanted = f"at {name}"

        def waiting() -> list[str]:
            return [self._name(rank) for rank in self._others if (rank, wanted) not in self._said]

        self._until(lambda: None if waiting() else True, float("inf"), lambda: show(", ".join(waiting())))
        self.meeting = f"{self._rendezvous_host()}:{_free_port()}"
        own = self._directory / CHECKPOINT_FILE
        goes_on = name == START and self._plan.experiment.checkpoint.resume == AUTO and own.exists()
        checkpoint = {"path": str(own), "digest": digest_of(own)} if goes_on else None
        self._tell_all(f"go {name}", meeting=self.meeting, checkpoint=checkpoint)

    def _rendezvous_host(self) -> str:
        host = self._options.address[0]
        return f"[{host}]" if ":" in host else host

    def tell(self, failure: Failure | None) -> None:
        """The others are told that it is over; why, they are told when it is sure."""
        if failure is None:
            return
        with self._changed:
            if self._news is None or failure.kind == INTERRUPTED:
                self._failures.append((0, failure))
            found = self._cause() if self._failures or self._gone else failure
        self._tell_all("over", failure=found.kind, message=found.message)

    def verdict(self, failure: Failure | None) -> Failure | None:
        """Waits a moment where what is known so far may only follow from what is not yet."""
        if failure is None or not self._links:
            self._tell_all("verdict", failure=None)
            return failure
        self._until(lambda: None if may_follow(self._cause()) else True, SETTLE_S)
        with self._changed:
            found = self._cause()
        self._tell_all("verdict", failure=found.kind, message=found.message)
        return found

    def shared(self, seen: Observation) -> Observation:
        """Brings the phases together by this node's clock and gives them to each by its own."""
        told = self._collected("seen")
        self._look()
        clocks = {rank: Alignment(self._exchanges[rank]) for rank in told if self._exchanges[rank]}
        spans, ends = list(seen.spans), [seen.end_ns]
        for rank, clock in clocks.items():
            spans += [_moved(Span(**span), clock.ours) for span in told[rank]["spans"]]
            ends.append(clock.ours(int(told[rank]["end_ns"])))
        end_ns = min(ends)  # beyond it not all have measured
        spans = [_cut(span, end_ns) for span in spans if span.start_ns < end_ns]
        doubts = {rank: _largest_error(clock, spans, end_ns) for rank, clock in clocks.items()}
        for rank, clock in clocks.items():
            moved = [asdict(_moved(span, clock.theirs)) for span in spans]
            doubt_ns = doubts[rank] + max((doubts[other] for other in doubts if other != rank), default=0)
            self._links[rank].send("edges", spans=moved, end_ns=clock.theirs(end_ns), doubt_ns=doubt_ns)
            self._clocks[rank] = {
                "clock_offset_s": clock.offset(end_ns)[0] / 1e9,
                "clock_error_s": doubts[rank] / 1e9,
                "clock_rate": clock.rate,
                "round_trip_s": clock.round_trip_ns / 1e9,
                "exchanges": len(self._exchanges[rank]),
            }
        return replace(seen, spans=spans, end_ns=end_ns, edge_doubt_s=max(doubts.values(), default=0) / 1e9)

    def gathered(self, own: Result, join: Callable[[Result, Mapping[int, Result]], Result]) -> Result:
        """Adds the others' results to this one, and gives each node the whole."""
        told = self._collected("result")
        results: dict[int, Result] = {}
        for rank, message in told.items():
            with suppress(DataError):
                results[rank] = Result.from_json(str(message["result"]))
        self._results = set(results)
        whole = join(own, results)
        self._tell_all("whole", result=whole.to_json())
        self._collected("bye", SETTLE_S)
        return whole

    def _collected(self, kind: str, timeout_s: float = VERDICT_S) -> dict[int, Mapping[str, Any]]:
        """Number -> message of all that are there and send it; who does not is lost."""
        self._until(lambda: None if any((rank, kind) not in self._said for rank in self._living()) else True, timeout_s)
        with self._changed:
            for rank in self._living():
                if (rank, kind) not in self._said:
                    self._gone[rank] = f"it told nothing within {timeout_s:g} s"
            return {rank: self._said[rank, kind] for rank in self._links if (rank, kind) in self._said}

    def lost(self) -> list[int]:
        """Those of which there is no result."""
        return [rank for rank in self._others if rank not in self._results]

    def told(self) -> list[dict[str, Any]]:
        """Host and, of the others, the clock."""
        ranks = [0, *self._links]
        return [{"rank": rank, "host": self._hosts[rank], **self._clocks.get(rank, {})} for rank in sorted(ranks)]


def _moved(span: Span, clock: Callable[[int], int]) -> Span:
    """The span by another clock."""
    end_ns = None if span.end_ns is None else clock(span.end_ns)
    return replace(span, start_ns=clock(span.start_ns), end_ns=end_ns, told_ns=span.told_ns and clock(span.told_ns))


def _cut(span: Span, end_ns: int) -> Span:
    """Of a run that was cut short: what one node did when another had ended is part of no phase of all."""
    return span if span.end_ns is None or span.end_ns <= end_ns else replace(span, end_ns=None)


def _largest_error(clock: Alignment, spans: list[Span], end_ns: int) -> int:
    edges = {edge for span in spans for edge in (span.start_ns, span.end_ns or end_ns)}
    return max((clock.offset(edge)[1] for edge in edges), default=0)


def _listening(port: int) -> socket.socket:
    """On all addresses of this machine: which of them a name stands for, each node may see differently."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _free_port() -> int:
    with closing(_listening(0)) as found:
        return int(found.getsockname()[1])
