"""Draws the power of a run over time, with its phases: the picture behind the number."""

from __future__ import annotations

from collections.abc import Iterable
from math import floor, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from energybench.power.series import Columns
from energybench.power.trace import read_trace
from energybench.run.result import PLOT_FILE, TRACE_FILE, Result

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Series = tuple[NDArray[np.float64], NDArray[np.float64]]

MAX_POINTS = 3000

# Lines: Okabe and Ito's palette, told apart with any colour vision. Phases: pale, so that lines stay readable on them.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
PHASES = {"idle": "#e6e6e6", "load": "#f3e3c3", "warmup": "#ffeaa0", "train": "#cfe3f5", "validate": "#d6edd0"}
OTHER_PHASES = ("#ead9f0", "#f6d3d0", "#d3ecec", "#e3dfc8")


def plot_power(result: Result, directory: Path) -> Path | None:
    """Draws power.png in `directory` from its power.parquet.

    Args:
        result: the run; gives phases, energy and which source each channel's energy comes from.
        directory: the run's folder.

    Returns:
        The picture, or None where there is no trace or nothing was read.

    Raises:
        DataError: the trace is damaged.
    """
    lines = power_lines(result, directory / TRACE_FILE)
    return _draw(result, lines, directory / PLOT_FILE) if lines else None


def power_lines(result: Result, trace: Path, points: int = MAX_POINTS) -> dict[str, Series]:
    """Each channel's power over time, by name, as it is drawn; empty where there is no trace or nothing was read.

    Args:
        result: the run; tells which source each channel's energy comes from.
        trace: its power.parquet.
        points: about how many to keep of a channel.

    Raises:
        DataError: the trace is damaged.
    """
    if not trace.exists():
        return {}
    columns, _ = read_trace(trace)
    chosen = _chosen(result, columns.values())
    lines = {channel: downsample(*power(one), points) for channel, one in chosen.items()}
    return {channel: line for channel, line in lines.items() if np.isfinite(line[1]).any()}


def power(columns: Columns) -> Series:
    """Power over time of one source; a gap is a NaN.

    Args:
        columns: readings of one channel and source.

    Returns:
        times_ns: (N,) float64, CLOCK_MONOTONIC; power_w: (N,) float64, the value at that time or, of a counter, the
        mean since the time before.
    """
    order = np.argsort(columns.time_ns, kind="stable")
    times_ns, values = columns.time_ns[order].astype(np.float64), columns.value[order]
    return _differences(times_ns, values) if columns.quantity == "energy_j" else (times_ns, values)


def _differences(times_ns: NDArray[np.float64], energy_j: NDArray[np.float64]) -> Series:
    # A counter that is read more often than it is updated stands still and then jumps: only its steps are power.
    steps = np.ones(len(energy_j), dtype=bool)
    steps[1:] = energy_j[1:] != energy_j[:-1]
    times_ns, energy_j = times_ns[steps], energy_j[steps]
    power_w = np.full(len(energy_j), np.nan)
    seconds = np.diff(times_ns) / 1e9
    with np.errstate(divide="ignore", invalid="ignore"):
        power_w[1:] = np.where(seconds > 0, np.diff(energy_j) / seconds, np.nan)
    power_w[power_w < 0] = np.nan  # the counter wrapped or was reset
    return times_ns, power_w


def downsample(times_ns: NDArray[np.float64], power_w: NDArray[np.float64], points: int = MAX_POINTS) -> Series:
    """At most about `points` of a series, among them the minimum, the maximum and a gap of every stretch.

    Args:
        times_ns: (N,) float64.
        power_w: (N,) float64, NaN where there is a gap.
        points: how many to keep.

    Returns:
        The kept times_ns and power_w, in order.
    """
    if len(power_w) <= points:
        return times_ns, power_w
    kept: set[int] = set()
    for stretch in np.array_split(np.arange(len(power_w)), points // 3):
        gaps = np.isnan(power_w[stretch])
        kept.update(int(index) for index in stretch[gaps][:1])
        valid = stretch[~gaps]
        if len(valid):
            kept.update((int(valid[power_w[valid].argmin()]), int(valid[power_w[valid].argmax()])))
    order = np.array(sorted(kept))
    return times_ns[order], power_w[order]


def _chosen(result: Result, columns: Iterable[Columns]) -> dict[str, Columns]:
    """Each channel's source: of those that its energy comes from the one that tells its course, else the first."""
    sources = {name: energy.source for phase in result.phases for name, energy in phase.channels.items()}
    chosen: dict[str, Columns] = {}
    for one in sorted(columns, key=lambda one: one.channel):
        if one.channel not in chosen or one.source == sources.get(one.channel, "").rpartition("+")[2]:
            chosen[one.channel] = one
    return chosen


def _draw(result: Result, lines: dict[str, Series], target: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot: it keeps global state and may open a display.
    figure = Figure(figsize=(9, 4.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw_power(axes, result, lines)
    axes.set_title(_title(result))
    figure.legend(loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(target)
    return target


def draw_power(axes: Any, result: Result, lines: dict[str, Series]) -> None:
    """Draws power over time with the phases shaded; the time begins with the run.

    Args:
        axes: matplotlib's, empty.
        result: the run.
        lines: what `power_lines` gave.
    """
    starts_ns = [phase.start_ns for phase in result.phases] + [line[0][0] for line in lines.values()]
    origin_ns = min(starts_ns)
    _shade(axes, result, origin_ns)
    for number, (channel, (times_ns, power_w)) in enumerate(lines.items()):
        colour = LINES[number % len(LINES)]
        axes.plot((times_ns - origin_ns) / 1e9, power_w, color=colour, linewidth=1.2, label=_label(result, channel))
    axes.set(xlabel="time (s)", ylabel="power (W)")
    axes.set_ylim(bottom=0)
    axes.margins(x=0)


def _shade(axes: Any, result: Result, origin_ns: float) -> None:
    others = iter(OTHER_PHASES * (len(result.phases) + 1))
    for name in dict.fromkeys(phase.name for phase in result.phases):
        colour = PHASES.get(name) or next(others)
        spans = [((phase.start_ns - origin_ns) / 1e9, phase.time_s) for phase in result.phases if phase.name == name]
        axes.broken_barh(
            spans, (0, 1), transform=axes.get_xaxis_transform(), facecolors=colour, linewidth=0, label=name, zorder=0
        )


def _label(result: Result, channel: str) -> str:
    estimated = any(phase.channels[channel].estimated for phase in result.phases if channel in phase.channels)
    return f"{channel} (estimated)" if estimated else channel


def _title(result: Result) -> str:
    from energybench.tracking.record import run_name  # that package imports this module

    status = "" if result.status == "finished" else f" ({result.status})"
    return f"{run_name(result.config)}{status}\n{_energy(result)}"


def _energy(result: Result) -> str:
    energy_j, expanded_j = result.metrics.get("energy_j"), result.metrics.get("energy_uncertainty_j")
    if energy_j is None:
        return "training energy: not known"
    how = ", ".join(filter(None, (result.tags.get("energy_scope"), result.tags.get("energy_source"))))
    uncertainty = "" if expanded_j is None else f" ± {expanded_j:,.{_decimals(expanded_j)}f}"
    digits = _decimals(energy_j / 1000 if expanded_j is None else expanded_j)
    return f"training: {energy_j:,.{digits}f}{uncertainty} J{f' ({how})' if how else ''}"


def _decimals(uncertainty: float) -> int:
    """Decimals that show two significant digits of an uncertainty."""
    return 0 if uncertainty <= 0 else max(0, 1 - floor(log10(uncertainty)))
