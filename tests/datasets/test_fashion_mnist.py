import dataclasses
import gzip
import hashlib
import http.server
import importlib
import json
import os
import struct
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml

from energybench.arrays import epoch_order
from energybench.dataset import Consumer
from energybench.devices import cpu_device
from energybench.errors import ConfigError, DataError
from energybench.image_cache import STALE_S, ResizedImages
from energybench.images import HeldBatch, ImageDataset, Normalisation, PixelBatch
from energybench.resizing import fit_images, resize
from energybench.run.assignment import Assignment
from energybench.run.worker import Loop
from energybench_plugins.datasets import download, fashion_mnist, idx
from energybench_plugins.datasets.fashion_mnist import FILES, FashionMnist, FashionMnistOptions

TRAIN, VALIDATION = 50, 23
IMAGES, LABELS = FILES["train"]


def idx_bytes(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def samples(count, seed):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 28, 28), np.uint8), random.integers(0, 10, count).astype(np.uint8)


def write(folder, zipped=False):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (count, names) in enumerate(zip((TRAIN, VALIDATION), FILES.values(), strict=True)):
        for name, array in zip(names, samples(count, seed), strict=True):
            content = idx_bytes(array)
            (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(content) if zipped else content)
    return folder


def plugin(**options):
    return FashionMnist(FashionMnistOptions(**options))


