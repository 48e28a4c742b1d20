"""Images a second of each way to feed a network JPEG files, in turn, on the same photographs and processors.

Ours from folders, RecordIO packs and prepared files, as bytes (what engines take) and as normalised floats; MXNet's
ImageRecordIter; PyTorch's DataLoader as torchvision's references use it, where torchvision imports, else with the same
transformations by Pillow; and what bounds them: the decoder alone, and reading the files without decoding.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import photographs
from pairs import write

from energybench.prepare import prepare
from energybench_plugins.datasets import jpeg
from energybench_plugins.datasets.imagenet import MEAN, STD, Imagenet, ImagenetOptions
from energybench_plugins.datasets.views import RandomCrop

SHAPE = (3, 224, 224)
Pass = Callable[[], Iterator[int]]
"""Starts one epoch; yields how many images each batch has."""


def ours(root: Path, source: str, given: argparse.Namespace, *, floats: bool = False) -> Pass:
    dataset = Imagenet(ImagenetOptions(str(root), source=source, workers=given.workers)).open(SHAPE, 0)

    def one() -> Iterator[int]:
        for batch in dataset.batches("train", given.batch, 1):
            yield len(batch.images if floats else batch.labels)

    return one


def decoder_alone(root: Path, given: argparse.Namespace) -> Pass:
    """The same boxes of the same files out of memory, into the same array, nothing else."""
    files = [path.read_bytes() for path in sorted((root / "train").rglob("*.JPEG"))]
    sizes = np.array([jpeg.size(file) for file in files])
    crop, pool = RandomCrop(), ThreadPoolExecutor(given.workers)
    drawn = crop.draw(len(files), np.random.default_rng(0))
    boxes = crop.boxes(*sizes.T, drawn).tolist()
    rooms = np.empty((given.workers, *SHAPE[1:], 3), np.uint8)

    def some(rows: range, room: np.ndarray) -> None:
        for row in rows:
            jpeg.view(files[row], (int(sizes[row, 0]), int(sizes[row, 1])), boxes[row], bool(drawn.flips[row]), room)

    def one() -> Iterator[int]:
        each = given.batch // given.workers
        for start in range(0, len(files) - given.batch + 1, given.batch):
            parts = (range(start + n * each, start + (n + 1) * each) for n in range(given.workers))
            list(pool.map(some, parts, rooms))
            yield each * given.workers

    return one


def reading_alone(root: Path, source: str, given: argparse.Namespace) -> Pass:
    files = Imagenet(ImagenetOptions(str(root), source=source))._files["train"]

    def one() -> Iterator[int]:
        for number in np.random.default_rng(0).permutation(len(files)).tolist():
            np.frombuffer(files.read(number), np.uint8).max()
            yield 1

    return one


def mxnet_iterator(root: Path, given: argparse.Namespace) -> Pass:
    from energybench_plugins.engines.mxnet_import import import_mxnet

    mx = import_mxnet()
    deviation = {f"std_{name}": 255 * value for name, value in zip("rgb", STD, strict=True)}
    mean = {f"mean_{name}": 255 * value for name, value in zip("rgb", MEAN, strict=True)}
    made = mx.io.ImageRecordIter(
        path_imgrec=str(root / "train.rec"),
        path_imgidx=str(root / "train.idx"),
        data_shape=SHAPE,
        batch_size=given.batch,
        shuffle=True,
        preprocess_threads=given.workers,
        random_resized_crop=True,
        min_random_area=0.08,
        max_random_area=1.0,
        min_aspect_ratio=3 / 4,
        max_aspect_ratio=4 / 3,
        rand_mirror=True,
        **mean,
        **deviation,
    )

    def one() -> Iterator[int]:
        made.reset()
        for batch in made:
            batch.data[0].wait_to_read()
            yield given.batch - batch.pad

    return one


class Photographs:
    """What torchvision's ImageFolder with RandomResizedCrop, flip, ToTensor and Normalize does, by Pillow."""

    def __init__(self, root: Path) -> None:
        self._paths = sorted((root / "train").rglob("*.JPEG"))
        names = sorted({path.parent.name for path in self._paths})
        self._labels = [names.index(path.parent.name) for path in self._paths]
        self._crop = RandomCrop()

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        import torch
        from PIL import Image

        image = Image.open(io.BytesIO(self._paths[number].read_bytes())).convert("RGB")
        drawn = self._crop.draw(1, np.random.default_rng())
        top, left, tall, wide = self._crop.boxes(np.array([image.height]), np.array([image.width]), drawn)[0].tolist()
        part = image.crop((left, top, left + wide, top + tall)).resize(SHAPE[:0:-1], Image.Resampling.BILINEAR)
        if drawn.flips[0]:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(part)).permute(2, 0, 1).contiguous().float().div(255)
        mean, deviation = (torch.tensor(value)[:, None, None] for value in (MEAN, STD))
        return (pixels - mean) / deviation, self._labels[number]


