"""What the supervisor tells a worker to do."""

from __future__ import annotations

import json
from dataclasses import dataclass

from energybench.devices import Device
from energybench.experiment import Experiment


@dataclass(frozen=True)
class Assignment:
    """What the supervisor sends.

    Attributes:
        experiment: the configuration, with engine and dataset resolved.
        devices: the devices of this worker.
        rank: number of this worker among `world`.
        world: number of workers.
        directory: the run's folder, for checkpoints.
        meeting: see Task.
        checkpoint: the run's own checkpoint to go on from, where it is not in `directory`.
        local_world: number of workers on this machine.
    """

    experiment: Experiment
    devices: tuple[Device, ...]
    rank: int
    world: int
    directory: str
    meeting: str | None = None
    checkpoint: str | None = None
    local_world: int = 1

    def to_line(self) -> bytes:
        """As one JSON line."""
        data = {
            "experiment": self.experiment.to_json(),
            "devices": [device.to_json() for device in self.devices],
            "rank": self.rank,
            "world": self.world,
            "directory": self.directory,
            "meeting": self.meeting,
            "checkpoint": self.checkpoint,
            "local_world": self.local_world,
        }
        return json.dumps(data).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Assignment:
        """The inverse of `to_line`."""
        data = json.loads(line)
        devices = tuple(Device(**device) for device in data["devices"])
        return cls(**{**data, "experiment": Experiment.from_json(data["experiment"]), "devices": devices})
