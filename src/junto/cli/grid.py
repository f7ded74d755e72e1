# SPDX-License-Identifier: Apache-2.0
"""A grid of texts for the terminal: as wide as it needs to be where nobody's window limits it."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPED_WIDTH = 200


def print_grid(headers: Sequence[str], rows: Iterable[Sequence[str | int | None]]) -> None:
    """Print a row for each of `rows`, whole numbers to the right; nothing in them is read as markup."""
    drawn = [[_cell(value) for value in row] for row in rows]
    grid = Table(show_edge=False)
    for header in headers:
        grid.add_column(header, overflow="fold")
    for row in drawn:
        grid.add_row(*row)
    Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False).print(grid)


def _cell(value: str | int | None) -> Text:
    match value:
        case None:
            return Text("—")
        case int():
            return Text(f"{value:,}", justify="right")
        case str():
            return Text(value)
