"""The settings of a study as tables: network x batch x devices, and everything known of every setting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from energybench.devices import GPU
from energybench.run.result import devices_of
from energybench.study.effects import COUNT, effects
from energybench.study.quantities import Quantity, quantity
from energybench.study.report.numbers import Scale, scale
from energybench.study.report.tables import Cell, Column, Table, without_empty_columns
from energybench.study.rows import Row, among

SHOWN_IN_STUDY = 60
"""Rows of one network's table on the page."""

SHOWN_SETTINGS = 400
"""Rows of the settings table on the page; the files have all."""

STUDY_METRICS = (
    "time_s",
    "power_mean_w",
    "energy_j",
    "energy_per_image_j",
    "accuracy_top1",
    "gflops_per_w",
    "edp_js",
)
ALL_METRICS = (
    "energy_j",
    "energy_above_idle_j",
    "energy_per_image_j",
    "time_s",
    "images_per_s",
    "power_mean_w",
    "power_peak_w",
    "power_idle_w",
    "accuracy_top1",
    "accuracy_top5",
    "gflops_per_s",
    "gflops_per_w",
    "edp_js",
    "ed2p_js2",
    "time_to_accuracy_s",
    "energy_to_accuracy_j",
)
_SHORT = {
    "energy_per_image_j": "energy/image",
    "images_per_s": "images/s",
    "power_mean_w": "power",
    "power_idle_w": "idle power",
    "accuracy_top1": "top-1",
    "accuracy_top5": "top-5",
    "gflops_per_s": "GFLOPS",
    "gflops_per_w": "GFLOPS/W",
}
_PLAIN_UNITS = {"images/s", "GFLOPS", "GFLOPS/W"}  # their short name says it


@dataclass(frozen=True)
class Entry:
    """A row of the study with what places it in a table.

    Attributes:
        row: the runs.
    """

    row: Row

    @property
    def label(self) -> str:
        """What tells it from the others."""
        return self.row.label

    @cached_property
    def name(self) -> str:
        """The label as figures have it, where room is scarce: 'caffenet batch=64'."""
        return self.label.removeprefix("model=")

    @cached_property
    def among_its_network(self) -> str:
        """The label without the network, where other words are left."""
        return " ".join(word for word in self.label.split(" ") if not word.startswith("model=")) or self.label

    @cached_property
    def network(self) -> str:
        """Name of the network."""
        model = self.row.results[0].config.get("model")
        return str(model.get("name", "?")) if isinstance(model, Mapping) else "?"

    @cached_property
    def dataset(self) -> str:
        """Name of the data."""
        dataset = self.row.results[0].config.get("dataset")
        return str(dataset.get("name", "")) if isinstance(dataset, Mapping) else str(dataset or "")

    @cached_property
    def batch(self) -> int | None:
        """Samples a step; None where the configuration does not say."""
        batch = self.row.results[0].config.get("batch")
        return batch if isinstance(batch, int) else None

    @cached_property
    def device(self) -> str:
        """'TITAN Xp (pascal)', or the CPU's name."""
        tags = self._tags
        name, generation = tags.get("device", "?"), tags.get("generation", "")
        return f"{name} ({generation})" if generation and tags.get("energy_scope") == GPU else name

    @cached_property
    def count(self) -> int | None:
        """How many devices trained."""
        for result in self.row.results:
            boards = devices_of(result.provenance)
            if boards:
                asked = result.config.get("gpu", {}).get("count")
                return asked if isinstance(asked, int) and result.tags.get("energy_scope") != GPU else len(boards)
        return None

    @cached_property
    def rest(self) -> str:
        """What else tells it from the others, beside network, batch and devices: 'precision=fp16'."""
        shown = ("model", "batch", "gpu", "gpu.count", "device", "model.name")
        words = [word for word in self.label.split(" ") if "=" in word and word.partition("=")[0] not in shown]
        return " ".join(words)

    @property
    def synthetic(self) -> bool:
        """Whether its data mean nothing, so that there is no accuracy."""
        return self._tags.get("data") == "synthetic"

    @property
    def line(self) -> str:
        """What it shares with the settings that differ from it in the batch alone."""
        devices = self.device if self.count in (None, 1) else f"{self.count} × {self.device}"
        return " ".join(filter(None, (devices, self.rest)))

    @cached_property
    def _tags(self) -> Mapping[str, str]:
        return next((result.tags for result in self.row.results if "device" in result.tags), self.row.results[0].tags)

    def shown(self, metric: Quantity) -> tuple[float, float | None] | None:
        """Mean and half of the interval to show: over repeats or, of one run, what the meter says of itself."""
        found = self.row.estimate(metric)
        if found is None:
            return None
        if found.half_width is not None or found.repeats > 1:
            return found.mean, found.half_width
        sample = self.row.sample(metric)
        parts = (sample.independent_u[0], sample.edges_u, sample.common_u) if sample is not None else ()
        own = 2 * math.hypot(*parts)
        return found.mean, own or None


def entries(rows: Sequence[Row]) -> list[Entry]:
    """In the order of a table: by network, devices, their number, batch."""
    made = [Entry(row) for row in rows]
    return sorted(made, key=lambda one: (one.network, one.device, one.count or 0, one.rest, one.batch or 0))


def alone(chosen: Sequence[Entry]) -> list[Entry]:
    """The same settings, labelled by what differs among them."""
    return [Entry(row) for row in among([one.row for one in chosen])]


