"""A node that is not the first."""

from __future__ import annotations

import platform
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from energybench.run.nodes.alone import INTERRUPTED, Show
from energybench.run.nodes.facts import digest_of
from energybench.run.nodes.link import LONGEST_GREETING, Link, StrangerError
from energybench.run.nodes.several import TICK_S, VERDICT_S, Several, may_follow, words_of
from energybench.run.observation import Observation, Span
from energybench.run.result import Failure, Result


class Other(Several):
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
            return words_of(error)
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
        self._send_failed(Failure(INTERRUPTED, "stopped; what was measured until then is kept"))

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
            return join(own, {})
        self._links[0].send("result", result=own.to_json())
        whole = self._until(lambda: self._said.get((0, "whole")) or ({} if 0 in self._gone else None), 2 * VERDICT_S)
        self._links[0].send("bye")
        return Result.from_json(str(whole["result"])) if whole else join(own, {})

    def lost(self) -> list[int]:
        """All others: only the first node has what they found."""
        return [rank for rank in range(self._options.count) if rank != self._options.number]

    def told(self) -> list[dict[str, Any]]:
        """Nothing but what this node is."""
        return [{"rank": self._options.number, "host": platform.node()}]
