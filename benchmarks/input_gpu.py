"""How near training from JPEG files comes to training from memory, on a GPU: ResNetIm in bf16 by PyTorch.

Makes photographs, packs them with `energybench prepare`, decodes them by 1, 2, 4, ... threads without a GPU, and then
trains in turn on synthetic images and on the packed ones, each cell a run of energybench with its own meter. The packed
files stand in the manifest many times over, so that an epoch is as long as ImageNet's; the page cache holds them.
Needs the extras torch and images (of these the libraries simplejpeg and opencv-python, or opencv-python-headless).
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import photographs
from pairs import write

from energybench.cells import arguments, read
from energybench.config import make
from energybench.errors import EnergybenchError
from energybench.prepare import prepare
from energybench.prepared import Manifest
from energybench.registry import Registry
from energybench.run.execute import Place, execute
from energybench.run.preflight import Machine
from energybench.run.preflight import prepare as plan

EPOCH = 1_281_167
"""Images of ImageNet's training split, which an epoch here has at least."""

KEPT = ("images_per_s", "input_wait_fraction", "power_mean_w", "energy_per_image_j", "energy_j", "time_s")


class Silent:
    def update(self, moment: object) -> None:
        pass


def pack(registry: Registry, folder: Path, images: int, classes: int, workers: int, size: tuple[int, int]) -> dict:
    """Makes and prepares the photographs; how fast."""
    began = time.monotonic()
    photographs.make(folder, images, classes, size)
    made = time.monotonic()
    overrides = ["dataset=imagenet", f"dataset.root={folder}", f"dataset.shorter_side={min(size[0], 256)}"]
    part = read(arguments(overrides), registry).cells[0].experiment.dataset
    job = make(registry, "dataset", part).preparation()
    manifest = prepare(job, workers, lambda progress: None)
    seconds = time.monotonic() - made
    count = sum(one.samples for one in manifest.parts)
    size_b = sum(one.size for one in manifest.parts)
    train = [one for one in manifest.parts if one.split == "train"]
    times = -(-EPOCH // sum(one.samples for one in train))
    repeated = (*train * times, *(one for one in manifest.parts if one.split != "train"))
    replace(Manifest.read(job.folder), parts=repeated).write(job.folder)
    print(f"{count:,} photographs made in {made - began:.0f} s, packed in {seconds:.1f} s by {workers} processes:")
    print(f"{count / seconds:,.0f} images/s, {size_b / count / 1e3:.1f} kB each")
    return {"images": count, "bytes": size_b, "packed_per_s": count / seconds, "processes": workers}


def decoding(registry: Registry, folder: Path, threads: int, batch: int, seconds: float, side: int) -> float:
    """Images a second of the data set alone."""
    overrides = [f"dataset.root={folder}", f"dataset.workers={threads}", "dataset.decode=cpu"]
    part = read(arguments(["dataset=imagenet", *overrides]), registry).cells[0].experiment.dataset
    batches = make(registry, "dataset", part).open((3, side, side), 0).batches("train", batch, 1)
    for _ in range(3):
        next(batches)
    began, images = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        images += len(next(batches).labels)
    rate = images / (time.perf_counter() - began)
    batches.close()
    return rate


def trained(registry: Registry, machine: Machine, overrides: list[str]) -> dict:
    """The metrics of one run, or why there are none."""
    try:
        command = read(arguments(overrides), registry)
        with tempfile.TemporaryDirectory() as directory:
            result = execute(plan(command.cells[0].experiment, machine), Place(Path(directory)), Silent())
            errors = Path(directory, "worker-0.err")
            if result.failure is not None and errors.exists():
                print(errors.read_text()[-2000:])
    except EnergybenchError as error:
        return {"failure": str(error)}
    if result.failure is not None:
        return {"failure": f"{result.failure.kind}: {result.failure.message}"}
    found = {name: value for name, value in result.metrics.items() if name in KEPT or name.startswith("energy_j.")}
    return {**found, "quality": result.tags["quality"], "device": result.tags["device"]}


def shown(name: str, found: dict) -> str:
    if "failure" in found:
        return f"{name:14} failed: {found['failure']}"
    waited = found.get("input_wait_fraction")
    energies = ", ".join(f"{key[9:]} {value:,.0f} J" for key, value in found.items() if key.startswith("energy_j."))
    told = "" if waited is None else f", waited {waited:.1%}"
    return f"{name:14}{found['images_per_s']:10,.1f} images/s{told}, {energies}, {found['quality']}"


def options() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of training, in all")
    parser.add_argument("--cell", type=float, default=8.0, help="seconds of training a run")
    parser.add_argument("--images", type=int, default=8192, help="photographs that are made")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="threads that decode")
    parser.add_argument("--decode", nargs="+", default=["cpu"], choices=("cpu", "gpu"))
    parser.add_argument("--quick", action="store_true", help="tiny, on the CPU: shows that it runs")
    parser.add_argument("--out")
    return parser


def main() -> None:
    given = options().parse_args()
    side, size, device, precision = 224, photographs.SIZE, "auto", "bf16"
    if given.quick:
        given.images, given.batch, given.cell, given.seconds, given.decode = 32, 8, 0.5, 1.0, ["cpu"]
        side, size, device, precision = 64, (96, 128), "cpu", "fp32"
    registry = Registry()
    machine = Machine(registry)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        packed = pack(registry, folder, given.images, 16, given.workers, size)
        threads = sorted({2**n for n in range(12) if 2**n < given.workers} | {given.workers})
        rates = {}
        for count in threads:
            rates[count] = decoding(registry, folder, count, given.batch, 0.5 if given.quick else 3.0, side)
            print(f"decoded by {count:3} threads {rates[count]:10,.0f} images/s", flush=True)
        common = [
            *("model=resnetim", f"model.input_size={side}", f"batch={given.batch}", f"precision={precision}"),
            *("engine=torch", f"gpu={device}", "tracking=none", "budget.epochs=null", f"budget.seconds={given.cell}"),
            *("measure.validate=false", "measure.baseline_s=0"),
        ]
        ways = {"synthetic": ["dataset=synthetic", "dataset.images=100000000"]}
        for way in given.decode:
            files = [f"dataset.root={folder}", f"dataset.workers={given.workers}", f"dataset.decode={way}"]
            ways[f"jpeg by {way}"] = ["dataset=imagenet", *files]
        runs: dict[str, list[dict]] = {name: [] for name in ways}
        rounds = max(int(given.seconds / given.cell / len(ways)), 1)
        for _, (name, more) in itertools.product(range(rounds), ways.items()):
            runs[name].append(trained(registry, machine, [*common, *more]))
            print(shown(name, runs[name][-1]), flush=True)
            write(given.out, {"packed": packed, "decoded_per_s": rates, "runs": runs})
    medians = {name: [one["images_per_s"] for one in found if "images_per_s" in one] for name, found in runs.items()}
    top = statistics.median(medians["synthetic"]) if medians["synthetic"] else None
    for name, speeds in medians.items():
        if speeds and top and name != "synthetic":
            middle = statistics.median(speeds)
            print(f"{name} / synthetic: {middle:,.1f} / {top:,.1f} = {middle / top:.3f}")
    if top and rates:
        each = rates[given.workers] / given.workers
        print(f"{top:,.0f} images/s take {top / each:.1f} threads like these ({each:,.0f} images/s each)")


if __name__ == "__main__":
    main()
