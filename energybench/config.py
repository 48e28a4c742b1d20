"""From Hydra's composed configuration to a validated, frozen Experiment.

Hydra takes a misspelt key in a file, `+model.typo=1` and `batch=abc` without a word. So every section is merged with
the dataclass of the part that owns it, and what does not fit becomes one line that names the key and lists the valid
ones.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from energybench.errors import ConfigError
from energybench.registry import KINDS, Registry

AUTO = "auto"


@dataclass(frozen=True)
class Part:
    """A registered part chosen by name, with its options as plain values."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AutoEngine:
    """`engine=auto`: the first of `order` that is installed and runs on the device."""

    order: list[str] = field(default_factory=lambda: ["gluon", "torch"])


@dataclass(frozen=True)
class AutoMeter:
    """`meter=auto`: for each kind of device, the first of `order` that covers it."""

    order: dict[str, list[str]] = field(default_factory=lambda: {"gpu": ["nvml", "nvidia_smi"], "cpu": ["rapl", "tdp"]})


AUTOMATIC: dict[str, type] = {"engine": AutoEngine, "meter": AutoMeter}


@dataclass(frozen=True)
class Gpu:
    """Devices to train on: a generation, `auto` or `cpu`, and how many (a number or "all")."""

    name: str = AUTO
    count: Any = 1

    def __post_init__(self) -> None:
        count = self.count
        if count != "all" and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise ConfigError(f"gpu.count={count}: give a number of devices from 1, or all")


@dataclass(frozen=True)
class Budget:
    """How long to train: whichever of the limits is met first; a limit of null does not count."""

    epochs: int | None = 10
    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        limits = asdict(self)
        if all(value is None for value in limits.values()):
            raise ConfigError("budget: set at least one of budget.epochs, budget.steps, budget.seconds")
        for key, value in limits.items():
            _require(value is None or value > 0, f"budget.{key}", value, "a number above 0, or null")


@dataclass(frozen=True)
class Training:
    """The training recipe.

    Attributes:
        optimizer: sgd | nag | adam.
        lr: learning rate, the same for every batch size.
        momentum: of sgd and nag.
        weight_decay: L2 penalty.
    """

    optimizer: str = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        names = ("sgd", "nag", "adam")
        _require(self.optimizer in names, "training.optimizer", self.optimizer, f"one of {', '.join(names)}")
        _require(self.lr > 0, "training.lr", self.lr, "a number above 0")
        _require(0 <= self.momentum < 1, "training.momentum", self.momentum, "a number from 0 to below 1")
        _require(self.weight_decay >= 0, "training.weight_decay", self.weight_decay, "a number from 0")


@dataclass(frozen=True)
class Measurement:
    """What is done around training so that its energy can be told.

    Attributes:
        baseline_s: seconds of idle measured before the worker starts; without a sensor there is nothing to measure.
        warmup_steps: steps before the first measured one, which change no weight.
        validate: whether each epoch ends with a pass over the validation split.
        watchdog_s: seconds without a sign of life after which a worker counts as hung and is ended.
    """

    baseline_s: float = 5.0
    warmup_steps: int = 5
    validate: bool = True
    watchdog_s: float = 300.0

    def __post_init__(self) -> None:
        _require(self.baseline_s >= 0, "measure.baseline_s", self.baseline_s, "a number from 0")
        _require(self.warmup_steps >= 0, "measure.warmup_steps", self.warmup_steps, "a whole number from 0")
        _require(self.watchdog_s > 0, "measure.watchdog_s", self.watchdog_s, "a number above 0")


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
        gpu: devices.
        batch: samples a step, in all over the devices.
        seed: of weights, order of samples and augmentation.
        training, budget, measure, tracking: see their classes.
    """

    model: Part
    dataset: Part
    engine: Part
    meter: Part
    gpu: Gpu
    batch: int
    seed: int
    training: Training
    budget: Budget
    measure: Measurement
    tracking: Tracking

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Experiment:
        """The inverse of `to_json`."""
        parts: dict[str, Any] = {kind: Part(**data[kind]) for kind in KINDS}
        sections: dict[str, Any] = {name: schema(**data[name]) for name, schema in SECTIONS.items()}
        return cls(**parts, **sections, batch=data["batch"], seed=data["seed"])


SECTIONS: dict[str, Any] = {
    "gpu": Gpu,
    "training": Training,
    "budget": Budget,
    "measure": Measurement,
    "tracking": Tracking,
}
"""Sections the core owns -> their schema; the other sections belong to registered parts."""


@dataclass(frozen=True)
class _Numbers:
    batch: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.batch > 0, "batch", self.batch, "a whole number above 0")
        _require(0 <= self.seed < 2**31, "seed", self.seed, "a whole number from 0 to 2147483647")


TOP_LEVEL = (*KINDS, *SECTIONS, "batch", "seed")


def resolve(config: DictConfig, registry: Registry) -> Experiment:
    """Validates a composed configuration.

    Raises:
        ConfigError: an unknown key or name, a value of the wrong type or out of range; one line.
        PluginError: the part that was asked for is broken or claimed twice.
    """
    plain = _plain(config)
    for key in plain:
        if key not in TOP_LEVEL:
            raise unknown_key(str(key), registry)
    parts: dict[str, Any] = {kind: _part(kind, plain.get(kind), registry) for kind in KINDS}
    sections: dict[str, Any] = {
        name: fit(name, schema, _section(name, plain), name) for name, schema in SECTIONS.items()
    }
    numbers = fit("", _Numbers, {key: plain[key] for key in ("batch", "seed") if key in plain}, "energybench")
    return Experiment(**parts, **sections, batch=numbers.batch, seed=numbers.seed)


def _plain(config: DictConfig) -> dict[str, Any]:
    """Everything but Hydra's own node, interpolations resolved."""
    try:
        return {str(key): _value(config[key]) for key in config if key != "hydra"}
    except OmegaConfBaseException as error:
        raise ConfigError(_first_line(error)) from error