def everything(dataset, split, batch=10, epoch=1):
    batches = list(dataset.batches(split, batch, epoch))
    return np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches])


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path, monkeypatch):
    """No files of this computer are found, and its cache stays as it is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ENERGYBENCH_DATA", raising=False)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")


@pytest.fixture
def files(tmp_path):
    return write(tmp_path / "files")


# Where they are looked for


@pytest.mark.parametrize("zipped", [False, True])
def test_sizes_come_from_the_headers(tmp_path, zipped):
    found = plugin(path=str(write(tmp_path / "files", zipped)))
    info = found.info()
    assert (info.classes, info.labelled, info.train_images, info.validation_images) == (10, True, TRAIN, VALIDATION)
    assert found.check().ok and f"50 + 23 images of 28x28 pixels in {tmp_path / 'files'}" in found.check().detail


def test_places_in_their_order(tmp_path, monkeypatch):
    cache, debian, data = tmp_path / "cache/energybench/fashion-mnist", tmp_path / "debian", tmp_path / "data"
    monkeypatch.setenv("ENERGYBENCH_DATA", str(data))
    for place in (cache, debian, data / "fashion-mnist"):
        write(place)
        assert plugin().check().detail.endswith(str(place))
    assert plugin(path=str(write(tmp_path / "mine"))).check().detail.endswith("mine")


def test_a_folder_that_lacks_a_file_is_passed_over(tmp_path):
    write(tmp_path / "debian")
    (tmp_path / "debian" / LABELS).unlink()
    write(tmp_path / "cache/energybench/fashion-mnist")
    assert "cache" in plugin().check().detail


def test_nothing_found_says_where_and_what_to_do(tmp_path):
    state = plugin().check()
    assert not state.ok and str(tmp_path / "debian") in state.detail and str(tmp_path / "cache") in state.detail
    assert "apt-get install dataset-fashion-mnist" in state.remedy and "dataset.download=true" in state.remedy
    for ask in (plugin().info, lambda: plugin().open((1, 28, 28), 0)):
        with pytest.raises(DataError, match=r"dataset 'fashion_mnist': not found in .*apt-get install"):
            ask()


def test_a_given_folder_alone_counts_and_what_it_lacks_is_named(tmp_path, files):
    write(tmp_path / "debian")
    (files / LABELS).unlink()
    state = plugin(path=str(files)).check()
    assert not state.ok and f"{files} lacks {LABELS}[.gz]" in state.detail
    assert "not found in /nowhere" in plugin(path="/nowhere").check().detail


def test_nothing_is_read_but_headers(files):
    zipped = gzip.compress((files / IMAGES).read_bytes(), 0)
    (files / IMAGES).unlink()
    (files / f"{IMAGES}.gz").write_bytes(zipped[:2000])
    assert plugin(path=str(files)).info().train_images == TRAIN
    with pytest.raises(DataError, match=rf"{IMAGES}\.gz: .*; put an intact copy"):
        plugin(path=str(files)).open((1, 28, 28), 0)


# Damaged files


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "begins with nothing, not with 00000803"),
        (b"<html>", "begins with 3c68746d, not with 00000803"),
        (bytes((0, 0, 8, 1)) + bytes(12), "begins with 00000801, not with 00000803"),
        (bytes((0, 0, 13, 3)) + bytes(12), "begins with 00000d03"),
        (bytes((0, 0, 8, 3)) + bytes(11), "ends within its header"),
        (struct.pack(">HBB3I", 0, 8, 3, 2, 28, 28) + bytes(1567), "1,567 bytes follow .* 2x28x28 = 1,568"),
        (struct.pack(">HBB3I", 0, 8, 3, 2, 28, 28) + bytes(1569), "1,569 bytes follow"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_what_is_no_idx_file_of_images_is_named(tmp_path, content, reason, zipped):
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(DataError, match=f"{path}: .*{reason}.*; put an intact copy in its place, or delete it"):
        idx.read(path, 3)
    if not zipped:
        with pytest.raises(DataError, match=reason):
            idx.read_sizes(path, 3)


@pytest.mark.parametrize(
    "content", [b"\x1f\x8b", b"\x1f\x8bnothing of the kind", gzip.compress(bytes(100), mtime=0)[:15]]
)
def test_a_broken_gzip_file_is_named(tmp_path, content):
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    for ask in (idx.read, idx.read_sizes):
        with pytest.raises(DataError, match=r"file\.gz: .*; put an intact copy"):
            ask(path, 3)


def test_an_unreadable_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        idx.read(tmp_path / "gone", 3)


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        (IMAGES, np.zeros((TRAIN, 32, 28), np.uint8), "images of 32x28 pixels, not 28x28"),
        (LABELS, np.zeros(TRAIN - 1, np.uint8), "50 images of the train split have 49 labels"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_their_headers(files, name, array, reason):
    (files / name).write_bytes(idx_bytes(array))
    state = plugin(path=str(files)).check()
    assert not state.ok and reason in state.detail
    with pytest.raises(DataError, match=reason):
        plugin(path=str(files)).info()


def test_a_label_beyond_the_classes_is_refused(files):
    (files / LABELS).write_bytes(idx_bytes(np.full(TRAIN, 10, np.uint8)))
    with pytest.raises(DataError, match=f"{LABELS}: label 10 of 10 classes"):
        plugin(path=str(files)).open((1, 28, 28), 0)


# Samples


def test_validation_is_complete_and_in_order_and_normalised(files):
    images, labels = everything(plugin(path=str(files)).open((1, 28, 28), 0), "validation")
    originals, wanted = samples(VALIDATION, 1)
    expected = (originals[:, None] / 255 - fashion_mnist.MEAN) / fashion_mnist.STD
    np.testing.assert_allclose(images, expected, atol=1e-6)
    assert images.dtype == np.float32 and labels.dtype == np.int64 and labels.tolist() == wanted.tolist()


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 40, 40)])
def test_training_follows_seed_and_epoch_and_drops_the_rest(files, shape):
    _, labels = samples(TRAIN, 0)
    for seed, epoch in ((0, 1), (0, 2), (7, 1)):
        batches = list(plugin(path=str(files)).open(shape, seed).batches("train", 16, epoch))
        assert [b.images.shape for b in batches] == [(16, *shape)] * 3
        assert all(b.images.flags.c_contiguous for b in batches)
        found = np.concatenate([b.labels for b in batches])
        assert found.tolist() == labels[epoch_order(TRAIN, seed, epoch)[:48]].tolist()


@pytest.mark.parametrize("cache_gb", [0, 4.0])
def test_resized_batches_are_bytes_of_one_channel(files, cache_gb):
    dataset = plugin(path=str(files), cache_gb=cache_gb).open((3, 64, 64), 0)
    order = epoch_order(TRAIN, 0, 1)
    resized = resize(samples(TRAIN, 0)[0][order[:16], None], 64, 64)
    batch = next(iter(dataset.batches("train", 16, 1)))
    assert isinstance(batch, PixelBatch) and batch.pixels.dtype == np.uint8 and (batch.pixels == resized).all()
    expected = (resized.repeat(3, 1) / 255 - fashion_mnist.MEAN) / fashion_mnist.STD
    np.testing.assert_allclose(batch.images, expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64)])
def test_resident_images_are_those_of_every_batch(files, shape):
    plain, resident = (plugin(path=str(files), resident=resident).open(shape, 2) for resident in (False, True))
    resident.adapt(Consumer(kinds=(HeldBatch,)))
    for split in ("train", "validation"):
        for one, other in zip(plain.batches(split, 16, 1), resident.batches(split, 16, 1), strict=True):
            assert isinstance(other, HeldBatch) and other.held.pixels.shape[1] == 1
            assert (one.images == other.images).all() and (one.labels == other.labels).all()


@pytest.mark.parametrize(
    "runs", [pytest.param("gluon_runs", marks=pytest.mark.gluon), pytest.param("torch_runs", marks=pytest.mark.torch)]
)
def test_a_run_on_resident_images_learns_the_same(tmp_path, files, runs):
    if runs == "torch_runs":
        pytest.importorskip("torch")
    trained = importlib.import_module(runs).trained
    told = []
    for resident in (False, True):
        options = {"name": "fashion_mnist", "path": str(files), "resident": resident}
        (tmp_path / str(resident)).mkdir()
        told.append(trained(tmp_path / str(resident), dataset=options, batch=10))
    assert [told[0][n][:2] for n in range(4)] == [("train", 1), ("validate", 1), ("train", 2), ("validate", 2)]
    for (*what, one), (*again, other) in zip(*told, strict=True):
        assert what == again and other == pytest.approx(one, rel=1e-3)


class Phases:
    """Keeps the phases that a worker's loop has begun."""

    def __init__(self):
        self.begun = []

    def emit(self, kind, phase="", *more, **said):
        if kind == "started":
            self.begun.append(phase)


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize(
    ("runs", "trainer"),
    [
        pytest.param("gluon_runs", "gluon_trainer.GluonTrainer", marks=pytest.mark.gluon),
        pytest.param("torch_runs", "torch_trainer.TorchTrainer", marks=pytest.mark.torch),
    ],
)
def test_resident_images_go_to_the_devices_while_the_run_loads(tmp_path, files, runs, trainer, validate, monkeypatch):
    if runs == "torch_runs":
        pytest.importorskip("torch")
    told, asked = Phases(), []

    def full(self, held):
        asked.append(len(held.pixels))
        if len(asked) == (2 if validate else 1):
            raise DataError("no room")

    monkeypatch.setattr(f"energybench_plugins.engines.{trainer}.keep", full)
    experiment = importlib.import_module(runs).experiment(
        dataset={"name": "fashion_mnist", "path": str(files), "resident": True},
        measure={"validate": validate},
        batch=10,
    )
    with pytest.raises(DataError, match="no room"):
        Loop(Assignment(experiment, (cpu_device(),), 0, 1, str(tmp_path)), told).run()
    assert told.begun == ["load"] and asked == ([TRAIN, VALIDATION] if validate else [TRAIN])


