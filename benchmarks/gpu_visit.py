"""A visit to a machine with GPUs: the benchmarks that need one, several at once, each on its own cards.

A visit has lanes; the stages of a lane run one after the other on the lane's cards, the lanes beside each other. A
stage has a limit; one that fails or is too long stops no other. Each leaves its log and its raw numbers in --out, which
--pack collects in one archive now and then; with --resume a later visit goes on from it. On a machine of fewer cards
the lanes share those that there are. No setting of a card is changed.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contest import cards as cards_here

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests"
OUT, DATA = "{out}", "{data}"
HALF = "engine.half_weights=true"
LARGEST_BYTES = 8 * 1024**2
"""Larger files stay behind."""

PACKED_BYTES = 14 * 1024**2
"""Of power traces: the others stay behind."""

PACK_PERIOD_S = 60.0
PATIENCE = 4
"""How many times as long stages may take where they only show that they run, on however busy a machine."""

COMPILED = {"cache"}
"""Folders of what compilers made, which nobody needs afterwards."""


@dataclass(frozen=True)
class Stage:
    """One command on the cards of its lane.

    Attributes:
        name: of its log.
        limit_s: after which it is ended.
        command: behind the interpreter; {out} is the visit's folder, {data} the folder of the data that were brought.
        quick: what follows the command, where the visit only shows that it runs.
    """

    name: str
    limit_s: float
    command: Sequence[str]
    quick: Sequence[str] = ("--quick",)


def script(name: str, limit_s: float, *arguments: str, quick: Sequence[str] = ("--quick",)) -> Stage:
    return Stage(name, limit_s, (str(HERE / arguments[0]), *arguments[1:]), quick)


CONTEST = ("resnet50.py", "--window", "2", "--rounds", "5", "--cache", f"{OUT}/cache")
WAYS = ("energybench", "graph", "timm", "timm-compile")
VARIANTS = ("energybench", "energybench-half", "energybench-pointwise", "energybench-mm")
SEARCHED = ("energybench", "energybench-pointwise", "energybench-tuned", "graph", "timm-compile")
GRID = ("torch_grid.py", "--cell", "3", "--baseline", "0.5", "--cache", f"{OUT}/cache")
PARTS = ("tf32:graph", "fp32:graph", "bf16:graph", "bf16:eager")
EPOCHS = ("--epochs", "caffenet=10", "resnetim=8", "resnet=120", "cnn2d=120")
STUDY = ("gpu_study.py", *EPOCHS, "--walkers", f"{DATA}/walkers.tar.xz", "--baseline", "0.5")
STUDY = (*STUDY, "--repeats", "bf16,fp32:0", "bf16:1", "bf16:2", "fp32:1", "fp32:2", "--out", f"{OUT}/study")
SCALED = ("scaling.py", "--window", "1.5", "--apart", "1", "--cache", f"{OUT}/cache")
SCALING, HALF_SCALING = (*SCALED, "--out", f"{OUT}/scaling.json"), (*SCALED, "--out", f"{OUT}/scaling_half.json")
GPU_TESTS = Stage("gpu-tests", 130, ("-m", "pytest", "-q", str(TESTS / "engines" / "test_torch_gpu.py")), ("--help",))


def contest(name: str, limit_s: float, batch: int, contestants: Sequence[str], file: str, *more: str) -> Stage:
    words = ("--batch", str(batch), "--contestants", *contestants, "--out", f"{OUT}/{file}.json", *more)
    return script(name, limit_s, *CONTEST, "--seconds", f"{limit_s - 10:g}", *words)


def grid(name: str, limit_s: float, seed: int, *plan: str) -> Stage:
    words = ("--seconds", f"{limit_s - 5:g}", "--seed", str(seed), "--plan", *plan, "--out", f"{OUT}/{name}.json")
    return script(name, limit_s, *GRID, *words)


def study(name: str, limit_s: float, words: Sequence[str], *more: str) -> Stage:
    return script(name, limit_s, *words, "--seconds", f"{limit_s - 20:g}", *more)


Lanes = dict[tuple[int, ...], list[Stage]]

VISITS: dict[str, list[Lanes]] = {
    "training": [
        {
            (0,): [
                contest("resnet50-256", 230, 256, WAYS, "resnet50_256"),
                contest("resnet50-64", 175, 64, WAYS, "resnet50_64"),
                contest("variants-256", 160, 256, VARIANTS, "variants_256"),
            ],
        }
    ],
    "study": [{(0,): [study("study", 565, STUDY)]}],
    "several": [
        {
            (0, 1): [
                script(
                    *(
                        "scaling",
                        245,
                        *SCALING,
                        "--rounds",
                        "3",
                        "--models",
                        "resnet50",
                        "--totals",
                        "64",
                        "128",
                        "256",
                    ),
                    *("--together", "9", "--hand-least", "256", "--seconds", "235"),
                ),
                script(
                    *("scaling-networks", 310, *SCALING, "--rounds", "2", "--together", "14"),
                    *("--models", "caffenet", "resnetim", "resnet", "cnn2d", "--totals", "64", "128", "256"),
                    *("--seconds", "300"),
                    quick=("--only-show",),
                ),
            ],
        },
    ],
    "rest": [
        {
            (0,): [
                contest("searched-256", 230, 256, SEARCHED, "searched_256"),
                script(
                    "meter-cost",
                    110,
                    "meter_cost.py",
                    "--rounds",
                    "6",
                    "--seconds",
                    "0.8",
                    "--out",
                    f"{OUT}/meter_cost.json",
                ),
                script(
                    *("input", 125, "input_gpu.py", "--seconds", "18", "--cell", "6", "--decode", "cpu", "gpu"),
                    *("--images", "4096", "--out", f"{OUT}/input.json"),
                ),
            ],
        },
    ],
    "later": [
        {
            (0, 1): [
                script(
                    *("scaling-half", 150, *HALF_SCALING, "--rounds", "3", "--models", "resnet50"),
                    *("--totals", "64", "256", "--hand", "--override", HALF, "--seconds", "140"),
                    quick=("--only-show",),
                ),
            ]
        },
        {
            (0,): [
                contest("variants-64", 160, 64, VARIANTS, "variants_64"),
                GPU_TESTS,
            ],
        },
    ],
    "grid": [
        {
            (0,): [grid("grid-0", 565, 0, *PARTS, "bf16:compiled:caffenet:resnetim", "bf16:compiled")],
            (1,): [grid("grid-1", 565, 1, *PARTS, "bf16:compiled:resnet:cnn2d", "bf16:compiled")],
        }
    ],
    "meter": [{(0,): [script("real-meter", 235, "real_meter.py", "--out", f"{OUT}/real_meter")]}],
}
"""Name -> what is done one after the other; in each, lanes beside each other, and in a lane stages in their order."""


def placed(lanes: Lanes, here: int) -> tuple[Lanes, list[tuple[Stage, tuple[int, ...]]]]:
    """The lanes for as many cards as are here, and the stages that need more.

    Lanes of one card share those that there are.
    """
    found: Lanes = {}
    lacking = []
    for cards, stages in lanes.items():
        if len(cards) > here:
            lacking += [(stage, cards) for stage in stages]
        else:
            found.setdefault(tuple(card % here for card in cards), []).extend(stages)
    return found, lacking


class Visit:
    """One visit, ended as a whole after `seconds`."""

    def __init__(self, out: Path, seconds: float, pack: Path | None, data: Path | None, *, quick: bool) -> None:
        self.out, self.quick, self.pack = out.absolute(), quick, pack and pack.absolute()
        self.data = data and data.absolute()
        self.begun = time.monotonic()
        self.end = self.begun + seconds
        self.told: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        out.mkdir(parents=True, exist_ok=True)

    def resume(self, archives: Sequence[Path]) -> None:
        """Takes what earlier visits left."""
        for path in archives:
            with tarfile.open(path) as archive:
                archive.extractall(self.out, filter="data")

    def run(self, lanes: Lanes, here: int) -> None:
        """All lanes at once; packs what there is from time to time."""
        chosen, lacking = placed(lanes, here)
        for stage, cards in lacking:
            self._tell(stage, cards, 0.0, f"needs {len(cards)} GPUs")
        running = [threading.Thread(target=self.lane, args=item) for item in chosen.items()]
        for lane in running:
            lane.start()
        for lane in running:
            while lane.is_alive():
                lane.join(PACK_PERIOD_S)
                with self.lock:
                    self._collect()

    def lane(self, cards: Sequence[int], stages: Sequence[Stage]) -> None:
        for stage in stages:
            left = self.end - time.monotonic()
            if left < 20:
                self._tell(stage, cards, 0.0, "no time left")
                continue
            begun = time.monotonic()
            limit_s = stage.limit_s * (PATIENCE if self.quick else 1)
            outcome = self._run(stage, cards, min(limit_s, left))
            self._tell(stage, cards, time.monotonic() - begun, outcome)

    def _run(self, stage: Stage, cards: Sequence[int], limit_s: float) -> str:
        places = {OUT: str(self.out), DATA: str(self.data)}
        command = [
            functools.reduce(lambda text, one: text.replace(*one), places.items(), part) for part in stage.command
        ]
        more = stage.quick if self.quick else ()
        environment = {
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, cards)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "PYTHONUNBUFFERED": "1", "TORCHINDUCTOR_COMPILE_THREADS": "6",
            "NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",  # leaves the switch of other hosts alone
            **({"OMP_NUM_THREADS": "1"} if self.quick else {}),
            **({"ENERGYBENCH_DATA": str(self.data)} if self.data else {}),
        }  # fmt: skip
        with (self.out / f"{stage.name}.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, *command, *more],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.out,
                env={**os.environ, **environment},
                start_new_session=True,
            )
            try:
                code = process.wait(limit_s)
                outcome = "done" if code == 0 else f"exit status {code}"
            except subprocess.TimeoutExpired:
                outcome = f"ended after {limit_s:.0f} s"
        for number in (signal.SIGTERM, signal.SIGKILL):  # the stage and all that it started
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                continue
        return outcome

    def _tell(self, stage: Stage, cards: Sequence[int], took_s: float, outcome: str) -> None:
        with self.lock:
            self.told.append({"stage": stage.name, "cards": list(cards), "took_s": took_s, "outcome": outcome})
            at = time.monotonic() - self.begun
            print(f"[{at:5.0f} s] {stage.name} on {list(cards)}: {outcome}, {took_s:.0f} s", flush=True)
            (self.out / "visit.json").write_text(json.dumps(self.told, indent=1) + "\n")
            self._collect()

    def _collect(self) -> None:
        """Numbers and logs in one archive, power traces in another, each whole at any moment."""
        if self.pack is None:
            return
        found = (path for path in sorted(self.out.rglob("*")) if path.is_file())
        files = [path for path in found if not COMPILED & set(path.relative_to(self.out).parts)]
        traces = [path for path in files if path.suffix == ".parquet"]
        rest = [path for path in files if path.suffix != ".parquet" and path.stat().st_size < LARGEST_BYTES]
        for name, chosen in ((self.pack, rest), (self.pack.with_name(f"traces-{self.pack.name}"), traces)):
            partial, size = name.with_name(f".{name.name}"), 0
            with tarfile.open(partial, "w:gz") as archive:
                for path in chosen:
                    size += path.stat().st_size if path in traces else 0  # the others shrink to a tenth
                    if size < PACKED_BYTES:
                        archive.add(path, path.relative_to(self.out))
            partial.replace(name)

    def summary(self, lines: int) -> None:
        for stage in self.told:
            log = self.out / f"{stage['stage']}.log"
            print(f"\n--- {stage['stage']}: {stage['outcome']}")
            if log.exists():
                print(*log.read_text(errors="replace").splitlines()[-lines:], sep="\n")
        print(f"\n{'stage':20}{'cards':>8}{'seconds':>9}  outcome")
        for stage in self.told:
            cards = ",".join(map(str, stage["cards"]))
            print(f"{stage['stage']:20}{cards:>8}{stage['took_s']:9.0f}  {stage['outcome']}")


def options() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("visit", choices=list(VISITS), help="its stages stand in this file; README.md tells the plan")
    parser.add_argument("--only", nargs="+", help="names of stages")
    parser.add_argument("--seconds", type=float, default=565.0, help="of all")
    parser.add_argument("--lines", type=int, default=25, help="of each log, shown at the end")
    parser.add_argument("--quick", action="store_true", help="tiny, on the CPU: shows that it runs")
    parser.add_argument("--data", type=Path, help="folder with fashion-mnist/ and walkers.tar.xz")
    parser.add_argument("--resume", type=Path, nargs="*", default=[], help="archives of earlier visits, gone on from")
    parser.add_argument(
        "--pack", type=Path, help="archive of what is found in --out; power traces in another beside it"
    )
    parser.add_argument("--out", type=Path, default=Path("gpu_visit"))
    return parser


def main() -> None:
    given = options().parse_args()
    visit = Visit(given.out, given.seconds, given.pack, given.data, quick=given.quick)
    visit.resume(given.resume)
    here = 2 if given.quick else len(cards_here("cuda"))
    for lanes in VISITS[given.visit]:
        chosen = {
            own: [stage for stage in stages if given.only is None or stage.name in given.only]
            for own, stages in lanes.items()
        }
        visit.run(chosen, here)
    visit.summary(given.lines)


if __name__ == "__main__":
    main()
