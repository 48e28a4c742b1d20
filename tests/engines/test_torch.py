"""Training with PyTorch on the CPU: it learns, repeats, goes on from a checkpoint, and says what it cannot do."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import subprocess
import sys
import weakref

import numpy as np
import pytest
from omegaconf import OmegaConf
from views import Silent

if importlib.util.find_spec("torch") is None:
    pytest.skip("needs PyTorch: pip install 'energybench[torch]'", allow_module_level=True)

import torch
from torch_runs import assert_near, batches, endless, experiment, parameters, step, trained, trainer_of

from energybench.cli import main
from energybench.config import make
from energybench.devices import Device, cpu_device
from energybench.errors import ConfigError, DataError
from energybench.registry import Registry
from energybench.run import checkpoint
from energybench.run.execute import Place, execute
from energybench.run.preflight import Machine, prepare
from energybench.run.result import Result
from energybench_plugins.engines.torch import TorchEngine
from energybench_plugins.engines.torch_options import TorchOptions

pytestmark = pytest.mark.torch

PASCAL = Device("gpu", "GPU-1", "TITAN X", "pascal", rank=61)
HOPPER = Device("gpu", "GPU-2", "H100", "hopper", rank=90)


def told(ended, phase, key):
    return [values[key] for name, _, values in ended if name == phase]


def test_it_learns_and_one_seed_gives_one_result(tmp_path):
    first = trained(tmp_path)
    assert told(first, "train", "loss")[-1] < 0.5 * told(first, "train", "loss")[0]
    assert told(first, "validate", "accuracy_top1")[-1] > 0.8
    assert told(first, "validate", "accuracy_top5")[-1] > 0.98
    assert trained(tmp_path) == first
    assert told(trained(tmp_path, seed=1), "train", "loss") != told(first, "train", "loss")


@pytest.mark.parametrize("optimizer", ["sgd", "nag", "adam", "lars"])
def test_one_kernel_or_one_a_parameter_makes_the_same_update(optimizer):
    recipe = {"training": {"optimizer": optimizer, "weight_decay": 1e-3}}
    fused, plain = (trainer_of(engine={"name": "torch", "fused": fused}, **recipe) for fused in (True, False))
    for trainer in (fused, plain):
        step(trainer, batches(3), lr=0.003)
    assert_near(parameters(fused), parameters(plain), 1e-5)


def test_accumulated_parts_make_the_step_of_the_whole_batch():
    whole, parts = trainer_of(), trainer_of(training={"accumulate": 4})
    for trainer in (whole, parts):
        step(trainer, batches(3))
    assert_near(parameters(parts), parameters(whole), 1e-5)
    assert parts.take_loss() == pytest.approx(whole.take_loss(), rel=1e-5)


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_order_in_memory_changes_no_result(channels_last):
    trainer, plain = trainer_of(engine={"name": "torch", "channels_last": channels_last}), trainer_of()
    for one in (trainer, plain):
        step(one, batches(3))
    assert_near(parameters(trainer), parameters(plain), 1e-4)
    weight = trainer.net[2].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert trainer.environment()["channels_last"] == ("yes" if channels_last else "no")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_with_its_weights_in_full(precision):
    trainer = trainer_of(precision=precision)
    assert {parameter.dtype for parameter in trainer.net.parameters()} == {torch.float32}
    given = list(batches(1))
    losses = []
    for _ in range(12):
        step(trainer, given, lr=0.02)
        losses.append(trainer.take_loss())
    assert losses[-1] < 0.8 * losses[0]
    assert ("scaler/scale" in trainer.state()) == (precision == "fp16")


def test_fp16_leaves_out_a_step_that_overflows_and_lowers_its_scale():
    trainer = trainer_of(precision="fp16")
    before, scale = parameters(trainer), trainer.state().get("scaler/scale")
    [batch] = batches(1)
    step(trainer, [type(batch)(batch.images * 1e30, batch.labels)])
    after = trainer.state()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    assert float(after["scaler/scale"]) < (65536.0 if scale is None else float(scale))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_passes_on_a_copy_of_the_weights_in_half_make_the_step_of_casts(optimizer):
    engine, recipe = {"name": "torch", "half_weights": True}, {"training": {"optimizer": optimizer}}
    networks = ({"model": {"name": "lenet"}}, {"model": {"name": "resnetim", "input_size": 32}, "batch": 8})
    for network in networks:
        sections = {"precision": "bf16", **recipe, **network}
        copied, cast = trainer_of(engine=engine, **sections), trainer_of(**sections)
        shape = {} if network is networks[0] else {"size": 8, "shape": (3, 32, 32)}
        for trainer in (copied, cast):
            step(trainer, batches(3, **shape), lr=0.003)
        assert_near(parameters(copied), parameters(cast), 1e-5)
        assert copied.state().keys() == cast.state().keys()
        assert copied.environment()["half_weights"] == "yes"


def test_what_is_put_back_reaches_the_copy_in_half():
    engine = {"name": "torch", "half_weights": True}
    first, other = (trainer_of(engine=engine, precision="bf16", seed=seed) for seed in (0, 1))
    step(first, batches(2))
    other.restore(first.state())
    for trainer in (first, other):
        step(trainer, batches(2))
    assert_near(parameters(other), parameters(first), 1e-6)


@pytest.fixture
def uncompiled():
    """torch.compile without its compiler, which takes minutes on a CPU; the tests on a GPU compile."""
    with torch.compiler.set_stance("force_eager"):
        yield


def test_compiled_it_computes_the_same_and_compiling_is_a_phase_that_changes_nothing(uncompiled):
    small = {"model": {"name": "lenet"}, "batch": 4, "measure": {"warmup_steps": 0}}
    compiled = trainer_of(engine={"name": "torch", "compile": "default"}, **small)
    plain, before = trainer_of(**small), compiled.state()
    [(name, work)] = compiled.preparations().items()
    assert name == "compile"
    work(endless(4), iter(()))
    for key, value in before.items():
        np.testing.assert_array_equal(compiled.state()[key], value, err_msg=key)
    for trainer in (compiled, plain):
        step(trainer, batches(2, 4))
    assert_near(parameters(compiled), parameters(plain), 1e-4)
    assert (compiled.environment()["compile"], compiled.environment()["compile_cache"]) == ("default", "cold")


def test_warming_up_changes_nothing():
    trainer = trainer_of(training={"optimizer": "adam"}, precision="fp16")
    step(trainer, batches(2))
    before = trainer.state()
    trainer.take_loss()
    trainer.warm_up(batches(3), batches(1))
    after = trainer.state()
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    assert trainer.recent_loss() is None


def test_a_run_goes_on_from_a_checkpoint_as_if_it_had_not_been_interrupted(tmp_path):
    whole = trained(tmp_path, budget={"epochs": 3}, training={"optimizer": "adam", "mixup": 0.2})
    sections = {"training": {"optimizer": "adam", "mixup": 0.2}}
    trained(tmp_path, budget={"epochs": 2}, checkpoint={"every_epochs": 2}, **sections)
    saved = tmp_path / "checkpoint.npz"
    state, _ = checkpoint.load(saved)
    assert "optimizer/0.weight/exp_avg" in state
    rest = trained(tmp_path, budget={"epochs": 3}, checkpoint={"resume": str(saved)}, **sections)
    assert rest == [part for part in whole if part[1] == 3]


def test_a_checkpoint_of_another_network_or_optimiser_is_refused():
    trainer, other = trainer_of(), trainer_of(training={"optimizer": "adam"})
    with pytest.raises(DataError, match="it holds no fitting state optimizer/"):
        other.restore(trainer.state())
    with pytest.raises(DataError, match=r"parameter 0\.weight of shape none"):
        trainer.restore({})


def test_a_step_of_the_cpu_allocates_no_new_gradients_for_the_batch():
    """Batches that come again stay where they are; the static batch is filled in place."""
    trainer = trainer_of()
    given = list(trainer.feed(batches(2)))
    places = trainer._buffers.images.data_ptr(), trainer._step.loss.data_ptr()
    trainer.begin_epoch(1, 0.01)
    for batch in given * 3:
        trainer.step(batch)
    assert (trainer._buffers.images.data_ptr(), trainer._step.loss.data_ptr()) == places


# What is refused, and what is left to the device.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"compile": "fast"}, "engine.compile=fast: give one of none, default"),
        ({"compile": "max-autotune", "graph": True}, "records CUDA graphs of its own"),
        ({"bucket_mb": 0}, "engine.bucket_mb=0"),
        ({"compile_options": {"max_autotune": True}}, "engine.compile_options: max_autotune of what is not compiled"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        TorchOptions(**options)


@pytest.mark.parametrize(
    ("options", "sections", "device", "words"),
    [
        ({}, {"precision": "tf32"}, cpu_device(), "precision=tf32: the CPU has no such arithmetic"),
        ({}, {"precision": "bf16"}, PASCAL, "precision=bf16: TITAN X has compute capability 6.1, and it takes 8.0"),
        ({"graph": True}, {}, cpu_device(), "CUDA graphs are for GPUs"),
        ({"graph": True, "fused": False}, {}, HOPPER, "engine.fused=false: sgd then reads its learning rate"),
        ({"half_weights": True}, {}, HOPPER, "engine.half_weights=true: precision=fp32 has none"),
        (
            {"half_weights": True},
            {"precision": "bf16", "training": {"accumulate": 2}},
            HOPPER,
            "training.accumulate=2 parts would be added up in bf16",
        ),
    ],
)
def test_what_the_device_cannot_do_is_refused(options, sections, device, words):
    with pytest.raises(ConfigError, match=words):
        TorchEngine(TorchOptions(**options)).validate(experiment(**sections), [device])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"coordinate_tuning": True}, "engine.compile_options.coordinate_tuning: torch .* has no such option"),
        ({"max_autotune": "yes"}, "engine.compile_options.max_autotune=yes: give a value of type bool, as False"),
    ],
)
def test_the_compiler_s_options_are_checked_before_it_works(options, words):
    with pytest.raises(ConfigError, match=words):
        trainer_of(engine={"name": "torch", "compile": "default", "compile_options": options})


def test_the_compiler_s_options_go_on_top_of_its_mode(monkeypatch):
    given = {}
    monkeypatch.setattr(torch, "compile", lambda module, **options: given.update(options) or module)
    mode = "max-autotune-no-cudagraphs"
    trainer_of(engine={"name": "torch", "compile": mode, "compile_options": {"max_autotune_pointwise": True}})
    known = torch._inductor.list_mode_options(mode)
    assert known
    assert given == {"options": {**known, "max_autotune_pointwise": True}, "dynamic": False}


@pytest.mark.parametrize("tries", [True, False])
def test_whether_cudnn_tries_its_ways_is_an_option(tries, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", not tries)
    trainer_of(engine={"name": "torch", "cudnn_benchmark": tries})
    assert torch.backends.cudnn.benchmark == tries


class Remains:
    """Refers to itself, as what of a network's training is left may: only collecting garbage destroys it."""

    def __init__(self):
        self.itself = self


