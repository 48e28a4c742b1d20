"""A search by Optuna: trials instead of a grid, kept in the sweep's folder, so that it goes on after any end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energybench.errors import ConfigError, DataError
from energybench.run.result import Result
from energybench.study.limits import PRUNED, asked, beyond
from energybench.study.space import Space

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

STORE_FILE = "search.db"
DIRECTIONS = ("minimize", "maximize")


def check_search(objectives: Any, trials: Any) -> None:
    """Raises ConfigError for what no search can be made of."""
    if find_spec("optuna") is None:
        raise ConfigError("hydra/sweeper=optuna: Optuna is not installed; run pip install 'energybench[optuna]'")
    if not isinstance(objectives, Mapping) or not asked(objectives):
        raise ConfigError(f"hydra.sweeper.objectives={objectives}: give metrics, as in {{energy_j: minimize}}")
    for metric, direction in asked(objectives).items():
        if direction not in DIRECTIONS:
            raise ConfigError(f"hydra.sweeper.objectives.{metric}={direction}: give {' or '.join(DIRECTIONS)}")
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise ConfigError(f"hydra.sweeper.trials={trials}: give a whole number from 1")


class Search:
    """Trials of one search, from a store that outlives the process.

    A trial is running from when it is chosen until its result is told. One that a process left so when it ended is the
    next to be run: with the same values and the same number, as if it had never begun.

    Args:
        directory: the sweep's folder.
        space: what is chosen from.
        objectives: metric -> minimize | maximize; null: not an objective.
        limits: metric -> its largest value, beyond which a trial is pruned; null: none.
        seed: of the choices.
    """

    def __init__(
        self,
        directory: Path,
        space: Space,
        objectives: Mapping[str, str | None],
        limits: Mapping[str, float | None],
        seed: int,
    ) -> None:
        self._directory = directory
        self._space = space
        self._objectives = asked(objectives)
        self._limits = asked(limits)
        self._study = self._open(seed)

    def _open(self, seed: int) -> Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        store = optuna.storages.RDBStorage(f"sqlite:///{self._directory.absolute() / STORE_FILE}")
        directions = list(self._objectives.values())
        study = optuna.create_study(storage=store, study_name="search", directions=directions, load_if_exists=True)
        begun = study.user_attrs.get("objectives", self._objectives)
        if begun != self._objectives:
            raise ConfigError(
                f"{self._directory}: the search in it has other objectives ({', '.join(begun)}); choose another folder "
                "with hydra.sweep.dir=..., or keep to them"
            )
        study.set_user_attr("objectives", self._objectives)
        # The choices of a search that goes on are not those that it began with once more.
        study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.get_trials(deepcopy=False)))
        return study

    def waiting(self, trials: int) -> Iterator[FrozenTrial]:
        """The trials to be run until there are `trials` of them; each is to be told before the next is asked for."""
        from optuna.trial import TrialState

        for left in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not self._ended_before(left):
                yield left
        while len(self._study.get_trials(deepcopy=False)) < trials:
            number = self._study.ask(self._space.distributions()).number
            trial = self._study.get_trials(deepcopy=False)[number]
            if not self._as_before(trial):
                yield trial

    def overrides(self, trial: FrozenTrial) -> list[str]:
        """Of the cell that a trial is."""
        return self._space.overrides(trial.params)

    def tell(self, trial: FrozenTrial) -> None:
        """Ends a trial by the result in its folder.

        Raises:
            DataError: a run that finished lacks an objective, as no run of this search will have it.
        """
        from optuna.trial import TrialState

        result = Result.read(self._directory / str(trial.number))
        if result.status == "interrupted":
            return
        pruned = result.failure is not None and result.failure.kind in PRUNED
        if pruned or (result.status == "finished" and beyond(result, self._limits)):
            self._study.tell(trial.number, state=TrialState.PRUNED)
        elif result.status != "finished":
            self._study.tell(trial.number, state=TrialState.FAIL)
        elif missing := [metric for metric in self._objectives if metric not in result.metrics]:
            self._study.tell(trial.number, state=TrialState.FAIL)
            raise DataError(
                f"hydra.sweeper.objectives: a run has no {', '.join(missing)}, so nothing can be told by it; "
                "choose other objectives, or data and a meter that give it"
            )
        else:
            self._study.tell(trial.number, [result.metrics[metric] for metric in self._objectives])

    def _ended_before(self, trial: FrozenTrial) -> bool:
        """Tells a trial whose run came to its end, and whose process ended before it could say so."""
        try:
            result = Result.read(self._directory / str(trial.number))
        except DataError:
            return False
        if result.status == "interrupted":
            return False
        self.tell(trial)
        return True

    def _as_before(self, trial: FrozenTrial) -> bool:
        """Ends a trial of values that have been tried with what they gave: running them again costs joules."""
        for earlier in self._study.get_trials(deepcopy=False):
            if earlier.number != trial.number and earlier.params == trial.params and earlier.state.is_finished():
                values = earlier.values if earlier.state.name == "COMPLETE" else None
                self._study.tell(trial.number, values, None if values else earlier.state)
                return True
        return False

    def best(self) -> list[str]:
        """The trials that no other is better than in every objective, a line each."""
        return [
            f"trial {trial.number}: {_words(trial.params)} | {_values(self._objectives, trial.values)}"
            for trial in self._study.best_trials
        ]


def _words(params: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in params.items())


def _values(objectives: Mapping[str, str], values: Sequence[float]) -> str:
    return ", ".join(f"{metric} {value:.4g}" for metric, value in zip(objectives, values, strict=True))
