# SPDX-License-Identifier: Apache-2.0
"""A journal in a PostgreSQL database of its own: for nodes of one party on several machines (extra `[ha]`).

The tables are those of `sqlite.py`. A commit returns when the server has it on disk (`synchronous_commit = on`); what
the server's own standbys acknowledge is the server's matter. Each transaction of the writer locks the row of the lease
for reading, so a takeover waits for it, or is seen by it. Needs sessions of its own: no pooler that shares them.
"""

from collections.abc import Collection, Sequence
from threading import Lock
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from junto.errors import Fenced, InvalidInput, StorageFailed
from junto.journal.lease import LEASE_TABLE
from junto.journal.storage import Cause, Fence, Held, Row, fenced_line, lost_line
from junto.types import TaskId

FORMAT = 2
"""The version of the tables, in the row of `journal`; counted with SQLite's."""

_TABLES = (
    "CREATE TABLE journal (format INTEGER NOT NULL)",
    f"INSERT INTO journal (format) VALUES ({FORMAT})",
    """CREATE TABLE entry (
        position BIGINT PRIMARY KEY, kind TEXT NOT NULL, task TEXT NOT NULL, author TEXT NOT NULL,
        id TEXT NOT NULL UNIQUE, at DOUBLE PRECISION NOT NULL, envelope BYTEA NOT NULL, hashes BYTEA NOT NULL
    )""",
    "CREATE INDEX entry_by_task ON entry (task) WHERE task <> ''",
    "CREATE INDEX entry_by_kind ON entry (kind, author)",
    "CREATE TABLE checkpoint (size BIGINT PRIMARY KEY, note TEXT NOT NULL)",
    "CREATE TABLE kept (task TEXT NOT NULL, name TEXT NOT NULL, content BYTEA NOT NULL, PRIMARY KEY (task, name))",
    """CREATE FUNCTION journal_is_append_only() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION 'a journal is append-only'; END $$""",
    """CREATE TRIGGER entry_is_not_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON entry
        FOR EACH STATEMENT EXECUTE FUNCTION journal_is_append_only()""",
)

_KEY = 0x4A554E54  # "JUNT": our advisory locks in the database
_CONNECT_SECONDS = 5
_STUCK_MILLISECONDS = 4000  # unacknowledged bytes and silent servers: the connection is given up
_BRIEFLY_MILLISECONDS = 400

# Out of disk, memory or connections, a lock not had in time, a statement cancelled, a deadlock: nothing was written.
_DISK_FULL = "53100"
_RECOVERABLE = {
    _DISK_FULL: "no space left at the database, free some",
    "53200": "the database is out of memory",
    "53300": "the database has too many connections",
    "55P03": "another session holds a lock",
    "57014": "the database cancelled it",
    "40P01": "two sessions waited for each other",
}


class PostgresRows:
    """Reads with a connection of its own, made anew when it broke; writes too if it was asked to."""

    def __init__(self, url: str, *, writes: bool = False) -> None:
        """writes: for the lease, which rather fails at once than waits for a lock."""
        self._url = url
        self._writes = writes
        self._lock = Lock()
        self._open = False
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    @property
    def where(self) -> str:
        """See `Rows.where`; never with a password."""
        return where(self._url)

    def open(self) -> None:
        """See `Rows.open`."""
        with self._lock:
            self._open = True
            self._connected()

    def close(self) -> None:
        """See `Rows.close`."""
        with self._lock:
            self._open = False
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def run(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """See `Rows.run`."""
        with self._lock:
            connection = self._connected()
            try:
                cursor = connection.execute(query.replace("?", "%s").encode(), values or None)
                return cursor.fetchall() if cursor.description is not None else []
            except psycopg.Error as error:
                done = "written" if self._writes else "read"
                raise StorageFailed(f"journal {self.where} cannot be {done}: {_name(error)}") from error

    def findings(self) -> int:
        """See `Rows.findings`: the server checks its pages itself, if it was made with checksums."""
        return 0

    def _connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        if not self._open:
            raise StorageFailed(f"journal {self.where} is closed")
        if self._connection is None or self._connection.closed:
            options = (
                f"-c lock_timeout={_BRIEFLY_MILLISECONDS}" if self._writes else "-c default_transaction_read_only=on"
            )
            connection = connect(self._url, "junto", options)
            try:
                if self._writes:
                    _prepare(connection, self.where)
                elif _format(connection, self.where) == 0:
                    raise InvalidInput(f"there is no journal at {self.where}")
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection


class PostgresStorage:
    """See `Storage`. Without a fence it is for those who know that no node runs."""

    errors: tuple[type[Exception], ...] = (psycopg.Error, Fenced)
    shared = True

    def __init__(self, url: str, *, fence: Fence | None = None) -> None:
        self._url = url
        self._fence = fence
        self.reading = PostgresRows(url)

    @property
    def where(self) -> str:
        """See `Storage.where`; never with a password."""
        return where(self._url)

    def open(self, *, begun: bool = False) -> None:
        """See `Storage.open`."""
        name = _session(self._fence.epoch) if self._fence is not None else "junto"
        self._writer = connect(self._url, name, "-c synchronous_commit=on")
        try:
            if begun and _format(self._writer, self.where) == 0:
                raise InvalidInput(lost_line(self.where))
            _prepare(self._writer, self.where)
        except BaseException:
            self._writer.close()
            raise

    def close(self) -> None:
        """See `Storage.close`."""
        self._writer.close()

    def begin(self) -> None:
        """See `Storage.begin`."""
        self._writer.execute("BEGIN")
        if self._fence is not None:
            found = self._writer.execute("SELECT epoch, holder FROM lease FOR SHARE").fetchone()
            if found is None or found[0] != self._fence.epoch:
                self._writer.execute("ROLLBACK")
                line = fenced_line(self.where, self._fence.epoch, found)
                self._fence.fenced(line)
                raise Fenced(line)

    def held(self, ids: Sequence[str]) -> dict[str, Held]:
        """See `Storage.held`."""
        query = "SELECT id, position, envelope, author FROM entry WHERE id = ANY(%s)"
        rows = self._writer.execute(query, (list(ids),)).fetchall() if ids else []
        return {id: Held(position, bytes(envelope), author) for id, position, envelope, author in rows}

    def insert(self, rows: Sequence[Row]) -> None:
        """See `Storage.insert`."""
        with self._writer.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO entry (position, kind, task, author, id, at, envelope, hashes)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                [row.values for row in rows],
            )

    def mark(self, size: int, note: str) -> None:
        """See `Storage.mark`."""
        query = "INSERT INTO checkpoint (size, note) VALUES (%s, %s) ON CONFLICT DO NOTHING"
        self._writer.execute(query, (size, note))

    def keep(self, task: TaskId, name: str, content: bytes) -> None:
        """See `Storage.keep`."""
        self._writer.execute(
            "INSERT INTO kept (task, name, content) VALUES (%s, %s, %s)"
            " ON CONFLICT (task, name) DO UPDATE SET content = excluded.content",
            (task, name, content),
        )

    def forget(self, task: TaskId, but: Collection[str]) -> None:
        """See `Storage.forget`."""
        self._writer.execute("DELETE FROM kept WHERE task = %s AND name <> ALL(%s)", (task, list(but)))

    def commit(self) -> None:
        """See `Storage.commit`."""
        self._writer.execute("COMMIT")

    def undo(self) -> None:
        """See `Storage.undo`."""
        if self._writer.info.transaction_status != TransactionStatus.IDLE:
            self._writer.execute("ROLLBACK")

    def fold(self, at_end: bool) -> None:
        """See `Storage.fold`: the server tidies up on its own account."""

    def cause(self, error: Exception) -> Cause:
        """See `Storage.cause`. Of a connection that broke nobody knows what became of the transaction."""
        name = _name(error)
        passing = "" if self._writer.closed else _RECOVERABLE.get(name, "")
        return Cause(name, passing, "is full" if name == _DISK_FULL else "is full or failing")


