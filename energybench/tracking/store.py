"""Where runs are recorded: which store, whether MLflow can open it, and how its failures read."""

from __future__ import annotations

import fcntl
import importlib
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from energybench.availability import Availability
from energybench.credentials import URI_VARIABLE, complete, redact, without_password
from energybench.errors import ConfigError, TrackingError

DEFAULT_ARTIFACTS = "./mlruns"
"""MLflow's own, of its experiment "Default", in which nothing of ours is recorded."""

SCHEMES = ("file", "databricks", "databricks-uc", "uc", "http", "https", "postgresql", "mysql", "sqlite", "mssql")
"""Of the stores that MLflow 3 brings."""

REMEDY = "run pip install 'energybench[mlflow]', or set tracking=none"

# Read by MLflow when it is imported. A user's own setting wins. Its log is silenced because every failure is raised
# as one line; its patience with a server that is down (seven retries, minutes) is shortened because a run waits for it
# and `sync` can deliver later.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


class HasUri(Protocol):
    """Options that may name a store: the config group `tracking`, a command line."""

    @property
    def uri(self) -> str | None:
        """The store; None where the user names none."""


def resolve_uri(options: HasUri) -> str:
    """The store to use: the one named, else MLFLOW_TRACKING_URI, else mlflow.db in the current folder.

    The path of a local database is absolute, so that it stays the same from any folder. An address whose credentials
    were struck out, as in the configuration of an earlier run, gets them from MLFLOW_TRACKING_URI.
    """
    uri = complete(options.uri) if options.uri else os.environ.get(URI_VARIABLE)
    return absolute(uri) if uri else f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def named(options: HasUri) -> str:
    """As `resolve_uri`, of a store that a user names.

    Raises:
        ConfigError: it can never work, here or later: MLflow has no store of its kind, or its folder is not there.
    """
    uri = resolve_uri(options)
    scheme = uri.partition("://")[0].partition("+")[0] if "://" in uri else ""
    plugins = {point.name for point in importlib.metadata.entry_points(group="mlflow.tracking_store")}
    if scheme and scheme not in {*SCHEMES, *plugins}:
        raise ConfigError(
            f"tracking store {redact(uri)}: MLflow knows no {scheme}://; give sqlite:///FILE, or the address of a "
            "tracking server (http://HOST) or database (postgresql://HOST/NAME)"
        )
    database = sqlite_path(uri)
    if database is not None and not database.parent.is_dir():
        raise ConfigError(
            f"tracking store {redact(uri)}: there is no folder {database.parent}; make it, or give another"
        )
    return uri


def absolute(uri: str) -> str:
    """`uri`, with the path of an SQLite file made absolute."""
    database = sqlite_path(uri)
    return uri if database is None else f"sqlite:///{database}{uri[uri.find('?') :] if '?' in uri else ''}"


def sqlite_path(uri: str) -> Path | None:
    """The absolute path of an SQLite store's file; None for any other store and for one in memory."""
    scheme, separator, rest = uri.partition(":///")
    name = rest.partition("?")[0]
    if not separator or scheme.partition("+")[0] != "sqlite" or name in ("", ":memory:"):
        return None
    return Path.cwd() / name


def is_server(uri: str) -> bool:
    """Whether `uri` is the address of a tracking server."""
    return uri.startswith(("http://", "https://"))


def artifact_folder(uri: str) -> Path | None:
    """Where the artifacts of a local SQLite store lie: beside the database; None where the store decides itself."""
    database = sqlite_path(uri)
    return None if database is None else database.parent / "mlartifacts"


def artifact_location(uri: str, experiment: str) -> str | None:
    """The artifact location of an experiment that is created in `uri`; None: the store's default."""
    folder = artifact_folder(uri)
    if folder is None:
        return None
    name = quote(experiment, safe=" ")
    return (folder / (name if name.strip(".") else name.replace(".", "%2E"))).as_uri()  # "..": the folder above


def available(uri: str | None = None) -> Availability:
    """Whether runs can be recorded with what is installed; looks at packages, contacts nothing.

    Args:
        uri: the store, which decides what is needed: a server needs no SQL support here. None: a local database.
    """
    # Not `import mlflow`: a folder of that name in the current directory imports as an empty namespace.
    found = importlib.util.find_spec("mlflow")
    if found is None or found.origin is None:
        return Availability(False, "MLflow is not installed", REMEDY)
    missing = [name for name in ("sqlalchemy", "alembic") if importlib.util.find_spec(name) is None]
    if missing and not (uri and is_server(uri)):
        return Availability(False, f"MLflow has no SQL store ({', '.join(missing)} missing: mlflow-skinny?)", REMEDY)
    return Availability(True, f"MLflow {_version()}")


def _version() -> str:
    for distribution in ("mlflow", "mlflow-skinny"):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "of unknown version"


def load(uri: str) -> Any:
    """Imports MLflow, quiet and without telemetry.

    Raises:
        TrackingError: what is installed cannot serve `uri`.
    """
    state = available(uri)
    if not state.ok:
        raise TrackingError(f"tracking: {state}")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with tracking_errors(uri, "import MLflow"):
        mlflow = importlib.import_module("mlflow")
        importlib.import_module("mlflow.entities")
    return mlflow


def create(uri: str) -> None:
    """Makes a local SQLite store that is not there, whole or not at all; call it within `tracking_errors`.

    MLflow makes its tables one by one, which takes seconds. A process that is killed meanwhile would leave a file that
    nobody can open again, so they are made in another one, which whoever comes next takes over.
    """
    path = sqlite_path(uri)
    if path is None or path.exists():
        return
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # another that makes it now is waited for
        if path.exists():
            partial.unlink(missing_ok=True)  # where it was renamed before this one was opened
            return
        file.truncate(0)
        path.with_name(f"{partial.name}-journal").unlink(missing_ok=True)
        sql = importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
        sql.SqlAlchemyStore(f"sqlite:///{partial}", DEFAULT_ARTIFACTS).engine.dispose()
        partial.rename(path)


@contextmanager
def tracking_errors(uri: str, doing: str) -> Iterator[None]:
    """Turns whatever the store raises inside into a `TrackingError` of one line without credentials."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:  # MLflow lets its database's, its HTTP client's and the file system's errors through
        reason = without_password(_reason(error), uri)
        raise TrackingError(f"tracking at {redact(uri)}: cannot {doing}: {reason}") from error


def _reason(error: Exception) -> str:
    """The first line; of a server that cannot be reached, not the whole chain of its HTTP client."""
    text = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if "Max retries exceeded" not in text:
        return text[:500]
    cause = re.search(r"\[Errno -?\d+\] ([\w ]+)|(timed out)", text)
    return f"the server does not answer ({cause[1] or cause[2]})" if cause else "the server does not answer"
