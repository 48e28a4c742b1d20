"""The tables and the plot of `meter_error.py`, and its raw numbers."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TOOLS = ("energybench", "Zeus", "CodeCarbon", "10 Hz trapezoid", "nvidia-smi -lms 100", "1 s poll")
LENGTHS = {"0.05": "50 ms", "0.2": "200 ms", "1.0": "1 s", "5.0": "5 s", "60.0": "60 s"}
TARGETS = {"0.05": (5, 40), "0.2": (2, 15), "1.0": (0.5, 3), "5.0": (0.2, 1), "60.0": (0.1, 0.3)}
"""Median and largest error in per cent that energybench is to keep wherever the sensor's data allow it."""


def write(found: Mapping[str, Any], folder: Path) -> None:
    """meter_error.json, meter_error.md and meter_error.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meter_error.json").write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")
    text = "\n\n".join((by_sensor(found), by_load(found), coverage(found), coverage_by_load(found), said(found)))
    (folder / "meter_error.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    plot(found, folder / "meter_error.svg")


def by_sensor(found: Mapping[str, Any]) -> str:
    """Median and largest error of every tool, all loads together."""
    errors = found["errors"]
    tools = [tool for tool in TOOLS if tool in errors]
    rows = [f"| sensor | window | {' | '.join(tools)} |", f"| --- | --- |{' ---: |' * len(tools)}"]
    for card in errors["energybench"]:
        for length, words in LENGTHS.items():
            cells = [spread(pooled(errors[tool].get(card, {}), length)) for tool in tools]
            if any(cells):
                rows.append(f"| {card} | {words} | {' | '.join(cell or '–' for cell in cells)} |")
    return "\n".join(rows)


def by_load(found: Mapping[str, Any]) -> str:
    """The same of energybench, load by load; what misses a target is marked."""
    table = found["errors"]["energybench"]
    lengths = [length for length in LENGTHS if pooled(next(iter(table.values())), length)]
    rows = [
        f"| sensor | load | {' | '.join(LENGTHS[length] for length in lengths)} |",
        f"| --- | --- |{' ---: |' * len(lengths)}",
    ]
    for card, loads in table.items():
        for load, values in loads.items():
            cells = [marked(values[length], TARGETS[length]) for length in lengths]
            rows.append(f"| {card} | {load} | {' | '.join(cells)} |")
    return "\n".join(rows)


def coverage(found: Mapping[str, Any]) -> str:
    """How often the truth lies inside energybench's stated interval, and how wide that is."""
    stated = found["stated"]
    lengths = [length for length in LENGTHS if pooled(next(iter(stated.values())), length)]
    head = " | ".join(LENGTHS[length] for length in lengths)
    rows = [f"| sensor | all | {head} |", f"| --- | ---: |{' ---: |' * len(lengths)}"]
    for card, loads in stated.items():
        cells = []
        for length in lengths:
            pairs = pooled(loads, length)
            cells.append(f"{inside(pairs):.1%} (± {statistics.median(u for _, u in pairs):.2g} %)")
        every = [pair for length in lengths for pair in pooled(loads, length)]
        rows.append(f"| {card} | {inside(every):.1%} | {' | '.join(cells)} |")
    return "\n".join(rows)


def coverage_by_load(found: Mapping[str, Any]) -> str:
    """The same load by load, windows of all lengths together."""
    stated = found["stated"]
    loads = list(next(iter(stated.values())))
    rows = [f"| sensor | {' | '.join(loads)} |", f"| --- |{' ---: |' * len(loads)}"]
    for card, table in stated.items():
        cells = [f"{inside([pair for pairs in table[load].values() for pair in pairs]):.1%}" for load in loads]
        rows.append(f"| {card} | {' | '.join(cells)} |")
    return "\n".join(rows)


def said(found: Mapping[str, Any]) -> str:
    """What tools said that gave nothing."""
    lines = [f"- {tool}, {card}: {words}" for tool, cards in found["failures"].items() for card, words in cards.items()]
    return "\n".join([*lines, f"- {found['seconds']:.0f} s in all"])


def inside(pairs: Sequence[Sequence[float]]) -> float:
    return sum(abs(error) <= u for error, u in pairs) / len(pairs)


def pooled(loads: Mapping[str, Mapping[str, Sequence[Any]]], length: str) -> list[Any]:
    return [value for values in loads.values() for value in values.get(length, [])]


def spread(errors: Sequence[float | None]) -> str:
    """Median and largest, and of how many windows nothing was told."""
    if not errors:
        return ""
    sizes = [abs(error) for error in errors if error is not None]
    if not sizes:
        return "nothing"
    missing = f" ({len(errors) - len(sizes)} of {len(errors)} nothing)" if len(sizes) < len(errors) else ""
    return f"{number(statistics.median(sizes))} / {number(max(sizes))}{missing}"


def marked(errors: Sequence[float], target: tuple[float, float]) -> str:
    sizes = [abs(error) for error in errors if error is not None]
    middle, worst = statistics.median(sizes), max(sizes)
    return " / ".join(
        f"**{number(value)}**" if value > limit else number(value)
        for value, limit in zip((middle, worst), target, strict=True)
    )


def number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Median and largest error over the window's length, a panel for each sensor."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "energybench"
    from matplotlib import pyplot

    errors = found["errors"]
    cards = list(errors["energybench"])
    figure, panels = pyplot.subplots(2, 3, figsize=(12, 7), sharex=True, sharey=True, layout="constrained")
    for card, panel in zip(cards, panels.flat, strict=True):
        for place, tool in enumerate(tool for tool in TOOLS if tool in errors):
            drawn = [
                (float(length), [abs(one) for one in pooled(errors[tool].get(card, {}), length) if one is not None])
                for length in LENGTHS
            ]
            drawn = [(length_s, sizes) for length_s, sizes in drawn if sizes]
            if not drawn:
                continue
            at = [length_s * 1.08 ** (place - 2) for length_s, _ in drawn]
            middle = [max(statistics.median(sizes), 1e-3) for _, sizes in drawn]
            worst = [max(max(sizes), 1e-3) for _, sizes in drawn]
            [line] = panel.plot(
                at, middle, "o-", color=f"C{place}", label=tool, linewidth=2 if place == 0 else 1, markersize=4
            )
            panel.vlines(at, middle, worst, color=line.get_color(), alpha=0.5)
            panel.plot(at, worst, "_", color=line.get_color())
        panel.set(xscale="log", yscale="log", title=card)
        panel.set_xticks([float(length) for length in LENGTHS], list(LENGTHS.values()))
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    figure.supxlabel("length of the window")
    figure.supylabel("error: median (dot) to largest (dash), %")
    figure.legend(*panels.flat[-1].get_legend_handles_labels(), loc="outside upper center", ncols=6)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
