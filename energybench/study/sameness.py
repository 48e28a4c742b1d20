"""What makes two runs repeats of one setting, one cell of a study, or neither."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from energybench.devices import CPU
from energybench.run.preflight import Plan
from energybench.run.result import Result, devices_of

BESIDE = frozenset({"tracking", "sweep", "rerun", "hydra"})
"""Sections of the configuration that change where a run is recorded or when it runs, and nothing in it."""

BESIDE_IN_MEASURE = frozenset({"lock", "watchdog_s"})

UNSAID_IN_MEASURE = {"validate_every": 1}
"""Values that say nothing: runs of the time before there was another choice have none."""

DECISIVE_OF_NODES = frozenset({"count"})


def decisive(config: Mapping[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    """What of a configuration decides what happens in a run, but for the keys `without`."""
    kept = {key: value for key, value in config.items() if key not in BESIDE and key not in without}
    measure = kept.get("measure")
    if isinstance(measure, Mapping):
        kept["measure"] = {
            key: value
            for key, value in measure.items()
            if key not in BESIDE_IN_MEASURE and UNSAID_IN_MEASURE.get(key) != value
        }
    nodes = kept.pop("nodes", None)
    if (
        isinstance(nodes, Mapping) and nodes.get("count", 1) != 1
    ):  # of one it says nothing, as before there were several
        kept["nodes"] = {key: value for key, value in nodes.items() if key in DECISIVE_OF_NODES}
    return kept


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
