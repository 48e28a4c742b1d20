"""From what each node of one training found to the result of the run. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from energybench.power.timeline import Timeline
from energybench.run.metrics import CONTEXT, COVERAGE_FACTOR, IDLE, TRAIN, total
from energybench.run.result import ChannelEnergy, Phase, Result


def with_edges_in_doubt(
    energy: ChannelEnergy, line: Timeline, window_ns: tuple[int, int], doubt_s: float
) -> ChannelEnergy:
    """The energy of a window whose edges were told by another clock, in part.

    Each edge may lie anywhere within `doubt_s` of where it is taken to be (rectangular, GUM 4.3.7): that is the power
    there times doubt_s / sqrt(3), the two edges independent of each other.

    Args:
        energy: of the window.
        line: the channel's power.
        window_ns: its start and end.
        doubt_s: how far its edges may be off, seconds.
    """
    if not doubt_s or energy.independent_u_j is None or energy.power_mean_w is None:
        return energy
    around_ns = math.ceil(doubt_s * 1e9)
    edges_w = [line.energy(edge - around_ns, edge + around_ns).power_mean_w for edge in window_ns]
    parts_j = [(energy.power_mean_w if power is None else power) * doubt_s / math.sqrt(3) for power in edges_w]
    return replace(
        energy,
        independent_u_j=math.hypot(energy.independent_u_j, *parts_j),
        edges_u_j=math.hypot(energy.edges_u_j, *parts_j),
    )


def phases_of(own: Sequence[Phase], others: Mapping[int, Result]) -> tuple[Phase, ...]:
    """The phases of the first node with the channels of all."""
    found: list[Phase] = []
    for number, phase in enumerate(own):
        parts = [
            result.phases[number].channels
            for result in others.values()
            if number < len(result.phases)
            and (result.phases[number].name, result.phases[number].epoch) == (phase.name, phase.epoch)
        ]
        found.append(
            replace(phase, channels={name: one for part in [phase.channels, *parts] for name, one in part.items()})
        )
    return tuple(found)


def scope_of(own: Sequence[str], others: Mapping[int, Result], lost: Sequence[int]) -> tuple[str, ...]:
    """Names of the channels that energy_j adds up: all that train.

    Those of a node that was lost are among them, by the names that the first node's have, and nothing is known of them:
    so there is no energy_j of the whole, and none of a part is taken for it.
    """
    missing = [f"node{rank}.{name.partition('.')[2]}" for rank in lost for name in own]
    return (*own, *(name for rank in sorted(others) for name in others[rank].scope), *missing)


def metrics_of_nodes(phases: Sequence[Phase], scope: Sequence[str]) -> dict[str, float]:
    """Of each node `energy_j.node0`, its uncertainty, mean and resting power, of the devices that train there."""
    found: dict[str, float | None] = {}
    for node in dict.fromkeys(name.partition(".")[0] for name in scope):
        channels = [name for name in scope if name.startswith(f"{node}.")]
        trained = total([phase for phase in phases if phase.name == TRAIN], channels)
        if trained.energy_j is not None:
            found[f"energy_j.{node}"] = trained.energy_j
            found[f"energy_uncertainty_j.{node}"] = trained.expanded_u_j
            found[f"energy_independent_uncertainty_j.{node}"] = COVERAGE_FACTOR * trained.independent_u_j
            found[f"power_mean_w.{node}"] = trained.mean_w
        for resting in (IDLE, CONTEXT):
            found[f"power_{resting}_w.{node}"] = total([one for one in phases if one.name == resting], channels).mean_w
    return {key: value for key, value in found.items() if value is not None}


def beside_energy(own: Mapping[str, float], others: Mapping[int, Result]) -> dict[str, float]:
    """What nodes tell that is no energy of the whole: their cards' conditions, memory, samples that none could read."""
    found = dict(own)
    for result in others.values():
        names = [channel["name"] for channel in result.provenance.get("channels", [])]
        found |= {
            key: value
            for key, value in result.metrics.items()
            if any(key.endswith(f".{name}") and not key.startswith("energy_j.") for name in names)
        }
        if "memory_peak_bytes" in result.metrics:
            most = max(found.get("memory_peak_bytes", 0.0), result.metrics["memory_peak_bytes"])
            found["memory_peak_bytes"] = most
        if "unreadable_samples" in result.metrics:
            found["unreadable_samples"] = found.get("unreadable_samples", 0.0) + result.metrics["unreadable_samples"]
    return found


def tags_of(own: Mapping[str, str], others: Mapping[int, Result]) -> dict[str, str]:
    """Those of the first node, with what speaks against the numbers of any."""
    all_tags = [own, *(result.tags for result in others.values())]
    flags = {flag for tags in all_tags for flag in tags.get("quality", "ok").split(",")} - {"ok"}
    origins = [tags["tdp_source"] for tags in all_tags if "tdp_source" in tags]
    tags = {**own, "quality": ",".join(sorted(flags)) or "ok"}
    if any(tags.get("energy_source") == "estimated" for tags in all_tags):
        tags["energy_source"] = "estimated"
    if origins:
        tags["tdp_source"] = "; ".join(dict.fromkeys(origins))
    return tags


def provenance_of(
    own: Mapping[str, Any], others: Mapping[int, Result], nodes: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """That of the first of `nodes`, with the devices and channels of all, what each is and how its clock was told."""
    parts = [own, *(others[rank].provenance for rank in sorted(others))]
    by_rank = {nodes[0]["rank"]: own, **{rank: result.provenance for rank, result in others.items()}}
    told = [
        {**node, **{key: by_rank[node["rank"]].get(key) for key in ("system", "cpu") if node["rank"] in by_rank}}
        for node in nodes
    ]
    return {
        **own,
        "devices": [device for part in parts for device in part["devices"]],
        "channels": [channel for part in parts for channel in part["channels"]],
        "nodes": told,
    }
