"""The options of `engine=torch`, for its light side and for the side that imports PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from energybench.devices import CPU, Device
from energybench.errors import ConfigError

ENGINE = "torch"

COMPILE_MODES = ("none", "default", "max-autotune-no-cudagraphs", "reduce-overhead", "max-autotune")
GRAPHING_MODES = ("reduce-overhead", "max-autotune")
"""Those that record CUDA graphs of their own."""

TENSOR_CORES = 70
"""Compute capability (7.0) from which half precision is fastest with the channels last."""


@dataclass(frozen=True)
class TorchOptions:
    """Options of `engine=torch`; null leaves a choice to the device and the precision.

    Attributes:
        channels_last: keep maps as (N, H, W, C) in memory; null: for tf32, bf16 and fp16 on GPUs with tensor cores.
        compile: mode of torch.compile for forward and backward pass: none | default | max-autotune-no-cudagraphs |
            reduce-overhead | max-autotune; the last two record CUDA graphs of their own and need `graph: false`.
        compile_cache: folder that keeps what was compiled from run to run; null: a new one for each run, so that
            every run compiles anew.
        compile_options: of torch.compile's Inductor, on top of what the mode sets: coordinate_descent_tuning: true.
        graph: record the whole step (forward, backward, optimiser) in one CUDA graph; null: on a GPU.
        fused: update all parameters by one kernel.
        half_weights: of bf16: forward and backward pass work on a copy of the weights in bf16, made once a step by one
            kernel, and not on casts of each weight.
        cudnn_benchmark: let cuDNN try its ways to convolve on the first steps, and keep the fastest; false: it takes
            what its heuristics say.
        bucket_mb: of several devices: megabytes of gradients that are added up together.
    """

    channels_last: bool | None = None
    compile: str = "none"
    compile_cache: str | None = None
    compile_options: dict[str, Any] = field(default_factory=dict)
    graph: bool | None = None
    fused: bool = True
    half_weights: bool = False
    cudnn_benchmark: bool = True
    bucket_mb: int = 25

    def __post_init__(self) -> None:
        if self.compile not in COMPILE_MODES:
            raise ConfigError(f"engine.compile={self.compile}: give one of {', '.join(COMPILE_MODES)}")
        if self.graph and self.compile in GRAPHING_MODES:
            raise ConfigError(
                f"engine.compile={self.compile} records CUDA graphs of its own; set engine.graph=false, "
                "or use max-autotune-no-cudagraphs"
            )
        if self.compile_options and self.compile == "none":
            raise ConfigError(
                f"engine.compile_options: {', '.join(self.compile_options)} of what is not compiled; "
                "set engine.compile=default"
            )
        if self.bucket_mb < 1:
            raise ConfigError(f"engine.bucket_mb={self.bucket_mb}: give a whole number from 1")

    def graphs(self, device: Device) -> bool:
        """Whether the step is recorded on `device`."""
        if device.kind == CPU or self.compile in GRAPHING_MODES:
            return False
        return self.fused if self.graph is None else self.graph

    def last(self, device: Device, precision: str) -> bool:
        """Whether maps are kept with the channels last on `device`."""
        if self.channels_last is not None:
            return self.channels_last
        return device.kind != CPU and precision != "fp32" and device.rank >= TENSOR_CORES
