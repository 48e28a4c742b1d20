"""Several machines that train as one: one supervisor each, with its own meter, and the first of them in the middle.

The first node waits for the others at the rendezvous, compares what they are about to do, and keeps a connection to
each. Over these they begin and end together, tell each other of failures, and exchange words once a second, by which
one that is gone is missed and by which the clocks are told (`energybench.power.alignment`). At the end each node is
given the phases of all workers by its own clock and works out what its devices took in them; the first adds up.

The training processes themselves meet as the engine has it, at an address which the first node finds for them.
"""

from __future__ import annotations

import os
import platform
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import psutil

from energybench.config import AUTO
from energybench.errors import DataError, EnergybenchError
from energybench.power.alignment import Alignment, Exchange
from energybench.run.checkpoint import CHECKPOINT_FILE
from energybench.run.engine import Spanning
from energybench.run.facts import difference, digest_of, facts
from energybench.run.link import LONGEST_GREETING, Link, StrangerError
from energybench.run.observation import Observation, Span
from energybench.run.preflight import Plan
from energybench.run.result import Failure, Result

T = TypeVar("T")
Show = Callable[[str], None]

TICK_S = 0.5
WORD_S = 1.0
"""Between two words to each node, and two looks at its clock."""

QUICK, QUICK_S = 10, 0.02
"""Looks at a clock where much depends on it, at the start and at the end, and the time between them."""

SETTLE_S = 2.0
"""A worker whose peer is gone fails too: for so long what made the first one fail may still be on its way."""

VERDICT_S = 60.0
"""Longest wait for why a run ended, and for what a node found: each has its workers to end, and much to work out. Where
the first node itself may be waiting so long for another, twice that."""

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


class _Several(Alone):
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


class First(_Several):
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
            why = f"nodes.rendezvous={options.rendezvous}: node 0 cannot listen on port {port}: {_words_of(error)}"
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


