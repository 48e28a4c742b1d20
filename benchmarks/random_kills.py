"""Cells lost out of cells run, when sweeps are killed at random moments and the same command is given again.

    python benchmarks/random_kills.py [--cells 500] [--sweep 12] [--at-once 2] [--seed 1] [--json FILE]

Sweeps of a stand-in engine and meter under the real supervisor, ledger and tracker (SQLite), several at once, each with
cards and a store of its own. Again and again one is struck: SIGKILL to its supervisor, to a worker, or to both at
once; SIGTERM; SIGINT. The moments are drawn from a seeded generator and fall into starting, training, recording and the
report. The command is given again, with rerun=failed, until it is done. What it ends with is compared with a sweep that
was left alone.

A cell is *lost* that has no finished result at the end, or is not in the store exactly once, finished, with the same
metrics; *run twice* if it had finished and was run again. Afterwards no process may live, no lock be held, no temporary
file lie in the sweep's folder.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from load_sweep import CELL, FAKES, environment
from pairs import write

from energybench.errors import DataError
from energybench.run.result import Result

sys.path.append(str(FAKES))
import leftovers

STRIKES = ("supervisor killed", "worker killed", "all killed", "SIGTERM", "SIGINT")
PATIENCE_S = 900.0
MOST_STRIKES = 4
LONGEST_S = 12.0
"""Longest time from giving a command to striking it."""


def strike(kind: str, process: subprocess.Popen, locks: Path) -> bool:
    """Does it; False where there was nothing to be struck."""
    if process.poll() is not None:
        return False
    workers = [one for one in leftovers.processes(locks) if one.pid != process.pid]
    if kind == "worker killed":
        if not workers:
            return False
        workers[0].kill()
    elif kind == "all killed":
        for one in [process, *workers]:
            one.kill()
    else:
        names = {"supervisor killed": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
        process.send_signal(names[kind])
    return True


def finished(folder: Path) -> dict[int, str]:
    """Number of each cell that has finished -> the run's id."""
    found = {}
    for path in (folder / "sweep").glob("[0-9]*/result.json"):
        try:
            result = Result.read(path)
        except DataError as error:
            raise SystemExit(f"a result that cannot be read: {error}") from error
        if result.status == "finished":
            found[int(path.parent.name)] = result.run_id
    return found


def command(cells: int) -> list[str]:
    grid = [f"seed=range(0,{cells // 2})", "batch=8,16", "sweep.shuffle=1", "hydra.sweep.dir=sweep", "-m"]
    return [sys.executable, "-m", "energybench", *CELL, "engine.step_s=0.02", *grid, "rerun=failed"]


def given(cells: int, folder: Path, locks: Path) -> subprocess.Popen:
    with (folder / "said").open("a") as said:
        return subprocess.Popen(
            command(cells), cwd=folder, env=environment(locks), stdout=said, stderr=said, start_new_session=True
        )


def disturbed(number: int, cells: int, seed: int, base: Path) -> dict:
    """One sweep, struck until it has been struck often enough, and then left to end."""
    chance = random.Random(1000 * seed + number)
    folder, locks = base / f"{number}", base / f"{number}-locks"
    folder.mkdir()
    locks.mkdir()
    struck: Counter[str] = Counter()
    done: dict[int, str] = {}
    twice = commands = 0
    deadline = time.monotonic() + PATIENCE_S
    while True:
        process, commands = given(cells, folder, locks), commands + 1
        while struck.total() < MOST_STRIKES and process.poll() is None:
            wait(process, chance.uniform(0.3, LONGEST_S))
            kind = chance.choice(STRIKES)
            if strike(kind, process, locks):
                struck[kind] += 1
                if kind != "worker killed":  # of that the sweep goes on by itself
                    break
        code = process.wait(max(deadline - time.monotonic(), 1.0))
        now = finished(folder)
        twice += sum(now.get(cell) != run_id for cell, run_id in done.items())
        done = now
        if code == 0:
            break
        if time.monotonic() > deadline:
            raise SystemExit(f"sweep {number} does not end: {(folder / 'said').read_text()[-2000:]}")
    living = leftovers.remaining(locks)
    return {
        "cells": cells,
        "commands": commands,
        "struck": dict(struck),
        "twice": twice,
        "lost": cells - len(done),
        "store": recorded(folder, done),
        "processes": len(living),
        "locks": len(leftovers.held(locks, folder)),
        "files": [str(path.relative_to(folder)) for path in leftovers.temporary(folder)],
        "results": comparable(folder),
    }


