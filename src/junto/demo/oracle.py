# SPDX-License-Identifier: Apache-2.0
"""The right answers: DuckDB over the pooled rows, which only the demo may see, with the same threshold applied."""

import math
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def pooled(folders: Mapping[str, Path], sql: str) -> "pa.Table":
    """The answer over all parties' rows together."""
    import duckdb

    flights = [str(folder / "flights.parquet") for folder in folders.values() if (folder / "flights.parquet").exists()]
    with duckdb.connect() as db:
        db.execute(f"CREATE VIEW flights AS SELECT * FROM read_parquet({flights!r})")
        for folder in folders.values():
            for path in sorted(folder.glob("*.parquet")):
                if path.stem != "flights":
                    db.execute(f"CREATE VIEW {path.stem} AS SELECT * FROM read_parquet({[str(path)]!r})")
        return db.sql(sql).to_arrow_table()


def largest_difference(
    answer: "pa.Table", expected: "pa.Table", keys: Sequence[str], hidden: Collection[tuple[object, ...]] = ()
) -> float:
    """The largest difference of any number in rows of the same keys; infinite if rows or other values differ.

    hidden: the keys of rows in which a figure may be NULL as well, because one unit carries much of it.
    """
    ours, theirs = (_by_key(table, keys) for table in (answer, expected))
    if ours.keys() != theirs.keys() or answer.column_names != expected.column_names:
        return math.inf
    if answer.num_rows != expected.num_rows:
        return math.inf
    worst = 0.0
    for key, row in ours.items():
        for name, value in row.items():
            if value is None and key in hidden:
                continue
            worst = max(worst, _difference(value, theirs[key][name]))
    return worst


def _difference(value: object, other: object) -> float:
    numbers = [_number(value), _number(other)]
    if value == other or all(number is not None and number.is_nan() for number in numbers):
        return 0.0
    ours, theirs = numbers
    if ours is None or theirs is None or not (ours.is_finite() and theirs.is_finite()):
        return math.inf
    return float(abs(ours - theirs))


def _number(value: object) -> Decimal | None:
    """A number exactly; None for anything else."""
    return None if isinstance(value, bool) or not isinstance(value, int | float | Decimal) else Decimal(value)


def _by_key(table: "pa.Table", keys: Sequence[str]) -> dict[tuple[object, ...], dict[str, object]]:
    return {tuple(row[key] for key in keys): row for row in table.to_pylist()}
