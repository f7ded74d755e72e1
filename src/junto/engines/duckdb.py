# SPDX-License-Identifier: Apache-2.0
"""DuckDB, in the process that calls it: the engine every party has. A node runs it in children (`supervised.py`).

Opening a database costs some 12 ms, a cursor on an open one 20 µs, so databases are kept between runs, one for each
set of files and limits. Each is locked before a fragment sees it: it can read exactly those files, no other; no
extension, no configuration, no Python object. A run takes a cursor of its own, on which its tables are temporary
views: they are gone with it. DuckDB files are the exception: a database attached to one keeps its owner from writing
it, so it lives for one run.

A fragment was judged before it comes here. This is a second wall: it must be one SELECT, over the tables named.
DuckDB's messages may quote data, so only the class of an error is passed on.
"""

import errno
import hashlib
import json
import os
import re
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, assert_never

import duckdb
import pyarrow as pa
from pyarrow import ipc

from junto.catalog.names import fold
from junto.engines import scan
from junto.engines.base import ArrowSource, FileSource, Limits, Rows, Source, Stop, TableSource, shown
from junto.engines.files import SPILL
from junto.errors import Cancelled, FragmentFailed, JuntoError, NoSpill, OutOfMemory

BATCH_ROWS = 32 * 2048
_POLL_SECONDS = 0.05
_QUIET_POLLS = 20
_CHECKED = 256  # texts that are remembered as checked

_SQL_CHARACTERS = 1 << 17  # DuckDB's parser cannot be interrupted, and takes seconds for a megabyte of nonsense
_SQL_DEPTH = 250  # of brackets; beyond some ten thousand, DuckDB's parser ends the process

_FUNCTIONS = frozenset(("range", "generate_series", "unnest"))

_NO_ROOM = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))
_TOO_LARGE = os.strerror(errno.EFBIG)
_SAID = {
    "Binder Error": "binder error: a column, function or type that does not fit the tables",
    "Catalog Error": "catalog error: a table or function that does not exist",
    "Conversion Error": "conversion failed: a value does not fit the type asked for",
    "Division by Zero Error": "division by zero",
    "IO Error": "a file could not be read or written",
    "Invalid Input Error": "a function was given a value that it does not take",
    "Invalid Type Error": "types that do not go together",
    "Mismatch Type Error": "types that do not go together",
    "Not implemented Error": "something DuckDB does not do",
    "Out of Range Error": "out of range: a number left the range of its type",
    "Parser Error": "it is not SQL that DuckDB reads",
    "Permission Error": "it reaches for what a fragment may not touch",
}


@dataclass(frozen=True, slots=True)
class _Needs:
    """The needs of an opened database: the files it may read, those attached, and its limits."""

    paths: frozenset[str]
    attached: tuple[str, ...]
    limits: Limits


class DuckDB:
    """Runs fragments in this process. Keeps up to `idle` databases open between runs."""

    def __init__(self, idle: int = 4) -> None:
        self._idle = idle
        self._lock = threading.Lock()
        self._open: OrderedDict[_Needs, duckdb.DuckDBPyConnection] = OrderedDict()
        self._watch = _Watch()
        self._checked: OrderedDict[tuple[str, frozenset[str]], None] = OrderedDict()

    @contextmanager
    def run(self, sql: str, tables: Mapping[str, Source], limits: Limits, stop: Stop) -> Iterator[Rows]:
        """See `Engine.run`."""
        if stop.is_set():
            raise Cancelled("the run was stopped before it began")
        with ExitStack() as held:
            with _told():
                cursor = held.enter_context(self._cursor(_needs(tables, limits)))
                held.enter_context(self._watch.over(cursor, stop))
                self._admit(cursor, sql, tables)
                for name, source in tables.items():
                    _register(cursor, name, source)
                reader = cursor.sql(sql).to_arrow_reader(BATCH_ROWS)
                held.callback(reader.close)
            yield Rows(reader.schema, _batches(reader, stop))

    def _admit(self, cursor: duckdb.DuckDBPyConnection, sql: str, tables: Mapping[str, Source]) -> None:
        """Check the fragment; a text that passed over tables of these names passes again."""
        text = sql, frozenset(tables)
        with self._lock:
            if text in self._checked:
                self._checked.move_to_end(text)
                return
        _check(cursor, sql, tables)
        with self._lock:
            self._checked[text] = None
            while len(self._checked) > _CHECKED:
                self._checked.popitem(last=False)

    def close(self) -> None:
        """See `Engine.close`."""
        with self._lock:
            while self._open:
                _let_go(self._open.popitem()[1])
        self._watch.close()

    @contextmanager
    def _cursor(self, needs: _Needs) -> Iterator[duckdb.DuckDBPyConnection]:
        if needs.attached:
            with opened(needs.paths, needs.attached, needs.limits) as database:
                yield database
            return
        with self._lock:
            if needs not in self._open:
                self._open[needs] = _open(needs)
            self._open.move_to_end(needs)
            cursor = self._open[needs].cursor()
            while len(self._open) > self._idle:
                _let_go(self._open.popitem(last=False)[1])
        try:
            yield cursor
        except BaseException:
            self._discard(needs)  # it may be spoilt, or full
            raise
        finally:
            cursor.close()

    def _discard(self, needs: _Needs) -> None:
        with self._lock:
            database = self._open.pop(needs, None)
            if database is not None:
                _let_go(database)


