"""Cards generation by generation, with the sensors that were found on them.

Figures: Yang, Adámek, Armour, "Part-time Power Measurements: nvidia-smi's Lack of Attention" (SC'24, arXiv
2312.02741) and its result tables, against an external meter; for Hopper, this project's measurements on an H100 SXM
with driver 580.
Where a generation's boards scatter, the preset's `gain` is one of them, and another can be given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from energybench.testing.curves import Curve
from energybench.testing.sensors import CounterSensor, PowerSensor, SampleBuffer
from energybench.testing.server import Card

MAXWELL_LAG_S = 0.345 / 2.197
"""A low-pass rises from 10 % to 90 % in ln 9 = 2.197 time constants; the study saw a rise of 345 ms."""


def maxwell(curve: Curve, gain: float = 1.0195, **card: Any) -> Card:
    """GTX TITAN X: no counter; power through a low-pass, every 100 ms; 1.9 to 2.0 % too much."""
    return Card(
        **{
            "name": "NVIDIA GeForce GTX TITAN X",
            "capability": (5, 2),
            "architecture": 3,
            "memory_bytes": 12 * 1024**3,
            "curve": curve,
            "usage": PowerSensor(0.1, lag_s=MAXWELL_LAG_S, gain=gain),
            **card,
        }
    )


def pascal(curve: Curve, gain: float = 1.01, **card: Any) -> Card:
    """TITAN X (Pascal): no counter; a mean of 11 ms every 20 ms; 1.0 % too much."""
    return Card(
        **{
            "name": "NVIDIA TITAN X (Pascal)",
            "capability": (6, 1),
            "architecture": 4,
            "memory_bytes": 12 * 1024**3,
            "curve": curve,
            "usage": PowerSensor(0.02, 0.011, phase_s=0.0057, gain=gain),
            **card,
        }
    )


def volta(curve: Curve, gain: float = 1.0, **card: Any) -> Card:
    """V100: a counter; a mean of 10 ms every 20 ms, so that half of the time is seen."""
    return Card(
        **{
            "name": "Tesla V100-SXM2-16GB",
            "capability": (7, 0),
            "architecture": 5,
            "curve": curve,
            "counter": CounterSensor(gain=gain),
            "usage": PowerSensor(0.02, 0.01, phase_s=0.0057, gain=gain),
            **card,
        }
    )


def turing(curve: Curve, gain: float = 1.13, **card: Any) -> Card:
    """RTX 20xx: a counter; a mean of 100 ms every 100 ms; boards from 8 % too little to 13 % too much."""
    return Card(
        **{
            "name": "NVIDIA GeForce RTX 2080 Ti",
            "capability": (7, 5),
            "architecture": 6,
            "memory_bytes": 11 * 1024**3,
            "curve": curve,
            "counter": CounterSensor(gain=gain),
            "usage": PowerSensor(0.1, 0.1, gain=gain),
            **card,
        }
    )


def ampere_a100(curve: Curve, gain: float = 0.94, **card: Any) -> Card:
    """A100: a counter; a mean of 25 ms every 100 ms, so that a quarter of the time is seen; 6 % too little."""
    return Card(
        **{
            "name": "NVIDIA A100-SXM4-40GB",
            "capability": (8, 0),
            "architecture": 7,
            "memory_bytes": 40 * 1024**3,
            "curve": curve,
            "counter": CounterSensor(gain=gain),
            "usage": PowerSensor(0.1, 0.025, gain=gain),
            "mig": False,
            **card,
        }
    )


def ampere_rtx30(curve: Curve, gain: float = 0.954, **card: Any) -> Card:
    """RTX 30xx with a driver 525 or 535: a counter; a mean of 1 s every 100 ms; 3.6 to 5.6 % too little."""
    return Card(
        **{
            "name": "NVIDIA GeForce RTX 3090",
            "capability": (8, 6),
            "architecture": 7,
            "memory_bytes": 24 * 1024**3,
            "curve": curve,
            "counter": CounterSensor(gain=gain),
            "usage": PowerSensor(0.1, 1.0, gain=gain),
            "average": PowerSensor(0.1, 1.0, gain=gain),
            "instant": PowerSensor(0.1, 0.1, gain=gain),
            **card,
        }
    )


def ada(curve: Curve, gain: float = 0.95, **card: Any) -> Card:
    """RTX 4090: a counter; a mean of 110 ms every 100 ms; 5 % too little."""
    return Card(
        **{
            "name": "NVIDIA GeForce RTX 4090",
            "capability": (8, 9),
            "architecture": 8,
            "memory_bytes": 24 * 1024**3,
            "curve": curve,
            "counter": CounterSensor(gain=gain),
            "usage": PowerSensor(0.1, 0.11, gain=gain),
            "instant": PowerSensor(0.1, 0.11, gain=gain),
            **card,
        }
    )


def hopper(curve: Curve, gain: float = 1.0, **card: Any) -> Card:
    """H100: a counter; a mean of 1 s; an instant field that sees 25 ms of 100; a buffer of 119 samples 20 ms apart."""
    return Card(
        **{
            "name": "NVIDIA H100 80GB HBM3",
            "capability": (9, 0),
            "architecture": 9,
            "memory_bytes": 80 * 1024**3,
            "curve": curve,
            "counter": CounterSensor(gain=gain),
            "usage": PowerSensor(0.1, 1.0, gain=gain),
            "average": PowerSensor(0.1, 1.0, gain=gain),
            "instant": PowerSensor(0.1, 0.025, gain=gain),
            "buffer": SampleBuffer(gain=gain),
            "limit_w": 700.0,
            "default_limit_w": 700.0,
            "min_limit_w": 200.0,
            "max_limit_w": 700.0,
            "mig": False,
            **card,
        }
    )


PRESETS: dict[str, Callable[..., Card]] = {
    "maxwell": maxwell,
    "pascal": pascal,
    "volta": volta,
    "turing": turing,
    "ampere_a100": ampere_a100,
    "ampere_rtx30": ampere_rtx30,
    "ada": ada,
    "hopper": hopper,
}
"""Name -> preset; each takes the true power curve, a gain, and any field of a Card by name."""