class Other(_Several):
    """A node that is not the first.

    Args:
        plan: of the run.
    """

    def join(self, show: Show) -> None:
        """Tries to reach the first node until it is there, and waits for the others with it."""
        options, (host, port) = self._options, self._options.address
        end, where = time.monotonic() + options.join_timeout_s, f"{host}:{port}"
        why = self._tried(host, port)
        while why is not None:
            if time.monotonic() > end:
                limit = f"node 0 does not answer at {where} within {options.join_timeout_s:g} s ({why})"
                self._raise("rendezvous", f"{limit}; is its command running there, and does that port let others in?")
            show(f"node 0 at {where}")
            time.sleep(TICK_S)
            why = self._tried(host, port)
        self._hears(0)
        self._await("go join", lambda: show("the other nodes"))

    def _tried(self, host: str, port: int) -> str | None:
        """Connects and introduces this node; why it did not work, where another try may.

        Raises:
            NodesError: this node is not wanted, or something else is there.
        """
        try:
            connection = socket.create_connection((host, port), timeout=self._options.lost_after_s)
        except OSError as error:
            return _words_of(error)
        link = Link(connection, self._options.lost_after_s)
        link.send("hello", rank=self._options.number, host=platform.node(), facts=self._facts)
        try:
            answer = link.receive(LONGEST_GREETING)
        except (EOFError, TimeoutError) as error:
            link.close()
            return str(error)
        except StrangerError as error:
            link.close()
            self._raise("rendezvous", f"nodes.rendezvous={host}:{port}: what answers there is no energybench: {error}")
        if answer["kind"] == "welcome":
            self._links[0], self._hosts[0] = link, str(answer["host"])
            return None
        link.close()
        if answer["kind"] == "refused":
            self._raise("config", str(answer["why"]))
        return "it answers with our own words"  # a connection to itself, as TCP makes them on an unused port

    def _quickly(self, rank: int, message: Mapping[str, Any], time_ns: int) -> bool:
        if message["kind"] != "word":
            return False
        sent_ns = message["sent_ns"]
        self._links[0].send("word", sent_ns=sent_ns, heard_ns=time_ns, told_ns=time.monotonic_ns())
        return True

    def _await(self, kind: str, show: Callable[[], None]) -> Mapping[str, Any]:
        message = self._until(lambda: self._said.get((0, kind)), float("inf"), show)
        assert message is not None
        return message

    def together(self, name: str, show: Show) -> None:
        """Tells the first node and waits for its word."""
        self._links[0].send(f"at {name}")
        go = self._await(f"go {name}", lambda: show(f"the other nodes, {name}"))
        self.meeting = str(go["meeting"])
        if (told := go["checkpoint"]) is not None:
            self.checkpoint = str(told["path"])
            if digest_of(Path(self.checkpoint)) != told["digest"]:
                self._raise(
                    "config",
                    f"checkpoint.resume=auto: {self.checkpoint} of node 0 is not to be found; put the run's folder "
                    "where all nodes see it, or give checkpoint.resume a file that all have",
                )

    def _heard(self) -> Failure | None:
        with self._changed:
            for kind in ("verdict", "over"):
                message = self._said.get((0, kind))
                if message is not None and message["failure"] is not None:
                    return Failure(str(message["failure"]), str(message["message"]))
            return self._lost(0) if 0 in self._gone and (0, "whole") not in self._said else None

    def interrupted(self) -> None:
        """Asks the first node to end the run."""
        self._send_failed(Failure(INTERRUPTED, "interrupted; what was measured until then is kept"))

    def tell(self, failure: Failure | None) -> None:
        """The first node finds out what it follows from."""
        if failure is not None and self._news is None:
            self._send_failed(failure)

    def _send_failed(self, failure: Failure) -> None:
        if self._links:
            self._links[0].send("failed", failure=failure.kind, message=failure.message)

    def verdict(self, failure: Failure | None) -> Failure | None:
        """Waits for the first node's."""
        if not self._links:
            return failure

        def known() -> Mapping[str, Any] | bool | None:
            return self._said.get((0, "verdict")) or (True if 0 in self._gone else None)

        message = self._until(known, VERDICT_S + self._plan.experiment.checkpoint.grace_s)
        if isinstance(message, Mapping):
            kind = message["failure"]
            return failure if kind is None else Failure(str(kind), str(message["message"]))
        with self._changed:
            self._gone.setdefault(0, "it told no end")
            return self._lost(0) if failure is None or may_follow(failure) else failure

    def shared(self, seen: Observation) -> Observation:
        """Takes the phases as the first node gives them."""
        if not self._links:
            return seen
        self._links[0].send("seen", spans=[asdict(span) for span in seen.spans], end_ns=seen.end_ns)
        edges = self._until(lambda: self._said.get((0, "edges")) or ({} if 0 in self._gone else None), 2 * VERDICT_S)
        if not edges:
            return seen
        spans = [Span(**span) for span in edges["spans"]]
        return replace(seen, spans=spans, end_ns=int(edges["end_ns"]), edge_doubt_s=int(edges["doubt_ns"]) / 1e9)

    def gathered(self, own: Result, join: Callable[[Result, Mapping[int, Result]], Result]) -> Result:
        """The whole as the first node made it; this node's where that is gone."""
        if not self._links:
            return own
        self._links[0].send("result", result=own.to_json())
        whole = self._until(lambda: self._said.get((0, "whole")) or ({} if 0 in self._gone else None), 2 * VERDICT_S)
        self._links[0].send("bye")
        return Result.from_json(str(whole["result"])) if whole else own


def nodes_of(plan: Plan, directory: Path) -> Alone:
    """The nodes of a run, seen from this one.

    Args:
        plan: of the run.
        directory: the run's folder.
    """
    options = plan.experiment.nodes
    if options.count == 1:
        return Alone()
    return Other(plan) if options.number else First(plan, directory)


def may_follow(failure: Failure) -> bool:
    """Whether a worker may have failed so because one elsewhere was gone: by an error of its framework, or abort()."""
    return failure.kind == "crashed" or "SIGABRT" in failure.message


def interface_of(address: str) -> str:
    """The network interface that has an address; "lo" where none has."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address.partition("%")[0] == address for one in addresses):
            return name
    return "lo"


def _words_of(error: OSError) -> str:
    """As the system has them, without what Python adds."""
    return (
        os.strerror(error.errno)
        if error.errno and error.errno > 0 and not isinstance(error, socket.gaierror)
        else str(error)
    )


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