@pytest.mark.parametrize("fails", [False, True])
def test_no_garbage_is_collected_while_a_step_is_recorded(fails, monkeypatch):
    seen = []

    @contextlib.contextmanager
    def capturing(graph, pool, stream, capture_error_mode):
        seen.append((remains() is None, gc.isenabled(), capture_error_mode))
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    step = trainer_of()._step
    gc.disable()
    remains = weakref.ref(Remains())
    gc.enable()
    if fails:
        monkeypatch.setattr(step, "run", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
        step.record("stream")
    assert seen == [(True, False, "thread_local")]
    assert step.recorded != fails
    assert gc.isenabled()


def test_choices_left_open_follow_the_device_and_the_precision():
    options = TorchOptions()
    assert options.graphs(HOPPER)
    assert not options.graphs(cpu_device())
    assert not TorchOptions(compile="reduce-overhead").graphs(HOPPER)
    assert [options.last(HOPPER, precision) for precision in ("fp32", "tf32", "bf16")] == [False, True, True]
    assert not options.last(PASCAL, "fp16")


def test_a_gpu_is_refused_by_the_cpu_build():
    if torch.version.cuda is not None:
        pytest.skip("needs the CPU build of PyTorch")
    assert "CPU build" in TorchEngine(TorchOptions()).refuses(HOPPER)
    assert TorchEngine(TorchOptions()).refuses(cpu_device()) is None


def test_doctor_says_that_it_runs():
    engine = TorchEngine(TorchOptions())
    assert engine.check().ok
    found = engine.probe()
    assert found.ok, found
    assert torch.__version__.partition("+")[0] in found.detail


# Whole runs.


def test_the_command_trains_and_each_option_is_recorded(tmp_path):
    words = ["model=lenet", "engine=torch", "gpu=cpu", "meter=tdp", "tracking=none", "budget.epochs=2", "batch=128"]
    assert main([*words, "precision=bf16", "measure.baseline_s=0", f"hydra.run.dir={tmp_path}"]) == 0
    result = Result.read(tmp_path / "result.json")
    assert result.tags["engine"] == "torch"
    assert result.metrics["accuracy_top1"] > 0.5
    assert result.metrics["gflops_per_w"] > 0
    environment = result.provenance["engine"]
    known = {"graph": "no", "compile": "none", "fused": "yes", "processes": "1", "torch_device": "cpu"}
    assert known.items() <= environment.items()


def whole(tmp_path, **sections):
    config = {"meter": {"name": "tdp"}, "dataset": {"name": "synthetic", "classes": 10, "images": 256}, **sections}
    chosen = experiment(**OmegaConf.to_container(OmegaConf.create(config)))
    return execute(prepare(chosen, Machine(Registry())), Place(tmp_path), Silent())


def test_two_processes_make_the_run_of_one(tmp_path):
    """gpu.count=2 on the CPU: DistributedDataParallel over gloo; batch is that of both."""
    data = {"dataset": {"name": "digits"}, "budget": {"epochs": 2}}
    one = trained(tmp_path, **data)
    result = whole(tmp_path, gpu={"name": "cpu", "count": 2}, **data)
    assert result.status == "finished", result.failure
    assert result.provenance["engine"]["processes"] == "2"
    assert (tmp_path / "worker-1.err").exists()
    trainings = [phase for phase in result.phases if phase.name == "train"]
    losses = [phase.values["loss"] for phase in trainings]
    expected = told(one, "train", "loss")
    assert losses[0] == pytest.approx(expected[0], rel=1e-3)
    assert losses[1] == pytest.approx(expected[1], rel=0.03)  # rounding, grown by 22 steps
    assert [phase.values["images"] for phase in trainings] == told(one, "train", "images")
    assert result.metrics["accuracy_top1"] == pytest.approx(told(one, "validate", "accuracy_top1")[-1], abs=0.01)


DYING = """
import os, sys
from energybench_plugins.engines import torch_trainer
from energybench.run import worker

def step(self, batch, take=torch_trainer.TorchTrainer.step):
    if self._task.rank == 1 and self._steps == 3:
        os._exit(7)
    take(self, batch)

torch_trainer.TorchTrainer.step = step
"""


def test_a_rank_that_dies_ends_the_run(tmp_path, monkeypatch):
    """The other waits for it in an all-reduce; nothing is left behind."""
    (tmp_path / "dying.py").write_text(DYING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("ENERGYBENCH_PLUGINS", "dying")
    budget = {"epochs": None, "seconds": 60.0}
    run = tmp_path / "run"
    run.mkdir()
    result = whole(run, gpu={"name": "cpu", "count": 2}, budget=budget, dataset={"name": "synthetic", "classes": 10})
    assert result.status == "failed"
    assert result.failure.kind in ("crashed", "killed")
    assert result.metrics.get("time_s", 0) < 60


OUT_OF_MEMORY = """
import resource, sys
sys.path[:0] = {path!r}
from torch_runs import Told, experiment
from energybench.devices import cpu_device
from energybench.run import worker
from energybench.run.assignment import Assignment
from energybench.run.worker import Loop

chosen = experiment(dataset={{"name": "synthetic", "classes": 10, "images": 20000}}, batch=20000)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 900 * 1024**2,) * 2)
try:
    Loop(Assignment(chosen, (cpu_device(),), 0, 1, {directory!r}), Told()).run()
except Exception as error:
    print(worker.failure_kind(error), worker._message(error), sep="|")
"""


def test_a_batch_that_does_not_fit_is_told_with_the_largest_that_would(tmp_path):
    """In a process that may take 900 MiB more."""
    program = OUT_OF_MEMORY.format(path=sys.path, directory=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    kind, _, words = done.stdout.strip().partition("|")
    assert kind == "out_of_memory", done.stderr
    assert "batch=20000 does not fit" in words
    fits = int(words.rpartition("largest that fits is about ")[2].split()[0])
    assert 500 < fits < 20000


def test_the_trainer_is_made_by_the_engine():
    chosen = experiment()
    assert type(make(Registry(), "engine", chosen.engine)).__name__ == "TorchEngine"
