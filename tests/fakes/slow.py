"""A data set that takes its time for each batch."""

from __future__ import annotations

import time
from dataclasses import dataclass

from standin import Tiny


@dataclass(frozen=True)
class SlowOptions:
    wait_s: float = 0.0
    images: int = 64
    validation_images: int = 0


class Slow(Tiny):
    def open(self, input_shape, seed):
        return SlowDataset(super().open(input_shape, seed), self.options.wait_s)


class SlowDataset:
    def __init__(self, data, wait_s):
        self._data = data
        self._wait_s = wait_s

    def batches(self, split, batch, epoch):
        for one in self._data.batches(split, batch, epoch):
            time.sleep(self._wait_s)
            yield one


def energybench_register_datasets(register):
    register("slow", Slow, SlowOptions)
