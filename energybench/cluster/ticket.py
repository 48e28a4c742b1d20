"""What a node is given of a cell, and what it leaves in the cell's folder for those who wait elsewhere."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from energybench.experiment import Gpu
from energybench.whole import whole

NODE_FILE = "node.json"


@dataclass(frozen=True)
class Ticket:
    """One cell of a sweep, as it is handed to a scheduler.

    Attributes:
        number: of its folder.
        name: what it is called: 'lenet batch=64 gpu=pascal'.
        config: composed, Hydra's own node with it.
        folder: that the command was given in; relative paths are meant from there.
        environment: variables that its process is given where the scheduler passes none.
    """

    number: int
    name: str
    config: DictConfig
    folder: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def gpu(self) -> Gpu:
        """The devices that it asks for; validated when it was composed."""
        return Gpu(str(self.config.gpu.name), self.config.gpu.count)

    @property
    def directory(self) -> Path:
        """The sweep's folder."""
        return Path(self.folder) / str(self.config.hydra.sweep.dir)


def for_a_cluster(config: DictConfig, number: int) -> DictConfig:
    """A composed configuration as a node takes it: its job has the cell's number, and what is locked is waited for."""
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
        if OmegaConf.select(config, "measure.lock") is None:
            OmegaConf.update(config, "measure.lock", "wait")
    return config


@dataclass(frozen=True)
class Node:
    """Where a cell runs, or ran.

    Attributes:
        host: name of the node.
        job: what the scheduler calls it.
        started_at: ISO 8601.
        restarts: how often the scheduler has started it again.
    """

    host: str
    job: str
    started_at: str
    restarts: int = 0

    def write(self, folder: Path) -> None:
        """Into a cell's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        with whole(folder / NODE_FILE) as file:
            file.write(f"{json.dumps(asdict(self), indent=2)}\n".encode())

    @classmethod
    def read(cls, folder: Path) -> Node | None:
        """From a cell's folder; None where no node has begun with it."""
        try:
            return cls(**json.loads((folder / NODE_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


def this_node(job: str, restarts: int = 0, host: str | None = None) -> Node:
    """The node of this process, by its scheduler's name for it where that has one."""
    now = datetime.now().astimezone().isoformat(timespec="milliseconds")
    return Node(host or platform.node(), job, now, restarts)
