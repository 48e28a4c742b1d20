"""Training on 1, 2, 4, ... GPUs: images/s, parallel efficiency, joules an image, and what the exchange costs.

Strong scaling keeps the batch of all together (--totals), weak scaling the batch of each (--each). Every contestant is
one process a GPU that becomes ready once (see `contest.py`) and trains for a window in each round; those on one card
run beside each other on different cards. Beside energybench, of ResNet-50, a loop written by hand: torch.compile over
DistributedDataParallel.

Efficiency is that of the same batch on one GPU times the number of GPUs (strong), or of the batch that each has (weak).
Joules are those of the cards that train, gross and above what they draw at rest before anything is started; the cards
of the machine that only rest meanwhile stand in a column of their own. What the exchange of gradients costs is told in
two ways: `lost`, by windows in which each rank keeps its gradients to itself, in turn with whole ones; `busy`, the
share of the time in which a kernel of an all-reduce runs, beside the computation or not, by torch.profiler on rank 0,
the waiting for the other ranks included. Raw windows go to --out after each round; those of a further call are added.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

from contest import Contestant, Counter, cards, heats, make_ready, numbers, turn

HERE = Path(__file__).parent
MODELS = ("resnet50", "caffenet", "resnetim", "resnet", "cnn2d")
HAND = "hand-ddp"
LOADING = 0.75
"""Of the time that is left, what building and compiling may take; who needs longer is left out."""


def overrides(model: str, batch: int, given: argparse.Namespace) -> list[str]:
    cpu = given.device == "cpu"
    compiled = "default" if model in given.compiled else "none"
    return [
        *(f"model={model}", "engine=torch", f"batch={batch}", f"precision={given.precision}", "tracking=none"),
        *(f"engine.compile={compiled}", "gpu=cpu" if cpu else "gpu=auto", "budget.epochs=null", "budget.seconds=1"),
        *("dataset=synthetic", "dataset.images=100000000", "training.schedule=constant", "training.lr=0.0001"),
        *([f"dataset.classes={given.classes[model]}"] if model in given.classes else []),
        *([f"model.input_size={given.size}"] if given.size else []),
        *([f"engine.compile_cache={given.cache}"] if given.cache and compiled != "none" else []),
        *given.override,
    ]


def contestants(model: str, given: argparse.Namespace) -> list[Contestant]:
    """Of one network; those on one card each take the next card."""
    wanted = {(total, count) for total in given.totals for count in given.counts if not total % count}
    wanted |= {(given.each * count, count) for count in given.counts if given.each}
    found, places = [], len(cards(given.device))
    for number, (total, count) in enumerate(sorted(wanted, key=lambda one: (one[1], one[0]))):
        own = [number % places] if count == 1 else list(range(count))
        found.append(
            Contestant(model, [str(HERE / "contest_ours.py"), *overrides(model, total, given)], total, devices=own)
        )
        if model == "resnet50" and count in given.hand and total >= given.hand_least:
            loop = [str(HERE / "resnet50_by_hand.py"), given.loop, "--batch", str(total), "--device", given.device]
            loop += ["--precision", "bf16" if given.precision == "bf16" else "fp32", "--size", str(given.size or 224)]
            found.append(Contestant(HAND, loop, total, devices=own))
    return found


def run(found: list[Contestant], given: argparse.Namespace, counter: Counter, kept: dict, end: float) -> None:
    """Readies a group, and runs it in rounds: A B C A B C ..., each with its windows without exchange."""
    for one in found:
        one.take_up(kept["contestants"])
    folder = Path(tempfile.mkdtemp())
    cache = given.cache or str(folder / "cache")
    environment = {"TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor", "TRITON_CACHE_DIR": f"{cache}/triton"}
    environment |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}  # all on this machine
    try:
        packed = heats(make_ready(found, folder, environment, given.device, LOADING * (end - time.monotonic())))
        several = [one for heat in packed for one in heat if len(one.devices) > 1 and one.name != HAND]
        for heat in packed:
            turn(heat, given.window / 2, counter)  # uncounted
            for one in heat:
                one.windows = one.windows[:-1]
        for number in range(given.rounds):
            if time.monotonic() + given.window * (len(packed) + len(several)) > end:
                print("no time for another round")
                break
            for heat in packed:
                turn(heat, given.window, counter)
            if number < given.apart:
                for one in several:
                    if not one.failure:
                        turn([one], given.window, counter, exchange=False)
            keep(given, kept, found)
        for one in several:
            if one.name in given.profiled and not one.failure and time.monotonic() < end:
                one.tell("profile", seconds=min(given.window, 1.0))
                one.profile = one.hear(60.0)
        keep(given, kept, found)
    finally:
        for one in found:
            one.stop()


def keep(given: argparse.Namespace, kept: dict, found: list[Contestant]) -> None:
    keys = {one.key for one in found}
    others = [old for old in kept["contestants"] if (old["name"], old["batch"], old["world"]) not in keys]
    kept["contestants"] = [*others, *(one.to_json() for one in found)]
    if given.out:
        Path(given.out).write_text(json.dumps(kept, indent=1) + "\n")


def mean(one: Contestant, key: str) -> float:
    known = numbers(one, key)
    return statistics.mean(known) if known else math.nan


def row(one: Contestant, every: list[Contestant], idle_w: list[float | None]) -> dict:
    """What a line of the table says; NaN where it is not known."""
    count, rate, power = len(one.devices), mean(one, "images_per_s"), mean(one, "power_w")
    alone = {
        other.batch: mean(other, "images_per_s")
        for other in every
        if other.name == one.name and len(other.devices) == 1
    }
    rest = [watt for watt in idle_w if watt is not None]
    idle = statistics.mean(rest) * count if rest else math.nan
    spread = numbers(one, "images_per_s")
    return {
        "name": one.name, "batch": one.batch, "gpus": count, "images_per_s": rate,
        "scatter": statistics.stdev(spread) / rate if len(spread) > 1 else math.nan,
        "strong": rate / (count * alone.get(one.batch, math.nan)),
        "weak": rate / (count * alone.get(one.batch // count, math.nan)),
        "power_w": power, "j_per_image": power / rate, "j_above_idle": (power - idle) / rate,
        "j_resting_cards": mean(one, "resting_w") / rate,
        "lost": 1 - rate / statistics.mean(one.apart) if one.apart else math.nan,
        "busy": one.profile["exchange_s"] / one.profile["seconds"] if one.profile else math.nan,
    }  # fmt: skip


COLUMNS = {
    "images_per_s": "14,.1f", "scatter": "9.2%", "strong": "9.3f", "weak": "9.3f", "power_w": "9.1f",
    "j_per_image": "12.5f", "j_above_idle": "14.5f", "j_resting_cards": "17.5f", "lost": "9.2%", "busy": "9.2%",
}  # fmt: skip


def table(rows: list[dict]) -> str:
    head = f"{'network':10}{'batch':>6}{'GPUs':>5}"
    lines = [head + "".join(f"{name:>{spec.split('.')[0].rstrip(',')}}" for name, spec in COLUMNS.items())]
    for one in rows:
        cells = (
            f"{one[name]:{spec}}" if not math.isnan(one[name]) else f"{'-':>{spec.split('.')[0].rstrip(',')}}"
            for name, spec in COLUMNS.items()
        )
        lines.append(f"{one['name']:10}{one['batch']:6}{one['gpus']:5}" + "".join(cells))
    return "\n".join(lines)


PANELS = {
    "images_per_s": ("images/s", "batch"),
    "strong": ("efficiency,\nthe same batch in all", "batch"),
    "weak": ("efficiency,\nthe same batch each", "each"),
    "j_per_image": ("J/image,\ncards that train", "batch"),
}
"""Figure -> its label, and what the points of a line have in common."""


def plot(rows: list[dict], path: str) -> None:
    """A column a network, a row a figure, a colour a batch, against the number of GPUs; dashed: the loop by hand."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    known = [
        {**one, "each": one["batch"] // one["gpus"], "column": COLUMN.get(one["name"], one["name"])} for one in rows
    ]
    columns = [name for name in MODELS if any(one["column"] == name for one in known)]
    batches = sorted({one[common] for one in known for _, common in PANELS.values()})
    shades = plt.get_cmap("viridis_r")
    colours = {batch: shades(0.1 + 0.9 * n / len(batches)) for n, batch in enumerate(batches)}
    shape = len(PANELS), len(columns)
    figure, grid = plt.subplots(
        *shape, figsize=(1 + 2.4 * shape[1], 1 + 2.0 * shape[0]), layout="constrained", sharex=True, squeeze=False
    )
    handles: dict[str, Any] = {}
    for (row, (key, (label, common))), (column, network) in product(enumerate(PANELS.items()), enumerate(columns)):
        axis = grid[row, column]
        here = [one for one in known if one["column"] == network and not math.isnan(one[key])]
        for name, batch in dict.fromkeys((one["name"], one[common]) for one in here):
            line = sorted((one["gpus"], one[key]) for one in here if (one["name"], one[common]) == (name, batch))
            style = {"linestyle": "--", "markerfacecolor": "white"} if name in COLUMN else {}
            [drawn] = axis.plot(*zip(*line, strict=True), marker="o", markersize=4, color=colours[batch], **style)
            if name not in COLUMN:
                handles.setdefault(str(batch), drawn)
        axis.set_xscale("log", base=2)
        counts = sorted({one["gpus"] for one in known})
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
        axis.set_ylim(0, 1.08 if key in ("strong", "weak") else None)
        axis.grid(alpha=0.3)
        axis.set_title(network if row == 0 else "")
        axis.set_ylabel(label if column == 0 else "")
        axis.set_xlabel("GPUs" if row == shape[0] - 1 else "")
    names = sorted(handles, key=int)
    figure.legend([handles[name] for name in names], names, title="batch", loc="outside lower center", ncols=len(names))
    figure.savefig(path, dpi=100)


