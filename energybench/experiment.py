"""An experiment: every choice of a run, as frozen dataclasses that refuse values which cannot be."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass, field
from typing import Any

from energybench.errors import ConfigError
from energybench.node_options import Nodes
from energybench.power.calibration import Calibration
from energybench.power.flags import FLAGS
from energybench.registry import KINDS

AUTO = "auto"
METER = "meter"
MOST_DEVICES = 1024


@dataclass(frozen=True)
class Part:
    """A registered part chosen by name, with its options as plain values."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MeterPart(Part):
    """A meter, with what the core does around any meter.

    Attributes:
        calibration: device id (a GPU's UUID) -> correction of that board's energy.
        also: a label -> a further meter, read beside; its channels are never part of energy_j.
    """

    calibration: dict[str, Calibration] = field(default_factory=dict)
    also: dict[str, MeterPart] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> MeterPart:
        """From plain JSON values."""
        calibration = {device: Calibration(**values) for device, values in data.get("calibration", {}).items()}
        also = {label: cls.from_json(values) for label, values in data.get("also", {}).items()}
        return cls(data["name"], data["options"], calibration, also)


@dataclass(frozen=True)
class AutoEngine:
    """`engine=auto`: the first of `order` that is installed and runs on the device."""

    order: list[str] = field(default_factory=lambda: ["gluon", "torch"])

    def __post_init__(self) -> None:
        _require_names("engine.order", self.order)


@dataclass(frozen=True)
class AutoMeter:
    """`meter=auto`: for each kind of device, the first of `order` that covers it."""

    order: dict[str, list[str]] = field(default_factory=lambda: {"gpu": ["nvml", "nvidia_smi"], "cpu": ["rapl", "tdp"]})

    def __post_init__(self) -> None:
        for kind, names in self.order.items():
            _require_names(f"meter.order.{kind}", names)


AUTOMATIC: dict[str, type] = {"engine": AutoEngine, "meter": AutoMeter}


@dataclass(frozen=True)
class Gpu:
    """Devices to train on: a generation, `auto` or `cpu`, and how many (a number up to `MOST_DEVICES`, or "all")."""

    name: str = AUTO
    count: Any = 1

    def __post_init__(self) -> None:
        count = self.count
        number = isinstance(count, int) and not isinstance(count, bool) and 1 <= count <= MOST_DEVICES
        if count != "all" and not number:
            raise ConfigError(f"gpu.count={count}: give a number of devices from 1 to {MOST_DEVICES}, or all")


@dataclass(frozen=True)
class Budget:
    """How long to train: whichever of the limits is met first; a limit of null does not count.

    Attributes:
        epochs: passes over the training images.
        steps: optimiser steps.
        seconds: of training, warm-up and validation not counted.
        target_accuracy: top-1 accuracy on the validation images, from 0 to 1, at which training has reached its aim.
    """

    epochs: int | None = 10
    steps: int | None = None
    seconds: float | None = None
    target_accuracy: float | None = None

    def __post_init__(self) -> None:
        limits = {"epochs": self.epochs, "steps": self.steps, "seconds": self.seconds}
        if all(value is None for value in limits.values()):
            raise ConfigError("budget: set at least one of budget.epochs, budget.steps, budget.seconds")
        for key, value in limits.items():
            _require(value is None or value > 0, f"budget.{key}", value, "a number above 0, or null")
        target = self.target_accuracy
        _require(target is None or 0 < target <= 1, "budget.target_accuracy", target, "a number from 0 to 1, or null")


@dataclass(frozen=True)
class Training:
    """The training recipe.

    Attributes:
        optimizer: sgd | nag (Nesterov) | adam | lars; an engine may lack some.
        initializer: of weights: he (He et al. 2015, normal, fan-in) | xavier (Glorot & Bengio 2010, uniform).
        lr: learning rate at the start, for `reference_batch` samples a step.
        momentum: of sgd, nag and lars.
        weight_decay: L2 penalty.
        schedule: how lr falls, from epoch to epoch: constant | step | log_linear | plateau.
        milestones: of step: the shares of the budget after which lr drops.
        factor: of step and plateau: what lr is multiplied by.
        final_lr: of log_linear: lr of the last epoch.
        patience: of plateau: epochs without a lower validation loss before lr drops.
        min_lr: of plateau: lr never falls below it.
        lr_scaling: of lr against batch / reference_batch: none | linear | sqrt.
        reference_batch: the batch that lr was chosen for.
        label_smoothing: share of the target spread evenly over the classes (Szegedy et al. 2016).
        mixup: alpha of the Beta distribution that pairs of samples are mixed by (Zhang et al. 2018); 0: no mixing.
        accumulate: parts a batch is worked through in, their gradients added up before the step.
    """

    optimizer: str = "sgd"
    initializer: str = "he"
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"
    milestones: list[float] = field(default_factory=lambda: [1 / 3, 2 / 3])
    factor: float = 0.1
    final_lr: float = 0.0001
    patience: int = 3
    min_lr: float = 0.0001
    lr_scaling: str = "none"
    reference_batch: int = 256
    label_smoothing: float = 0.0
    mixup: float = 0.0
    accumulate: int = 1

    def __post_init__(self) -> None:
        for key, names in _TRAINING_NAMES.items():
            _require(getattr(self, key) in names, f"training.{key}", getattr(self, key), f"one of {', '.join(names)}")
        for key in ("lr", "final_lr", "factor", "reference_batch", "accumulate"):
            _require(getattr(self, key) > 0, f"training.{key}", getattr(self, key), "a number above 0")
        for key in ("weight_decay", "patience", "min_lr", "mixup"):
            _require(getattr(self, key) >= 0, f"training.{key}", getattr(self, key), "a number from 0")
        for key in ("momentum", "label_smoothing"):
            _require(0 <= getattr(self, key) < 1, f"training.{key}", getattr(self, key), "a number from 0 to below 1")
        rising = self.milestones == sorted(self.milestones) and all(0 < share < 1 for share in self.milestones)
        _require(rising, "training.milestones", self.milestones, "rising shares between 0 and 1")


