# SPDX-License-Identifier: Apache-2.0
"""The seam: what a fragment reads, what it may use, and how its rows come back.

An engine runs one SELECT over named tables and streams Arrow batches. `junto.testing.engines.conformance` is what
every engine passes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from junto.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["csv", "parquet", "duckdb"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """The way in which a CSV file is written; an empty string is "there is none". The first line is its header."""

    delimiter: str = ","
    quote: str = '"'
    escape: str = '"'
    comment: str = ""
    skip: int = 0  # lines before the header
    date_format: str = ""  # as strptime reads it; empty: ISO 8601
    timestamp_format: str = ""


@dataclass(frozen=True, slots=True)
class FileSource:
    """Files of one format and schema. `sources.inspect` fills `columns` and `dialect`, and then nothing is guessed.

    paths: absolute; one only for DuckDB. table: of a DuckDB file, perhaps after its schema and a dot.
    columns: (name, DuckDB type) in order; a CSV file is read as these types, never as it happens to look.
    visible: the columns that a fragment sees; None: all.
    """

    format: Format
    paths: tuple[str, ...]
    table: str = ""
    columns: tuple[tuple[str, str], ...] = ()
    dialect: Dialect | None = None
    visible: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ArrowSource:
    """An Arrow IPC file on disk, mapped, not loaded: an open table kept by version."""

    path: str
    visible: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TableSource:
    """A small table in memory."""

    table: "pa.Table"


Source = FileSource | ArrowSource | TableSource


NO_COLUMN = "no column"
"""The name of the one column of a source that shows none: SQL knows no table without any."""


def narrowed(source: Source, columns: Sequence[str]) -> Source:
    """The source as a fragment sees it that was judged for these columns: it has no other. Of no column, it has rows.

    Whatever a fragment's text is taken to mean by who judges it and by the engine, a column that is not there is in
    no answer. Raises InvalidInput for a column that a table in memory has not; an engine does for the others.
    """
    if isinstance(source, TableSource):
        return TableSource(shown(source.table, columns))
    return replace(source, visible=tuple(columns))


def shown(table: "pa.Table", columns: Sequence[str]) -> "pa.Table":
    """The table with these columns alone. Raises InvalidInput if it lacks one."""
    import pyarrow as pa  # with the first table, not with the seam

    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise InvalidInput(f"a fragment reads column {missing[0][:60]!r}, which its table has not")
    return table.select(list(columns)) if columns else pa.table({NO_COLUMN: pa.repeat(True, table.num_rows)})


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one run may use. `temp_dir` takes what does not fit in memory, up to `temp_bytes`.

    cpu_seconds: of the processor, all threads together; kept by engines that run in processes of their own.
    """

    memory_bytes: int
    threads: int
    temp_dir: Path
    temp_bytes: int = 64 << 30
    cpu_seconds: int = 86_400


class Stop(Protocol):
    """A request to stop, made from any thread at any moment: a `threading.Event`."""

    def is_set(self) -> bool:
        """True if somebody asked for the run to stop."""
        ...


class Rows:
    """A fragment's answer as it arrives: its schema at once, its batches once."""

    def __init__(self, schema: "pa.Schema", batches: "Iterator[pa.RecordBatch]") -> None:
        self.schema = schema
        self._batches = batches

    def __iter__(self) -> "Iterator[pa.RecordBatch]":
        """The batches that are left. Raises FragmentFailed, OutOfMemory, Cancelled."""
        return self._batches

    def table(self) -> "pa.Table":
        """All that is left, in memory. Raises as iterating does."""
        import pyarrow as pa  # with the first answer, not with the seam

        return pa.Table.from_batches(list(self._batches), self.schema)


class Engine(Protocol):
    """An engine, which runs a fragment inside one party. Safe to use from many threads at a time."""

    def run(self, sql: str, tables: Mapping[str, Source], limits: Limits, stop: Stop) -> AbstractContextManager[Rows]:
        """The rows of one SELECT over `tables`, streamed; leaving the context ends the run and frees what it held.

        Blocks the calling thread, on entry and between batches; ends within a second of `stop`. Times are UTC.
        Raises FragmentFailed, OutOfMemory (past `limits`), Cancelled (`stop` was set).
        """
        ...

    def close(self) -> None:
        """Free what is kept between runs. Runs under way end as they would."""
        ...
