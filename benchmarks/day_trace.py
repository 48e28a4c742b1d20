"""A day's trace of eight GPUs, read 50 times a second: written, read back, and the energy of 10,000 windows.

    python benchmarks/day_trace.py [--hours 24] [--gpus 8] [--windows 10000]

Prints seconds and the largest memory of the process, and compares every window with the true energy.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

import numpy as np

from energybench.power.meter import Channel, Source
from energybench.power.series import Columns
from energybench.power.timeline import Timeline
from energybench.power.trace import read_trace, write_trace
from energybench.testing import constant, simulation, square
from energybench.testing.presets import pascal

HERTZ = 50


def main() -> None:
    """Writes, reads and asks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--windows", type=int, default=10_000)
    given = parser.parse_args()
    seconds = 3600 * given.hours
    curves = [square(60 + n, 240 + n, 3.7 + n / 10, 0.7) + constant(5) for n in range(given.gpus)]
    channels = [Channel(f"gpu.{n}", "gpu", f"GPU-{n}") for n in range(given.gpus)]
    sources = [
        Source(one.name, "usage", "power_w", 1 / HERTZ, resolution=1e-3, update_s=0.02, averaging_s=0.02)
        for one in channels
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "power.parquet"
        columns: dict[tuple[str, str], Columns] = {}
        for n, source in enumerate(sources):
            columns |= simulation.readings(pascal(curves[n], 1.0), [source], seconds, 10**12, seed=n)
        count = sum(map(len, columns.values()))
        started = time.perf_counter()
        write_trace(path, columns, channels)
        print(
            f"{count:,} readings written in {time.perf_counter() - started:.1f} s, {path.stat().st_size / 1e6:.0f} MB"
        )
        del columns
        _ask(path, channels, sources, curves, seconds, given.windows)


def _ask(path: Path, channels: list[Channel], sources: list[Source], curves: list, seconds: float, count: int) -> None:
    """In a process of its own: its memory is that of reading."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    process = context.Process(target=answer, args=(path, channels, sources, curves, seconds, count))
    process.start()
    process.join()


def answer(
    path: Path, channels: list[Channel], sources: list[Source], curves: list, seconds: float, count: int
) -> None:
    """Energy of `count` windows, an equal share on each channel, one channel after the other."""
    chance, errors = random.Random(0), []
    started = time.perf_counter()
    asking_s = 0.0
    for channel, source, curve in zip(channels, sources, curves, strict=True):
        columns, _ = read_trace(path, channel.name)
        line = Timeline(channel, [source], columns)
        del columns
        windows = []
        for _ in range(count // len(channels)):
            length_s = 10 ** chance.uniform(-1, np.log10(seconds / 2))
            start_s = chance.uniform(1, seconds - length_s - 1)
            windows.append((start_s, start_s + length_s))
        begun = time.perf_counter()
        found = [line.energy(10**12 + round(a * 1e9), 10**12 + round(b * 1e9)) for a, b in windows]
        asking_s += time.perf_counter() - begun
        edges = np.array(windows)
        true_j = simulation.energy_j(curve, edges[:, 0], edges[:, 1])
        errors += [abs(one.energy_j / true - 1) for one, true in zip(found, true_j, strict=True)]
        del line
    status = Path("/proc/self/status").read_text(encoding="utf-8")  # getrusage would count the parent's as well
    memory_gb = int(status.split("VmHWM:")[1].split()[0]) / 1e6
    print(
        f"{len(errors):,} windows of 0.1 s to {seconds / 7200:.0f} h: {time.perf_counter() - started:.1f} s in all, "
        f"{asking_s:.2f} s of it asking; largest memory {memory_gb:.2f} GB; "
        f"error median {100 * float(np.median(errors)):.4f} %"
    )


if __name__ == "__main__":
    main()
