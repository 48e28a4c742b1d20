"""Energy an image against the floor: what the arithmetic or the memory traffic alone would take on this device.

Measured here: rate and power of large matrix products on random numbers, and of copying memory. Of a network: the
FLOPs of training on an image, and the bytes that layer by layer nothing avoids: each convolution and dense layer reads
its input and writes its output on the way forward, and on the way back reads both the input and the gradient of the
output and writes the gradient of the input; a step reads and writes weights, gradients and momentum. The
time of an image is at least the larger of the two, and its energy that time at the power of what limits it. What a cell
of `torch_grid.py` (--grid FILE) took stands beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

from contest import Counter
from torch_grid import over_boards

from energybench.architecture import Architecture, Conv2d, Dense
from energybench.config import make_architecture
from energybench.experiment import Part
from energybench.registry import Registry

CLASSES = {"resnet": 155, "cnn2d": 155}
WEIGHT_PASSES = 8
"""Weights read forward and back, gradients written and read, weights and momentum read and written by the update."""


def measured(device: str, size: int, seconds: float, counter: Counter) -> dict[str, dict[str, float | None]]:
    """Name of a load -> its rate (FLOP/s, or bytes/s read and written) and power."""
    import torch

    found = {}
    for precision in ("fp32", "tf32", "bf16") if device == "cuda" else ("fp32",):
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        out = torch.empty_like(a)
        rate, watts = sustained(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device, seconds, counter)
        found[precision] = {"per_s": rate * 2 * size**3, "power_w": watts}
    source = torch.randn(size * size * 4, device=device)
    target = torch.empty_like(source)
    rate, watts = sustained(lambda: target.copy_(source), device, seconds, counter)
    found["copy"] = {"per_s": rate * 2 * source.nbytes, "power_w": watts}
    return found


def sustained(work, device: str, seconds: float, counter: Counter) -> tuple[float, float | None]:
    """Calls a second and watts, between two ticks of the energy counter."""
    import torch

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):
        work()
    wait()
    first, begun, calls = counter.tick(), time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        for _ in range(5):
            work()
        wait()
        calls += 5
    took = time.perf_counter() - begun
    last = counter.tick() if first else None
    watts = (last[1] - first[1]) / (last[0] - first[0]) if first and last else None
    return calls / took, watts


def traffic(network: Architecture, batch: int, element: int) -> float:
    """Bytes an image that training moves at least; `element` bytes an activation, weights in float32."""
    rows = [row for row in network.rows() if isinstance(row.layer, Conv2d | Dense)]
    maps = sum(3 * math.prod(row.input_shape) + 2 * math.prod(row.output_shape) for row in rows)
    return maps * element + network.parameters * WEIGHT_PASSES * 4 / batch


def options() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--models", nargs="+", default=["caffenet", "resnetim", "resnet", "cnn2d", "resnet50"])
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 128, 256])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load")
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--grid", nargs="*", default=[], help="files of torch_grid.py")
    parser.add_argument("--loads", help="a file that an earlier call wrote with --out: nothing is measured")
    parser.add_argument("--quick", action="store_true", help="tiny, on the CPU: shows that it runs")
    parser.add_argument("--out")
    return parser


def main() -> None:
    given = options().parse_args()
    if given.quick:
        given.size, given.seconds, given.device = 256, 0.2, "cpu"
    if given.loads:
        earlier = json.loads(Path(given.loads).read_text())
        machine, loads = earlier["machine"], earlier["loads"]
    else:
        counter = Counter(given.device)
        loads = measured(given.device, given.size, given.seconds, counter)
        machine = {"device": counter.name(), "driver": counter.driver(), "uuids": counter.uuids()}
    for name, load in loads.items():
        print(f"{name:5} {load['per_s'] / 1e12:9.3f} T{'B' if name == 'copy' else 'FLOP'}/s  {load['power_w']} W")
    made = [one for path in given.grid for one in json.loads(Path(path).read_text())["cells"]]
    cells = [one for one in over_boards(made) if "failure" not in one]
    registry, rows = Registry(), []
    for model in given.models:
        network = make_architecture(registry, Part(model), CLASSES.get(model, 1000))
        assert isinstance(network, Architecture)
        for precision in (name for name in loads if name != "copy"):
            for batch in given.batches:
                rows.append(row(network, precision, batch, loads, cells))
    print(f"{'network':10}{'prec.':>6}{'batch':>6}{'limit':>7}{'floor us':>10}", end="")
    print(f"{'floor mJ':>10}{'mJ/image':>10}{'x':>6}  way")
    for one in rows:
        print(text(one))
    if given.out:
        Path(given.out).write_text(json.dumps({"machine": machine, "loads": loads, "rows": rows}, indent=1) + "\n")


def row(network: Architecture, precision: str, batch: int, loads: dict, cells: list[dict]) -> dict:
    moved = traffic(network, batch, 2 if precision == "bf16" else 4)
    times = {precision: network.training_flops / loads[precision]["per_s"], "copy": moved / loads["copy"]["per_s"]}
    limit = max(times, key=lambda name: times[name])
    watts = loads[limit]["power_w"]
    same = [
        one for one in cells if (one["model"], one["precision"], one["batch"]) == (network.name, precision, batch)
        and "energy_per_image_j" in one["metrics"]
    ]  # fmt: skip
    best = min(same, key=lambda one: one["metrics"]["energy_per_image_j"], default=None)
    return {
        "model": network.name, "precision": precision, "batch": batch, "flops": network.training_flops, "bytes": moved,
        "limit": "memory" if limit == "copy" else "flops", "time_s": times[limit],
        "energy_j": None if watts is None else times[limit] * watts,
        "measured_j": best and best["metrics"]["energy_per_image_j"],
        "measured_s": best and 1 / best["metrics"]["images_per_s"], "way": best and best["way"],
    }  # fmt: skip


def text(one: dict) -> str:
    floor = math.nan if one["energy_j"] is None else 1000 * one["energy_j"]
    seen = math.nan if one["measured_j"] is None else 1000 * one["measured_j"]
    return (
        f"{one['model']:10}{one['precision']:>6}{one['batch']:6}{one['limit']:>7}{1e6 * one['time_s']:10.2f}"
        f"{floor:10.4f}{seen:10.4f}{seen / floor:6.1f}  {one['way'] or ''}"
    )


if __name__ == "__main__":
    main()
