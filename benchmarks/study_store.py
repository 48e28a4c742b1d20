"""How long a study of many runs takes to be read from a tracking store and decided, and how much memory."""

from __future__ import annotations

import argparse
import json
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from pairs import alternate, ratio_line, write

from energybench.run.result import Result
from energybench.tracking import record

MODELS = ("caffenet", "resnetim", "lenet", "cnn2d", "resnet")
GENERATIONS = ("maxwell", "pascal")
BATCHES = (32, 64, 128, 256, 512)
PRECISIONS = ("fp32", "fp16")
COUNTS = (1, 2)


def results(count: int, like: Result) -> Iterator[Result]:
    """Runs of a full grid, as many seeds of each setting as make `count`; settings, metrics and tags of a real run.

    Args:
        count: how many.
        like: a real run, from which everything comes that is not varied here.
    """
    draw = random.Random(7)
    grid = [(m, g, b, p, n) for m in MODELS for g in GENERATIONS for b in BATCHES for p in PRECISIONS for n in COUNTS]
    for index in range(count):
        model, generation, batch, precision, gpus = grid[index % len(grid)]
        seed = index // len(grid)
        image_j = 0.02 * (1 + MODELS.index(model)) * batch**-0.15 * (0.7 if generation == "pascal" else 1.0)
        image_j *= draw.gauss(1, 0.01) * (0.8 if precision == "fp16" else 1.0)
        watts = 200.0 * gpus
        energy_j = image_j * like.metrics["images"]
        time_s = energy_j / watts * draw.gauss(1, 0.01)
        changed = {
            "energy_j": energy_j,
            "energy_uncertainty_j": 0.05 * energy_j,
            "energy_independent_uncertainty_j": 0.005 * energy_j,
            "energy_per_image_j": image_j,
            "time_s": time_s,
            "images_per_s": like.metrics["images"] / time_s,
            "edp_js": energy_j * time_s,
            "power_mean_w": energy_j / time_s,
            "accuracy_top1": min(1.0, draw.gauss(0.9 - batch / 20000, 0.004)),
        }
        config = json.loads(json.dumps(like.config))
        config["model"]["name"] = model
        config["gpu"] = {"name": generation, "count": gpus}
        config |= {"batch": batch, "precision": precision, "seed": seed}
        devices = [
            {"kind": "gpu", "uuid": f"GPU-{generation}-{n}", "name": f"TITAN {generation}", "generation": generation}
            for n in range(gpus)
        ]
        yield Result(
            run_id=f"{index:032x}",
            status="finished",
            failure=None,
            config=config,
            started_at=like.started_at,
            ended_at=like.ended_at,
            metrics=like.metrics | changed,
            epochs=like.epochs,
            tags=like.tags
            | {"energy_source": "measured", "energy_scope": "gpu", "meter": "nvml"}
            | {"device": f"TITAN {generation}", "generation": generation},
            provenance=like.provenance | {"devices": devices},
            overrides=(
                f"model={model}",
                f"gpu={generation}",
                f"batch={batch}",
                f"precision={precision}",
                f"gpu.count={gpus}",
                f"seed={seed}",
            ),
        )


def fill(uri: str, experiment: str, count: int, like: Result) -> None:
    """Writes the runs through MLflow's own API, one batch a run."""
    from mlflow.entities import Metric, Param, RunTag

    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment_id = client.create_experiment(experiment)
    for result in results(count, like):
        run = client.create_run(experiment_id, start_time=record.millis(result.started_at), run_name=result.run_id)
        client.log_batch(
            run.info.run_id,
            metrics=[Metric(*row) for row in record.metrics(result)],
            params=[Param(*item) for item in record.flatten(result.config).items()],
            tags=[RunTag(*item) for item in record.tags(result).items()],
        )
        client.set_terminated(run.info.run_id, "FINISHED", record.millis(result.ended_at))


