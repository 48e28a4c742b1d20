"""The tracking server of a group, as it stands in mlflow/, for the tests of this folder."""

from __future__ import annotations

import pytest
import tracking_server


@pytest.fixture(scope="session")
def database():
    """A PostgreSQL of its own: the environment by which libpq finds it."""
    if reason := tracking_server.missing():
        pytest.skip(reason)
    with tracking_server.database() as environment:
        yield environment


@pytest.fixture(scope="module")
def server(database, tmp_path_factory):
    """Not started: its start takes longer than a test, and the first one wants it away."""
    one = tracking_server.Server(database, tmp_path_factory.mktemp("server"))
    yield one
    one.stop()
