"""The table after a sweep: repeats brought together, and the best rows where intervals separate them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from energybench.run.result import Result
from energybench.study.columns import Column, Columns
from energybench.study.quantities import preparations, quantity
from energybench.study.rows import Row, natural, rows
from energybench.study.separation import in_question
from energybench.study.words import digits, plus_minus, real, scaled

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


@dataclass(frozen=True)
class Criterion:
    """Something to be best at."""

    metric: str
    words: str
    smaller_is_better: bool


CRITERIA = (
    Criterion("energy_per_image_j", "least energy an image", True),
    Criterion("images_per_s", "most images a second", False),
    Criterion("accuracy_top1", "highest top-1 accuracy", False),
)


def best(table: Sequence[Row], criterion: Criterion) -> Row | None:
    """The row that is better than every other beyond both intervals; None where none is, or a row was run but once."""
    metric = quantity(criterion.metric)
    known = [row for row in table if row.sample(metric) is not None]
    if len(known) < 2 or len({row.group for row in known}) > 1:
        return None
    first, *others = in_question(known, metric, criterion.smaller_is_better)
    return None if others else first


COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("energy_j", "energy (J)", "{:,.1f}"),
    ("time_s", "time (s)", "{:,.2f}"),
    ("power_mean_w", "power (W)", "{:,.1f}"),
    ("images_per_s", "images/s", "{:,.0f}"),
    ("energy_per_image_j", "J/image", "{:.4g}"),
    ("gflops_per_w", "GFLOPS/W", "{:.3g}"),
    ("accuracy_top1", "top-1", "{:.2%}"),
)

SPREAD = ("energy_j", "energy_per_image_j", "images_per_s", "accuracy_top1")
"""Columns that show the interval over repeats."""


def heading(results: Sequence[Result]) -> str:
    """What the joules are: 'energy of the cpu, estimated by tdp: 65 W ... (±50 %)'."""
    parts = []
    for result in results:
        tags = result.tags
        if "energy_scope" in tags:
            how = f"{tags.get('energy_source')} by {tags.get('meter')}"
            source = f": {tags['tdp_source']}" if "tdp_source" in tags else ""
            parts.append(f"energy of the {tags['energy_scope']} ({tags.get('device', '?')}), {how}{source}")
    return "; ".join(dict.fromkeys(parts)) or "no energy was read"


def table(results: Sequence[Result]) -> Columns:
    """The results as a table for a terminal; '*' marks what is best beyond its interval."""
    from rich.text import Text

    made = rows(results)
    winners = {criterion.metric: best(made, criterion) for criterion in CRITERIA}
    ordered = _ordered(made)
    columns = [Column("setting", [Text(row.label) for row in ordered], number=False)]
    for metric, title, form in COLUMNS:
        cells = [_cell(row, metric, form, winners.get(metric) is row) for row in ordered]
        columns.append(Column(title, cells, spare=SPARE.get(metric, 0)))
    columns.append(Column("runs", [Text(_runs(row)) for row in ordered]))
    columns.append(Column("quality", [Text(_quality(row)) for row in ordered], number=False))
    return Columns(heading(results), tuple(columns))


SPARE = {"gflops_per_w": 5, "power_mean_w": 4, "images_per_s": 3, "energy_per_image_j": 2, "time_s": 1}
"""Columns that a narrow terminal does without; see `Column.spare`."""


def _ordered(made: Sequence[Row]) -> Sequence[Row]:
    """As the command line has them; those of a shuffled sweep by their labels, as people sort them."""
    sections = [result.config.get("sweep") for row in made for result in row.results]
    shuffled = any(isinstance(one, Mapping) and one.get("shuffle") is not None for one in sections)
    return sorted(made, key=lambda row: natural(row.label)) if shuffled else made


DETAILS: tuple[tuple[str, str, str], ...] = (
    ("time_s", "training time", "{:,.2f} s"),
    ("images_per_s", "throughput", "{:,.0f} images/s"),
    ("input_wait_fraction", "waiting for data", "{:.1%} of the time"),
    ("power_mean_w", "mean power", "{:,.1f} W"),
    ("power_peak_w", "peak power", "{:,.1f} W"),
    ("power_idle_w", "idle power", "{:,.1f} W"),
    ("energy_above_idle_j", "energy above idle", "{:,.1f} J"),
    ("energy_per_image_j", "energy an image", "{:.4g} J"),
    ("gflops_per_s", "achieved", "{:,.1f} GFLOPS"),
    ("gflops_per_w", "efficiency", "{:.3g} GFLOPS/W"),
    ("edp_js", "energy-delay product", "{:,.4g} J s"),
    ("accuracy_top1", "top-1 accuracy", "{:.2%}"),
    ("accuracy_top5", "top-5 accuracy", "{:.2%}"),
    ("time_to_accuracy_s", "time to accuracy", "{:,.2f} s"),
    ("energy_to_accuracy_j", "energy to accuracy", "{:,.1f} J"),
    ("warmup.energy_j", "energy of the warm-up", "{:,.1f} J"),
    ("validate.energy_j", "energy of validation", "{:,.1f} J"),
    ("unreadable_samples", "samples that could not be read", "{:,.0f}"),
)


def energy_text(result: Result) -> str:
    """'88 ± 44': joules of training and their expanded uncertainty; the result must have them."""
    energy_j, half_width_j = result.metrics["energy_j"], result.metrics.get("energy_uncertainty_j")
    if half_width_j:
        return plus_minus(energy_j, half_width_j)
    return _places(energy_j, "{:,.1f}")


def details(result: Result) -> Table:
    """One run's result for a terminal, a line a metric; what does not exist is not in it."""
    from rich.table import Table

    from energybench.run.attempts import cut  # not above: it loads numpy, and comparing files needs none

    drawn = Table(title=heading([result]), title_justify="left", title_style="", show_header=False)
    found = result.metrics
    if "energy_j" in found:
        drawn.add_row("training energy", f"{energy_text(result)} J (k = 2)")
    own = [(f"{phase}.energy_j", f"energy of {phase}", "{:,.1f} J") for phase in preparations(result)]
    for metric, words, form in [*DETAILS, *own]:
        if metric in found:
            drawn.add_row(words, _shown(found[metric], form))
    if result.attempts:
        part = "; what one of them took at its end is not known" if cut(result.attempts) else ", all in these numbers"
        drawn.add_row("attempts", f"{len(result.attempts) + 1}{part}")
    drawn.add_row("quality", result.tags.get("quality", "-"))
    return drawn


