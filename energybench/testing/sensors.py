"""How a card's sensors see its power: the part between the true curve and what the driver tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PowerSensor:
    """A power reading: `gain` x the power seen + `offset_w`, a new one every `update_s`, in whole milliwatts.

    Attributes:
        update_s: time between two new values, seconds; 0: always new.
        window_s: the value is the mean of the last so many seconds. Shorter than `update_s`, it sees only that part of
            the time; 0: no window.
        lag_s: time constant of a first-order low-pass, seconds, where there is no window; 0: none.
        phase_s: time of one of the updates.
        latency_s: time from an update until it can be read.
        gain: of this board; 1.05 tells 5 % too much.
        offset_w: of this board, watts.
    """

    update_s: float = 0.1
    window_s: float = 0.0
    lag_s: float = 0.0
    phase_s: float = 0.0137
    latency_s: float = 0.0
    gain: float = 1.0
    offset_w: float = 0.0

    def line(self) -> str:
        """As the scenario file has it."""
        return _line(self.update_s, self.phase_s, self.latency_s, self.window_s, self.lag_s, self.gain, self.offset_w)


@dataclass(frozen=True)
class CounterSensor:
    """An energy counter in whole millijoules. It sees all of the time.

    Attributes:
        update_s: time between two new values, seconds.
        phase_s: time of one of the updates.
        latency_s: time from an update until it can be read.
        gain, offset_w: as a PowerSensor's.
        start_j: value at the scenario's start: the driver has been loaded for a while.
        read_s: how long a read takes, seconds.
        worst_read_s: how long every `worst_every`-th update's reads take.
        worst_every: 0: none.
        resets_s: times at which it begins again at zero.
    """

    update_s: float = 0.1
    phase_s: float = 0.0421
    latency_s: float = 0.0
    gain: float = 1.0
    offset_w: float = 0.0
    start_j: float = 123_456.789
    read_s: float = 0.003
    worst_read_s: float = 0.016
    worst_every: int = 50
    resets_s: tuple[float, ...] = ()

    def line(self) -> str:
        """As the scenario file has it."""
        return _line(
            self.update_s,
            self.phase_s,
            self.latency_s,
            self.gain,
            self.offset_w,
            self.start_j,
            self.read_s,
            self.worst_read_s,
            self.worst_every,
        )


@dataclass(frozen=True)
class SampleBuffer:
    """The driver's own ring of power samples, each with its time in microseconds of a CPU clock.

    Attributes:
        update_s: time between two samples, seconds.
        phase_s: time of one of the samples.
        latency_s: time from a sample until it can be read.
        window_s: each sample is the mean of the last so many seconds.
        gain, offset_w: as a PowerSensor's.
        count: number of samples that it holds.
        clock: what stamps them: the wall clock, which may step (`Server.wall_steps`), or CLOCK_MONOTONIC.
        clock_offset_s: added to a monotonic stamp.
        clock_drift: seconds that a monotonic stamp gains per second since the start.
    """

    update_s: float = 0.02
    phase_s: float = 0.0061
    latency_s: float = 0.0
    window_s: float = 0.02
    gain: float = 1.0
    offset_w: float = 0.0
    count: int = 119
    clock: Literal["realtime", "monotonic"] = "realtime"
    clock_offset_s: float = 0.0
    clock_drift: float = 0.0

    def line(self) -> str:
        """As the scenario file has it."""
        return _line(
            self.update_s,
            self.phase_s,
            self.latency_s,
            self.window_s,
            self.gain,
            self.offset_w,
            self.count,
            int(self.clock == "monotonic"),
            self.clock_offset_s,
            self.clock_drift,
        )


def _line(*values: float) -> str:
    return " ".join(repr(value) for value in values)
