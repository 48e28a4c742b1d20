"""From settings to figures: which of them are worth drawing, and what stands below them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from energybench.errors import DataError
from energybench.power_plot import power_lines
from energybench.run.result import TRACE_FILE, Result
from energybench.study.quantities import ACCURACY, Quantity, quantity
from energybench.study.report.drawing import Picture
from energybench.study.report.figures import Line, Panel, Point, against_batch, power_traces, scatter, stacked
from energybench.study.report.numbers import Scale, scale
from energybench.study.report.settings import Setting

MOST_NETWORKS = 4
MOST_BARS = 24
MOST_TRACES = 3
TRACE_POINTS = 600
"""Of a channel in a figure: more than it has pixels."""

_PHASES = ("load", "compile", "warmup", "train", "validate")
_INTERVAL = "Bars are 95 % intervals over repeats, for comparing runs on the same boards."


def of_group(chosen: Sequence[Setting], front: Sequence[Setting], suffix: str, estimated: bool) -> list[Picture]:
    """The figures of settings that may be compared with each other; those that would show nothing are left out.

    Args:
        chosen: settings of one scope and one kind of energy.
        front: those of them that no other is better than in both energy and accuracy (or speed).
        suffix: of the figures' names: "gpu-measured".
        estimated: whether the energy is a constant power times the time.
    """
    made = [
        _against_batch(chosen, suffix),
        _pareto(chosen, front, suffix),
        None if estimated else _energy_against_time(chosen, suffix),
        _by_phase(chosen, suffix),
    ]
    return [picture for picture in made if picture is not None]


def _points(
    chosen: Sequence[Setting], x: Callable[[Setting], tuple[float, float | None] | None], metric: Quantity, fitting: Scale
) -> list[tuple[Setting, Point]]:
    """A point for each setting that has both."""
    found = []
    for one in chosen:
        across, up = x(one), _over_repeats(one, metric)
        if across is not None and up is not None:
            found.append((one, Point(across[0], up[0] / fitting.factor, _scaled(up[1], fitting), across[1], one.label)))
    return found


def _over_repeats(one: Setting, metric: Quantity) -> tuple[float, float | None] | None:
    found = one.row.estimate(metric)
    return None if found is None else (found.mean, found.half_width)


def _scaled(half: float | None, fitting: Scale) -> float | None:
    return None if half is None else half / fitting.factor


def _fitting(chosen: Sequence[Setting], metric: Quantity) -> Scale:
    means = [found.mean for one in chosen if (found := one.row.estimate(metric)) is not None]
    return scale(metric.unit, means, share=metric.share)


def _lines(points: Sequence[tuple[Setting, Point]], key: Callable[[Setting], str]) -> tuple[Line, ...]:
    grouped: dict[str, list[Point]] = {}
    for one, point in points:
        grouped.setdefault(key(one), []).append(point)
    return tuple(Line(label, tuple(found)) for label, found in grouped.items())


def _against_batch(chosen: Sequence[Setting], suffix: str) -> Picture | None:
    networks = list(dict.fromkeys(one.network for one in chosen))
    of_network = {name: [one for one in chosen if one.network == name] for name in networks}
    varied = [name for name, found in of_network.items() if len({one.batch for one in found}) > 1][:MOST_NETWORKS]
    if not varied:
        return None
    rows: dict[str, list[Panel]] = {}
    for metric in (quantity("energy_per_image_j"), quantity("images_per_s"), quantity(ACCURACY)):
        fitting = _fitting([one for name in varied for one in of_network[name]], metric)
        panels = [Panel(name, _lines(_points(of_network[name], _batch, metric, fitting), _line)) for name in varied]
        if any(panel.lines for panel in panels):
            rows[_axis(metric, fitting)] = panels
    if not rows:
        return None
    left_out = len(networks) - len(varied)
    more = f" {left_out} further networks are in the tables." if left_out else ""
    title = "Energy, speed and accuracy against the batch"
    return against_batch(f"against-batch-{suffix}", title, rows, _INTERVAL + more)


def _batch(one: Setting) -> tuple[float, float | None] | None:
    return None if one.batch is None else (float(one.batch), None)


def _line(one: Setting) -> str:
    return one.line


def _axis(metric: Quantity, fitting: Scale) -> str:
    words = {"energy_per_image_j": "energy an image", "images_per_s": "images/s", ACCURACY: "top-1 accuracy"}
    said = words.get(metric.name, metric.words)
    return said if said == metric.unit else f"{said}{fitting.in_brackets}"


def _energy_against_time(chosen: Sequence[Setting], suffix: str) -> Picture | None:
    energy, time = quantity("energy_j"), quantity("time_s")
    joules, seconds = _fitting(chosen, energy), _fitting(chosen, time)

    def across(one: Setting) -> tuple[float, float | None] | None:
        found = _over_repeats(one, time)
        return None if found is None else (found[0] / seconds.factor, _scaled(found[1], seconds))

    points = _points(chosen, across, energy, joules)
    if len(points) < 2:
        return None
    lines = _lines(points, _hue(chosen))
    caption = "Logarithmic; the lines are of equal mean power: what lies on one differs in time alone. "
    labels = (f"time{seconds.in_brackets}", f"energy{joules.in_brackets}")
    watts = _isoline_unit(seconds, joules)
    return scatter(
        f"energy-time-{suffix}", "Energy against time", lines, labels, caption + _INTERVAL, isolines=watts
    )


def _isoline_unit(seconds: Scale, joules: Scale) -> str:
    """Of y / x: 'W' for J/s; else as it stands, 'kJ/min'."""
    units = {("J", "s"): "W", ("kJ", "s"): "kW", ("mJ", "ms"): "W", ("MJ", "s"): "MW"}
    return units.get((joules.unit, seconds.unit), f"{joules.unit}/{seconds.unit}")


def _hue(chosen: Sequence[Setting]) -> Callable[[Setting], str]:
    """What the colour of a point tells: the network where there are several, else the devices."""
    if len({one.network for one in chosen}) > 1:
        return lambda one: one.network
    return lambda one: one.line


def _pareto(chosen: Sequence[Setting], front: Sequence[Setting], suffix: str) -> Picture | None:
    energy = quantity("energy_per_image_j")
    against = quantity(ACCURACY) if any(one.row.sample(ACCURACY) for one in chosen) else quantity("images_per_s")
    joules, fitting = _fitting(chosen, energy), _fitting(chosen, against)

    def across(one: Setting) -> tuple[float, float | None] | None:
        found = _over_repeats(one, energy)
        return None if found is None else (found[0] / joules.factor, _scaled(found[1], joules))

    points = _points(chosen, across, against, fitting)
    if len(points) < 2:
        return None
    on_front = [point for one, point in points if one in front]
    words = "accuracy" if against.name == ACCURACY else "speed"
    caption = (
        f"Circled and joined: settings that no other beats in both energy and {words}, as the means are; "
        f"whether the difference is real, the intervals tell. {_INTERVAL}"
    )
    return scatter(
        f"pareto-{suffix}",
        f"Energy and {words}: what is worth choosing",
        _lines(points, _hue(chosen)),
        (_axis(energy, joules), _axis(against, fitting)),
        caption,
        front=on_front if len(on_front) < len(points) or len(on_front) > 1 else (),
    )


def _by_phase(chosen: Sequence[Setting], suffix: str) -> Picture | None:
    found: dict[str, dict[str, float]] = {}
    for one in chosen[:MOST_BARS]:
        parts = {phase: _phase_energy(one, phase) for phase in _PHASES}
        known = {phase: joules for phase, joules in parts.items() if joules is not None}
        if known:
            found[one.label] = known
    if not found or not any(len(parts) > 1 for parts in found.values()):
        return None
    fitting = scale("J", [sum(parts.values()) for parts in found.values()])
    bars = {label: {name: joules / fitting.factor for name, joules in parts.items()} for label, parts in found.items()}
    more = f" The first {MOST_BARS} of {len(chosen)} settings." if len(chosen) > MOST_BARS else ""
    caption = (
        "Mean of the repeats. Only train is in a setting's energy; the other phases are measured beside it. "
        f"What is spent idle before a run is left out.{more}"
    )
    return stacked(f"phases-{suffix}", "Where the energy goes", bars, fitting.unit, caption)


def _phase_energy(one: Setting, phase: str) -> float | None:
    name = "energy_j" if phase == "train" else f"{phase}.energy_j"
    found = one.row.estimate(name)
    return None if found is None else found.mean


def traces(runs: Mapping[str, tuple[Result, Path]]) -> Picture | None:
    """The power of a few runs over time.

    Args:
        runs: label -> the run and its folder.
    """
    drawn = {}
    for label, (result, folder) in runs.items():
        try:
            lines = power_lines(result, folder / TRACE_FILE, TRACE_POINTS)
        except DataError:  # damaged: the report is worth making without it
            continue
        if lines:
            drawn[label] = (result, lines)
    if not drawn:
        return None
    caption = (
        "Each reading's power, thinned to the extremes of every stretch; of a counter, the mean since its last update. "
        "Shaded: the phases. A gap in a line is a gap in the readings."
    )
    return power_traces("power-traces", "Power over time", drawn, caption)
