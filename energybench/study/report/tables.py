"""Tables of the report: one description, written as HTML by the page, and as CSV, Markdown and LaTeX for a paper."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from energybench.study.report.numbers import Scale


@dataclass(frozen=True)
class Column:
    """A column's head.

    Attributes:
        name: of the CSV column: a metric's contract name, or a word.
        head: for people, the unit in brackets.
        numeric: whether its cells are numbers: set flush right, and sorted as numbers.
        scale: what the texts of its cells count in; None of a text column.
    """

    name: str
    head: str
    numeric: bool = False
    scale: Scale | None = None


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: as shown; "" for what does not exist.
        value: the number behind it, in the base unit; None of a text, and of what does not exist.
        half: half of its interval, in the base unit; None where there is none.
        best: whether the study found it better than every other of its column.
    """

    text: str
    value: float | None = None
    half: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: of its files and its anchor: "results-gpu-measured".
        title: what it is.
        columns: heads.
        rows: cells, as many a row as there are columns.
        note: how to read it; may be empty.
        cut: how many rows the page shows; None: all. Files have all.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    cut: int | None = None

    @property
    def shown(self) -> tuple[tuple[Cell, ...], ...]:
        """The rows that the page shows."""
        return self.rows[: self.cut]

    def half_width_ch(self, index: int) -> int:
        """Characters of the widest '± ...' of a column, so that the numbers before it stand below each other."""
        return self._half_widths_ch[index]

    @cached_property
    def _half_widths_ch(self) -> list[int]:
        columns = ([row[index].text for row in self.shown] for index in range(len(self.columns)))
        return [
            max((len(text.partition(" ± ")[2]) + 2 for text in column if " ± " in text), default=0)
            for column in columns
        ]


def text_cells(*texts: str) -> tuple[Cell, ...]:
    """A row of texts."""
    return tuple(Cell(text) for text in texts)


def without_empty_columns(table: Table) -> Table:
    """The same table without the columns in which no row has anything."""
    kept = [index for index in range(len(table.columns)) if any(row[index].text for row in table.rows)]
    return Table(
        table.name,
        table.title,
        tuple(table.columns[index] for index in kept),
        tuple(tuple(row[index] for index in kept) for row in table.rows),
        table.note,
        table.cut,
    )


def as_csv(table: Table) -> str:
    """Full precision in base units; an interval's half in a column of its own behind its value."""
    halves = [any(row[index].half is not None for row in table.rows) for index in range(len(table.columns))]
    head: list[str] = []
    for column, has_half in zip(table.columns, halves, strict=True):
        head += [column.name, f"{column.name}.half_width"] if has_half else [column.name]
    made = io.StringIO()
    writer = csv.writer(made, lineterminator="\n")
    writer.writerow(head)
    for row in table.rows:
        line: list[str] = []
        for column, has_half, cell in zip(table.columns, halves, row, strict=True):
            line.append(_number(cell.value) if column.numeric else cell.text)
            if has_half:
                line.append(_number(cell.half))
        writer.writerow(line)
    return made.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)


def as_markdown(table: Table) -> str:
    """A pipe table, its title above it."""
    heads = [_pipes(column.head) for column in table.columns]
    rules = ["---:" if column.numeric else "---" for column in table.columns]
    lines = [_line(heads), _line(rules), *(_line([_pipes(_marked(cell)) for cell in row]) for row in table.rows)]
    note = f"\n{table.note}\n" if table.note else ""
    return f"{table.title}\n\n" + "\n".join(lines) + "\n" + note


def _marked(cell: Cell) -> str:
    return f"**{cell.text}**" if cell.best else cell.text


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _pipes(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def as_latex(table: Table) -> str:
    """A `table` with the rules of the package booktabs, its numbers in mathematics."""
    kinds = "".join("r" if column.numeric else "l" for column in table.columns)
    body = [_row([_math(column.head, force=False) for column in table.columns]), r"\midrule"]
    for row in table.rows:
        body.append(_row([_bold(cell, column.numeric) for column, cell in zip(table.columns, row, strict=True)]))
    caption = _escaped(f"{table.title.rstrip('.')}. {table.note}".strip())
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _bold(cell: Cell, numeric: bool) -> str:
    text = _math(cell.text, force=numeric)
    if not cell.best:
        return text
    return rf"\boldmath{text}" if text.startswith("$") else rf"\textbf{{{text}}}"


def _math(text: str, *, force: bool) -> str:
    if not force or not text or not any(letter.isdigit() for letter in text):
        return _escaped(text)
    number, percent, _ = text.partition(" %")
    inside = number.replace(",", "{,}").replace("±", r"\pm").replace("×", r"\times ")
    return f"${inside}$" + (r"\,\%" if percent else "")


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "²": r"$^2$",
    "°": r"$^\circ$",
    "µ": r"$\mu$",
    "–": "--",
}


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


FORMATS: dict[str, Callable[[Table], str]] = {"csv": as_csv, "md": as_markdown, "tex": as_latex}
"""Ending -> what writes a table so."""
