"""A limit on the processor time of what should take milliseconds."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from energybench.errors import ConfigError


@contextmanager
def within(seconds: float, words: str) -> Iterator[None]:
    """Ends what takes more processor time with a ConfigError; in the main thread alone, where signals arrive.

    A configuration of few lines may ask for an amount of work that is exponential in them: interpolations of
    interpolations.

    Args:
        seconds: of processor time, so that a busy machine ends nothing.
        words: what took so long, and what to do.
    """

    def strike(number: int, frame: FrameType | None) -> None:
        raise ConfigError(f"{words} took more than {seconds:g} s")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, strike)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, 1.0)  # again, should the first be caught on its way
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
