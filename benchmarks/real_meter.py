"""What energybench's meter says of a real NVIDIA card, in two questions; `meter_cost.py` asks what it costs.

    python benchmarks/real_meter.py [--gpu 0 1] [--out FOLDER]

1. Its joules against the card's own energy counter, read here where it ticks, over half a minute and over all bursts:
   all sources together, without the counter, and each alone; the driver's own tool beside them.
2. Bursts of 50 ms to 1 s against bursts repeated many times: with n equal bursts and the card at rest in between, the
   counter gives n x burst + rest power x time at rest. Two lengths of rest tell the two unknowns apart. The rests are
   drawn at random, as bursts that keep time with the counter's ticks would flatter everyone. Beside it Zeus's window.

It takes about a minute and a half, however many cards there are. real_meter.json has all that is printed, and the
start and end of every burst; power.N.parquet has the readings, both by CLOCK_MONOTONIC: how late a card tells its power
can be fitted to them.

Each card runs in a process of its own, all at the same time. Changes no setting of a card. Needs an
NVIDIA card with an energy counter (Volta or newer) and torch; `--quick` tries everything else without torch.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gpu_load
from contest import Counter
from pairs import described
from sources import cards, sources_of

import energybench
from energybench.devices import Device
from energybench.errors import EnergybenchError, MeterError
from energybench.power.meter import Source
from energybench.power.timeline import Timeline
from energybench.power.trace import read_trace

BURSTS_S = (0.05, 0.1, 0.2, 0.5, 1.0)
RESTS_S = (0.35, 0.75)
QUICK = {"load": "none", "seconds": 1.0, "bursts": (0.05, 0.2), "burst_seconds": 0.5}

RESULT = "real_meter.json"

Ticks = tuple[tuple[float, float], tuple[float, float]]
"""Seconds and joules of the counter's ticks around something."""


def between(counter: Counter, play: Callable[[], None]) -> Ticks:
    """The ticks around what is played."""
    first = counter.tick()
    play()
    last = counter.tick()
    if first is None or last is None:
        raise MeterError("the card's energy counter stands still; choose another card")
    return first, last


def lines(meter: str, device: Device, trace: Path) -> dict[str, Timeline]:
    """Several ways to see the same readings: all sources together, without the counter, each alone."""
    channels, sources = sources_of(meter, [device])
    if not channels:
        return {}
    columns, _ = read_trace(trace, channels[0].name)
    ways = {f"{meter}: all": sources}
    rest = [source for source in sources if source.quantity == "power_w"]
    if 0 < len(rest) < len(sources):
        ways[f"{meter}: without the counter"] = rest
    if len(sources) > 1:
        ways |= {f"{meter}: {source.name} alone": [source] for source in sources}
    return {
        way: Timeline(channels[0], chosen, {key: one for key, one in columns.items() if key[1] in names(chosen)})
        for way, chosen in ways.items()
    }


def names(sources: list[Source]) -> set[str]:
    return {source.name for source in sources}


def agreement(spans: dict[str, Ticks], seen: dict[str, Timeline]) -> list[dict[str, Any]]:
    """Each way's energy between two ticks against the counter's."""
    rows = []
    for name, ((start_s, start_j), (end_s, end_j)) in spans.items():
        for way, line in seen.items():
            found = line.energy(round(start_s * 1e9), round(end_s * 1e9))
            rows.append(
                {
                    "load": name,
                    "seconds": end_s - start_s,
                    "way": way,
                    "counter_j": end_j - start_j,
                    "energy_j": found.energy_j,
                    "independent_u_j": found.independent_u_j,
                    "difference": None if found.energy_j is None else found.energy_j / (end_j - start_j) - 1,
                    "coverage": found.coverage,
                    "doubts": found.doubts,
                }
            )
    return rows


