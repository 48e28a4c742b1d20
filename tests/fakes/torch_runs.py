"""Pieces of a run with PyTorch in the test's own process: an experiment, a trainer, batches."""

from __future__ import annotations

import numpy as np
import torch
from gluon_runs import Told, batches, step  # noqa: F401  (what tests of both engines share)
from gluon_runs import experiment as gluon_experiment

from energybench.config import make, make_architecture
from energybench.devices import Device, cpu_device
from energybench.registry import Registry
from energybench.run.assignment import Assignment
from energybench.run.engine import Task
from energybench.run.worker import Loop

torch.set_num_threads(1)  # barriers between threads take longer than the work where tests share cores


def experiment(**sections):
    return gluon_experiment(**{"engine": {"name": "torch"}, **sections})


def gpu():
    """The first GPU, as a meter would report it."""
    major, minor = torch.cuda.get_device_capability()
    return Device("gpu", "0", torch.cuda.get_device_name(), "newest", rank=10 * major + minor)


def trainer_of(device=None, directory=None, **sections):
    chosen, registry = experiment(**sections), Registry()
    classes = make(registry, "dataset", chosen.dataset).info().classes
    architecture = make_architecture(registry, chosen.model, classes)
    task = Task(chosen, architecture, (device or cpu_device(),), directory=directory)
    return make(registry, "engine", chosen.engine).trainer(task)


def trained(directory, device=None, **sections):
    """What the worker's own loop tells of training and validation, in this process."""
    told = Told()
    Loop(Assignment(experiment(**sections), (device or cpu_device(),), 0, 1, str(directory)), told).run()
    return told.ended


def prepare(trainer, size=64, shape=(1, 28, 28), classes=10):
    """What the worker does between loading and warming up."""
    for name, work in trainer.preparations().items():
        work(endless(size, shape, classes), batches(1, size, shape, classes))
        trainer.synchronize()
        yield name


def endless(size=64, shape=(1, 28, 28), classes=10):
    while True:
        yield from batches(3, size, shape, classes)


def parameters(trainer):
    return {name: value for name, value in trainer.state().items() if name.startswith("parameters/")}


def assert_near(found, expected, share):
    """Every array within `share` of the largest value of its twin."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(float(np.abs(value).max()), 1e-30)
        np.testing.assert_allclose(found[name], value, rtol=0, atol=share * scale, err_msg=name)
