"""What the conditions of one card were over a run: from single looks to a summary and its quality flags. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from energybench.power.conditions import Condition
from energybench.power.monitor import Observed

MIN_SHARE = 0.01
"""A slowdown counts from this share of the training time on."""

CLOCK_RANGE = 0.1
"""A clock moved where its range is more than this share of its median."""

RAMP_NS = 1_000_000_000
"""A card's clocks rise when work begins: looks in the first second of training tell nothing of their steadiness."""

COOLING_C = 3.0
"""A card whose temperature falls by so much in the baseline was still cooling."""

TOLERANCE_C = 1.0
"""The driver tells whole degrees."""

IDLE_UTILIZATION = 0.05
"""Something runs on a card whose utilisation is above this."""

FLAGGED = {
    "thermal": "throttled_thermal",
    "power_brake": "throttled_power_brake",
    "sync_boost": "throttled_sync_boost",
}
"""Slowdowns that speak against a result by themselves -> their flags."""

Window = tuple[int, int]
"""Start and end, CLOCK_MONOTONIC nanoseconds."""


@dataclass(frozen=True)
class Times:
    """When what happened.

    Attributes:
        idle: the baseline, or None.
        train: the training phases, in the order of time.
        workers: from the start of the first worker to the end of the last; None where none was started.
    """

    idle: Window | None
    train: Sequence[Window]
    workers: Window | None


@dataclass(frozen=True)
class Summary:
    """The conditions of one card over a run; None: not told, or not looked at.

    Attributes:
        temperature_begin_c: when the workers were started.
        temperature_start_c, temperature_end_c, temperature_max_c: of the training.
        cooling_c: by how much the temperature fell in the baseline.
        clock_sm_min_mhz, clock_sm_median_mhz, clock_sm_max_mhz: in training, ramps and waits left out.
        clock_memory_median_mhz: in training.
        clock_sm_limit_mhz, clock_memory_limit_mhz: the card's highest clocks.
        slowdowns: reason -> share of the training time, 0 to 1; reasons that did not occur are left out.
        power_limit_w: the lowest in force in training.
        power_limit_default_w: as the maker set it.
        idle_utilization: median in the baseline, 0 to 1.
        multi_instance: whether the card is divided.
        foreign_processes: pids of what ran on the card in training and is not of this run.
        left_after_idle: pids of what was there in the baseline and no longer in training.
    """

    temperature_begin_c: float | None = None
    temperature_start_c: float | None = None
    temperature_end_c: float | None = None
    temperature_max_c: float | None = None
    cooling_c: float | None = None
    clock_sm_min_mhz: float | None = None
    clock_sm_median_mhz: float | None = None
    clock_sm_max_mhz: float | None = None
    clock_memory_median_mhz: float | None = None
    clock_sm_limit_mhz: float | None = None
    clock_memory_limit_mhz: float | None = None
    slowdowns: dict[str, float] | None = None
    power_limit_w: float | None = None
    power_limit_default_w: float | None = None
    idle_utilization: float | None = None
    multi_instance: bool | None = None
    foreign_processes: tuple[int, ...] | None = None
    left_after_idle: tuple[int, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """What is known, as plain JSON values."""
        known = {key: value for key, value in asdict(self).items() if value is not None}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in known.items()}


def summarise(observed: Sequence[Observed], times: Times) -> Summary:
    """The summary of one card.

    Args:
        observed: looks at this card, in the order of time.
        times: of the run.
    """
    looks = [one.condition for one in observed]
    trained = [look for window in times.train for look in _inside(looks, window)]
    idle = _inside(looks, times.idle) if times.idle else []
    clocks = _known(look.sm_mhz for look in _steady(trained, times))
    limits = _known(look.power_limit_w for look in trained)
    cooled = _known(look.temperature_c for look in idle)
    strangers = foreign(observed, times)
    return Summary(
        temperature_begin_c=_at(looks, times.workers[0]) if times.workers else None,
        temperature_start_c=_at(looks, times.train[0][0]) if times.train else None,
        temperature_end_c=_at(looks, times.train[-1][1]) if times.train else None,
        temperature_max_c=max(_known(look.temperature_c for look in trained), default=None),
        cooling_c=max(cooled) - cooled[-1] if len(cooled) > 1 else None,
        clock_sm_min_mhz=min(clocks, default=None),
        clock_sm_median_mhz=_median(clocks),
        clock_sm_max_mhz=max(clocks, default=None),
        clock_memory_median_mhz=_median(_known(look.memory_mhz for look in trained)),
        clock_sm_limit_mhz=_last(look.max_sm_mhz for look in looks),
        clock_memory_limit_mhz=_last(look.max_memory_mhz for look in looks),
        slowdowns=_shares(looks, times.train),
        power_limit_w=min(limits, default=None),
        power_limit_default_w=_last(look.default_limit_w for look in looks),
        idle_utilization=_median(_known(look.utilization for look in idle)),
        multi_instance=_last(look.multi_instance for look in looks),
        foreign_processes=None if strangers is None else _pids(trained, strangers),
        left_after_idle=_left(idle, trained),
    )