@pytest.mark.parametrize(
    ("runs", "contexts", "copies"),
    [
        pytest.param("gluon_runs", 2, 2, marks=pytest.mark.gluon),
        pytest.param("torch_runs", 1, 0, marks=pytest.mark.torch),
    ],
)
def test_a_data_set_is_told_of_the_copies_on_its_machine(tmp_path, files, runs, contexts, copies, monkeypatch):
    if runs == "torch_runs":
        pytest.importorskip("torch")
    told, adapt = [], ImageDataset.adapt
    monkeypatch.setattr(ImageDataset, "adapt", lambda self, consumer: told.append(consumer) or adapt(self, consumer))
    experiment = importlib.import_module(runs).experiment(
        dataset={"name": "fashion_mnist", "path": str(files), "resident": True}, batch=10
    )
    Loop(Assignment(experiment, (cpu_device(),) * contexts, 0, 1, str(tmp_path), local_world=3), Phases())._load()
    assert [(consumer.local_world, consumer.host_copies) for consumer in told] == [(3, copies)]


def test_images_stay_with_their_labels(files):
    originals, wanted = samples(TRAIN, 0)
    images, labels = everything(plugin(path=str(files)).open((3, 28, 28), 3), "train")
    order = epoch_order(TRAIN, 3, 1)
    expected = (originals[order, None].repeat(3, 1) / 255 - fashion_mnist.MEAN) / fashion_mnist.STD
    np.testing.assert_allclose(images, expected, atol=1e-6)
    assert labels.tolist() == wanted[order].tolist()


def test_limits_take_the_first(files):
    limited = plugin(path=str(files), train_images=20, validation_images=5)
    assert (limited.info().train_images, limited.info().validation_images) == (20, 5)
    dataset = limited.open((1, 28, 28), 0)
    assert sorted(everything(dataset, "train")[1]) == sorted(samples(TRAIN, 0)[1][:20])
    assert everything(dataset, "validation")[1].tolist() == samples(VALIDATION, 1)[1][:5].tolist()


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 32, 32)])
def test_no_validation_images_are_no_batches(files, shape):
    dataset = plugin(path=str(files), validation_images=0).open(shape, 0)
    assert list(dataset.batches("validation", 8, 1)) == []


