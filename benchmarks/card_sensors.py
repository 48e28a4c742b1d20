"""What a real card's sensors say of one load: each source of the `nvml` meter by itself against the energy counter.

Needs an NVIDIA card, its driver, and torch as a load. Loads alternate; windows are drawn at random inside them. It
changes no setting of the card.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path

import gpu_load

from energybench.power.meter import Channel, Reading, Source
from energybench.power.sampler import Sampler
from energybench.power.timeline import Timeline
from energybench.power.trace import write_trace
from energybench_plugins.meters.nvml import NvmlMeter, NvmlOptions

WINDOWS_S = (0.2, 1.0, 5.0, 20.0)
DRAWN = 200


def loads(load: gpu_load.Load, seconds: float) -> dict[str, tuple[int, int]]:
    """Plays each load and tells when."""
    played = {
        "idle": lambda: time.sleep(seconds),
        "constant": lambda: gpu_load.busy(load, seconds),
        "square 1 s, 50 %": lambda: gpu_load.square(load, seconds, 1.0, 0.5),
        "square 100 ms, 50 %": lambda: gpu_load.square(load, seconds, 0.1, 0.5),
        "square 97 ms, 50 %": lambda: gpu_load.square(load, seconds, 0.097, 0.5),
    }
    spans = {}
    for name, play in played.items():
        start = time.monotonic_ns()
        play()
        spans[name] = (start, time.monotonic_ns())
        time.sleep(2)
    return spans


def compared(
    channel: Channel, sources: list[Source], readings: list[Reading], spans: dict, draw: random.Random
) -> list:
    """Relative differences of each source from the counter, for windows drawn inside each load."""
    alone = {
        source.name: Timeline(channel, [source], [r for r in readings if r.source == source.name]) for source in sources
    }
    rows = []
    for name, (start, end) in spans.items():
        for length_s in (*WINDOWS_S, (end - start) / 1e9):
            lengths = (
                [length_s] if length_s > WINDOWS_S[-1] else [length_s * draw.uniform(0.9, 1.1) for _ in range(DRAWN)]
            )
            for source, line in alone.items():
                ratios = []
                for length in lengths:
                    latest = max(end - int(length * 1e9), start)
                    first = draw.randint(start, latest)
                    window = first, min(first + int(length * 1e9), end)
                    reference, found = alone["counter"].energy(*window), line.energy(*window)
                    if reference.energy_j and found.energy_j is not None:
                        ratios.append(found.energy_j / reference.energy_j - 1)
                if ratios:
                    worst = max(map(abs, ratios))
                    rows.append([name, length_s, source, statistics.median(map(abs, ratios)), worst, len(ratios)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="of each load")
    parser.add_argument("--out", default=".", help="folder for sensors.json and power.parquet")
    given = parser.parse_args()
    meter = NvmlMeter(NvmlOptions())
    print(meter.check(), meter.devices(), sep="\n")
    session = meter.open(meter.devices()[:1])
    for channel in session.channels:
        print(channel)
    for source in session.sources:
        print(source)
    load = gpu_load.make("torch")
    gpu_load.busy(load, 2)
    with Sampler(session) as sampler:
        time.sleep(2)
        spans = loads(load, given.seconds)
    readings = sampler.readings()
    [channel], sources = session.channels, list(session.sources)
    for source in sources:
        mine = [r for r in readings if r.source == source.name]
        took = sorted((r.read_end_ns - r.read_start_ns) / 1e6 for r in mine)
        stamped = [r for r in mine if r.sensor_ns is not None]
        ages = sorted((r.read_end_ns - r.sensor_ns) / 1e6 for r in stamped) or [float("nan")]
        failed = sum(r.value is None for r in mine)
        print(
            f"{source.name}: {len(mine)} readings, {failed} failed, read {took[len(took) // 2]:.3f} ms (median), "
            f"{took[-1]:.2f} ms (worst); age of stamps {ages[0]:.1f} to {ages[-1]:.1f} ms"
        )
    rows = compared(channel, sources, readings, spans, random.Random(0))
    print("| load | window (s) | source | median difference from the counter | worst | n |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, length, source, median, worst, count in rows:
        if source != "counter":
            print(f"| {name} | {length:.1f} | {source} | {median:.2%} | {worst:.2%} | {count} |")
    out = Path(given.out)
    write_trace(out / "power.parquet", sampler.columns(), session.channels)
    (out / "sensors.json").write_text(
        json.dumps({"channel": vars(channel), "spans": spans, "rows": rows}, default=list)
    )


if __name__ == "__main__":
    main()
