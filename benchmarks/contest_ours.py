"""A network trained by energybench: its worker's own loop, a window at a time. A contestant: see `contest.py`."""

from __future__ import annotations

import argparse
import copy
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from contest import answer, undecided

from energybench.cells import arguments, read
from energybench.devices import Device, cpu_device
from energybench.registry import Registry
from energybench.run.assignment import Assignment
from energybench.run.spending import Spending
from energybench.run.worker import Loop

LR = 1e-4


class Quiet:
    def emit(self, *told: object, **more: object) -> None:
        pass


class Ours:
    def __init__(self, overrides: list[str], rank: int, world: int, meeting: str | None) -> None:
        self._overrides, self._rank, self._world, self._meeting = overrides, rank, world, meeting
        self._epochs = 0
        self._apart: Any = None

    def load(self) -> None:
        """Builds and compiles, beside others."""
        import torch

        registry = Registry()
        self._experiment = read(arguments(self._overrides), registry).cells[0].experiment
        for name, value in self._environment().items():
            torch.os.environ.setdefault(name, value)
        folder = self._meeting or tempfile.mkdtemp()
        Path(folder).mkdir(exist_ok=True)
        given = Assignment(self._experiment, (self._device(),), self._rank, self._world, folder)
        self._loop = Loop(given, Quiet())  # type: ignore[arg-type]
        self._trainer: Any
        self._trainer, self._dataset = self._loop._load()
        tries = torch.backends.cudnn.benchmark
        with undecided():
            self._prepare("compile")
        torch.backends.cudnn.benchmark = tries
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def ready(self) -> None:
        self._prepare("capture")
        self._loop._warm_up(self._trainer, self._dataset)

    def _prepare(self, name: str) -> None:
        if (work := self._trainer.preparations().get(name)) is not None:
            work(*self._loop._samples(name, self._dataset))
            self._trainer.synchronize()

    def train(self, seconds: float, exchange: bool) -> tuple[int, float]:
        import time

        step, loop, trainer = self._trainer._step, self._loop, self._trainer
        if not exchange:
            trainer._step = self._without_exchange()
        self._epochs += 1
        budget = replace(self._experiment.budget, epochs=None, steps=None, seconds=seconds)
        loop._experiment = replace(self._experiment, budget=budget)
        loop._spending = Spending(budget, loop._spending.per_epoch, epoch=self._epochs - 1)
        trainer.synchronize()
        begun = time.perf_counter()
        trainer.begin_epoch(self._epochs, LR)
        loop._train(trainer, self._dataset, self._epochs)
        took = time.perf_counter() - begun
        trainer._step = step
        return loop._spending.steps, took

    def _without_exchange(self) -> Any:
        """The same step, in which each rank keeps its gradients to itself; it shares the other's memory."""
        from energybench_plugins.engines.torch_step import Step, recording

        class Apart(Step):
            def _without_exchange(self, part: int) -> Any:
                return self._objective.no_sync()

        if self._apart is None:
            trainer = self._trainer
            twin = copy.copy(trainer._step)
            twin.__class__, twin._graph = Apart, None
            if trainer._step.recorded:
                for _ in range(3):
                    twin.run()
                trainer.synchronize()
                trainer.optimizer.zero_grad(set_to_none=True)
                with recording(trainer._stream, trainer._step._graph.pool()) as graph:
                    twin.run()
                twin._graph = graph
            self._apart = twin
        return self._apart

    def _environment(self) -> dict[str, str]:
        """What the supervisor would start the worker with; which card it sees is settled already."""
        import torch  # noqa: F401

        from energybench_plugins.engines.torch import TorchEngine
        from energybench_plugins.engines.torch_options import TorchOptions

        told = TorchEngine(TorchOptions()).environment([self._device()])
        return {name: value for name, value in told.items() if not name.startswith("CUDA_")}

    def _device(self) -> Device:
        """What the driver would report; the engine needs its kind and its compute capability."""
        if self._experiment.gpu.name == "cpu":
            return cpu_device()
        import torch

        major, minor = torch.cuda.get_device_capability()
        return Device("gpu", "0", torch.cuda.get_device_name(), "newest", rank=10 * major + minor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--world", type=int, default=1)
    parser.add_argument("--meeting", help="folder in which several ranks meet")
    given = parser.parse_args()
    answer(lambda: Ours(given.overrides, given.rank, given.world, given.meeting))


if __name__ == "__main__":
    main()
