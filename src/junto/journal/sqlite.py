# SPDX-License-Identifier: Apache-2.0
"""A journal in one SQLite file: for one node, or for several of a party on one machine.

Each row of `entry` keeps, beside the signed envelope, the tree nodes its append completed (the hash of the leaf first,
then its parents). The columns `kind`, `task`, `author`, `id` and `at` repeat what the envelope says, to search by.

A node that is alone locks the file for itself. Nodes that share it hold the lock together, so none of them and a lone
one ever meet, and the lease in the file says who writes.
"""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from junto.errors import Fenced, InvalidInput, Lack, StorageFailed, lack_of
from junto.journal.storage import Cause, Fence, Held, Row, fenced_line, lost_line
from junto.types import TaskId

FORMAT = 2
"""The version of the file's layout, in its `user_version`."""

APPLICATION_ID = 0x4A554E54  # "JUNT": what file(1) and we tell a journal by

_ENTRIES = """
CREATE TABLE entry (
    position INTEGER PRIMARY KEY,  -- from 0, without gaps
    kind TEXT NOT NULL,
    task TEXT NOT NULL,            -- empty: of no task
    author TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    at REAL NOT NULL,              -- unix seconds, the author's clock
    envelope BLOB NOT NULL,
    hashes BLOB NOT NULL           -- 32 bytes each: the leaf, then the parents it completed
);
CREATE INDEX entry_by_task ON entry (task) WHERE task <> '';
CREATE INDEX entry_by_kind ON entry (kind, author);
CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, note TEXT NOT NULL);
CREATE TRIGGER entry_is_not_changed BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'a journal is append-only'); END;
CREATE TRIGGER entry_is_not_removed BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'a journal is append-only'); END;
"""

_KEPT = """
CREATE TABLE kept (
    task TEXT NOT NULL,
    name TEXT NOT NULL,
    content BLOB NOT NULL,         -- encrypted by whoever keeps it
    PRIMARY KEY (task, name)
) WITHOUT ROWID;
"""

_UPGRADES = (_ENTRIES + _KEPT, _KEPT)
"""The SQL that makes a file of an older format today's, by that format."""

_BY_END = "CREATE INDEX IF NOT EXISTS entry_by_end ON entry (kind, task, author)"
"""The index by which open tasks are found without reading one. It is no part of the format: older versions keep it."""

_MARKS = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT};"

_BUSY_SECONDS = 5.0
_MOST_AT_ONCE = 64  # rows in one statement; a power of two
_BRIEFLY_BUSY_MILLISECONDS = 400

# SHMSIZE: no room for the index of the write-ahead log; the commit frame is not visible and is overwritten by the next.
_FULL = frozenset({"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"})

# SQLite does not say whether a quota or a limit of the process refused the write, or a disk that fails: it is tried.
_UNSAID = frozenset({"SQLITE_IOERR_WRITE", "SQLITE_CANTOPEN", "SQLITE_CANTOPEN_FULLPATH"})
_TRIED_BYTES = 256 << 10
_UNKNOWN: Lack = "is full or failing"

Commit = Callable[[sqlite3.Connection], None]
T = TypeVar("T")