def study_table(name: str, title: str, chosen: Sequence[Entry], speedups: Mapping[str, Speedup], note: str) -> Table:
    """Devices x batch of one network with the study's quantities.

    Args:
        name: see Table.
        title: see Table.
        chosen: the settings, in order.
        speedups: label -> how much faster than on one device.
        note: see Table.
    """
    places = (
        Column("device", "device"),
        Column("count", _count_head(chosen), True),
        Column("batch", "batch", True),
        Column("setting", "else"),
    )
    columns, cells = _quantities(chosen, STUDY_METRICS)
    heads = (*places, *columns, Column("speedup", "speed-up", True), Column("efficiency", "efficiency (%)", True))
    rows = tuple(
        (
            Cell(one.device),
            Cell("" if one.count is None else str(one.count), one.count),
            Cell("" if one.batch is None else f"{one.batch:,}", one.batch),
            Cell(one.rest),
            *line,
            *_speedup_cells(speedups.get(one.label)),
            _runs(one),
        )
        for one, line in zip(chosen, cells, strict=True)
    )
    return without_empty_columns(Table(name, title, (*heads, Column("runs", "runs", True)), rows, note, SHOWN_IN_STUDY))


@dataclass(frozen=True)
class Speedup:
    """n devices against one.

    Attributes:
        value: time on one / time on n.
        half: half of its 95 % interval; None where single runs tell none.
        more: how many times as many devices.
    """

    value: float
    half: float | None
    more: float


def speedups(chosen: Sequence[Entry]) -> dict[str, Speedup]:
    """Label -> speed-up against the fewest devices, all else equal, for the settings that have such a match."""
    found: dict[str, Speedup] = {}
    for effect in effects([one.row for one in chosen], COUNT, "images_per_s"):
        if not (effect.level.isdigit() and effect.reference.isdigit()):
            continue
        more = int(effect.level) / int(effect.reference)
        for match in effect.matches:
            ratio = match.ratio
            if ratio is not None:
                half = None if ratio.low is None or ratio.high is None else (ratio.high - ratio.low) / 2
                found[match.after.label] = Speedup(ratio.value, half, more)
                found.setdefault(match.before.label, Speedup(1.0, None, 1.0))
    return found


def _speedup_cells(found: Speedup | None) -> tuple[Cell, Cell]:
    if found is None:
        return Cell(""), Cell("")
    if found.more == 1:
        return Cell("1", 1.0), Cell("100", 1.0)
    share = None if found.half is None else found.half / found.more
    return (
        cell((found.value, found.half), Scale("")),
        cell((found.value / found.more, share), Scale("%", 0.01)),
    )


def _count_head(chosen: Sequence[Entry]) -> str:
    return "GPUs" if chosen and chosen[0].row.group[1] == GPU else "contexts"


def settings_table(name: str, title: str, chosen: Sequence[Entry], note: str) -> Table:
    """Everything known of each setting."""
    columns, cells = _quantities(chosen, ALL_METRICS)
    rows = tuple(
        (Cell(one.label), *line, _runs(one), Cell(_quality(one))) for one, line in zip(chosen, cells, strict=True)
    )
    heads = (Column("setting", "setting"), *columns, Column("runs", "runs", True), Column("quality", "quality"))
    return without_empty_columns(Table(name, title, heads, rows, note, SHOWN_SETTINGS))


def _quantities(chosen: Sequence[Entry], names: Sequence[str]) -> tuple[list[Column], list[list[Cell]]]:
    """A column a quantity, and the cells of every setting."""
    columns, by_column = [], []
    for name in names:
        metric = quantity(name)
        found = [one.shown(metric) for one in chosen]
        fitting = scale(metric.unit, [shown[0] for shown in found if shown is not None], share=metric.share)
        columns.append(Column(name, head(metric, fitting), True, fitting))
        by_column.append([cell(shown, fitting) for shown in found])
    return columns, [list(line) for line in zip(*by_column, strict=True)] if chosen else []


def head(metric: Quantity, fitting: Scale) -> str:
    """'energy (kJ)'."""
    words = _SHORT.get(metric.name, metric.words)
    return words if metric.unit in _PLAIN_UNITS else f"{words}{fitting.in_brackets}"


def cell(shown: tuple[float, float | None] | None, fitting: Scale) -> Cell:
    """A number as a cell; an empty one for what does not exist."""
    if shown is None:
        return Cell("")
    value, half = shown
    return Cell(fitting.text(value, half), value, half)


def _runs(one: Entry) -> Cell:
    finished, all_runs = len(one.row.finished), len(one.row.results)
    return Cell(str(finished) if finished == all_runs else f"{finished} of {all_runs}", finished)


def _quality(one: Entry) -> str:
    """The flags of its runs, 'ok' where there is none, and what did not finish."""
    flags = dict.fromkeys(flag for result in one.row.finished for flag in flags_of(result.tags.get("quality", "")))
    ends = dict.fromkeys(
        f"{result.status}: {result.failure.kind}" for result in one.row.results if result.failure is not None
    )
    return ", ".join([*(flags or (["ok"] if one.row.finished else [])), *ends])


def flags_of(quality: str) -> list[str]:
    """The flags of a quality tag."""
    return [flag for flag in quality.split(",") if flag not in ("", "ok")]