class Zeus:
    """Zeus's window beside ours; without Zeus, or where it fails, it says why."""

    def __init__(self) -> None:
        self.failure = ""
        self._monitor: Any = None
        try:
            from zeus.monitor import ZeusMonitor

            self._monitor = ZeusMonitor(gpu_indices=[0], cpu_indices=[])
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"

    def around(self, play: Callable[[], None]) -> float | None:
        """Plays, and gives Zeus's joules."""
        if self._monitor is None:
            play()
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._monitor.begin_window("burst", sync_execution=False)
            play()
            measured = self._monitor.end_window("burst", sync_execution=False)
        return float(next(iter(measured.gpu_energy.values())))


def play_bursts(
    load: gpu_load.Load, counter: Counter, block: energybench.measure, given: argparse.Namespace
) -> tuple[list[dict[str, Any]], str]:
    """Series of equal bursts, two for each length: with short rests and with long ones."""
    series, zeus, chance = [], Zeus(), random.Random(given.seed)
    for length_s in given.bursts:
        pieces = gpu_load.pieces_for(load, length_s)
        for rest_s in RESTS_S:
            count = max(3, round(given.burst_seconds / (length_s + rest_s)))
            found: list[tuple[str, float | None]] = []

            def burst(name: str, pieces: int = pieces) -> None:
                with block.window(name):
                    load.work(pieces)

            def play(
                count: int = count, rest_s: float = rest_s, length_s: float = length_s, found: Any = found
            ) -> None:
                for number in range(count):
                    time.sleep(rest_s * chance.uniform(0.8, 1.2))
                    name = f"{length_s} {rest_s} {number}"
                    found.append((name, zeus.around(lambda name=name: burst(name))))

            ticks = between(counter, play)
            series.append({"length_s": length_s, "rest_s": rest_s, "ticks": ticks, "found": found, "pieces": pieces})
    return series, zeus.failure


def judge_bursts(series: list[dict[str, Any]], block: energybench.measure) -> list[dict[str, Any]]:
    """Each window against the reference of its length."""
    rows = []
    for length_s in dict.fromkeys(one["length_s"] for one in series):
        pair = [one for one in series if one["length_s"] == length_s]
        ours = [[block[name] for name, _ in one["found"]] for one in pair]
        reference_j, rest_w, doubt_j = reference(pair, [sum(m.time_s for m in part) for part in ours])
        flat = [one for part in ours for one in part]
        told = [one for one in flat if one.energy_j is not None]
        energies = [one.energy_j for one in told]
        stated = [one.independent_uncertainty_j for one in told]
        inside = [
            abs(energy_j - reference_j) <= math.hypot(stated_j, 2 * doubt_j)
            for energy_j, stated_j in zip(energies, stated, strict=True)
        ]
        beside = [joules for one in pair for _, joules in one["found"] if joules is not None]
        median_s = statistics.median(one.time_s for one in flat)
        step_w = reference_j / median_s - rest_w
        rows.append(
            {
                "length_s": median_s,
                "bursts": len(flat),
                "step_w": step_w,
                "late_s": (reference_j - statistics.fmean(energies)) / step_w if energies else None,
                "reference_j": reference_j,
                "reference_u_j": doubt_j,
                "rest_w": rest_w,
                "energybench": off(energies, reference_j) if energies else None,
                "energybench_inside": sum(inside) if inside else None,
                "energybench_stated": statistics.median(stated) / reference_j if stated else None,
                "zeus": off(beside, reference_j) if beside else None,
                "energies_j": energies,
                "stated_j": stated,
                "zeus_j": beside,
                "times_s": [one.time_s for one in flat],
                "start_ns": [one.provenance["start_ns"] for one in flat],
                "end_ns": [one.provenance["end_ns"] for one in flat],
            }
        )
    return rows


