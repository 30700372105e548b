"""Tables of a benchmark's results with their context, in a terminal and as a Markdown page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

Grid = tuple[str, Sequence[str], list[list[str]]]
"""Title, headings and rows; the first column is of words, the others are of numbers."""


def print_tables(grids: Iterable[Grid], context: Iterable[str], console: Console) -> None:
    """All tables and what was measured, in a terminal."""
    for title, headings, rows in grids:
        table = Table(title=title, title_justify="left")
        for number, heading in enumerate(headings):
            table.add_column(heading, justify="left" if number == 0 else "right", no_wrap=number == 0)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for line in context:
        console.print(line, highlight=False, style="dim")


def markdown(grids: Iterable[Grid], context: Iterable[str]) -> str:
    """The same as a Markdown page."""
    said = "\n".join(f"- {line}" for line in context)
    tables = [f"**{title}**\n\n{markdown_table(headings, rows)}" for title, headings, rows in grids]
    return "\n\n".join([*([said] if said else []), *tables]) + "\n"


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """One table of words in the first column and numbers in the others."""
    marks = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (headings, marks, *rows))
