"""The device, its arithmetic and how images lie on it. Imports PyTorch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from energybench.devices import CPU
from energybench.run.engine import Task
from energybench_plugins.engines.torch_feed import Layout
from energybench_plugins.engines.torch_options import TorchOptions

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def device_of(task: Task) -> Any:
    """The torch.device of this process, which sees no other GPU; processes on the CPU share its cores."""
    if task.devices[0].kind != CPU:
        return torch.device("cuda", 0)
    here = task.world // task.experiment.nodes.count
    if here > 1:
        torch.set_num_threads(max((os.cpu_count() or 1) // here, 1))
    return torch.device("cpu")


def layout_of(task: Task, options: TorchOptions, device: Any) -> Layout:
    """How images lie on the device."""
    last = options.last(task.devices[0], task.experiment.precision)
    memory_format = torch.channels_last if last else torch.contiguous_format
    return Layout(device, DTYPES[task.experiment.precision], memory_format)


def set_arithmetic(precision: str, *, try_ways: bool) -> None:
    """What float32 products of matrices are worked out in; whether cuDNN tries its ways: all shapes stay the same."""
    tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = try_ways


def environment(device: Any, layout: Layout) -> Mapping[str, str]:
    """Build, libraries, device and layout."""
    found = {
        "engine": f"torch {torch.__version__}",
        "channels_last": "yes" if layout.memory_format == torch.channels_last else "no",
        "threads": str(torch.get_num_threads()),
    }
    if device.type == "cpu":
        return {**found, "torch_device": "cpu"}
    nccl = ".".join(map(str, torch.cuda.nccl.version()))
    libraries = {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version()), "nccl": nccl}
    return {**found, **libraries, "torch_device": torch.cuda.get_device_name(device)}
