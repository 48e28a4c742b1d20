"""Signals that end a run, none of which is lost.

An exception that a signal's handler raises in a destructor, or in the callback of a weak reference, is printed by
Python and forgotten. So it is remembered that one came, and those who run for long look now and then.
"""

from __future__ import annotations

import signal
from types import FrameType

_came = False


def listen() -> None:
    """SIGTERM, and a terminal that goes away, end a run as Ctrl-C does: with what was measured.

    Ctrl-C stays without effect where whoever started this process wants it so, as a shell does of its background jobs.
    """
    global _came
    _came = False
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _came
    _came = True
    raise KeyboardInterrupt


def check() -> None:
    """Raises KeyboardInterrupt once more where a signal came: whoever still goes on then has not seen it."""
    if _came:
        raise KeyboardInterrupt
