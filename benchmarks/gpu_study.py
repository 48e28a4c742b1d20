"""The study on a GPU: networks x batches x precisions x seeds on data with accuracies, over several visits.

    python benchmarks/gpu_study.py --out study --seconds 540 --whole 1100     # again, and it goes on

gpu_study_page.py makes its page.

Each cell is a run of energybench with its own meter, in a folder below --out that carries its name; all have the id of
one sweep, so that `energybench report`, `compare` and `sync` take them for one study. A cell whose result is there is
not run again, whatever card it ran on: the cards of two visits differ, and each result tells which it was. The order
is shuffled within a repeat, one after the other, so that what there is no time for is whole repeats.

How many epochs a network trains is worked out once, from the images/s of --rates, so that all cells of all visits fit
into --whole seconds, each network in an equal part of them; it stands in plan.json and holds for every later visit.

The image networks train on Fashion-MNIST at their input size (ENERGYBENCH_DATA names where it lies), the gait networks
on `walkers`, which are made on first use or taken from --walkers, an archive of their folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import shlex
import sys
import tarfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch_grid import RETRIED

from energybench.cells import arguments, read
from energybench.errors import EnergybenchError
from energybench.registry import Registry
from energybench.run.execute import Place, execute, new_id
from energybench.run.preflight import Machine, prepare
from energybench.run.result import RESULT_FILE, Result
from energybench_plugins.datasets.download import user_cache

HERE = Path(__file__).parent
IMAGES, GAIT = ("caffenet", "resnetim"), ("resnet", "cnn2d")
WALKERS = (1792, 768)
"""Samples of the default set: training, validation."""

PLAN = "plan.json"
OVERHEAD_S = 17.0
"""Of a cell beside its training: two interpreters, the framework, data, trying ways and recording the step, idle."""

ON_A_GPU = ("gpu=auto", "dataset.resident=true")
"""The host cannot cut as many samples of motion as the gait networks take in bf16."""

TOGETHER = {"resnet": 40, "cnn2d": 40}
"""Epochs that are measured as one phase: one of walkers takes 50 to 300 ms, less than a sensor of power can tell."""

MOST_EPOCHS = {"caffenet": 20, "resnetim": 12, "resnet": 120, "cnn2d": 120}
"""More of them teach these networks little on these data."""

LEAST_EPOCHS = 2
FORWARD = 1 / 3
"""Of the time of a training image, what a validation image takes."""


class Cell(NamedTuple):
    """Of the study's grid."""

    model: str
    batch: int
    precision: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.model}-{self.batch}-{self.precision}-{self.seed}"


class Silent:
    def update(self, moment: object) -> None:
        pass


def cells(given: argparse.Namespace) -> list[Cell]:
    """In their order."""
    found = []
    for precisions, seed in given.repeats:
        block = [Cell(*key, seed) for key in itertools.product(given.models, given.batches, precisions)]
        random.Random(f"{given.shuffle} {seed}").shuffle(block)
        found += block
    return found


def rates(path: Path) -> dict[tuple[str, str, int], float]:
    """Images a second of the cells of torch_grid.py by (network, precision, batch), the fastest way of each."""
    found: dict[tuple[str, str, int], float] = {}
    for one in json.loads(path.read_text())["cells"]:
        if rate := one.get("metrics", {}).get("images_per_s"):
            key = one["model"], one["precision"], one["batch"]
            found[key] = max(rate, found.get(key, 0.0))
    return found


def image_s(cell: Cell, known: Mapping[tuple[str, str, int], float]) -> float:
    """Seconds that training on an image takes: by this cell, else by the nearest batch; the pessimistic fp32 last."""
    for precision in (cell.precision, "fp32"):
        near = {b: rate for (m, p, b), rate in known.items() if (m, p) == (cell.model, precision)}
        if near:
            return 1 / near[min(near, key=lambda batch: abs(batch - cell.batch))]
    return 1e-3


def samples(model: str, given: argparse.Namespace) -> tuple[int, int]:
    """For training and for validation."""
    return (given.train_images, given.validation_images) if model in IMAGES else WALKERS


def epoch_s(cell: Cell, given: argparse.Namespace, known: Mapping[tuple[str, str, int], float]) -> float:
    training, validation = samples(cell.model, given)
    return image_s(cell, known) * (training + FORWARD * validation)


