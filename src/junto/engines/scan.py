# SPDX-License-Identifier: Apache-2.0
"""The spelling of a source in DuckDB's SQL: quoting, the types a column may have, and the reading expression.

Everything pasted into SQL passes through here: names are quoted, texts escaped, types matched against the list.
"""

import re
from collections.abc import Iterable

from junto.engines.base import NO_COLUMN, Dialect, FileSource
from junto.errors import InvalidInput

_PLAIN = (
    "BOOLEAN",
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
    *("FLOAT", "DOUBLE", "VARCHAR", "BLOB", "UUID", "DATE", "TIME"),
    *("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE"),
)
_TYPE = re.compile("|".join((*_PLAIN, r"DECIMAL\(\d{1,2},\d{1,2}\)")))
_AS_TEXT = re.compile(r"ENUM\(.*\)|JSON|\"NULL\"|NULL", re.DOTALL)
"""Types read as VARCHAR: texts in other clothes, and columns that hold nothing at all."""


def name(identifier: str) -> str:
    """An identifier, quoted."""
    return '"' + identifier.replace('"', '""') + '"'


def text(value: str) -> str:
    """A text literal."""
    return "'" + value.replace("'", "''") + "'"


def texts(values: Iterable[str]) -> str:
    """A list of text literals."""
    return "[" + ", ".join(text(value) for value in values) + "]"


def column_type(type: str) -> str | None:
    """The type under which Junto reads a column of DuckDB's `type`; None for nested and other unsupported types."""
    if _TYPE.fullmatch(type):
        return type
    return "VARCHAR" if _AS_TEXT.fullmatch(type) else None


def select(source: FileSource, database: str = "") -> str:
    """`SELECT` of the columns that a source shows, in order and as their types, outside of what reads the files.

    database: a DuckDB file's attached name. Raises InvalidInput for a type that no inspection gives, and for a column
    that the source has not.
    """
    origin = _origin(source, database)
    if source.visible is None and not source.columns:
        return f"SELECT * FROM {origin}"
    # DuckDB answers MIN and MAX of a bare Parquet column from statistics, where it takes NaN for the greatest of every
    # real column that may hold one. Of an expression it reads the values; `+` costs nothing and keeps filters pushed.
    reads = {"FLOAT": "+", "DOUBLE": "+"} if source.format == "parquet" else {}
    columns = {
        column: f"{reads.get(type, '')}CAST({name(column)} AS {_checked(type)}) AS {name(column)}"
        for column, type in source.columns
    }
    if source.visible is not None:
        missing = [column for column in source.visible if column not in columns]
        if missing:
            raise InvalidInput(f"a fragment reads column {missing[0][:60]!r}, which its table has not")
        columns = {column: text for column, text in columns.items() if column in source.visible}
    return f"SELECT {', '.join(columns.values()) or f'true AS {name(NO_COLUMN)}'} FROM {origin}"


def _origin(source: FileSource, database: str) -> str:
    match source.format:
        case "parquet":
            # A Parquet file's statistics leave NaN out; taken at their word, `v <= 2` lets a NaN pass, and MAX(v) is 1.
            return f"read_parquet({texts(source.paths)}, hive_partitioning = false, can_have_nan = true)"
        case "csv":
            return f"read_csv({texts(source.paths)}, hive_partitioning = false, {_how(source)})"
        case "duckdb":
            schema, dot, table = source.table.partition(".")
            where = (schema, table) if dot else ("main", source.table)
            return ".".join(name(part) for part in (database, *where))


def _how(source: FileSource) -> str:
    if not source.columns:
        return "header = true, sample_size = -1"
    options = written(source.dialect or Dialect(), source.columns)
    return ", ".join(f"{option} = {value}" for option, value in options.items())


def written(dialect: Dialect, columns: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The options of `read_csv` for a file of that dialect with a header and these columns, which guess nothing."""
    options = {
        "auto_detect": "false",
        "columns": "{" + ", ".join(f"{text(column)}: {text(_checked(type))}" for column, type in columns) + "}",
        "delim": text(dialect.delimiter),
        "quote": text(dialect.quote),
        "escape": text(dialect.escape),
        "comment": text(dialect.comment),
        "header": "true",
        "skip": str(dialect.skip),
    }
    if dialect.date_format:
        options["dateformat"] = text(dialect.date_format)
    if dialect.timestamp_format:
        options["timestampformat"] = text(dialect.timestamp_format)
    return options


def _checked(type: str) -> str:
    if not _TYPE.fullmatch(type):
        raise InvalidInput("a source's column has a type Junto does not read; publish the dataset again")
    return type
