"""Learning rates: how they depend on the batch and fall from epoch to epoch. Arithmetic alone, for every engine."""

from __future__ import annotations

import math

from energybench.experiment import Training


def initial_lr(training: Training, batch: int) -> float:
    """Learning rate of the first epoch.

    `linear` scaling after Goyal et al. 2017, `sqrt` after Krizhevsky 2014; `none` lets accuracy prefer a batch size.
    """
    ratio = batch / training.reference_batch
    scale = {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[training.lr_scaling]
    return training.lr * scale


class Schedule:
    """Gives each epoch its learning rate.

    Args:
        training: the recipe.
        batch: samples a step, in all.
    """

    def __init__(self, training: Training, batch: int) -> None:
        self._training = training
        self._start = initial_lr(training, batch)
        self._plateau = Plateau(self._start, training)

    def lr(self, spent: float, way: float) -> float:
        """Learning rate of an epoch.

        Args:
            spent: share of the budget that is spent when the epoch begins, 0 to 1.
            way: the same between the first epoch (0) and the last (1), for schedules that reach their end there.
        """
        training = self._training
        if training.schedule == "step":
            drops = sum(spent >= share - 1e-9 for share in training.milestones)
            return float(self._start * training.factor**drops)
        if training.schedule == "log_linear":
            return float(self._start * (training.final_lr / training.lr) ** way)
        return self._plateau.lr if training.schedule == "plateau" else self._start

    def validated(self, loss: float, epochs: int = 1) -> None:
        """Tells the schedule the validation loss after so many more epochs."""
        self._plateau.validated(loss, epochs)

    def state(self) -> dict[str, float]:
        """What must be known to go on; finite numbers only."""
        plateau = self._plateau
        known = {} if math.isinf(plateau.best) else {"best": plateau.best}
        return {"lr": plateau.lr, "waited": float(plateau.waited), **known}

    def restore(self, state: dict[str, float]) -> None:
        """Goes on from `state`."""
        self._plateau.lr = state["lr"]
        self._plateau.waited = int(state["waited"])
        self._plateau.best = state.get("best", math.inf)


class Plateau:
    """Multiplies the rate by `factor` when the loss has not fallen for `patience` epochs, down to `min_lr`."""

    def __init__(self, lr: float, training: Training) -> None:
        self.lr = lr
        self.best = math.inf
        self.waited = 0
        self._training = training

    def validated(self, loss: float, epochs: int = 1) -> None:
        """Takes the validation loss after so many more epochs."""
        if loss < self.best:
            self.best, self.waited = loss, 0
            return
        self.waited += epochs
        if self.waited > self._training.patience:
            floor = min(self._training.min_lr, self.lr)
            self.lr, self.waited = max(self.lr * self._training.factor, floor), 0
