"""What is known of NVIDIA's generations: their names, and how their power sensors see the power.

Sources: Yang, Adámek, Armour, "Part-time Power Measurements: nvidia-smi's Lack of Attention" (SC'24, arXiv 2312.02741);
NVIDIA's NVML manual; for Hopper, this project's measurements on an H100 with driver 580.
"""

from __future__ import annotations

from dataclasses import dataclass

from energybench.devices import Device

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
    """

    update_s: float = 0.1
    usage_averaging_s: float | None = 1.0
    instant_averaging_s: float | None = None
    lag_s: float | None = None
    gain_limit: float = 0.05
    compared: bool = True


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
