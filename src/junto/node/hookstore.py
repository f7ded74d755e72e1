# SPDX-License-Identifier: Apache-2.0
"""The notices that webhooks have still to be told, in a small SQLite file of the home: a restart loses nothing.

A notice stays here after it was delivered or given up, without its body, for as long as it may be raised again under
the same id (a restart derives notices anew): so it is sent once, or again only if the answer to it was lost.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from junto.errors import StorageFailed

MOST_PENDING = 10_000
"""The most letters that wait for one webhook; a letter on top of them pushes out the oldest."""

_REMEMBER_SECONDS = 30 * 86_400.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS hook (
    name TEXT PRIMARY KEY, since REAL NOT NULL, gone INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL DEFAULT 0,
    last_at REAL NOT NULL DEFAULT 0, last_reply TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE IF NOT EXISTS letter (
    number INTEGER PRIMARY KEY, hook TEXT NOT NULL, id TEXT NOT NULL, raised_at REAL NOT NULL, body BLOB,
    attempts INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL DEFAULT 0, given_up INTEGER NOT NULL DEFAULT 0,
    UNIQUE (hook, id)
) STRICT;
CREATE INDEX IF NOT EXISTS pending ON letter (hook, next_at, number) WHERE body IS NOT NULL;
"""


@dataclass(frozen=True, slots=True)
class Letter:
    """A notice on its way to one webhook."""

    number: int
    id: str
    body: bytes
    raised_at: float
    attempts: int


@dataclass(frozen=True, slots=True)
class HookState:
    """The state of one webhook. Times in unix seconds, 0 for never."""

    since: float
    gone: bool
    failures: int
    next_at: float
    last_at: float
    last_reply: str
    pending: int
    given_up: int


