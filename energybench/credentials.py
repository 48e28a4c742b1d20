"""Keeps the credentials in a tracking address out of everything that is written or shown.

A password stays in the address that this process was given, and in MLFLOW_TRACKING_URI for the processes it starts: the
environment of a process is its owner's alone to read. Wherever else the address stands, in the files that Hydra writes
too, it stands as `redact` leaves it; `complete` finds the password again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import unquote

URI_VARIABLE = "MLFLOW_TRACKING_URI"

# user:password@ may hold '/' and '@' unescaped (SQLAlchemy takes them), so it reaches to the last '@' of the word.
_USER_INFO = re.compile(r"(?<=://)(?:[^/:@\s'\"]*:[^\s'\"]*|[^/@\s'\"]+)@")
_SECRET_QUERY = re.compile(r"([?&][\w.-]*(?:password|passwd|pwd|token|secret|key|signature)=)[^&\s'\"]+", re.IGNORECASE)


def redact(text: str) -> str:
    """`text` with the credentials of every address in it replaced: "http://***@host"."""
    return _SECRET_QUERY.sub(r"\1***", _USER_INFO.sub("***@", text))


def without_password(text: str, uri: str) -> str:
    """`text` without credentials, and without the password of `uri` wherever it stands."""
    _, _, password = next(iter(_USER_INFO.findall(uri)), "").rstrip("@").partition(":")
    for secret in {password, unquote(password)} - {""}:
        text = text.replace(secret, "***")
    return redact(text)


def complete(uri: str) -> str:
    """The address that `redact` made `uri` of, if MLFLOW_TRACKING_URI is that; else `uri` itself."""
    known = os.environ.get(URI_VARIABLE, "")
    return known if known and redact(known) == uri else uri


def without_credentials(overrides: Sequence[str], uri: str | None) -> list[str]:
    """Overrides that no longer hold the credentials of the tracking address that they, or a file, compose to."""
    if uri is None or redact(uri) == uri:
        return list(overrides)
    kept = [redact(word) if word.lstrip("+").startswith("tracking") else word for word in overrides]
    return [*kept, f"tracking.uri='{redact(uri)}'"]


@contextmanager
def sealed(arguments: Sequence[str], uri: str | None) -> Iterator[list[str]]:
    """A command line without the credentials of the tracking address, for as long as the environment holds them.

    Args:
        arguments: overrides and flags, as a user gave them.
        uri: the tracking address they were composed to; None: none.
    """
    words = without_credentials(arguments, uri)
    if uri is None or redact(uri) == uri:
        yield words
        return
    known = os.environ.get(URI_VARIABLE)
    os.environ[URI_VARIABLE] = uri
    try:
        yield words
    finally:
        if known is None:
            del os.environ[URI_VARIABLE]
        else:
            os.environ[URI_VARIABLE] = known


@contextmanager
def withheld() -> Iterator[None]:
    """For programs that pass the environment on: MLFLOW_TRACKING_URI is not in it where it holds credentials."""
    known = os.environ.get(URI_VARIABLE)
    if known is None or redact(known) == known:
        yield
        return
    del os.environ[URI_VARIABLE]
    try:
        yield
    finally:
        os.environ[URI_VARIABLE] = known
