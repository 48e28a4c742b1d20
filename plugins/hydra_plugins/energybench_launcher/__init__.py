"""Launchers that hand the cells of a sweep to a cluster. Hydra takes launchers from this namespace alone.

They stand on submitit and Ray themselves: Hydra's own plugins for them take a sweep as one call that returns when all
of it has ended, with one request for all cells, and what was submitted is lost with the process that did it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from energybench.cluster.options import ClusterOptions
    from energybench.cluster.scheduler import Scheduler
    from energybench.study.ledger import Sweep


class ClusterLauncher(Launcher):
    """What the launchers of all clusters share: cells are submitted, unless they are there already, and waited for.

    Args:
        options: see `energybench.cluster.options`, which has validated them.
    """

    def __init__(self, **options: Any) -> None:
        self._context: HydraContext | None = None
        self._config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """See Hydra. The task is not called here: a node calls its own."""
        self._context = hydra_context
        self._config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """See Hydra."""
        return self.launch_numbered({initial_job_idx + place: list(cell) for place, cell in enumerate(job_overrides)})

    def launch_numbered(self, cells: Mapping[int, list[str]]) -> Sequence[JobReturn]:
        """Runs cells to their end.

        Args:
            cells: number of its folder -> overrides.

        Raises:
            ClusterError: the scheduler does not take them.
        """
        from energybench.cluster.watch import Watch
        from energybench.console import console

        scheduler, options = self._scheduler()
        there = self.standing(list(cells))
        tickets = [self._ticket(number, overrides) for number, overrides in cells.items()]
        new = [ticket for ticket in tickets if ticket.number not in there]
        if there:
            console().print(f"with {scheduler.title} already: {len(there)} of {len(cells)} cells", markup=False)
        if new:
            scheduler.submit(new)
            console().print(f"submitted to {scheduler.title}: {len(new)} of {len(cells)} cells", markup=False)
        Watch(self._directory(), self._sweep(), scheduler, options).until_ended(tickets)
        return []

    def standing(self, numbers: Sequence[int]) -> set[int]:
        """Those of the cells that an earlier command submitted and that the cluster has still, or has just ended."""
        from energybench.cluster.scheduler import ENDED
        from energybench.run.result import RESULT_FILE

        # asked first: what ends between the two questions has a result
        found = self._scheduler()[0].standing(numbers)
        ended = [n for n in self._sweep().awaited if (self._directory() / str(n) / RESULT_FILE).exists()]
        return {n for n in numbers if n in ended or (n in found and found[n].state != ENDED)}

    def _scheduler(self) -> tuple[Scheduler, ClusterOptions]:
        raise NotImplementedError

    def _options(self) -> Any:
        from energybench.cluster.options import options_of

        assert self._config is not None
        return options_of(self._config.hydra.launcher)

    def _directory(self) -> Path:
        assert self._config is not None
        return Path(str(self._config.hydra.sweep.dir))

    def _sweep(self) -> Sweep:
        from energybench.study.ledger import Sweep

        return Sweep.read(self._directory())

    def _ticket(self, number: int, overrides: list[str]) -> Any:
        from energybench.cluster.ticket import Ticket, for_a_cluster
        from energybench.study.ledger import told
        from energybench.tracking import run_name

        assert self._context is not None and self._config is not None
        config = self._context.config_loader.load_sweep_config(self._config, overrides)
        shown = told([text for text in overrides if not text.startswith("hydra.")], self._sweep().cells)
        name = run_name({"model": {"name": config.model.name}, "batch": config.batch}, shown)
        return Ticket(number, name, for_a_cluster(config, number), str(Path.cwd()))


class SlurmLauncher(ClusterLauncher):
    """`hydra/launcher=slurm`."""

    def _scheduler(self) -> tuple[Scheduler, ClusterOptions]:
        from energybench.cluster.slurm import Slurm

        options = self._options()
        return Slurm(self._directory(), self._sweep().sweep_id, options), options


class RayLauncher(ClusterLauncher):
    """`hydra/launcher=ray`."""

    def _scheduler(self) -> tuple[Scheduler, ClusterOptions]:
        from energybench.cluster.ray import Ray

        options = self._options()
        return Ray(self._sweep().sweep_id, options), options
