"""Trains a network with Gluon. Imports MXNet: only for the training process."""

from __future__ import annotations

import importlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from energybench.architecture import Architecture, ZooNetwork
from energybench.dataset import Batch
from energybench.devices import CPU
from energybench.errors import DataError, PluginError
from energybench.experiment import Training
from energybench.images import Held, HeldBatch, Normalisation, PixelBatch, require_input_channels
from energybench.run.engine import Evaluation, Task
from energybench.run.memory import keeping
from energybench.schedule import initial_lr
from energybench_plugins.engines.gluon_blocks import build, mx, named_parameters
from energybench_plugins.engines.gluon_check import require_classifier
from energybench_plugins.engines.gluon_flops import training_flops
from energybench_plugins.engines.gluon_optimizer import optimizer_state, reset_optimizer, restore_optimizer
from energybench_plugins.engines.gluon_options import ENGINE, GluonOptions
from energybench_plugins.engines.gluon_wait import Waits
from energybench_plugins.engines.mxnet_build import installed_build
from energybench_plugins.engines.process_memory import available_bytes, resident_bytes

amp = importlib.import_module("mxnet.contrib.amp")  # which MXNet does not import by itself

STEPS_IN_FLIGHT = 4
"""Steps, up to twice so many, that the host may be ahead: it keeps the devices busy and still tells true progress."""

LARGEST = 2**31
"""Elements from which on MXNet's usual build cannot address an array."""

INITIALIZERS = {"he": mx.init.Xavier("gaussian", "in", 2), "xavier": mx.init.Xavier("uniform", "avg", 3)}

Shards = list[tuple[Any, Any]]
"""One (images, labels) pair of NDArrays a context."""


class SmoothedLoss(mx.gluon.HybridBlock):  # type: ignore[misc]
    """Cross entropy against a target of which `smoothing` is spread evenly over the classes."""

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self._smoothing = smoothing

    def hybrid_forward(self, F: Any, logits: Any, labels: Any) -> Any:  # noqa: N803
        """Loss (N,) of logits (N, classes) and labels (N,)."""
        logarithms = F.log_softmax(logits)
        hit = F.pick(logarithms, labels)
        return -(1 - self._smoothing) * hit - self._smoothing * F.mean(logarithms, axis=1)


class SequenceSums:
    """Adds up the softmax over the samples of each sequence.

    Args:
        sequences: (samples,) int64, number of the sequence of each sample of a pass, in order.
        classes: of the network.
    """

    def __init__(self, sequences: NDArray[np.int64], classes: int) -> None:
        count = int(sequences.max()) + 1 if len(sequences) else 0
        self.sums = np.zeros((count, classes), np.float32)
        self._sequences = sequences
        self._waiting: deque[Any] = deque()
        self._next = 0

    def add(self, shares: Any) -> None:
        """Those of the next samples, an NDArray (n, classes) that may not be computed yet."""
        self._waiting.append(shares)
        self.read(STEPS_IN_FLIGHT)

    def read(self, ahead: int) -> None:
        """Adds up all but the last `ahead`, waiting for them."""
        while len(self._waiting) > ahead:
            shares = self._waiting.popleft().asnumpy()
            np.add.at(self.sums, self._sequences[self._next : self._next + len(shares)], shares)
            self._next += len(shares)


