"""Merges what `pip freeze` says under several Pythons into one constraints file: see `make constraints`.

Usage: merge_freezes.py 3.11=FILE 3.12=FILE ... > constraints.txt
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

HEADER = """\
# Every package that the extras gluon, mlflow, report and test bring, as it was when this was made, on Python {pythons}.
# Made by `make constraints`, which installs them into new environments; edit setup.cfg and run it again.
# Core and torch also run on numpy 2; the gluon extra needs numpy below 2, and it is part of this lock.
# What torch's CUDA build brings besides is not in it: torch pins that itself.
"""


OF_CUDA = re.compile(r"(nvidia|cuda)[-_](?!ml[-_]py$).*|triton")
"""What torch's CUDA build brings and its CPU build does not: torch itself pins their versions."""


def pins(lines: Iterable[str]) -> dict[str, str]:
    """Name -> version, of the lines that pin one; without the label of a build ("2.13.0+cpu")."""
    split = (line.strip().partition("==") for line in lines)
    return {name: version.partition("+")[0] for name, equals, version in split if equals and not OF_CUDA.match(name)}


def merge(found: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Constraint lines; `found` maps a Python version to its pins. Where they differ, lines say which they are for."""
    names = sorted({name for versions in found.values() for name in versions}, key=str.lower)
    lines = []
    for name in names:
        versions = {python: pinned.get(name) for python, pinned in found.items()}
        if len(set(versions.values())) == 1:
            lines.append(f"{name}=={next(iter(versions.values()))}")
        else:
            lines += [
                f'{name}=={version}; python_version == "{python}"' for python, version in versions.items() if version
            ]
    return lines


def main(arguments: list[str]) -> None:
    """Prints the merged file."""
    given = dict(argument.split("=", 1) for argument in arguments)
    found = {python: pins(Path(path).read_text(encoding="utf-8").splitlines()) for python, path in given.items()}
    print(HEADER.format(pythons=" and ".join(found)), end="")
    print(*merge(found), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