def _let_go(database: duckdb.DuckDBPyConnection) -> None:
    """Close it; one on which a fragment still runs refuses, and closes itself when that has ended."""
    with suppress(duckdb.Error):
        database.close()


def _needs(tables: Mapping[str, Source], limits: Limits) -> _Needs:
    files = [source for source in tables.values() if isinstance(source, FileSource)]
    return _Needs(
        frozenset(path for file in files if file.format != "duckdb" for path in file.paths),
        tuple(sorted({file.paths[0] for file in files if file.format == "duckdb"})),
        limits,
    )


@contextmanager
def opened(paths: Iterable[str], attached: Iterable[str], limits: Limits) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database that can read `paths` and the DuckDB files `attached` (named by `alias`) and nothing else."""
    database = _open(_Needs(frozenset(paths), tuple(attached), limits))
    try:
        yield database
    finally:
        database.close()


def alias(path: str) -> str:
    """The name under which a DuckDB file is attached."""
    return "file_" + hashlib.sha256(path.encode()).hexdigest()[:32]


def _open(needs: _Needs) -> duckdb.DuckDBPyConnection:
    limits = needs.limits
    try:
        limits.temp_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise NoSpill("there is no room on disk for what the fragment cannot hold in memory") from error
    database = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": f"{limits.memory_bytes}B",
            "threads": str(limits.threads),
            "async_threads": "1",
            # Each database names its spilled blocks by number, so each has a folder, which it makes and removes.
            "temp_directory": str(limits.temp_dir / f"{SPILL}{uuid.uuid4().hex}"),
            "preserve_insertion_order": "false",  # order is what ORDER BY says; keeping it besides costs memory
            # It would read a CSV column as what a query casts it to: CAST(day AS VARCHAR) gave the file's 31/12/2013.
            "disabled_optimizers": "type_pushdown",
            "autoload_known_extensions": "false",
            "autoinstall_known_extensions": "false",
            "allow_community_extensions": "false",
            "allow_persistent_secrets": "false",
            "python_enable_replacements": "false",
            "enable_external_file_cache": "false",
            # Or it keeps what a fragment freed, 70 MB of 100,000 groups, until it is closed.
            "allocator_background_threads": "true",
            "allocator_bulk_deallocation_flush_threshold": "8MB",
        },
    )
    try:
        database.execute("LOAD icu").execute("SET GLOBAL TimeZone = 'UTC'")  # for cursors too
        database.execute(
            f"SET max_temp_directory_size = '{limits.temp_bytes}B'"
        )  # as an option of connect it is ignored
        for path in needs.attached:
            database.execute(f"ATTACH {scan.text(path)} AS {scan.name(alias(path))} (READ_ONLY)")
        if needs.paths:
            database.execute(f"SET allowed_paths = {scan.texts(sorted(needs.paths))}")
        database.execute("SET enable_external_access = false").execute("SET lock_configuration = true")
    except BaseException:
        database.close()
        raise
    return database


def _check(cursor: duckdb.DuckDBPyConnection, sql: str, tables: Mapping[str, Source]) -> None:
    """The second wall. Raises FragmentFailed unless `sql` is one SELECT that reads `tables` alone."""
    if len(sql) > _SQL_CHARACTERS or _depth(sql) > _SQL_DEPTH:
        raise FragmentFailed("the fragment is too long or nested too deeply")
    row = cursor.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
    cursor.complete()
    try:
        tree: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
    except RecursionError:
        raise FragmentFailed("the fragment is too long or nested too deeply") from None
    if tree["error"] or len(tree["statements"]) != 1:
        raise FragmentFailed("the fragment is not one SELECT that DuckDB reads")
    stack: list[tuple[object, frozenset[str]]] = [(tree["statements"], frozenset(fold(name) for name in tables))]
    while stack:
        part, known = stack.pop()
        match part:
            case list():
                stack.extend((inner, known) for inner in part)
            case dict():
                _check_node(part, known)
                stack.extend(_inside(part, known))


def _check_node(node: dict[str, Any], known: frozenset[str]) -> None:
    match node.get("type"):
        case "BASE_TABLE":
            if node["catalog_name"] or node["schema_name"] or fold(node["table_name"]) not in known:
                raise FragmentFailed("the fragment reads a table that it does not name")
        case "TABLE_FUNCTION":
            if node["function"]["function_name"] not in _FUNCTIONS:
                raise FragmentFailed("the fragment calls a table function; only range, generate_series and unnest")
        case "SHOW_REF":
            raise FragmentFailed("the fragment is not one SELECT that DuckDB reads")


def _inside(node: dict[str, Any], known: frozenset[str]) -> Iterator[tuple[object, frozenset[str]]]:
    """Each part of a node, and the tables in sight there: a WITH is in sight after itself and in its SELECT."""
    if isinstance(node.get("cte_map"), dict):
        for entry in node["cte_map"]["map"]:
            yield entry["value"], known
            known |= {fold(entry["key"])}
    for name, value in node.items():
        if name != "cte_map":
            yield value, known


def _depth(sql: str) -> int:
    """The depth to which a text's brackets nest, those in quoted texts counted too: at least the real depth."""
    steps = (1 if bracket in "([{" else -1 for bracket in re.findall(r"[(\[{)\]}]", sql))
    return max(accumulate(steps), default=0)