class SqliteRows:
    """Reads a journal's file while a node writes it or after; never changes it unless it was asked to write."""

    def __init__(self, path: Path, *, writes: bool = False) -> None:
        """writes: true for rows that need not outlive a loss of power, such as the renewal of a lease."""
        self.path = path
        self._writes = writes
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    @property
    def where(self) -> str:
        """See `Rows.where`."""
        return str(self.path)

    def open(self) -> None:
        """See `Rows.open`."""
        self._connection = self._write_connection() if self._writes else self._read_connection()

    def _write_connection(self) -> sqlite3.Connection:
        connection = connect(self.path)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA busy_timeout = {_BRIEFLY_BUSY_MILLISECONDS}")
        return connection

    def _read_connection(self) -> sqlite3.Connection:
        if not self.path.is_file():
            raise InvalidInput(f"there is no journal at {self.path}")
        # A file without a write-ahead log has no writer; then nothing is created beside it, and it may lie on a
        # read-only medium.
        log = self.path.with_name(self.path.name + "-wal")
        alone = "" if log.exists() else "&immutable=1"
        uri = f"file:{quote(str(self.path.absolute()))}?mode=ro{alone}"
        try:
            connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
        except sqlite3.Error as error:
            raise StorageFailed(f"journal {self.path} cannot be opened: {reason_of(error)}") from error
        try:
            _check_format(connection, self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """See `Rows.close`."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def run(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """See `Rows.run`."""
        with self._lock:
            if self._connection is None:
                raise StorageFailed(f"journal {self.path} is closed")
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                done = "written" if self._writes else "read"
                raise StorageFailed(f"journal {self.path} cannot be {done}: {reason_of(error)}") from error

    def findings(self) -> int:
        """See `Rows.findings`. 100 at most."""
        found = self.run("PRAGMA integrity_check")
        return 0 if found == [("ok",)] else len(found)


class SqliteStorage:
    """See `Storage`. With a fence other nodes share the file, without one it is this node's alone."""

    errors: tuple[type[Exception], ...] = (sqlite3.Error, Fenced)

    def __init__(self, path: Path, *, fence: Fence | None = None, commit: Commit = sqlite3.Connection.commit) -> None:
        self.path = path
        self.reading = SqliteRows(path)
        self._fence = fence
        self._commit = commit

    @property
    def where(self) -> str:
        """See `Storage.where`."""
        return str(self.path)

    @property
    def shared(self) -> bool:
        """See `Storage.shared`."""
        return self._fence is not None

    def open(self, *, begun: bool = False) -> None:
        """See `Storage.open`. An empty file is not opened: SQLite would throw away the write-ahead log beside it."""
        if begun and not (self.path.is_file() and self.path.stat().st_size):
            raise InvalidInput(lost_line(self.where))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.path, shared=self.shared)
        except OSError as error:
            raise StorageFailed(f"journal {self.path} cannot be opened: {error.strerror}") from error
        try:
            self._writer = connect(self.path)
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """See `Storage.close`."""
        self._writer.close()
        os.close(self._lock)

    def begin(self) -> None:
        """See `Storage.begin`."""
        self._writer.execute("BEGIN IMMEDIATE")
        if self._fence is not None:
            found = self._writer.execute("SELECT epoch, holder FROM lease").fetchone()
            if found is None or found[0] != self._fence.epoch:
                self._writer.rollback()
                line = fenced_line(self.where, self._fence.epoch, found)
                self._fence.fenced(line)
                raise Fenced(line)

    def held(self, ids: Sequence[str]) -> dict[str, Held]:
        """See `Storage.held`."""
        found: dict[str, Held] = {}
        for some in _portions(ids):
            marks = ", ".join("?" * len(some))
            query = f"SELECT id, position, envelope, author FROM entry WHERE id IN ({marks})"
            found.update((id, Held(*rest)) for id, *rest in self._writer.execute(query, some).fetchall())
        return found

    def insert(self, rows: Sequence[Row]) -> None:
        """See `Storage.insert`."""
        for some in _portions(rows):
            marks = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * len(some))
            query = f"INSERT INTO entry (position, kind, task, author, id, at, envelope, hashes) VALUES {marks}"
            self._writer.execute(query, tuple(chain.from_iterable(row.values for row in some)))

    def mark(self, size: int, note: str) -> None:
        """See `Storage.mark`."""
        self._writer.execute("INSERT OR IGNORE INTO checkpoint (size, note) VALUES (?, ?)", (size, note))

    def keep(self, task: TaskId, name: str, content: bytes) -> None:
        """See `Storage.keep`."""
        query = "INSERT OR REPLACE INTO kept (task, name, content) VALUES (?, ?, ?)"
        self._writer.execute(query, (task, name, content))

    def forget(self, task: TaskId, but: Collection[str]) -> None:
        """See `Storage.forget`."""
        marks = ", ".join("?" * len(but))
        self._writer.execute(f"DELETE FROM kept WHERE task = ? AND name NOT IN ({marks})", (task, *but))

    def commit(self) -> None:
        """See `Storage.commit`."""
        self._commit(self._writer)

    def undo(self) -> None:
        """See `Storage.undo`."""
        if self._writer.in_transaction:
            self._writer.rollback()

    def fold(self, at_end: bool) -> None:
        """Copy the write-ahead log into the file, beside the appends' path but not beside their error handling."""
        self._writer.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if at_end else 'PASSIVE'})").fetchall()

    def cause(self, error: Exception) -> Cause:
        """See `Storage.cause`."""
        name = reason_of(error)
        if name == "SQLITE_BUSY":
            return Cause(name, "another program holds the file")
        if name in _FULL:
            return Cause(name, "no space left on its disk, free some", "is full")
        refused = self._refused() if name in _UNSAID else None
        lack = lack_of(refused) if refused is not None else _UNKNOWN
        if refused is None or lack == _UNKNOWN:
            return Cause(name)
        return Cause(name, f"{(refused.strerror or name).lower()}, free some", lack)

    def _refused(self) -> OSError | None:
        """The system's reason to refuse a file beside the log that is no longer than the log would become."""
        log, beside = self.path.with_name(self.path.name + "-wal"), self.path.with_name(self.path.name + ".room")
        try:
            size = log.stat().st_size if log.exists() else 0
            descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(descriptor, bytes(_TRIED_BYTES), size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            return error
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
        return None


def lock(path: Path, *, shared: bool) -> int:
    """The descriptor of a lock held until it is closed or the process dies. Raises InvalidInput, naming the holder."""
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise InvalidInput(f"journal {path} is open in process {holder}: stop that one, or use another home") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    return descriptor


def connect(path: Path) -> sqlite3.Connection:
    """A connection that writes; creates the file, readable by its owner alone. Raises InvalidInput, StorageFailed."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StorageFailed(f"journal {path} cannot be opened: {error.strerror}") from error
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        found = _check_format(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA temp_store = MEMORY")  # no file elsewhere whose disk or number may run out
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # SQLite hides a failed one; `fold` does not
        if found < FORMAT:
            connection.execute("BEGIN IMMEDIATE")
            found = _check_format(connection, path)  # another node of the pair may have been here just before
            for statement in _UPGRADES[found].split(";\n") if found < FORMAT else ():
                connection.execute(statement)
            for statement in _MARKS.split(";"):
                connection.execute(statement)
            connection.execute("COMMIT")
        connection.execute(_BY_END)
    except sqlite3.Error as error:
        connection.close()
        raise StorageFailed(f"journal {path} cannot be opened: {reason_of(error)}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _portions(all: Sequence[T]) -> Iterator[Sequence[T]]:
    """Portions whose sizes are powers of two: few statements of SQL for a batch, and few different ones, which SQLite
    then knows. (With each statement this thread lets others run, and waits for its turn again.)"""
    at = 0
    while at < len(all):
        size = min(1 << (len(all) - at).bit_length() - 1, _MOST_AT_ONCE)
        yield all[at : at + size]
        at += size


def _check_format(connection: sqlite3.Connection, path: Path) -> int:
    """The file's format, 0 for an empty file. Raises InvalidInput if it is no journal or newer than this Junto."""
    try:
        found = int(connection.execute("PRAGMA user_version").fetchone()[0])
        application = int(connection.execute("PRAGMA application_id").fetchone()[0])
        tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    except sqlite3.DatabaseError as error:
        raise InvalidInput(f"{path} is not a journal: {reason_of(error)}") from error
    if not found and not tables:
        return 0
    if application != APPLICATION_ID:
        raise InvalidInput(f"{path} is a SQLite file but not a journal")
    if found > FORMAT:
        raise InvalidInput(f"journal {path} has format {found}; this Junto knows up to {FORMAT}: use a newer Junto")
    return found


def reason_of(error: Exception) -> str:
    """SQLite's name for what went wrong; its text may quote values."""
    return str(getattr(error, "sqlite_errorname", type(error).__name__))
