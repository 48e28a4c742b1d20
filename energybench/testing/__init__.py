"""Tools for the tests of meters: cards whose true energy is known, and the rules that every meter must keep.

`fake_nvml.c` is a driver library that plays declared power curves through declared sensors, below the real pynvml.
`conformance` holds the tests that every meter must pass, `simulation` what a session would read of a curve, without a
driver; they need pytest and scipy and are therefore not imported here.
"""

from energybench.testing.curves import Curve, constant, idle_load_idle, linear, sequence, square, step, training
from energybench.testing.driver import library, running
from energybench.testing.presets import (
    PRESETS,
    ada,
    ampere_a100,
    ampere_rtx30,
    hopper,
    maxwell,
    pascal,
    turing,
    volta,
)
from energybench.testing.sensors import CounterSensor, PowerSensor, SampleBuffer
from energybench.testing.server import Card, Failure, RunningServer, Server, Truth

__all__ = [
    "PRESETS",
    "Card",
    "CounterSensor",
    "Curve",
    "Failure",
    "PowerSensor",
    "RunningServer",
    "SampleBuffer",
    "Server",
    "Truth",
    "ada",
    "ampere_a100",
    "ampere_rtx30",
    "constant",
    "hopper",
    "idle_load_idle",
    "library",
    "linear",
    "maxwell",
    "pascal",
    "running",
    "sequence",
    "square",
    "step",
    "training",
    "turing",
    "volta",
]
