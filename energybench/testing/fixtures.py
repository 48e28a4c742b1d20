"""The pytest fixture `fake_nvml`. A test file gets it by `from energybench.testing.fixtures import fake_nvml`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest

from energybench.testing.driver import running
from energybench.testing.server import RunningServer, Server


class Start(Protocol):
    """Starts a fake server."""

    def __call__(self, server: Server, age_s: float = 10.0) -> RunningServer:
        """See `energybench.testing.running`."""


@pytest.fixture
def fake_nvml() -> Iterator[Start]:
    """A function that starts a server for the rest of the test, in this process and those that it starts."""
    with ExitStack() as stack:

        def start(server: Server, age_s: float = 10.0) -> RunningServer:
            return stack.enter_context(running(server, age_s))

        yield start
