"""How long a run will take and what it will use, as far as earlier runs tell it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean

from energybench.run.preflight import Plan
from energybench.run.result import Result
from energybench.study.sameness import boards_of, boards_of_result, setting


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


@dataclass(frozen=True)
class _Run:
    """What is kept of an earlier run."""

    setting: str
    boards: str
    model: str
    precision: str
    whole_s: float
    training_s: float | None
    energy_j: float | None
    flops_per_s: float | None

    @property
    def beside_s(self) -> float:
        return self.whole_s - (self.training_s or 0.0)

    @property
    def power_w(self) -> float | None:
        return self.energy_j / self.training_s if self.energy_j is not None and self.training_s else None


class Forecaster:
    """Tells what runs will take from those that have been, which may be added as they come."""

    def __init__(self, results: Iterable[Result] = (), *, host: str) -> None:
        self._host = host
        self._runs: list[_Run] = []
        for result in results:
            self.add(result)

    def add(self, result: Result) -> None:
        """One more run; one that has not come to its end tells nothing."""
        if result.status == "finished":
            self._runs.append(_kept(result))

    def of(self, plan: Plan) -> Forecast | None:
        """What a plan will take; None where nothing tells it.

        Runs of the same setting with other seeds are asked first. Else FLOPs of training over the rate that was reached
        on the same boards: by the same network at another batch if there was one, by others if not.
        """
        boards, precision = boards_of(plan, self._host), plan.experiment.precision
        here = [run for run in self._runs if run.boards == boards]
        same = setting(plan.experiment.to_json(), seed=False)
        if repeats := [run for run in here if run.setting == same]:
            energy_j = _mean(repeats, lambda run: run.energy_j)
            return Forecast(fmean(run.whole_s for run in repeats), energy_j, "repeats")
        alike = [run for run in here if run.precision == precision and run.flops_per_s]
        alike = [run for run in alike if run.model == plan.experiment.model.name] or alike
        flops, rate = training_flops(plan), _mean(alike, lambda run: run.flops_per_s)
        if flops is None or rate is None:
            return None
        limit_s = plan.experiment.budget.seconds
        training_s = min(flops / rate, limit_s) if limit_s is not None else flops / rate
        power_w = _mean(alike, lambda run: run.power_w)
        return Forecast(
            training_s + fmean(run.beside_s for run in alike), None if power_w is None else power_w * training_s, "rate"
        )


def training_flops(plan: Plan) -> float | None:
    """FLOPs that the budget's epochs and steps come to; None where the network's are not known, or neither is set."""
    budget, batch = plan.experiment.budget, plan.experiment.batch
    each = plan.architecture.training_flops
    limits = [budget.steps] if budget.steps is not None else []
    if budget.epochs is not None:
        limits.append(budget.epochs * (plan.dataset.train_images // batch))
    return each * batch * min(limits) if each is not None and limits else None


def _kept(result: Result) -> _Run:
    found, config = result.metrics, result.config
    begun, ended = (datetime.fromisoformat(text) for text in (result.started_at, result.ended_at))
    gflops_per_s = found.get("gflops_per_s")
    return _Run(
        setting=setting(config, seed=False),
        boards=boards_of_result(result),
        model=str(config["model"]["name"]),
        precision=str(config["precision"]),
        whole_s=(ended - begun).total_seconds(),
        training_s=found.get("time_s"),
        energy_j=found.get("energy_j"),
        flops_per_s=None if gflops_per_s is None else gflops_per_s * 1e9,
    )


def _mean(runs: Sequence[_Run], value: Callable[[_Run], float | None]) -> float | None:
    known = [found for run in runs if (found := value(run)) is not None]
    return fmean(known) if known else None