class HookStore:
    """The letters of one node. Every method may be called from any thread, one call at a time goes on.

    What changes something raises StorageFailed if the disk is full or fails; then nothing was changed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: sqlite3.Connection | None = None

    def open(self, hooks: Iterable[str], now: float) -> None:
        """Open or make the file for these webhooks; what waits for others is dropped. Raises StorageFailed.

        A file that is open already stays unchanged.
        """
        if self._file is not None:
            return
        names = sorted(set(hooks))
        try:
            self._file = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, timeout=5.0)
            self._path.chmod(0o600)
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = FULL")
            self._file.executescript(_SCHEMA)
            with self._writing() as file:
                marks = ", ".join("?" * len(names))  # nothing else is put into the statements
                file.execute(f"DELETE FROM letter WHERE hook NOT IN ({marks})", names)
                file.execute(f"DELETE FROM hook WHERE name NOT IN ({marks})", names)
                file.executemany("INSERT OR IGNORE INTO hook (name, since) VALUES (?, ?)", [(n, now) for n in names])
                file.execute(
                    "DELETE FROM letter WHERE body IS NULL AND raised_at < ?",
                    (now - _REMEMBER_SECONDS,),
                )
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise StorageFailed(f"{self._path} cannot be opened ({type(error).__name__}): {error}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file, after the call that goes on in another thread."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def add(self, letters: Iterable[tuple[str, str, float, bytes]]) -> int:
        """Take in (webhook, id, raised at, body) to be sent; how many old ones had to give way.

        Left out are letters that are known already, are older than their webhook, or are for a webhook that wants
        nothing any more.
        """
        with self._writing() as file:
            hooks: set[str] = set()
            for hook, id, raised_at, body in letters:
                file.execute(
                    "INSERT OR IGNORE INTO letter (hook, id, raised_at, body) SELECT name, ?, ?, ? FROM hook"
                    " WHERE name = ? AND NOT gone AND since <= ?",
                    (id, raised_at, body, hook, raised_at),
                )
                hooks.add(hook)
            pushed = 0
            for hook in hooks:
                pushed += file.execute(
                    "UPDATE letter SET body = NULL, given_up = 1 WHERE number IN (SELECT number FROM letter"
                    " WHERE hook = ? AND body IS NOT NULL ORDER BY number DESC LIMIT -1 OFFSET ?)",
                    (hook, MOST_PENDING),
                ).rowcount
            return pushed

    def next(self, hook: str) -> tuple[Letter, float] | None:
        """The letter to be tried first, and when; None if none waits."""
        with self._reading() as file:
            found = file.execute(
                "SELECT number, id, letter.body, raised_at, attempts, max(letter.next_at, hook.next_at)"
                " FROM letter JOIN hook ON hook.name = letter.hook"
                " WHERE letter.hook = ? AND body IS NOT NULL AND NOT gone ORDER BY letter.next_at, number LIMIT 1",
                (hook,),
            ).fetchone()
        if found is None:
            return None
        number, id, body, raised_at, attempts, at = found
        return Letter(number, id, body, raised_at, attempts), at

    def delivered(self, hook: str, letter: Letter, at: float, reply: str) -> None:
        """Note that the webhook took the notice."""
        with self._writing() as file:
            file.execute("UPDATE letter SET body = NULL, attempts = attempts + 1 WHERE number = ?", (letter.number,))
            file.execute(
                "UPDATE hook SET failures = 0, next_at = 0, last_at = ?, last_reply = ? WHERE name = ?",
                (at, reply, hook),
            )

    def refused(self, hook: str, letter: Letter, at: float, reply: str, next_at: float) -> None:
        """Note that the webhook refused this letter alone: it is tried again at `next_at`, and holds up no others."""
        with self._writing() as file:
            file.execute(
                "UPDATE letter SET attempts = attempts + 1, next_at = ? WHERE number = ?", (next_at, letter.number)
            )
            file.execute("UPDATE hook SET last_at = ?, last_reply = ? WHERE name = ?", (at, reply, hook))

    def failed(self, hook: str, letter: Letter, at: float, reply: str, next_at: float) -> None:
        """Note that the webhook failed: it is tried again at `next_at`, with this letter first."""
        with self._writing() as file:
            file.execute("UPDATE letter SET attempts = attempts + 1 WHERE number = ?", (letter.number,))
            file.execute(
                "UPDATE hook SET failures = failures + 1, next_at = ?, last_at = ?, last_reply = ? WHERE name = ?",
                (next_at, at, reply, hook),
            )

    def give_up(self, hook: str, before: float) -> int:
        """Drop what was raised before then and was tried at least once; how many."""
        with self._writing() as file:
            return file.execute(
                "UPDATE letter SET body = NULL, given_up = 1"
                " WHERE hook = ? AND body IS NOT NULL AND attempts > 0 AND raised_at < ?",
                (hook, before),
            ).rowcount

    def end(self, hook: str, at: float, reply: str) -> None:
        """Note that the webhook wants nothing any more: it is sent nothing, what waits included."""
        with self._writing() as file:
            file.execute("UPDATE letter SET body = NULL, given_up = 1 WHERE hook = ? AND body IS NOT NULL", (hook,))
            file.execute("UPDATE hook SET gone = 1, last_at = ?, last_reply = ? WHERE name = ?", (at, reply, hook))

    def revive(self, hook: str, at: float, reply: str) -> None:
        """Note that a webhook took a test: what waits is tried now, and one that was gone hears of new notices."""
        with self._writing() as file:
            file.execute(
                "UPDATE hook SET since = CASE WHEN gone THEN ? ELSE since END, gone = 0, failures = 0, next_at = 0,"
                " last_at = ?, last_reply = ? WHERE name = ?",
                (at, at, reply, hook),
            )

    def state(self, hook: str) -> HookState:
        """The state of a webhook."""
        with self._reading() as file:
            since, gone, failures, hook_next, last_at, last_reply = file.execute(
                "SELECT since, gone, failures, next_at, last_at, last_reply FROM hook WHERE name = ?", (hook,)
            ).fetchone()
            pending, given_up, first = file.execute(
                "SELECT count(body), coalesce(sum(given_up), 0), min(CASE WHEN body IS NOT NULL THEN next_at END)"
                " FROM letter WHERE hook = ?",
                (hook,),
            ).fetchone()
        next_at = max(hook_next, first) if first is not None else 0.0
        return HookState(since, bool(gone), failures, next_at, last_at, last_reply, pending, given_up)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._file is None:
                raise StorageFailed(f"{self._path} is not open: the log of the node says why")
            try:
                yield self._file
            except sqlite3.Error as error:
                raise StorageFailed(f"{self._path} cannot be read ({type(error).__name__}): {error}") from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._file is None:
                raise StorageFailed(f"{self._path} is not open: the log of the node says why")
            try:
                self._file.execute("BEGIN IMMEDIATE")
                yield self._file
                self._file.execute("COMMIT")
            except BaseException as error:
                if self._file.in_transaction:
                    self._file.execute("ROLLBACK")
                if not isinstance(error, sqlite3.Error):
                    raise
                raise StorageFailed(f"{self._path} cannot be written ({type(error).__name__}): {error}") from error