def planned(given: argparse.Namespace) -> dict[str, Any]:
    """Sweep, and the epochs of each network; those that an earlier visit chose stay."""
    path = Path(given.out, PLAN)
    plan: dict[str, Any] = {"sweep_id": new_id(), "name": given.name or Path(given.out).absolute().name, "epochs": {}}
    if path.exists():
        plan = json.loads(path.read_text())
    known, every = rates(Path(given.rates)), cells(given)
    for model in given.models:
        own = [cell for cell in every if cell.model == model]
        left_s = given.whole / len(given.models) - OVERHEAD_S * len(own)
        fits = int(left_s / sum(epoch_s(cell, given, known) for cell in own))
        most = MOST_EPOCHS.get(model, 10)
        chosen = given.epochs.get(model) or given.epochs.get("")
        plan["epochs"].setdefault(model, chosen or min(max(fits, LEAST_EPOCHS), most))
    commands = plan.setdefault("commands", [])
    if (words := said([given.out, given.rates, given.walkers])) not in commands:
        commands.append(words)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plan, indent=1) + "\n")
    return plan


def said(paths: Iterable[str | None]) -> str:
    """The command line, with the last part alone of each of its `paths`: without the folders of this machine."""
    short = {path: Path(path).name or path for path in paths if path is not None}

    def shortened(word: str) -> str:
        option, equals, value = word.partition("=")
        if equals and option.startswith("--"):
            return f"{option}={short.get(value, value)}"
        return short.get(word, word)

    return shlex.join(map(shortened, sys.argv[1:]))


def overrides(cell: Cell, epochs: int, given: argparse.Namespace) -> list[str]:
    data = ["dataset=walkers", *given.walkers_options]
    if cell.model in IMAGES:
        data = ["dataset=fashion_mnist", "dataset.cache_gb=12"]
        data += [f"dataset.train_images={given.train_images}", f"dataset.validation_images={given.validation_images}"]
    return [
        *(f"model={cell.model}", f"batch={cell.batch}", f"precision={cell.precision}", f"seed={cell.seed}"),
        *(f"budget.epochs={epochs}", *data, "engine=torch", "tracking=none"),
        f"measure.validate_every={TOGETHER.get(cell.model, 1)}",
        *(["gpu=cpu"] if given.device == "cpu" else ON_A_GPU),
        *(f"measure.baseline_s={given.baseline}", "measure.baseline_max_s=3", "measure.context_s=0.5"),
        *([f"model.input_size={given.size}"] if given.size and cell.model in IMAGES else []),
    ]


def settled(result: Result) -> bool:
    """Whether a cell need not be run again: it finished, or would fail again."""
    return result.failure is None or result.failure.kind not in RETRIED


def there(folder: Path) -> bool:
    """Whether an earlier visit settled the cell."""
    try:
        return settled(Result.read(folder / RESULT_FILE))
    except EnergybenchError:
        return False


def run_one(cell: Cell, plan: Mapping[str, Any], given: argparse.Namespace, machine: Machine) -> Result:
    words = overrides(cell, plan["epochs"][cell.model], given)
    command = read(arguments(words), machine.registry)
    place = Place(
        Path(given.out, cell.name),
        name=f"{cell.model} batch={cell.batch} {cell.precision} seed={cell.seed}",
        follows=True,
        overrides=tuple(words[: len(cell)]),  # what tells it from the others
        sweep_id=plan["sweep_id"],
        sweep_name=plan["name"],
    )
    return execute(prepare(command.cells[0].experiment, machine), place, Silent())


def told(cell: Cell, result: Result) -> str:
    if result.failure is not None:
        return f"{cell.name:28}{result.failure.kind}: {result.failure.message[:90]}"
    metrics = result.metrics
    joules, accuracy = metrics.get("energy_per_image_j", math.nan), metrics.get("accuracy_top1", math.nan)
    return (
        f"{cell.name:28}{metrics['images_per_s']:12,.0f} images/s{1000 * joules:10.3f} mJ{accuracy:9.2%}  "
        f"{result.tags.get('quality', '')}"
    )