def test_more_than_there_are_is_refused(files):
    with pytest.raises(DataError, match=r"dataset.validation_images=24: there are 23"):
        plugin(path=str(files), validation_images=24).info()


@pytest.mark.parametrize("options", [{"train_images": 0}, {"validation_images": -1}, {"cache_gb": -1.0}])
def test_impossible_options_are_named(options):
    with pytest.raises(ConfigError, match=f"dataset.{next(iter(options))}="):
        plugin(**options)


# Resizing and its cache


@pytest.mark.parametrize("size", [(28, 28), (64, 64), (227, 60), (14, 20)])
def test_resizing_is_that_of_fit_images(size):
    originals = samples(5, 0)[0].reshape(5, 1, 28, 28)
    expected = fit_images(originals.astype(np.float32), (1, *size), "digits")
    resized = resize(originals, *size)
    assert resized.dtype == np.uint8 and abs(resized - expected).max() <= 0.5001


def test_bytes_at_both_ends_stay_there():
    for value in (0, 255):
        assert (resize(np.full((1, 1, 28, 28), value, np.uint8), 227, 227) == value).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_each_channel_has_its_own_normalisation(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), np.uint8)
    norm = Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    dataset = ImageDataset("rgb", {"validation": (pixels, np.arange(6))}, (3, 8, 8), norm, 0)
    expected = (pixels / 255 - np.array([[[0.1]], [[0.2]], [[0.3]]])) / np.array([[[0.4]], [[0.5]], [[0.6]]])
    np.testing.assert_allclose(everything(dataset, "validation")[0], expected, atol=1e-6)
    with pytest.raises(DataError, match="'rgb' has 3 channels and the network takes 50"):
        ImageDataset("rgb", {"validation": (pixels, np.arange(6))}, (50, 8, 8), norm, 0)


def resized_files(tmp_path):
    return sorted((tmp_path / "cache/energybench/resized").glob("*"))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_cached_and_uncached_batches_are_the_same(tmp_path, files, split):
    uncached = plugin(path=str(files), cache_gb=0).open((3, 64, 64), 0)
    assert resized_files(tmp_path) == []
    for _ in range(2):
        cached = plugin(path=str(files)).open((3, 64, 64), 0)
        assert len(resized_files(tmp_path)) == 2
        for one, other in zip(everything(uncached, split), everything(cached, split), strict=True):
            assert (one == other).all()


def test_the_second_opening_resizes_nothing(tmp_path, files):
    plugin(path=str(files)).open((3, 64, 64), 0)
    made = {path: path.stat().st_ino for path in resized_files(tmp_path)}
    plugin(path=str(files)).open((1, 64, 64), 1)
    assert {path: path.stat().st_ino for path in resized_files(tmp_path)} == made
    plugin(path=str(files), train_images=20).open((1, 64, 64), 1)
    assert len(resized_files(tmp_path)) == 3  # other images, another file


@pytest.mark.parametrize("content", [b"", b"rubbish", None])
def test_a_damaged_file_of_the_cache_is_made_anew(tmp_path, files, content):
    first = everything(plugin(path=str(files)).open((1, 64, 64), 0), "train")[0]
    for path in resized_files(tmp_path):
        path.write_bytes(path.read_bytes()[:1000] if content is None else content)
    assert (everything(plugin(path=str(files)).open((1, 64, 64), 0), "train")[0] == first).all()


def test_what_does_not_fit_is_resized_batch_by_batch_and_said(tmp_path, files, caplog):
    dataset = plugin(path=str(files), cache_gb=1e-4).open((3, 64, 64), 0)
    assert resized_files(tmp_path) == [] and "batch by batch" in caplog.text
    assert everything(dataset, "train")[0].shape == (TRAIN, 3, 64, 64)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, files, caplog):
    (tmp_path / "cache").write_text("no folder")
    dataset = plugin(path=str(files)).open((3, 64, 64), 0)
    assert "batch by batch" in caplog.text and everything(dataset, "train")[0].shape == (TRAIN, 3, 64, 64)


