"""The torch engine on a real GPU: recorded steps are the steps, and a run is measured. Needs a GPU."""

from __future__ import annotations

import importlib.util
import time
import warnings
from contextlib import contextmanager

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("needs PyTorch: pip install 'energybench[torch]'", allow_module_level=True)

import torch

if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU and a CUDA build of PyTorch", allow_module_level=True)

from torch_runs import assert_near, batches, gpu, parameters, prepare, step, trained, trainer_of
from views import Silent

from energybench.dataset import Consumer
from energybench.images import EncodedBatch, Held, HeldBatch, Normalisation, PixelBatch
from energybench.registry import Registry
from energybench.run.execute import Place, execute
from energybench.run.preflight import Machine
from energybench.run.preflight import prepare as plan
from energybench_plugins.datasets.imagenet import Imagenet, ImagenetOptions
from energybench_plugins.engines.torch_decode import Decoding, decoder
from energybench_plugins.engines.torch_feed import SLOTS, Feed, Layout
from energybench_plugins.engines.torch_wait import Waits

pytestmark = pytest.mark.gpu

CNN2D = {"model": {"name": "cnn2d"}, "dataset": {"name": "synthetic", "classes": 155, "images": 64}, "batch": 16}
SHAPE = {"size": 16, "shape": (50, 60, 60), "classes": 155}
NORMALISATION = Normalisation((0.4,), (0.2,))


def on_gpu(graph=True, compile="none", half=False, **sections):
    engine = {"name": "torch", "graph": graph, "compile": compile, "half_weights": half}
    trainer = trainer_of(gpu(), **{"engine": engine, **sections})
    shape = SHAPE if sections.get("model") else {}
    names = list(prepare(trainer, **shape))
    assert names == ["compile"] * (compile != "none") + ["capture"] * bool(graph)
    return trainer


