"""Trains a described network with Gluon. Imports MXNet: only for the training process."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from energybench.config import Training
from energybench.dataset import Batch
from energybench.devices import CPU
from energybench.run.engine import Evaluation, Task
from energybench_plugins.engines.gluon import GluonOptions, installed_build
from energybench_plugins.engines.gluon_blocks import build, mx

STEPS_IN_FLIGHT = 4
"""Steps the host may be ahead of the devices: enough to keep them busy, few enough that progress is true."""

Shards = list[tuple[Any, Any]]
"""One (images, labels) pair of NDArrays a context."""


class GluonTrainer:
    """See `energybench.run.engine.Trainer`."""

    def __init__(self, task: Task, options: GluonOptions) -> None:
        self._task = task
        self._options = options
        self._contexts = [
            mx.cpu(index) if device.kind == CPU else mx.gpu(index) for index, device in enumerate(task.devices)
        ]
        mx.random.seed(task.experiment.seed)
        self.net = build(task.architecture)
        # He et al. 2015: variance 2 / fan-in, for networks of rectifiers.
        self.net.initialize(mx.init.Xavier("gaussian", "in", 2), ctx=self._contexts)
        if options.hybridize:
            self.net.hybridize(static_alloc=True, static_shape=True)
        self._loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
        self._loss.hybridize()
        self._trainer = self._optimizer()
        self._top5 = task.architecture.classes > 5
        self._count = 0
        self._sums: list[Any] = []
        self._flight: deque[Any] = deque()
        self._finished: Any = None
        self._reset_loss()

    def _optimizer(self) -> Any:
        training = self._task.experiment.training
        kvstore = self._options.kvstore if len(self._contexts) > 1 else None
        options = optimizer_options(training)
        return mx.gluon.Trainer(self.net.collect_params(), training.optimizer, options, kvstore=kvstore)

    def feed(self, batches: Iterable[Batch]) -> Iterator[Shards]:
        """Copies each batch to the devices, an equal share to each; the last batch of a pass may divide unevenly."""
        for batch in batches:
            edges = [len(batch.images) * i // len(self._contexts) for i in range(len(self._contexts) + 1)]
            yield [
                (_to(context, batch.images[start:end]), _to(context, batch.labels[start:end].astype("float32")))
                for context, (start, end) in zip(self._contexts, pairwise(edges), strict=True)
                if end > start
            ]

    def step(self, batch: Shards) -> None:
        """Forward and backward on each device, gradients added up, one update."""
        with mx.autograd.record():
            losses = [self._loss(self.net(images), labels) for images, labels in batch]
        mx.autograd.backward(losses)
        images = sum(len(loss) for loss in losses)
        self._trainer.step(images)
        self._count += images
        self._sums = [total + loss.sum() for total, loss in zip(self._sums, losses, strict=True)]
        self._flight.append(losses)
        if len(self._flight) > STEPS_IN_FLIGHT:
            self._finished = self._flight.popleft()
            for loss in self._finished:
                loss.wait_to_read()

    def warm_up(self, training: Iterable[Batch], validation: Iterable[Batch]) -> None:
        """Trains and puts everything back: parameters, a new optimiser, the seed."""
        kept = {name: parameter.data(self._contexts[0]).copy() for name, parameter in self.net.collect_params().items()}
        for batch in self.feed(training):
            self.step(batch)
        self.evaluate(self.feed(validation))
        for name, parameter in self.net.collect_params().items():
            parameter.set_data(kept[name])
        self._trainer = self._optimizer()
        mx.random.seed(self._task.experiment.seed)
        self._reset_loss()

    def recent_loss(self) -> float | None:
        """Mean loss of the last step that is known to be finished."""
        if self._finished is None:
            return None
        values = [loss.asnumpy() for loss in self._finished]
        return float(sum(value.sum() for value in values) / sum(len(value) for value in values))

    def take_loss(self) -> float:
        """See Trainer."""
        loss = sum(float(total.asscalar()) for total in self._sums) / max(self._count, 1)
        self.synchronize()
        self._reset_loss()
        return loss

    def _reset_loss(self) -> None:
        self._sums = [mx.nd.zeros((1,), ctx=context) for context in self._contexts]
        self._count = 0
        self._flight, self._finished = deque(), None

    def evaluate(self, batches: Iterable[Shards]) -> Evaluation:
        """Counts on the devices; the host reads once, at the end."""
        images = 0
        sums: list[list[Any]] = []
        for batch in batches:
            for data, labels in batch:
                images += len(data)
                sums.append(self._scores(data, labels))
        totals = [sum(float(value.asscalar()) for value in column) for column in zip(*sums, strict=True)]
        if not totals:
            return Evaluation(0, 0, None, 0.0)
        top5 = int(totals[2]) if self._top5 else None
        return Evaluation(images, int(totals[0]), top5, totals[1] / images)

    def _scores(self, data: Any, labels: Any) -> list[Any]:
        """Correct in the first place, summed loss and, of more than 5 classes, correct among the first five."""
        logits = self.net(data)
        scores = [(logits.argmax(axis=1) == labels).sum(), self._loss(logits, labels).sum()]
        if self._top5:
            scores.append((logits.topk(k=5, axis=1) == labels.expand_dims(1)).sum())
        return scores

    def synchronize(self) -> None:
        """Waits for every context."""
        mx.nd.waitall()

    def environment(self) -> Mapping[str, str]:
        """Build, threads and contexts."""
        name, version = installed_build() or ("mxnet", mx.__version__)
        return {
            "engine": f"{name} {version}",
            "contexts": ", ".join(str(context) for context in self._contexts),
            "omp_num_threads": os.environ.get("OMP_NUM_THREADS", "default"),
        }


def optimizer_options(training: Training) -> dict[str, float]:
    """The options MXNet's optimiser of that name takes."""
    options = {"learning_rate": training.lr, "wd": training.weight_decay}
    return options if training.optimizer == "adam" else {**options, "momentum": training.momentum}


def _to(context: Any, array: Any) -> Any:
    """The array on a device; on the CPU without a copy, for the batch is nobody else's."""
    if context.device_type == "cpu" and context.device_id == 0:
        return mx.nd.from_numpy(array, zero_copy=array.flags.c_contiguous)
    return mx.nd.array(array, ctx=context, dtype=array.dtype)
