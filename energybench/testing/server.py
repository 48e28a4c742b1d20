"""A declared server: its cards, what goes wrong on it, and the file that tells the fake driver."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from energybench.power.clock import realtime_offset_ns
from energybench.testing.curves import Curve, constant
from energybench.testing.sensors import CounterSensor, PowerSensor, SampleBuffer

VARIABLE = "ENERGYBENCH_FAKE_NVML"
"""The environment variable that names the scenario file."""

NOT_SUPPORTED = 3
TIMEOUT = 10
GPU_IS_LOST = 15
UNKNOWN = 999


CHANGING = (
    "limit_w",
    "temperature_c",
    "sm_mhz",
    "memory_mhz",
    "utilization",
    "memory_utilization",
    "performance_state",
    "event_reasons",
    "used_bytes",
    "processes",
    "graphics_processes",
)
"""The fields of a Card that may change in time."""


@dataclass(frozen=True)
class Failure:
    """A function that fails for a while.

    Attributes:
        function: NVML's name ("nvmlDeviceGetPowerUsage"), or "*" for every function.
        code: the error code that it returns.
        from_s, to_s: when, in seconds since the start.
    """

    function: str
    code: int = UNKNOWN
    from_s: float = -math.inf
    to_s: float = math.inf

    def line(self) -> str:
        """As the scenario file has it."""
        return f"{self.function} {self.code} {self.from_s} {self.to_s}"


@dataclass(frozen=True)
class Card:
    """One card: what it is, the power that it truly draws, and its sensors; a sensor that is None is "not supported".

    Attributes:
        name: product name.
        uuid: None: made from its place in the server.
        pci_bus_id: None: made from its place in the server.
        capability: CUDA compute capability.
        architecture: NVML's code (NVML_DEVICE_ARCH_PASCAL is 4).
        memory_bytes, used_bytes: its memory.
        curve: true power.
        counter: nvmlDeviceGetTotalEnergyConsumption.
        usage: nvmlDeviceGetPowerUsage.
        instant: the field NVML_FI_DEV_POWER_INSTANT.
        average: the field NVML_FI_DEV_POWER_AVERAGE.
        buffer: nvmlDeviceGetSamples(NVML_TOTAL_POWER_SAMPLES).
        failures: functions that fail for a while.
        lost: (from, to) seconds; every call on the card answers "GPU is lost".
        processes: (process id, bytes) of what computes on it.
        graphics_processes: likewise, of what draws on it.
        limit_w, default_limit_w, min_limit_w, max_limit_w: power limit in force, and its bounds.
        temperature_c: degrees Celsius.
        sm_mhz, memory_mhz, max_sm_mhz, max_memory_mhz: clocks.
        event_reasons: bits that say why the clocks are what they are.
        utilization, memory_utilization: per cent.
        performance_state: 0 is the fastest.
        persistence: persistence mode.
        mig: multi-instance mode; None: not supported.
        may_set: whether this user may set limits, clocks and modes; else "insufficient permissions".
        changes: (seconds since the start, {field: value}), in the order of time: from then on the field has that value.
            The fields are those of `CHANGING`.
        instances: UUIDs of the instances that the card is divided into, 7 at most; looked at in multi-instance mode.
    """

    name: str = "Fake GPU"
    uuid: str | None = None
    pci_bus_id: str | None = None
    capability: tuple[int, int] = (9, 0)
    architecture: int = 9
    memory_bytes: int = 16 * 1024**3
    used_bytes: int = 0
    curve: Curve = field(default_factory=lambda: constant(100.0))
    counter: CounterSensor | None = None
    usage: PowerSensor | None = None
    instant: PowerSensor | None = None
    average: PowerSensor | None = None
    buffer: SampleBuffer | None = None
    failures: tuple[Failure, ...] = ()
    lost: tuple[tuple[float, float], ...] = ()
    processes: tuple[tuple[int, int], ...] = ()
    graphics_processes: tuple[tuple[int, int], ...] = ()
    limit_w: float = 250.0
    default_limit_w: float = 250.0
    min_limit_w: float = 125.0
    max_limit_w: float = 300.0
    temperature_c: int = 45
    sm_mhz: int = 1400
    memory_mhz: int = 5000
    max_sm_mhz: int = 1900
    max_memory_mhz: int = 5000
    event_reasons: int = 0
    utilization: int = 0
    memory_utilization: int = 0
    performance_state: int = 0
    persistence: bool = True
    mig: bool | None = None
    may_set: bool = True
    changes: tuple[tuple[float, Mapping[str, Any]], ...] = ()
    instances: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        times = [time_s for time_s, _ in self.changes]
        if times != sorted(times):
            raise ValueError(f"changes at {times} s: give them in the order of time")
        if unknown := {name for _, fields in self.changes for name in fields} - set(CHANGING):
            raise ValueError(f"changes of {', '.join(sorted(unknown))}: what may change is {', '.join(CHANGING)}")

    def lines(self) -> list[str]:
        """As the scenario file has it."""
        limits = (self.default_limit_w, self.min_limit_w, self.max_limit_w)
        return [
            "card",
            f"name {self.name}",
            f"uuid {self.uuid}",
            f"pci {self.pci_bus_id}",
            f"capability {self.capability[0]} {self.capability[1]}",
            f"architecture {self.architecture}",
            f"memory {self.memory_bytes}",
            "limits_mw " + " ".join(str(round(watts * 1000)) for watts in limits),
            f"max_mhz {self.max_sm_mhz} {self.max_memory_mhz}",
            f"modes {int(self.persistence)} {-1 if self.mig is None else int(self.mig)} {int(self.may_set)}",
            *self._states(),
            *(f"instance {uuid}" for uuid in self.instances),
            *_curve_lines(self.curve),
            *self._sensor_lines(),
            *(f"reset {time_s}" for time_s in (self.counter.resets_s if self.counter else ())),
            *(f"failure {failure.line()}" for failure in self.failures),
            *(f"lost {from_s} {to_s}" for from_s, to_s in self.lost),
        ]

    def _states(self) -> list[str]:
        """The state from ever on, and after each change."""
        card, lines = self, self._state(-math.inf)
        for time_s, fields in self.changes:
            card = replace(card, changes=(), **fields)
            lines += card._state(time_s)
        return lines

    def _state(self, from_s: float) -> list[str]:
        values = (
            from_s,
            round(self.limit_w * 1000),
            self.temperature_c,
            self.sm_mhz,
            self.memory_mhz,
            self.utilization,
            self.memory_utilization,
            self.performance_state,
            self.event_reasons,
            self.used_bytes,
        )
        return [
            "state " + " ".join(map(str, values)),
            *(f"process {pid} {used}" for pid, used in self.processes),
            *(f"graphics_process {pid} {used}" for pid, used in self.graphics_processes),
        ]

    def _sensor_lines(self) -> list[str]:
        sensors: dict[str, CounterSensor | PowerSensor | SampleBuffer | None] = {
            "counter": self.counter,
            "usage": self.usage,
            "instant": self.instant,
            "average": self.average,
            "buffer": self.buffer,
        }
        return [f"{name} {sensor.line()}" for name, sensor in sensors.items() if sensor is not None]


@dataclass(frozen=True)
class Truth:
    """What one card truly drew, on CLOCK_MONOTONIC.

    Attributes:
        curve: the curve, in seconds since the start.
        start_ns: the start.
    """

    curve: Curve
    start_ns: int

    def energy_j(self, start_ns: int, end_ns: int) -> float:
        """Energy from `start_ns` to `end_ns`, joules."""
        return self.curve.energy_j((start_ns - self.start_ns) / 1e9, (end_ns - self.start_ns) / 1e9)

    def power_w(self, time_ns: int) -> float:
        """Power at `time_ns`, watts."""
        return self.curve.power_w((time_ns - self.start_ns) / 1e9)


@dataclass(frozen=True)
class Server:
    """Cards, in the order in which the driver numbers them.

    Attributes:
        cards: the cards; those without UUID or PCI address get one from their place.
        driver: driver version.
        nvml: NVML version.
        cuda: CUDA version of the driver, 12080 for 12.8.
        failures: functions of the library that fail for a while ("nvmlInit" for any of its forms).
        reloads: (from, to) seconds: the driver is unloaded in between; who opened it before must open it anew.
        wall_steps: (seconds since the start, seconds): the wall clock is set forward or, below 0, back. Processes
            started with `environment()` see it step too.
    """

    cards: tuple[Card, ...]
    driver: str = "580.159.03"
    nvml: str = "13.580.159"
    cuda: int = 13000
    failures: tuple[Failure, ...] = ()
    reloads: tuple[tuple[float, float], ...] = ()
    wall_steps: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "cards", tuple(_placed(card, i) for i, card in enumerate(self.cards)))

    def scenario(self, start_ns: int) -> str:
        """The scenario file's text; `start_ns`: CLOCK_MONOTONIC at the curves' time 0."""
        lines = [
            f"start_ns {start_ns}",
            f"wall_offset_ns {realtime_offset_ns()}",
            f"driver {self.driver}",
            f"nvml {self.nvml}",
            f"cuda {self.cuda}",
            *(f"wall_step {at_s} {step_s}" for at_s, step_s in self.wall_steps),
            *(f"reload {from_s} {to_s}" for from_s, to_s in self.reloads),
            *(f"server_failure {failure.line()}" for failure in self.failures),
        ]
        for card in self.cards:
            lines += card.lines()
        return "\n".join(lines) + "\n"

    def start(self, folder: Path, age_s: float = 10.0) -> RunningServer:
        """Writes the scenario into `folder`; its time 0 was `age_s` seconds ago, so that sensors have a past."""
        start_ns = time.monotonic_ns() - round(age_s * 1e9)
        path = folder / "fake-nvml.txt"
        path.write_text(self.scenario(start_ns), encoding="utf-8")
        return RunningServer(self, path, start_ns)


@dataclass(frozen=True)
class RunningServer:
    """A server whose time runs.

    Attributes:
        server: as declared.
        path: the scenario file.
        start_ns: CLOCK_MONOTONIC at the curves' time 0.
    """

    server: Server
    path: Path
    start_ns: int

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to meet this server instead of the machine's own driver."""
        from energybench.testing.driver import in_front, library, program

        variables = {
            VARIABLE: str(self.path),
            "LD_LIBRARY_PATH": in_front(library().parent, "LD_LIBRARY_PATH"),
            "PATH": in_front(program().parent, "PATH"),
        }
        return variables | ({"LD_PRELOAD": str(library())} if self.server.wall_steps else {})

    @property
    def truths(self) -> dict[str, Truth]:
        """UUID -> what the card truly drew."""
        return {str(card.uuid): Truth(card.curve, self.start_ns) for card in self.server.cards}

    def at_ns(self, time_s: float) -> int:
        """CLOCK_MONOTONIC at `time_s` seconds since the start."""
        return self.start_ns + round(time_s * 1e9)


def _placed(card: Card, place: int) -> Card:
    uuid = card.uuid or f"GPU-{place:08x}-fa4e-0000-0000-000000000000"
    return replace(card, uuid=uuid, pci_bus_id=card.pci_bus_id or f"00000000:{place + 1:02X}:00.0")


def _curve_lines(curve: Curve) -> Sequence[str]:
    return [
        f"part {part.from_s} {part.to_s} {part.period_s or 0} {part.phase_s} {len(part.knots)} "
        + " ".join(f"{time_s!r} {power_w!r}" for time_s, power_w in part.knots)
        for part in curve.parts
    ]
