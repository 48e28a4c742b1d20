"""What is known of NVIDIA's generations: their names, and how their power sensors see the power.

Sources: Yang, Adámek, Armour, "Part-time Power Measurements: nvidia-smi's Lack of Attention" (SC'24, arXiv 2312.02741);
NVIDIA's NVML manual; for Hopper, this project's measurements on an H100 with driver 580.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from energybench.devices import Device
from energybench.errors import ConfigError

GENERATIONS = {
    3: "maxwell",
    4: "pascal",
    5: "volta",
    6: "turing",
    7: "ampere",
    8: "ada",
    9: "hopper",
    10: "blackwell",
}
"""NVML_DEVICE_ARCH_... -> the name that `gpu=` takes."""

MODULES = ("GH200", "GB200", "GB300")
"""Boards with a Grace CPU, on which NVIDIA's power sensors may tell the module's power."""


LATE_S = 0.007
"""Standard uncertainty of all of a card's times together: how late its sensors tell the power.

Three H100 (driver 580) told single bursts of load late, by 15 means of -3 to 10 ms whose root mean square is 6.9 ms
(docs/results/h100_meter.md). A part of that is power that the card uses after a burst's end, and how large a part is
not known, so the delay is a doubt and not taken off. Of other generations nobody has published it (the rise times of
SC'24 are those of the means and of the low-pass), so it is assumed to be the same.
"""


@dataclass(frozen=True)
class Sensors:
    """What is known of a generation's sensors.

    Attributes:
        update_s: how often nvmlDeviceGetPowerUsage has a new value, seconds.
        usage_averaging_s: how much of the past that value is the mean of.
        lag_s: time constant of the low-pass that it sees the power through, where it is one.
        instant_averaging_s: likewise, of the instant field; None: not known.
        gain_limit: how far boards were seen from an external meter, as a share.
        compared: whether boards of this generation were; else the limit is that of the others, assumed.
        late_s: standard uncertainty of all of its sensors' times together, seconds.
    """

    update_s: float = 0.1
    usage_averaging_s: float | None = 1.0
    instant_averaging_s: float | None = None
    lag_s: float | None = None
    gain_limit: float = 0.05
    compared: bool = True
    late_s: float = LATE_S


MAXWELL_RISE_S = 0.345
"""From 10 % to 90 % (SC'24): ln 9 = 2.197 time constants of a low-pass."""

SENSORS = {
    "maxwell": Sensors(usage_averaging_s=MAXWELL_RISE_S, lag_s=MAXWELL_RISE_S / 2.197),
    "pascal": Sensors(0.02, 0.011),
    "volta": Sensors(0.02, 0.010, compared=False),
    "turing": Sensors(usage_averaging_s=0.1, gain_limit=0.13),
    "a100": Sensors(usage_averaging_s=0.025, gain_limit=0.06),
    "ampere": Sensors(gain_limit=0.06),
    "ada": Sensors(usage_averaging_s=0.11),
    "hopper": Sensors(instant_averaging_s=0.025, compared=False),
}
"""SC'24, by generation; the H100 as measured. Others: the NVML manual's 1 s, "on Ampere (except GA100) or newer"."""


def generation_of(major: int, minor: int) -> str:
    """The generation of a compute capability; "sm_35" where it has no name here."""
    if (major, minor) in ((7, 5), (8, 9)):
        return "turing" if major == 7 else "ada"
    names = {5: "maxwell", 6: "pascal", 7: "volta", 8: "ampere", 9: "hopper", 10: "blackwell", 12: "blackwell"}
    return names.get(major, f"sm_{major}{minor}")


def sensors_of(device: Device, driver_major: int) -> Sensors:
    """The sensors of a card under a driver of this major version; what the driver changed is by SC'24."""
    if device.generation == "ampere" and device.rank == 80:
        return SENSORS["a100"]
    if device.generation == "ampere" and driver_major == 530:
        return Sensors(usage_averaging_s=0.1, gain_limit=SENSORS["ampere"].gain_limit)
    return SENSORS.get(device.generation, Sensors(compared=False))


def check_gain(gain_uncertainty: float | None) -> None:
    """Raises ConfigError where the option `meter.gain_uncertainty` makes no sense."""
    if gain_uncertainty is not None and not (math.isfinite(gain_uncertainty) and gain_uncertainty >= 0):
        raise ConfigError(f"meter.gain_uncertainty={gain_uncertainty}: give a share from 0, such as 0.03, or null")


def gain_of(sensors: Sensors, gain_uncertainty: float | None) -> tuple[float, str]:
    """Relative standard uncertainty (k = 1) of a board's gain, and where it comes from.

    Args:
        sensors: of its generation.
        gain_uncertainty: the option; it wins.
    """
    if gain_uncertainty is not None:
        return gain_uncertainty, "meter.gain_uncertainty"
    limit = sensors.gain_limit
    words = f"boards within {limit:.0%} of an external meter (arXiv 2312.02741), rectangular"
    return limit / math.sqrt(3), words if sensors.compared else f"assumed, as of other generations: {words}"


def board_notes(name: str, divided: bool) -> list[str]:
    """What besides the card itself its power may be that of; `divided`: multi-instance mode is on."""
    notes = []
    if any(module in name for module in MODULES):
        notes.append("a board with a CPU: NVIDIA's sensors may tell the power of the whole module")
    if divided:
        notes.append("multi-instance mode: the power is that of the whole card")
    return notes