class GluonTrainer:
    """See `energybench.run.engine.Trainer`, `Waiting`, `Taking` and `Keeping`."""

    def __init__(self, task: Task, options: GluonOptions) -> None:
        self._before_bytes = resident_bytes("VmRSS")
        self._task = task
        self._recipe = task.experiment.training
        self._half = task.experiment.precision == "fp16"
        self._options = options
        self._contexts = [
            mx.cpu(index) if device.kind == CPU else mx.gpu(index) for index, device in enumerate(task.devices)
        ]
        mx.random.seed(task.experiment.seed)
        self.net = self._network()
        self._cross_entropy = mx.gluon.loss.SoftmaxCrossEntropyLoss()
        smoothing = self._recipe.label_smoothing
        self._loss = SmoothedLoss(smoothing) if smoothing else self._cross_entropy
        self._loss.hybridize()
        self.trainer = self._optimizer()
        self._top5 = task.architecture.classes > 5
        self._count = 0
        self._sums: list[Any] = []
        self._flight: deque[Any] = deque()
        self._finished: Any = None
        self._reset_loss()
        self._waits = Waits(self._wait_for_update)
        self._held: dict[tuple[Held, Any], Any] = {}
        self._affines: dict[tuple[Normalisation, Any], tuple[Any, Any]] = {}
        self._mixing = np.random.default_rng(task.experiment.seed)

    def _network(self) -> Any:
        net = self._built()
        net.initialize(INITIALIZERS[self._recipe.initializer], ctx=self._contexts, force_reinit=True)
        if self._half:
            net.cast("float16")
        if self._recipe.accumulate > 1:
            net.collect_params().setattr("grad_req", "add")
        if self._options.hybridize:
            net.hybridize(static_alloc=True, static_shape=True)
        return net

    def _built(self) -> Any:
        """The network as its description says, or as its builder makes it and one step has shown that it trains."""
        network = self._task.architecture
        if isinstance(network, Architecture):
            return build(network)
        if not isinstance(network, ZooNetwork):
            raise PluginError(f"engine gluon builds no {type(network).__name__}; give an Architecture or a ZooNetwork")
        net = network.build(ENGINE)
        require_classifier(net, network, self._contexts[0], hybridize=self._options.hybridize)
        return net

    def _optimizer(self) -> Any:
        kvstore = self._options.kvstore if len(self._contexts) > 1 else None
        options = optimizer_options(self._recipe, initial_lr(self._recipe, self._task.experiment.batch), self._half)
        trainer = mx.gluon.Trainer(
            self.net.collect_params(), self._recipe.optimizer, options, kvstore=kvstore, update_on_kvstore=False
        )
        self._scale_losses(trainer)
        return trainer

    def _scale_losses(self, trainer: Any) -> None:
        """What amp.init_trainer does; it insists on amp.init, which rewrites every operator."""
        if self._half:
            trainer._amp_loss_scaler = amp.loss_scaler.LossScaler()
            trainer._amp_original_scale = getattr(trainer, "_amp_original_scale", trainer._scale)

    def begin_epoch(self, epoch: int, lr: float) -> None:
        """See Trainer."""
        seed = self._task.experiment.seed
        self.trainer.set_learning_rate(lr)
        mx.random.seed(int(np.random.default_rng([seed, epoch]).integers(2**31)))
        self._mixing = np.random.default_rng([seed, epoch, 1])
        self._waits.restart()

    def feed(self, batches: Iterable[Batch]) -> Iterator[list[Shards]]:
        """Each batch as `training.accumulate` parts, of each an equal share to each device.

        The last batch of a pass may divide unevenly.
        """
        return self._waits.timed(map(self._parts, batches))

    def _parts(self, batch: Batch) -> list[Shards]:
        edges = _edges(len(batch.labels), self._recipe.accumulate)
        return [self._shards(batch, start, end) for start, end in edges if end > start]

    def _shards(self, batch: Batch, start: int, end: int) -> Shards:
        """The samples from `start` to before `end`, on the devices."""
        shares = zip(self._contexts, _edges(end - start, len(self._contexts)), strict=True)
        rows = [(context, slice(start + first, start + last)) for context, (first, last) in shares if last > first]
        return [
            (self._images(context, batch, some), _to(context, batch.labels[some].astype(np.float32)))
            for context, some in rows
        ]

    def _images(self, context: Any, batch: Batch, rows: slice) -> Any:
        """Bytes are normalised where they have gone, and there their one channel is repeated."""
        if isinstance(batch, HeldBatch):
            floats = self._cut(context, batch, rows)
        elif isinstance(batch, PixelBatch):
            floats = _floats(context, batch.pixels[rows])
        else:
            return self._cast(_to(context, batch.images[rows]))
        scale, shift = self._affine(context, batch.normalisation)
        images = self._cast(floats * scale + shift)
        grey = batch.channels is not None and batch.channels > images.shape[1]
        return images.broadcast_axes(axis=1, size=batch.channels) if grey else images

    def _cast(self, images: Any) -> Any:
        return images.astype("float16") if self._half else images

    def _cut(self, context: Any, batch: HeldBatch, rows: slice) -> Any:
        """Floats (n, C, H, W) from 0 to 255 out of the images that the device keeps."""
        held, axes = self._kept(context, batch.held), _as_they_lie(batch.held.pixels)[1]
        chosen = mx.nd.array(batch.chosen[rows], ctx=context, dtype="int32")
        images = _in_order(mx.nd.take(held, chosen).astype("float32"), axes)
        if batch.view is None:
            return images
        affine = batch.view.affine(*batch.held.pixels.shape[2:])[rows].reshape(-1, 6)
        grid = mx.nd.GridGenerator(_to(context, affine), transform_type="affine", target_shape=batch.view.size)
        return mx.nd.BilinearSampler(images, grid)

    def _kept(self, context: Any, held: Held) -> Any:
        """Images as they lie, on a device, where they go the first time; raises DataError where they cannot."""
        if (held, context) not in self._held:
            pixels, _ = _as_they_lie(held.pixels)
            if pixels.size >= LARGEST:
                raise DataError("dataset.resident=true: MXNet's arrays have fewer than 2^31 elements; use engine=torch")
            with keeping(pixels.nbytes, lambda: _free_bytes(context)):
                self._held[held, context] = _to(context, pixels)
        return self._held[held, context]

    def _affine(self, context: Any, normalisation: Normalisation) -> tuple[Any, Any]:
        """Scale and shift on a device."""
        known = self._affines.get((normalisation, context))
        if known is None:
            scale, shift = (_to(context, part[None]) for part in normalisation.affine())
            known = self._affines[normalisation, context] = (scale, shift)
        return known

    def kinds(self) -> tuple[type[Batch], ...]:
        """See Taking."""
        return (HeldBatch,)

    def host_copies(self) -> int:
        """See Keeping."""
        return sum(context.device_type == "cpu" for context in self._contexts)

    def keep(self, held: Held) -> None:
        """See Keeping."""
        for context in self._contexts:
            self._kept(context, held)

    def input_wait_s(self) -> float:
        """See Waiting."""
        return self._waits.total_s()

    def _wait_for_update(self) -> None:
        """Returns when the last step has updated the first and the last parameter, on every device."""
        parameters = list(named_parameters(self.net).values())
        for parameter in (parameters[0], parameters[-1]):
            for value in parameter.list_data():
                value.wait_to_read()

    def step(self, batch: list[Shards]) -> None:
        """Forward and backward on each device, gradients added up over parts and devices, one update."""
        for shards in batch:
            losses = self._backward(shards)
            self._count += sum(len(loss) for loss in losses)
            self._sums = [total + loss.sum() for total, loss in zip(self._sums, losses, strict=True)]
            self._in_flight(losses)
        self.trainer.step(sum(len(labels) for shards in batch for _, labels in shards))
        if self._recipe.accumulate > 1:
            self.net.collect_params().zero_grad()

    def _backward(self, shards: Shards) -> list[Any]:
        """Losses (N,) of each device, with their gradients under way."""
        share = self._mixing.beta(self._recipe.mixup, self._recipe.mixup) if self._recipe.mixup else 1.0
        with mx.autograd.record():
            losses = [self._mixed_loss(images, labels, share) for images, labels in shards]
            if self._half:
                with amp.scale_loss(losses, self.trainer) as scaled:
                    mx.autograd.backward(scaled)
            else:
                mx.autograd.backward(losses)
        return losses

    def _mixed_loss(self, images: Any, labels: Any, share: float) -> Any:
        """Loss of samples mixed with those of the reversed batch: `share` of one, the rest of the other."""
        if share == 1.0:
            return self._loss(self._logits(images), labels)
        logits = self._logits(images * share + images.flip(axis=0) * (1 - share))
        return self._loss(logits, labels) * share + self._loss(logits, labels.flip(axis=0)) * (1 - share)

    def _logits(self, images: Any) -> Any:
        require_input_channels(images.shape[1], self._task.architecture.input_shape[0])
        logits = self.net(images)
        return logits.astype("float32") if self._half else logits

    def _in_flight(self, losses: list[Any]) -> None:
        """Notes a step; when there are many, waits for the older half: each wait wakes a thread where cores train."""
        self._flight.append(losses)
        if len(self._flight) >= 2 * STEPS_IN_FLIGHT:
            while len(self._flight) > STEPS_IN_FLIGHT:
                self._finished = self._flight.popleft()
            for loss in self._finished:
                loss.wait_to_read()

    def warm_up(self, training: Iterable[Batch], validation: Iterable[Batch]) -> None:
        """Trains and puts everything back: parameters, statistics, optimiser; random states come with the epoch."""
        kept = self.state()
        for batch in self.feed(training):
            self.step(batch)
        self.evaluate(self.feed(validation))
        self._set_parameters(kept)
        reset_optimizer(self.trainer)
        self._scale_losses(self.trainer)
        restore_optimizer(self.trainer, kept)
        self._reset_loss()

    def recent_loss(self) -> float | None:
        """Mean loss of the last step that is known to be finished."""
        if self._finished is None:
            return None
        values = [loss.asnumpy() for loss in self._finished]
        return float(sum(value.sum() for value in values) / sum(len(value) for value in values))

    def take_loss(self) -> float:
        """See Trainer."""
        loss = sum(float(total.asscalar()) for total in self._sums) / max(self._count, 1)
        self.synchronize()
        self._reset_loss()
        return loss

    def _reset_loss(self) -> None:
        self._sums = [mx.nd.zeros((1,), ctx=context) for context in self._contexts]
        self._count = 0
        self._flight, self._finished = deque(), None

    def evaluate(self, batches: Iterable[list[Shards]]) -> Evaluation:
        """Counts on the devices; the host reads once, at the end."""
        return self._evaluate(batches, None)

    def evaluate_sequences(
        self, batches: Iterable[list[Shards]], sequences: NDArray[np.int64]
    ) -> tuple[Evaluation, NDArray[np.float32]]:
        """See Summing. The host reads what the network said of one shard while the devices work on later ones."""
        sums = SequenceSums(sequences, self._task.architecture.classes)
        found = self._evaluate(batches, sums)
        sums.read(0)
        return found, sums.sums

    def _evaluate(self, batches: Iterable[list[Shards]], also: SequenceSums | None) -> Evaluation:
        images = 0
        sums: list[list[Any]] = []
        for batch in batches:
            for data, labels in (pair for shards in batch for pair in shards):
                images += len(data)
                logits = self._logits(data)
                sums.append(self._scores(logits, labels))
                if also is not None:
                    also.add(logits.softmax(axis=1))
                if len(sums) > STEPS_IN_FLIGHT:  # else the whole split would wait in memory
                    sums[-1 - STEPS_IN_FLIGHT][0].wait_to_read()
        totals = [sum(float(value.asscalar()) for value in column) for column in zip(*sums, strict=True)]
        if not totals:
            return Evaluation(0, 0, None, 0.0)
        top5 = int(totals[2]) if self._top5 else None
        return Evaluation(images, int(totals[0]), top5, totals[1] / images)

    def _scores(self, logits: Any, labels: Any) -> list[Any]:
        """Correct in the first place, summed loss and, of more than 5 classes, correct among the first five."""
        scores = [(logits.argmax(axis=1) == labels).sum(), self._cross_entropy(logits, labels).sum()]
        if self._top5:
            scores.append((logits.topk(k=5, axis=1) == labels.expand_dims(1)).sum())
        return scores

    def synchronize(self) -> None:
        """Waits for every context."""
        mx.nd.waitall()

    def state(self) -> dict[str, NDArray[np.generic]]:
        """See Trainer; parameters under "parameters/<row>.<name>", the optimiser's under "optimizer/<number>..."."""
        first = self._contexts[0]
        state = {
            f"parameters/{name}": parameter.data(first).asnumpy()
            for name, parameter in named_parameters(self.net).items()
        }
        return {**state, **optimizer_state(self.trainer)}

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """See Trainer."""
        self._set_parameters(state)
        restore_optimizer(self.trainer, state)

    def _set_parameters(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        for name, parameter in named_parameters(self.net).items():
            value = state.get(f"parameters/{name}")
            if value is None or value.shape != parameter.shape:
                found = "none" if value is None else str(value.shape)
                raise DataError(f"checkpoint: parameter {name} of shape {found}; the network has {parameter.shape}")
            parameter.set_data(mx.nd.array(value, dtype=value.dtype))

    def training_flops(self) -> int | None:
        """See Trainer."""
        return training_flops(self.net, self._task.architecture.input_shape)

    def memory_bytes(self) -> int | None:
        """Growth of the process on the CPU, all contexts together; memory in use on the fullest GPU."""
        if self._contexts[0].device_type == "cpu":
            return resident_bytes("VmHWM") - self._before_bytes
        used = [total - free for free, total in map(mx.context.gpu_memory_info, range(len(self._contexts)))]
        return int(max(used))

    def environment(self) -> Mapping[str, str]:
        """Build, threads and contexts."""
        name, version = installed_build() or ("mxnet", mx.__version__)
        return {
            "engine": f"{name} {version}",
            "contexts": ", ".join(str(context) for context in self._contexts),
            "omp_num_threads": os.environ.get("OMP_NUM_THREADS", "default"),
        }


def optimizer_options(recipe: Training, lr: float, half: bool) -> dict[str, Any]:
    """The options MXNet's optimiser of that name takes; half precision keeps a float32 copy of the weights."""
    options: dict[str, Any] = {"learning_rate": lr, "wd": recipe.weight_decay, "multi_precision": half}
    return options if recipe.optimizer == "adam" else {**options, "momentum": recipe.momentum}


def _edges(count: int, parts: int) -> Iterator[tuple[int, int]]:
    """`count` items in `parts` runs as equal as can be: (start, end) of each."""
    return pairwise(count * part // parts for part in range(parts + 1))


def _to(context: Any, array: Any) -> Any:
    """The array on a device. On the CPU too it is copied: MXNet aligns its memory, and works slower on what is not."""
    return mx.nd.array(array, ctx=context, dtype=array.dtype)


def _free_bytes(context: Any) -> int:
    return available_bytes() if context.device_type == "cpu" else mx.context.gpu_memory_info(context.device_id)[0]


def _floats(context: Any, pixels: NDArray[np.uint8]) -> Any:
    """Images (N, C, H, W) on a device, as floats from 0 to 255: one copy, and the device brings the axes into order."""
    array, axes = _as_they_lie(pixels)
    return _in_order(_to(context, array).astype("float32"), axes)


def _as_they_lie(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], tuple[int, ...] | None]:
    """Images (N, C, H, W) as an array that can be copied in one piece, and the axes that make them of it.

    Decoders give (N, H, W, C). None: they are in their order already.
    """
    last = pixels.transpose(0, 2, 3, 1)
    return (pixels, None) if pixels.flags.c_contiguous or not last.flags.c_contiguous else (last, (0, 3, 1, 2))


def _in_order(images: Any, axes: tuple[int, ...] | None) -> Any:
    return images if axes is None else images.transpose(axes)
