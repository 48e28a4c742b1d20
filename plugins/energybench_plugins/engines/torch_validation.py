"""Counts what a network gets right, on the device; the host reads once, at the end. Imports PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from energybench.dataset import Consumer
from energybench_plugins.engines.torch_feed import Layout, Staged
from energybench_plugins.engines.torch_step import scores

NO_LABEL = -100
"""What fills up a batch that is shorter than the others: it counts nowhere."""


class Marks(nn.Module):  # type: ignore[misc]
    """From pixels to counts: correct in the first place, summed loss, correct among the first five; and the logits."""

    def __init__(self, net: Any, layout: Layout, *, top5: bool) -> None:
        super().__init__()
        self.net = net
        self._layout = layout
        self._top5 = top5

    def forward(self, images: Any, labels: Any) -> Any:
        """(3,) float64 and (N, classes) of images (N, C, H, W) with labels (N,) int64."""
        logits = scores(self.net, images, self._layout)
        loss = nn.functional.cross_entropy(logits, labels, ignore_index=NO_LABEL, reduction="sum")
        first = (logits.argmax(1) == labels).sum()
        among = (logits.topk(5, 1).indices == labels[:, None]).sum() if self._top5 else torch.zeros_like(first)
        return torch.stack([first.double(), loss.double(), among.double()]), logits


class SequenceSums:
    """Adds up the softmax over the samples of each sequence, of the share that one rank is given.

    Args:
        sequences: (samples,) int64, number of the sequence of each sample of a pass, in order.
        batch: samples of each batch but the last.
        rank, world: the rank takes the part number `rank` of `world` equal parts of each batch.
        classes: of the network.
        device: a torch.device.
    """

    def __init__(
        self, sequences: NDArray[np.int64], batch: int, rank: int, world: int, classes: int, device: Any
    ) -> None:
        parts = [sequences[start : start + batch] for start in range(0, len(sequences), batch)]
        consumer = Consumer(rank, world)
        own = [part[consumer.share(len(part))] for part in parts]
        self._own = torch.from_numpy(np.concatenate([np.empty(0, np.int64), *own])).to(device)
        self._next = 0
        count = int(sequences.max()) + 1 if len(sequences) else 0
        self.sums = torch.zeros((count, classes), dtype=torch.float64, device=device)

    def add(self, logits: Any) -> None:
        """Those of the next samples, (n, classes)."""
        numbers = self._own[self._next : self._next + len(logits)]
        self.sums.index_add_(0, numbers, logits.softmax(1).double())
        self._next += len(logits)


class Validation:
    """Passes over a split, each batch in the buffers of training, so that no shape is new to what was compiled.

    Args:
        net: the network itself, shared with training.
        marks: of the same network, compiled or not.
        buffers: the static batch; a longer batch gets longer ones.
        layout: of longer ones.
    """

    def __init__(self, net: Any, marks: Callable[[Any, Any], Any], buffers: Staged, layout: Layout) -> None:
        self._net = net
        self._marks = marks
        self._buffers = buffers
        self._layout = layout

    def __call__(self, batches: Iterable[Staged], also: SequenceSums | None = None) -> tuple[int, Any]:
        """Images seen, and (3,) float64 on the device: see `Marks`; `also` is given the logits."""
        images, totals = 0, torch.zeros(3, dtype=torch.float64, device=self._layout.device)
        self._net.eval()
        with torch.no_grad():
            for batch in batches:
                if len(batch.labels):
                    images += len(batch.labels)
                    counts, logits = self._one(batch)
                    totals += counts
                    if also is not None:
                        also.add(logits[: len(batch.labels)])
        self._net.train()
        return images, totals

    def _one(self, batch: Staged) -> tuple[Any, Any]:
        count = len(batch.labels)
        if count > len(self._buffers.labels):
            self._buffers = self._layout.buffers(count, tuple(self._buffers.images.shape[1:]))
        self._buffers.take(batch)
        self._buffers.labels[count:].fill_(NO_LABEL)
        counts, logits = self._marks(self._buffers.images, self._buffers.labels)
        return counts, logits
