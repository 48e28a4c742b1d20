"""What makes two runs repeats of one setting, one cell of a study, or neither."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from typing import Any

from energybench.devices import CPU
from energybench.node_options import Nodes
from energybench.run.preflight import Plan
from energybench.run.result import Result, devices_of

BESIDE = frozenset({"tracking", "sweep", "rerun", "hydra"})
"""Sections of the configuration that change where a run is recorded or when it runs, and nothing in it."""

BESIDE_WITHIN = {
    "measure": frozenset({"lock", "watchdog_s"}),
    "nodes": frozenset(f.name for f in fields(Nodes)) - {"count"},
}
"""Likewise of keys of a section."""

UNSAID = {"measure": {"validate_every": 1}, "nodes": {"count": 1}}
"""Values that say nothing: runs of the time before there was another choice have none."""


def decisive(config: Mapping[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    """What of a configuration decides what happens in a run, but for the keys `without`."""
    kept = {key: value for key, value in config.items() if key not in BESIDE and key not in without}
    for section in BESIDE_WITHIN.keys() | UNSAID.keys():
        if isinstance(kept.get(section), Mapping):
            kept[section] = _said(section, kept[section])
    if not (isinstance(kept.get("nodes"), Mapping) and kept["nodes"]):
        kept.pop("nodes", None)
    return kept


def _said(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    beside, unsaid = BESIDE_WITHIN.get(section, frozenset()), UNSAID.get(section, {})
    return {k: value for k, value in values.items() if k not in beside and (k, value) not in unsaid.items()}


def decides(key: str, config: Mapping[str, Any], without: Collection[str] = ()) -> bool:
    """Whether a key of a command line, as "tracking.uri", is of what `decisive` keeps of a configuration."""
    section, _, rest = key.lstrip("+~").replace("/", ".").partition(".")
    option, held = rest.partition(".")[0], config.get(section)
    if not option:
        return section in decisive({section: held}, without)
    inside = {option: None, **(held if isinstance(held, Mapping) else {})}
    return option in decisive({section: inside}, without).get(section, {})


def setting(config: Mapping[str, Any], *, seed: bool) -> str:
    """A digest of all that a configuration decides in a run, with or without its seed."""
    return _digest(decisive(config, () if seed else ("seed",)))


def cell_of(plan: Plan, host: str) -> str:
    """What identifies the cell that a plan is: its setting, its seed and the boards it runs on."""
    return _digest([setting(plan.experiment.to_json(), seed=True), boards_of(plan, host)])


def boards_of(plan: Plan, host: str) -> str:
    """What identifies the boards of a plan."""
    return _boards(host, (device.to_json() for device in plan.boards), len(plan.devices))


def boards_of_result(result: Result) -> str:
    """The same of a run that has been."""
    devices = devices_of(result.provenance)
    gpu = result.config.get("gpu")
    count = gpu.get("count") if isinstance(gpu, Mapping) else None
    return _boards(str(result.provenance.get("host")), devices, count if isinstance(count, int) else len(devices))


def _boards(host: str, devices: Iterable[Mapping[str, Any]], count: int) -> str:
    """A GPU is known by its UUID wherever it is; a CPU has none, so it is that of its host."""
    known = sorted(f"{CPU} of {host}" if device.get("kind") == CPU else str(device.get("uuid")) for device in devices)
    return f"{count} x {', '.join(known)}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
