"""What an engine is: the contract between a framework's plugin, the supervisor and the worker.

`Engine` is the light side, used where nothing heavy may be imported. `Trainer` lives in the worker process and owns the
network, the optimiser and the devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from energybench.architecture import Network
from energybench.availability import Availability
from energybench.dataset import Batch
from energybench.devices import Device

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from energybench.experiment import Experiment
    from energybench.images import Held


@dataclass(frozen=True)
class Task:
    """All that a trainer needs.

    Attributes:
        experiment: the validated configuration.
        architecture: the network: described, or a zoo's with a builder for this engine.
        devices: the devices of this worker.
        rank: number of this worker among `world`.
        world: number of workers of this run.
        directory: the run's folder; None outside a run.
        meeting: HOST:PORT at which the workers of several machines meet, the first of them listening; None: all are
            on this machine.
    """

    experiment: Experiment
    architecture: Network
    devices: tuple[Device, ...]
    rank: int = 0
    world: int = 1
    directory: Path | None = None
    meeting: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """Counts over a validation pass; correct_top5 is None where there are fewer than 6 classes."""

    images: int
    correct_top1: int
    correct_top5: int | None
    loss: float


class Trainer(Protocol):
    """A network on its devices, ready to train. Work is asynchronous until `synchronize`.

    Of several workers each is given the same batches and trains on its own part of them, or, where the data set is
    `energybench.dataset.Adapting`, its own part alone (`Batch.whole` says so); what `take_loss` and
    `evaluate` tell is that of all, the same on each.
    """

    def begin_epoch(self, epoch: int, lr: float) -> None:
        """Sets the learning rate and every random state, so that an epoch does not depend on how it was reached."""

    def feed(self, batches: Iterable[Batch]) -> Iterator[Any]:
        """Brings batches to the devices, ahead of their use where that helps; yields what `step` takes."""

    def step(self, batch: Any) -> None:
        """Enqueues one optimiser step on one batch. May wait for a much earlier step, never for this one."""

    def warm_up(self, training: Iterable[Batch], validation: Iterable[Batch]) -> None:
        """Steps and evaluations that make everything ready; weights, optimiser and random state end as they began."""

    def recent_loss(self) -> float | None:
        """Mean loss of a recent finished step, without waiting for the devices to run dry; None before there is one."""

    def take_loss(self) -> float:
        """Mean loss over all steps since the last call; synchronises."""

    def evaluate(self, batches: Iterable[Any]) -> Evaluation:
        """One validation pass over what `feed` yields."""

    def synchronize(self) -> None:
        """Returns when every device has done all that was enqueued."""

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Parameters, running statistics and the optimiser's state, on the host, by names that outlive the process."""

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Takes what `state` gave; raises DataError where it is another network's."""

    def training_flops(self) -> int | None:
        """FLOPs to train on one sample, counted in the built network as a description counts them.

        That is 3 times the forward pass and 2 a multiply-accumulate of convolutions and dense layers. None where an
        operation makes the count unsure. Asked only for a network that is not described.
        """

    def memory_bytes(self) -> int | None:
        """Most memory that training took on any one device so far; None where it cannot be told."""

    def environment(self) -> Mapping[str, str]:
        """What the framework says of itself: versions, libraries, threads."""


@runtime_checkable
class Preparing(Protocol):
    """A trainer whose framework has something to do once before it trains, such as compiling: each a phase by name."""

    def preparations(self) -> Mapping[str, Callable[[Iterable[Batch], Iterable[Batch]], None]]:
        """Name of the phase, none that every run has (`run.metrics.OF_EVERY_ENGINE`) -> what is done in it, in order.

        Each is called with as many training batches as it cares to take, and one validation batch or none. Weights,
        optimiser and random state end as they began.
        """


@runtime_checkable
class Summing(Protocol):
    """A trainer that can add up what the network says of samples that belong together."""

    def evaluate_sequences(
        self, batches: Iterable[Any], sequences: NDArray[np.int64]
    ) -> tuple[Evaluation, NDArray[np.float32]]:
        """A validation pass as `evaluate` makes it, and the sums of its softmax.

        Args:
            batches: what `feed` yields of a whole validation pass in batches of the experiment's size.
            sequences: (samples,) int64, number of the sequence of each sample in that order.

        Returns:
            The counts, and (sequences, classes) float32: the softmax summed over the samples of each sequence.
        """


@runtime_checkable
class Waiting(Protocol):
    """A trainer that knows how long its devices waited for data."""

    def input_wait_s(self) -> float:
        """Seconds since `begin_epoch` in which the devices had nothing to do and the next batch was not there yet.

        Called when the devices have done all that was enqueued.
        """


@runtime_checkable
class Taking(Protocol):
    """A trainer whose `feed` takes batches that leave more to the devices."""

    def kinds(self) -> tuple[type[Batch], ...]:
        """Which: `energybench.images.EncodedBatch` where they decode JPEG files, `HeldBatch` where they keep images."""


@runtime_checkable
class Keeping(Protocol):
    """A trainer that keeps images on its devices: `HeldBatch` is among its `kinds`."""

    def host_copies(self) -> int:
        """Copies it makes of them in this machine's memory: one for each of its devices that is a CPU and copies."""

    def keep(self, held: Held) -> None:
        """Brings them to all its devices, unless they are there; raises DataError where one has no room for them."""


@runtime_checkable
class Agreeing(Protocol):
    """A trainer of one worker among several, which must all do the same steps."""

    def agree(self, value: float) -> float:
        """Rank 0's value, on every rank. Every rank calls it as often; it waits for rank 0 but for no device."""


@runtime_checkable
class Bounded(Protocol):
    """A trainer that can tell how much memory there is."""

    def available_bytes(self) -> int | None:
        """Memory of its device that training can have, with what it has; None where it cannot be told."""


@runtime_checkable
class Spanning(Protocol):
    """An engine whose workers train as one over several machines, where they meet at `Task.meeting`."""

    def spanning(self, interface: str) -> Mapping[str, str]:
        """Environment variables of such workers, in place of those of the same names in `environment`.

        Args:
            interface: the network interface by which this machine reaches the others.
        """


class Engine(Protocol):
    """A framework's plugin. Its constructor takes the options dataclass it was registered with and imports nothing."""

    def check(self) -> Availability:
        """Whether the framework is installed, by metadata alone."""

    def probe(self) -> Availability:
        """Whether it really runs: imports it in a fresh process and computes something there. Slow; for `doctor`."""

    def refuses(self, device: Device) -> str | None:
        """Why this engine's build cannot train on `device`, with what to use instead; None where it can."""

    def validate(self, experiment: Experiment, devices: Sequence[Device]) -> None:
        """Raises ConfigError for what is asked and cannot be done on `devices`, with what to do instead."""

    def workers(self, devices: Sequence[Device]) -> Sequence[Sequence[Device]]:
        """The devices of each worker process: all in one for some frameworks, one each for others."""

    def environment(self, devices: Sequence[Device]) -> Mapping[str, str]:
        """Environment variables the worker of `devices` starts with."""

    def trainer(self, task: Task) -> Trainer:
        """Builds the network on the devices; called in the worker, where heavy imports happen."""