LEAST = 1e-9
"""Joules and seconds; what is less, a difference's rounding has left."""


def _shown(value: float, form: str) -> str:
    """By the form, but small joules and seconds keep their digits: '0.0320 J', '291.6 µJ'."""
    number, _, unit = form.partition(" ")
    if not unit.startswith(("J", "s")):
        return form.format(value)
    if LEAST < abs(value) < 1e-3:
        factor, unit = scaled([value], unit)
        return f"{digits(value * factor)} {unit}"
    return f"{_places(value, number)} {unit}"


def _places(value: float, form: str) -> str:
    """By a form of fixed decimals, but three digits of what is less than 1."""
    return digits(value, 3) if form.endswith("f}") and LEAST < abs(value) < 1 else form.format(value)


def _cell(row: Row, metric: str, form: str, marked: bool) -> Text:
    from rich.text import Text

    found = row.estimate(metric)
    if found is None:
        return Text("-")
    half_width = real(found.half_width, found.mean) if metric in SPREAD else None
    if half_width is None and metric == "energy_j":
        half_width = _meter_u(row)
    text = form.format(found.mean) if not half_width else plus_minus(found.mean, half_width, percent="%" in form)
    return Text(f"{text} *", style="bold") if marked else Text(text)


def _meter_u(row: Row) -> float | None:
    """What the meter says of one run's energy, where one run is all there is."""
    known = [
        result.metrics["energy_uncertainty_j"] for result in row.finished if "energy_uncertainty_j" in result.metrics
    ]
    return known[0] if len(known) == 1 else None


def _runs(row: Row) -> str:
    return str(len(row.results)) if row.finished == row.results else f"{len(row.finished)} of {len(row.results)}"


def _quality(row: Row) -> str:
    words = [
        result.tags.get("quality", "") if result.failure is None else f"{result.status}: {result.failure.kind}"
        for result in row.results
    ]
    return ", ".join(sorted(set(filter(None, words)), key=lambda word: (word != "ok", word)))


def verdict(results: Sequence[Result], *, one_seed: bool = True) -> list[str]:
    """What the table allows to be said, and how to learn more, where only `one_seed` was asked for."""
    made = rows(results)
    if len(made) < 2:
        return []
    if len({row.group for row in made if row.finished}) > 1:
        return ["Measured and estimated energies, or other scopes, stand in this table: they are not compared."]
    lines = []
    for criterion in CRITERIA:
        if any(row.estimate(criterion.metric) for row in made):
            winner = best(made, criterion)
            lines.append(f"{criterion.words}: {winner.label if winner else 'not distinguishable'}")
    if one_seed and all(len(row.results) == 1 for row in made):
        lines.append("One run each tells no scatter. Repeat each setting to tell them apart: add seed=0,1,2")
    return lines
