"""The state of a Gluon Trainer's optimiser as plain arrays. MXNet's own files are pickles: loading executes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from energybench.errors import DataError

STATE = "optimizer/"
UPDATES = "updates/"


def optimizer_state(trainer: Any) -> dict[str, NDArray[np.generic]]:
    """Momenta and the like of the first device, and each parameter's number of updates; empty before the first step."""
    updaters = getattr(trainer, "_updaters", None) or []
    if not updaters:
        return {}
    counts = trainer.optimizer._index_update_count
    found = {
        f"{STATE}{name}": array.asnumpy()
        for index, state in updaters[0].states.items()
        if index in counts
        for name, array in _arrays(state, str(index))
    }
    return {**found, **{f"{UPDATES}{index}": np.asarray(count) for index, count in counts.items()}}


def restore_optimizer(trainer: Any, state: Mapping[str, NDArray[np.generic]]) -> None:
    """Gives every device's updater the state; raises DataError where it is another optimiser's."""
    counts = {int(name.removeprefix(UPDATES)): int(value) for name, value in state.items() if name.startswith(UPDATES)}
    if not counts:
        return
    if not trainer._kv_initialized:
        trainer._init_kvstore()
    for device, updater in enumerate(trainer._updaters):
        for index in counts:
            _restore_one(trainer, updater, device, index, state)
    optimizer = trainer.optimizer
    for device in range(len(trainer._updaters)):
        optimizer._all_index_update_counts[device] = dict(counts)
    optimizer._set_current_context(0)
    optimizer.num_update = max(counts.values())


def reset_optimizer(trainer: Any) -> None:
    """Puts every state back to how it begins, in the memory it has: the first measured step allocates nothing."""
    optimizer, updaters = trainer.optimizer, getattr(trainer, "_updaters", None) or []
    for device, updater in enumerate(updaters):
        for index, state in updater.states.items():
            begun = optimizer.create_state_multi_precision(index, trainer._params[index].list_data()[device])
            for (_, array), (_, value) in zip(_arrays(state, ""), _arrays(begun, ""), strict=True):
                array[:] = value
        optimizer._all_index_update_counts[device] = {}
    optimizer._set_current_context(0)
    optimizer.num_update = optimizer.begin_num_update


def _restore_one(trainer: Any, updater: Any, device: int, index: int, state: Mapping[str, NDArray[np.generic]]) -> None:
    weight = trainer._params[index].list_data()[device]
    if index in updater.states:
        made = updater.states[index]
    else:
        made = trainer.optimizer.create_state_multi_precision(index, weight)
    for name, array in _arrays(made, str(index)):
        value = state.get(f"{STATE}{name}")
        if value is None or value.shape != array.shape:
            raise DataError(f"checkpoint: it holds no fitting state {STATE}{name}; was another optimizer used?")
        array[:] = value
    updater.states[index] = made
    updater.states_synced[index] = True


def _arrays(state: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The arrays of an optimiser's state, which is an array, nothing, or a tuple of states."""
    if state is None:
        return
    if isinstance(state, tuple | list):
        for position, part in enumerate(state):
            yield from _arrays(part, f"{name}/{position}")
    else:
        yield name, state