def _steady(trained: Sequence[Condition], times: Times) -> list[Condition]:
    """Looks at a working card; those of its clocks' rise only where there is no other."""
    working = [look for look in trained if "idle" not in (look.slowdowns or ())]
    return [look for look in working if look.time_ns >= times.train[0][0] + RAMP_NS] or working


def foreign(observed: Sequence[Observed], times: Times) -> frozenset[int] | None:
    """Pids of processes that are not of this run; None where the driver tells no processes.

    What was there before the first worker, or is there after the last, is foreign. Of the rest, where the driver's pids
    are those of this system, whatever no worker started is. In a container they may be the host's: then none is ever
    ours, and what came and went with the workers is taken for theirs.
    """
    told = [one for one in observed if one.condition.processes is not None]
    if not told:
        return None
    seen = _pids_of(one.condition for one in told)
    if times.workers is None:
        return seen
    start_ns, end_ns = times.workers
    apart = _pids_of(one.condition for one in told if not start_ns <= one.condition.time_ns <= end_ns)
    ours = frozenset(pid for one in told for pid in one.ours)
    return seen - ours if ours else apart


def flags(summary: Summary, cooldown_c: float | None = None) -> list[str]:
    """What of a card's conditions speaks against the result; see energybench.power.flags.

    The power cap is a modern card's normal state under load, so that it is a flag only below the default limit.

    Args:
        summary: of the card.
        cooldown_c: the temperature that the run was asked to wait for, or None.
    """
    shares = {reason: share for reason, share in (summary.slowdowns or {}).items() if share >= MIN_SHARE}
    found = {flag for reason, flag in FLAGGED.items() if reason in shares}
    limit_w, default_w = summary.power_limit_w, summary.power_limit_default_w
    lowered = limit_w is not None and default_w is not None and limit_w < default_w
    verdicts = {
        "throttled_power": lowered and "power_cap" in shares,
        "throttled_hw_slowdown": "hw_slowdown" in shares and not {"thermal", "power_brake"} & shares.keys(),
        "power_limit_below_default": lowered,
        "clocks_moved": _moved(summary) and not shares.keys() - {"idle"},
        "foreign_processes": bool(summary.foreign_processes),
        "hot_start": _hot(summary, cooldown_c),
        "multi_instance": bool(summary.multi_instance),
        "idle_not_idle": bool(summary.left_after_idle) or (summary.idle_utilization or 0.0) > IDLE_UTILIZATION,
    }
    return sorted(found | {flag for flag, holds in verdicts.items() if holds})


def _moved(summary: Summary) -> bool:
    low, middle, high = summary.clock_sm_min_mhz, summary.clock_sm_median_mhz, summary.clock_sm_max_mhz
    return low is not None and middle is not None and high is not None and high - low > CLOCK_RANGE * middle


def _hot(summary: Summary, cooldown_c: float | None) -> bool:
    begin_c = summary.temperature_begin_c
    too_warm = cooldown_c is not None and begin_c is not None and begin_c > cooldown_c + TOLERANCE_C
    return too_warm or (summary.cooling_c or 0.0) >= COOLING_C


def _inside(looks: Iterable[Condition], window: Window) -> list[Condition]:
    return [look for look in looks if window[0] <= look.time_ns <= window[1]]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _last(values: Iterable[Any]) -> Any:
    known = [value for value in values if value is not None]
    return known[-1] if known else None


def _at(looks: Sequence[Condition], time_ns: int) -> float | None:
    """Temperature at the look that is nearest in time."""
    told = [look for look in looks if look.temperature_c is not None]
    return min(told, key=lambda look: abs(look.time_ns - time_ns)).temperature_c if told else None


def _shares(looks: Sequence[Condition], windows: Sequence[Window]) -> dict[str, float] | None:
    """Reason -> share of the windows' time; each look stands for the time until the next."""
    held: dict[str, int] = {}
    whole_ns = 0
    for window in windows:
        inside = [look for look in _inside(looks, window) if look.slowdowns is not None]
        ends = [*(look.time_ns for look in inside[1:]), window[1]]
        for look, end_ns in zip(inside, ends[-len(inside) :] if inside else [], strict=True):
            whole_ns += end_ns - look.time_ns
            for reason in look.slowdowns or ():
                held[reason] = held.get(reason, 0) + end_ns - look.time_ns
    return {reason: ns / whole_ns for reason, ns in sorted(held.items())} if whole_ns else None


def _pids_of(looks: Iterable[Condition]) -> frozenset[int]:
    return frozenset(process.pid for look in looks for process in look.processes or ())


def _pids(looks: Sequence[Condition], chosen: frozenset[int]) -> tuple[int, ...]:
    return tuple(sorted(_pids_of(looks) & chosen))


def _left(idle: Sequence[Condition], trained: Sequence[Condition]) -> tuple[int, ...] | None:
    """None where either was not told."""
    if not any(look.processes is not None for look in idle) or not any(look.processes is not None for look in trained):
        return None
    return tuple(sorted(_pids_of(idle) - _pids_of(trained)))
