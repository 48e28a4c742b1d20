"""Accuracy of the gait networks at several batches, each with several seeds: what the batch does to accuracy.

Each run is the worker's own loop, all in one process and unmetered: joules are `energybench -m`'s to say. Intervals are
95 % (Student's t over the seeds); of one network, batches are compared pair by pair, seed with seed.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time

from pairs import write
from scipy import stats

from energybench.cells import arguments, read
from energybench.registry import Registry
from energybench.run.assignment import Assignment
from energybench.run.preflight import Machine, prepare
from energybench.run.worker import Loop

MODELS = ("resnet", "cnn2d")
SHOWN = ("accuracy_top1", "accuracy_sequence_top1")


class Told:
    """Keeps what the loop says at the end of each phase."""

    def __init__(self) -> None:
        self.phases: list[dict] = []
        self.began_s: dict[str, float] = {}

    def emit(self, kind: str, phase: str = "", epoch: int | None = None, values: object = None, **rest: object) -> None:
        if kind == "started":
            self.began_s[phase] = time.perf_counter()
        elif kind == "ended":
            seconds = time.perf_counter() - self.began_s[phase]
            self.phases.append({"phase": phase, "epoch": epoch, "seconds": seconds, **dict(values or {})})

    def of(self, phase: str) -> list[dict]:
        return [one for one in self.phases if one["phase"] == phase]


def one_run(key: tuple[str, int, int], given: argparse.Namespace, registry: Registry) -> dict:
    model, batch, seed = key
    overrides = [
        *(f"model={model}", f"batch={batch}", f"seed={seed}", f"precision={given.precision}", "engine=torch"),
        f"gpu={'cpu' if given.device == 'cpu' else 'auto'}",
        *(f"budget.epochs={given.epochs}", "tracking=none", "measure.context_s=0", "dataset=walkers", *given.more),
        *([f"dataset.prepared={given.prepared}"] if given.prepared else []),
    ]
    machine, began = Machine(registry), time.perf_counter()
    plan = prepare(read(arguments(overrides), registry).cells[0].experiment, machine)
    told = Told()
    with tempfile.TemporaryDirectory() as directory:
        Loop(Assignment(plan.experiment, plan.devices, 0, 1, directory), told).run()
    trained, validated = told.of("train"), told.of("validate")
    return {
        "model": model, "batch": batch, "seed": seed, "epochs": len(trained),
        "images_per_s": sum(one["images"] for one in trained) / sum(one["seconds"] for one in trained),
        "wall_s": time.perf_counter() - began,
        "loss": trained[-1]["loss"], **{name: validated[-1][name] for name in SHOWN},
        "curve": [[one[name] for name in SHOWN] for one in validated],
    }  # fmt: skip


def interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval; nan of fewer than two."""
    if len(values) < 2:
        return statistics.mean(values), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values), float(half)


def table(runs: list[dict]) -> None:
    print(f"\n{'network':8}{'batch':>6}{'seeds':>6}{'top-1':>16}{'of sequences':>18}{'images/s':>10}")
    for model, batch in itertools.product(MODELS, sorted({run["batch"] for run in runs})):
        cell = [run for run in runs if (run["model"], run["batch"]) == (model, batch)]
        if cell:
            shown = [interval([run[name] for run in cell]) for name in SHOWN]
            words = [f"{100 * mean:7.2f} ± {100 * half:5.2f} %" for mean, half in shown]
            rate = statistics.median(run["images_per_s"] for run in cell)
            print(f"{model:8}{batch:6}{len(cell):6}{words[0]:>16}{words[1]:>18}{rate:10,.0f}")
    for model in MODELS:
        by_batch: dict[int, dict[int, float]] = {}
        for run in runs:
            if run["model"] == model:
                by_batch.setdefault(run["batch"], {})[run["seed"]] = run[SHOWN[0]]
        for small, large in itertools.combinations(sorted(by_batch), 2):
            seeds = sorted(by_batch[small].keys() & by_batch[large].keys())
            mean, half = interval([by_batch[small][seed] - by_batch[large][seed] for seed in seeds])
            verdict = "not distinguishable" if not abs(mean) > half else "apart"
            print(f"{model}: batch {small} less batch {large}: {100 * mean:+.2f} ± {100 * half:.2f} points, {verdict}")


def options() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 128, 256])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--prepared", help="folder of walks that were made elsewhere")
    parser.add_argument("--seconds", type=float, default=150.0, help="no run is begun that may not end by then")
    parser.add_argument("--more", nargs="*", default=[], help="further overrides of every run: training.lr=0.02 ...")
    parser.add_argument("--json")
    return parser


def main() -> None:
    given = options().parse_args()
    registry = Registry()
    runs: list[dict] = []
    began, longest = time.perf_counter(), 0.0
    # seed by seed, so that what there is no time for is whole repeats
    for seed, model, batch in itertools.product(given.seeds, given.models, given.batches):
        if time.perf_counter() - began + longest > given.seconds:
            print(f"no time for {model} batch={batch} seed={seed} and what follows")
            break
        run = one_run((model, batch, seed), given, registry)
        runs.append(run)
        longest = max(longest, run["wall_s"]) if len(runs) > 1 else 0.0  # the first imports the framework
        accuracies = " ".join(f"{name}={run[name]:.4f}" for name in SHOWN)
        print(
            f"{model:8} batch={batch:<4} seed={seed} {accuracies} loss={run['loss']:.3f} "
            f"{run['images_per_s']:,.0f} images/s [{run['wall_s']:.1f} s]",
            flush=True,
        )
        write(given.json, {"arguments": vars(given), "runs": runs})
    table(runs)


if __name__ == "__main__":
    main()