COLUMN = {HAND: "resnet50"}
"""Loop written by hand -> the network that it trains."""


def restored(kept: dict) -> list[Contestant]:
    found = []
    for old in kept["contestants"]:
        one = Contestant(old["name"], old["command"], old["batch"], devices=range(old["world"]))
        one.take_up([old])
        found.append(one)
    return found


def shown(kept: dict, given: argparse.Namespace) -> None:
    every = restored(kept)
    order = sorted(every, key=lambda one: (one.name, one.batch, len(one.devices)))
    rows = [row(one, every, kept["machine"]["idle_w"]) for one in order if one.windows]
    print(table(rows))
    for one in kept["contestants"]:
        if one["failure"]:
            print(f"{one['name']} batch {one['batch']} on {one['world']}: {one['failure']}")
    if given.plot and rows:
        plot(rows, given.plot)


def options() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--totals", nargs="*", type=int, default=[64, 128, 256, 1024, 2048], help="strong scaling")
    parser.add_argument("--each", type=int, default=256, help="weak scaling: batch of each GPU; 0: none")
    parser.add_argument("--counts", nargs="+", type=int, help="numbers of GPUs; 1, 2, 4, 8 as far as there are")
    parser.add_argument("--hand", nargs="*", type=int, default=[2, 4, 8], help="on how many GPUs the other loop runs")
    parser.add_argument("--hand-least", type=int, default=0, help="its smallest batch in all")
    parser.add_argument("--profiled", nargs="*", default=["resnet50"], help="networks whose all-reduces are profiled")
    parser.add_argument("--loop", default="compile", choices=("compile", "eager"), help="of the loop written by hand")
    parser.add_argument("--compiled", nargs="*", default=["resnet50"], help="networks that energybench compiles")
    parser.add_argument("--together", type=int, default=8, help="contestants that are ready at the same time")
    parser.add_argument("--apart", type=int, default=2, help="rounds with windows without exchange")
    parser.add_argument("--size", type=int, help="input size of every network")
    parser.add_argument("--override", nargs="*", default=[], help="further overrides of energybench")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp32", "tf32", "fp16"))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--window", type=float, default=3.0, help="seconds each trains in a round")
    parser.add_argument("--seconds", type=float, default=540.0, help="of all")
    parser.add_argument("--cache", help="of compilers; kept for a further call")
    parser.add_argument("--quick", action="store_true", help="tiny, on the CPU: shows that it runs")
    parser.add_argument("--only-show", action="store_true", help="the table and the plot of what stands in --out")
    parser.add_argument("--plot", help="PNG")
    parser.add_argument("--out")
    return parser