def _value(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True) if OmegaConf.is_config(node) else node


def _section(name: str, plain: dict[str, Any]) -> dict[str, Any]:
    value = plain.get(name, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{name}={value}: {name} is a section; valid: {', '.join(_keys(SECTIONS[name], name))}")
    return value


def _part(kind: str, node: Any, registry: Registry) -> Part:
    if not isinstance(node, dict) or not isinstance(node.get("name"), str):
        raise ConfigError(f"{kind}={node}: choose one of {', '.join(registry.names(kind))}")
    options = {key: value for key, value in node.items() if key != "name"}
    name = node["name"]
    schema = AUTOMATIC[kind] if name == AUTO and kind in AUTOMATIC else registry.get(kind, name).schema
    fitted = fit(kind, schema, options, f"{kind} {name!r}")
    return Part(name, asdict(fitted))


def fit(section: str, schema: Any, values: dict[str, Any], owner: str) -> Any:
    """An instance of dataclass `schema` from plain `values`.

    Raises:
        ConfigError: names the key (prefixed by `section`), the value and what `owner` takes.
    """
    try:
        base = OmegaConf.structured(schema)
        OmegaConf.set_readonly(base, False)
        fitted: Any = OmegaConf.to_object(OmegaConf.merge(base, values))
    except ConfigKeyError as error:
        key = error.full_key or str(error.key)
        raise _unknown(f"{section}.{key}" if section else key, _keys(schema, section), owner) from error
    except OmegaConfBaseException as error:
        key = ".".join(filter(None, (section, error.full_key)))
        raise ConfigError(f"{key}: {_first_line(error)}") from error
    _refuse_non_finite(section, asdict(fitted))
    return fitted


def _keys(schema: Any, section: str) -> list[str]:
    return [f"{section}.{f.name}" if section else f.name for f in dataclasses.fields(schema)]


def _unknown(key: str, valid: Iterable[str], owner: str, hint: str = "") -> ConfigError:
    valid = list(valid)
    close = [] if hint else difflib.get_close_matches(key, valid, n=1)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    return ConfigError(f"unknown key {key!r}{guess}{hint}; {owner} takes: {', '.join(valid) or 'no options'}")


def unknown_key(key: str, registry: Registry) -> ConfigError:
    """The error for a key that no section knows, with the parts that would take it."""
    section, _, option = key.partition(".")
    if not option or section not in (*KINDS, *SECTIONS):
        return _unknown(key, TOP_LEVEL, "energybench")
    if section in SECTIONS:
        return _unknown(key, _keys(SECTIONS[section], section), section)
    takers = [
        f"{section}={entry.name}"
        for entry in registry.entries()
        if entry.kind == section and option.split(".")[0] in {f.name for f in dataclasses.fields(entry.schema)}
    ]
    hint = f"; it belongs to {' and '.join(takers)}" if takers else ""
    return _unknown(key, registry_keys(section, registry), section, hint)


def registry_keys(kind: str, registry: Registry) -> list[str]:
    """Every option of every part of a kind."""
    keys = [key for entry in registry.entries() if entry.kind == kind for key in _keys(entry.schema, kind)]
    return sorted(set(keys))


def make(registry: Registry, kind: str, part: Part) -> Any:
    """The part itself: its factory called with its options. A model also wants classes: see `make_architecture`."""
    entry = registry.get(kind, part.name)
    return entry.factory(fit(kind, entry.schema, part.options, f"{kind} {part.name!r}"))


def make_architecture(registry: Registry, part: Part, classes: int) -> Any:
    """The described network of `part` for `classes` classes."""
    entry = registry.get("model", part.name)
    return entry.factory(fit("model", entry.schema, part.options, f"model {part.name!r}"), classes)


def _require(condition: bool, key: str, value: object, wanted: str) -> None:
    if not condition:
        raise ConfigError(f"{key}={value}: give {wanted}")


def _refuse_non_finite(section: str, values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{section}.{key}={value}: give a finite number")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
