"""How far each tool's joules are from the truth, on the sensors of six generations, all tools at the same time.

    python benchmarks/meter_error.py [--seconds 85] [--out FOLDER]

One fake server has a card of each generation, whose true power is declared (energybench.testing): its gain is 1, as the
gain of a board is the same in every tool's number. The six loads are played one after the other, on all cards at once.
Windows are drawn at random in length and start. Writes meter_error.json, meter_error.md and meter_error.svg.

Needs Zeus and CodeCarbon beside energybench (pip install zeus codecarbon). Changes nothing on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import meter_error_judge
import meter_error_page
from meter_error_tools import ONE_CARD, TOOLS
from pairs import described

from energybench.testing import PRESETS, Curve, Server, constant, linear, sequence, square, training
from energybench.testing.server import RunningServer

CARDS = {
    "maxwell": (60, 240),
    "pascal": (60, 240),
    "volta": (60, 290),
    "ampere_a100": (60, 390),
    "ampere_rtx30": (40, 340),
    "hopper": (110, 690),
}
"""Preset -> idle and highest power, watts."""

WINDOWS_S = {0.05: 48, 0.2: 48, 1.0: 40, 5.0: 24, 60.0: 8}
"""Length -> windows on each card in each load; each is up to a fifth longer or shorter."""

APART_S = {5.0: 5, 1.0: 10, 0.2: 15, 0.05: 15}
"""The same for CodeCarbon, whose tasks do not overlap: so many one after the other, and one of a minute beside them."""

PAST_S = 15.0


def steps(chance: random.Random, low_w: float, high_w: float, seconds: float, mean_s: float) -> Curve:
    """Jumps at random instants."""
    knots, time_s = [], 0.0
    while time_s < seconds:
        length_s = chance.expovariate(1 / mean_s) + 0.02
        watts = chance.uniform(low_w, high_w)
        knots += [(time_s, watts), (time_s + length_s, watts)]
        time_s += length_s
    return linear(knots)


def squares(chance: random.Random, low_w: float, high_w: float, seconds: float) -> Curve:
    """Four rhythms, one after the other: about 2 s, 0.4 s, 0.1 s and 0.06 s."""
    rhythms = [middle_s * chance.uniform(0.9, 1.1) for middle_s in (2.0, 0.4, 0.1, 0.06)]
    return sequence(
        [(seconds / 4, square(low_w, high_w, rhythm, chance.uniform(0.3, 0.7), chance.random())) for rhythm in rhythms]
    )


def ramps(chance: random.Random, low_w: float, high_w: float, seconds: float) -> Curve:
    """Up and down, with now and then a fall."""
    knots, time_s, watts = [(0.0, low_w)], 0.0, low_w
    while time_s < seconds:
        time_s += chance.uniform(1, 8)
        watts = chance.uniform(low_w, high_w)
        knots.append((time_s, watts))
        if chance.random() < 0.3:
            knots.append((time_s, low_w))
    return linear(knots)


def epochs(chance: random.Random, low_w: float, high_w: float, seconds: float) -> Curve:
    """Epochs that waver, each with a dip, and a ripple of the single steps on top."""
    epoch_s = chance.uniform(5, 9)
    slow = training(chance.randrange(10**6), low_w, 0.9 * high_w, int(seconds / epoch_s) + 1, epoch_s)
    return slow + square(0, 0.1 * high_w, chance.uniform(0.15, 0.35), 0.7, chance.random())


LOADS: dict[str, Callable[[random.Random, float, float, float], Curve]] = {
    "constant": lambda chance, low_w, high_w, seconds: constant(chance.uniform(0.4, 1.0) * high_w),
    "step": lambda chance, low_w, high_w, seconds: steps(chance, low_w, high_w, seconds, 6.0),
    "square": squares,
    "ramp": ramps,
    "training": epochs,
    "random": lambda chance, low_w, high_w, seconds: steps(chance, low_w, high_w, seconds, 0.3),
}


def curve_of(card: str, seconds: float, seed: int, begin_s: float) -> Curve:
    """All loads one after the other, from `begin_s` on; before that idle."""
    low_w, high_w = CARDS[card]
    chance = random.Random(f"{card} {seed}")
    played = [(seconds, make(chance, low_w, high_w, seconds)) for make in LOADS.values()]
    return sequence([(begin_s, constant(low_w)), *played, (60.0, constant(low_w))])


def windows_of(card: str, begin_ns: int, seconds: float, seed: int) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """Windows of one card, and which of them CodeCarbon takes: those one after the other, and the long ones."""
    chance = random.Random(f"windows {card} {seed}")
    windows: list[dict[str, Any]] = []
    short: list[int] = []
    long: list[int] = []
    for place, load in enumerate(LOADS):
        first_s, last_s = place * seconds + 0.05, (place + 1) * seconds - 0.05

        def add(length_s: float, start_s: float, drawn_s: float, load: str = load, apart: bool = False) -> None:
            at_ns = begin_ns + round(start_s * 1e9)
            window = {"load": load, "length_s": length_s, "start_ns": at_ns, "end_ns": at_ns + round(drawn_s * 1e9)}
            windows.append({**window, "apart": apart})

        for length_s, count in WINDOWS_S.items():
            for _ in range(count):
                drawn_s = min(length_s * chance.uniform(0.8, 1.2), 0.95 * (last_s - first_s))
                add(length_s, chance.uniform(first_s, last_s - drawn_s), drawn_s)
            if length_s == 60.0:
                long.append(len(windows) - 1)
        lengths = [length_s for length_s, count in APART_S.items() for _ in range(count)]
        chance.shuffle(lengths)
        drawn = [length_s * chance.uniform(0.8, 1.2) for length_s in lengths]
        rest_s = max(0.05, (last_s - first_s - sum(drawn)) / (len(drawn) + 1))
        time_s = first_s
        for length_s, drawn_s in zip(lengths, drawn, strict=True):
            time_s += rest_s * chance.uniform(0.4, 1.2)
            if time_s + drawn_s > last_s:
                break
            short.append(len(windows))
            add(length_s, time_s, drawn_s, apart=True)
            time_s += drawn_s
    return windows, [short, long]


def run_tools(started: RunningServer, plan: dict[str, Any], folder: Path, tools: list[str]) -> None:
    """All at the same time, each in a process of its own."""
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    script = Path(__file__).with_name("meter_error_tools.py")
    processes = {}
    for tool in tools:
        time.sleep(2.0)  # not all at once
        for card in range(len(CARDS)) if tool in ONE_CARD else [0]:
            environment = os.environ | started.environment() | {"OMP_NUM_THREADS": "1"}
            if tool == "zeus":  # a server of unlike cards is refused by it: it sees one
                environment |= {"CUDA_VISIBLE_DEVICES": str(card)}
            out = folder / meter_error_judge.file_of(tool, card)
            command = [sys.executable, str(script), tool, str(card), str(folder / "plan.json"), str(out)]
            log = (folder / f"{out.stem}.log").open("w")
            processes[out.stem] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    for name, process in processes.items():
        if process.wait():
            print(f"meter_error: {name} ended with {process.returncode}; see {folder / name}.log", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=85.0, help="of each load; below 65 without windows of 60 s")
    parser.add_argument("--ready", type=float, default=60.0, help="how long the tools have to start")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--out", default=".", help="folder for the three files")
    parser.add_argument("--keep", help="folder for what the tools wrote")
    parser.add_argument("--again", action="store_true", help="judge once more what lies in --keep, and run nothing")
    given = parser.parse_args()
    if given.seconds < 65:
        WINDOWS_S.pop(60.0)
    begun = time.monotonic()
    begin_s = PAST_S + given.ready
    cards = tuple(PRESETS[card](curve_of(card, given.seconds, given.seed, begin_s), gain=1.0) for card in CARDS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.keep or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        started = Server(cards).start(Path(temporary), age_s=PAST_S)
        begin_ns = started.at_ns(begin_s)
        drawn = [windows_of(card, begin_ns, given.seconds, given.seed) for card in CARDS]
        plan = {
            "begin_ns": begin_ns,
            "end_ns": begin_ns + round((given.seconds * len(LOADS) + 2) * 1e9),
            "start_ns": started.start_ns,
            "cards": list(CARDS),
            "windows": [windows for windows, _ in drawn],
            "apart": [apart for _, apart in drawn],
            "seconds": given.seconds,
            "seed": given.seed,
        }
        if given.again:
            plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        else:
            run_tools(started, plan, folder, given.tools)
        found = meter_error_judge.judged(
            plan, folder, given.tools, {card: c.curve for card, c in zip(CARDS, cards, strict=True)}
        )
    found["seconds"] = time.monotonic() - begun
    meter_error_page.write(described(found), Path(given.out))


if __name__ == "__main__":
    main()
