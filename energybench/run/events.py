"""What a worker tells its supervisor: JSON lines on an inherited pipe, each with a CLOCK_MONOTONIC time stamp.

`started` and `ended` mark a phase's edges and are stamped after the devices were synchronised; `progress` says how far
a phase is; `environment` what the framework says of itself and of the network; `failed` why the worker gives up; `done`
that all is well.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["started", "progress", "ended", "environment", "failed", "done"]


@dataclass(frozen=True)
class Event:
    """One event.

    Attributes:
        kind: what happened.
        time_ns: CLOCK_MONOTONIC.
        phase: name of the phase, for started, progress and ended.
        epoch: 1, 2, ... inside an epoch, else None.
        values: numbers: images, steps, loss, accuracy_top1, fraction, training_flops, ...
        text: words: the failure's kind and message, or the environment.
    """

    kind: Kind
    time_ns: int
    phase: str = ""
    epoch: int | None = None
    values: dict[str, float] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_line(cls, line: bytes) -> Event:
        """Parses one line; raises ValueError where it is none."""
        data = json.loads(line)
        if not isinstance(data, dict) or data.get("kind") not in Kind.__args__:  # type: ignore[attr-defined]
            raise ValueError(f"no event: {line[:80]!r}")
        try:
            return cls(**data)
        except TypeError as error:
            raise ValueError(str(error)) from error


class EventWriter:
    """Writes events to a file descriptor, one `write` each, so that a killed worker leaves whole lines."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def emit(
        self,
        kind: Kind,
        phase: str = "",
        epoch: int | None = None,
        values: Mapping[str, float] | None = None,
        text: Mapping[str, str] | None = None,
    ) -> None:
        """Sends one event stamped now. Values that are not finite do not exist and are left out."""
        event = {
            "kind": kind,
            "time_ns": time.monotonic_ns(),
            "phase": phase,
            "epoch": epoch,
            "values": {key: value for key, value in (values or {}).items() if math.isfinite(value)},
            "text": {key: str(value) for key, value in (text or {}).items()},
        }
        data = memoryview(json.dumps(event).encode() + b"\n")
        while data:
            data = data[os.write(self._descriptor, data) :]