_TRAINING_NAMES = {
    "optimizer": ("sgd", "nag", "adam", "lars"),
    "initializer": ("he", "xavier"),
    "schedule": ("constant", "step", "log_linear", "plateau"),
    "lr_scaling": ("none", "linear", "sqrt"),
}

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


@dataclass(frozen=True)
class Checkpoint:
    """Saving and going on.

    Attributes:
        every_epochs: a checkpoint after each so many epochs, in the run's folder; null: none.
        resume: a checkpoint file to go on from; auto: the one in the run's own folder, if an earlier attempt left one
            there, and one is saved when the run is stopped; null: start anew.
        grace_s: seconds that a run which is stopped may take to save one.
    """

    every_epochs: int | None = None
    resume: str | None = None
    grace_s: float = 20.0

    @property
    def when_stopped(self) -> bool:
        """Whether a run that is stopped saves a checkpoint."""
        return self.every_epochs is not None or self.resume == AUTO

    def __post_init__(self) -> None:
        every = self.every_epochs
        _require(self.grace_s >= 0, "checkpoint.grace_s", self.grace_s, "a number from 0")
        _require(every is None or every > 0, "checkpoint.every_epochs", every, "a whole number above 0, or null")


LOCKS = ("refuse", "wait", "ignore")


@dataclass(frozen=True)
class Measurement:
    """What is done around training so that its energy can be told.

    Attributes:
        baseline_s: seconds of idle measured before the worker starts; without a sensor there is nothing to measure.
        baseline_max_s: seconds after which idle is taken as it is, where it does not become steady before; never less
            than baseline_s.
        context_s: seconds of idle measured when the network is on the devices, before the warm-up; null: on GPUs as
            baseline_s, at most 2, else none.
        cooldown_s: seconds of rest before each cell of a sweep but the first.
        cooldown_c: the devices cool to this temperature, degrees Celsius, before any run; null: to none.
        cooldown_max_s: longest rest for both, seconds; never less than cooldown_s.
        lock: what to do where another run measures the same device: refuse | wait | ignore; null: refuse, and on a
            cluster, where nobody knows who else is on a node, wait.
        warmup_steps: steps before the first measured one, which change no weight.
        validate: whether there are passes over the validation split.
        validate_every: epochs that are trained, and measured as one phase, before each validation; the last phase
            has what is left.
        watchdog_s: seconds without a sign of life after which a worker counts as hung and is ended.
    """

    baseline_s: float = 5.0
    baseline_max_s: float = 30.0
    context_s: float | None = None
    cooldown_s: float = 0.0
    cooldown_c: float | None = None
    cooldown_max_s: float = 600.0
    lock: str | None = None
    warmup_steps: int = 5
    validate: bool = True
    validate_every: int = 1
    watchdog_s: float = 300.0

    def __post_init__(self) -> None:
        for key in ("baseline_s", "baseline_max_s", "cooldown_s", "cooldown_max_s"):
            _require(getattr(self, key) >= 0, f"measure.{key}", getattr(self, key), "a number from 0")
        context_s, cooldown_c = self.context_s, self.cooldown_c
        below_watchdog = context_s is None or 0 <= context_s < self.watchdog_s
        _require(below_watchdog, "measure.context_s", context_s, "a number from 0, below measure.watchdog_s, or null")
        _require(cooldown_c is None or cooldown_c > 0, "measure.cooldown_c", cooldown_c, "degrees Celsius, or null")
        _require(self.lock in (None, *LOCKS), "measure.lock", self.lock, f"one of {', '.join(LOCKS)}, or null")
        _require(self.warmup_steps >= 0, "measure.warmup_steps", self.warmup_steps, "a whole number from 0")
        _require(self.validate_every > 0, "measure.validate_every", self.validate_every, "a whole number above 0")
        _require(self.watchdog_s > 0, "measure.watchdog_s", self.watchdog_s, "a number above 0")


@dataclass(frozen=True)
class Quality:
    """What becomes of a run whose result something speaks against (docs/quality.md).

    Attributes:
        strict: such a run fails; its numbers are kept.
        ignore: flags that do not make it fail; they are recorded all the same.
    """

    strict: bool = False
    ignore: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        unknown = [name for name in self.ignore if name not in FLAGS]
        _require(not unknown, "quality.ignore", self.ignore, f"names among {', '.join(FLAGS)}")


