"""What `hydra.launcher` says of a cluster, validated before anything is handed to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from energybench.config import fit
from energybench.errors import ConfigError

SECTION = "hydra.launcher"
SLURM = "hydra_plugins.energybench_launcher.SlurmLauncher"
RAY = "hydra_plugins.energybench_launcher.RayLauncher"
"""Our launchers, as Hydra's configuration names them."""


@dataclass(frozen=True)
class ClusterOptions:
    """What every launcher of ours takes.

    Attributes:
        cluster: what the cluster is called: part of what a cell is known by, as its devices are not known beforehand.
        nodes: generation of GPU -> how many of them a node has; what sweep.devices=all and gpu.count=all go by.
        look_s: seconds between two looks at the cells' folders.
        ask_s: seconds between two questions to the scheduler.
    """

    cluster: str = "cluster"
    nodes: dict[str, int] = field(default_factory=dict)
    look_s: float = 5.0
    ask_s: float = 60.0

    def __post_init__(self) -> None:
        for key in ("look_s", "ask_s"):
            if getattr(self, key) <= 0:
                raise ConfigError(f"{SECTION}.{key}={getattr(self, key)}: give seconds above 0")
        for generation, count in self.nodes.items():
            if count < 1:
                raise ConfigError(f"{SECTION}.nodes.{generation}={count}: give how many GPUs a node has, from 1")


@dataclass(frozen=True)
class SlurmOptions(ClusterOptions):
    """`hydra/launcher=slurm`; what is null is left to the cluster.

    Attributes:
        constraint: generation -> what --constraint calls it; one that is not named: its own name; null: no constraint.
        gpus: the option that asks for GPUs, of {count} and {generation}, the latter as `constraint` calls it.
        cpus: processor cores of a cell (--cpus-per-task).
        mem, time, partition, account: as sbatch takes them.
        exclusive: whether a cell has its node to itself; null: one that trains on the CPU.
        sbatch: further options of sbatch: {qos: high}; true stands for one without a value.
        of: the same for some cells: {pascal: {partition: old}}, by what `gpu=` says.
        at_once: cells of one array that run at the same time, at most.
        signal_s: seconds before the time limit at which a cell is told to come to its end.
        requeue: whether the scheduler may start a cell again after a pre-emption, or when its node failed.
        restarts: how often a cell that goes on from its checkpoints is started again after its time limit.
        python: the command that starts Python on a node; null: this interpreter.
        setup: shell lines before it.
    """

    cluster: str = "slurm"
    constraint: dict[str, str | None] = field(default_factory=dict)
    gpus: str = "--gres=gpu:{count}"
    cpus: int | None = 4
    mem: str | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    exclusive: bool | None = None
    sbatch: dict[str, Any] = field(default_factory=dict)
    of: dict[str, dict[str, Any]] = field(default_factory=dict)
    at_once: int = 256
    signal_s: int = 120
    requeue: bool = True
    restarts: int = 10
    python: str | None = None
    setup: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, least in (("at_once", 1), ("signal_s", 1), ("restarts", 0)):
            if getattr(self, key) < least:
                raise ConfigError(f"{SECTION}.{key}={getattr(self, key)}: give a whole number from {least}")
        try:
            option, given, _ = self.gpus.format(count=1, generation="pascal").partition("=")
        except (KeyError, IndexError, ValueError):
            option, given = "", ""
        if not (given and option.startswith("--")):
            raise ConfigError(
                f"{SECTION}.gpus={self.gpus}: give an option of sbatch, as --gres=gpu:{{count}} or "
                "--gpus={generation}:{count}"
            )


@dataclass(frozen=True)
class RayOptions(ClusterOptions):
    """`hydra/launcher=ray`.

    Attributes:
        address: of the cluster, as `ray.init` takes it.
        cpus: processor cores of a cell.
        labels: generation -> label that a node of it has: {pascal: "ray.io/accelerator-type=in(P100,P4)"}; null: none.
        resources: generation -> resources that a cell takes: {pascal: 1}; `cpu` for cells on the CPU.
        environment: names of variables of this process that the cells' processes are given.
    """

    cluster: str = "ray"
    address: str = "auto"
    cpus: float = 4
    labels: dict[str, str | None] = field(default_factory=dict)
    resources: dict[str, dict[str, float]] = field(default_factory=dict)
    environment: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        for generation, label in self.labels.items():
            if label is not None and not all(label.partition("=")):
                raise ConfigError(f"{SECTION}.labels.{generation}={label}: give label=value, or null")


SCHEMAS: dict[str, type[ClusterOptions]] = {SLURM: SlurmOptions, RAY: RayOptions}


def options_of(launcher: DictConfig) -> ClusterOptions | None:
    """The options of one of our launchers; None of any other.

    Raises:
        ConfigError: an unknown key, a wrong value.
    """
    plain = OmegaConf.to_container(launcher, resolve=True)
    assert isinstance(plain, dict)
    values = {str(key): value for key, value in plain.items()}
    schema = SCHEMAS.get(values.pop("_target_", ""))
    if schema is None:
        return None
    options: ClusterOptions = fit(SECTION, schema, values, "this launcher")
    return options
