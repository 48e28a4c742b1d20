"""One long-lived nvidia-smi whose lines a thread collects; started anew when it dies, and gone when its reader is.

Nobody needs to end the tool: it flushes each round into the pipe; without a reader the next flush ends it (SIGPIPE).
"""

from __future__ import annotations

import os
import select
import subprocess
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from energybench.errors import MeterError
from energybench.power.meter import Sample
from energybench_plugins.meters.nvidia_smi_clock import Clock
from energybench_plugins.meters.nvidia_smi_tool import (
    COMMAND,
    POWER_FIELDS,
    ended,
    environment,
    failure_in,
    not_started,
    query,
    watts,
)

RESTARTS = 5
"""How often in a row a stream that dies is started anew; one that has lasted for a minute begins to count again."""

FIRST_WAIT_S, LONGEST_WAIT_S, LASTED_S = 0.5, 30.0, 60.0
SILENCE_S = 10.0
"""A stream that prints nothing for so long, and ten of its rounds, hangs."""

CARRIED = 65536
LIMIT = 100_000
"""Most samples of a source that wait to be read; then the oldest give way."""

_streams: weakref.WeakSet[Stream] = weakref.WeakSet()


class Stream:
    """Samples of the cards, as nvidia-smi tells them.

    Args:
        uuids: the cards.
        sources: those of `POWER_FIELDS` that some of the cards have.
        period_s: time between two rounds, seconds; in whole milliseconds, at least one.
        timeout_s: longest wait for an answer, seconds.

    Raises:
        MeterError: no first line of each card came within `timeout_s`.
    """

    def __init__(self, uuids: Sequence[str], sources: Sequence[str], period_s: float, timeout_s: float) -> None:
        self._uuids = list(uuids)
        self._sources = list(sources)
        self._period_s = period_s
        self._timeout_s = timeout_s
        self._waiting: dict[tuple[str, str], deque[Sample | str]] = {
            (uuid, source): deque(maxlen=LIMIT) for uuid in uuids for source in sources
        }
        self._newest_ns = dict.fromkeys(uuids, 0)
        self._clock = Clock()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._failure: str | None = None
        self._reason = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._start(self._uuids)
        _streams.add(self)
        self._thread = threading.Thread(target=self._run, name="energybench-nvidia-smi", daemon=True)
        self._thread.start()
        try:
            self._await_first()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int | None:
        """Process id of the tool; None while there is none."""
        process = self._process
        return process.pid if process else None

    def take(self, uuid: str, source: str, since_ns: int, wait_s: float) -> list[Sample]:
        """The samples of a source that nobody has taken, oldest first.

        Args:
            uuid: the card.
            source: name of the source.
            since_ns: waits for a line of this CLOCK_MONOTONIC or later; 0: for any that was not taken.
            wait_s: longest wait, seconds.

        Raises:
            MeterError: what comes next is a failure; or nothing comes, as the stream is down or silent.
        """
        waiting = self._waiting[uuid, source]
        with self._changed:
            self._changed.wait_for(
                lambda: self._failure or (waiting and self._newest_ns[uuid] >= since_ns), timeout=wait_s
            )
            if waiting:
                return _taken(waiting)
            if self._failure:
                raise MeterError(self._failure)
            age_s = (time.monotonic_ns() - self._newest_ns[uuid]) / 1e9
        if age_s > max(1.0, 10 * self._period_s):
            raise MeterError(f"nvidia-smi: no line of {uuid} for {age_s:.1f} s; see `dmesg`")
        return []

    def close(self) -> None:
        """Ends the tool and the thread; a second call does nothing."""
        self._closing.set()
        with self._changed:
            self._failure = "nvidia-smi: the meter is closed"
            self._changed.notify_all()
        process = self._process
        if process:
            process.terminate()
        self._thread.join(self._timeout_s)
        self._end()

    def abandon(self) -> None:
        """In a forked child: lets go of the pipe, which would keep the tool alive when the parent is dead."""
        if self._process and self._process.stdout:
            with suppress(OSError):
                self._process.stdout.close()

    # ---- the tool ----

    def _start(self, uuids: Sequence[str]) -> None:
        fields = ["timestamp", "uuid", *(POWER_FIELDS[source] for source in self._sources)]
        beat = str(max(1, round(self._period_s * 1000)))
        command = [COMMAND, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", "-lms", beat]
        try:
            self._process = subprocess.Popen(
                [*command, "-i", ",".join(uuids)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                env=environment(),
            )
        except OSError as error:
            raise not_started(error) from error
        self._lines = _Lines(self._process, len(uuids))

    def _end(self) -> int:
        """Ends the tool if it has not, and gives its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.stdout:
            process.stdout.close()
        try:
            return process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    # ---- the thread ----

    def _run(self) -> None:
        tries, wait_s = 0, FIRST_WAIT_S
        while not self._closing.is_set():
            began_s = time.monotonic()
            failure = self._follow()
            if self._closing.is_set():
                return
            if time.monotonic() - began_s > LASTED_S:
                tries, wait_s = 0, FIRST_WAIT_S
            tries += 1
            if tries > RESTARTS:
                self._say(failure, f"it was started anew {RESTARTS} times, and no more")
                return
            self._say(failure, f"it is started anew in {wait_s:g} s")
            if self._closing.wait(wait_s):
                return
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            self._restart()

    def _restart(self) -> None:
        """With the cards that answer: one that is lost would end the tool for all."""
        answering = [uuid for uuid in self._uuids if self._answers(uuid)]
        with suppress(MeterError):
            self._start(answering or self._uuids)

    def _answers(self, uuid: str) -> bool:
        try:
            return bool(query(["uuid"], [uuid], self._timeout_s))
        except MeterError:
            return False

    def _follow(self) -> str:
        """Collects lines until the tool has ended; how it did."""
        process = self._process
        if process is None:
            return "nvidia-smi: it could not be started"
        limit_s = max(SILENCE_S, 10 * self._period_s)
        silent = False
        while not self._closing.is_set():
            lines = self._lines.next(limit_s)
            if lines is None:
                break
            silent = not lines
            if silent:
                process.kill()
            for line in lines:
                self._collect(line)
        error = ended(self._end(), " ".join(self._lines.words))
        return f"nvidia-smi: silent for {limit_s:g} s" if silent else str(error)

    def _collect(self, line: str) -> None:
        arrival_ns = time.monotonic_ns()
        row = line.split(", ")
        asked = row[1:2] and (row[1] in self._newest_ns or failure_in(row[1]) is not None)
        if len(row) != 2 + len(self._sources) or not asked:
            self._lines.words.append(line)
            return
        uuid = self._lines.card(row[1])
        if uuid is None:
            return
        time_ns = self._clock.time_ns(uuid, row[0], arrival_ns)
        with self._changed:
            self._failure = None
            self._newest_ns[uuid] = time_ns
            for source, value in zip(self._sources, row[2:], strict=True):
                self._waiting[uuid, source].append(_sample(value, time_ns))
            self._changed.notify_all()

    def _say(self, reason: str, then: str) -> None:
        with self._changed:
            self._reason, self._failure = reason, f"{reason}; {then}"
            self._changed.notify_all()

    def _await_first(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._failure or all(self._newest_ns.values()), timeout=self._timeout_s)
            if self._failure:
                raise MeterError(self._reason)
            if silent := [uuid for uuid, newest_ns in self._newest_ns.items() if not newest_ns]:
                raise MeterError(
                    f"nvidia-smi: no line of {', '.join(silent)} within {self._timeout_s:g} s; see `dmesg`"
                )


class _Lines:
    """What one process prints, line by line, and whose line it is."""

    def __init__(self, process: subprocess.Popen[bytes], cards: int) -> None:
        self._process = process
        self._cards = cards
        self._rest = b""
        self._order: list[str] = []
        self._place = -1
        self.words: deque[str] = deque(maxlen=5)

    def next(self, timeout_s: float) -> list[str] | None:
        """The next whole lines; empty: nothing came for `timeout_s` seconds; None: it has ended."""
        assert self._process.stdout is not None
        poll = select.poll()
        poll.register(self._process.stdout.fileno(), select.POLLIN)
        end_s = time.monotonic() + timeout_s
        while (left_s := end_s - time.monotonic()) > 0:
            if not poll.poll(1000 * left_s):
                break
            data = os.read(self._process.stdout.fileno(), CARRIED)
            if not data:
                return None
            *lines, self._rest = (self._rest + data).split(b"\n")
            if lines:
                return [line.decode(errors="replace") for line in lines if line.strip()] or [""]
        return []

    def card(self, uuid: str) -> str | None:
        """The card of the next line. One that is lost tells no UUID: then by its place in the round, if that is known.

        Every round has the same cards in the same order, so that a first whole round tells the places.
        """
        if failure_in(uuid) is not None:
            known = len(self._order) == self._cards
            self._place = (self._place + 1) % self._cards
            return self._order[self._place] if known else None
        if uuid not in self._order:
            self._order.append(uuid)
        self._place = self._order.index(uuid)
        return uuid


def _sample(value: str, time_ns: int) -> Sample | str:
    try:
        return Sample(watts(value), time_ns)
    except MeterError as error:
        return str(error)


def _taken(waiting: deque[Sample | str]) -> list[Sample]:
    """The samples up to the next failure; that one, and those that follow it, raised, where it comes first."""
    samples: list[Sample] = []
    while waiting and not isinstance(waiting[0], str):
        sample = waiting.popleft()
        assert isinstance(sample, Sample)
        samples.append(sample)
    if samples:
        return samples
    failure = str(waiting[0])
    while waiting and isinstance(waiting[0], str):
        waiting.popleft()
    raise MeterError(failure)


def _abandon_all() -> None:
    for stream in list(_streams):
        stream.abandon()


os.register_at_fork(after_in_child=_abandon_all)