DEVICE_AXES = ("all",)
CODES = ("same", "any")
RERUNS = ("failed", "all")


@dataclass(frozen=True)
class SweepOptions:
    """How the cells of a sweep are chosen, ordered and found again (docs/study.md).

    Attributes:
        name: what the sweep is called, and its folder below runs/; null: after what varies in it, and the time.
        devices: all: the grid also runs over every generation of GPU here, each from one card to all of them, or what
            `gpu` and `gpu.count` leave of that; null: `gpu` and `gpu.count` say it.
        shuffle: a seed by which the cells are shuffled; null: as written.
        code: whose finished cells are not run again: same, of the same code; any, whatever the code.
        dry_run: true: the cells are listed, and nothing is run or written.
    """

    name: str | None = None
    devices: str | None = None
    shuffle: int | None = None
    code: str = "same"
    dry_run: bool = False

    def __post_init__(self) -> None:
        _require(self.name is None or bool(self.name), "sweep.name", self.name, "a name, or null")
        inside = "/" not in (self.name or "") and self.name not in (".", "..")
        _require(inside, "sweep.name", self.name, "a name without /; hydra.sweep.dir=... takes a folder elsewhere")
        _require(self.devices in (None, *DEVICE_AXES), "sweep.devices", self.devices, "all, or null")
        _require(self.shuffle is None or self.shuffle >= 0, "sweep.shuffle", self.shuffle, "a whole number, or null")
        _require(self.code in CODES, "sweep.code", self.code, f"one of {', '.join(CODES)}")


@dataclass(frozen=True)
class Tracking:
    """Where runs are recorded: MLflow (`uri` null: MLFLOW_TRACKING_URI, else SQLite here), or nowhere."""

    name: str = "mlflow"
    uri: str | None = None
    experiment: str = "energybench"

    def __post_init__(self) -> None:
        _require(self.name in ("mlflow", "none"), "tracking.name", self.name, "mlflow or none")
        _require(bool(self.experiment), "tracking.experiment", self.experiment, "a name")


@dataclass(frozen=True)
class Experiment:
    """One cell: everything that decides what is run, validated.

    Attributes:
        model, dataset, engine, meter: registered parts (`engine` and `meter` may be `auto`).
        gpu: devices, of each node.
        nodes: machines that train as one.
        batch: samples a step, in all over the devices.
        seed: of weights, order of samples and augmentation.
        precision: fp32 | tf32 | bf16 | fp16; an engine may lack some.
        rerun: which cells of an earlier sweep in the same folder are run again: failed | all; null: unfinished ones.
        training, budget, measure, quality, sweep, checkpoint, tracking: see their classes.
    """

    model: Part
    dataset: Part
    engine: Part
    meter: MeterPart
    gpu: Gpu
    nodes: Nodes
    batch: int
    seed: int
    precision: str
    rerun: str | None
    training: Training
    budget: Budget
    measure: Measurement
    quality: Quality
    sweep: SweepOptions
    checkpoint: Checkpoint
    tracking: Tracking

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Experiment:
        """The inverse of `to_json`."""
        parts: dict[str, Any] = {kind: Part(**data[kind]) for kind in KINDS if kind != METER}
        parts[METER] = MeterPart.from_json(data[METER])
        sections: dict[str, Any] = {name: schema(**data[name]) for name, schema in SECTIONS.items()}
        return cls(**parts, **sections, **{key: data[key] for key in NUMBERS})


SECTIONS: dict[str, Any] = {
    "gpu": Gpu,
    "nodes": Nodes,
    "training": Training,
    "budget": Budget,
    "measure": Measurement,
    "quality": Quality,
    "sweep": SweepOptions,
    "checkpoint": Checkpoint,
    "tracking": Tracking,
}
"""Sections the core owns -> their schema; the other sections belong to registered parts."""


@dataclass(frozen=True)
class Numbers:
    """The keys that stand in no section."""

    batch: int = 64
    seed: int = 0
    precision: str = "fp32"
    rerun: str | None = None

    def __post_init__(self) -> None:
        _require(self.precision in PRECISIONS, "precision", self.precision, f"one of {', '.join(PRECISIONS)}")
        _require(self.rerun in (None, *RERUNS), "rerun", self.rerun, f"one of {', '.join(RERUNS)}, or null")
        _require(self.batch > 0, "batch", self.batch, "a whole number above 0")
        _require(0 <= self.seed < 2**31, "seed", self.seed, "a whole number from 0 to 2147483647")


NUMBERS = tuple(f.name for f in dataclasses.fields(Numbers))
TOP_LEVEL = (*KINDS, *SECTIONS, *NUMBERS)


def _require(condition: bool, key: str, value: object, wanted: str) -> None:
    if not condition:
        raise ConfigError(f"{key}={value}: give {wanted}")


def _require_names(key: str, values: list[str]) -> None:
    """OmegaConf lets a mapping through where a list of texts is wanted."""
    _require(all(isinstance(value, str) for value in values), key, values, "a list of names")
