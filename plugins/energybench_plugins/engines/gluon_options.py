"""The options of `engine=gluon`, for its light side and for the side that imports MXNet."""

from __future__ import annotations

from dataclasses import dataclass

from energybench.errors import ConfigError

ENGINE = "gluon"


@dataclass(frozen=True)
class GluonOptions:
    """Options of `engine=gluon`.

    Attributes:
        kvstore: where gradients of several devices are added up: device | local | nccl (CUDA builds).
        hybridize: compile the network into a graph with static memory.
    """

    kvstore: str = "device"
    hybridize: bool = True

    def __post_init__(self) -> None:
        if self.kvstore not in ("device", "local", "nccl"):
            raise ConfigError(f"engine.kvstore={self.kvstore}: give one of device, local, nccl")
