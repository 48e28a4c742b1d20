"""Networks x batches x precisions x ways of running a step, each cell a run of energybench with its own meter.

The parts of --plan are made one after the other, each in an order shuffled by --seed. A cell that stands in --out is
not run again, so that the grid can be made in several visits of --seconds each. The table and the plot show all that is
there, the mean of the boards where several made a cell; --only-show of more boards says how they differ.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import random
import statistics
import tempfile
import time
from pathlib import Path

from energybench.cells import arguments, read
from energybench.errors import EnergybenchError
from energybench.registry import Registry
from energybench.run.execute import Place, execute
from energybench.run.preflight import Machine, prepare

MODELS = ("caffenet", "resnetim", "resnet", "cnn2d")
Key = tuple[str, int, str, str]
"""Model, batch, precision and way of a cell."""

RANDOM = {"lenet": "synthetic", "resnet": "synthetic_gait", "cnn2d": "synthetic_gait"}
WAYS = {
    "eager": ["engine.graph=false", "engine.compile=none"],
    "graph": ["engine.graph=true", "engine.compile=none"],
    "compiled": ["engine.graph=true", "engine.compile=default"],
}
PLAN = ("bf16:graph", "bf16:eager", "fp32:graph", "tf32:graph")
STYLES: dict[tuple[str, str], dict] = {
    ("bf16", "graph"): {"color": "#0072b2", "marker": "o"},
    ("bf16", "eager"): {"color": "#0072b2", "marker": "o", "linestyle": "--", "markerfacecolor": "white"},
    ("bf16", "compiled"): {"color": "#56b4e9", "marker": "D"},
    ("tf32", "graph"): {"color": "#009e73", "marker": "s"},
    ("fp32", "graph"): {"color": "#d55e00", "marker": "^"},
}
"""How a plot draws each precision and way."""

RETRIED = ("crashed", "killed", "hung", "error", "meter", "internal", "interrupted")
"""Kinds of failure after which a cell is run again in the next visit."""

KEPT = (
    *("images_per_s", "power_mean_w", "energy_per_image_j", "gflops_per_w", "gflops_per_s", "energy_j", "images"),
    *("energy_uncertainty_j", "energy_independent_uncertainty_j", "energy_edges_uncertainty_j"),
    *("time_s", "power_idle_w", "memory_peak_bytes"),
    *("compile.time_s", "compile.energy_j", "capture.time_s", "capture.energy_j", "warmup.energy_j"),
)


class Silent:
    def update(self, moment: object) -> None:
        pass


def overrides(model: str, batch: int, precision: str, way: str, given: argparse.Namespace) -> list[str]:
    ways = WAYS[way]
    if given.device == "cpu":
        ways = [text for text in ways if "graph" not in text]
    return [
        *(f"model={model}", f"batch={batch}", f"precision={precision}", "engine=torch", *ways),
        *("gpu=cpu" if given.device == "cpu" else "gpu=auto", "budget.epochs=null", f"budget.seconds={given.cell}"),
        *("dataset.images=100000000", "tracking=none", f"measure.baseline_s={given.baseline}", f"seed={given.seed}"),
        *("measure.context_s=0.5", "measure.baseline_max_s=3"),
        *([f"engine.compile_cache={given.cache}"] if given.cache else []),
        *([f"dataset={RANDOM[model]}"] if model in RANDOM else []),  # the others bring it
        *([f"model.input_size={given.size}"] if given.size else []),
    ]


def cell(key: Key, given: argparse.Namespace, machine: Machine) -> dict:
    """What one run gave: the metrics that are shown, its flags, or why there are none."""
    model, batch, precision, way = key
    found: dict = {"model": model, "batch": batch, "precision": precision, "way": way}
    try:
        command = read(arguments(overrides(*key, given)), machine.registry)
        with tempfile.TemporaryDirectory() as directory:
            result = execute(prepare(command.cells[0].experiment, machine), Place(Path(directory)), Silent())
    except EnergybenchError as error:
        return {**found, "failure": str(error)}
    if result.failure is not None:
        found["failure"] = f"{result.failure.kind}: {result.failure.message}"
    kept = {name: result.metrics[name] for name in KEPT if name in result.metrics}
    devices, engine = result.provenance["devices"], result.provenance["engine"]
    return {
        **found,
        "metrics": kept,
        "tags": result.tags,
        "devices": devices,
        "engine": engine,
        "at": result.started_at,
    }


def line(found: dict) -> str:
    head = f"{found['model']:10}{found['batch']:6} {found['precision']:5} {found['way']:9}"
    if "failure" in found:
        return f"{head} failed: {found['failure'][:100]}"
    metrics = {name: found["metrics"].get(name, math.nan) for name in KEPT}
    wide = metrics["energy_uncertainty_j"] / metrics["images"]
    per_w = metrics["gflops_per_w"] * wide / metrics["energy_per_image_j"]
    return (
        f"{head}{metrics['images_per_s']:12,.0f}{metrics['power_mean_w']:8.1f}"
        f"{1000 * metrics['energy_per_image_j']:10.3f} ± {1000 * wide:.3f}"
        f"{metrics['gflops_per_w']:9.2f} ± {per_w:.2f}  {found['tags'].get('quality', '')}"
    )


COLUMNS = (
    ("images_per_s", 1, "{:,.0f}"),
    ("power_mean_w", 1, "{:.0f}"),
    ("energy_per_image_j", 1000, "{:.1f}"),
    ("gflops_per_w", 1, "{:.0f}"),
)


def markdown(cells: list[dict], parts: list[str]) -> str:
    """A table for a page: a row for each network and batch, four columns for each precision and way."""
    found = {key_of(one): one["metrics"] for one in cells if "failure" not in one}
    heads = [f"{part.replace(':', ', ')}: images/s | W | mJ/image | GFLOPS/W" for part in parts]
    lines = [f"| network | batch | {' | '.join(heads)} |", f"| --- | ---: |{' ---: |' * 4 * len(parts)}"]
    models = sorted({model for model, *_ in found}, key=[*MODELS, *(model for model, *_ in found)].index)
    for model, batch in itertools.product(models, sorted({batch for _, batch, *_ in found})):
        row = []
        for precision, _, way in (part.partition(":") for part in parts):
            metrics = found.get((model, batch, precision, way))
            for name, factor, form in COLUMNS:
                row.append("–" if metrics is None or name not in metrics else form.format(factor * metrics[name]))
        lines.append(f"| {model} | {batch} | {' | '.join(row)} |")
    return "\n".join(lines)


def planned(given: argparse.Namespace) -> list[Key]:
    keys: list[Key] = []
    for part in given.plan:
        precision, way, *models = part.split(":")
        some = list(itertools.product(models or given.models, given.batches, [precision], [way]))
        random.Random(given.seed).shuffle(some)
        keys += some
    return list(dict.fromkeys(keys))


def key_of(found: dict) -> Key:
    return found["model"], found["batch"], found["precision"], found["way"]


def boards_of(found: dict) -> str:
    return " ".join(device["uuid"] or device["kind"] for device in found.get("devices", ()))


def over_boards(cells: list[dict]) -> list[dict]:
    """A cell for each key, its metrics the mean of the boards that made it; one that failed on all of them as it is."""
    groups: dict[Key, list[dict]] = {}
    for one in sorted(cells, key=lambda one: (one["model"], one["precision"], one["way"], one["batch"])):
        groups.setdefault(key_of(one), []).append(one)
    found = []
    for group in groups.values():
        good = [one["metrics"] for one in group if "failure" not in one]
        names = dict.fromkeys(name for metrics in good for name in metrics)
        means = {name: statistics.mean(metrics[name] for metrics in good if name in metrics) for name in names}
        found.append({**next((one for one in group if "failure" not in one), group[0]), "metrics": means})
    return found


def beside(cells: list[dict]) -> list[str]:
    """How each further board's cells are to those of the first board: mean and scatter of their ratios.

    Steps that are launched one by one are left out: they hang on the host.
    """
    boards: dict[str, dict[Key, dict]] = {}
    for one in cells:
        if "failure" not in one and one["way"] != "eager":
            boards.setdefault(boards_of(one), {})[key_of(one)] = one["metrics"]
    lines = []
    for first, other in [(next(iter(boards)), other) for other in [*boards][1:]]:
        common = boards[first].keys() & boards[other].keys()
        told = []
        for name in ("images_per_s", "energy_per_image_j"):
            pairs = [(boards[other][key].get(name), boards[first][key].get(name)) for key in common]
            ratios = [mine / theirs for mine, theirs in pairs if mine and theirs]
            if len(ratios) > 1:
                told.append(f"{name} {statistics.mean(ratios):.4f}, standard deviation {statistics.stdev(ratios):.4f}")
        lines += [f"{other} / {first}, {len(common)} cells: {'; '.join(told)}"] if told else []
    return lines


HEAD = f"{'network':10}{'batch':>6} {'prec.':5} {'way':9}{'images/s':>12}{'W':>8}{'mJ/image':>10}{'':10}{'GFLOPS/W':>9}"


def options() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 128, 256])
    parser.add_argument("--plan", nargs="+", default=list(PLAN), help="parts: precision:way, or precision:way:network")
    parser.add_argument("--cell", type=float, default=8.0, help="seconds of training a cell")
    parser.add_argument("--baseline", type=float, default=0.0, help="seconds of idle before each cell")
    parser.add_argument("--size", type=int, help="input size of every network")
    parser.add_argument("--cache", help="folder that keeps what was compiled; none: each cell compiles anew")
    parser.add_argument(
        "--seconds", type=float, default=540.0, help="of all; no cell is begun that may not end by then"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="tiny: shows that it runs")
    parser.add_argument(
        "--only-show", action="store_true", help="the table and the plot of what stands in --out and --known"
    )
    parser.add_argument("--known", nargs="*", default=[], help="files of earlier visits: their cells are not run again")
    parser.add_argument("--plot", help="PNG or SVG")
    parser.add_argument("--markdown", nargs="+", metavar="PART", help="a table of these parts as Markdown too")
    parser.add_argument("--out")
    return parser


def main() -> None:
    given = options().parse_args()
    if given.quick:
        given.models, given.batches, given.plan, given.cell = ["lenet"], [8], ["fp32:eager"], 0.5
        given.device = "cpu"
    path = Path(given.out) if given.out else None
    files = [*map(Path, given.known), *([path] if path else [])]
    told = [json.loads(earlier.read_text()) for earlier in files if earlier.exists()]
    done = [one for earlier in told for one in earlier["cells"]]
    keys = planned(given)
    done = [one for one in done if not one.get("failure", "").startswith(RETRIED)]
    done = list({(key_of(one), boards_of(one)): one for one in done}.values())
    known = {key_of(one) for one in done}
    registry = Registry()
    machine, begun, longest = Machine(registry), time.monotonic(), given.cell + 20.0
    print(HEAD)
    for key in [] if given.only_show else keys:
        if key in known:
            continue
        if time.monotonic() - begun + longest > given.seconds:
            print("no time for another cell; call again with the same --out")
            break
        started = time.monotonic()
        done.append(cell(key, given, machine))
        longest = max(longest, time.monotonic() - started)
        print(line(done[-1]), f" [{time.monotonic() - started:.1f} s]", flush=True)
        if path:
            write(path, done, platform.python_version())
    if given.only_show and given.known and path:
        write(path, done, told[0]["python"])
    shown = over_boards(done)
    print("", HEAD, *map(line, shown), *beside(done), sep="\n")
    if given.markdown:
        print("", markdown(shown, given.markdown), sep="\n")
    if given.plot:
        plot(shown, given.plot)


def write(path: Path, cells: list[dict], python: str) -> None:
    path.write_text(json.dumps({"python": python, "cells": cells}, indent=1) + "\n")


def plot(cells: list[dict], path: str) -> None:
    """Images/s and millijoules an image against the batch, a column for each network."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "energybench"
    from matplotlib import pyplot as plt

    models = [model for model in MODELS if any(one["model"] == model for one in cells)]
    figure, axes = plt.subplots(2, len(models), figsize=(3 * len(models), 6), sharex=True, squeeze=False)
    for column, model in enumerate(models):
        for (precision, way), style in STYLES.items():
            line = sorted(
                (one["batch"], one["metrics"]["images_per_s"], 1000 * one["metrics"]["energy_per_image_j"])
                for one in cells
                if (one["model"], one["precision"], one["way"]) == (model, precision, way) and "failure" not in one
            )
            for axis, part in zip(axes[:, column], (1, 2), strict=True):
                axis.plot([x[0] for x in line], [x[part] for x in line], label=f"{precision}, {way}", **style)
        axes[0, column].set(title=model, ylim=(0, None))
        axes[1, column].set(xlabel="batch", ylim=(0, None), xticks=[64, 128, 256])
        for axis in axes[:, column]:
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("images/s")
    axes[1, 0].set_ylabel("mJ an image")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=len(STYLES))
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.endswith("svg") else None)


if __name__ == "__main__":
    main()