def run(given: argparse.Namespace) -> None:
    begun = time.monotonic()
    if given.quick:
        given.device, given.models, given.batches = "cpu", ["caffenet", "cnn2d"], [8]
        given.repeats, given.epochs = [(["fp32"], 0), (["fp32"], 1)], {"": 1}
        given.train_images, given.validation_images, given.size = 64, 32, 67
        given.baseline = 0.2
        given.walkers_options = ["dataset.persons=2", "dataset.frames=26", "dataset.flow=dis_ultrafast"]
    if given.walkers and not given.quick:
        unpack(Path(given.walkers))
    plan = planned(given)
    print(f"epochs: {', '.join(f'{name} {count}' for name, count in plan['epochs'].items())}", flush=True)
    registry = Registry()
    machine, known = Machine(registry), rates(Path(given.rates))
    done, left, ran = 0, 0, 0
    took = 1.0  # how much longer than predicted cells take
    for cell in cells(given):
        if there(Path(given.out, cell.name)):
            done += 1
            continue
        if given.most is not None and ran >= given.most:
            left += 1
            continue
        predicted = OVERHEAD_S + plan["epochs"][cell.model] * epoch_s(cell, given, known)
        if time.monotonic() - begun + predicted * max(took, 1.0) > given.seconds:
            left += 1  # a quicker one may still fit
            continue
        started = time.monotonic()
        try:
            result = run_one(cell, plan, given, machine)
        except EnergybenchError as error:
            print(f"{cell.name:28}refused: {error}", flush=True)
            left += 1
            continue
        seconds = time.monotonic() - started
        took = 0.7 * took + 0.3 * seconds / predicted
        ran += 1
        done += settled(result)
        left += not settled(result)
        print(f"{told(cell, result)} [{seconds:.1f} s, {predicted:.1f} expected]", flush=True)
    print(f"{done} cells are there, {left} are left{'; give the same command again' if left else ''}")


def repeat(text: str) -> tuple[list[str], int]:
    """Precisions and seed."""
    precisions, _, seed = text.partition(":")
    return precisions.split(","), int(seed)


def epochs(text: str) -> tuple[str, int]:
    """Of one network, or of all, which is ""."""
    name, _, count = text.rpartition("=")
    return name, int(count)


def unpack(archive: Path) -> None:
    """A folder of prepared walks to where `dataset=walkers` looks for it."""
    with tarfile.open(archive) as found:
        found.extractall(user_cache() / "walkers", filter="data")


def options() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="study", help="folder of the cells")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--models", nargs="+", default=[*IMAGES, *GAIT], choices=[*IMAGES, *GAIT])
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 128, 256])
    parser.add_argument(
        "--repeats",
        nargs="+",
        type=repeat,
        default=[(["bf16", "fp32"], seed) for seed in (0, 1, 2)],
        help="precisions and seed of each, in their order: bf16,fp32:0 bf16:1 bf16:2",
    )
    parser.add_argument("--train-images", type=int, default=10_000, help="of Fashion-MNIST, the first")
    parser.add_argument("--validation-images", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=540.0, help="of this visit; no cell is begun that may not end")
    parser.add_argument("--most", type=int, help="cells that this visit runs")
    parser.add_argument("--whole", type=float, default=1100.0, help="seconds of all visits: tells the epochs")
    parser.add_argument(
        "--epochs",
        nargs="+",
        type=epochs,
        default=[],
        help="in place of what --whole tells: 10 or caffenet=10 cnn2d=60",
    )
    parser.add_argument("--rates", default=str(HERE.parent / "docs/results/h100_grid.json"), help="of torch_grid.py")
    parser.add_argument("--baseline", type=float, default=1.0, help="seconds of idle before each cell")
    parser.add_argument("--walkers", help="archive of a folder that `energybench prepare dataset=walkers` made")
    parser.add_argument("--size", type=int, help="input size of the image networks")
    parser.add_argument("--shuffle", type=int, default=0)
    parser.add_argument("--name", help="of the study; that of the folder unless it is given")
    parser.add_argument("--quick", action="store_true", help="tiny, on the CPU: shows that it runs")
    parser.set_defaults(walkers_options=[])
    return parser


def main() -> None:
    given = options().parse_args()
    given.epochs = dict(given.epochs)
    run(given)


if __name__ == "__main__":
    main()
