"""The thread that keeps an instrument's stream flowing: connects, cuts it into lines, connects again."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Protocol

from energybench.errors import MeterError, reason
from energybench_plugins.meters.instrument_link import Link

FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0
LONGEST_LINE = 65536
JOIN_S = 10.0


class Listener(Protocol):
    """Who is told what came. All calls are made by the reader's thread."""

    def connected(self) -> None:
        """A connection begins; what came before has no more to do with it."""

    def lines(self, lines: list[str], arrival_ns: int) -> bool:
        """Whole lines that came together; whether any of them was of use."""

    def broken(self, words: str, *, final: bool) -> None:
        """The link broke, for good if `final`."""


class Reader:
    """Reads a link in a thread of its own until it is stopped.

    Args:
        link: the link.
        listener: who is told.
        greeting: sent whenever a connection begins.
        reconnects: how often in a row a broken link is tried again.
    """

    def __init__(self, link: Link, listener: Listener, greeting: bytes, reconnects: int) -> None:
        self._link = link
        self._listener = listener
        self._greeting = greeting
        self._left = self._reconnects = reconnects
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="energybench-instrument", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and closes the link; a second call does nothing."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self._stop.is_set():
            try:
                self._follow()
            except MeterError as error:
                return self._listener.broken(str(error), final=True)
            except OSError as error:
                self._left -= 1
                self._listener.broken(reason(error), final=self._left < 0)
                if self._left < 0:
                    return None
                wait_s = FIRST_WAIT_S if self._left == self._reconnects - 1 else min(2 * wait_s, LONGEST_WAIT_S)
                self._stop.wait(wait_s)
            finally:
                with suppress(OSError):
                    self._link.close()
        return None

    def _follow(self) -> None:
        """One connection, until it breaks or the reader is stopped."""
        self._link.open()
        self._listener.connected()
        if self._greeting:
            self._link.send(self._greeting)
        rest = b""
        while not self._stop.is_set():
            data = self._link.receive()
            arrival_ns = time.monotonic_ns()
            *whole, rest = (rest + data).split(b"\n")
            rest = rest[-LONGEST_LINE:]
            if whole and self._listener.lines([line.decode("utf-8", "replace") for line in whole], arrival_ns):
                self._left = self._reconnects