def test_the_cache_keeps_to_its_limit_and_drops_what_was_not_used_for_longest(tmp_path):
    images = {"train": np.zeros((10, 1, 4, 4), np.uint8)}
    cache = ResizedImages(tmp_path, "x", 10 * 8 * 8 * 2 + 400)
    for age, size in ((300, 6), (200, 7), (100, 8)):
        assert cache.resized(images, size, size) is not None
        (path,) = tmp_path.glob(f"x-{size}x{size}-*")
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    cache.resized(images, 6, 6)  # used again
    cache.resized(images, 9, 9)
    assert sorted(path.name.split("-")[1] for path in tmp_path.iterdir()) == ["6x6", "9x9"]


def test_half_written_files_are_removed_when_their_writer_is_long_gone(tmp_path):
    old, young = tmp_path / "x.1.partial", tmp_path / "y.2.partial"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (old.stat().st_mtime - STALE_S - 60,) * 2)
    ResizedImages(tmp_path, "x", 10**6).resized({"train": np.zeros((1, 1, 4, 4), np.uint8)}, 8, 8)
    assert not old.exists() and young.exists()


# Download, from a server on the loopback interface


class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *args):
        super().__init__(*args, directory=self.folder)

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.asked.append(self.path)
        if self.path.strip("/") != self.breaks_off:
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"half of it")
        return None


@pytest.fixture
def server(tmp_path):
    """Serves tmp_path/served; the name in `breaks_off` in part only."""
    (tmp_path / "served").mkdir()
    served = type("Served", (Handler,), {"folder": str(tmp_path / "served"), "asked": [], "breaks_off": ""})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), served) as running:
        running.url = f"http://127.0.0.1:{running.server_port}"
        running.served = served
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_download_is_there_whole_with_its_checksum(tmp_path, server):
    (tmp_path / "served/file").write_bytes(b"content")
    target = tmp_path / "new/folder/file"
    download.fetch(f"{server.url}/file", hashlib.sha256(b"content").hexdigest(), target)
    assert target.read_bytes() == b"content" and [*target.parent.iterdir()] == [target]


def test_a_wrong_checksum_leaves_nothing_behind(tmp_path, server):
    write(tmp_path / "served", zipped=True)
    wanted = plugin(download=True, url=server.url)
    assert wanted.check().ok and f"to be downloaded from {server.url} to {tmp_path}/cache" in wanted.check().detail
    assert server.served.asked == []  # checking costs nothing
    with pytest.raises(
        DataError, match=rf"{server.url}/{IMAGES}\.gz: not the published file: its SHA-256 is .*not 3ae"
    ):
        wanted.info()
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_download_that_breaks_off_is_done_again(tmp_path, server):
    (tmp_path / "served/file").write_bytes(b"content")
    target, checksum = tmp_path / "to/file", hashlib.sha256(b"content").hexdigest()
    server.served.breaks_off = "file"
    with pytest.raises(DataError, match="broke off after 10 of 1,000 bytes; try again"):
        download.fetch(f"{server.url}/file", checksum, target)
    assert [*target.parent.iterdir()] == []
    server.served.breaks_off = ""
    download.fetch(f"{server.url}/file", checksum, target)
    assert target.read_bytes() == b"content"


@pytest.mark.parametrize("url", ["{}/missing", "http://127.0.0.1:1/refused", "nonsense"])
def test_what_cannot_be_had_is_named(tmp_path, server, url):
    url = url.format(server.url)
    with pytest.raises(DataError, match=f"{url}: cannot be downloaded to .*: .*; try again"):
        download.fetch(url, "", tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["served"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path, server):
    (tmp_path / "served/file").write_bytes(b"content")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DataError, match=r"cannot be downloaded to .*taken"):
        download.fetch(f"{server.url}/file", "", tmp_path / "taken/file")


def test_files_that_are_there_are_not_downloaded(files, server):
    plugin(path=str(files), download=True, url=server.url).info()
    assert server.served.asked == []


# The plugin


def test_the_yaml_file_holds_the_options_and_their_defaults():
    config = yaml.safe_load((Path(__file__).parents[2] / "conf/dataset/fashion_mnist.yaml").read_text())
    assert config == {"name": "fashion_mnist", **dataclasses.asdict(FashionMnistOptions())}


def test_registers_itself():
    registered = []
    fashion_mnist.energybench_register_datasets(lambda *part: registered.append(part))
    assert registered == [("fashion_mnist", FashionMnist, FashionMnistOptions)]


def test_importing_the_plugin_is_light():
    script = "import sys, energybench_plugins.datasets.fashion_mnist; print({'numpy', 'scipy'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "set()\n"


