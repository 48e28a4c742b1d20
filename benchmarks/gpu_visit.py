"""A visit to a machine with GPUs: the benchmarks that need one, several at once, each on its own cards.

A visit has lanes; the stages of a lane run one after the other on the lane's cards, the lanes beside each other. A
stage has a limit; one that fails or is too long stops no other. Each leaves its log and its raw numbers in --out, which
--pack collects in one archive after each stage. No setting of a card is changed.
"""

from __future__ import annotations

import argparse
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

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests"
OUT = "{out}"
PACKED_BYTES = 8 * 1024**2
"""Larger files stay behind."""


@dataclass(frozen=True)
class Stage:
    """One command on the cards of its lane.

    Attributes:
        name: of its log.
        limit_s: after which it is ended.
        command: behind the interpreter; {out} is the visit's folder.
        quick: what follows the command, where the visit only shows that it runs.
    """

    name: str
    limit_s: float
    command: Sequence[str]
    quick: Sequence[str] = ("--quick",)


def script(name: str, limit_s: float, *arguments: str, quick: Sequence[str] = ("--quick",)) -> Stage:
    return Stage(name, limit_s, (str(HERE / arguments[0]), *arguments[1:]), quick)


CONTEST = ("resnet50.py", "--rounds", "6", "--window", "2", "--out", f"{OUT}/resnet50.json")
GRID = ("torch_grid.py", "--cell", "3", "--baseline", "0.5")
SCALING = (
    *("scaling.py", "--window", "1.5", "--apart", "1", "--counts", "1", "2"),
    *("--out", f"{OUT}/scaling.json", "--plot", f"{OUT}/scaling.png"),
)
ALL_WAYS = ("energybench", "graph", "compile", "eager", "timm", "timm-compile")
FAST_WAYS = ("energybench", "graph", "compile", "timm", "timm-compile")
GPU_TESTS = Stage("gpu-tests", 150, ("-m", "pytest", "-q", str(TESTS / "engines" / "test_torch_gpu.py")), ())

VISITS: dict[str, dict[tuple[int, ...], list[Stage]]] = {
    "single": {
        (0,): [
            script("resnet50-64", 200, *CONTEST, "--batch", "64", "--seconds", "190", "--contestants", *ALL_WAYS),
            script("resnet50-256", 190, *CONTEST, "--batch", "256", "--seconds", "180", "--contestants", *FAST_WAYS),
            script("floor", 45, "floor.py", "--seconds", "2", "--out", f"{OUT}/floor.json"),
            script("real-meter", 235, "real_meter.py", "--gpu", "0", "--out", f"{OUT}/real_meter", quick=("--help",)),
            script("grid-tf32", 120, *GRID, "--plan", "tf32:graph", "--seconds", "110", "--out", f"{OUT}/tf32.json"),
        ],
        (1,): [
            script(
                *("grid", 530, *GRID, "--seconds", "525", "--out", f"{OUT}/grid.json"),
                *("--plan", "bf16:graph", "bf16:eager", "fp32:graph", "tf32:graph", "bf16:compiled:resnetim"),
            ),
            GPU_TESTS,
        ],
    },
    "pair": {
        (0, 1): [
            script(
                *("scaling", 145, *SCALING, "--rounds", "3", "--totals", "64", "256", "--models", "resnet50"),
                *("--hand-least", "256", "--seconds", "135"),
            ),
            script(
                *("scaling-networks", 95, *SCALING, "--rounds", "2", "--totals", "256", "--each", "0"),
                *("--models", "caffenet", "resnetim", "resnet", "cnn2d", "--seconds", "85"),
                quick=("--only-show",),
            ),
            GPU_TESTS,
        ],
    },
}  # fmt: skip


class Visit:
    """One visit, ended as a whole after `seconds`."""

    def __init__(self, out: Path, seconds: float, pack: Path | None, *, quick: bool) -> None:
        self.out, self.quick, self.pack = out, quick, pack
        self.begun = time.monotonic()
        self.end = self.begun + seconds
        self.told: list[dict[str, object]] = []
        self.lock = threading.Lock()
        out.mkdir(parents=True, exist_ok=True)

    def lane(self, cards: Sequence[int], stages: Sequence[Stage]) -> None:
        for stage in stages:
            left = self.end - time.monotonic()
            if left < 20:
                self._tell(stage, cards, 0.0, "no time left")
                continue
            begun = time.monotonic()
            outcome = self._run(stage, cards, min(stage.limit_s, left))
            self._tell(stage, cards, time.monotonic() - begun, outcome)

    def _run(self, stage: Stage, cards: Sequence[int], limit_s: float) -> str:
        command = [part.replace(OUT, str(self.out.absolute())) for part in stage.command]
        more = stage.quick if self.quick else ()
        environment = {
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, cards)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "PYTHONUNBUFFERED": "1", "TORCHINDUCTOR_COMPILE_THREADS": "6",
            **({"OMP_NUM_THREADS": "1"} if self.quick else {}),
        }  # fmt: skip
        with (self.out / f"{stage.name}.log").open("w") as log:
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
        if self.pack is None:
            return
        with tarfile.open(self.pack, "w:gz") as archive:
            for path in sorted(self.out.rglob("*")):
                if path.is_file() and path != self.pack and path.stat().st_size < PACKED_BYTES:
                    archive.add(path, path.relative_to(self.out))

    def summary(self, lines: int) -> None:
        for stage in self.told:
            log = self.out / f"{stage['stage']}.log"
            print(f"\n--- {stage['stage']}: {stage['outcome']}")
            if log.exists():
                print(*log.read_text(errors="replace").splitlines()[-lines:], sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("visit", choices=list(VISITS), help="single: cards apart; pair: two cards together")
    parser.add_argument("--only", nargs="+", help="names of stages")
    parser.add_argument("--seconds", type=float, default=560.0, help="of all")
    parser.add_argument("--lines", type=int, default=30, help="of each log, shown at the end")
    parser.add_argument("--quick", action="store_true", help="tiny, on the CPU: shows that it runs")
    parser.add_argument("--pack", type=Path, help="archive of what is found in --out")
    parser.add_argument("--out", type=Path, default=Path("gpu_visit"))
    given = parser.parse_args()
    visit = Visit(given.out, given.seconds, given.pack, quick=given.quick)
    lanes = []
    for cards, stages in VISITS[given.visit].items():
        chosen = [stage for stage in stages if given.only is None or stage.name in given.only]
        lanes.append(threading.Thread(target=visit.lane, args=(cards, chosen)))
        lanes[-1].start()
    for lane in lanes:
        lane.join()
    visit.summary(given.lines)


if __name__ == "__main__":
    main()
