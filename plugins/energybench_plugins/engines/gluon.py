"""MXNet's Gluon: data-parallel over CPU contexts or GPUs of one process, through one code path.

This module is the light side; `gluon_trainer` imports MXNet.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from energybench.availability import Availability
from energybench.devices import CPU, Device
from energybench.errors import ConfigError
from energybench.hookspecs import Register
from energybench.run.engine import Task, Trainer

if TYPE_CHECKING:
    from energybench.config import Experiment

ENGINE = "gluon"
CPU_BUILD = "mxnet"
CUDA_BUILDS = ("mxnet-cu117", "mxnet-cu116", "mxnet-cu115", "mxnet-cu114", "mxnet-cu113", "mxnet-cu112")
PROBE = (
    "from energybench_plugins.engines.mxnet_import import import_mxnet;"
    "mx = import_mxnet(); assert (mx.nd.ones((2, 2)) * 2).sum().asscalar() == 8; print(mx.__version__)"
)
PROBE_TIMEOUT_S = 120


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


def installed_build() -> tuple[str, str] | None:
    """Name and version of the installed MXNet distribution; None where there is none."""
    for name in (*CUDA_BUILDS, CPU_BUILD):
        try:
            return name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


class GluonEngine:
    """See `energybench.run.engine.Engine`."""

    def __init__(self, options: GluonOptions) -> None:
        self._options = options

    def check(self) -> Availability:
        """By the metadata of the installed distributions."""
        build = installed_build()
        if build is None:
            return Availability(False, "MXNet is not installed", "pip install 'energybench[gluon]'")
        numpy = metadata.version("numpy")
        if int(numpy.split(".")[0]) > 1:
            return Availability(False, f"MXNet {build[1]} needs numpy below 2, not {numpy}", "pip install 'numpy<2'")
        return Availability(True, f"{build[0]} {build[1]}")

    def probe(self) -> Availability:
        """Imports MXNet in a fresh interpreter and multiplies there."""
        state = self.check()
        if not state.ok:
            return state
        try:
            done = subprocess.run(
                [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            return Availability(False, f"{state.detail} did not start within {PROBE_TIMEOUT_S} s", "try it by hand")
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return Availability(False, f"{state.detail} does not start: {said}", "reinstall energybench[gluon]")
        return Availability(True, f"{state.detail}, {'GPU and CPU' if self._cuda() else 'CPU build'}")

    def refuses(self, device: Device) -> str | None:
        """A CPU build has no code for a GPU."""
        if device.kind == CPU or self._cuda():
            return None
        return "the installed MXNet is the CPU build; pip install 'energybench[gluon-cuda]', or use engine=torch"

    def validate(self, experiment: Experiment, devices: Sequence[Device]) -> None:
        """Precision and kvstore, as far as the device has them."""
        cpu = devices[0].kind == CPU
        if experiment.precision in ("tf32", "bf16"):
            raise ConfigError(f"precision={experiment.precision}: engine=gluon has fp32 and fp16; use engine=torch")
        if experiment.precision == "fp16" and cpu:
            raise ConfigError("precision=fp16: MXNet multiplies no fp16 matrices on the CPU; use fp32, or a GPU")
        if self._options.kvstore == "nccl" and cpu:
            raise ConfigError("engine.kvstore=nccl: NCCL is for GPUs; use device or local")

    def _cuda(self) -> bool:
        build = installed_build()
        return build is not None and build[0] != CPU_BUILD

    def workers(self, devices: Sequence[Device]) -> Sequence[Sequence[Device]]:
        """One process drives all devices."""
        return [devices]

    def environment(self, devices: Sequence[Device]) -> Mapping[str, str]:
        """The worker sees exactly its cards, in this order; on the CPU it sees none."""
        visible = ",".join(device.uuid for device in devices if device.kind != CPU)
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": visible}

    def trainer(self, task: Task) -> Trainer:
        """Builds the network; imports MXNet."""
        from energybench_plugins.engines.gluon_trainer import GluonTrainer

        return GluonTrainer(task, self._options)


def energybench_register_engines(register: Register) -> None:
    """Registers `gluon`."""
    register(ENGINE, GluonEngine, GluonOptions)
