"""PyTorch: data-parallel by one process a device, through one code path on the CPU and on GPUs.

This module is the light side; `torch_trainer` imports PyTorch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from energybench.availability import Availability
from energybench.devices import CPU, Device
from energybench.errors import ConfigError, DeviceError
from energybench.hookspecs import Register
from energybench.run.engine import Task, Trainer
from energybench_plugins.engines import torch_build
from energybench_plugins.engines.fatbin import dotted
from energybench_plugins.engines.starting import fault_at_start
from energybench_plugins.engines.torch_options import ENGINE, TorchOptions

if TYPE_CHECKING:
    from energybench.experiment import Experiment

PROBE = "import torch; assert (torch.ones(2, 2) * 2).sum().item() == 8; print(torch.__version__)"

AMPERE = 80
"""Compute capability (8.0) from which there are tf32 and bf16."""


class TorchEngine:
    """See `energybench.run.engine.Engine`."""

    def __init__(self, options: TorchOptions) -> None:
        self._options = options

    def check(self) -> Availability:
        """By the metadata of the installed distribution."""
        version = torch_build.version()
        if version is None:
            return Availability(False, "PyTorch is not installed", "pip install 'energybench[torch]'")
        return Availability(True, f"torch {version}")

    def probe(self) -> Availability:
        """Imports PyTorch in a fresh interpreter and multiplies there."""
        state = self.check()
        if not state.ok:
            return state
        fault = fault_at_start(PROBE, state.detail, "torch")
        return fault or Availability(True, f"{state.detail}, {_covered()}")

    def refuses(self, device: Device) -> str | None:
        """A GPU for which the installed build holds no code: the CPU build any.

        A GPU whose compute capability its meter does not tell (rank 0) is left to CUDA itself.
        """
        if device.kind == CPU:
            return None
        try:
            if torch_build.cuda() is None:
                return "the installed torch is the CPU build; install a CUDA build of torch"
        except DeviceError as error:
            return str(error)
        code = torch_build.code()
        if code is None or not device.rank or code.runs_on(device.rank):
            return None
        return (
            f"the installed torch holds code for compute capability {code}, and none that runs on "
            f"{dotted(device.rank)}; install another build of torch, or use engine=gluon"
        )

    def validate(self, experiment: Experiment, devices: Sequence[Device]) -> None:
        """Precision, graphs and fusing, as far as the device has them."""
        device = devices[0]
        _check_precision(experiment.precision, device)
        graph = self._options.graph
        if graph and device.kind == CPU:
            raise ConfigError("engine.graph=true: CUDA graphs are for GPUs; use engine.graph=null")
        if graph and not self._options.fused and experiment.training.optimizer in ("sgd", "nag"):
            raise ConfigError(
                f"engine.fused=false: {experiment.training.optimizer} then reads its learning rate on the host, which "
                "no CUDA graph can; use engine.fused=true, or engine.graph=false"
            )

        if self._options.half_weights:
            _check_half_weights(experiment)

    def workers(self, devices: Sequence[Device]) -> Sequence[Sequence[Device]]:
        """One process a device."""
        return [[device] for device in devices]

    def environment(self, devices: Sequence[Device]) -> Mapping[str, str]:
        """The worker sees exactly its card, on the CPU none. Workers that are all on this machine meet on loopback."""
        visible = ",".join(device.uuid for device in devices if device.kind != CPU)
        meeting = {name: os.environ.get(name, "lo") for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")}
        return {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "CUDA_VISIBLE_DEVICES": visible,
            "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",  # its queries break the recording of a CUDA graph
            **meeting,
        }

    def spanning(self, interface: str) -> Mapping[str, str]:
        """See Spanning. Gloo would take the address of this host's name, often one of loopback; NCCL chooses well."""
        chosen = {name: os.environ.get(name) for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")}
        defaults = {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": ""}
        return {name: chosen[name] or default for name, default in defaults.items()}

    def trainer(self, task: Task) -> Trainer:
        """Builds the network; imports PyTorch."""
        from energybench_plugins.engines.torch_trainer import TorchTrainer

        return TorchTrainer(task, self._options)


def _check_precision(precision: str, device: Device) -> None:
    if precision == "tf32" and device.kind == CPU:
        raise ConfigError("precision=tf32: the CPU has no such arithmetic; use fp32, or a GPU from Ampere on")
    if precision in ("tf32", "bf16") and device.kind != CPU and 0 < device.rank < AMPERE:
        raise ConfigError(
            f"precision={precision}: {device.name} has compute capability {dotted(device.rank)}, and it takes 8.0; "
            "use fp32 or fp16"
        )


def _check_half_weights(experiment: Experiment) -> None:
    if experiment.precision != "bf16":
        raise ConfigError(f"engine.half_weights=true: precision={experiment.precision} has none; use precision=bf16")
    if experiment.training.accumulate > 1:
        raise ConfigError(
            f"engine.half_weights=true: the gradients of training.accumulate={experiment.training.accumulate} parts "
            "would be added up in bf16; use training.accumulate=1, or engine.half_weights=false"
        )


def _covered() -> str:
    """What the installed build trains on."""
    try:
        cuda = torch_build.cuda()
    except DeviceError as error:
        return str(error)
    if cuda is None:
        return "CPU build"
    code = torch_build.code()
    return f"CUDA {cuda}" if code is None else f"CPU, and GPUs by code for compute capability {code}"


def energybench_register_engines(register: Register) -> None:
    """Registers `torch`."""
    register(ENGINE, TorchEngine, TorchOptions)