def reference(pair: list[dict[str, Any]], busy_s: list[float], tick_s: float = 0.006) -> tuple[float, float, float]:
    """Joules of one burst, watts of the rest between, and the standard uncertainty of the joules.

    Of each series E = n x burst + rest power x (time - time busy). An edge is in doubt by the time that one read of the
    counter takes, at the power of the rest.
    """
    counts = [len(one["found"]) for one in pair]
    totals = [one["ticks"][1][1] - one["ticks"][0][1] for one in pair]
    rests = [one["ticks"][1][0] - one["ticks"][0][0] - used for one, used in zip(pair, busy_s, strict=True)]
    by_rest = [rest / count for rest, count in zip(rests, counts, strict=True)]
    by_energy = [total / count for total, count in zip(totals, counts, strict=True)]
    rest_w = (by_energy[1] - by_energy[0]) / (by_rest[1] - by_rest[0])
    lever = [by_rest[1] / (by_rest[1] - by_rest[0]), by_rest[0] / (by_rest[1] - by_rest[0])]
    edge_j = rest_w * tick_s * math.sqrt(2 / 12)
    doubt_j = math.hypot(*(share * edge_j / count for share, count in zip(lever, counts, strict=True)))
    return by_energy[0] - rest_w * by_rest[0], rest_w, doubt_j


def off(energies: list[float], reference_j: float) -> dict[str, float]:
    """Relative errors: median and largest of their sizes, and the mean with its sign."""
    errors = [one / reference_j - 1 for one in energies]
    return {
        "median": statistics.median(map(abs, errors)),
        "worst": max(map(abs, errors)),
        "mean": statistics.fmean(errors),
    }


def card(given: argparse.Namespace) -> dict[str, Any]:
    """Both questions of the one card that CUDA shows this process."""
    [number] = given.gpu
    device = cards()[number]
    say = functools.partial(progress, f"card {number}", given.begun)
    say(device.name)
    if "counter" not in names(sources_of("nvml", [device])[1]):
        raise MeterError(f"card {number} ({device.name}) has no energy counter to compare with; choose another")
    folder, counter = Path(given.out), Counter("cuda", number)
    load = gpu_load.make(given.load)
    gpu_load.busy(load, min(2.0, given.seconds))
    say("warm")
    trace, tool_trace = folder / f"power.{number}.parquet", folder / f"nvidia_smi.{number}.parquet"
    tool_there = bool(sources_of("nvidia_smi", [device])[0])
    spans: dict[str, Ticks] = {}
    with energybench.measure("nvml", [device.uuid]) as block:
        with energybench.measure("nvidia_smi", [device.uuid]) if tool_there else nullcontext() as tool:
            time.sleep(1.0)
            spans["steady"] = between(counter, lambda: time.sleep(0.5) or gpu_load.busy(load, given.seconds))
            time.sleep(1.5)  # a mean over the past second has then told all
        if tool_there:
            tool.write_trace(tool_trace)
        say("bursts")
        series, failure = play_bursts(load, counter, block, given)
        time.sleep(1.5)
    say("energies")
    block.write_trace(trace)
    spans["bursts"] = series[0]["ticks"][0], series[-1]["ticks"][1]
    seen = lines("nvml", device, trace)
    rows = agreement(spans, seen)
    if tool_there:
        rows += agreement({"steady": spans["steady"]}, lines("nvidia_smi", device, tool_trace))
    say("done")
    return {
        "card": device.name,
        "uuid": device.uuid,
        "metered": [channel["device_id"] for channel in block.total.provenance["channels"]],
        "driver": counter.driver(),
        "origin": block.total.provenance["channels"][0]["origin"],
        "load": given.load,
        "agreement": rows,
        "bursts": judge_bursts(series, block),
        "zeus_failure": failure,
        "seconds": time.monotonic() - given.begun,
    }


def progress(who: str, begun: float, what: str) -> None:
    print(f"{who} {time.monotonic() - begun:5.1f} s: {what}", file=sys.stderr, flush=True)


