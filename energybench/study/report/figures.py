"""The figures of the report, from plain numbers: nothing here knows a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from energybench.power_plot import LINES, draw_power
from energybench.study.report.drawing import INK, MUTED, PAPER, RULE, Picture, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from energybench.power_plot import Series
    from energybench.run.result import Result

MARKERS = ("o", "s", "^", "D", "v", "P")
MOST_LINES = len(LINES)
MOST_NAMED = 6
"""Points of a front that are numbered, and named below the figure."""

MOST_VECTORS = 600
"""More points than these are drawn as pixels: a page of thousands of circles is slow."""


@dataclass(frozen=True)
class Point:
    """One setting in a figure.

    Attributes:
        x: where it stands.
        y: likewise.
        y_half: half of y's interval; None where one run tells no scatter.
        x_half: likewise of x.
        label: the setting.
    """

    x: float
    y: float
    y_half: float | None = None
    x_half: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Line:
    """Settings that belong together."""

    label: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Attributes:
        title: above it.
        lines: what is drawn.
        from_zero: whether the y axis begins at 0, so that heights can be compared by eye.
        percent: whether y is a share in percent; the bar of an interval is cut where no share can be.
    """

    title: str
    lines: tuple[Line, ...]
    from_zero: bool = False
    percent: bool = False


def against_batch(name: str, title: str, rows: Mapping[str, Sequence[Panel]], caption: str) -> Picture:
    """Small multiples: one column a network, one row a quantity, batch along x.

    Args:
        name: see Picture.
        title: see Picture.
        rows: label of the y axis -> the panels of that row, all rows of one length.
        caption: see Picture.
    """
    labels = list(dict.fromkeys(line.label for panels in rows.values() for panel in panels for line in panel.lines))
    networks = max(len(panels) for panels in rows.values())
    across = networks == 1  # one network: its quantities side by side
    shape = (1, len(rows)) if across else (len(rows), networks)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(*shape, squeeze=False, sharex="col")
        for row, (label, panels) in enumerate(rows.items()):
            for column, panel in enumerate(panels):
                axes = grid[0, row] if across else grid[row, column]
                _panel(axes, panel, labels)
                axes.set_ylabel(label if across or column == 0 else "")
                axes.set_title(panel.title if row == 0 and not across else "")
                if not panel.lines:
                    axes.set_axis_off()
        for axes in grid[-1]:
            axes.set_xlabel("batch")
        _legend(figure, grid[0][0], labels)

    described = "; ".join(
        f"{panel.title}, {label}: {_lines_in_words(panel.lines)}" for label, panels in rows.items() for panel in panels
    )
    size = (3.3 * len(rows), 3.0) if across else (min(10.0, 1.0 + 2.6 * networks), 0.7 + 2.0 * len(rows))
    return picture(name, title, _cut(described), draw, caption=caption, size=size)


