"""What the tools of `meter_error.py` told, against the truth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from meter_error_tools import ONE_CARD
from scipy.integrate import trapezoid as trapezoid_of

from energybench.power.clock import realtime_offset_ns
from energybench.power.meter import Channel, Source
from energybench.power.timeline import Timeline
from energybench.power.trace import read_trace
from energybench.testing import Curve, simulation

Floats = npt.NDArray[np.float64]

SAMPLED = {"poll": ("1 s poll", "10 Hz trapezoid"), "nvidia_smi": ("nvidia-smi -lms 100",)}
NAMES = {"energybench": "energybench", "zeus": "Zeus", "codecarbon": "CodeCarbon"}

LATE = 1.3
"""A window that became longer than so many times what was drawn is no window of that length."""


def file_of(tool: str, card: int) -> str:
    """What a tool writes."""
    ending = {"energybench": "parquet", "nvidia_smi": "csv"}.get(tool, "json")
    return f"{tool}.{card}.{ending}" if tool in ONE_CARD else f"{tool}.{ending}"


def judged(plan: Mapping[str, Any], folder: Path, tools: Sequence[str], curves: Mapping[str, Curve]) -> dict[str, Any]:
    """Every tool's relative errors.

    Returns:
        "errors": tool -> card -> load -> length -> percentages, None where the tool gave nothing; "failures": tool ->
        card -> what it said; "stated": card -> load -> length -> (error, independent k = 2 uncertainty, both in per
        cent) of energybench.
    """
    errors: dict[str, Any] = {}
    failures: dict[str, dict[str, str]] = {}
    stated: dict[str, Any] = {}
    for number, (card, curve) in enumerate(curves.items()):
        drawn = plan["windows"][number]
        true = truths(curve, plan["start_ns"], [(one["start_ns"], one["end_ns"]) for one in drawn])
        for tool in tools:
            path = folder / file_of(tool, number)
            if tool in ONE_CARD:
                told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"failure": "wrote nothing"}
                if told["failure"]:
                    failures.setdefault(NAMES[tool], {})[card] = told["failure"]
                asked, spans, values = as_drawn(drawn, told)
                put(errors, NAMES[tool], card, asked, values, truths(curve, plan["start_ns"], spans))
            elif tool == "energybench":
                found = energies(path, number, drawn)
                put(errors, NAMES[tool], card, drawn, [one.energy_j for one in found], true)
                for window, one, truth in zip(drawn, found, true, strict=True):
                    if one.energy_j is None:
                        continue
                    pair = [round(100 * (one.energy_j / truth - 1), 4), round(200 * one.independent_u_j / truth, 4)]
                    within(stated, card, window).append(pair)
            else:
                times, watts = SAMPLES[tool](path, number)
                for name in SAMPLED[tool]:
                    put(errors, name, card, drawn, [SUMS[name](times, watts, one) for one in drawn], true)
    return {
        "errors": errors,
        "failures": failures,
        "stated": stated,
        "plan_seconds": plan["seconds"],
        "seed": plan["seed"],
    }


def as_drawn(drawn: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """Windows, (start, end) and joules of those that became about as long as they were drawn: a tool may be late."""
    kept = []
    for place, (begun_ns, ended_ns, joules) in zip(told.get("of", []), told.get("told", []), strict=True):
        window = drawn[place]
        if ended_ns - begun_ns <= LATE * (window["end_ns"] - window["start_ns"]):
            kept.append((window, (begun_ns, ended_ns), joules))
    return [one for one, _, _ in kept], [span for _, span, _ in kept], [joules for _, _, joules in kept]


def truths(curve: Curve, start_ns: int, spans: Sequence[tuple[int, int]]) -> Floats:
    """(n,) joules truly drawn in each span."""
    if not spans:
        return np.zeros(0)
    edges = (np.array(spans, np.int64) - start_ns) / 1e9
    return simulation.energy_j(curve, edges[:, 0], edges[:, 1])


def within(table: dict[str, Any], card: str, window: Mapping[str, Any]) -> list[Any]:
    """The list of a window's card, load and length."""
    found: list[Any] = table.setdefault(card, {}).setdefault(window["load"], {}).setdefault(str(window["length_s"]), [])
    return found


def put(
    errors: dict[str, Any], tool: str, card: str, windows: Sequence[Any], values: Sequence[float | None], true: Floats
) -> None:
    """Relative errors in per cent; None where there is no value."""
    table = errors.setdefault(tool, {})
    table.setdefault(card, {})
    for window, value, truth in zip(windows, values, true, strict=True):
        error = None if value is None else round(float(100 * (value / truth - 1)), 3)
        within(table, card, window).append(error)


def energies(path: Path, number: int, windows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Of each window what energybench makes of its readings."""
    name = f"gpu.{number}"
    sources = [Source(**one) for one in json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))]
    columns, _ = read_trace(path, name)
    line = Timeline(Channel(name, "gpu", name), [one for one in sources if one.channel == name], columns)
    return [line.energy(one["start_ns"], one["end_ns"]) for one in windows]


def polled(path: Path, number: int) -> tuple[Floats, Floats]:
    """(n,) seconds and (n,) watts of one card."""
    rows = [row for row in json.loads(path.read_text(encoding="utf-8")) if row[0] == number]
    return np.array([row[1] for row in rows]) / 1e9, np.array([row[2] for row in rows])


def printed(path: Path, number: int) -> tuple[Floats, Floats]:
    """As `polled`, of nvidia-smi's lines, their wall time told from CLOCK_MONOTONIC."""
    offset_s = realtime_offset_ns() / 1e9
    times, watts = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        index, stamp, power = line.split(", ")
        if int(index) == number:
            times.append(datetime.strptime(stamp, "%Y/%m/%d %H:%M:%S.%f").timestamp() - offset_s)
            watts.append(float(power))
    return np.array(times), np.array(watts)


def trapezoid(times: Floats, watts: Floats, window: Mapping[str, Any]) -> float:
    """Straight lines between the samples, cut at the window's edges."""
    start_s, end_s = window["start_ns"] / 1e9, window["end_ns"] / 1e9
    inside = (times > start_s) & (times < end_s)
    at = np.concatenate(([start_s], times[inside], [end_s]))
    return float(trapezoid_of(np.interp(at, times, watts), at))


def rectangles(times: Floats, watts: Floats, window: Mapping[str, Any]) -> float:
    """Each second's power, counted for the second that went before."""
    times, watts = times[::10], watts[::10]
    start_s, end_s = window["start_ns"] / 1e9, window["end_ns"] / 1e9
    edges = np.clip(times, start_s, end_s)
    return float((np.diff(edges) * watts[1:]).sum())


def mean_of_lines(times: Floats, watts: Floats, window: Mapping[str, Any]) -> float:
    """The mean of the lines printed in the window, times its length; without one, of the line before."""
    start_s, end_s = window["start_ns"] / 1e9, window["end_ns"] / 1e9
    first, last = np.searchsorted(times, [start_s, end_s])
    chosen = watts[first:last] if last > first else watts[max(0, first - 1) : max(1, first)]
    return float(chosen.mean() * (end_s - start_s))


SAMPLES = {"poll": polled, "nvidia_smi": printed}
SUMS = {"1 s poll": rectangles, "10 Hz trapezoid": trapezoid, "nvidia-smi -lms 100": mean_of_lines}