def wait(process: subprocess.Popen, seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def undisturbed(cells: int, base: Path) -> dict[str, list]:
    """What the same sweep gives that is left alone."""
    folder, locks = base / "twin", base / "twin-locks"
    folder.mkdir()
    locks.mkdir()
    if given(cells, folder, locks).wait(PATIENCE_S):
        raise SystemExit((folder / "said").read_text()[-2000:])
    return comparable(folder)


def comparable(folder: Path) -> dict[str, list]:
    """What a stand-in's runs give whenever they are run."""
    results = [Result.read(path.parent) for path in (folder / "sweep").glob("[0-9]*/result.json")]
    return {
        " ".join(one.overrides): [one.status, one.metrics["images"], one.metrics["accuracy_top1"]] for one in results
    }


def recorded(folder: Path, done: dict[int, str]) -> dict[str, int]:
    """How often the store and the results on disk do not agree, by how."""
    import mlflow

    wrong: Counter[str] = Counter()
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()], max_results=5000)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    cells = {}
    for run in runs:
        if run in parents:
            continue
        if "energybench.superseded" in run.data.tags or run.info.status != "FINISHED":
            wrong["attempts that failed, kept beside"] += 1
            continue
        name = run.data.tags["energybench.run_id"]
        wrong["twice in the store"] += name in cells
        wrong["not complete"] += run.data.tags.get("energybench.complete") != "true"
        wrong["below another parent"] += run.data.tags["mlflow.parentRunId"] != parents[0].info.run_id
        cells[name] = run
    wrong["parents too many"] += len(parents) - 1
    wrong["parent not finished"] += parents[0].info.status != "FINISHED"
    wrong["missing in the store"] += len(set(done.values()) - set(cells))
    wrong["in the store alone"] += len(set(cells) - set(done.values()))
    for number, run_id in done.items():
        if run_id in cells:
            told = Result.read(folder / "sweep" / str(number)).metrics
            seen = cells[run_id].data.metrics
            wrong["other metrics"] += any(seen.get(key) != value for key, value in told.items())
    return {key: count for key, count in wrong.items() if count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=500, help="cells in all, at least (500)")
    parser.add_argument("--sweep", type=int, default=12, help="cells of a sweep (12)")
    parser.add_argument("--at-once", type=int, default=2, help="sweeps at the same time (2)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json")
    given = parser.parse_args()
    count, lock, sweeps = -(-given.cells // given.sweep), threading.Lock(), []
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(given.at_once) as pool:
        base, begun = Path(name), time.monotonic()
        wanted = undisturbed(given.sweep, base)
        for found in pool.map(lambda n: disturbed(n, given.sweep, given.seed, base), range(count)):
            found["as undisturbed"] = found.pop("results") == wanted
            with lock:
                sweeps.append(found)
            struck = sum((Counter(one["struck"]) for one in sweeps), Counter())
            print(f"{len(sweeps)} of {count} sweeps: {struck.total()} strikes, {summary(sweeps)}", flush=True)
            write(given.json, {"seconds": time.monotonic() - begun, "strikes": struck, "sweeps": sweeps})
    print("strikes: " + ", ".join(f"{kind} {struck[kind]}" for kind in STRIKES))


def summary(sweeps: list[dict]) -> str:
    def total(key: str) -> int:
        return sum(one[key] for one in sweeps)

    store = sum((Counter(one["store"]) for one in sweeps), Counter())
    beside = store.pop("attempts that failed, kept beside", 0)
    said = ", ".join(f"{key} {count}" for key, count in store.items()) or "nothing"
    return (
        f"{total('commands')} commands; of {total('cells')} cells {total('lost')} lost, {total('twice')} run again "
        f"that had finished; {sum(not one['as undisturbed'] for one in sweeps)} sweeps other than undisturbed; "
        f"store against results: {said} ({beside} failed attempts beside); left: {total('processes')} processes, "
        f"{total('locks')} locks, {sum(len(one['files']) for one in sweeps)} files"
    )


if __name__ == "__main__":
    main()
