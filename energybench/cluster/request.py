"""What a cell asks of a cluster. Which cards it gets is known when it has them: here a request stands for them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from energybench.cluster.options import SECTION, ClusterOptions
from energybench.devices import CPU, GPU, Device
from energybench.errors import ConfigError, DeviceError
from energybench.experiment import AUTO, Gpu
from energybench.registry import Registry
from energybench.run.preflight import CPU_NAMES, Machine


class Cluster(Machine):
    """Machines of which this is none: what a cell asks for is taken to be there, and its node checks it.

    Args:
        registry: of parts.
        options: of the launcher.
    """

    here = False

    def __init__(self, registry: Registry, options: ClusterOptions) -> None:
        super().__init__(registry)
        self._options = options

    @property
    def host(self) -> str:
        """What stands for the host of a CPU: any of the cluster's."""
        return self._options.cluster

    @property
    def gpus(self) -> list[Device]:
        """Raises ConfigError: nothing can be chosen among cards that are not known."""
        raise ConfigError(
            f"gpu=auto: {self.host} has to be told what to give; name a generation, as gpu=pascal, or gpu=cpu"
        )

    @cached_property
    def cpu(self) -> Device:
        """A CPU of the cluster."""
        return Device(CPU, CPU, f"CPU of {self.host}", CPU)

    def inventory(self) -> Sequence[Device]:
        """What `nodes` says that nodes have; raises ConfigError where it says nothing."""
        if not self._options.nodes:
            raise ConfigError(
                f"sweep.devices=all: which GPUs the nodes of {self.host} have is not known here; say it, as in "
                f"+{SECTION}.nodes.pascal=2, or name gpu and gpu.count"
            )
        return [self._gpu(generation) for generation, count in self._options.nodes.items() for _ in range(count)]

    def take(self, gpu: Gpu) -> list[Device]:
        """As many as are asked for; raises DeviceError where no node has so many."""
        nodes = self._options.nodes
        if gpu.count == "all" and gpu.name not in nodes:
            raise ConfigError(
                f"gpu.count=all: how many a node of {self.host} has is not known here; give a number, or "
                f"+{SECTION}.nodes.{gpu.name}=..."
            )
        count = nodes[gpu.name] if gpu.count == "all" else int(gpu.count)
        if nodes and count > nodes.get(gpu.name, 0):
            listed = ", ".join(f"{number} x {generation}" for generation, number in nodes.items())
            raise DeviceError(
                f"gpu={gpu.name} gpu.count={gpu.count}: a node of {self.host} has {listed} ({SECTION}.nodes)"
            )
        return [self._gpu(gpu.name)] * count

    def _gpu(self, generation: str) -> Device:
        return Device(GPU, f"{generation} of {self.host}", f"{generation} of {self.host}", generation)


def asked(gpu: Gpu, options: ClusterOptions) -> tuple[str, int]:
    """What a cell asks for: (generation, number of GPUs); of one that trains on the CPU ("cpu", 0)."""
    if gpu.name in CPU_NAMES:
        return CPU, 0
    assert gpu.name != AUTO  # was refused before
    return gpu.name, options.nodes[gpu.name] if gpu.count == "all" else int(gpu.count)
