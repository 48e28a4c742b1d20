"""When a training ends, and how much of it is done."""

from __future__ import annotations

import pytest

from energybench.experiment import Budget
from energybench.run.spending import Spending


def spending(per_epoch=10, **limits):
    given = {"epochs": None, **limits}
    return Spending(Budget(**given), per_epoch)


def trained(one, steps):
    for _ in range(steps):
        one.step()
    return one


def test_the_fraction_is_that_of_the_nearest_limit():
    one = spending(epochs=4, steps=100, seconds=50.0)
    one.epoch, one.steps, one.inside, one.seconds = 2, 15, 5, 10.0
    assert one.fraction() == 1.5 / 4
    assert one.fraction(elapsed_s=15.0) == 0.5
    assert one.fraction(elapsed_s=10**6) == 1.0


def test_an_epoch_that_goes_on_inside_is_told_as_from_its_beginning():
    one = spending(epochs=4, steps=40)
    one.epoch, one.steps, one.inside = 2, 15, 5
    assert one.fraction_before() == 0.25


@pytest.mark.parametrize(
    ("limits", "so_far", "ends"),
    [
        ({"epochs": 2}, {"epoch": 1}, False),
        ({"epochs": 2}, {"epoch": 2}, True),
        ({"steps": 20}, {"steps": 19}, False),
        ({"steps": 20}, {"steps": 20}, True),
        ({"seconds": 5.0}, {"seconds": 4.9}, False),
        ({"seconds": 5.0}, {"seconds": 5.0}, True),
        ({"epochs": 9, "target_accuracy": 0.9}, {"epoch": 1, "reached": True}, True),
    ],
)
def test_no_further_epoch_begins_when_a_limit_is_met(limits, so_far, ends):
    one = spending(**limits)
    for name, value in so_far.items():
        setattr(one, name, value)
    assert one.spent() is ends


def test_a_worker_that_is_alone_goes_by_its_own_clock():
    one = trained(spending(seconds=5.0), 3)
    one.seconds = 2.0
    assert not one.ends(3, 2.9)
    assert one.ends(3, 3.0)


def test_several_go_by_the_clock_of_the_first_and_look_at_it_together():
    said = []

    def agree(value):
        said.append(value)
        return value

    one = spending(seconds=10.0)
    ends = [trained(one, 1).ends(step, step * 0.01, agree) for step in range(1, 101)]
    assert not any(ends)
    assert 4 < len(said) < 20, "they are to meet now and then, not with every step"
    assert trained(one, 100).ends(200, 10.1, agree)
    assert said[-1] == 0


def test_one_that_follows_ends_when_the_first_says_so_whatever_its_own_clock_says():
    late, early = (trained(spending(seconds=1.0), 1) for _ in range(2))
    assert not late.ends(1, 99.0, agree=lambda ahead: 5)
    assert early.ends(1, 0.001, agree=lambda ahead: 0)


def test_steps_end_several_whatever_the_clock_says():
    assert trained(spending(steps=2), 2).ends(2, 0.1, agree=lambda value: pytest.fail("all count the same steps"))
    said = []
    both = spending(steps=3, seconds=9.0)
    ends = [
        trained(both, 1).ends(step, step * 0.1, agree=lambda ahead: said.append(ahead) or ahead) for step in (1, 2, 3)
    ]
    assert ends == [False, False, True]
    assert all(ahead > 0 for ahead in said), "it is not the clock that ends it"
