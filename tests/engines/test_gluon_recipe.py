"""The recipe's parts with Gluon on the CPU, each against what it should do. Needs MXNet."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

from energybench.errors import ConfigError, DataError

if importlib.util.find_spec("mxnet") is None:
    pytest.skip("needs MXNet: pip install 'energybench[gluon]'", allow_module_level=True)

from gluon_runs import batches, experiment, step, trained, trainer_of

from energybench.devices import Device, cpu_device
from energybench_plugins.engines.gluon import GluonEngine
from energybench_plugins.engines.gluon_options import GluonOptions

pytestmark = pytest.mark.gluon

CNN2D = {"model": {"name": "cnn2d"}, "dataset": {"name": "synthetic", "classes": 155, "images": 8}}


def parameters(trainer):
    return {name: array for name, array in trainer.state().items() if name.startswith("parameters/")}


def assert_equal(left, right, rtol=1e-5, atol=1e-6):
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_allclose(left[name], right[name], rtol=rtol, atol=atol, err_msg=name)


@pytest.mark.parametrize("kvstore", ["device", "local"])
@pytest.mark.parametrize("contexts", [2, 4])
def test_weights_after_a_step_of_several_devices_equal_those_of_one(contexts, kvstore):
    engine = {"name": "gluon", "kvstore": kvstore}
    one, several = trainer_of(1, engine=engine), trainer_of(contexts, engine=engine)
    before = parameters(one)
    assert_equal(before, parameters(several), rtol=0, atol=0)
    for trainer in (one, several):
        step(trainer, batches(1))
    for name, array in parameters(one).items():
        # The gradient is what the step changed: it is compared, not the far larger weight.
        change, other = array - before[name], parameters(several)[name] - before[name]
        np.testing.assert_allclose(other, change, rtol=1e-4, atol=1e-7, err_msg=name)


def test_gradients_of_several_devices_equal_those_of_one():
    from energybench_plugins.engines.gluon_blocks import mx

    def summed(contexts):
        trainer = trainer_of(contexts)
        with_gradients = next(iter(trainer.feed(batches(1))))
        trainer.begin_epoch(1, 0.05)
        for shards in with_gradients:
            trainer._backward(shards)
        mx.nd.waitall()
        return {
            name: sum(gradient.asnumpy().astype(np.float64) for gradient in parameter.list_grad())
            for name, parameter in trainer.net.collect_params().items()
        }

    one, four = summed(1), summed(4)
    for name in one:
        scale = np.abs(one[name]).max()
        np.testing.assert_allclose(four[name], one[name], rtol=1e-5, atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize("optimizer", ["sgd", "nag", "adam", "lars"])
def test_every_optimizer_moves_the_weights_and_lowers_the_loss(optimizer, tmp_path):
    lr = {"adam": 0.001, "lars": 1.0}.get(optimizer, 0.01)
    ended = trained(tmp_path, training={"optimizer": optimizer, "lr": lr}, budget={"epochs": 3})
    losses = [values["loss"] for phase, _, values in ended if phase == "train"]
    assert losses[-1] < 0.7 * losses[0]


def test_nesterov_is_not_plain_momentum():
    sgd, nag = (trainer_of(training={"optimizer": name}) for name in ("sgd", "nag"))
    for trainer in (sgd, nag):
        step(trainer, batches(3))
    weight = "parameters/0.weight"
    assert not np.allclose(sgd.state()[weight], nag.state()[weight], rtol=1e-4)


@pytest.mark.parametrize("contexts", [1, 2])
def test_accumulated_parts_give_the_step_of_the_whole_batch(contexts):
    whole, parts = trainer_of(contexts), trainer_of(contexts, training={"accumulate": 4})
    for trainer in (whole, parts):
        step(trainer, batches(3))
    assert_equal(parameters(whole), parameters(parts), rtol=1e-4, atol=1e-5)


def test_label_smoothing_is_the_cross_entropy_of_smoothed_targets():
    from energybench_plugins.engines.gluon_blocks import mx
    from energybench_plugins.engines.gluon_trainer import SmoothedLoss

    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(8, 10)).astype(np.float32), random.integers(0, 10, 8)
    targets = np.full((8, 10), 0.1 / 10)
    targets[np.arange(8), labels] += 0.9
    logarithms = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -(targets * logarithms).sum(axis=1)
    found = SmoothedLoss(0.1)(mx.nd.array(logits), mx.nd.array(labels))
    np.testing.assert_allclose(found.asnumpy(), expected, rtol=1e-5)


def test_mixup_mixes_by_seed_and_epoch():
    plain, one, same, other = (
        trainer_of(training={"mixup": alpha}, seed=seed) for alpha, seed in ((0, 0), (0.4, 0), (0.4, 0), (0.4, 1))
    )
    assert_equal(parameters(plain), parameters(one), rtol=0, atol=0)
    other.restore(one.state())  # the same weights, another seed
    for trainer in (plain, one, same, other):
        step(trainer, batches(2))
    assert_equal(parameters(one), parameters(same), rtol=0, atol=0)
    weight = "parameters/0.weight"
    assert not np.allclose(plain.state()[weight], one.state()[weight], rtol=1e-4)
    assert not np.allclose(other.state()[weight], one.state()[weight], rtol=1e-4)


def test_the_loss_of_a_mixed_batch_is_the_mixed_loss():
    trainer = trainer_of()
    images, labels = next(iter(trainer.feed(batches(1))))[0][0]
    mixed = images * 0.3 + images.flip(axis=0) * 0.7
    expected = trainer._loss(trainer.net(mixed), labels) * 0.3 + trainer._loss(trainer.net(mixed), labels.flip(0)) * 0.7
    np.testing.assert_allclose(trainer._mixed_loss(images, labels, 0.3).asnumpy(), expected.asnumpy(), rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, optimizer):
    recipe = {"training": {"optimizer": optimizer, "lr": 0.001, "schedule": "plateau", "patience": 0, "mixup": 0.2}}
    whole, first, second = (tmp_path / name for name in ("whole", "first", "second"))
    trained(whole, budget={"epochs": 3}, checkpoint={"every_epochs": 3}, **recipe)
    trained(first, budget={"epochs": 2}, checkpoint={"every_epochs": 2}, **recipe)
    resume = {"every_epochs": 1, "resume": str(first / "checkpoint.npz")}
    ended = trained(second, budget={"epochs": 3}, checkpoint=resume, **recipe)
    assert [epoch for phase, epoch, _ in ended if phase == "train"] == [3]
    with np.load(whole / "checkpoint.npz") as uninterrupted, np.load(second / "checkpoint.npz") as resumed:
        assert set(uninterrupted.files) == set(resumed.files)
        for name in uninterrupted.files:
            if name != "energybench.json":
                np.testing.assert_array_equal(uninterrupted[name], resumed[name], err_msg=name)
        done = [json.loads(file["energybench.json"].tobytes()) for file in (uninterrupted, resumed)]
    assert done[0]["steps"] == done[1]["steps"]
    assert done[0]["schedule"] == done[1]["schedule"]


def test_dropout_after_a_resume_is_that_of_the_uninterrupted_run(tmp_path):
    shared = {**CNN2D, "batch": 8, "measure": {"baseline_s": 0.0, "warmup_steps": 0, "validate": False}}
    trained(tmp_path / "whole", budget={"epochs": 2}, checkpoint={"every_epochs": 2}, **shared)
    trained(tmp_path / "first", budget={"epochs": 1}, checkpoint={"every_epochs": 1}, **shared)
    resume = {"every_epochs": 1, "resume": str(tmp_path / "first" / "checkpoint.npz")}
    trained(tmp_path / "second", budget={"epochs": 2}, checkpoint=resume, **shared)
    whole, second = (np.load(tmp_path / name / "checkpoint.npz") for name in ("whole", "second"))
    for name in whole.files:
        if name.startswith("parameters/"):
            np.testing.assert_array_equal(whole[name], second[name], err_msg=name)


def test_a_checkpoint_of_another_network_or_optimizer_is_refused(tmp_path):
    trained(tmp_path, budget={"epochs": 1}, checkpoint={"every_epochs": 1})
    resume = {"resume": str(tmp_path / "checkpoint.npz")}
    with pytest.raises(DataError, match="optimizer"):
        trained(tmp_path, checkpoint=resume, training={"optimizer": "adam"})
    with pytest.raises(DataError, match="'lenet', not 'cnn2d'"):
        trained(tmp_path, checkpoint=resume, **CNN2D)
    with pytest.raises(DataError, match=r"parameter .* of shape"):
        trained(tmp_path, checkpoint=resume, model={"name": "lenet", "input_size": 32})


def test_training_ends_at_the_target_accuracy(tmp_path):
    ended = trained(tmp_path, budget={"epochs": 20, "target_accuracy": 0.9}, training={"lr": 0.02})
    accuracies = [values["accuracy_top1"] for phase, _, values in ended if phase == "validate"]
    assert accuracies[-1] >= 0.9
    assert all(accuracy < 0.9 for accuracy in accuracies[:-1])


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"precision": "fp16"}, "use fp32, or a GPU"),
        ({"precision": "bf16"}, "use engine=torch"),
        ({"engine": {"name": "gluon", "kvstore": "nccl"}}, "use device or local"),
    ],
)
def test_what_the_cpu_cannot_do_is_refused_before_the_run(sections, words):
    chosen = experiment(**sections)
    engine = GluonEngine(GluonOptions(**chosen.engine.options))
    with pytest.raises(ConfigError, match=words):
        engine.validate(chosen, [cpu_device()])


def test_fp16_is_taken_on_a_gpu():
    card = Device("gpu", "GPU-1", "TITAN X (Pascal)", "pascal", 61)
    GluonEngine(GluonOptions()).validate(experiment(precision="fp16"), [card])


def test_the_loss_scaler_halves_its_scale_and_skips_the_step_when_a_gradient_overflows():
    """The half-precision path's scaler on float32 weights, which the CPU can multiply."""
    from energybench_plugins.engines.gluon_trainer import amp, mx

    trainer = trainer_of()
    gluon = trainer.trainer
    gluon._amp_loss_scaler, gluon._amp_original_scale = amp.loss_scaler.LossScaler(), gluon._scale
    trainer._half, trainer._images = True, lambda context, batch, rows: mx.nd.array(batch.images[rows])
    before, scale = parameters(trainer), gluon._amp_loss_scaler.loss_scale
    overflowing = next(iter(batches(1)))
    overflowing.images[0] = np.inf
    step(trainer, [overflowing])
    assert_equal(before, parameters(trainer), rtol=0, atol=0)
    step(trainer, batches(2))
    assert gluon._amp_loss_scaler.loss_scale == scale / 2
    plain = trainer_of()
    plain.restore(before)
    step(plain, batches(2))
    assert_equal(parameters(plain), parameters(trainer), rtol=1e-4, atol=1e-5)