@pytest.mark.parametrize("optimizer", ["sgd", "nag", "adam", "lars"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_recorded_step_is_the_step(optimizer, accumulate):
    recipe = {"training": {"optimizer": optimizer, "accumulate": accumulate, "mixup": 0.2, "weight_decay": 1e-3}}
    eager, recorded = on_gpu(graph=False, **recipe), on_gpu(**recipe)
    assert_near(parameters(recorded), parameters(eager), 0)
    for trainer in (eager, recorded):
        step(trainer, batches(5), lr=0.003)
        step(trainer, batches(5), lr=0.001)
    if optimizer == "adam":  # makes steps of one size of gradients that are next to none, and so of rounding
        found = parameters(recorded)
        for name, value in parameters(eager).items():
            near = np.abs(found[name] - value) <= 1e-3 * np.abs(value).max()
            assert (~near).sum() <= max(1, near.size // 50), name
        assert_near(found, parameters(eager), 1.0)
    else:
        assert_near(parameters(recorded), parameters(eager), 1e-3)
    assert recorded.take_loss() == pytest.approx(eager.take_loss(), rel=1e-3)


@pytest.mark.parametrize("compile", ["none", "default"])
def test_recorded_passes_on_a_copy_of_the_weights_in_half_make_the_step_of_casts(compile):
    copied, cast = (on_gpu(precision="bf16", half=half, compile=compile) for half in (True, False))
    for trainer in (copied, cast):
        step(trainer, batches(5), lr=0.003)
    assert_near(parameters(copied), parameters(cast), 1e-2)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("compile", ["none", "default"])
def test_every_precision_learns_by_recorded_steps(precision, compile, tmp_path):
    engine = {"name": "torch", "compile": compile}
    ended = trained(tmp_path, gpu(), engine=engine, precision=precision, budget={"epochs": 4})
    losses = [values["loss"] for phase, _, values in ended if phase == "train"]
    assert losses[-1] < 0.6 * losses[0]
    assert ended[-1][2]["accuracy_top1"] > 0.8


def test_preparing_and_warming_up_change_nothing():
    trainer = on_gpu(**CNN2D)
    before = trainer.state()
    trainer.warm_up(batches(3, **SHAPE), batches(1, **SHAPE))
    after = trainer.state()
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


def test_dropout_is_drawn_anew_in_each_replay_and_again_by_the_epoch():
    trainer = on_gpu(**CNN2D, training={"lr": 1e-30})
    [batch] = list(trainer.feed(batches(1, **SHAPE)))

    def losses():
        trainer.begin_epoch(1, 1e-30)
        found = []
        for _ in range(3):
            trainer.step(batch)
            trainer.synchronize()
            found.append(trainer._step.last.item())
        return found

    first = losses()
    assert len(set(first)) == 3
    assert losses() == pytest.approx(first, rel=1e-5)


@contextmanager
def unsynchronised():
    """Whatever makes the host wait for the device raises."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode")
        try:
            torch.cuda.set_sync_debug_mode("error")
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_step_neither_waits_nor_allocates():
    trainer = on_gpu(**CNN2D)
    given = list(trainer.feed(batches(3, **SHAPE)))[:1]
    trainer.begin_epoch(1, 0.01)
    trainer.step(given[0])
    trainer.synchronize()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    with unsynchronised():
        for _ in range(20):
            trainer.step(given[0])
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before


def test_batches_that_are_copied_beside_the_steps_arrive_whole():
    """As many as pass through all slots several times; with lr 0 the loss of each tells which it was."""
    trainer = on_gpu(training={"lr": 1e-30, "weight_decay": 0.0})
    given = list(batches(20))
    expected = []
    for batch in given:
        expected.append(trainer.evaluate(trainer.feed([batch])).loss)
    trainer.begin_epoch(1, 1e-30)
    for batch in trainer.feed(given):
        trainer.step(batch)
    assert trainer.take_loss() == pytest.approx(np.mean(expected), rel=1e-4)


def test_a_run_is_measured_phase_by_phase(tmp_path):
    from torch_runs import experiment

    chosen = experiment(
        **{**CNN2D, "dataset": {"name": "synthetic", "classes": 155, "images": 10**6}},
        gpu={"name": "auto"}, meter={"name": "nvml"}, precision="bf16", budget={"epochs": None, "seconds": 3.0},
    )  # fmt: skip
    result = execute(plan(chosen, Machine(Registry())), Place(tmp_path), Silent())
    assert result.status == "finished", result.failure
    assert [phase.name for phase in result.phases] == ["load", "capture", "train"]
    assert result.metrics["energy_j"] > 0
    assert result.metrics["capture.energy_j"] > 0
    assert result.metrics["gflops_per_w"] > 0
    assert result.provenance["engine"]["graph"] == "yes"


class TestWaitingForData:
    """The clock of the device against what the host did."""

    def waited(self, cycles, host_s, steps=6):
        """Seconds counted where each step works for so many cycles and each batch is late by `host_s`."""
        waits = Waits(torch.device("cuda", 0))

        def batches():
            for _ in range(steps):
                time.sleep(host_s)
                yield "batch"

        torch.cuda.synchronize()
        waits.restart()
        for _ in waits.timed(batches()):
            waits.arrived(waits.begins(copied=False))
            torch.cuda._sleep(cycles)
            waits.ended()
        torch.cuda.synchronize()
        return waits.total_s()

    def test_a_device_that_is_done_waits_as_long_as_the_host(self):
        assert 0.9 * 6 * 0.05 < self.waited(1000, 0.05) < 6 * 0.1

    def test_a_device_that_works_does_not(self):
        assert self.waited(400_000_000, 0.005) < 0.02  # 0.2 s of work a step; the first batch alone is waited for

    @pytest.mark.parametrize("last", [False, True])
    def test_bytes_are_normalised_on_the_device(self, last):
        random = np.random.default_rng(0)
        shape = (8, 6, 5, 3) if last else (8, 3, 6, 5)
        pixels = random.integers(0, 256, shape, np.uint8)
        batch = PixelBatch(
            pixels.transpose(0, 3, 1, 2) if last else pixels, np.arange(8), Normalisation((0.4,) * 3, (0.2,) * 3)
        )
        layout = Layout(torch.device("cuda", 0), torch.float32, torch.channels_last)
        buffers = layout.buffers(8, (3, 6, 5))
        for staged in Feed(layout)([batch] * 5):
            buffers.take(staged)
        np.testing.assert_allclose(buffers.images.cpu().numpy(), batch.images, atol=1e-5)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("late", ["steps", "copies"])
def test_images_that_the_device_keeps_are_taken_there(last, channels, late):
    """While it is behind, in its steps or in its copies: memory in which numbers come is used again and again."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (50, 6, 5, channels) if last else (50, channels, 6, 5), np.uint8)
    held = Held(pixels.transpose(0, 3, 1, 2) if last else pixels)
    batches = [
        HeldBatch(held, random.permutation(50)[:8], None, 8 * number + np.arange(8), NORMALISATION, channels=3)
        for number in range(4 * SLOTS)
    ]
    layout = Layout(torch.device("cuda", 0), torch.float32, torch.channels_last)
    taken, feed = [layout.buffers(8, (3, 6, 5)) for _ in batches], Feed(layout)
    feed.keep(held)
    for staged, buffers in zip(feed(batches), taken, strict=True):
        with torch.cuda.stream(torch.cuda.current_stream() if late == "steps" else staged.slot._stream):
            torch.cuda._sleep(20_000_000)  # about 10 ms
        buffers.take(staged)
    torch.cuda.synchronize()
    for buffers, batch in zip(taken, batches, strict=True):
        np.testing.assert_allclose(buffers.images.cpu().numpy(), batch.images, atol=1e-5)
        assert buffers.labels.tolist() == batch.labels.tolist()


def test_files_are_decoded_on_the_device_as_on_the_host(tmp_path):
    decode = decoder(torch.device("cuda", 0))
    if decode is None:
        pytest.skip("needs a torchvision with nvJPEG")
    cv2 = pytest.importorskip("cv2")
    for label in range(2):
        (tmp_path / "train" / str(label)).mkdir(parents=True)
        for number in range(4):
            rows, columns = np.mgrid[:200, :300]
            picture = np.stack([rows, columns * 0.8, np.full_like(rows, 60 * number)], 2).astype(np.uint8)
            cv2.imwrite(str(tmp_path / "train" / str(label) / f"{number}.jpg"), picture)

    def batches(**options):
        data = Imagenet(ImagenetOptions(str(tmp_path), workers=2, **options)).open((3, 64, 64), 0)
        data.adapt(Consumer(kinds=(EncodedBatch,)))
        return list(data.batches("train", 8, 1))

    layout = Layout(torch.device("cuda", 0), torch.float32, torch.contiguous_format)
    buffers = layout.buffers(8, (3, 64, 64))
    [staged] = Feed(layout, decoding=Decoding(decode, torch.device("cuda", 0)))(batches(decode="gpu"))
    assert staged.slot is not None
    buffers.take(staged)
    [host] = batches(decode="cpu")
    difference = np.abs(buffers.images.cpu().numpy() - host.images)
    assert difference.mean() < 0.03  # of a standard deviation: two decoders, and what they do where images shrink
