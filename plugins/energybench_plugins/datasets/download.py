"""Fetching files of data sets into the user's cache: whole and as published, or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
from pathlib import Path
from typing import IO

from energybench.errors import DataError
from energybench.whole import whole

TIMEOUT_S = 30.0
"""Seconds without an answer after which a server counts as gone."""

CHUNK_BYTES = 1024**2


def user_cache() -> Path:
    """The folder for what can be fetched or computed again: $XDG_CACHE_HOME/energybench, else ~/.cache/energybench."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "energybench"


def fetch(url: str, sha256: str, target: Path) -> None:
    """Downloads `url` to `target`, which appears once it is complete and has the checksum.

    Raises:
        DataError: it cannot be had or written, broke off, or is another file; nothing of it is left behind.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole(target, shared=True) as file:
            found = _copy(url, file)
            if found != sha256:
                raise DataError(
                    f"{url}: not the published file: its SHA-256 is {found}, not {sha256}; try again, or elsewhere"
                )
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"{url}: cannot be downloaded to {target}: {error}; try again") from error


def _copy(url: str, file: IO[bytes]) -> str:
    """The SHA-256 of what came."""
    digest = hashlib.sha256()
    size = 0
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        while chunk := answer.read(CHUNK_BYTES):
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        announced = answer.headers.get("Content-Length")
    if announced is not None and size != int(announced):
        raise DataError(f"{url}: the connection broke off after {size:,} of {int(announced):,} bytes; try again")
    return digest.hexdigest()
