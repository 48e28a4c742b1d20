"""A connection between the supervisors of two nodes: JSON lines over TCP, and a word now and then in each direction.

Neither side is authenticated or encrypted, as with torchrun: the network between the nodes is trusted. What comes is
data and never executed.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

LONGEST = 1 << 28
"""Bytes of a message: the result of a run of very many epochs is some megabytes."""

LONGEST_GREETING = 1 << 20
"""Bytes of the first message, which may be a stranger's."""


class StrangerError(Exception):
    """What is at the other end speaks another language."""


class Link:
    """One end of a connection.

    Args:
        connection: a connected socket, which is the link's from now on.
        lost_after_s: seconds without a word from the other side, or without room for one to it, after which it is lost.
    """

    def __init__(self, connection: socket.socket, lost_after_s: float) -> None:
        connection.settimeout(lost_after_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._lost_after_s = lost_after_s
        self._file = connection.makefile("rb")
        self._sending = threading.Lock()
        self._closed = False

    @property
    def address(self) -> str:
        """Of our end."""
        return str(self._connection.getsockname()[0]).removeprefix("::ffff:")

    def send(self, kind: str, **values: Any) -> None:
        """Sends one message; that the other side has gone, the reading thread tells."""
        line = json.dumps({"kind": kind, **values}).encode() + b"\n"
        with suppress(OSError), self._sending:
            self._connection.sendall(line)

    def receive(self, longest: int = LONGEST) -> dict[str, Any]:
        """The next message.

        Raises:
            EOFError: the other side has closed, or there is no connection any more.
            TimeoutError: no word came for so long.
            StrangerError: what came is no message of ours.
        """
        try:
            line = self._file.readline(longest)
        except TimeoutError:
            raise TimeoutError(f"no word from it for {self._lost_after_s:g} s") from None
        except ConnectionResetError:  # it ended before it had read all that we said
            line = b""
        except (OSError, ValueError) as error:
            raise EOFError(getattr(error, "strerror", None) or "its connection ended") from None
        if not line:
            raise EOFError("its connection ended")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            raise StrangerError(f"it says {line[:40]!r}") from None
        if not (isinstance(message, dict) and isinstance(message.get("kind"), str)):
            raise StrangerError(f"it says {line[:40]!r}")
        return message

    def follow(self, heard: Callable[[Mapping[str, Any], int], None], ended: Callable[[str], None]) -> None:
        """Begins to read in a thread of its own.

        Args:
            heard: called with each message and when it came, CLOCK_MONOTONIC.
            ended: called once, with why, when no more will come; not where we have closed.
        """

        def run() -> None:
            try:
                while True:
                    message = self.receive()
                    heard(message, time.monotonic_ns())
            except (EOFError, TimeoutError, StrangerError) as error:
                why = str(error)
            except (KeyError, TypeError, ValueError) as error:
                why = f"it sent what means nothing ({type(error).__name__}: {error})"
            self._file.close()
            if not self._closed:
                ended(why)

        threading.Thread(target=run, name="energybench-link", daemon=True).start()

    def close(self) -> None:
        """Ends the connection; a second call does nothing."""
        self._closed = True
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
