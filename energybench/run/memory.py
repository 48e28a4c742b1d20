"""What to say when a batch does not fit: which would; and when images that a device is to keep do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from energybench.architecture import Network
from energybench.errors import DataError, EnergybenchError
from energybench.experiment import Experiment

OPTIMIZER_SLOTS = {"sgd": 1, "nag": 1, "adam": 2, "lars": 1}
"""Values that an optimiser keeps for each parameter: momentum; Adam's two moments."""

HALF = ("bf16", "fp16")

NO_MEMORY = ("out of memory", "failed to allocate", "can't allocate memory", "cannot allocate memory")


class OutOfMemoryError(EnergybenchError, MemoryError):
    """The run does not fit into a device's memory."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was what was missing. Frameworks report it in words, not in types."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or any(said in words for said in NO_MEMORY)


@contextmanager
def keeping(images_bytes: int, free_bytes: Callable[[], int]) -> Iterator[None]:
    """While images are brought to a device that is to keep them (`dataset.resident=true`).

    Args:
        images_bytes: that they take there.
        free_bytes: asks how much the device has left, where it has no room for them.

    Raises:
        DataError: the device ran out of memory, for which no batch is to blame.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise DataError(
            f"dataset.resident=true: the images take {images_bytes / 1e9:,.2f} GB and the device has "
            f"{free_bytes() / 1e9:,.2f} GB free; use dataset.resident=false or fewer images"
        ) from error


def too_large(
    network: Network, experiment: Experiment, devices: int, available_bytes: int | None, why: str
) -> OutOfMemoryError:
    """The error that names the largest batch that would fit, as far as the network's description tells.

    Args:
        network: described, or a zoo's of which nothing is known.
        experiment: its batch did not fit.
        devices: over which the batch is divided.
        available_bytes: memory that training can have on one of them; None where it is not known.
        why: what failed, in the framework's words.
    """
    return OutOfMemoryError(f"out of memory: {_advice(network, experiment, devices, available_bytes)} ({why})")


def _advice(network: Network, experiment: Experiment, devices: int, available_bytes: int | None) -> str:
    batch = experiment.batch
    said = f"batch={batch} does not fit"
    slots = OPTIMIZER_SLOTS[experiment.training.optimizer]
    weights, one = network.training_bytes(0, slots), network.training_bytes(1, slots)
    if available_bytes is None or weights is None or one is None:
        return f"{said}; use a smaller batch"
    sample = (one - weights) // (2 if experiment.precision in HALF else 1)
    parts = devices * experiment.training.accumulate
    fits = max(available_bytes - weights, 0) // sample * parts
    there = f"{available_bytes / 1e9:.2f} GB a device"
    if fits < parts:
        return f"{said}, and by the network's description none fits into {there}; use another device"
    if fits >= batch:
        return (
            f"{said}, though {there} would hold {fits} by the network's description; "
            f"use batch={max(batch // 2, 1)}, or more training.accumulate"
        )
    return f"{said} into {there}; by the network's description the largest that fits is about {fits}"
