"""Learning rates against closed forms."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from energybench.experiment import Training
from energybench.schedule import Schedule, initial_lr


def rates(training: Training, epochs: int, batch: int = 256) -> list[float]:
    schedule = Schedule(training, batch)
    return [schedule.lr((epoch - 1) / epochs, (epoch - 1) / max(epochs - 1, 1)) for epoch in range(1, epochs + 1)]


@pytest.mark.parametrize(
    ("scaling", "batch", "expected"),
    [("none", 64, 0.1), ("none", 512, 0.1), ("linear", 64, 0.025), ("linear", 512, 0.2), ("sqrt", 64, 0.05)],
)
def test_learning_rate_against_batch(scaling, batch, expected):
    assert initial_lr(Training(lr=0.1, lr_scaling=scaling, reference_batch=256), batch) == pytest.approx(expected)


def test_step_drops_at_a_third_and_two_thirds_of_the_epochs():
    seen = rates(Training(lr=0.1, schedule="step"), 9)
    assert seen == pytest.approx([0.1] * 3 + [0.01] * 3 + [0.001] * 3)


def test_log_linear_begins_and_ends_where_it_should_and_falls_by_one_factor():
    seen = rates(Training(lr=0.01, final_lr=0.0001, schedule="log_linear"), 5)
    assert seen[0] == pytest.approx(0.01)
    assert seen[-1] == pytest.approx(0.0001)
    factors = [after / before for before, after in pairwise(seen)]
    assert factors == pytest.approx([factors[0]] * 4)


def test_one_epoch_trains_at_the_initial_rate():
    for name in ("constant", "step", "log_linear", "plateau"):
        assert rates(Training(lr=0.01, schedule=name), 1) == pytest.approx([0.01])


def plateau(losses: list[float], **options: float) -> list[float]:
    schedule = Schedule(Training(lr=0.01, schedule="plateau", patience=3, min_lr=1e-4, **options), 64)
    seen = []
    for loss in losses:
        seen.append(schedule.lr(0.0, 0.0))
        schedule.validated(loss)
    return seen


def test_plateau_waits_for_its_patience_and_keeps_its_floor():
    assert plateau([1.0] * 6) == pytest.approx([0.01] * 5 + [0.001])
    assert plateau([1.0] * 30)[-1] == pytest.approx(1e-4)


def test_plateau_starts_waiting_anew_when_the_loss_falls():
    assert plateau([1.0, 1.0, 1.0, 0.9, 0.9, 0.9, 0.9]) == pytest.approx([0.01] * 7)


def test_a_floor_above_the_rate_does_not_raise_it():
    schedule = Schedule(Training(lr=1e-5, schedule="plateau", patience=0, min_lr=1e-4), 64)
    for _ in range(4):
        schedule.validated(1.0)
    assert schedule.lr(0.0, 0.0) == pytest.approx(1e-5)


def test_a_restored_schedule_goes_on_as_if_it_had_not_stopped():
    first, second = (Schedule(Training(lr=0.01, schedule="plateau", patience=1), 64) for _ in range(2))
    for loss in (1.0, 1.1):
        first.validated(loss)
    second.restore(first.state())
    for loss in (1.2, 1.3, 1.4):
        first.validated(loss)
        second.validated(loss)
        assert second.lr(0.0, 0.0) == first.lr(0.0, 0.0)


def test_the_state_holds_finite_numbers_only():
    assert all(math.isfinite(value) for value in Schedule(Training(schedule="plateau"), 64).state().values())
