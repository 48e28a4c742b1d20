"""Several processes that train as one: how they meet, agree and add up. Imports PyTorch."""

from __future__ import annotations

import atexit
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import distributed

from energybench.errors import PluginError
from energybench.run.engine import Task

MEETING = "rendezvous"
"""The file in the run's folder by which the processes find each other."""


class Ranks:
    """The processes of a run, seen from one of them; alone, everything is as it is.

    Attributes:
        rank: number of this process.
        world: how many there are.

    Args:
        task: of this process.
        device: a torch.device.
    """

    def __init__(self, task: Task, device: Any) -> None:
        self.rank, self.world = task.rank, task.world
        self._device = device
        if self.alone:
            return
        backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
        distributed.init_process_group(backend, store=_store(task), rank=self.rank, world_size=self.world)
        atexit.register(distributed.destroy_process_group)

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.world == 1

    def parallel(self, module: Any, bucket_mb: int) -> Any:
        """The module with its gradients averaged over the ranks, while the way back still goes on."""
        if self.alone:
            return module
        return torch.nn.parallel.DistributedDataParallel(
            module,
            device_ids=None if self._device.type == "cpu" else [self._device.index],
            gradient_as_bucket_view=True,
            bucket_cap_mb=bucket_mb,
            **_without_buffers(),
        )

    def total(self, values: Any) -> Any:
        """Sum over the ranks, in place, of a tensor on the device."""
        if not self.alone:
            distributed.all_reduce(values)
        return values

    def average(self, tensors: Sequence[Any]) -> None:
        """Replaces each tensor, all float32, by its mean over the ranks."""
        if self.alone:
            return
        together = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(together)
        together.div_(self.world)
        for tensor, mean in zip(tensors, together.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def agree(self, value: float) -> float:
        """Rank 0's value, on every rank; waits for rank 0, not for the devices."""
        if self.alone:
            return value
        told = torch.tensor([value], dtype=torch.float64)
        distributed.broadcast(told, 0)
        return float(told)


def _store(task: Task) -> Any:
    """Where the processes find each other: on one machine in a file, else as torchrun's do in the first one's store."""
    if task.meeting is not None:
        host, _, port = task.meeting.rpartition(":")
        return distributed.TCPStore(host.strip("[]"), int(port), task.world, is_master=task.rank == 0)
    if task.directory is None:
        raise PluginError("engine torch: several processes need a folder in which to meet")
    return distributed.FileStore(str(task.directory / MEETING), task.world)


def _without_buffers() -> dict[str, bool]:
    """Leaves buffers alone, by the name that torch has for it: statistics are brought together once an epoch."""
    options = inspect.signature(torch.nn.parallel.DistributedDataParallel.__init__).parameters
    return {"forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers": False}
