"""What a long sweep costs: cells of a stand-in engine and meter under the real supervisor, tracking and report.

    python benchmarks/load_sweep.py [--cells 10 100 1000] [--tracking mlflow none] [--json FILE]

Of each sweep: seconds and the supervisor's own processor time a cell at its beginning and at its end, what it takes
before the first cell and after the last, and whether its memory, open files and threads grow from cell to cell. A
slope is that of a straight line over the last four fifths of the cells, with its 95 % interval (as if cells were
independent). Processor time hardly depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import psutil
from pairs import write
from scipy import stats

FAKES = Path(__file__).parents[1] / "tests" / "fakes"
CELL = ["gpu=pascal", "meter=scripted", "engine=standin", "dataset=tiny", "batch=8", "budget.epochs=1"]
CELL += ["engine.step_s=0", "measure.baseline_s=0", "measure.warmup_steps=0", "measure.context_s=0"]
LOOK_S = 0.02


@dataclass(frozen=True)
class Seen:
    """The supervisor just after a cell."""

    time_s: float
    cpu_s: float
    rss_mb: float
    files: int
    threads: int


def environment(folder: Path) -> dict[str, str]:
    """In which the stand-ins are known, and the cards that are not there are locked apart from real ones."""
    path = os.pathsep.join(filter(None, (str(FAKES), os.environ.get("PYTHONPATH"))))
    fakes = {"PYTHONPATH": path, "ENERGYBENCH_PLUGINS": "standin,scripted", "ENERGYBENCH_LOCKS": str(folder)}
    return {**os.environ, **fakes}


def look(process: psutil.Process) -> Seen:
    with process.oneshot():
        cpu = process.cpu_times()
        rss_mb = process.memory_info().rss / 1e6
        return Seen(time.monotonic(), cpu.user + cpu.system, rss_mb, process.num_fds(), process.num_threads())


def sweep(cells: int, tracking: str, folder: Path) -> dict:
    """Runs a sweep and looks at its supervisor after each cell."""
    begun = time.monotonic()
    words = [*CELL, f"seed=range(0,{cells})", f"tracking={tracking}", "hydra.sweep.dir=sweep", "-m"]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "energybench", *words], cwd=folder, env=environment(folder), stdout=said, stderr=said
        )
    watched, seen = psutil.Process(process.pid), []
    while len(seen) < cells and process.poll() is None:
        if (folder / "sweep" / str(len(seen)) / "result.json").exists():
            seen.append(look(watched))
        else:
            time.sleep(LOOK_S)
    last_cpu_s = seen[-1].cpu_s if seen else 0.0
    while process.poll() is None:  # the last look that is possible tells what the end took
        try:
            last_cpu_s = look(watched).cpu_s
        except psutil.Error:
            break
        time.sleep(LOOK_S)
    if process.wait() or len(seen) < cells:
        raise SystemExit(f"the sweep ended with {process.returncode}: {(folder / 'said').read_text()[-2000:]}")
    return {
        "cells": cells,
        "tracking": tracking,
        "first_s": seen[0].time_s - begun,
        "first_cpu_s": seen[0].cpu_s,
        "end_s": time.monotonic() - seen[-1].time_s,
        "end_cpu_s": last_cpu_s - seen[-1].cpu_s,
        "seen": [asdict(one) for one in seen],
    }


def slope(values: list[float]) -> tuple[float, float]:
    """Growth a cell over the last four fifths, and the half width of its 95 % interval."""
    late = values[len(values) // 5 :]
    found = stats.linregress(range(len(late)), late)
    return found.slope, stats.t.ppf(0.975, len(late) - 2) * found.stderr


def told(found: dict) -> str:
    """One sweep, a few lines."""
    seen = [Seen(**one) for one in found["seen"]]
    cpu = [after.cpu_s - before.cpu_s for before, after in pairwise(seen)]
    wall = [after.time_s - before.time_s for before, after in pairwise(seen)]
    part = max(len(cpu) // 5, 1)
    lines = [
        f"{found['cells']:,} cells, tracking={found['tracking']}: {statistics.median(wall):.2f} s a cell, "
        f"{statistics.fmean(cpu):.3f} s of the supervisor's processor time "
        f"(first fifth {statistics.fmean(cpu[:part]):.3f}, last {statistics.fmean(cpu[-part:]):.3f}); "
        f"to the end of the first {found['first_s']:.1f} s ({found['first_cpu_s']:.1f} s of processor time), "
        f"behind the last {found['end_s']:.1f} s ({found['end_cpu_s']:.1f})"
    ]
    if len(seen) >= 20:
        rss, files, threads = ([getattr(one, key) for one in seen] for key in ("rss_mb", "files", "threads"))
        grown, doubt = slope(rss)
        cost, cost_doubt = slope(cpu)
        lines.append(
            f"    memory {rss[len(rss) // 5]:.0f} MB after a fifth, {rss[-1]:.0f} MB at the end: "
            f"{1e3 * grown:+.1f} ± {1e3 * doubt:.1f} kB a cell; "
            f"processor time {1e6 * cost:+.0f} ± {1e6 * cost_doubt:.0f} µs a cell more from cell to cell; "
            f"open files {files[len(files) // 5]} to {files[-1]} (most {max(files)}), "
            f"threads {threads[len(threads) // 5]} to {threads[-1]} (most {max(threads)})"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--tracking", nargs="+", choices=["mlflow", "none"], default=["mlflow", "none"])
    parser.add_argument("--json")
    given = parser.parse_args()
    found = []
    for tracking in given.tracking:
        for cells in given.cells:
            with tempfile.TemporaryDirectory() as folder:
                found.append(sweep(cells, tracking, Path(folder)))
            print(told(found[-1]), flush=True)
            write(given.json, {"sweeps": found})


if __name__ == "__main__":
    main()
