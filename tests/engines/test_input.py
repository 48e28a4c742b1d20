"""What engines make of bytes and of images they keep, and how long their devices wait for data."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time

import cv2
import fed as fed_by
import numpy as np
import psutil
import pytest
from omegaconf import OmegaConf
from views import Silent

from energybench.config import resolve
from energybench.power.flags import FLAGS
from energybench.registry import Registry
from energybench.run.execute import Place, execute
from energybench.run.metrics import metrics
from energybench.run.preflight import Machine, prepare
from energybench.run.result import Phase
from energybench_plugins.engines.gluon_wait import Waits

WAIT_S = 0.3
SPLITS = ("train", "validation")

ENGINES = [
    pytest.param("gluon", marks=pytest.mark.gluon),
    pytest.param(
        "torch",
        marks=[
            pytest.mark.torch,
            pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs energybench[torch]"),
        ],
    ),
]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_whose_data_are_slow_says_so(engine, fakes, tmp_path, monkeypatch):
    monkeypatch.setenv("ENERGYBENCH_PLUGINS", "standin,slow")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    registry = Registry()
    config = {
        "model": {"name": "lenet"},
        "dataset": {"name": "slow", "wait_s": WAIT_S},
        "engine": {"name": engine},
        "meter": {"name": "tdp"},
        "gpu": {"name": "cpu"},
        "batch": 8,
        "budget": {"epochs": 1},
        "measure": {"baseline_s": 0.0, "warmup_steps": 1},
        "tracking": {"name": "none"},
    }
    plan = prepare(resolve(OmegaConf.create(config), registry), Machine(registry))
    result = execute(plan, Place(tmp_path), Silent())
    assert result.status == "finished", result.failure
    waited_s = result.metrics["input_wait_fraction"] * result.metrics["time_s"]
    assert 0.8 * 7 * WAIT_S < waited_s < result.metrics["time_s"]  # one may be missed by an engine that is ahead
    assert "input_bound" in result.tags["quality"].split(",") and "input_bound" in FLAGS


class TestAnAsynchronousEngine:
    """`Waits` of Gluon, with devices that are done when the test says so."""

    def test_waits_from_when_the_devices_are_done(self):
        done = threading.Event()
        edges = []

        def batches():
            time.sleep(0.05)  # the devices still work
            edges.append(time.perf_counter())
            done.set()
            time.sleep(0.2)
            edges.append(time.perf_counter())
            yield "batch"

        waits = Waits(lambda: done.wait() and None)
        began = time.perf_counter()
        assert list(waits.timed(batches())) == ["batch"]
        assert 0.1 < waits.total_s() <= time.perf_counter() - began - 0.04
        assert waits.total_s() <= edges[1] - edges[0] + 0.05
        waits.restart()
        assert waits.total_s() == 0

    def test_does_not_wait_while_the_devices_work(self):
        done = threading.Event()

        def batches():
            time.sleep(0.1)
            yield "batch"

        waits = Waits(lambda: done.wait() and None)
        assert list(waits.timed(batches())) == ["batch"]
        assert waits.total_s() == 0
        done.set()

    def test_batches_that_are_there_at_once_are_not_watched(self):
        watched = []
        waits = Waits(lambda: watched.append(1))
        assert list(waits.timed(iter(range(500)))) == list(range(500))
        assert len(watched) < 100  # the first, and where a busy machine was late


def phase(wait_s, **more):
    values = {} if wait_s is None else {"input_wait_s": wait_s}
    return Phase("train", 1, 0, 10 * 10**9, True, {}, {**values, **more})


@pytest.mark.parametrize(("waits", "fraction"), [([1.0, 3.0], 0.2), ([None, 2.0], 0.2), ([None], None), ([0.0], 0.0)])
def test_the_fraction_is_of_the_phases_that_tell(waits, fraction):
    assert metrics([phase(wait_s) for wait_s in waits], [], []).get("input_wait_fraction") == fraction


def test_bytes_become_the_floats_that_the_host_would_make_of_them():
    """By each engine on its device, in both orders of memory."""
    from energybench.images import Normalisation, PixelBatch

    random = np.random.default_rng(0)
    last = random.integers(0, 256, (4, 6, 5, 3), np.uint8).transpose(0, 3, 1, 2)
    normalisation = Normalisation((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    wanted = (last / 255 - np.array([0.4, 0.5, 0.6])[:, None, None]) / np.array([0.2, 0.25, 0.3])[:, None, None]
    for pixels in (last, np.ascontiguousarray(last)):
        batch = PixelBatch(pixels, np.zeros(4, np.int64), normalisation)
        np.testing.assert_allclose(batch.images, wanted, atol=1e-5)
        for images in seen(batch):
            np.testing.assert_allclose(images, wanted, atol=1e-5)


def test_one_channel_becomes_all_on_the_device():
    """By each engine, of batches that come again too: what the host makes of the bytes."""
    from energybench.images import Normalisation, PixelBatch

    pixels = np.random.default_rng(0).integers(0, 256, (4, 1, 6, 5), np.uint8)
    for key in (None, "again"):
        batch = PixelBatch(pixels, np.zeros(4, np.int64), Normalisation((0.3,), (0.2,)), key, channels=3)
        wanted = np.repeat((pixels / 255 - 0.3) / 0.2, 3, axis=1)
        assert batch.images.shape == (4, 3, 6, 5) and batch.images.flags.c_contiguous
        np.testing.assert_allclose(batch.images, wanted, atol=1e-5)
        for images in seen(batch):
            np.testing.assert_allclose(images, wanted, atol=1e-5)


@pytest.mark.torch
def test_a_grey_batch_longer_than_the_buffers_is_validated():
    torch = pytest.importorskip("torch")

    from energybench.images import Normalisation, PixelBatch
    from energybench_plugins.engines.torch_feed import Feed, Layout
    from energybench_plugins.engines.torch_validation import Marks, Validation

    layout = Layout(torch.device("cpu"), torch.float32, torch.contiguous_format)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 6 * 5, 7))
    validation = Validation(net, Marks(net, layout, top5=False), layout.buffers(2, (3, 6, 5)), layout)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 1, 6, 5), np.uint8)
    batch = PixelBatch(pixels, np.arange(5), Normalisation((0.3,), (0.2,)), channels=3)
    count, (right, loss, _) = validation(Feed(layout)([batch]))
    logits = net(torch.from_numpy(batch.images))
    labels = torch.arange(5)
    assert count == 5 and right == (logits.argmax(1) == labels).sum()
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item() * 5, rel=1e-5)


def test_views_of_held_images_are_what_the_host_would_cut():
    """By each engine on its device: boxes, mirrored ones too, at the edges and in the middle."""
    from energybench.images import Held, HeldBatch, Normalisation, View

    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (3, 20, 24, 3), np.uint8)
    held = Held(pixels.transpose(0, 3, 1, 2))
    boxes = np.array([[0, 0, 20, 24], [4, 6, 8, 9], [10, 12, 10, 12], [0, 0, 5, 5]])
    view = View(boxes, np.array([False, True, False, True]), (6, 5))
    batch = HeldBatch(held, np.array([2, 0, 1, 1]), view, np.zeros(4, np.int64), Normalisation((0.5,) * 3, (0.2,) * 3))
    assert batch.images.shape == (4, 3, 6, 5)
    for images in seen(batch):
        np.testing.assert_allclose(images, batch.images, atol=1e-3)
    wanted = cv2.resize(pixels[0, 4:12, 6:15].astype(np.float32), (5, 6))[:, ::-1]
    np.testing.assert_allclose((batch.images[1] * 0.2 + 0.5).transpose(1, 2, 0) * 255, wanted, atol=0.1)
    whole = View(np.array([[0, 0, 20, 24]]), np.array([True]), (20, 24))
    mirrored = HeldBatch(held, np.array([1]), whole, np.zeros(1, np.int64), Normalisation((0.0,) * 3, (1 / 255,) * 3))
    np.testing.assert_allclose(mirrored.images[0].transpose(1, 2, 0), pixels[1, :, ::-1], atol=0.01)


def held_and_not(shape=(3, 12, 10), **adapted):
    """The same images kept by the devices, and brought to them batch by batch."""
    from energybench.dataset import Consumer
    from energybench.images import HeldBatch, ImageDataset, Normalisation

    random = np.random.default_rng(0)
    splits = {
        split: (random.integers(0, 256, (count, 1, 8, 8), np.uint8), random.integers(0, 9, count))
        for split, count in (("train", 23), ("validation", 11))
    }
    for resident in (True, False):
        dataset = ImageDataset("grey", splits, shape, Normalisation((0.3,), (0.2,)), 5, resident=resident)
        dataset.adapt(Consumer(kinds=(HeldBatch,), **adapted))
        yield dataset


def test_images_that_devices_keep_make_the_same_batches():
    """Of each engine: to the last bit, epoch after epoch, the last batch of validation a shorter one."""
    from energybench.images import HeldBatch

    for fed in fed_by.engines():
        kept, sent = (
            list(fed([batch for epoch in (1, 2) for split in SPLITS for batch in dataset.batches(split, 6, epoch)]))
            for dataset in held_and_not()
        )
        assert [len(labels) for _, labels in sent] == [6, 6, 6, 6, 5] * 2
        for (images, labels), (wanted, expected) in zip(kept, sent, strict=True):
            np.testing.assert_array_equal(images, wanted)
            np.testing.assert_array_equal(labels, expected)
        assert not np.array_equal(kept[0][0], kept[5][0])  # other epochs, another order
    held, _ = held_and_not()
    batches = list(held.batches("train", 6, 1))
    assert all(isinstance(batch, HeldBatch) for batch in batches) and len({batch.held for batch in batches}) == 1


@pytest.mark.parametrize("shape", [(3, 12, 10), (1, 8, 8)])
def test_each_worker_is_given_its_part_of_kept_images(shape):
    for split in SPLITS:
        alone = [list(dataset.batches(split, 7, 1)) for dataset in held_and_not(shape)]
        parts = [
            [list(dataset.batches(split, 7, 1)) for dataset in held_and_not(shape, rank=rank, world=3)]
            for rank in range(3)
        ]
        for kind in range(2):
            for number, batch in enumerate(alone[kind]):
                shares = [part[kind][number] for part in parts]
                assert batch.whole is None and {share.whole for share in shares} == {len(batch.labels)}
                assert np.concatenate([share.labels for share in shares]).tolist() == batch.labels.tolist()
                np.testing.assert_array_equal(np.concatenate([share.images for share in shares]), batch.images)


@pytest.mark.parametrize("memory", ["none", "short"])
def test_images_that_cannot_be_kept_are_refused_in_one_line(monkeypatch, memory):
    from energybench.dataset import Consumer
    from energybench.errors import DataError
    from energybench.images import HeldBatch, ImageDataset, Normalisation

    splits = {"train": (np.zeros((1000, 1, 8, 8), np.uint8), np.zeros(1000, np.int64))}
    dataset = ImageDataset("grey", splits, (3, 1000, 1000), Normalisation((0.3,), (0.2,)), 0, resident=True)
    if memory == "none":
        with pytest.raises(DataError, match="the engine keeps no images"):
            dataset.adapt(Consumer())
    else:
        free_memory(monkeypatch, 9 * 10**8)
        with pytest.raises(DataError, match=r"take 1\.0 GB, .* and 0\.9 GB of memory are free; use fewer images, or"):
            dataset.adapt(Consumer(kinds=(HeldBatch,)))


def free_memory(monkeypatch, free_bytes):
    memory = psutil.virtual_memory()._replace(available=free_bytes)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


@pytest.mark.parametrize(("sharing", "copies"), [({"local_world": 2}, 2), ({"host_copies": 2}, 3), ({"world": 2}, 1)])
def test_every_copy_on_the_machine_is_counted(monkeypatch, sharing, copies):
    from energybench.dataset import Consumer
    from energybench.errors import DataError
    from energybench.images import HeldBatch, ImageDataset, Normalisation

    splits = {"train": (np.zeros((1000, 1, 8, 8), np.uint8), np.zeros(1000, np.int64))}
    for short in (1, 0):
        free_memory(monkeypatch, copies * 1000 * 40 * 40 - short)
        dataset = ImageDataset("grey", splits, (3, 40, 40), Normalisation((0.3,), (0.2,)), 0, resident=True)
        consumer = Consumer(kinds=(HeldBatch,), **sharing)
        if short:
            with pytest.raises(DataError, match="all copies on this machine counted"):
                dataset.adapt(consumer)
        else:
            dataset.adapt(consumer)


@pytest.mark.parametrize("size", [8, 12])
def test_images_that_lie_there_already_cost_no_memory(tmp_path, monkeypatch, size):
    """As they came, or resized in a file that is mapped; what CPUs copy of them costs as much as ever."""
    from energybench.dataset import Consumer
    from energybench.errors import DataError
    from energybench.image_cache import ResizedImages
    from energybench.images import HeldBatch, ImageDataset, Normalisation

    splits = {"train": (np.zeros((100, 1, 8, 8), np.uint8), np.zeros(100, np.int64))}
    cache, normalisation = ResizedImages(tmp_path, "grey", 10**9), Normalisation((0.3,), (0.2,))
    dataset = ImageDataset("grey", splits, (3, size, size), normalisation, 0, cache, resident=True)
    free_memory(monkeypatch, 0)
    with pytest.raises(DataError, match="of memory are free"):
        dataset.adapt(Consumer(kinds=(HeldBatch,), host_copies=1))
    dataset.adapt(Consumer(kinds=(HeldBatch,)))
    assert dataset.held("train").pixels.shape == (100, 1, size, size) and dataset.held("validation") is None


def reversed_images():
    random = np.random.default_rng(0)
    last = random.integers(0, 256, (5, 6, 7, 3), np.uint8)
    bgr = last[..., ::-1].transpose(0, 3, 1, 2)
    return [bgr, np.ascontiguousarray(bgr)[::-1], np.ascontiguousarray(bgr)[:, :, ::-1], bgr[:1][::-1]]


@pytest.mark.parametrize("pixels", reversed_images())
def test_images_may_run_backwards(pixels):
    """As those do whose channels [..., ::-1] has brought from BGR to RGB: of each engine, kept and not."""
    from energybench.images import Held, HeldBatch, Normalisation, PixelBatch, View

    count, normalisation = len(pixels), Normalisation((0.4,) * 3, (0.2,) * 3)
    chosen, labels = np.arange(count)[::-1], np.arange(10, 10 + count)[::-1]
    whole = View(np.tile([0, 0, 6, 7], (count, 1)), np.zeros(count, bool), (6, 7))
    for batch in (
        HeldBatch(Held(pixels), chosen, None, labels, normalisation),
        HeldBatch(Held(pixels), chosen, whole, labels, normalisation),
        PixelBatch(pixels, labels, normalisation),
    ):
        for images in seen(batch):
            np.testing.assert_allclose(images, batch.images, atol=1e-3)


def small_trainer(engine, contexts=1):
    """Of a network that takes three channels."""
    from gluon_runs import experiment

    from energybench.architecture import Architecture, Dense
    from energybench.config import make
    from energybench.devices import cpu_device
    from energybench.run.engine import Task

    chosen = experiment(engine={"name": engine}, batch=4)
    task = Task(chosen, Architecture("small", (3, 6, 5), 10, (Dense(10),)), (cpu_device(),) * contexts)
    return make(Registry(), "engine", chosen.engine).trainer(task)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["floats", "pixels", "held"])
def test_one_channel_is_repeated_only_where_the_batch_says_so(engine, kind):
    from gluon_runs import step

    from energybench.dataset import Batch
    from energybench.errors import DataError
    from energybench.images import Held, HeldBatch, Normalisation, PixelBatch

    trainer, labels, normalisation = small_trainer(engine), np.zeros(4, np.int64), Normalisation((0.3,), (0.2,))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 1, 6, 5), np.uint8)

    def batch(channels):
        if kind == "held":
            return HeldBatch(Held(pixels), np.arange(4), None, labels, normalisation, channels=channels)
        pixel_batch = PixelBatch(pixels, labels, normalisation, channels=channels)
        return Batch(pixel_batch.images, labels) if kind == "floats" else pixel_batch

    step(trainer, [batch(3)])
    assert np.isfinite(trainer.take_loss())
    with pytest.raises(DataError, match=r"have 1 and the network takes 3 channels; .*channels=3"):
        step(trainer, [batch(None)])
    assert trainer.evaluate(trainer.feed([batch(3)])).images == 4
    with pytest.raises(DataError, match="have 1 and the network takes 3"):
        trainer.evaluate(trainer.feed([batch(None)]))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_device_too_small_for_the_images_is_not_blamed_on_the_batch(engine, monkeypatch):
    """Whatever the framework says of its memory, at once and with the first batch."""
    from energybench.errors import DataError
    from energybench.images import Held, HeldBatch, Normalisation
    from energybench.run.worker import failure_kind

    def full(*given, **options):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    trainer, held = small_trainer(engine), Held(np.zeros((400, 3, 60, 50), np.uint8))
    monkeypatch.setattr(f"energybench_plugins.engines.{PLACES[engine]}", full)
    batch = HeldBatch(held, np.arange(4), None, np.zeros(4, np.int64), Normalisation((0.3,), (0.2,)))
    for bring in (lambda: trainer.keep(held), lambda: next(trainer.feed([batch]))):
        with pytest.raises(DataError, match=TOO_SMALL) as caught:
            bring()
        assert failure_kind(caught.value) == "error"
    monkeypatch.undo()
    trainer.keep(held)


PLACES = {"gluon": "gluon_trainer._to", "torch": "torch_feed._tensor"}
TOO_SMALL = (
    r"dataset\.resident=true: the images take 0\.00 GB and the device has [\d.,]+ GB free; "
    r"use dataset\.resident=false or fewer images"
)


@pytest.mark.gluon
def test_images_that_mxnet_cannot_address_are_refused_at_once(monkeypatch):
    from energybench.errors import DataError
    from energybench.images import Held

    monkeypatch.setattr("energybench_plugins.engines.gluon_trainer.LARGEST", 90)
    with pytest.raises(DataError, match=r"fewer than 2\^31 elements; use engine=torch"):
        small_trainer("gluon").keep(Held(np.zeros((1, 3, 6, 5), np.uint8)))


@pytest.mark.torch
def test_batches_that_stay_are_counted_as_they_lie_there(monkeypatch):
    """Bytes become floats, which take four times as much."""
    torch = pytest.importorskip("torch")

    from energybench.images import Normalisation, PixelBatch
    from energybench_plugins.engines import torch_feed

    pixels, normalisation = np.zeros((4, 1, 5, 5), np.uint8), Normalisation((0.3,), (0.2,))
    batches = [PixelBatch(pixels, np.zeros(4, np.int64), normalisation, key, channels=3) for key in "abc"]
    for dtype, item_bytes in ((torch.float32, 4), (torch.bfloat16, 2)):
        feed = torch_feed.Feed(torch_feed.Layout(torch.device("cpu"), dtype, torch.contiguous_format))
        monkeypatch.setattr(torch_feed, "RESIDENT_BYTES", 2 * 100 * item_bytes + 99)
        assert [staged.key is not None for staged in feed(batches)] == [True, True, False]


@pytest.mark.parametrize("missing", [["mxnet"], ["mxnet", "torch"]])
def test_engines_that_are_not_installed_are_left_out(monkeypatch, missing):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    if importlib.util.find_spec("torch"):
        assert fed_by.engines() == [fed_by.torch]
    else:
        with pytest.raises(pytest.skip.Exception):
            fed_by.engines()


def seen(batch):
    for fed in fed_by.engines():
        for images, _ in fed([batch]):
            yield images
