# SPDX-License-Identifier: Apache-2.0
"""The columns and types of a source's files, which must agree; for CSV, found by reading them whole."""

from collections.abc import Sequence
from dataclasses import replace

import duckdb

from junto.engines import header, scan
from junto.engines.base import Dialect, FileSource
from junto.errors import InvalidInput

Columns = tuple[tuple[str, str], ...]

_SEPARATORS = ",;\t|"
_NUMBERS = frozenset(("BIGINT", "DOUBLE"))


def read_schema(database: duckdb.DuckDBPyConnection, source: FileSource, attached: str) -> FileSource:
    """The source with its columns, and for CSV its dialect. Raises InvalidInput naming file and column."""
    if source.format == "csv":
        return _sniff(database, source)
    schemas = [_described(database, replace(source, paths=(path,)), attached) for path in source.paths]
    for path, columns in zip(source.paths, schemas, strict=True):
        _same_names(source.paths[0], schemas[0], path, columns)
        for (column, first), (_, type) in zip(schemas[0], columns, strict=True):
            if first != type:
                raise InvalidInput(
                    f"{path}: column {column!r} is {type}, but {first} in {source.paths[0]}: make one type"
                )
    return replace(source, columns=schemas[0])


def _described(database: duckdb.DuckDBPyConnection, source: FileSource, attached: str) -> Columns:
    rows = database.execute(f"DESCRIBE {scan.select(source, attached)}").fetchall()
    return tuple(_supported(source.paths[0], str(row[0]), str(row[1])) for row in rows)


def _supported(path: str, column: str, type: str) -> tuple[str, str]:
    supported = scan.column_type(type)
    if supported is None:
        raise InvalidInput(
            f"{path}: column {column!r} is {type.partition('(')[0]}, which Junto does not read: "
            "publish a view or file with plain columns in its place"
        )
    return column, supported


def _same_names(first_path: str, first: Sequence[tuple[str, str]], path: str, columns: Columns) -> None:
    wanted, found = [name for name, _ in first], [name for name, _ in columns]
    for name in wanted:
        if name not in found:
            raise InvalidInput(f"{path}: column {name!r} of {first_path} is missing: give all files the same columns")
    for name in found:
        if name not in wanted:
            raise InvalidInput(f"{path}: column {name!r} is not in {first_path}: give all files the same columns")
    if wanted != found:
        raise InvalidInput(f"{path}: columns are in another order than in {first_path}: give all files the same")


def _sniff(database: duckdb.DuckDBPyConnection, source: FileSource) -> FileSource:
    dialects: list[Dialect] = []
    schemas: list[Columns] = []
    for path in source.paths:
        dialect, columns = _sniffed(database, path)
        dialects.append(dialect)
        schemas.append(columns)
        _same_names(source.paths[0], schemas[0], path, columns)
    quoting = next((dialect for dialect in dialects if dialect.quote), dialects[0])
    for path, dialect in zip(source.paths, dialects, strict=True):
        if replace(dialect, quote=quoting.quote, escape=quoting.escape) != quoting:
            raise InvalidInput(
                f"{path}: is written in another way than {source.paths[0]}: use one delimiter and format"
            )
    as_text = replace(source, columns=tuple((name, "VARCHAR") for name, _ in schemas[0]), dialect=quoting)
    columns = tuple(
        (name, _common(database, as_text, name, [schema[position][1] for schema in schemas]))
        for position, (name, _) in enumerate(schemas[0])
    )
    return replace(as_text, columns=columns)


def _sniffed(database: duckdb.DuckDBPyConnection, path: str) -> tuple[Dialect, Columns]:
    (row,) = database.execute(
        "SELECT Delimiter, Quote, Escape, Comment, SkipRows, DateFormat, TimestampFormat, Columns "
        f"FROM sniff_csv({scan.text(path)}, header = true, sample_size = -1)"
    ).fetchall()
    delimiter, quote, escape, comment, skip, date, timestamp, found = row
    dialect = Dialect(
        delimiter, _sign(quote), _sign(escape), _sign(comment), int(skip), str(date or ""), str(timestamp or "")
    )
    columns = tuple(_supported(path, str(column["name"]), str(column["type"])) for column in found)
    if len(columns) == 1 and any(sign in columns[0][0] for sign in _SEPARATORS):
        raise InvalidInput(
            f"{path} has not the same columns in every row: look for stray delimiters, and quotes that do not close"
        )
    header.check(database, path, dialect, [type for _, type in columns])
    return dialect, columns


def _sign(sniffed: str) -> str:
    return "" if sniffed == "(empty)" else sniffed


def _common(database: duckdb.DuckDBPyConnection, as_text: FileSource, column: str, types: Sequence[str]) -> str:
    """One type for a column over all files: where a file has no value at all, it has no say."""
    said = dict(zip(as_text.paths, types, strict=True))
    if len(set(types)) > 1:
        said = {p: t for p, t in said.items() if t != "VARCHAR" or _holds_values(database, as_text, p, column)}
    if set(said.values()) == _NUMBERS:
        return "DOUBLE"
    first = next(iter(said))
    for path, type in said.items():
        if type != said[first]:
            raise InvalidInput(f"{path}: column {column!r} is {type}, but {said[first]} in {first}: make one type")
    return said[first]


def _holds_values(database: duckdb.DuckDBPyConnection, as_text: FileSource, path: str, column: str) -> bool:
    rows = scan.select(replace(as_text, paths=(path,)))
    return database.execute(f"SELECT count({scan.name(column)}) FROM ({rows})").fetchone() != (0,)