def _panel(axes: Axes, panel: Panel, labels: Sequence[str]) -> None:
    batches = sorted({point.x for line in panel.lines for point in line.points})
    for line in panel.lines:
        number = labels.index(line.label)
        colour, marker = _look(number, len(labels))
        points = sorted(line.points, key=lambda point: point.x)
        errors = [point.y_half or 0.0 for point in points]
        axes.errorbar(
            [point.x for point in points],
            [point.y for point in points],
            yerr=errors if any(errors) else None,
            color=colour,
            marker=marker,
            label=line.label,
            linewidth=1.4,
        )
    if batches and min(batches) > 0:
        axes.set_xscale("log", base=2)
        shown = batches if len(batches) <= 6 else [batches[0], batches[len(batches) // 2], batches[-1]]
        axes.set_xticks(shown, [f"{batch:g}" for batch in shown])
        axes.minorticks_off()
        axes.set_xlim(batches[0] / 1.35, batches[-1] * 1.35)
    axes.margins(y=0.2)
    if panel.from_zero:
        tops = [point.y + (point.y_half or 0.0) for line in panel.lines for point in line.points]
        axes.set_ylim(0, 1.12 * max(tops, default=1.0))
    elif panel.lines:
        _end_where_values_do(axes, panel, across=False)
    axes.yaxis.set_major_locator(_few_ticks())


def _end_where_values_do(axes: Axes, panel: Panel, *, across: bool = True) -> None:
    """Ends the axes at 0, and those of shares at 100 %, where no setting lies beyond: only intervals reach there."""
    points = [point for line in panel.lines for point in line.points]
    if across and axes.get_xlim()[0] < 0 <= min((point.x for point in points), default=0):
        axes.set_xlim(left=0)
    low, high = axes.get_ylim()
    if low < 0 <= min((point.y for point in points), default=0):
        axes.set_ylim(bottom=0)
    if panel.percent and high > 100:
        axes.set_ylim(top=100 + 0.03 * (100 - max(low, 0)))  # room for a mark at 100 %


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=5)


def _look(number: int, of: int) -> tuple[str, str]:
    """Colour and marker; more lines than colours are all of one."""
    return (LINES[number], MARKERS[number]) if of <= MOST_LINES else (MUTED, ".")


def _legend(figure: Figure, axes: Axes, labels: Sequence[str]) -> None:
    if 1 < len(labels) <= MOST_LINES:
        handles: dict[str, Any] = {}
        for each in figure.axes:
            for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        figure.legend(
            [handles[label] for label in labels if label in handles],
            [label for label in labels if label in handles],
            loc="outside lower center",
            ncols=min(4, len(labels)),
        )


def trade_offs(name: str, title: str, panels: Sequence[Panel], axes_labels: tuple[str, str], caption: str) -> Picture:
    """Settings in the plane of what should be small (x) and what should be large (y), with the front of the best.

    Args:
        name: see Picture.
        title: see Picture.
        panels: points by what tells their colour; side by side, each with its own front.
        axes_labels: of x and y.
        caption: see Picture.
    """
    labels = list(dict.fromkeys(line.label for panel in panels for line in panel.lines))

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(grid, panels, strict=True):
            count = sum(len(line.points) for line in panel.lines)
            for line in panel.lines:
                _points(axes, line, labels.index(line.label), len(labels), rasterized=count > MOST_VECTORS)
            _front(axes, front([point for line in panel.lines for point in line.points]))
            axes.set_title(panel.title if len(panels) > 1 else "")
            axes.set_xlabel(axes_labels[0])
            axes.margins(x=0.12, y=0.15)
            _end_where_values_do(axes, panel)
            axes.xaxis.set_major_locator(_few_ticks())
        grid[0].set_ylabel(axes_labels[1])
        _legend(figure, grid[0], labels)

    described = "; ".join(
        f"{panel.title}, front: "
        + ", ".join(
            f"{point.label} at {point.x:,.4g}, {point.y:,.4g}"
            for point in front([point for line in panel.lines for point in line.points])
        )
        for panel in panels
    )
    start = f"{axes_labels[1]} against {axes_labels[0]}. "
    width = 6.6 if len(panels) == 1 else min(10.0, 1.2 + 2.9 * len(panels))
    return picture(name, title, _cut(start + described), draw, caption=caption, size=(width, 3.9))


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other is at least as good as in both and better in one: x small, y large; by x."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y)):
        if not best or point.y > best[-1].y:
            best.append(point)
    return best


def energy_against_time(
    name: str, title: str, panel: Panel, axes_labels: tuple[str, str], watts: float, caption: str
) -> Picture:
    """Settings in the plane of time and energy, both logarithmic, with lines of equal mean power.

    Args:
        name: see Picture.
        title: see Picture.
        panel: points by what tells their colour.
        axes_labels: of x and y.
        watts: what one of y / x is, W.
        caption: see Picture.
    """
    labels = [line.label for line in panel.lines]
    points = [point for line in panel.lines for point in line.points]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, line in enumerate(panel.lines):
            _points(axes, line, number, len(labels), rasterized=len(points) > MOST_VECTORS)
        _isolines(axes, points, watts)
        axes.set_xlabel(axes_labels[0])
        axes.set_ylabel(axes_labels[1])
        _legend(figure, axes, labels)

    described = f"{axes_labels[1]} against {axes_labels[0]} of {len(points)} settings. {_lines_in_words(panel.lines)}"
    return picture(name, title, _cut(described), draw, caption=caption, size=(7.0, 4.2))


def _points(axes: Axes, line: Line, number: int, of: int, *, rasterized: bool) -> None:
    colour, marker = _look(number, of)
    x_errors = [point.x_half or 0.0 for point in line.points]
    y_errors = [point.y_half or 0.0 for point in line.points]
    axes.errorbar(
        [point.x for point in line.points],
        [point.y for point in line.points],
        xerr=x_errors if any(x_errors) and not rasterized else None,
        yerr=y_errors if any(y_errors) and not rasterized else None,
        linestyle="none",
        color=colour,
        marker=marker,
        elinewidth=0.9,
        label=line.label,
        rasterized=rasterized,
    )


def _isolines(axes: Axes, points: Sequence[Point], factor: float) -> None:
    """Logarithmic axes and, behind the points, lines of equal power at 1, 2, 5, 10, ... W."""
    from matplotlib.ticker import LogLocator, NullFormatter

    positive = [point for point in points if point.x > 0 and point.y > 0]
    if not positive:
        return
    axes.set_xscale("log")
    axes.set_yscale("log")
    x_low, x_high = _widened([point.x for point in positive])
    y_low, y_high = _widened([point.y for point in positive])
    axes.set_xlim(x_low, x_high)
    axes.set_ylim(y_low, y_high)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter("{x:,.3g}")
        axis.set_minor_formatter(NullFormatter())
    axes.grid(visible=False)
    for watts in _round_values(factor * y_low / x_high, factor * y_high / x_low):
        slope = watts / factor
        axes.plot([x_low, x_high], [slope * x_low, slope * x_high], color=RULE, linewidth=0.9, zorder=0)
        right = min(x_high, y_high / slope)
        if slope * right > y_low:
            axes.annotate(
                f"{watts:,g} W",
                (right, slope * right),
                xytext=(-3, -3),
                textcoords="offset points",
                ha="right",
                va="top",
                color=MUTED,
                fontsize=7.5,
                annotation_clip=True,
            )


def _widened(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    factor = max(1.25, (high / low) ** 0.08)
    return low / factor, high * factor


def _round_values(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... between two values, thinned to a handful."""
    found = [
        base * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for base in (1, 2, 5)
        if low < base * 10.0**power < high
    ]
    return found if len(found) <= 7 else found[:: math.ceil(len(found) / 7)]


def _front(axes: Axes, best: Sequence[Point]) -> None:
    """Circles the best and numbers them from the left; a line joins them in steps."""
    if len(best) > 1:
        axes.plot(
            [point.x for point in best],
            [point.y for point in best],
            color=MUTED,
            linewidth=0.9,
            linestyle=(0, (4, 2)),
            drawstyle="steps-post",
            zorder=1,
        )
    for point in best:
        axes.plot([point.x], [point.y], marker="o", markersize=11, markerfacecolor="none", markeredgecolor=INK)
    for number, point in enumerate(best[:MOST_NAMED], 1):
        axes.annotate(
            str(number),
            (point.x, point.y),
            xytext=(7, 6),
            textcoords="offset points",
            fontsize=8.5,
            weight="bold",
            color=INK,
            bbox={"boxstyle": "round,pad=0.1", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.8},
        )


def stacked(
    name: str, title: str, bars: Mapping[str, Mapping[str, float]], order: Sequence[str], unit: str, caption: str
) -> Picture:
    """Horizontal bars, one a setting, made of parts.

    Args:
        name: see Picture.
        title: see Picture.
        bars: setting -> part -> value; a part that does not exist is absent.
        order: of the parts, from the left.
        unit: of the values.
        caption: see Picture.
    """
    parts = [part for part in order if any(part in bar for bar in bars.values())]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        places = range(len(bars))
        left = [0.0] * len(bars)
        for part in parts:
            values = [bar.get(part, 0.0) for bar in bars.values()]
            axes.barh(places, values, left=left, height=0.62, color=phase_colour(part, parts), label=part)
            left = [start + value for start, value in zip(left, values, strict=True)]
        axes.set_yticks(places, list(bars))
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"energy ({unit})")
        figure.legend(loc="outside lower center", ncols=min(6, len(parts)))

    described = "; ".join(
        f"{label}: " + ", ".join(f"{part} {value:,.3g} {unit}" for part, value in bar.items())
        for label, bar in bars.items()
    )
    return picture(name, title, _cut(described), draw, caption=caption, size=(7.4, 1.1 + 0.27 * len(bars)))


_STACK = {"train": LINES[0], "validate": LINES[2], "warmup": "#E69F00", "load": LINES[3], "compile": LINES[1]}


def phase_colour(name: str, all_names: Sequence[str]) -> str:
    """A colour that a bar of this phase has in every figure; greys for what is none of training's."""
    if name in _STACK:
        return _STACK[name]
    others = [other for other in all_names if other not in _STACK]
    return ("#8a949e", "#b3bbc2", "#6b7680", "#cfd5da")[others.index(name) % 4]


def power_traces(
    name: str, title: str, traces: Mapping[str, tuple[Result, dict[str, Series]]], caption: str
) -> Picture:
    """Power over time of a few runs below each other, phases shaded.

    Args:
        name: see Picture.
        title: see Picture.
        traces: label of the run -> the run and what `power_lines` gave of it.
        caption: see Picture.
    """

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(traces), 1, squeeze=False)
        handles: dict[str, Any] = {}
        for axes, (label, (result, lines)) in zip(grid[:, 0], traces.items(), strict=True):
            draw_power(axes, result, lines)
            axes.grid(visible=False, axis="x")
            axes.set_title(label)
            axes.set_xlabel("")
            for handle, text in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(text, handle)
        grid[-1, 0].set_xlabel("time since the run began (s)")
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=6)

    described = "; ".join(
        f"{label}: {', '.join(_course(channel, line) for channel, line in lines.items())}"
        for label, (_, lines) in traces.items()
    )
    return picture(name, title, _cut(described), draw, caption=caption, size=(7.4, 0.9 + 1.75 * len(traces)))


def _course(channel: str, line: Series) -> str:
    import numpy as np

    return f"{channel} from {np.nanmin(line[1]):,.0f} to {np.nanmax(line[1]):,.0f} W"


def _lines_in_words(lines: Sequence[Line]) -> str:
    return "; ".join(
        f"{line.label or 'all'}: " + ", ".join(f"{point.x:,.4g}: {point.y:,.4g}" for point in line.points)
        for line in lines
    )


def _cut(text: str, limit: int = 900) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
