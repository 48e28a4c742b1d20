"""A table for a terminal that leaves out columns where there is no room, and never cuts a name or a number."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table
    from rich.text import Text

LONGEST_WORD = 32
"""Characters of a word that are kept together."""

SHORTEST_WORD = 8
"""Characters that are kept together where there is no room for words."""

BESIDE_A_CELL = 3
"""Characters that a column takes beside its cells: a space on either side and a line."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: its head, of one or more lines.
        cells: one a row.
        number: whether it stands to the right and is never broken; else it is broken between words.
        spare: 0: always there; else it is left out where there is no room, the largest first.
    """

    title: str
    cells: Sequence[Text]
    number: bool = True
    spare: int = 0

    def head(self, width: int) -> str:
        """The title in lines of so many characters."""
        return "\n".join(textwrap.fill(line, width) for line in self.title.splitlines())

    @cached_property
    def widest(self) -> int:
        """Characters that it takes unbroken."""
        from rich.text import Text

        return max(text.cell_len for text in (*self.cells, *map(Text, self.title.splitlines())))

    @cached_property
    def least(self) -> int:
        """Characters that it takes with no word broken."""
        of_head = max(word.cell_len for word in self._title)
        if self.number:
            return max([of_head, *(text.cell_len for text in self.cells)])
        words = [word.cell_len for text in self.cells for word in text.split(" ")]
        return max(of_head, min(LONGEST_WORD, max(words, default=0)))

    @property
    def shortest(self) -> int:
        """Characters that it takes at least."""
        return self.least if self.number else min(self.least, SHORTEST_WORD)

    @property
    def _title(self) -> Sequence[Text]:
        from rich.text import Text

        return [Text(word) for word in self.title.split()]


@dataclass(frozen=True)
class Columns:
    """Rich draws it as wide as it may.

    Attributes:
        title: above it.
        columns: from the left.
        strong: indices of rows that stand out.
    """

    title: str
    columns: tuple[Column, ...]
    strong: frozenset[int] = frozenset()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """See Rich's console protocol."""
        yield self._drawn(options.max_width)

    def _drawn(self, width: int) -> Table:
        from rich.table import Table

        columns = self._fitting(width)
        drawn = Table(title=self.title, title_justify="left", title_style="")
        room = width - _needed(columns)
        for column in columns:
            taken = max(column.shortest, min(column.widest, column.least + room))
            room -= taken - column.least
            drawn.add_column(
                column.head(taken),
                justify="right" if column.number else "left",
                no_wrap=column.number,
                overflow="fold",
                width=taken,
            )
        for index, cells in enumerate(zip(*(column.cells for column in columns), strict=True)):
            drawn.add_row(*cells, style="bold" if index in self.strong else None)
        return drawn

    def _fitting(self, width: int) -> list[Column]:
        kept = list(self.columns)
        for spare in sorted({column.spare for column in kept if column.spare}, reverse=True):
            if _needed(kept) <= width:
                break
            kept = [column for column in kept if column.spare != spare]
        return kept


def _needed(columns: Sequence[Column]) -> int:
    return 1 + sum(column.least + BESIDE_A_CELL for column in columns)
