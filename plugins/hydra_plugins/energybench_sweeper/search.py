"""Searches with Optuna instead of running a grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.energybench_sweeper import with_a_cluster


class OptunaSweeper(Sweeper):
    """Asks a search for one trial after the other and hands each to the launcher as a job of the trial's number.

    Args:
        trials: how many, in all starts of the search together.
        objectives: metric -> minimize | maximize; null: not an objective.
        limits: energy_j, time_s -> where a trial is ended and pruned; null: nowhere.
        seed: of the choices.
        params: key -> what it is chosen from, as on the command line.
    """

    def __init__(
        self,
        trials: int,
        objectives: dict[str, str | None],
        limits: dict[str, float | None] | None = None,
        seed: int = 0,
        params: dict[str, str] | None = None,
    ) -> None:
        self._trials = trials
        self._objectives = dict(objectives)
        self._limits = dict(limits or {})
        self._seed = seed
        self._params = dict(params or {})
        self._launcher: Launcher | None = None
        self._config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """See Hydra."""
        self._config = config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Runs trials until there are as many as wanted, and says which are best."""
        from energybench.console import console
        from energybench.study.ledger import set_aside
        from energybench.study.search import Search
        from energybench.study.space import Space

        assert self._config is not None and self._launcher is not None
        directory = Path(self._config.hydra.sweep.dir)
        OmegaConf.save(self._config, directory / "multirun.yaml")
        space = Space.read(self._params, arguments)
        search = Search(directory, space, self._objectives, self._limits, self._seed)
        returned, out = [], console()
        for trial in search.waiting(self._trials):
            if trial.number not in with_a_cluster(self._launcher, [trial.number]):
                set_aside(directory, trial.number)
            out.print(f"trial {trial.number + 1} of {self._trials}", markup=False)
            returned.append(self._launcher.launch([search.overrides(trial)], initial_job_idx=trial.number))
            _ = [job.return_value for job in returned[-1]]  # raises what a job raised
            search.tell(trial)
        out.print("no trial is better in every objective than:")
        for line in search.best():
            out.print(line, markup=False, soft_wrap=True)
        return returned