class PostgresBeacon:
    """Advisory locks of the session that renews the lease: the server lets go of them when the session ends."""

    def __init__(self, rows: PostgresRows) -> None:
        self._rows = rows

    def light(self, epoch: int) -> bool:
        """See `Beacon.light`."""
        return self._had("SELECT pg_try_advisory_lock(?::int, ?::int)", epoch)

    def is_out(self, epoch: int) -> bool:
        """See `Beacon.is_out`."""
        return self.light(epoch) and self._had("SELECT pg_advisory_unlock(?::int, ?::int)", epoch)

    def put_out(self, epoch: int) -> None:
        """See `Beacon.put_out`: the session that writes is ended, the process finds that out on its next use."""
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ?"
        self._rows.run(f"{query} AND datname = current_database()", _session(epoch))

    def _had(self, query: str, epoch: int) -> bool:
        return self._rows.run(query, _KEY, epoch) == [(True,)]


def where(url: str) -> str:
    """The database that a URL names, without user and password. Raises InvalidInput."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        raise InvalidInput("the store's address is no postgresql://user@host/database") from None
    port = f":{parts['port']}" if parts.get("port") else ""
    return f"postgresql://{parts.get('host') or 'localhost'}{port}/{parts.get('dbname') or parts.get('user') or ''}"


def connect(url: str, name: str, options: str) -> "psycopg.Connection[tuple[Any, ...]]":
    """A new session, in which each statement stands alone unless it begins a transaction. Raises StorageFailed."""
    try:
        return psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=_CONNECT_SECONDS,
            tcp_user_timeout=_STUCK_MILLISECONDS,
            application_name=name,
            options=options,
        )
    except psycopg.Error as error:
        raise StorageFailed(f"journal {where(url)} cannot be opened: {_why(error)}") from error


def _prepare(connection: "psycopg.Connection[tuple[Any, ...]]", where: str) -> None:
    """Make the tables if they are not there."""
    try:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_KEY,))
            if _format(connection, where) == 0:
                for statement in _TABLES:
                    connection.execute(statement.encode())
            connection.execute(LEASE_TABLE.encode())
            connection.execute(b"CREATE INDEX IF NOT EXISTS entry_by_end ON entry (kind, task, author)")
    except psycopg.Error as error:
        raise StorageFailed(f"journal {where} cannot be made: {_name(error)}") from error


def _format(connection: "psycopg.Connection[tuple[Any, ...]]", where: str) -> int:
    """The tables' format, 0 if there are none. Raises InvalidInput for a newer one."""
    try:
        there = connection.execute("SELECT to_regclass('journal') IS NOT NULL").fetchone()
        if there is None or not there[0]:
            return 0
        row = connection.execute("SELECT format FROM journal").fetchone()
    except psycopg.Error as error:
        raise StorageFailed(f"journal {where} cannot be opened: {_name(error)}") from error
    found = int(row[0]) if row is not None else 0
    if found > FORMAT:
        raise InvalidInput(f"journal {where} has format {found}; this Junto knows up to {FORMAT}: use a newer Junto")
    return found


def _session(epoch: int) -> str:
    return f"junto lease {epoch}"


def _name(error: Exception) -> str:
    """The server's code for what went wrong; its text may quote values."""
    return str(getattr(error, "sqlstate", None) or type(error).__name__)


def _why(error: psycopg.Error) -> str:
    """The reason why there is no connection: the server's code if it answered, else that it did not."""
    return error.sqlstate or "the database does not answer, or does not let us in"
