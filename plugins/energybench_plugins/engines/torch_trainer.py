"""Trains a network with PyTorch. Imports PyTorch: only for the training process."""

from __future__ import annotations

import atexit
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from energybench.architecture import Architecture, ZooNetwork
from energybench.dataset import Batch
from energybench.devices import CPU
from energybench.errors import ConfigError, DataError, PluginError
from energybench.images import EncodedBatch, Held, HeldBatch
from energybench.run.engine import Evaluation, Task
from energybench.schedule import initial_lr
from energybench_plugins.engines.process_memory import available_bytes, resident_bytes
from energybench_plugins.engines.torch_blocks import build, named_tensors
from energybench_plugins.engines.torch_check import require_classifier
from energybench_plugins.engines.torch_compiled import Compiler
from energybench_plugins.engines.torch_decode import Decoding, decoder
from energybench_plugins.engines.torch_device import device_of, environment, layout_of, set_arithmetic
from energybench_plugins.engines.torch_feed import Feed, Staged
from energybench_plugins.engines.torch_flops import training_flops
from energybench_plugins.engines.torch_half import HalfCopy
from energybench_plugins.engines.torch_initial import initialize
from energybench_plugins.engines.torch_optimizer import (
    make_optimizer,
    optimizer_state,
    restore_optimizer,
    set_rate,
)
from energybench_plugins.engines.torch_options import ENGINE, TorchOptions
from energybench_plugins.engines.torch_pace import Pace
from energybench_plugins.engines.torch_ranks import Ranks
from energybench_plugins.engines.torch_step import WARM_STEPS, WARM_STEPS_OF_SEVERAL, Objective, Step
from energybench_plugins.engines.torch_validation import Marks, SequenceSums, Validation
from energybench_plugins.engines.torch_wait import Waits

COMPILE_STEPS = 2
"""The first compiles, the second shows that nothing is left to compile."""

Preparation = Callable[[Iterable[Batch], Iterable[Batch]], None]


