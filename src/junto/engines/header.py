# SPDX-License-Identifier: Apache-2.0
"""Checks that the first line of a CSV file names its columns: what is taken for a name, every party is told.

DuckDB finds some header in any file: it skips a first line with fewer fields than the rows, invents names for fields
that are empty, and tells equal names apart by numbers. Each of these is refused here, as a record may have become the
names, and so is a first line that reads like a record. No message holds what the file holds.
"""

from collections.abc import Sequence
from dataclasses import replace

import duckdb

from junto.catalog.names import fold
from junto.engines import scan
from junto.engines.base import Dialect
from junto.errors import InvalidInput

_UNTOLD = frozenset(("VARCHAR", "BOOLEAN", "BLOB"))
"""Types of which a value may well be a name."""


def check(database: duckdb.DuckDBPyConnection, path: str, dialect: Dialect, types: Sequence[str]) -> None:
    """Raises InvalidInput, naming the line and the mend, unless the first line with text names every column.

    dialect and types: as DuckDB found them.
    """
    if dialect.skip and any(_lines(database, path, dialect.skip)):
        raise InvalidInput(
            f"{path}, line 1: does not name every column of the rows beneath it: write all names in the first line,"
            " as many as a row has fields, and nothing above them"
        )
    names = _fields(database, path, dialect, len(types))
    seen: dict[str, int] = {}
    for place, name in enumerate(names, start=1):
        if not name:
            raise InvalidInput(f"{path}, line 1: column {place} has no name: write one")
        first = seen.setdefault(fold(name), place)
        if first != place:
            raise InvalidInput(
                f"{path}, line 1: columns {first} and {place} have the same name, as case does not count: rename one"
            )
    if _is_record(database, dialect, names, types) or _recurs(database, path, dialect, names, types):
        raise InvalidInput(
            f"{path}, line 1: reads like a record, not like the names of columns: write the names there"
            " (a number or a date alone cannot be told from a value)"
        )


def _lines(database: duckdb.DuckDBPyConnection, path: str, count: int) -> list[str]:
    """The first lines, without the space around them."""
    whole = replace(Dialect(), delimiter="\x01", quote="", escape="")
    return [line for (line,) in _rows(database, path, whole, 1, count)]


def _fields(database: duckdb.DuckDBPyConnection, path: str, dialect: Dialect, count: int) -> tuple[str, ...]:
    """The written fields of the header, without the space around them."""
    (row,) = _rows(database, path, dialect, count, 1)
    return row


def _rows(
    database: duckdb.DuckDBPyConnection, path: str, dialect: Dialect, columns: int, count: int
) -> list[tuple[str, ...]]:
    rows = database.execute(f"SELECT * FROM {_file(path, dialect, columns)} LIMIT {count}").fetchall()
    return [tuple((field or "").strip() for field in row) for row in rows]


def _file(path: str, dialect: Dialect, columns: int) -> str:
    """The file with its header among its rows, as texts c0, c1, …"""
    options = {**scan.written(dialect, [(f"c{i}", "VARCHAR") for i in range(columns)]), "header": "false"}
    told = ", ".join(f"{option} = {value}" for option, value in options.items())
    return f"read_csv({scan.text(path)}, {told})"


def _is_record(
    database: duckdb.DuckDBPyConnection, dialect: Dialect, names: Sequence[str], types: Sequence[str]
) -> bool:
    """True if every name of a column of numbers or times is such a number or time itself."""
    told = [(name, type) for name, type in zip(names, types, strict=True) if type not in _UNTOLD]
    if not told or not all(any(sign.isdigit() for sign in name) for name, _ in told):
        return False
    reads = ", ".join(f"{_reading(dialect, type)} IS NOT NULL" for _, type in told)
    found = database.execute(f"SELECT {reads}", [name for name, _ in told]).fetchone()
    return found is not None and all(found)


def _recurs(
    database: duckdb.DuckDBPyConnection, path: str, dialect: Dialect, names: Sequence[str], types: Sequence[str]
) -> bool:
    """True if all columns are texts, and each holds its name as a value again."""
    if set(types) != {"VARCHAR"}:
        return False
    counts = ", ".join(f"count(*) FILTER (trim(c{i}) = ?) > 1" for i in range(len(names)))
    found = database.execute(f"SELECT {counts} FROM {_file(path, dialect, len(names))}", list(names)).fetchone()
    return found is not None and all(found)


def _reading(dialect: Dialect, type: str) -> str:
    """SQL that reads a parameter as a type the way the file is read; NULL if it is none."""
    written = {"DATE": dialect.date_format, "TIMESTAMP": dialect.timestamp_format}.get(type, "")
    return f"try_strptime(?, {scan.text(written)})" if written else f"TRY_CAST(? AS {type})"
