"""What NVML tells of a card beside its power.

The library is the one that the session has opened, because it counts who opens it: opened a second time, it could not
be opened anew after a driver's reload. No handle is kept: after that, the next look finds the card again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from energybench.power.conditions import Condition, Process, Slowdown

REASONS: dict[int, Slowdown] = {
    0x001: "idle",
    0x002: "clocks_setting",
    0x004: "power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "thermal",
    0x040: "thermal",
    0x080: "power_brake",
    0x100: "display_clocks",
    0x200: "board_limit",
    0x400: "reliability",
}
"""Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h, nvmlClocksEventReason...): 0x20 is software's thermal
slowdown, 0x40 the hardware's; 0x200 and 0x400 are told by older drivers."""


def condition(nvml: Any, uuid: str, channel: str) -> Condition:
    """The state of the card `uuid` now; what NVML does not tell is None.

    Args:
        nvml: the module pynvml, with the library open.
        uuid: of the card.
        channel: that reads its power.
    """
    time_ns = time.monotonic_ns()
    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
    except nvml.NVMLError:
        return Condition(channel, time_ns)

    def tell(*functions: str, arguments: tuple[int, ...] = ()) -> Any:
        """The answer of the first function that pynvml and the driver have."""
        for name in functions:
            with suppress(nvml.NVMLError, AttributeError):
                return getattr(nvml, name)(handle, *arguments)
        return None

    divided, used = tell("nvmlDeviceGetMigMode"), tell("nvmlDeviceGetUtilizationRates")
    return Condition(
        channel=channel,
        time_ns=time_ns,
        temperature_c=tell(
            "nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature", arguments=(nvml.NVML_TEMPERATURE_GPU,)
        ),
        sm_mhz=tell("nvmlDeviceGetClockInfo", arguments=(nvml.NVML_CLOCK_SM,)),
        memory_mhz=tell("nvmlDeviceGetClockInfo", arguments=(nvml.NVML_CLOCK_MEM,)),
        max_sm_mhz=tell("nvmlDeviceGetMaxClockInfo", arguments=(nvml.NVML_CLOCK_SM,)),
        max_memory_mhz=tell("nvmlDeviceGetMaxClockInfo", arguments=(nvml.NVML_CLOCK_MEM,)),
        slowdowns=_slowdowns(
            tell("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
        ),
        power_limit_w=_watts(tell("nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementLimit")),
        default_limit_w=_watts(tell("nvmlDeviceGetPowerManagementDefaultLimit")),
        utilization=None if used is None else used.gpu / 100,
        multi_instance=None if divided is None else bool(divided[0]),
        processes=_processes(
            tell("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"),
            tell("nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v2"),
        ),
    )


def _processes(compute: Sequence[Any] | None, drawing: Sequence[Any] | None) -> tuple[Process, ...] | None:
    """Those that compute and those that draw, each once; None where neither is told."""
    if compute is None and drawing is None:
        return None
    found = {one.pid: Process(one.pid, one.usedGpuMemory) for one in [*(drawing or ()), *(compute or ())]}
    return tuple(found[pid] for pid in sorted(found))


def _slowdowns(bits: int | None) -> tuple[Slowdown, ...] | None:
    if bits is None:
        return None
    return tuple(dict.fromkeys(word for bit, word in REASONS.items() if bits & bit))


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000