class TorchTrainer:
    """See `energybench.run.engine.Trainer`, `Preparing`, `Waiting`, `Taking` and `Keeping`."""

    def __init__(self, task: Task, options: TorchOptions) -> None:
        self._before_bytes = resident_bytes("VmRSS")
        self._task, self._options = task, options
        self._recipe = task.experiment.training
        self._device = device_of(task)
        self._stream = self._own_stream()
        self._ranks = Ranks(task, self._device)
        self._layout = layout_of(task, options, self._device)
        self._compiler = Compiler(options, task.directory)
        self._records = options.graphs(task.devices[0])
        set_arithmetic(task.experiment.precision, try_ways=options.cudnn_benchmark)
        torch.manual_seed(task.experiment.seed)
        self.net = self._network()
        self._copy = self._half_copy()
        self.optimizer = self._optimizer()
        half = task.experiment.precision == "fp16"
        self._scaler = torch.amp.GradScaler(self._device.type) if half else None
        self._buffers = self._layout.buffers(task.experiment.batch // task.world, tuple(task.architecture.input_shape))
        self._loaded: Any = None
        self._step = self._made_step()
        self._validation = self._made_validation()
        decode = decoder(self._device)
        decoding = None if decode is None else Decoding(decode, self._device)
        self._feed = Feed(self._layout, task.rank, task.world, decoding)
        self._pace = Pace(self._step.last)
        self._waits = Waits(self._device)
        self._steps = 0
        self._mixing = np.random.default_rng(task.experiment.seed)

    def _own_stream(self) -> Any | None:
        """A GPU works on a stream of its own, as what is to be recorded must never have run on the default one."""
        if self._device.type == "cpu":
            return None
        torch.cuda.set_device(self._device)
        stream = torch.cuda.Stream()
        torch.cuda.set_stream(stream)
        return stream

    def _network(self) -> Any:
        net = self._built().to(self._device)
        initialize(net, self._recipe.initializer)
        return net.to(memory_format=self._layout.memory_format).train()

    def _built(self) -> Any:
        """The network as its description says, or as its builder makes it and one step has shown that it trains."""
        network = self._task.architecture
        if isinstance(network, Architecture):
            return build(network)
        if not isinstance(network, ZooNetwork):
            raise PluginError(f"engine torch builds no {type(network).__name__}; give an Architecture or a ZooNetwork")
        net = network.build(ENGINE)
        require_classifier(net, network, self._device)
        return net

    def _half_copy(self) -> HalfCopy | None:
        if not self._options.half_weights:
            return None
        if not isinstance(self._task.architecture, Architecture):
            raise ConfigError("engine.half_weights=true: for described networks alone; use engine.half_weights=false")
        return HalfCopy(self.net, self._layout.dtype)

    def _optimizer(self) -> Any:
        lr = initial_lr(self._recipe, self._task.experiment.batch)
        on_device = self._options.fused or self._records or self._recipe.optimizer == "lars"
        rate = torch.tensor(lr, dtype=torch.float32, device=self._device) if on_device else lr
        trained = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        return make_optimizer(self._recipe, trained, rate, fused=self._options.fused, recordable=self._records)

    def _made_step(self) -> Step:
        recipe = self._recipe
        net = self.net if self._copy is None else self._copy.net
        objective = Objective(net, self._layout, recipe.label_smoothing, mixes=recipe.mixup > 0)
        running = self._compiler(self._ranks.parallel(objective, self._options.bucket_mb))
        return Step(running, self.optimizer, self._scaler, self._buffers, recipe.accumulate, self._copy)

    def _made_validation(self) -> Validation:
        marks = Marks(self.net, self._layout, top5=self._task.architecture.classes > 5)
        return Validation(self.net, self._compiler(marks), self._buffers, self._layout)

    def begin_epoch(self, epoch: int, lr: float) -> None:
        """See Trainer. Ranks draw other random numbers, and mix by the same shares."""
        seed = self._task.experiment.seed
        set_rate(self.optimizer, lr)
        torch.manual_seed(int(np.random.default_rng([seed, epoch]).integers(2**31)) + self._task.rank)
        self._mixing = np.random.default_rng([seed, epoch, 1])
        self._waits.restart()

    def feed(self, batches: Iterable[Batch]) -> Iterator[Staged]:
        """The share of this rank of each batch. The last batch of a pass may divide unevenly."""
        return self._waits.timed(self._feed(batches))

    def kinds(self) -> tuple[type[Batch], ...]:
        """See Taking."""
        return (HeldBatch,) if self._feed.decoding is None else (HeldBatch, EncodedBatch)

    def host_copies(self) -> int:
        """See Keeping. On the CPU it works in the memory of the data set."""
        return 0

    def keep(self, held: Held) -> None:
        """See Keeping."""
        self._feed.keep(held)

    def input_wait_s(self) -> float:
        """See Waiting."""
        return self._waits.total_s()

    def step(self, batch: Staged) -> None:
        """Fills the static batch, unless it holds these samples, and steps."""
        begun = self._waits.begins(copied=batch.slot is not None)
        if batch.slot is not None:
            batch.slot.arrived()
        self._waits.arrived(begun)
        if batch.key is None or batch.key != self._loaded:
            self._buffers.take(batch)
            self._loaded = batch.key
        if self._recipe.mixup:
            self._step.mix(self._mixing.beta(self._recipe.mixup, self._recipe.mixup, self._recipe.accumulate))
        self._step()
        self._steps += 1
        self._waits.ended()
        self._pace.stepped()

    def preparations(self) -> Mapping[str, Preparation]:
        """`compile` and `capture`, as far as they are asked for."""
        wanted: dict[str, Preparation] = {}
        if self._compiler.compiles:
            wanted["compile"] = self._compile
        if self._records:
            wanted["capture"] = self._record
        return wanted

    def warm_up(self, training: Iterable[Batch], validation: Iterable[Batch]) -> None:
        """Trains and puts everything back: parameters, statistics, optimiser; random states come with the epoch."""
        kept = self.state()
        self._try(training, validation)
        self._put_back(kept)

    def _try(self, training: Iterable[Batch], validation: Iterable[Batch]) -> None:
        for batch in self.feed(training):
            self.step(batch)
        self.evaluate(self.feed(validation))

    def _compile(self, training: Iterable[Batch], validation: Iterable[Batch]) -> None:
        self.warm_up(itertools.islice(training, COMPILE_STEPS), validation)

    def _record(self, training: Iterable[Batch], validation: Iterable[Batch]) -> None:
        kept = self.state()
        steps = WARM_STEPS if self._ranks.alone else WARM_STEPS_OF_SEVERAL
        self._try(itertools.islice(training, steps), validation)
        self.synchronize()
        self._step.record(self._stream)
        if not self._ranks.alone:
            atexit.register(self._step.forget)  # runs before the ranks part, which was registered earlier
        self._put_back(kept)

    def _put_back(self, kept: Mapping[str, NDArray[np.generic]]) -> None:
        self.synchronize()
        self.restore(kept)
        self._reset_loss()

    def recent_loss(self) -> float | None:
        """Mean loss of this rank in the last step that is known to be finished."""
        return self._pace.loss

    def take_loss(self) -> float:
        """Mean over the ranks; brings the running statistics of their batch normalisations together."""
        statistics = [buffer for buffer in self.net.buffers() if buffer.is_floating_point()]
        self._ranks.average([*statistics, self._step.loss])
        loss = float(self._step.loss) / max(self._steps, 1)
        self.synchronize()
        self._reset_loss()
        return loss

    def _reset_loss(self) -> None:
        self._step.loss.zero_()
        self._steps = 0
        self._pace.restart()

    def evaluate(self, batches: Iterable[Staged]) -> Evaluation:
        """Counts of all ranks together."""
        return self._evaluate(batches, None)

    def evaluate_sequences(
        self, batches: Iterable[Staged], sequences: NDArray[np.int64]
    ) -> tuple[Evaluation, NDArray[np.float32]]:
        """See Summing: of all ranks together."""
        task, ranks = self._task, self._ranks
        batch, classes = task.experiment.batch, task.architecture.classes
        also = SequenceSums(sequences, batch, ranks.rank, ranks.world, classes, self._device)
        found = self._evaluate(batches, also)
        return found, ranks.total(also.sums).float().cpu().numpy()

    def _evaluate(self, batches: Iterable[Staged], also: SequenceSums | None) -> Evaluation:
        self._loaded = None  # its batches take the place of training's
        images, totals = self._validation(batches, also)
        found = self._ranks.total(torch.cat([totals, totals.new_tensor([images])])).tolist()
        if not found[3]:
            return Evaluation(0, 0, None, 0.0)
        top5 = int(found[2]) if self._task.architecture.classes > 5 else None
        return Evaluation(int(found[3]), int(found[0]), top5, found[1] / found[3])

    def agree(self, value: float) -> float:
        """Rank 0's value, on every rank."""
        return self._ranks.agree(value)

    def synchronize(self) -> None:
        """Waits for the GPU; the CPU works as it is told."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def state(self) -> dict[str, NDArray[np.generic]]:
        """See Trainer; "parameters/<row>.<name>", "optimizer/<row>.<name>/<slot>", and of fp16 "scaler/<name>"."""
        tensors = {f"parameters/{name}": _array(tensor) for name, tensor in named_tensors(self.net).items()}
        scaler = self._scaler.state_dict() if self._scaler is not None else {}
        scale = {f"scaler/{name}": np.asarray(scaler[name]) for name in SCALER_STATE if name in scaler}
        return {**tensors, **optimizer_state(self.optimizer, named_tensors(self.net)), **scale}

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """See Trainer. Everything keeps its place in memory."""
        for name, tensor in named_tensors(self.net).items():
            value = state.get(f"parameters/{name}")
            if value is None or value.shape != tuple(tensor.shape):
                found = "none" if value is None else str(value.shape)
                raise DataError(f"checkpoint: parameter {name} of shape {found}; the network has {tuple(tensor.shape)}")
            with torch.no_grad():
                tensor.copy_(torch.from_numpy(np.array(value)))
        if self._copy is not None:
            self._copy.refresh()
        restore_optimizer(self.optimizer, named_tensors(self.net), state)
        if self._scaler is not None and f"scaler/{SCALER_STATE[0]}" in state:
            known = {name: state[f"scaler/{name}"].item() for name in SCALER_STATE}
            self._scaler.load_state_dict({**self._scaler.state_dict(), **known})

    def training_flops(self) -> int | None:
        """See Trainer."""
        return training_flops(self.net, self._task.architecture.input_shape)

    def memory_bytes(self) -> int | None:
        """Growth of this process on the CPU; the most that torch had allocated on a GPU."""
        if self._task.devices[0].kind == CPU:
            return resident_bytes("VmHWM") - self._before_bytes
        return int(torch.cuda.max_memory_allocated())

    def available_bytes(self) -> int | None:
        """What is free, and what torch has of it already."""
        if self._device.type == "cpu":
            return available_bytes() + max(resident_bytes("VmRSS") - self._before_bytes, 0)
        free, _ = torch.cuda.mem_get_info()
        return int(free + torch.cuda.memory_reserved())

    def environment(self) -> Mapping[str, str]:
        """Build, libraries and what the options came to."""
        return {
            **environment(self._device, self._layout),
            "compile": self._options.compile,
            "compile_cache": self._compiler.state,
            "graph": "yes" if self._records else "no",
            "fused": "yes" if self._options.fused else "no",
            "half_weights": "yes" if self._options.half_weights else "no",
            "processes": str(self._task.world),
        }


SCALER_STATE = ("scale", "_growth_tracker")
"""Of a GradScaler's state, what changes while it trains."""


def _array(tensor: Any) -> NDArray[np.generic]:
    array: NDArray[np.generic] = tensor.detach().cpu().contiguous().numpy().copy()
    return array
