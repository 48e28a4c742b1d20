"""One optimiser step over buffers that never move: run as it is, or recorded once in a CUDA graph and replayed.

Imports PyTorch: only for the training process.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from energybench_plugins.engines.torch_feed import Layout, Staged
from energybench_plugins.engines.torch_half import HalfCopy

WARM_STEPS = 3
"""Steps before one is recorded, on the stream of the recording, as torch's notes on CUDA graphs ask for."""

WARM_STEPS_OF_SEVERAL = 11
"""The same under DistributedDataParallel, which changes its buckets in the first ten."""


@contextlib.contextmanager
def recording(stream: Any, pool: Any | None = None) -> Iterator[Any]:
    """What is enqueued on `stream` within is done by each replay of the graph that this gives, and not now.

    Other threads may go on calling CUDA meanwhile, as NCCL's watchdog does. Python collects its garbage before and not
    within: a graph of before that was destroyed by it would break the recording, and torch no longer sees to that since
    its release 2.9 (pytorch/pytorch#161037).
    """
    graph = torch.cuda.CUDAGraph()
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    try:
        with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
            yield graph
    finally:
        if collects:
            gc.enable()


class Objective(nn.Module):  # type: ignore[misc]
    """From pixels to the mean loss: what is differentiated, and what is compiled."""

    def __init__(self, net: Any, layout: Layout, smoothing: float, *, mixes: bool) -> None:
        super().__init__()
        self.net = net
        self._layout = layout
        self._smoothing = smoothing
        self._mixes = mixes

    def forward(self, images: Any, labels: Any, share: Any) -> Any:
        """Mean loss of images (N, C, H, W) with labels (N,) int64, mixed with the reversed batch by `share` ()."""
        if not self._mixes:
            return self._loss(scores(self.net, images, self._layout), labels)
        logits = scores(self.net, images * share + images.flip(0) * (1 - share), self._layout)
        return self._loss(logits, labels) * share + self._loss(logits, labels.flip(0)) * (1 - share)

    def _loss(self, logits: Any, labels: Any) -> Any:
        return nn.functional.cross_entropy(logits, labels, label_smoothing=self._smoothing)


def scores(net: Any, images: Any, layout: Layout) -> Any:
    """Logits (N, classes) float32, worked out in the layout's precision."""
    device = images.device.type
    with torch.autocast(device, layout.dtype, enabled=layout.dtype != torch.float32, cache_enabled=False):
        logits = net(images)
    return logits.float()


class Step:
    """Forward, backward and update on static buffers.

    Attributes:
        loss: () float32, sum of the mean losses of a step's parts over all steps since `take`.
        last: () float32, mean loss of the step done last.

    Args:
        objective: an Objective, compiled and wrapped as it is to run.
        optimizer: with its state allocated.
        scaler: a GradScaler of fp16, or None.
        buffers: the static batch.
        parts: of which the batch is worked through one after the other, their gradients added up.
        half: the copy of the weights that the objective works on, where it is not the optimiser's own.
    """

    def __init__(
        self,
        objective: Any,
        optimizer: Any,
        scaler: Any | None,
        buffers: Staged,
        parts: int,
        half: HalfCopy | None = None,
    ) -> None:
        self._objective = objective
        self._optimizer = optimizer
        self._scaler = scaler
        self._buffers = buffers
        self._parts = parts
        self._half = half
        device = buffers.images.device
        self._shares = torch.ones(parts, device=device)
        self.loss = torch.zeros((), device=device)
        self.last = torch.zeros((), device=device)
        self._graph: Any | None = None

    def __call__(self) -> None:
        """Enqueues one step on what the buffers hold."""
        if self._graph is None:
            self.run()
        else:
            self._graph.replay()

    def mix(self, shares: Iterable[float]) -> None:
        """Sets by which share each part of the next step is mixed with its own reverse."""
        for part, share in enumerate(shares):
            self._shares[part].fill_(float(share))

    def run(self) -> None:
        """One step, kernel by kernel."""
        self._optimizer.zero_grad(set_to_none=True)
        self.last.zero_()
        size = len(self._buffers.labels) // self._parts
        for part in range(self._parts):
            chosen = slice(part * size, (part + 1) * size)
            with self._without_exchange(part):
                loss = self._objective(self._buffers.images[chosen], self._buffers.labels[chosen], self._shares[part])
                mean = loss / self._parts if self._parts > 1 else loss
                (mean if self._scaler is None else self._scaler.scale(mean)).backward()
            self.last.add_(mean.detach())
        self._update()
        self.loss.add_(self.last)

    def _without_exchange(self, part: int) -> Any:
        """Gradients go to the other ranks with the last part alone."""
        last = part == self._parts - 1
        exchanging = getattr(self._objective, "no_sync", None)
        return contextlib.nullcontext() if last or exchanging is None else exchanging()

    def _update(self) -> None:
        if self._half is not None:
            self._half.hand_over()
        if self._scaler is None:
            self._optimizer.step()
        else:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        if self._half is not None:
            self._half.refresh()

    def record(self, stream: Any) -> None:
        """Records one step on `stream`, which must have run some before; does none."""
        self._optimizer.zero_grad(set_to_none=True)
        with recording(stream) as graph:
            self.run()
        self._graph = graph

    def forget(self) -> None:
        """Gives up what was recorded: NCCL takes no leave while a recording of its work is kept."""
        if self._graph is not None:
            self._graph.reset()
            self._graph = None

    @property
    def recorded(self) -> bool:
        """Whether steps are replayed."""
        return self._graph is not None
