"""A table as text: its cells, and Markdown with aligned columns, which terminals show as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.reporting.numbers import NONE
from experiments.reporting.runs import one_line


@dataclass(frozen=True)
class Table:
    """Cells as text. The first column names the row; the columns in `words` hold text, the others
    numbers.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: frozenset[int] = frozenset()

    def without_empty_columns(self) -> Table:
        """Return the table without the columns in which no row has a value."""
        kept = [
            k for k in range(len(self.header))
            if k == 0 or any(row[k] not in (NONE, "") for row in self.rows)
        ]  # fmt: skip
        return Table(
            tuple(self.header[k] for k in kept),
            tuple(tuple(row[k] for k in kept) for row in self.rows),
            frozenset(place for place, k in enumerate(kept) if k in self.words),
        )


def render(table: Table, *, width: int | None = None) -> str:
    """Return a table as Markdown with aligned columns.

    One that is wider than `width` characters is cut into several, one below the other, that all
    begin with the first column.
    """
    cells = [[escape(cell) for cell in row] for row in (table.header, *table.rows)]
    left = [k == 0 or k in table.words for k in range(len(table.header))]
    widths = [max(len(row[k]) for row in cells) for k in range(len(table.header))]

    def lines(columns: Sequence[int]) -> str:
        rule = ["-" * widths[k] if left[k] else "-" * (widths[k] - 1) + ":" for k in columns]
        rows = [
            [row[k].ljust(widths[k]) if left[k] else row[k].rjust(widths[k]) for k in columns]
            for row in cells
        ]
        return "".join(f"| {' | '.join(row)} |\n" for row in (rows[0], rule, *rows[1:]))

    return "\n".join(map(lines, _blocks(widths, width)))


def _blocks(widths: Sequence[int], width: int | None) -> list[list[int]]:
    """Return the columns of each part of a table; the first column is in all of them."""
    blocks = [[0]]
    for k in range(1, len(widths)):
        own = [*blocks[-1], k]
        total = sum(widths[each] + 3 for each in own) + 1
        if width is None or total <= width or len(own) == 2:
            blocks[-1] = own
        else:
            blocks.append([0, k])
    return blocks


def escape(text: str) -> str:
    """Return text on one line in which nothing is Markdown or HTML."""
    return one_line(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
