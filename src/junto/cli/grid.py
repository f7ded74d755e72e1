# SPDX-License-Identifier: Apache-2.0
"""A grid of texts for the terminal: as wide as it needs to be where nobody's window limits it."""

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from junto.cli.screen import screen
from junto.plain import plain


def print_grid(headers: Sequence[str], rows: Iterable[Sequence[str | int | None]]) -> None:
    """Print a row for each of `rows`, whole numbers to the right; nothing in them is read as markup."""
    drawn = [[_cell(value) for value in row] for row in rows]
    grid = Table(show_edge=False)
    for header in headers:
        grid.add_column(header, overflow="fold")
    for row in drawn:
        grid.add_row(*row)
    screen(wide=True).print(grid)


def _cell(value: str | int | None) -> Text:
    match value:
        case None:
            return Text("—")
        case int():
            return Text(f"{value:,}", justify="right")
        case str():
            return Text(plain(value))
