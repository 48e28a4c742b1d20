"""ResNet-50 v1.5, bf16, channels last: energybench's torch engine against loops written by hand and timm's, in turn.

The first contestant of ours is the one that others are compared with.

Every contestant is a process of its own that becomes ready once (see `contest.py`); then each trains for a window, in
rounds (A B C A B C ...), until --seconds are over. Raw windows go to --out after each round; those of a further call
are added.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import tempfile
import time
from pathlib import Path

from contest import Contestant, Counter, make_ready, numbers, turn

HERE = Path(__file__).parent
COMPILED, HALF, INDUCTOR = "engine.compile=default", "engine.half_weights=true", "+engine.compile_options."
OURS = {
    "energybench": [COMPILED],
    "energybench-half": [COMPILED, HALF],
    "energybench-untried": [COMPILED, "engine.cudnn_benchmark=false"],
    "energybench-pointwise": [COMPILED, HALF, f"{INDUCTOR}max_autotune_pointwise=true"],
    "energybench-mm": [COMPILED, HALF, f"{INDUCTOR}conv_1x1_as_mm=true"],
    "energybench-tuned": [
        *(COMPILED, HALF, f"{INDUCTOR}max_autotune_pointwise=true"),
        f"{INDUCTOR}coordinate_descent_tuning=true",
    ],
    "energybench-autotune": ["engine.compile=max-autotune-no-cudagraphs", HALF],
    "energybench-graph": ["engine.compile=none"],
    "energybench-eager": ["engine.compile=none", "engine.graph=false"],
}
"""The last but two search among many kernels, which takes minutes."""

LOADING = 0.8
"""Of the time of a batch, what building and compiling may take; who needs longer is left out."""

HAND = ("eager", "compile", "graph", "timm", "timm-compile")


def contestants(names: list[str], batch: int, given: argparse.Namespace) -> list[Contestant]:
    size = ["--size", str(given.size), "--device", given.device, "--mode", given.mode]
    size += ["--precision", given.precision]
    found = []
    for name in names:
        if name in OURS:
            command = [str(HERE / "contest_ours.py"), *overrides(name, batch, given)]
        else:
            command = [str(HERE / "resnet50_by_hand.py"), name, "--batch", str(batch), *size]
        found.append(Contestant(name, command, batch))
    return found


def overrides(name: str, batch: int, given: argparse.Namespace) -> list[str]:
    ours = OURS[name]
    if given.device == "cpu":
        ours = [text for text in ours if not text.startswith("engine.graph")]
    return [
        *(
            "model=resnet50",
            "engine=torch",
            f"batch={batch}",
            f"precision={given.precision}",
            "engine.channels_last=true",
        ),
        *("gpu=cpu" if given.device == "cpu" else "gpu=hopper", "budget.epochs=null", "budget.seconds=1"),
        *("dataset.images=100000000", "measure.warmup_steps=3", "training.schedule=constant", "training.lr=0.0001"),
        *(f"model.input_size={given.size}", "tracking=none", *ours, *given.override),
        *([f"engine.compile_cache={given.cache}"] if given.cache else []),
    ]


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of its 95 % interval (Student's t)."""
    from scipy.stats import t

    if len(values) < 2:
        return values[0], math.nan
    spread = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values), float(t.ppf(0.975, len(values) - 1)) * spread


def table(found: list[Contestant]) -> str:
    lines = [f"{'contestant':22}{'batch':>6}{'images/s':>12}{'W':>8}{'J/image':>10}{'ready s':>9}  ours / it (95 %)"]
    ours = next((one for one in found if one.name in OURS and one.windows), None)
    for one in found:
        if not one.windows:
            lines.append(f"{one.name:22}{one.batch:6}  failed: {one.failure[:90]}")
            continue
        mean = {key: statistics.mean(known) if (known := numbers(one, key)) else math.nan for key in one.windows[0]}
        line = (
            f"{one.name:22}{one.batch:6}{mean['images_per_s']:12,.1f}{mean['power_w']:8.1f}{mean['j_per_image']:10.4f}"
        )
        line += f"{one.ready_s or math.nan:9.1f}"
        if ours is not None and one is not ours:
            pairs = zip(numbers(ours, "images_per_s"), numbers(one, "images_per_s"), strict=False)
            middle, half = interval([mine / theirs for mine, theirs in pairs])
            line += f"  {middle:.4f} ± {half:.4f}"
        lines.append(line)
    return "\n".join(lines)


def run(batch: int, given: argparse.Namespace, counter: Counter, earlier: list[dict], end: float) -> list[Contestant]:
    found = contestants(given.contestants, batch, given)
    for one in found:
        one.take_up(earlier)
    folder = Path(tempfile.mkdtemp())
    cache = given.cache or str(folder / "cache")
    environment = {"TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor", "TRITON_CACHE_DIR": f"{cache}/triton"}
    try:
        running = make_ready(found, folder, environment, given.device, LOADING * (end - time.monotonic()))
        for one in running:
            turn([one], given.window / 2, counter)  # uncounted
            one.windows = one.windows[:-1]
        for _ in range(given.rounds):
            if time.monotonic() + given.window * len(running) > end:
                break
            for one in running:
                turn([one], given.window, counter)
            save(given, counter, [*others(earlier, found), *(one.to_json() for one in found)])
    finally:
        for one in found:
            one.stop()
    return found


def others(earlier: list[dict], found: list[Contestant]) -> list[dict]:
    keys = {one.key for one in found}
    return [old for old in earlier if (old["name"], old["batch"], old["world"]) not in keys]


def save(given: argparse.Namespace, counter: Counter, data: list[dict]) -> None:
    if given.out:
        import torch

        machine = {
            "device": counter.name(),
            "driver": counter.driver(),
            "uuids": counter.uuids(),
            "torch": torch.__version__,
        }
        machine |= {"python": platform.python_version(), "window_s": given.window, "size": given.size}
        Path(given.out).write_text(json.dumps({"machine": machine, "contestants": data}, indent=1) + "\n")


def options() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--contestants", nargs="+", default=["energybench", *HAND], choices=[*OURS, *HAND])
    parser.add_argument("--mode", default="default", help="of torch.compile in the loops written by hand")
    parser.add_argument("--override", nargs="*", default=[], help="further overrides of ours")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--window", type=float, default=4.0, help="seconds each trains in a round")
    parser.add_argument("--seconds", type=float, default=540.0, help="of all")
    parser.add_argument("--cache", help="of compilers; kept for a further call")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp32"))
    parser.add_argument("--quick", action="store_true", help="tiny: shows that it runs")
    parser.add_argument("--out")
    return parser


def main() -> None:
    given = options().parse_args()
    if given.quick:
        given.size, given.batch, given.window, given.rounds, given.precision = 32, [2], 0.5, 2, "fp32"
        given.device, given.contestants = "cpu", ["energybench-eager", "eager"]
    begun, counter = time.monotonic(), Counter(given.device)
    done: list[Contestant] = []
    earlier = json.loads(Path(given.out).read_text())["contestants"] if given.out and Path(given.out).exists() else []
    for index, batch in enumerate(given.batch):
        end = begun + given.seconds * (index + 1) / len(given.batch)
        found = run(batch, given, counter, earlier, end)
        earlier = [*others(earlier, found), *(one.to_json() for one in found)]
        done += found
        print(table(found), flush=True)
    save(given, counter, earlier)


if __name__ == "__main__":
    main()