def main() -> None:
    given = options().parse_args()
    if given.quick:
        given.device, given.precision, given.models, given.counts = "cpu", "fp32", ["resnet50"], [1, 2]
        given.totals, given.each, given.size, given.window, given.rounds, given.apart = [4], 0, 32, 0.3, 1, 1
        given.compiled, given.loop, given.hand = [], "eager", [2]
    given.classes = {"resnet": 155, "cnn2d": 155}
    begun = time.monotonic()
    path = Path(given.out) if given.out else None
    kept = json.loads(path.read_text()) if path and path.exists() else {"machine": {}, "contestants": []}
    if given.only_show:
        shown(kept, given)
        return
    counter, places = Counter(given.device), len(cards(given.device))
    given.counts = given.counts or [count for count in (1, 2, 4, 8) if count <= places]
    kept["machine"] = {
        "device": counter.name(), "driver": counter.driver(), "uuids": counter.uuids(), "cards": places,
        "python": platform.python_version(), "window_s": given.window, "idle_w": counter.idle(2.0) if places else [],
    }  # fmt: skip
    groups = [
        some[first : first + given.together]
        for some in (contestants(model, given) for model in given.models)
        for first in range(0, len(some), given.together)
    ]
    for number, group in enumerate(joined(groups, given.together)):
        left = begun + given.seconds - time.monotonic()
        if left < given.window * 4:
            print(f"no time for group {number + 1}; call again with the same --out")
            break
        print(f"group {number + 1}: {', '.join(f'{one.name} {one.batch}/{len(one.devices)}' for one in group)}")
        run(group, given, counter, kept, begun + given.seconds)
    shown(kept, given)


def joined(groups: list[list[Contestant]], most: int) -> list[list[Contestant]]:
    """Small groups together, in order."""
    packed: list[list[Contestant]] = []
    for group in groups:
        if packed and len(packed[-1]) + len(group) <= most:
            packed[-1] += group
        else:
            packed.append(list(group))
    return packed


if __name__ == "__main__":
    main()
