"""What a card's driver tells of the card beside its power: temperature, clocks, limits, what else runs on it.

A session that can tell these has a method `conditions`; one that cannot has none, and nothing is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

Slowdown = Literal[
    "idle",
    "power_cap",
    "thermal",
    "power_brake",
    "hw_slowdown",
    "sync_boost",
    "clocks_setting",
    "display_clocks",
    "board_limit",
    "reliability",
]
"""Why a card's clocks are below their highest.

idle: nothing runs; power_cap: the power limit in force; thermal: too hot, told by software or hardware; power_brake: an
external signal, as from the power supply; hw_slowdown: hardware, for a reason among thermal, power_brake or one that it
does not tell; sync_boost: another card of a group clocks lower; clocks_setting: a user asked for lower clocks;
display_clocks: a display does; board_limit: the board's regulators; reliability: the highest voltage.
"""


@dataclass(frozen=True, slots=True)
class Process:
    """A process on a card.

    Attributes:
        pid: its number as the driver tells it; in a container it may be one of the host.
        memory_bytes: the card's memory that it holds; None where the driver does not tell.
    """

    pid: int
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """The state of one card at one moment; None: the driver does not tell.

    Attributes:
        channel: the channel of the session that reads the card's power.
        time_ns: CLOCK_MONOTONIC.
        temperature_c: of the chip, degrees Celsius.
        sm_mhz, memory_mhz: clocks.
        max_sm_mhz, max_memory_mhz: the highest that the card has.
        slowdowns: why the clocks are below the highest; empty: for no reason.
        power_limit_w: in force.
        default_limit_w: the power limit as the maker set it.
        utilization: share of the last moment in which something ran on the card, 0 to 1.
        multi_instance: whether the card is divided into instances.
        processes: what runs on the card.
    """

    channel: str
    time_ns: int
    temperature_c: float | None = None
    sm_mhz: float | None = None
    memory_mhz: float | None = None
    max_sm_mhz: float | None = None
    max_memory_mhz: float | None = None
    slowdowns: tuple[Slowdown, ...] | None = None
    power_limit_w: float | None = None
    default_limit_w: float | None = None
    utilization: float | None = None
    multi_instance: bool | None = None
    processes: tuple[Process, ...] | None = None


@runtime_checkable
class TellsConditions(Protocol):
    """What a `Session` may have besides its readings."""

    def conditions(self) -> Sequence[Condition]:
        """The state of every card, now; what the driver does not tell is None, and never raises.

        Called from another thread than `read`, about once a second, between opening and closing.
        """
