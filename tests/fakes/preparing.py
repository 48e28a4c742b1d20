"""A data set that is prepared from nothing: arrays of one shape, some of which cannot be had."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from energybench.dataset import Split
from energybench.prepare import JOURNAL
from energybench.prepared import Sample, Skipped

SHAPE = (2, 3)


@dataclass(frozen=True)
class Job:
    """Samples of SHAPE, sample n filled with n, from n = `first` on.

    Attributes:
        bad: number of one that cannot be had.
        killed_by: a file; while it is there, the process that makes this part is killed as soon as the journal beside
            it names another part.
        slow_s: slept before each sample.
    """

    split: Split
    first: int
    expected: int
    bad: int | None = None
    killed_by: Path | None = None
    slow_s: float = 0.0

    def samples(self) -> Iterator[Sample | Skipped]:
        if self.killed_by is not None and self.killed_by.exists():
            while ".arrow" not in (self.killed_by.parent / JOURNAL).read_text():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        for number in range(self.first, self.first + self.expected):
            time.sleep(self.slow_s)
            if number == self.bad:
                yield Skipped(f"sample {number}", "cannot be had")
            else:
                yield Sample(np.full(SHAPE, number, np.float16), {"label": number % 7, "walk": number // 2})
