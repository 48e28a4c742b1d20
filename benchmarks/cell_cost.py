"""What one cell of a sweep costs beyond starting Python, importing the framework, training and warming up.

A sweep of short cells is run; a cell's cost is the time from its start to the next one's, less the life of its worker
(start of Python to `done`, which holds the import, the training and the warm-up) and the declared baseline.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from pairs import write


def python_start_s() -> float:
    """Median seconds of starting Python and importing what a worker imports before its first event."""
    seen = []
    for _ in range(5):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import energybench.run.worker"], check=True)
        seen.append(time.perf_counter() - begun)
    return statistics.median(seen)


def worker_s(directory: Path) -> float:
    """From the first to the last event of a worker."""
    times = [json.loads(line)["time_ns"] for line in (directory / "events.jsonl").read_text().splitlines()]
    return (times[-1] - times[0]) / 1e9


def idle_s(result: dict) -> float:
    return sum((phase["end_ns"] - phase["start_ns"]) / 1e9 for phase in result["phases"] if phase["name"] == "idle")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=10)
    parser.add_argument("--tracking", default="mlflow", choices=["mlflow", "none"])
    parser.add_argument("--json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        seeds = ",".join(map(str, range(given.cells)))
        command = [sys.executable, "-m", "energybench", "-m", f"seed={seeds}", "budget.epochs=1", "gpu=cpu"]
        settings = [f"tracking={given.tracking}", "hydra.sweep.dir=sweep"]
        subprocess.run([*command, *settings], cwd=directory, check=True, stdout=subprocess.DEVNULL)
        cells = sorted(Path(directory, "sweep").glob("*/result.json"), key=lambda path: int(path.parent.name))
        results = [json.loads(path.read_text()) for path in cells]
        starts = [datetime.fromisoformat(result["started_at"]).timestamp() for result in results]
        start_s = python_start_s()
        costs = [
            after - before - worker_s(path.parent) - start_s - idle_s(result)
            for before, after, path, result in zip(starts, starts[1:], cells, results, strict=False)
        ]
    print(
        f"cost of a cell, tracking={given.tracking}: median {statistics.median(costs):.2f} s "
        f"({min(costs):.2f} to {max(costs):.2f}, n = {len(costs)}); starting Python {start_s:.2f} s is not in it"
    )
    write(given.json, {"cost_s": costs, "python_start_s": start_s, "tracking": given.tracking})


if __name__ == "__main__":
    main()