def tell(found: dict[str, Any]) -> None:
    print(f"\n## {found['card']}, driver {found['driver']}, load {found['load']} ({found['seconds']:.0f} s in all)\n")
    print(f"{found['origin']}\n")
    print("| load | s | seen by | J | counter (J) | difference | stated (k = 2) |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for row in found["agreement"]:
        if row["energy_j"] is None:
            print(f"| {row['load']} | {row['seconds']:.1f} | {row['way']} | nothing read | | | |")
            continue
        stated = 2 * row["independent_u_j"] / row["counter_j"]
        print(
            f"| {row['load']} | {row['seconds']:.1f} | {row['way']} | {row['energy_j']:,.1f} | "
            f"{row['counter_j']:,.1f} | {row['difference']:+.3%} | {stated:.3%} |"
        )
    print(
        "\n| burst (ms) | n | reference (J) | rest (W) | ours: median / worst | mean | late by (ms) | stated | inside "
        "| Zeus | mean |"
    )
    print(f"|{' ---: |' * 11}")
    for row in found["bursts"]:
        ours = "nothing read | | | |"
        if row["energybench"]:
            ours = (
                f"{spread(row['energybench'])} | {1000 * row['late_s']:.1f} | {row['energybench_stated']:.1%} | "
                f"{row['energybench_inside']} of {len(row['energies_j'])}"
            )
        print(
            f"| {1000 * row['length_s']:.0f} | {row['bursts']} | {row['reference_j']:.2f} ± "
            f"{2 * row['reference_u_j']:.2f} | {row['rest_w']:.1f} | {ours} | "
            f"{spread(row['zeus']) if row['zeus'] else 'none |'} |"
        )
    told = sum(len(row["energies_j"]) for row in found["bursts"])
    print(
        f"\ninside what is stated (k = 2): {sum(row['energybench_inside'] or 0 for row in found['bursts'])} of {told}"
    )
    if found["zeus_failure"]:
        print(f"Zeus: {found['zeus_failure']}")


def spread(errors: dict[str, float]) -> str:
    """Two cells of a table."""
    return f"{errors['median']:.1%} / {errors['worst']:.1%} | {errors['mean']:+.1%}"


def start(number: int, given: argparse.Namespace) -> subprocess.Popen[bytes]:
    """This script for one card; Zeus reads CUDA_VISIBLE_DEVICES as indices alone."""
    out = Path(given.out) / f"card.{number}"
    out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(number)}
    command = [sys.executable, __file__, *sys.argv[1:], "--gpu", str(number), "--out", str(out), "--alone"]
    return subprocess.Popen(command, env=environment)


def options() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", type=int, nargs="+", help="numbers as `nvidia-smi` has them; all, if not given")
    parser.add_argument("--out", default="real_meter", help="folder for real_meter.json and each card's readings")
    parser.add_argument("--load", choices=gpu_load.LOADS, default="torch")
    parser.add_argument("--seconds", type=float, default=30.0, help="of the steady load")
    parser.add_argument("--bursts", type=float, nargs="+", default=BURSTS_S, help="their lengths, seconds")
    parser.add_argument("--burst-seconds", type=float, default=3.5, help="of each of the two series of a length")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="tiny and without a load: shows that it runs")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser


def main() -> int:
    given = options().parse_args()
    if given.quick:
        vars(given).update(QUICK)
    given.begun = time.monotonic()
    if given.alone:
        (Path(given.out) / RESULT).write_text(json.dumps(card(given)), encoding="utf-8")
        return 0
    there = len(cards())
    given.gpu = list(range(there)) if given.gpu is None else given.gpu
    if not given.gpu:
        print("real_meter: the driver shows no card; see `energybench doctor`", file=sys.stderr)
        return 2
    if wrong := [number for number in given.gpu if not 0 <= number < there]:
        print(f"real_meter: --gpu {wrong[0]}: the driver shows {there} cards, numbered from 0", file=sys.stderr)
        return 2
    started = {number: start(number, given) for number in dict.fromkeys(given.gpu)}
    failed = [number for number, process in started.items() if process.wait()]
    found = {}
    for number in started:
        path = Path(given.out) / f"card.{number}" / RESULT
        if number not in failed:
            found[number] = json.loads(path.read_text(encoding="utf-8"))
            tell(found[number])
    summary = described({"arguments": vars(given), "cards": found})
    (Path(given.out) / RESULT).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    for number in failed:
        print(f"real_meter: card {number} failed; what it said stands above", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EnergybenchError as error:
        print(f"real_meter: {error}", file=sys.stderr)
        sys.exit(2)
