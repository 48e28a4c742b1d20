"""What the devices of each engine are given of batches, here on the CPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest

from energybench.dataset import Batch

Fed = Callable[[Iterable[Batch]], Iterator[tuple[np.ndarray, np.ndarray]]]
"""Images (N, C, H, W) and labels (N,) of each batch."""


def engines() -> list[Fed]:
    """Those whose framework is installed; the test is skipped where none is."""
    found = [fed for name, fed in (("mxnet", gluon), ("torch", torch)) if importlib.util.find_spec(name)]
    if not found:
        pytest.skip("needs energybench[gluon] or energybench[torch]")
    return found


def gluon(batches: Iterable[Batch]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """On two devices."""
    import gluon_runs

    for shards in gluon_runs.trainer_of(2).feed(batches):
        images, labels = zip(*(pair for part in shards for pair in part), strict=True)
        yield tuple(np.concatenate([one.asnumpy() for one in parts]) for parts in (images, labels))


def torch(batches: Iterable[Batch]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """In the buffers that a step reads, which hold 64 samples."""
    import torch

    from energybench_plugins.engines.torch_feed import Feed, Layout

    layout, given = Layout(torch.device("cpu"), torch.float32, torch.channels_last), list(batches)
    buffers = layout.buffers(64, given[0].images.shape[1:])
    for staged in Feed(layout)(given):
        count = len(staged.labels)
        buffers.take(staged)
        yield buffers.images[:count].numpy().copy(), buffers.labels[:count].numpy().copy()
