"""Counts what a network gets right, on the device; the host reads once, at the end. Imports PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from energybench_plugins.engines.torch_feed import Layout, Staged
from energybench_plugins.engines.torch_step import scores

NO_LABEL = -100
"""What fills up a batch that is shorter than the others: it counts nowhere."""


class Marks(nn.Module):  # type: ignore[misc]
    """From pixels to counts: correct in the first place, summed loss, correct among the first five."""

    def __init__(self, net: Any, layout: Layout, *, top5: bool) -> None:
        super().__init__()
        self.net = net
        self._layout = layout
        self._top5 = top5

    def forward(self, images: Any, labels: Any) -> Any:
        """(3,) float64 of images (N, C, H, W) with labels (N,) int64."""
        logits = scores(self.net, images, self._layout)
        loss = nn.functional.cross_entropy(logits, labels, ignore_index=NO_LABEL, reduction="sum")
        first = (logits.argmax(1) == labels).sum()
        among = (logits.topk(5, 1).indices == labels[:, None]).sum() if self._top5 else torch.zeros_like(first)
        return torch.stack([first.double(), loss.double(), among.double()])


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

    def __call__(self, batches: Iterable[Staged]) -> tuple[int, Any]:
        """Images seen, and (3,) float64 on the device: see `Marks`."""
        images, totals = 0, torch.zeros(3, dtype=torch.float64, device=self._layout.device)
        self._net.eval()
        with torch.no_grad():
            for batch in batches:
                if len(batch.labels):
                    images += len(batch.labels)
                    totals += self._one(batch)
        self._net.train()
        return images, totals

    def _one(self, batch: Staged) -> Any:
        count = len(batch.labels)
        if count > len(self._buffers.labels):
            self._buffers = self._layout.buffers(count, tuple(batch.images.shape[1:]))
        self._buffers.take(batch)
        self._buffers.labels[count:].fill_(NO_LABEL)
        return self._marks(self._buffers.images, self._buffers.labels)