def torch_loader(root: Path, given: argparse.Namespace) -> tuple[str, Pass]:
    import torch

    name, dataset = "DataLoader, Pillow as torchvision", Photographs(root)
    try:
        from torchvision import datasets, transforms

        steps = [transforms.RandomResizedCrop(SHAPE[1]), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        together = transforms.Compose([*steps, transforms.Normalize(MEAN, STD)])
        name, dataset = "DataLoader, torchvision's ImageFolder", datasets.ImageFolder(root / "train", together)
    except Exception as error:  # beside a torch of another build it fails in any way it likes
        print(f"torchvision does not import ({type(error).__name__}): its transformations are made by Pillow")
    loader = torch.utils.data.DataLoader(
        dataset, given.batch, shuffle=True, num_workers=given.workers, drop_last=True, persistent_workers=True
    )

    def one() -> Iterator[int]:
        for images, _ in loader:
            yield len(images)

    return name, one


def pack_records(root: Path) -> None:
    """As im2rec does it with --pass-through."""
    from energybench_plugins.engines.mxnet_import import import_mxnet

    recordio = import_mxnet().recordio
    written = recordio.MXIndexedRecordIO(str(root / "train.idx"), str(root / "train.rec"), "w")
    paths = sorted((root / "train").rglob("*.JPEG"))
    names = sorted({path.parent.name for path in paths})
    for number, path in enumerate(paths):
        header = recordio.IRHeader(0, float(names.index(path.parent.name)), number, 0)
        written.write_idx(number, recordio.pack(header, path.read_bytes()))
    written.close()


def rate(one: Pass, seconds: float) -> float:
    """Images a second, from the first batch on: what is made before it stands against what is left at the end."""
    images, batches = 0, one()
    next(batches)
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        count = next(batches, None)
        if count is None:
            batches = one()
        else:
            images += count
    return images / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="threads, or processes")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each way in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out")
    given = parser.parse_args()
    jpeg.one_thread_each()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        photographs.make(root, given.images, 10)
        sizes = [path.stat().st_size for path in (root / "train").rglob("*.JPEG")]
        height, width = photographs.SIZE
        print(f"{len(sizes):,} photographs of {width}x{height} pixels, {statistics.mean(sizes) / 1e3:.0f} kB each")
        prepare(Imagenet(ImagenetOptions(str(root), shorter_side=None)).preparation(), 1, lambda progress: None)
        ways: dict[str, Pass] = {
            "the decoder alone": decoder_alone(root, given),
            "ours, folders": ours(root, "folders", given),
            "ours, prepared": ours(root, "prepared", given),
            "ours, prepared, floats": ours(root, "prepared", given, floats=True),
        }
        if importlib.util.find_spec("mxnet"):
            pack_records(root)
            ways["ours, RecordIO"] = ours(root, "records", given)
            ways["MXNet's ImageRecordIter"] = mxnet_iterator(root, given)
        if importlib.util.find_spec("torch"):
            name, loader = torch_loader(root, given)
            ways[name] = loader
        ways["reading folders"] = reading_alone(root, "folders", given)
        ways["reading prepared"] = reading_alone(root, "prepared", given)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(given.rounds + 1):
            for name, one in ways.items():
                found = rate(one, given.seconds)
                if turn:  # the first is for the page cache
                    rates[name].append(found)
            print(f"round {turn} of {given.rounds}", flush=True)
    best = statistics.median(rates["the decoder alone"])
    print(f"{'':40}{'images/s':>10}{'of the decoder':>16}   smallest to largest")
    for name, found in rates.items():
        middle = statistics.median(found)
        print(f"{name:40}{middle:10,.0f}{middle / best:16.2f}   {min(found):,.0f} to {max(found):,.0f}")
    write(given.out, {"images_per_s": rates, "workers": given.workers, "batch": given.batch})


if __name__ == "__main__":
    main()
