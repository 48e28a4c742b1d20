"""A small table of text, for a terminal or as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Grid:
    """Text in columns.

    Attributes:
        title: above it; "" for none.
        head: one word a column; the first is left-aligned, all others right.
        rows: as many cells each.
        strong: indices of rows that stand out.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: frozenset[int] = frozenset()

    def drawn(self) -> Table:
        """For a terminal."""
        from rich.table import Table
        from rich.text import Text

        made = Table(title=self.title or None, title_justify="left", title_style="")
        for index, word in enumerate(self.head):
            made.add_column(word, justify="right" if index else "left", overflow="fold")
        for index, cells in enumerate(self.rows):
            made.add_row(*(Text(cell, style="bold" if index in self.strong else "") for cell in cells))
        return made

    def markdown(self) -> str:
        """As GitHub draws it."""
        head = [_line(self.head), "|" + "|".join([" --- ", *[" ---: "] * (len(self.head) - 1)]) + "|"]
        title = [self.title, ""] if self.title else []
        return "\n".join([*title, *head, *(_line(cells) for cells in self.rows)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") or " " for cell in cells) + " |"
