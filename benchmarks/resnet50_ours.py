"""ResNet-50 v1.5 trained by energybench: its worker's own loop, an epoch at a time. A contestant of `resnet50.py`."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

from contest import answer

from energybench.cells import arguments, extend_search_path, read
from energybench.devices import Device, cpu_device
from energybench.registry import Registry
from energybench.run.worker import Assignment, Loop


class Quiet:
    def emit(self, *told: object, **more: object) -> None:
        pass


def ready(overrides: list[str]) -> Callable[[float], tuple[int, float]]:
    registry = Registry()
    extend_search_path(registry)
    experiment = read(arguments(overrides), registry).cells[0].experiment
    directory = tempfile.mkdtemp()
    loop = Loop(Assignment(experiment, (_device(experiment.gpu.name),), 0, 1, directory), Quiet())
    trainer, dataset = loop._load()
    loop._prepare(trainer, dataset)
    loop._warm_up(trainer, dataset)
    epochs = 0

    def train_for(seconds: float) -> tuple[int, float]:
        nonlocal epochs
        trainer.synchronize()
        before, begun = loop._steps, time.perf_counter()
        while True:
            epochs += 1
            left = max(seconds - (time.perf_counter() - begun), 0.0)
            loop._seconds = 0.0
            loop._experiment = replace(experiment, budget=replace(experiment.budget, seconds=max(left, 1e-3)))
            trainer.begin_epoch(epochs, 1e-4)
            loop._train(trainer, dataset, epochs)
            if time.perf_counter() - begun >= seconds:
                return loop._steps - before, time.perf_counter() - begun

    return train_for


def _device(name: str) -> Device:
    """What the driver would report; the engine needs its kind and its compute capability."""
    if name == "cpu":
        return cpu_device()
    import torch

    major, minor = torch.cuda.get_device_capability()
    return Device("gpu", "0", torch.cuda.get_device_name(), name, rank=10 * major + minor)


if __name__ == "__main__":
    answer(lambda: ready(sys.argv[1:]))
