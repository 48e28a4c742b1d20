"""How much of its budget a training has spent, and when that ends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from energybench.experiment import Budget

LOOK_PERIOD_S = 0.25
"""How often several workers look at the clock together."""


@dataclass
class Spending:
    """What training has come to, against its limits.

    Attributes:
        budget: the limits.
        per_epoch: steps of a whole epoch.
        epoch: that runs, or that ran last; 0 before the first.
        inside: steps of it that are done, by this attempt and earlier ones.
        steps: that are done in all epochs, the one that runs included.
        seconds: of training, without the epoch that runs.
        reached: whether a validation has found the accuracy that was the aim.
    """

    budget: Budget
    per_epoch: int
    epoch: int = 0
    inside: int = 0
    steps: int = 0
    seconds: float = 0.0
    reached: bool = False
    _next_look: int = 0

    def step(self) -> None:
        """One more is done."""
        self.steps += 1
        self.inside += 1

    def fraction(self, elapsed_s: float = 0.0) -> float:
        """How much of the budget is spent, 0 to 1, by the limit that is nearest.

        Args:
            elapsed_s: of the epoch that runs, in seconds.
        """
        return self._fraction(self.inside, elapsed_s)

    def fraction_before(self) -> float:
        """The same when the epoch that runs began, however much of it an earlier attempt had done."""
        return self._fraction(0, 0.0)

    def _fraction(self, inside: int, elapsed_s: float) -> float:
        budget = self.budget
        shares = [
            (self.epoch - 1 + inside / self.per_epoch) / budget.epochs if budget.epochs else 0.0,
            (self.steps - self.inside + inside) / budget.steps if budget.steps else 0.0,
            (self.seconds + elapsed_s) / budget.seconds if budget.seconds else 0.0,
        ]
        return min(max(shares), 1.0)

    def spent(self) -> bool:
        """Whether no further epoch is to begin."""
        by_epochs = self.budget.epochs is not None and self.epoch >= self.budget.epochs
        return by_epochs or self.reached or self._spent_inside(0.0)

    def ends(self, steps: int, elapsed_s: float, agree: Callable[[float], float] | None = None) -> bool:
        """Whether an epoch ends here for want of steps or seconds; of several workers, by the clock of the first.

        They look at the clock together, after as many steps as the first expects to take a while, but at the most as
        many as were made: the first steps are told by how fast they are enqueued, a hundred times faster than they run.

        Args:
            steps: of this epoch that this attempt has made, at least one.
            elapsed_s: that they took, in seconds.
            agree: gives all workers what the first says; None for a worker that is alone.
        """
        if agree is None or self.budget.seconds is None:
            return self._spent_inside(elapsed_s)
        if self.steps < self._next_look and not self._out_of_steps():
            return False
        left_s = self.budget.seconds - self.seconds - elapsed_s
        ahead = min(max(int(min(left_s, LOOK_PERIOD_S) / (elapsed_s / steps)), 1), steps) if left_s > 0 else 0
        ahead = int(agree(ahead))
        self._next_look = self.steps + ahead
        return not ahead or self._out_of_steps()

    def _spent_inside(self, elapsed_s: float) -> bool:
        seconds = self.budget.seconds
        return self._out_of_steps() or (seconds is not None and self.seconds + elapsed_s >= seconds)

    def _out_of_steps(self) -> bool:
        return self.budget.steps is not None and self.steps >= self.budget.steps
