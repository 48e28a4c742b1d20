"""What metering costs a training: steps a second with the meter off, in the training's own process, and in another.

    python benchmarks/meter_cost.py [--gpu 1] [--out meter_cost.json]

`thread` is `energybench.measure` around the training, as a library is used; `process` has the meter in a process of
its own, as `python -m energybench` and `energybench measure -- COMMAND` have it. The loops are ResNet-50's, written by
hand: `eager`, in which the host launches every kernel and is the bound at small batches, and `recorded`, the same step
in a CUDA graph, in which the card is. The order within a round is turned each time: off thread process, process
thread off, ...; what the later sides of a round have over the earlier is estimated and taken out.

Opening a meter lets the card rest, so every side trains uncounted before it counts: for so long, drawn at random, that
reads half a second apart fall into the counted part as often as they should. Changes no setting of a card.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import gpu_load
from pairs import described
from sources import cards

import energybench
from energybench.devices import Device
from energybench.errors import DeviceError, EnergybenchError
from energybench.power.identity import environment_of, visible

METERS = ("off", "thread", "process")
UNCOUNTED_S = (0.1, 0.6)
WANTED = 0.998
"""So many steps with the meter for each without."""

HOLD = "--hold"


@contextmanager
def in_a_process(uuid: str) -> Iterator[None]:
    """The meter of this card in another process."""
    command = [sys.executable, __file__, HOLD, uuid]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        if not process.stdout.readline():
            raise EnergybenchError("the process with the meter ended; what it said stands above")
        yield
        process.stdin.close()
        if code := process.wait():
            raise EnergybenchError(f"the process with the meter ended with {code}; what it said stands above")


def hold(uuid: str) -> None:
    """Meters until standard input ends."""
    with energybench.measure("nvml", [uuid]):
        print("metering", flush=True)
        sys.stdin.read()


def metered(how: str, uuid: str) -> AbstractContextManager[Any]:
    if how == "off":
        return nullcontext()
    return energybench.measure("nvml", [uuid]) if how == "thread" else in_a_process(uuid)


def measured(load: gpu_load.Load, uuid: str, given: argparse.Namespace) -> dict[str, Any]:
    """Steps a second of each way to meter, round by round, and their ratios."""
    chance = random.Random(given.seed)
    load.train_for(min(1.0, given.seconds))
    rates: dict[str, list[float]] = {how: [] for how in METERS}
    for number in range(given.rounds):
        for how in METERS[::-1] if number % 2 else METERS:
            with metered(how, uuid):
                load.train_for(chance.uniform(*UNCOUNTED_S) * min(given.seconds, 1.0))
                steps, took = load.train_for(given.seconds)
            rates[how].append(steps / took)
    ratios = {how: of_turned_pairs(logs(rates[how], rates["off"])) for how in METERS[1:]}
    return {"steps_per_s": rates, "ratios": ratios}


def logs(on: list[float], off: list[float]) -> list[float]:
    return [math.log(a / b) for a, b in zip(on, off, strict=True)]


def of_turned_pairs(logs: list[float]) -> tuple[float, float, float]:
    """Ratio and its 95 % interval from logarithms of ratios, of which every other one is of the other order."""
    from scipy.stats import t

    orders = [logs[::2], logs[1::2]]
    middle = statistics.fmean(statistics.fmean(one) for one in orders)
    left = [log - statistics.fmean(one) for one in orders for log in one]
    freedom = len(logs) - len(orders)
    scatter = math.sqrt(sum(one**2 for one in left) / freedom)
    half = float(t.ppf(0.975, freedom)) * scatter * math.sqrt(sum(1 / len(one) for one in orders)) / len(orders)
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def verdict(low: float, high: float) -> str:
    return "shown" if low >= WANTED else "denied" if high < WANTED else "neither shown nor denied"


def tell(found: dict[str, Any]) -> None:
    print(f"{'loop':12}{'meter':10}{'steps/s':>10}{'scatter':>10}  with / without the meter (95 %)")
    for way, one in found.items():
        for how, rates in one["steps_per_s"].items():
            scatter = statistics.stdev(rates) / statistics.fmean(rates)
            line = f"{way:12}{how:10}{statistics.median(rates):10.2f}{scatter:10.2%}"
            if how in one["ratios"]:
                ratio, low, high = one["ratios"][how]
                line += f"  {ratio:.4f} ({low:.4f} to {high:.4f}): at least {WANTED} is {verdict(low, high)}"
            print(line, flush=True)


def options() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", type=int, help="number as `nvidia-smi` has it; CUDA's first, if not given")
    parser.add_argument("--load", choices=gpu_load.LOADS, default="torch")
    parser.add_argument("--ways", nargs="+", default=["eager", "recorded"], choices=["eager", "recorded"])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.0, help="that count, of each side of a round")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--image", type=int, default=224, help="height and width, pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="tiny and without a load: shows that it runs")
    parser.add_argument("--out", default="meter_cost.json")
    parser.add_argument(HOLD, metavar="UUID", help=argparse.SUPPRESS)
    return parser


def chosen(number: int | None) -> Device:
    """The card of this number; without one, the first that this process sees."""
    found = cards()
    if number is None:
        seen = visible(found, os.environ)
        if not seen:
            raise DeviceError("this process sees no card; see `energybench doctor`")
        return seen[0]
    if not 0 <= number < len(found):
        raise DeviceError(f"--gpu {number}: the driver shows {len(found)} cards, numbered from 0")
    return found[number]


def main() -> int:
    given = options().parse_args()
    if given.hold:
        hold(given.hold)
        return 0
    if given.quick:
        given.load, given.rounds, given.seconds, given.ways = "none", 4, 0.05, ["eager"]
    if given.rounds < 4:
        options().error(f"argument --rounds: {given.rounds} tells no interval; give 4 or more")
    card = chosen(given.gpu)
    os.environ.update(environment_of([card]))  # read by CUDA when the first load is made
    kept: dict[str, Any] = {}
    for way in given.ways:
        load = gpu_load.make(given.load, given.batch, given.image, way)
        kept[way] = measured(load, card.uuid, given)
        written = described({"arguments": vars(given), "card": card.name, "uuid": card.uuid, "loops": kept})
        Path(given.out).write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    tell(kept)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EnergybenchError as error:
        print(f"meter_cost: {error}", file=sys.stderr)
        sys.exit(2)
