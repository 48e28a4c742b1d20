"""From the phases of a run to its metrics, under the names that trackers and result.json share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from energybench.power.quality import MIN_COVERAGE
from energybench.run.result import Phase

COOLDOWN = "cooldown"
SETTLE = "settle"
IDLE = "idle"
LOAD = "load"
CONTEXT = "context"
WARMUP = "warmup"
TRAIN = "train"
VALIDATE = "validate"
CHECKPOINT = "checkpoint"
SKIP = "skip"
OF_EVERY_ENGINE = frozenset(
    {COOLDOWN, SETTLE, IDLE, LOAD, CONTEXT, WARMUP, TRAIN, VALIDATE, CHECKPOINT, SKIP}
)  # fmt: skip
"""Phases that have the same meaning whatever trains. Others an engine has of its own, before it warms up."""
MOST_INPUT_WAIT = 0.05
"""Share of the training from which on devices that waited for data speak against its energy: see docs/quality.md."""

COVERAGE_FACTOR = 2
"""k of an expanded uncertainty, about 95 % (GUM 6.2)."""


@dataclass(frozen=True)
class Sum:
    """Energy of some channels over some phases.

    Attributes:
        energy_j: joules, None where any part was not read at all.
        independent_u_j: standard uncertainty of all that is not the boards' gains.
        edges_u_j: what of it the phases' edges make: in runs of one setting it is alike.
        common_u_j: standard uncertainty of the boards' gains.
        peak_w: highest power of the channels together in any one phase; of several channels an upper bound.
        time_s: length of the phases.
        covered_s: time that readings cover.
    """

    energy_j: float | None
    independent_u_j: float
    edges_u_j: float
    common_u_j: float
    peak_w: float | None
    time_s: float
    covered_s: float

    @property
    def whole(self) -> bool:
        """Whether readings cover the phases: joules of a part must not be divided by what all of it did."""
        return self.covered_s >= MIN_COVERAGE * self.time_s

    @property
    def expanded_u_j(self) -> float:
        """Expanded uncertainty (k = 2), both parts."""
        return COVERAGE_FACTOR * math.hypot(self.independent_u_j, self.common_u_j)

    @property
    def mean_w(self) -> float | None:
        """Mean power over the covered time."""
        return self.energy_j / self.covered_s if self.energy_j is not None and self.covered_s > 0 else None


def total(phases: Sequence[Phase], channels: Sequence[str]) -> Sum:
    """Adds up `channels` over `phases`.

    What the edges of a phase hide has the same sign in each of them and on each board, as the load that begins and ends
    there is the same: it adds linearly. What else is independent adds in quadrature. The gain of one board is the same
    in each phase, so its parts add linearly over phases; boards are independent of each other, so these sums add in
    quadrature over channels (GUM 5.1.2, 5.2.2).
    """
    parts = [[phase.channels[name] for phase in phases if name in phase.channels] for name in channels]
    flat = [energy for part in parts for energy in part]
    complete = bool(flat) and len(flat) == len(phases) * len(channels) and all(e.energy_j is not None for e in flat)
    edges_j = sum(e.edges_u_j for e in flat)
    others_j2 = sum(max(0.0, (e.independent_u_j or 0.0) ** 2 - e.edges_u_j**2) for e in flat)
    time_s = sum(phase.time_s for phase in phases)
    covered_s = sum(phase.time_s * _coverage(phase, channels) for phase in phases)
    return Sum(
        energy_j=sum(e.energy_j or 0.0 for e in flat) if complete else None,
        independent_u_j=math.hypot(edges_j, math.sqrt(others_j2)),
        edges_u_j=edges_j,
        common_u_j=math.hypot(*(sum(e.common_u_j or 0.0 for e in part) for part in parts)),
        peak_w=_peak(phases, channels),
        time_s=time_s,
        covered_s=covered_s,
    )


def _coverage(phase: Phase, channels: Sequence[str]) -> float:
    return min((phase.channels[name].coverage for name in channels if name in phase.channels), default=0.0)


def _peak(phases: Sequence[Phase], channels: Sequence[str]) -> float | None:
    peaks = []
    for phase in phases:
        found = [phase.channels[name].power_peak_w for name in channels if name in phase.channels]
        known = [peak for peak in found if peak is not None]
        if known and len(known) == len(channels):
            peaks.append(sum(known))
    return max(peaks, default=None)


def metrics(
    phases: Sequence[Phase],
    scope: Sequence[str],
    channels: Sequence[str],
    flops_per_image: int | None = None,
    target_accuracy: float | None = None,
) -> dict[str, float]:
    """All metrics of a run; what does not exist is absent.

    Args:
        phases: of the run, complete or not.
        scope: names of the channels that energy_j adds up.
        channels: names of all channels.
        flops_per_image: training FLOPs of one sample (3 x forward), or None where they are not known.
        target_accuracy: top-1 accuracy to be reached, or None.
    """
    found = _training(phases, scope, channels, flops_per_image)
    if target_accuracy is not None:
        found.update(_to_accuracy(phases, scope, target_accuracy))
    for name in dict.fromkeys(phase.name for phase in phases):
        if name != TRAIN:
            chosen = [phase for phase in phases if phase.name == name]
            found.update({f"{name}.{key}": value for key, value in _basic(chosen, scope).items()})
    return {key: float(value) for key, value in found.items() if value is not None and math.isfinite(value)}


def _basic(phases: Sequence[Phase], scope: Sequence[str]) -> dict[str, float | None]:
    """Time, images and energy of some phases: what every kind of phase has."""
    if not phases:
        return {}
    energy = total(phases, scope)
    images = sum(phase.values.get("images", 0.0) for phase in phases)
    known = energy.energy_j is not None
    return {
        "time_s": energy.time_s,
        "images": images or None,
        "images_per_s": _ratio(images or None, energy.time_s),
        "energy_j": energy.energy_j,
        "energy_uncertainty_j": energy.expanded_u_j if known else None,
        "energy_independent_uncertainty_j": COVERAGE_FACTOR * energy.independent_u_j if known else None,
        "energy_edges_uncertainty_j": COVERAGE_FACTOR * energy.edges_u_j if known else None,
        "power_mean_w": energy.mean_w,
        "power_peak_w": energy.peak_w,
        "energy_per_image_j": _ratio(energy.energy_j, images or None) if energy.whole else None,
    }


def _training(
    phases: Sequence[Phase], scope: Sequence[str], channels: Sequence[str], flops_per_image: int | None
) -> dict[str, float | None]:
    trained = [phase for phase in phases if phase.name == TRAIN]
    found = _basic(trained, scope)
    if not trained:
        return found
    energy_j, time_s, images = found["energy_j"], found["time_s"], found["images"]
    for name in channels:
        found[f"energy_j.{name}"] = total(trained, [name]).energy_j
    if not total(trained, scope).whole:
        energy_j = None
    for name in (IDLE, CONTEXT):
        resting_w = _mean_w(name, phases, scope)
        found[f"power_{name}_w"] = resting_w
        if energy_j is not None and resting_w is not None and time_s is not None:
            found[f"energy_above_{name}_j"] = energy_j - resting_w * time_s
    found["edp_js"] = energy_j * time_s if energy_j is not None and time_s is not None else None
    if flops_per_image is not None and images is not None:
        gflop = flops_per_image * images / 1e9
        found["gflops_per_s"] = _ratio(gflop, time_s)
        found["gflops_per_w"] = _ratio(gflop, energy_j)
    found["input_wait_fraction"] = _input_wait_fraction(trained)
    found.update(_accuracy(phases))
    found["loss"] = trained[-1].values.get("loss")
    return found


def _input_wait_fraction(trained: Sequence[Phase]) -> float | None:
    """Of the training phases whose engine tells it."""
    told = [phase for phase in trained if "input_wait_s" in phase.values]
    return _ratio(sum(phase.values["input_wait_s"] for phase in told), sum(phase.time_s for phase in told))


def _mean_w(name: str, phases: Iterable[Phase], scope: Sequence[str]) -> float | None:
    """Mean power of the phases of this name."""
    chosen = [phase for phase in phases if phase.name == name]
    return total(chosen, scope).mean_w if chosen else None


def _accuracy(phases: Sequence[Phase]) -> dict[str, float | None]:
    """Of the last validation that came to its end."""
    done = [phase for phase in phases if phase.name == VALIDATE and phase.complete]
    keys = ("accuracy_top1", "accuracy_top5", "accuracy_sequence_top1")
    return {key: done[-1].values.get(key) for key in keys} if done else {}


def _to_accuracy(phases: Sequence[Phase], scope: Sequence[str], target: float) -> dict[str, float | None]:
    """Time and energy of the training phases up to the first validation that reached the target; absent if none did."""
    for index, phase in enumerate(phases):
        if phase.name == VALIDATE and phase.values.get("accuracy_top1", 0.0) >= target:
            before = total([earlier for earlier in phases[:index] if earlier.name == TRAIN], scope)
            return {"time_to_accuracy_s": before.time_s, "energy_to_accuracy_j": before.energy_j}
    return {}


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def epochs(phases: Sequence[Phase], scope: Sequence[str]) -> tuple[dict[str, float], ...]:
    """One mapping a completed training epoch: its metrics and those of the validation that followed, for series."""
    series = []
    for number in sorted({phase.epoch for phase in phases if phase.epoch is not None}):
        trained = [phase for phase in phases if phase.epoch == number and phase.name == TRAIN]
        if not trained or not trained[-1].complete or "unfinished" in trained[-1].values:
            continue
        row: dict[str, float | None] = {"epoch": float(number), **_basic(trained, scope)}
        row["loss"] = trained[-1].values.get("loss")
        row.update(_accuracy([phase for phase in phases if phase.epoch == number]))
        series.append({key: value for key, value in row.items() if value is not None})
    return tuple(series)


def in_scope(kinds: Mapping[str, str], scope: str) -> list[str]:
    """Names of the channels of kind `scope`; `kinds` maps channel name -> kind."""
    return [name for name, kind in kinds.items() if kind == scope]
