"""From settings to figures: which of them are worth drawing, and what stands below them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from energybench.errors import DataError
from energybench.power_plot import power_lines
from energybench.run.metrics import LOAD, TRAIN, VALIDATE, WARMUP
from energybench.run.result import TRACE_FILE, Result
from energybench.study.quantities import ACCURACY, Quantity, preparations, quantity
from energybench.study.report.drawing import Picture
from energybench.study.report.figures import (
    MOST_NAMED,
    Line,
    Panel,
    Point,
    against_batch,
    energy_against_time,
    front,
    power_traces,
    stacked,
    trade_offs,
)
from energybench.study.report.numbers import Scale, scale
from energybench.study.report.settings import Entry

MOST_NETWORKS = 4
MOST_BARS = 24
MOST_TRACES = 3
TRACE_POINTS = 600
"""Of a channel in a figure: more than it has pixels."""

_INTERVAL = "Bars are 95 % intervals over repeats, for comparing runs on the same boards."


def of_group(chosen: Sequence[Entry], suffix: str, *, estimated: bool) -> list[Picture]:
    """The figures of settings that may be compared with each other; those that would show nothing are left out.

    Args:
        chosen: settings of one scope and one kind of energy.
        suffix: of the figures' names: "gpu-measured".
        estimated: whether the energy is a constant power times the time.
    """
    made = [
        _against_batch(chosen, suffix),
        _trade_offs(chosen, suffix),
        None if estimated else _energy_against_time(chosen, suffix),
        _by_phase(chosen, suffix),
    ]
    return [picture for picture in made if picture is not None]


def _points(
    chosen: Sequence[Entry], x: Callable[[Entry], tuple[float, float | None] | None], metric: Quantity, fitting: Scale
) -> list[tuple[Entry, Point]]:
    """A point for each setting that has both."""
    found = []
    for one in chosen:
        across, up = x(one), _over_repeats(one, metric)
        if across is not None and up is not None:
            found.append((one, Point(across[0], up[0] / fitting.factor, _scaled(up[1], fitting), across[1], one.name)))
    return found


def _over_repeats(one: Entry, metric: Quantity) -> tuple[float, float | None] | None:
    found = one.row.estimate(metric)
    return None if found is None else (found.mean, found.half_width)


def _scaled(half: float | None, fitting: Scale) -> float | None:
    return None if half is None else half / fitting.factor


def _fitting(chosen: Sequence[Entry], metric: Quantity) -> Scale:
    means = [found.mean for one in chosen if (found := one.row.estimate(metric)) is not None]
    return scale(metric.unit, means, share=metric.share)


def _lines(points: Sequence[tuple[Entry, Point]], key: Callable[[Entry], str]) -> tuple[Line, ...]:
    grouped: dict[str, list[Point]] = {}
    for one, point in points:
        grouped.setdefault(key(one), []).append(point)
    return tuple(Line(label, tuple(found)) for label, found in grouped.items())


def _against_batch(chosen: Sequence[Entry], suffix: str) -> Picture | None:
    networks = list(dict.fromkeys(one.network for one in chosen))
    of_network = {name: [one for one in chosen if one.network == name] for name in networks}
    varied = [name for name, found in of_network.items() if len({one.batch for one in found}) > 1][:MOST_NETWORKS]
    if not varied:
        return None
    rows: dict[str, list[Panel]] = {}
    for metric in (quantity("energy_per_image_j"), quantity("images_per_s"), quantity(ACCURACY)):
        fitting = _fitting([one for name in varied for one in of_network[name]], metric)
        panels = [
            Panel(
                name, _lines(_points(of_network[name], _batch, metric, fitting), _line), not metric.share, metric.share
            )
            for name in varied
        ]
        if any(panel.lines for panel in panels):
            rows[_axis(metric, fitting)] = panels
    if not rows:
        return None
    left_out = len(networks) - len(varied)
    more = f" {left_out} further networks are in the tables." if left_out else ""
    title = "Energy, speed and accuracy against the batch"
    return against_batch(f"against-batch-{suffix}", title, rows, _INTERVAL + more)


def _batch(one: Entry) -> tuple[float, float | None] | None:
    return None if one.batch is None else (float(one.batch), None)


def _line(one: Entry) -> str:
    return one.line


def _axis(metric: Quantity, fitting: Scale) -> str:
    words = {"energy_per_image_j": "energy an image", "images_per_s": "images/s", ACCURACY: "top-1 accuracy"}
    said = words.get(metric.name, metric.words)
    return said if said == metric.unit else f"{said}{fitting.in_brackets}"


def _energy_against_time(chosen: Sequence[Entry], suffix: str) -> Picture | None:
    energy, time = quantity("energy_j"), quantity("time_s")
    joules, seconds = _fitting(chosen, energy), _fitting(chosen, time)
    points = _points(chosen, _across(time, seconds), energy, joules)
    if len(points) < 2:
        return None
    caption = f"Both axes logarithmic. On a grey line the mean power is the same, and energy follows time. {_INTERVAL}"
    labels = (f"time{seconds.in_brackets}", f"energy{joules.in_brackets}")
    panel = Panel("", _lines(points, _hue(chosen)))
    watts = joules.factor / seconds.factor
    return energy_against_time(f"energy-time-{suffix}", "Energy against time", panel, labels, watts, caption)


def _across(metric: Quantity, fitting: Scale) -> Callable[[Entry], tuple[float, float | None] | None]:
    def place(one: Entry) -> tuple[float, float | None] | None:
        found = _over_repeats(one, metric)
        return None if found is None else (found[0] / fitting.factor, _scaled(found[1], fitting))

    return place


def _hue(chosen: Sequence[Entry]) -> Callable[[Entry], str]:
    """What the colour of a point tells: the network where there are several, else the devices."""
    if len({one.network for one in chosen}) > 1:
        return lambda one: one.network
    return lambda one: one.line


def _trade_offs(chosen: Sequence[Entry], suffix: str) -> Picture | None:
    """Energy against accuracy, data set by data set; where there is none, against speed, network by network."""
    accurate = [one for one in chosen if one.row.sample(ACCURACY) is not None]
    against = quantity(ACCURACY if accurate else "images_per_s")
    energy, kept = quantity("energy_per_image_j"), accurate or chosen
    joules, fitting = _fitting(kept, energy), _fitting(kept, against)
    grouped: dict[str, list[Entry]] = {}
    for one in kept:
        grouped.setdefault(one.dataset if accurate else one.network, []).append(one)
    panels = []
    for name, members in list(grouped.items())[:MOST_NETWORKS]:
        points = _points(members, _across(energy, joules), against, fitting)
        if len(points) > 1:
            panels.append(Panel(name, _lines(points, _hue(chosen)), percent=against.share))
    if not panels:
        return None
    words = "accuracy" if accurate else "speed"
    named = "; ".join(filter(None, (_named(panel, several=len(panels) > 1) for panel in panels)))
    caption = (
        f"Circled: settings whose means no other setting beats in both energy and {words}: {named}. Whether a "
        f"difference is real, the intervals tell. {_INTERVAL}"
    )
    labels = (_axis(energy, joules), _axis(against, fitting))
    return trade_offs(f"trade-off-{suffix}", f"Energy and {words}", panels, labels, caption)


def _named(panel: Panel, *, several: bool) -> str:
    """'1 batch=256, 2 batch=64': the front from the left, as it is numbered."""
    best = front([point for line in panel.lines for point in line.points])
    listed = ", ".join(f"{number} {point.label}" for number, point in enumerate(best[:MOST_NAMED], 1))
    more = f" and {len(best) - MOST_NAMED} more" if len(best) > MOST_NAMED else ""
    return f"{panel.title}: {listed}{more}" if several else listed + more


def _by_phase(chosen: Sequence[Entry], suffix: str) -> Picture | None:
    shown = list(chosen)
    if len(shown) > MOST_BARS:
        largest = {(one.network, one.line): one for one in sorted(chosen, key=lambda one: one.batch or 0)}
        shown = [one for one in chosen if one in largest.values()][:MOST_BARS]
    own = dict.fromkeys(phase for one in shown for run in one.row.finished for phase in preparations(run))
    phases = (LOAD, *own, WARMUP, TRAIN, VALIDATE)
    found: dict[str, dict[str, float]] = {}
    for one in shown:
        parts = {phase: _phase_energy(one, phase) for phase in phases}
        known = {phase: joules for phase, joules in parts.items() if joules is not None}
        if known:
            found[one.name] = known
    if not any(len(parts) > 1 for parts in found.values()):
        return None
    fitting = scale("J", [sum(parts.values()) for parts in found.values()])
    bars = {label: {name: joules / fitting.factor for name, joules in parts.items()} for label, parts in found.items()}
    some = (
        f" {len(shown)} of {len(chosen):,} settings: of each network and devices the largest batch."
        if len(shown) < len(chosen)
        else ""
    )
    caption = (
        "Means of the repeats. Only train counts as a setting's energy; the other phases are measured beside it, and "
        f"what is spent idle before a run is left out.{some}"
    )
    return stacked(f"phases-{suffix}", "Where the energy goes", bars, phases, fitting.unit, caption)


def _phase_energy(one: Entry, phase: str) -> float | None:
    name = "energy_j" if phase == TRAIN else f"{phase}.energy_j"
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