# The real files

REAL = fashion_mnist._first_complete(plugin()._places())
real = pytest.mark.skipif(
    REAL is None, reason="needs Fashion-MNIST: apt-get install dataset-fashion-mnist, or set ENERGYBENCH_DATA"
)

CONTENT_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""Of what is in the files, however they are compressed."""

PUBLISHED = {
    "train-images-idx3-ubyte": (1504176606, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    "train-labels-idx1-ubyte": (1504176606, "25c81989df183df01b3e8a0aad5dffbe"),
    "t10k-images-idx3-ubyte": (1504176627, "bef4ecab320f06d8554ea6380940ec79"),
    "t10k-labels-idx1-ubyte": (1504176627, "bb300cfdad3c16e7a12a480ee83cd310"),
}
"""Time stamp in the gzip header of the published file, and its MD5 sum in the README of the data set."""


def published(path):
    """The file as it was published, from Debian's, which differs by the name and the time in the gzip header."""
    content = path.read_bytes()
    if content[3] == 0:
        stamp, _ = PUBLISHED[path.stem]
        return content[:3] + struct.pack("<BI", 8, stamp) + b"\0\3" + path.stem.encode() + b"\0" + content[10:]
    return content


@real
@pytest.mark.fashion_mnist
def test_real_contents_have_their_checksums():
    for name, checksum in CONTENT_SHA256.items():
        path = next(REAL.glob(f"{name}*"))
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert hashlib.sha256(content).hexdigest() == checksum


@real
@pytest.mark.fashion_mnist
def test_real_files_are_downloaded_with_the_published_checksums(tmp_path, server):
    for name, (_, md5) in PUBLISHED.items():
        path = REAL / f"{name}.gz"
        if not path.exists():
            pytest.skip("needs the gzipped files, as published or as in Debian's package")
        content = published(path)
        assert hashlib.md5(content).hexdigest() == md5
        assert hashlib.sha256(content).hexdigest() == fashion_mnist.SHA256[path.name]
        (tmp_path / "served" / path.name).write_bytes(content)
    server.served.breaks_off = f"{LABELS}.gz"
    fetched = plugin(path=str(tmp_path / "to"), download=True, url=f"{server.url}/")
    with pytest.raises(DataError, match="broke off"):
        fetched.info()
    assert [path.name for path in (tmp_path / "to").iterdir()] == [f"{IMAGES}.gz"]
    server.served.breaks_off = ""
    assert fetched.info().train_images == 60_000
    assert sorted(server.served.asked) == sorted([f"/{LABELS}.gz", *(f"/{name}.gz" for name in PUBLISHED)])


@real
@pytest.mark.fashion_mnist
def test_real_images_are_complete_balanced_and_normalised():
    info = plugin(path=str(REAL)).info()
    assert (info.train_images, info.validation_images, info.classes) == (60_000, 10_000, 10)
    dataset = plugin(path=str(REAL)).open((1, 28, 28), 0)
    for split, count in (("train", 60_000), ("validation", 10_000)):
        images, labels = everything(dataset, split, batch=1000)
        assert images.shape == (count, 1, 28, 28) and np.bincount(labels).tolist() == [count // 10] * 10
        if split == "train":
            assert abs(images.mean(dtype=float)) < 1e-4 and abs(images.std(dtype=float) - 1) < 1e-4


@real
@pytest.mark.fashion_mnist
def test_real_images_reach_the_network_s_size():
    dataset = plugin(path=str(REAL), train_images=64, validation_images=10).open((3, 227, 227), 0)
    batch = next(dataset.batches("train", 32, 1))
    assert batch.images.shape == (32, 3, 227, 227) and (batch.images[:, 0] == batch.images[:, 2]).all()


@real
@pytest.mark.fashion_mnist
@pytest.mark.gluon
@pytest.mark.skipif(find_spec("mxnet") is None, reason="needs MXNet: pip install 'energybench[gluon]'")
def test_lenet_learns_it(tmp_path):
    options = (
        f"model=lenet dataset=fashion_mnist dataset.path={REAL} engine=gluon gpu=cpu tracking=none batch=64 seed=1"
    )
    limits = f"dataset.validation_images=2000 budget.steps=400 measure.baseline_s=0 hydra.run.dir={tmp_path}/run"
    command = [sys.executable, "-m", "energybench", *options.split(), *limits.split()]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["metrics"]["accuracy_top1"] > 0.8
