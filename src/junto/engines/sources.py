# SPDX-License-Identifier: Apache-2.0
"""The data that an owner publishes, read once with care: schema, rows, statistics, and the digest of its bytes.

`files.locate` finds the files, `inspect` reads them, `unchanged` tells later whether they are what was published.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import duckdb

from junto.catalog.names import meant
from junto.engines import files, scan
from junto.engines.base import FileSource, Limits
from junto.engines.duckdb import alias, opened
from junto.engines.inspection import ColumnFacts, Inspection
from junto.engines.schema import read_schema
from junto.errors import InvalidInput, OutOfMemory

_LONGEST_EXTREME = 256


def inspect(source: FileSource, limits: Limits, unit: str | None = None) -> Inspection:
    """Reads all of a source: schema, counts, statistics, digests; whether no value of `unit` has two rows.

    Raises InvalidInput, one line naming file and column: unreadable, schemas that differ, a type Junto does not read,
    a source that changed meanwhile; OutOfMemory past `limits`.
    """
    files.no_log(source)
    states = tuple(files.state(path) for path in source.paths)
    for file in states:
        if file.size == 0:
            raise InvalidInput(f"{file.path} is empty: write at least its columns' names")
    attached = source.paths if source.format == "duckdb" else ()
    with _readable(source), opened(() if attached else source.paths, attached, limits) as database:
        source = read_schema(database, source, alias(source.paths[0]))
        names = [name for name, _ in source.columns]
        if unit is not None and unit not in names:
            raise InvalidInput(f"unit = {unit!r} is no column of the source: {meant(unit, names)}")
        database.execute(f"CREATE TEMP VIEW source AS {scan.select(source, alias(source.paths[0]))}")
        rows, facts = _facts(database, source.columns)
        unique = unit is None or _unique(database, unit)
    if not all(files.untouched(file) for file in states):
        raise InvalidInput(f"{source.paths[0]} changed while it was read: run `junto dataset publish` again")
    size = sum(file.size for file in states)
    return Inspection(source, rows, size, files.content(source.table, states), states, unique, facts)


def _facts(
    database: duckdb.DuckDBPyConnection, columns: Sequence[tuple[str, str]]
) -> tuple[int, tuple[ColumnFacts, ...]]:
    asked = ["count(*)"]
    for name, type in columns:
        column = scan.name(name)
        asked += [f"count({column})", f"approx_count_distinct({column})"]
        asked += ["NULL", "NULL"] if type == "BLOB" else [f"CAST({f}({column}) AS VARCHAR)" for f in ("min", "max")]
    row = database.execute(f"SELECT {', '.join(asked)} FROM source").fetchone() or ()
    rows = int(row[0])
    facts = []
    for position, (name, _) in enumerate(columns):
        count, distinct, least, most = row[1 + 4 * position : 5 + 4 * position]
        facts.append(ColumnFacts(name, rows - int(count), int(distinct), _extreme(least), _extreme(most)))
    return rows, tuple(facts)


def _extreme(value: str | None) -> str | None:
    return value if value is None or len(value) <= _LONGEST_EXTREME else None


def _unique(database: duckdb.DuckDBPyConnection, unit: str) -> bool:
    column = scan.name(unit)
    # Rows without a unit count as none: a NULL makes the rows more than the units.
    twice = f"SELECT 1 FROM source GROUP BY {column} HAVING count(*) > 1 OR {column} IS NULL LIMIT 1"
    return database.execute(twice).fetchone() is None


@contextmanager
def _readable(source: FileSource) -> Iterator[None]:
    """Turns DuckDB's errors into one line of ours: the file, perhaps the line in it, never its words."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise OutOfMemory(f"{source.paths[0]} needs more memory or temporary disk than the node may use") from None
    except duckdb.Error as error:
        raise InvalidInput(_unreadable(source, str(error))) from None


def _unreadable(source: FileSource, message: str) -> str:
    file = next((path for path in source.paths if path in message), source.paths[0])
    match source.format:
        case "csv":
            line = re.search(r"CSV Error on Line: (\d+)", message)
            place = f"line {line[1]}" if line else "somewhere"
            return f"{file} is not CSV that DuckDB reads, {place}: write UTF-8, and every row with the same columns"
        case "parquet":
            return f"{file} is not a Parquet file that DuckDB reads: write it again"
        case "duckdb" if message.startswith("Catalog Error"):
            return f"{file} has no table {source.table!r}, or a view of it reads elsewhere: correct table"
        case "duckdb":
            return f"{file} cannot be opened: it must be a DuckDB file that no other program has open for writing"