def multiply(path: Path, copies: int) -> None:
    """Copies every run so often, with ids, seeds and a scatter of its own: MLflow takes some 80 ms to write one."""
    with closing(sqlite3.connect(path)) as database, database:
        seeds = database.execute("SELECT count(DISTINCT value) FROM params WHERE key = 'seed'").fetchone()[0]
        written = "SELECT run_uuid FROM runs WHERE run_uuid GLOB '[0-9a-f]*'"
        for copy in range(1, copies):
            mark = chr(ord("g") + copy - 1)  # no hexadecimal digit, so that no id is made twice
            for table in ("runs", "params", "tags", "latest_metrics", "metrics"):
                columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
                values = ", ".join(_copied(table, column, mark, seeds * copy) for column in columns)
                chosen = f"FROM {table} WHERE run_uuid IN ({written})"
                database.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} {chosen}")


def _copied(table: str, column: str, mark: str, seeds: int) -> str:
    """The SQL expression of a copy's column."""
    if column == "run_uuid":
        return f"'{mark}' || substr(run_uuid, 2)"
    if column != "value":
        return column
    return {
        "tags": f"CASE WHEN key = '{record.RUN_TAG}' THEN '{mark}' || substr(value, 2) ELSE value END",
        "params": f"CASE WHEN key = 'seed' THEN CAST(CAST(value AS INT) + {seeds} AS TEXT) ELSE value END",
    }.get(table, "value * (0.995 + 0.01 * (abs(random() % 1000) / 1000.0))")


def timed(uri: str, experiment: str) -> dict[str, float]:
    """Reading and deciding, in this process; seconds, and the process's peak memory in MiB."""
    from energybench.study.collect import collect
    from energybench.study.decision import Question, decide

    begun, cpu = time.perf_counter(), time.process_time()
    found = collect([experiment], uri=uri)
    read, read_cpu = time.perf_counter(), time.process_time()
    decisions = decide(found.results, Question())
    decided, decided_cpu = time.perf_counter(), time.process_time()
    return {
        "runs": len(found.results),
        "settings": sum(len(decision.settings) for decision in decisions),
        "read_s": read - begun,
        "read_cpu_s": read_cpu - cpu,
        "decide_s": decided - read,
        "decide_cpu_s": decided_cpu - read_cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def against_client(uri: str, experiment: str, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of reading the runs through MLflow's client and straight from the database, in turn."""
    from energybench.tracking.recorded import DatabaseRuns, Runs, ServerRuns

    def seconds(runs: Runs) -> float:
        begun = time.perf_counter()
        runs.of_experiment(runs.experiments()[experiment])
        return time.perf_counter() - begun

    client, database = ServerRuns(uri), DatabaseRuns(uri)
    return alternate(lambda: seconds(client), lambda: seconds(database), rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("like", type=Path, help="result.json of a real run: its configuration and metrics are kept")
    parser.add_argument("--runs", type=int, default=1000, help="runs that are written through MLflow (1000)")
    parser.add_argument("--copies", type=int, default=10, help="how many there are to be of each (10)")
    parser.add_argument("--store", help="an SQLite file to keep; it is filled unless it exists (a temporary one)")
    parser.add_argument("--client", type=int, metavar="ROUNDS", help="compare with MLflow's client, so many times")
    parser.add_argument("--json")
    parser.add_argument("--only-read", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only_read:
        print(json.dumps(timed(f"sqlite:///{given.store}", "many")))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(given.store or Path(folder, "mlflow.db")).absolute()
        if not path.exists():
            begun = time.perf_counter()
            fill(f"sqlite:///{path}", "many", given.runs, Result.read(given.like))
            multiply(path, given.copies)
            print(f"written in {time.perf_counter() - begun:.1f} s")
        command = [sys.executable, __file__, str(given.like), "--store", str(path), "--only-read"]
        begun = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seen = {**json.loads(done.stdout), "process_s": time.perf_counter() - begun}
        if given.client:
            client, database = against_client(f"sqlite:///{path}", "many", given.client)
            print(ratio_line("MLflow's client against the database", client, database, "s"))
            seen |= {"client_s": client, "database_s": database}
    print(
        f"{seen['runs']:,.0f} runs, {seen['settings']} settings: read {seen['read_s']:.2f} s "
        f"({seen['read_cpu_s']:.2f} s of CPU), decided {seen['decide_s']:.2f} s ({seen['decide_cpu_s']:.2f} s), "
        f"whole process {seen['process_s']:.2f} s, peak {seen['peak_mib']:.0f} MiB"
    )
    write(given.json, seen)


if __name__ == "__main__":
    main()
