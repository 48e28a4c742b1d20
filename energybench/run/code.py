"""Which code a run is of: so that a study that goes on can tell results of the same code from others.

Only what may change a number counts. Comments, docstrings and layout do not, nor does what shows and records results.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import CodeType

import energybench
from energybench.registry import Entry

NOT_IN_A_NUMBER = ("cluster", "study", "testing", "tracking")
"""Folders of energybench whose code sees results and makes none."""


def code_of(entries: Iterable[Entry], framework: str) -> dict[str, str]:
    """What identifies the code of a run: names -> versions and digests.

    Args:
        entries: the registered parts that the run is made of.
        framework: the engine's own words on what is installed.
    """
    core = Path(energybench.__file__).parent
    files = [path for path in core.rglob("*.py") if path.relative_to(core).parts[0] not in NOT_IN_A_NUMBER]
    found = {"energybench": energybench.__version__, "core": _digest(sorted(files)), "framework": framework}
    return found | {f"{entry.kind} {entry.name}": f"{entry.owner} {_digest(_files(entry))}" for entry in entries}


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What differs, a line each: 'core', 'framework torch 2.6 -> torch 2.7', ..."""
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return [_change(key, before.get(key, "?"), now.get(key, "?")) for key in keys]


def _change(key: str, before: str, now: str) -> str:
    """A version is told; a digest would say nothing."""
    return f"{key} {before} -> {now}" if key in ("energybench", "framework") else f"code of {key}"


def _files(entry: Entry) -> tuple[Path, ...]:
    """The module that made a part, and where it stands in a package, its neighbours: they share what they do."""
    source = getattr(sys.modules.get(entry.factory.__module__), "__file__", None)
    if source is None:
        return ()
    path = Path(source)
    return tuple(sorted(path.parent.glob("*.py"))) if (path.parent / "__init__.py").exists() else (path,)


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with suppress(OSError):  # gone since it was listed
            state = path.stat()
            digest.update(path.name.encode() + _digest_of(path, state.st_mtime_ns, state.st_size))
    return digest.hexdigest()[:12]


@cache
def _digest_of(path: Path, mtime_ns: int, size: int) -> bytes:
    """Of a file in the state that it is in: what is edited while a study runs is other code from the next cell on."""
    digest, source = hashlib.sha256(), path.read_bytes()
    try:
        # optimize=2 leaves docstrings out; comments and line numbers are in no part that is looked at.
        _add(digest, compile(source, path.name, "exec", dont_inherit=True, optimize=2))
    except (SyntaxError, ValueError):  # half edited: it is other code, and no reason for a run to fail
        digest.update(source)
    return digest.digest()


def _add(digest: hashlib._Hash, code: CodeType) -> None:
    digest.update(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _add(digest, constant)
        else:
            # A set's order is other in every process.
            steady = sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant
            digest.update(repr(steady).encode())
