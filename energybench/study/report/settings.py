"""The settings of a study as tables: network x batch x devices, and everything known of every setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from energybench.devices import GPU
from energybench.study.quantities import Quantity, quantity
from energybench.study.report.numbers import Scale, scale
from energybench.study.report.tables import Cell, Column, Table, text_cells, without_empty_columns
from energybench.study.rows import Row

SHOWN_IN_STUDY = 72
"""Rows of a study table on the page: the four networks at three batches on two generations, one to three GPUs."""

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
class Setting:
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
    def network(self) -> str:
        """Name of the network."""
        model = self.row.results[0].config.get("model")
        return str(model.get("name", "?")) if isinstance(model, Mapping) else "?"

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
            boards = result.provenance.get("devices")
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
        own = 2 * (sample.independent_u[0] ** 2 + sample.common_u**2) ** 0.5 if sample is not None else 0.0
        return found.mean, own or None


def settings(rows: Sequence[Row]) -> list[Setting]:
    """In the order of a table: by network, devices, their number, batch."""
    made = [Setting(row) for row in rows]
    return sorted(made, key=lambda one: (one.network, one.device, one.count or 0, one.rest, one.batch or 0))


def study_table(name: str, title: str, chosen: Sequence[Setting], extra: Mapping[str, Sequence[Cell]], note: str) -> Table:
    """Network x batch x devices with the study's quantities.

    Args:
        name: see Table.
        title: see Table.
        chosen: the settings, in order.
        extra: head -> cells, one a setting, for what compares settings with each other: speed-up, efficiency.
        note: see Table.
    """
    heads = [Column("network", "network"), Column("device", "device"), Column("count", _count_head(chosen), True)]
    heads += [Column("batch", "batch", True), Column("setting", "else")]
    places = [
        (
            *text_cells(one.network, one.device),
            Cell("" if one.count is None else str(one.count), one.count),
            Cell("" if one.batch is None else f"{one.batch:,}", one.batch),
            *text_cells(one.rest),
        )
        for one in chosen
    ]
    columns, cells = _quantities(chosen, STUDY_METRICS)
    columns += [Column(head.replace(" ", "_"), head, True) for head in extra]
    cells = [[*line, *(others[index] for others in extra.values())] for index, line in enumerate(cells)]
    heads_all = (*heads, *columns, Column("runs", "runs", True))
    rows = tuple((*place, *line, _runs(one)) for place, line, one in zip(places, cells, chosen, strict=True))
    return without_empty_columns(Table(name, title, heads_all, rows, note, SHOWN_IN_STUDY))


def _count_head(chosen: Sequence[Setting]) -> str:
    return "GPUs" if chosen and chosen[0].row.group[1] == GPU else "contexts"


def settings_table(name: str, title: str, chosen: Sequence[Setting], note: str) -> Table:
    """Everything known of each setting."""
    columns, cells = _quantities(chosen, ALL_METRICS)
    rows = tuple(
        (Cell(one.label), *line, _runs(one), Cell(_quality(one)))
        for one, line in zip(chosen, cells, strict=True)
    )
    heads = (Column("setting", "setting"), *columns, Column("runs", "runs", True), Column("quality", "quality"))
    return without_empty_columns(Table(name, title, heads, rows, note, SHOWN_SETTINGS))


def _quantities(chosen: Sequence[Setting], names: Sequence[str]) -> tuple[list[Column], list[list[Cell]]]:
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


def _runs(one: Setting) -> Cell:
    finished, all_runs = len(one.row.finished), len(one.row.results)
    return Cell(str(finished) if finished == all_runs else f"{finished} of {all_runs}", finished)


def _quality(one: Setting) -> str:
    """The flags of its runs, 'ok' where there is none, and what did not finish."""
    flags = dict.fromkeys(flag for result in one.row.finished for flag in flags_of(result.tags.get("quality", "")))
    ends = dict.fromkeys(
        f"{result.status}: {result.failure.kind}" for result in one.row.results if result.failure is not None
    )
    return ", ".join([*(flags or (["ok"] if one.row.finished else [])), *ends])


def flags_of(quality: str) -> list[str]:
    """The flags of a quality tag."""
    return [flag for flag in quality.split(",") if flag not in ("", "ok")]


