"""What makes a trial of a search not worth running, or not worth running on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from energybench.errors import ConfigError, LimitError
from energybench.run.metrics import TRAIN
from energybench.run.preflight import Plan
from energybench.run.result import Failure, Result
from energybench.run.supervisor import Moment, View

INFEASIBLE, LIMIT = "infeasible", "limit"
PRUNED = (INFEASIBLE, LIMIT)
"""Kinds of failure that a search expects, and learns from."""

GROWING = ("energy_j", "time_s")
"""Metrics that only grow while a run trains: past its limit, it need not be waited for."""


def check_limits(limits: Any) -> None:
    """Raises ConfigError for a limit that cannot be kept to."""
    if not isinstance(limits, Mapping):
        raise ConfigError(f"hydra.sweeper.limits={limits}: give a mapping, metric: limit")
    for metric, limit in asked(limits).items():
        if metric not in GROWING or not isinstance(limit, int | float) or limit <= 0:
            raise ConfigError(
                f"hydra.sweeper.limits.{metric}={limit}: give a number above 0 for one of {', '.join(GROWING)}"
            )


def asked(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The entries of a sweeper's mapping that are not null."""
    return {str(key): value for key, value in (options or {}).items() if value is not None}


def infeasible(plan: Plan) -> Failure | None:
    """Why a plan is not tried: its own account of memory, which leaves a framework's out, is more than there is."""
    needs, has = plan.memory_bytes, plan.boards[0].memory_bytes
    if needs is None or has is None or needs <= has:
        return None
    return Failure(INFEASIBLE, f"it needs {needs:,} bytes of memory and {plan.boards[0].name} has {has:,}; not tried")


def beyond(result: Result, limits: Mapping[str, float]) -> bool:
    """Whether a run that finished is beyond a limit all the same."""
    return any(result.metrics.get(metric, 0.0) > limit for metric, limit in limits.items())


class LimitedView:
    """Shows a run to another view, and ends it when its training has grown beyond a limit.

    Its joules are power added up between the moments that are shown, twice a second: good enough to stop by. The
    result's own are those of the meter.

    Args:
        view: shows the run.
        limits: metric -> its limit.
    """

    def __init__(self, view: View, limits: Mapping[str, float]) -> None:
        self._view = view
        self._limits = limits
        self._spent = dict.fromkeys(GROWING, 0.0)
        self._last_s: float | None = None

    def update(self, moment: Moment) -> None:
        """See energybench.run.supervisor.View; raises LimitError beyond a limit."""
        self._view.update(moment)
        now_s = time.monotonic()
        if self._last_s is not None and moment.phase == TRAIN:
            self._spent["time_s"] += now_s - self._last_s
            self._spent["energy_j"] += (moment.power_w or 0.0) * (now_s - self._last_s)
        self._last_s = now_s if moment.phase == TRAIN else None
        for metric, limit in self._limits.items():
            if self._spent[metric] > limit:
                raise LimitError(f"ended early: {metric} has passed its limit of {limit:g}")
