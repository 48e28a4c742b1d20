"""Pieces of a Gluon run in the test's own process: an experiment, a worker's loop, a trainer, batches."""

from __future__ import annotations

import numpy as np
from omegaconf import OmegaConf

from energybench.config import make, make_architecture, resolve
from energybench.dataset import Batch
from energybench.devices import cpu_device
from energybench.registry import Registry
from energybench.run.assignment import Assignment
from energybench.run.engine import Task
from energybench.run.worker import Loop


def experiment(**sections):
    config = {
        "model": {"name": "lenet"},
        "dataset": {"name": "digits"},
        "engine": {"name": "gluon"},
        "meter": {"name": "tdp"},
        "gpu": {"name": "cpu"},
        "batch": 64,
        "training": {"initializer": "xavier"},
        "budget": {"epochs": 2},
        "measure": {"baseline_s": 0.0, "warmup_steps": 0},
        "tracking": {"name": "none"},
    }
    return resolve(OmegaConf.merge(config, sections), Registry())


class Told:
    """Keeps what a worker's loop says."""

    def __init__(self):
        self.ended = []

    def emit(self, kind, phase="", epoch=None, values=None, text=None):
        if kind == "ended" and phase in ("train", "validate"):
            told = {key: value for key, value in values.items() if key != "input_wait_s"}  # no two runs wait alike
            self.ended.append((phase, epoch, told))


def trained(directory, contexts=1, **sections):
    """What the worker's own loop tells of training and validation, in this process."""
    told = Told()
    Loop(Assignment(experiment(**sections), (cpu_device(),) * contexts, 0, 1, str(directory)), told).run()
    return told.ended


def trainer_of(contexts=1, **sections):
    chosen, registry = experiment(**sections), Registry()
    classes = make(registry, "dataset", chosen.dataset).info().classes
    architecture = make_architecture(registry, chosen.model, classes)
    task = Task(chosen, architecture, (cpu_device(),) * contexts)
    return make(registry, "engine", chosen.engine).trainer(task)


def batches(count, size=64, shape=(1, 28, 28), classes=10):
    random = np.random.default_rng(7)
    for _ in range(count):
        images = random.normal(size=(size, *shape)).astype(np.float32)
        yield Batch(images, random.integers(0, classes, size))


def step(trainer, given, lr=0.01):
    trainer.begin_epoch(1, lr)
    for batch in trainer.feed(given):
        trainer.step(batch)
    trainer.synchronize()
