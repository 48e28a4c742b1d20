"""Several sweeps into one tracking server on PostgreSQL at once, against one sweep alone.

    python benchmarks/load_server.py [--at-once 4] [--cells 25] [--json FILE]

The server is that of mlflow/ (a real PostgreSQL, basic authentication, artifacts through the server), the cells are
those of a stand-in engine and meter. Afterwards the store is asked: each run once, finished, complete, below its own
sweep's parent, with the metrics that lie on disk. Needs what tests/server needs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from load_sweep import CELL, FAKES, environment
from pairs import write

from energybench.run.result import Result

sys.path.append(str(FAKES))
import tracking_server


def start(number: int, cells: int, base: Path, variables: dict[str, str]) -> tuple[Path, subprocess.Popen]:
    folder, locks = base / f"sweep-{number}", base / f"locks-{number}"
    folder.mkdir(parents=True)
    locks.mkdir()
    words = [*CELL, f"seed=range(0,{cells})", "tracking.experiment=load", "hydra.sweep.dir=sweep", "-m"]
    with (folder / "said").open("w") as said:
        command = [sys.executable, "-m", "energybench", *words]
        return folder, subprocess.Popen(
            command, cwd=folder, env={**environment(locks), **variables}, stdout=said, stderr=said
        )


def results(folder: Path) -> list[Result]:
    found = [Result.read(path.parent) for path in (folder / "sweep").glob("[0-9]*/result.json")]
    return sorted(found, key=lambda result: result.started_at)


def together(count: int, cells: int, base: Path, variables: dict[str, str]) -> tuple[list[float], list[list[Result]]]:
    """Seconds from cell to cell of all sweeps, and their results."""
    begun = [start(number, cells, base, variables) for number in range(count)]
    for folder, process in begun:
        said = folder / "said"
        if process.wait() or "warning" in said.read_text():
            raise SystemExit(f"a sweep ended with {process.returncode}: {said.read_text()[-3000:]}")
    found = [results(folder) for folder, _ in begun]
    times = [[datetime.fromisoformat(one.started_at).timestamp() for one in sweep] for sweep in found]
    return [after - before for sweep in times for before, after in pairwise(sweep)], found


def disagreements(uri: str, sweeps: list[list[Result]]) -> Counter[str]:
    """How the store and the results on disk differ."""
    import mlflow

    client, wrong = mlflow.MlflowClient(tracking_uri=uri), Counter[str]()
    experiment = client.get_experiment_by_name("load")
    runs, token = [], None
    while token != "":
        page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=token)
        runs, token = runs + list(page), page.token or ""
    parents = {run.data.tags["energybench.sweep_id"]: run for run in runs if "mlflow.parentRunId" not in run.data.tags}
    below = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    names = Counter(run.data.tags["energybench.run_id"] for run in below)
    wrong["runs too many"] += len(below) - len(names)
    wrong["parents missing or too many"] += abs(len(parents) - len(sweeps)) + len(runs) - len(below) - len(parents)
    wrong["parents not finished"] += sum(run.info.status != "FINISHED" for run in parents.values())
    recorded = {run.data.tags["energybench.run_id"]: run for run in below}
    for result in (result for sweep in sweeps for result in sweep):
        run = recorded.get(result.run_id)
        if run is None:
            wrong["lost"] += 1
            continue
        parent = parents[result.sweep_id].info.run_id
        wrong["below another parent"] += run.data.tags["mlflow.parentRunId"] != parent
        wrong["not finished"] += run.info.status != "FINISHED" or run.data.tags["energybench.complete"] != "true"
        wrong["other metrics"] += any(run.data.metrics.get(key) != value for key, value in result.metrics.items())
        names = {file.path for file in client.list_artifacts(run.info.run_id)}
        wrong["artifacts missing"] += not {"result.json", "power.parquet"} <= names
    return Counter({key: count for key, count in wrong.items() if count})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--cells", type=int, default=25, help="of each sweep (25)")
    parser.add_argument("--json")
    given = parser.parse_args()
    if reason := tracking_server.missing():
        raise SystemExit(f"the server {reason}")
    login = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": tracking_server.PASSWORD}
    os.environ.update(login)
    with tempfile.TemporaryDirectory() as name, tracking_server.database() as database:
        base = Path(name)
        (base / "server").mkdir()
        server = tracking_server.Server(database, base / "server").start()
        try:
            variables = {"MLFLOW_TRACKING_URI": server.uri}
            begun = time.monotonic()
            alone, first = together(1, given.cells, base / "alone", variables)
            alone_s, begun = time.monotonic() - begun, time.monotonic()
            several, others = together(given.at_once, given.cells, base / "several", variables)
            several_s = time.monotonic() - begun
            wrong = disagreements(server.uri, [*first, *others])
        finally:
            server.stop()
    runs, middle = sum(map(len, [*first, *others])), statistics.median
    every_s = several_s / given.at_once / given.cells
    print(f"one sweep alone: {middle(alone):.2f} s from cell to cell ({min(alone):.2f} to {max(alone):.2f})")
    print(
        f"{given.at_once} at once: {middle(several):.2f} s ({min(several):.2f} to {max(several):.2f}), "
        f"{middle(several) / middle(alone):.2f} times; a cell ends every {every_s:.2f} s, "
        f"alone every {alone_s / given.cells:.2f} s"
    )
    differ = ", ".join(f"{key} {count}" for key, count in wrong.items()) or "nothing"
    print(f"{runs} runs of {1 + given.at_once} sweeps; store against results: {differ}")
    write(given.json, {"alone_s": alone, "several_s": several, "runs": runs, "wrong": wrong})


if __name__ == "__main__":
    main()
