"""Hydra's basic sweeper with the cells of the sweep's ledger. Hydra takes sweepers from this namespace alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

from hydra_plugins.energybench_launcher import ClusterLauncher


class OrderedSweeper(BasicSweeper):
    """Hands the launcher the cells that the ledger says are to run, in its order, each at the number of its folder.

    Args:
        max_batch_size, params: as of the basic sweeper.
        shuffle: seed of the order; None: as written. The ledger's order is by it.
    """

    def __init__(
        self, max_batch_size: int | None, params: dict[str, str] | None = None, shuffle: int | None = None
    ) -> None:
        super().__init__(max_batch_size, params)

    def sweep(self, arguments: list[str]) -> None:
        """Runs the ledger's queue; what earlier attempts at a cell left is set aside just before it runs.

        What a job returns is not kept: Hydra hands it to nobody, and with its configurations it is 150 kB a cell.
        """
        from energybench.study.ledger import Sweep, set_aside

        assert self.config is not None and self.launcher is not None
        directory = Path(self.config.hydra.sweep.dir)
        ledger = Sweep.read(directory)
        OmegaConf.save(self.config, directory / "multirun.yaml")
        for numbers in self._batches(ledger.queue):
            for number in set(numbers) - set(ledger.going_on) - with_a_cluster(self.launcher, numbers):
                set_aside(directory, number)
            cells = {number: list(ledger.cells[number]) for number in numbers}
            if isinstance(self.launcher, ClusterLauncher):
                self.launcher.launch_numbered(cells)
                continue
            for job in self.launcher.launch(list(cells.values()), initial_job_idx=numbers[0]):
                _ = job.return_value  # raises what a job raised

    def _batches(self, queue: Sequence[int]) -> Iterator[list[int]]:
        """Rising numbers without a gap, as a launcher numbers its jobs; one by one where it runs them so anyway.

        All at once for a cluster, which has an order of its own.
        """
        if isinstance(self.launcher, ClusterLauncher) and queue:
            yield list(queue)
            return
        limit = 1 if isinstance(self.launcher, BasicLauncher) else self.max_batch_size or len(queue)
        batch: list[int] = []
        for number in queue:
            if batch and (number != batch[-1] + 1 or len(batch) == limit):
                yield batch
                batch = []
            batch.append(number)
        if batch:
            yield batch


def with_a_cluster(launcher: Launcher | None, numbers: Sequence[int]) -> set[int]:
    """Those of the cells that an earlier command handed to a cluster and that are with it still: to be left alone."""
    return launcher.standing(numbers) if isinstance(launcher, ClusterLauncher) else set()
