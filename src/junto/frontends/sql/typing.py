# SPDX-License-Identifier: Apache-2.0
"""Names and types of what a SELECT would give, by asking an empty DuckDB in memory. No data, no files, no network."""

from collections.abc import Sequence

import duckdb
from sqlglot import exp
from sqlglot.errors import SqlglotError

from junto.catalog.dataset import Column
from junto.errors import InvalidInput

_PLAIN = frozenset(
    (
        *("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER"),
        *("UBIGINT", "FLOAT", "DOUBLE", "DATE", "TIME", "VARCHAR", "UUID", "BLOB", "TIMESTAMP", "TIMESTAMP_S"),
        *("TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE"),
    )
)


def is_plain(type: str) -> bool:
    """True if a type's values travel: parties compare and order them alike, as keys of groups and as extremes."""
    return type in _PLAIN or type.startswith("DECIMAL(")


def quoted(name: str) -> str:
    """A name as SQL writes it with quotes."""
    return '"' + name.replace('"', '""') + '"'


class Describer:
    """An empty DuckDB with tables of the schemas named. One may serve many questions, one at a time; close it after."""

    def __init__(self) -> None:
        self._connection = duckdb.connect(
            ":memory:",
            config={"enable_external_access": "false", "threads": "1", "python_enable_replacements": "false"},
        )
        self._known: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {}

    def __enter__(self) -> "Describer":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()

    def add(self, schema: str, name: str, columns: Sequence[tuple[str, str]]) -> None:
        """Have an empty table of that name and these columns. Raises InvalidInput for a type that is not DuckDB's."""
        wanted = tuple(columns)
        if self._known.get((schema, name)) == wanted:
            return
        fields = ", ".join(f"{quoted(column)} {_type(column, type, name)}" for column, type in columns)
        try:
            self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
            self._connection.execute(f"CREATE OR REPLACE TABLE {quoted(schema)}.{quoted(name)} ({fields})")
        except duckdb.Error as error:
            raise InvalidInput(f"the schema of {name} is not one DuckDB can hold: {_line(error)}") from error
        self._known[schema, name] = wanted

    def describe(self, schema: str, sql: str, what: str = "the question") -> tuple[Column, ...]:
        """Names and types of the columns that `sql` gives over the tables of a schema. Raises InvalidInput."""
        try:
            self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
            self._connection.execute(f"SET schema = {_literal(quoted(schema))}")
            rows = self._connection.execute(f"DESCRIBE {sql}").fetchall()
        except duckdb.Error as error:
            raise InvalidInput(f"{what} is not valid: {_line(error)}") from error
        return tuple(Column(str(row[0]), str(row[1])) for row in rows)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _type(column: str, type: str, table: str) -> str:
    try:
        return exp.DataType.build(type, dialect="duckdb").sql(dialect="duckdb")
    except (SqlglotError, ValueError, AttributeError) as error:
        raise InvalidInput(f"column {column!r} of {table} has a type Junto does not know: {type[:60]!r}") from error


def _line(error: duckdb.Error) -> str:
    """DuckDB's message in one line. DuckDB has seen names and types, no data."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = lines[:1] + [line for line in lines[1:] if line.startswith("Candidate")]
    return " ".join(told)[:300] or "DuckDB refuses it"
