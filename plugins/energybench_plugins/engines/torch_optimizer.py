"""Optimisers whose step needs nothing from the host, and their state as plain arrays. Imports PyTorch.

What an optimiser keeps is allocated when it is made, so that its first step is like every other, and can be put back in
place, where a recorded step expects it. The learning rate is a tensor that the recorded step reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from energybench.errors import DataError
from energybench.experiment import Training

STATE = "optimizer/"
ADAM = {"betas": (0.9, 0.999), "eps": 1e-8}
LARS_ETA = 0.001
"""Trust coefficient of You et al. 2017, as MXNet's LARS has it."""


class Lars(torch.optim.Optimizer):  # type: ignore[misc]
    """Momentum whose rate is scaled for each weight by |w| / (|g| + decay |w|) (You, Gitman & Ginsburg 2017).

    Vectors (biases, gammas and betas) keep the plain rate. All is done by lists of tensors on their device.
    """

    _step_supports_amp_scaling = True  # asks GradScaler to leave the scale and what overflowed to `step`

    def __init__(self, params: Iterable[Any], lr: Any, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: None = None) -> None:
        """One update of every parameter; none where a gradient overflowed."""
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                self._update(params, group)

    def _update(self, params: list[Any], group: Mapping[str, Any]) -> None:
        gradients = self._gradients(params)
        weights = [index for index, param in enumerate(params) if param.ndim > 1]
        decay = group["weight_decay"]
        rates = self._rates([params[i] for i in weights], [gradients[i] for i in weights], decay)
        if decay:
            gradients = list(torch._foreach_add(gradients, params, alpha=decay))
        for index, rate in zip(weights, rates, strict=True):
            gradients[index] = gradients[index] * rate
        momenta = [self.state[param]["momentum_buffer"] for param in params]
        keep = getattr(self, "found_inf", None)
        if keep is None:
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_add_(momenta, gradients)
            torch._foreach_sub_(params, torch._foreach_mul(momenta, group["lr"]))
        else:
            self._update_if_finite(params, momenta, gradients, group, keep)

    def _update_if_finite(
        self, params: list[Any], momenta: list[Any], gradients: list[Any], group: Mapping[str, Any], overflow: Any
    ) -> None:
        """The same, with every value chosen on the device."""
        for param, momentum, gradient in zip(params, momenta, gradients, strict=True):
            updated = momentum * group["momentum"] + gradient
            momentum.copy_(torch.where(overflow > 0, momentum, updated))
            param.copy_(torch.where(overflow > 0, param, param - group["lr"] * momentum))

    def _gradients(self, params: list[Any]) -> list[Any]:
        gradients = [param.grad for param in params]
        scale = getattr(self, "grad_scale", None)
        return gradients if scale is None else list(torch._foreach_mul(gradients, 1 / scale))

    def _rates(self, weights: list[Any], gradients: list[Any], decay: float) -> list[Any]:
        """Factor of each weight's rate; 1 where either norm is 0."""
        if not weights:
            return []
        size = torch.stack(torch._foreach_norm(weights))
        slope = torch.stack(torch._foreach_norm(gradients))
        trust = LARS_ETA * size / (slope + decay * size)
        return list(torch.where((size > 0) & (slope > 0), trust, torch.ones_like(trust)).unbind())


def make_optimizer(recipe: Training, params: Iterable[Any], lr: Any, *, fused: bool, recordable: bool) -> Any:
    """The optimiser of a recipe, its state allocated.

    Args:
        recipe: names it.
        params: parameters, on their device.
        lr: a tensor on that device, or of sgd and nag that are not fused a number.
        fused: update all parameters by one kernel.
        recordable: whether a step will be recorded in a CUDA graph.
    """
    chosen, decay = list(params), recipe.weight_decay
    if recipe.optimizer == "lars":
        optimizer: Any = Lars(chosen, lr, recipe.momentum, decay)
    elif recipe.optimizer == "adam":
        options = {"fused": fused, "foreach": None if fused else True, "capturable": recordable}
        optimizer = torch.optim.Adam(chosen, lr, weight_decay=decay, **ADAM, **options)
    else:
        nesterov = recipe.optimizer == "nag" and recipe.momentum > 0
        optimizer = torch.optim.SGD(
            chosen, lr, recipe.momentum, weight_decay=decay, nesterov=nesterov, fused=fused, foreach=not fused
        )
    for param in chosen:
        optimizer.state[param].update(_begun(recipe.optimizer, param, fused or recordable))
    return optimizer


def _begun(optimizer: str, param: Any, count_on_device: bool) -> dict[str, Any]:
    """What it keeps of one parameter before the first step."""
    zeros = torch.zeros_like(param, memory_format=torch.preserve_format)
    if optimizer != "adam":
        return {"momentum_buffer": zeros}
    device = param.device if count_on_device else "cpu"
    step = torch.zeros((), dtype=torch.float32, device=device)
    return {"step": step, "exp_avg": zeros, "exp_avg_sq": zeros.clone()}


def set_rate(optimizer: Any, lr: float) -> None:
    """Sets the learning rate, in place where it is a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def optimizer_state(optimizer: Any, names: Mapping[str, Any]) -> dict[str, NDArray[np.generic]]:
    """Its state on the host as "optimizer/<parameter>/<slot>"; `names` maps a parameter's name to the parameter."""
    return {name: tensor.detach().cpu().contiguous().numpy().copy() for name, tensor in _slots(optimizer, names)}


def restore_optimizer(optimizer: Any, names: Mapping[str, Any], state: Mapping[str, NDArray[np.generic]]) -> None:
    """Puts a state back in place; raises DataError where it is another optimiser's. A state with none of it: none."""
    if not any(name.startswith(STATE) for name in state):
        return
    for name, tensor in _slots(optimizer, names):
        value = state.get(name)
        if value is None or value.shape != tuple(tensor.shape):
            raise DataError(f"checkpoint: it holds no fitting state {name}; was another optimizer used?")
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(np.array(value)))


def _slots(optimizer: Any, names: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, param in names.items():
        for slot, tensor in optimizer.state.get(param, {}).items():
            yield f"{STATE}{name}/{slot}", tensor
