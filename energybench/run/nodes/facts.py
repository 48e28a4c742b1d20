"""What the nodes of one training must have in common, and how they are told to differ."""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from energybench.experiment import AUTO
from energybench.run.code import changes
from energybench.run.preflight import Plan

OWN = ("nodes.rank", "nodes.rendezvous", "nodes.join_timeout_s", "nodes.lost_after_s", "tracking.", "sweep.", "rerun")
"""Beginnings of the keys that may be others on each node: they decide nothing in the training."""

MOST_TOLD = 3


def facts(plan: Plan) -> dict[str, Any]:
    """What a node tells of its plan, as plain JSON values."""
    resume = plan.experiment.checkpoint.resume
    devices = Counter(device.generation for device in plan.devices)
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "code": plan.code,
        "config": dict(_leaves(plan.experiment.to_json(), "")),
        "devices": ", ".join(f"{count} x {generation}" for generation, count in devices.items()),
        "meter": plan.meters[0].name,
        "checkpoint": None if resume in (None, AUTO) else digest_of(Path(resume)),
    }


def difference(node: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """What keeps a node from training with the first, in one line; None: nothing.

    Args:
        node: the other, in words.
        there: its facts.
        here: those of the first node.
    """
    if there["python"] != here["python"]:
        return f"{node} runs Python {there['python']}, node 0 {here['python']}; give every node the same"
    if told := changes(here["code"], there["code"]):
        return f"{node} runs other code than node 0: {_listed(told)}; install the same on every node"
    asked, wanted = there["config"], here["config"]
    others = [key for key in {**wanted, **asked} if asked.get(key) != wanted.get(key)]
    if told := [f"{key}={asked.get(key)} there, {wanted.get(key)} on node 0" for key in others]:
        return f"{node} is asked for another run: {_listed(told)}; give every node the same command"
    for key, words in (("devices", "trains on"), ("meter", "is read by"), ("checkpoint", "goes on from checkpoint")):
        if there[key] != here[key]:
            return f"{node} {words} {there[key]}, node 0 {here[key]}; the nodes of one training must be alike"
    return None


def digest_of(path: Path) -> str | None:
    """Of a file's bytes; None where there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError:
        return None


def _listed(told: list[str]) -> str:
    more = f" and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
    return "; ".join(told[:MOST_TOLD]) + more


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{name}.")
        elif not name.startswith(OWN):
            yield name, value