def _register(cursor: duckdb.DuckDBPyConnection, name: str, source: Source) -> None:
    """Have a source as a view of that name, with the columns that it shows and no other."""
    match source:
        case FileSource():
            select = scan.select(source, alias(source.paths[0]))
            cursor.execute(f"CREATE TEMP VIEW {scan.name(name)} AS {select}")
        case ArrowSource(path, visible):
            table = ipc.open_file(pa.memory_map(path)).read_all()
            cursor.register(name, table if visible is None else shown(table, visible))
        case TableSource(table):
            cursor.register(name, table)
        case _:
            assert_never(source)


class _Watch:
    """One thread for all runs: it interrupts each whose stop is set, again and again, as an interrupt between two
    statements is lost. A thread for each run cost a small one a third of its time; this one ends when all is quiet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[object, tuple[duckdb.DuckDBPyConnection, Stop]] = {}
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    @contextmanager
    def over(self, cursor: duckdb.DuckDBPyConnection, stop: Stop) -> Iterator[None]:
        """While the context is open, `stop` interrupts the cursor."""
        run = object()
        with self._lock:
            self._runs[run] = cursor, stop
            self._closed.clear()
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="duckdb-stop", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                del self._runs[run]

    def close(self) -> None:
        """End the thread, unless something runs: a process that ends while it lives cannot take DuckDB apart."""
        with self._lock:
            thread = self._thread
            if thread is None or self._runs:
                return
            self._closed.set()
        thread.join(2 * _POLL_SECONDS)

    def _watch(self) -> None:
        quiet = 0
        while True:
            self._closed.wait(_POLL_SECONDS)
            with self._lock:
                for cursor, stop in self._runs.values():
                    if stop.is_set():
                        cursor.interrupt()
                quiet = 0 if self._runs else quiet + 1
                if quiet >= _QUIET_POLLS or (self._closed.is_set() and not self._runs):
                    self._thread = None
                    return


def _batches(reader: pa.RecordBatchReader, stop: Stop) -> Iterator[pa.RecordBatch]:
    with _told():
        for batch in reader:
            if stop.is_set():
                raise Cancelled("the run was stopped")
            yield batch


@contextmanager
def _told() -> Iterator[None]:
    """Turns DuckDB's and Arrow's errors into ours, which say what kind they were and nothing more."""
    try:
        yield
    except pa.ArrowMemoryError:
        raise _ours("Out of Memory Error") from None
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise _ours(str(error)) from None


def _ours(message: str) -> JuntoError:
    kind = message.partition(":")[0]
    match kind:
        case "IO Error" if SPILL in message and message.endswith(_NO_ROOM):
            return NoSpill("there is no room on disk for what the fragment cannot hold in memory")
        case "IO Error" if SPILL in message and message.endswith(_TOO_LARGE):
            return OutOfMemory("the fragment needs more memory or temporary disk than the node may use")
        case "Out of Memory Error":
            return OutOfMemory("the fragment needs more memory or temporary disk than the node may use")
        case "INTERRUPT Error":
            return Cancelled("the run was stopped")
        case _:
            return FragmentFailed(f"the fragment failed: {_SAID.get(kind, 'DuckDB could not go on')}")
