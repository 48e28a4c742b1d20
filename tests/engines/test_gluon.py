"""Training with Gluon on the CPU: repeatable, the same over several contexts, and it learns. Needs MXNet."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
from views import Silent

from energybench.config import make
from energybench.devices import CPU, cpu_device
from energybench.registry import Registry
from energybench.run.assignment import Assignment
from energybench.run.execute import Place, execute
from energybench.run.preflight import Machine, prepare
from energybench.run.spending import Spending
from energybench.run.worker import Loop, StoppedError

if importlib.util.find_spec("mxnet") is None:
    pytest.skip("needs MXNet: pip install 'energybench[gluon]'", allow_module_level=True)

from gluon_runs import Told, batches, experiment, step, trained, trainer_of

pytestmark = pytest.mark.gluon


def weights(trainer):
    return {name: value for name, value in trainer.state().items() if name.startswith("parameters/")}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("reference"))


class TestSeed:
    def test_one_seed_gives_one_result(self, reference, tmp_path):
        assert trained(tmp_path) == reference

    def test_another_seed_another(self, reference, tmp_path):
        other = trained(tmp_path, seed=1)
        assert [part[2]["loss"] for part in other] != [part[2]["loss"] for part in reference]

    def test_warming_up_changes_nothing(self, reference, tmp_path):
        assert trained(tmp_path, measure={"warmup_steps": 5}) == reference

    def test_a_dropout_network_repeats_itself_too(self):
        found = []
        for _ in range(2):
            trainer = trainer_of(training={"mixup": 0.2, "label_smoothing": 0.1})
            step(trainer, batches(3))
            found.append(trainer.take_loss())
        assert found[0] == found[1]


class TestEpochsTogether:
    """measure.validate_every: epochs that make one phase."""

    def test_they_train_as_they_do_alone(self, tmp_path):
        alone = trained(tmp_path, budget={"epochs": 5})
        ended = trained(tmp_path, budget={"epochs": 5}, measure={"validate_every": 2})
        assert [(name, epoch, values.get("epochs")) for name, epoch, values in ended] == [
            *(("train", 2, 2), ("validate", 2, None)),
            *(("train", 4, 2), ("validate", 4, None)),
            *(("train", 5, 1), ("validate", 5, None)),
        ]
        steps = alone[0][2]["steps"]
        assert [values["steps"] for name, _, values in ended if name == "train"] == [2 * steps, 2 * steps, steps]
        assert ended[0][2]["images"] == 2 * alone[0][2]["images"]
        assert ended[-1] == alone[-1]
        assert ended[0][2]["loss"] == alone[2][2]["loss"]  # that of the last of them

    def test_one_ends_with_the_budget_and_is_named_by_the_epoch_it_came_to(self, tmp_path):
        ended = trained(tmp_path, budget={"epochs": None, "steps": 50}, measure={"validate_every": 10})
        assert [(name, epoch) for name, epoch, _ in ended] == [("train", 3), ("validate", 3)]
        assert ended[0][2]["steps"] == 50
        assert ended[0][2]["fraction"] == 1

    def test_a_checkpoint_that_is_due_ends_one_and_moves_no_validation(self, tmp_path):
        sections = {"measure": {"validate_every": 3}, "checkpoint": {"every_epochs": 2}, "budget": {"epochs": 5}}
        ended = [(name, epoch) for name, epoch, _ in trained(tmp_path, **sections)]
        assert ended == [("train", 2), ("train", 3), ("validate", 3), ("train", 4), ("train", 5), ("validate", 5)]

    def test_the_rate_waits_for_as_many_epochs(self, tmp_path):
        """With a patience of two, one validation after three epochs that is not better is enough."""
        plateau = {"schedule": "plateau", "patience": 2, "lr": 1e-30, "min_lr": 1e-40}
        trained(
            tmp_path,
            training={"initializer": "xavier", **plateau},
            measure={"validate_every": 3},
            checkpoint={"every_epochs": 6},
            budget={"epochs": 6},
        )
        with np.load(tmp_path / "checkpoint.npz") as saved:
            known = json.loads(saved["energybench.json"].tobytes())["schedule"]
        assert known["lr"] == pytest.approx(1e-31)

    def test_stopped_within_it_goes_on(self, tmp_path, monkeypatch):
        sections = {"measure": {"validate_every": 3}, "checkpoint": {"every_epochs": 4, "resume": "auto"}}
        given = experiment(budget={"epochs": 4}, **sections)
        whole = trained(tmp_path / "whole", budget={"epochs": 4}, **sections)
        steps = whole[0][2]["steps"] // 3
        told = Told()
        loop = Loop(Assignment(given, (cpu_device(),), 0, 1, str(tmp_path / "cut")), told)
        ends = Spending.ends

        def counted(spending, *asked):
            loop._stopping = spending.steps == steps + 7
            return ends(spending, *asked)

        with monkeypatch.context() as patched, pytest.raises(StoppedError):
            patched.setattr(Spending, "ends", counted)
            loop.run()
        assert [(name, epoch, values["steps"]) for name, epoch, values in told.ended] == [("train", 3, steps + 8)]
        rest = trained(tmp_path / "cut", budget={"epochs": 4}, **sections)
        assert rest[0][2]["steps"] == 2 * steps - 8
        assert [part[:2] for part in rest] == [part[:2] for part in whole]
        assert rest[-1] == whole[-1]


class TestWarmUp:
    @pytest.mark.parametrize("optimizer", ["sgd", "nag", "adam"])
    def test_weights_and_optimiser_are_as_before(self, optimizer):
        trainer = trainer_of(training={"optimizer": optimizer})
        before = trainer.state()
        trainer.warm_up(batches(3), batches(1))
        after = trainer.state()
        assert before.keys() == after.keys()
        for name, value in before.items():
            np.testing.assert_array_equal(after[name], value, err_msg=name)

    def test_momentum_does_not_stay(self):
        warm, cold = trainer_of(), trainer_of()
        warm.warm_up(batches(5), batches(1))
        for trainer in (warm, cold):
            step(trainer, batches(4))
        for name, value in weights(cold).items():
            np.testing.assert_array_equal(weights(warm)[name], value, err_msg=name)


class TestContexts:
    @pytest.mark.parametrize(("contexts", "kvstore"), [(2, "device"), (3, "local")])
    def test_several_train_as_one_does(self, contexts, kvstore):
        found = []
        for count in (1, contexts):
            trainer = trainer_of(count, engine={"kvstore": kvstore}, batch=48)
            step(trainer, batches(4, 48))
            found.append((weights(trainer), trainer.take_loss()))
        (one, loss), (several, same_loss) = found
        assert same_loss == pytest.approx(loss, rel=1e-5)
        for name, value in one.items():
            near = 1e-5 * np.abs(value).max()
            np.testing.assert_allclose(several[name], value, rtol=1e-5, atol=near, err_msg=name)

    def test_weights_did_move(self):
        trainer = trainer_of(2)
        before = weights(trainer)
        step(trainer, batches(1))
        assert any(not np.array_equal(value, before[name]) for name, value in weights(trainer).items())

    def test_parts_of_a_batch_add_up_to_it(self):
        found = []
        for parts in (1, 4):
            trainer = trainer_of(training={"accumulate": parts})
            step(trainer, batches(3))
            found.append(weights(trainer))
        for name, value in found[0].items():
            np.testing.assert_allclose(found[1][name], value, rtol=1e-5, atol=1e-6, err_msg=name)


class TestValidation:
    @pytest.mark.parametrize("contexts", [1, 2])
    def test_every_image_counts_once(self, tmp_path, contexts):
        parts = trained(tmp_path, contexts, budget={"epochs": 1}, batch=100)  # 360 images: the last batch has 60
        [(_, _, values)] = [part for part in parts if part[0] == "validate"]
        assert values["images"] == 360
        assert values["accuracy_top1"] * 360 == pytest.approx(round(values["accuracy_top1"] * 360), abs=1e-9)
        assert values["accuracy_top1"] <= values["accuracy_top5"] <= 1

    def test_the_batch_makes_no_difference(self):
        trainer = trainer_of()
        dataset = make(Registry(), "dataset", experiment().dataset).open((1, 28, 28), 0)
        found = [trainer.evaluate(trainer.feed(dataset.batches("validation", batch, 1))) for batch in (360, 100, 7)]
        assert len({(each.images, each.correct_top1, each.correct_top5) for each in found}) == 1
        assert found[1].loss == pytest.approx(found[0].loss, rel=1e-5)
        assert found[2].loss == pytest.approx(found[0].loss, rel=1e-5)

    def test_nothing_to_validate(self):
        trainer = trainer_of()
        assert trainer.evaluate(trainer.feed([])).images == 0


def test_the_loss_is_the_mean_over_all_images():
    trainer = trainer_of(training={"lr": 1e-12})
    trainer.begin_epoch(1, 1e-12)
    given = list(batches(3))
    for batch in trainer.feed(given):
        trainer.step(batch)
    loss = trainer.take_loss()
    assert loss == pytest.approx(trainer.evaluate(trainer.feed(given)).loss, rel=1e-4)


@pytest.fixture
def run(tmp_path):
    def go(**sections):
        plan = prepare(experiment(**sections), Machine(Registry()))
        return execute(plan, Place(tmp_path), Silent())

    return go


def test_digits_are_learnt_through_the_real_worker(run):
    result = run(budget={"epochs": 4}, measure={"warmup_steps": 2})
    assert result.status == "finished", result.failure
    assert result.metrics["accuracy_top1"] > 0.9
    assert result.metrics["accuracy_top5"] > result.metrics["accuracy_top1"]
    assert result.metrics["images"] == 4 * (1437 // 64) * 64
    assert result.provenance["engine"]["contexts"] == "cpu(0)"
    assert result.metrics["gflops_per_w"] > 0


def test_a_loss_that_is_no_number_ends_the_run_as_failed(run):
    result = run(training={"lr": 100.0})
    assert (result.status, result.failure.kind) == ("failed", "nan_loss")
    assert "training.lr" in result.failure.message
    assert result.metrics["energy_j"] > 0


def test_the_cpu_build_refuses_a_gpu_and_says_what_to_do():
    from energybench.devices import Device

    engine = make(Registry(), "engine", experiment().engine)
    assert engine.refuses(cpu_device()) is None
    if engine.check().detail.startswith("mxnet "):
        assert "gluon-cuda" in engine.refuses(Device("gpu", "GPU-1", "TITAN Xp", "pascal"))


def test_one_worker_drives_all_devices():
    engine = make(Registry(), "engine", experiment().engine)
    assert [[device.kind for device in group] for group in engine.workers([cpu_device()] * 2)] == [[CPU, CPU]]
