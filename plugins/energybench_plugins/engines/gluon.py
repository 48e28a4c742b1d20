"""MXNet's Gluon: data-parallel over CPU contexts or GPUs of one process, through one code path.

This module is the light side; `gluon_trainer` imports MXNet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from energybench.availability import Availability
from energybench.devices import CPU, Device
from energybench.errors import ConfigError, DeviceError
from energybench.hookspecs import Register
from energybench.run.engine import Task, Trainer
from energybench_plugins.engines import mxnet_build
from energybench_plugins.engines.fatbin import dotted
from energybench_plugins.engines.gluon_options import ENGINE, GluonOptions
from energybench_plugins.engines.starting import fault_at_start

if TYPE_CHECKING:
    from energybench.experiment import Experiment

PROBE = (
    "from energybench_plugins.engines.mxnet_import import import_mxnet;"
    "mx = import_mxnet(); assert (mx.nd.ones((2, 2)) * 2).sum().asscalar() == 8; print(mx.__version__)"
)


class GluonEngine:
    """See `energybench.run.engine.Engine`."""

    def __init__(self, options: GluonOptions) -> None:
        self._options = options

    def check(self) -> Availability:
        """By the metadata of the installed distributions."""
        build = mxnet_build.installed_build()
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
        fault = fault_at_start(PROBE, state.detail, "gluon", mxnet_build.library_path())
        return fault or Availability(True, f"{state.detail}, {_covered()}")

    def refuses(self, device: Device) -> str | None:
        """A GPU for which the installed library holds no code: the CPU build any, a CUDA build those newer than it.

        A GPU whose compute capability its meter does not tell (rank 0) is left to CUDA itself.
        """
        if device.kind == CPU:
            return None
        if not mxnet_build.is_cuda_build():
            return "the installed MXNet is the CPU build; pip install 'energybench[gluon-cuda]', or use engine=torch"
        try:
            code = mxnet_build.code()
        except DeviceError as error:
            return str(error)
        if not device.rank or code.runs_on(device.rank):
            return None
        return (
            f"the installed MXNet holds code for compute capability {code}, and none that runs on "
            f"{dotted(device.rank)}; use engine=torch"
        )

    def validate(self, experiment: Experiment, devices: Sequence[Device]) -> None:
        """Precision and kvstore, as far as the device has them."""
        cpu = devices[0].kind == CPU
        if experiment.precision in ("tf32", "bf16"):
            raise ConfigError(f"precision={experiment.precision}: engine=gluon has fp32 and fp16; use engine=torch")
        if experiment.precision == "fp16" and cpu:
            raise ConfigError("precision=fp16: MXNet multiplies no fp16 matrices on the CPU; use fp32, or a GPU")
        if self._options.kvstore == "nccl" and cpu:
            raise ConfigError("engine.kvstore=nccl: NCCL is for GPUs; use device or local")

    def workers(self, devices: Sequence[Device]) -> Sequence[Sequence[Device]]:
        """One process drives all devices."""
        return [devices]

    def environment(self, devices: Sequence[Device]) -> Mapping[str, str]:
        """The worker finds CUDA's libraries."""
        return mxnet_build.library_path()

    def trainer(self, task: Task) -> Trainer:
        """Builds the network; imports MXNet."""
        from energybench_plugins.engines.gluon_trainer import GluonTrainer

        return GluonTrainer(task, self._options)


def _covered() -> str:
    """What the installed build trains on."""
    if not mxnet_build.is_cuda_build():
        return "CPU build"
    try:
        return f"CPU, and GPUs by code for compute capability {mxnet_build.code()}"
    except DeviceError as error:
        return str(error)


def energybench_register_engines(register: Register) -> None:
    """Registers `gluon`."""
    register(ENGINE, GluonEngine, GluonOptions)
