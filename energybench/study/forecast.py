"""How long a run will take and what it will use, as far as earlier runs tell it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from energybench.run.preflight import Plan
from energybench.run.result import Result
from energybench.study.sameness import boards_of, boards_of_result, setting

Key = tuple[str, ...]
"""What runs are alike in: their boards, and their setting, their network, or only their precision."""


@dataclass(frozen=True)
class Forecast:
    """What a run is expected to take.

    Attributes:
        time_s: from its beginning to its end, idle, loading and validation included.
        energy_j: of training (energy_j); None where no earlier run has any.
        told_by: "repeats": runs of the same setting; "rate": FLOPs, over the rate of others on the same boards.
    """

    time_s: float
    energy_j: float | None
    told_by: str


class _Mean:
    """A mean that values are added to."""

    def __init__(self) -> None:
        self._total, self._count = 0.0, 0

    def add(self, value: float | None) -> None:
        """One more value; one that does not exist is none."""
        if value is not None:
            self._total += value
            self._count += 1

    @property
    def value(self) -> float | None:
        return self._total / self._count if self._count else None


@dataclass(frozen=True)
class _Group:
    """What is kept of the runs that are alike in one way: means."""

    whole_s: _Mean = field(default_factory=_Mean)
    beside_s: _Mean = field(default_factory=_Mean)
    energy_j: _Mean = field(default_factory=_Mean)
    power_w: _Mean = field(default_factory=_Mean)
    flops_per_s: _Mean = field(default_factory=_Mean)


@dataclass(frozen=True)
class _Asked:
    """What of a plan says which runs tell about it: keys of their groups, the one that is asked first in front."""

    plan: Plan
    repeats: Key
    rates: tuple[Key, ...]


class Forecaster:
    """Tells what runs will take from those that have been, which may be added as they come.

    Neither adding a run nor asking takes longer the more there are: a sweep asks for each of its cells after each.
    """

    def __init__(self, results: Iterable[Result] = (), *, host: str) -> None:
        self._host = host
        self._groups: dict[Key, _Group] = {}
        self._asked: dict[int, _Asked] = {}
        for result in results:
            self.add(result)

    def add(self, result: Result) -> None:
        """One more run; one that has not come to its end tells nothing."""
        if result.status == "finished":
            with suppress(KeyError, TypeError, ValueError):  # another program's, or another release's
                self._add(result)

    def _add(self, result: Result) -> None:
        found, config = result.metrics, result.config
        begun, ended = (datetime.fromisoformat(text) for text in (result.started_at, result.ended_at))
        whole_s, training_s, energy_j = (ended - begun).total_seconds(), found.get("time_s"), found.get("energy_j")
        gflops_per_s, boards = found.get("gflops_per_s"), boards_of_result(result)
        rates = _rates(boards, str(config["precision"]), str(config["model"]["name"])) if gflops_per_s else ()
        for key in (_repeats(boards, config), *rates):
            group = self._groups.setdefault(key, _Group())
            group.whole_s.add(whole_s)
            group.beside_s.add(whole_s - (training_s or 0.0))
            group.energy_j.add(energy_j)
            group.power_w.add(energy_j / training_s if energy_j is not None and training_s else None)
            group.flops_per_s.add(gflops_per_s and gflops_per_s * 1e9)

    def of(self, plan: Plan) -> Forecast | None:
        """What a plan will take; None where nothing tells it.

        Runs of the same setting with other seeds are asked first. Else FLOPs of training over the rate that was reached
        on the same boards: by the same network at another batch if there was one, by others if not.
        """
        asked = self._keys(plan)
        if (repeats := self._groups.get(asked.repeats)) and (whole_s := repeats.whole_s.value) is not None:
            return Forecast(whole_s, repeats.energy_j.value, "repeats")
        alike = next((group for key in asked.rates if (group := self._groups.get(key))), _Group())
        flops, rate, beside_s = training_flops(plan), alike.flops_per_s.value, alike.beside_s.value
        if flops is None or rate is None or beside_s is None:
            return None
        limit_s = plan.experiment.budget.seconds
        training_s = min(flops / rate, limit_s) if limit_s is not None else flops / rate
        power_w = alike.power_w.value
        return Forecast(training_s + beside_s, None if power_w is None else power_w * training_s, "rate")

    def _keys(self, plan: Plan) -> _Asked:
        """Worked out once a plan: a digest of its configuration takes longer than everything else here."""
        known = self._asked.get(id(plan))
        if known is None or known.plan is not plan:
            boards, experiment = boards_of(plan, self._host), plan.experiment
            rates = _rates(boards, experiment.precision, experiment.model.name)
            known = self._asked[id(plan)] = _Asked(plan, _repeats(boards, experiment.to_json()), rates)
        return known


def _repeats(boards: str, config: Mapping[str, Any]) -> Key:
    return boards, "setting", setting(config, seed=False)


def _rates(boards: str, precision: str, model: str) -> tuple[Key, ...]:
    """Of the same network, of any."""
    return (boards, "model", precision, model), (boards, "any", precision)


def training_flops(plan: Plan) -> float | None:
    """FLOPs that the budget's epochs and steps come to; None where the network's are not known, or neither is set."""
    budget, batch = plan.experiment.budget, plan.experiment.batch
    each = plan.architecture.training_flops
    limits = [budget.steps] if budget.steps is not None else []
    if budget.epochs is not None:
        limits.append(budget.epochs * (plan.dataset.train_images // batch))
    return each * batch * min(limits) if each is not None and limits else None
