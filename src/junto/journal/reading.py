# SPDX-License-Identifier: Apache-2.0
"""The reader of a journal, for the node that writes it, the command line beside it, and an auditor.

Each row of `entry` keeps, beside the signed envelope, the tree nodes its append completed (the hash of the leaf first,
then its parents), so node `(level, index)` stands in row `((index + 1) << level) - 1` and no root or proof needs more
than a few rows. The columns `kind`, `task`, `author`, `id` and `at` repeat what the envelope says, to search by; the
envelope is what counts, and `verify.py` compares them.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from junto.errors import InvalidInput, StorageFailed
from junto.journal import tree
from junto.journal.sqlite import SqliteRows
from junto.journal.statement import CERTIFICATE, Statement, read_statement
from junto.journal.storage import Rows
from junto.types import TaskId

_PAGE_ROWS = 256
_COLUMNS = "position, kind, task, author, id, at, envelope, hashes"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a journal; `leaf` is the hash the tree holds for it."""

    index: int
    kind: str
    task: TaskId
    author: str
    id: str
    at: float
    envelope: bytes
    leaf: bytes

    @property
    def statement(self) -> Statement:
        """The statement, as it was checked when it was appended."""
        return read_statement(self.envelope)


class Reader:
    """Reads a journal from any thread, while a node writes it or after; never changes the file.

    Raises InvalidInput if the file is no journal or of a newer format, StorageFailed if it cannot be read.
    """

    def __init__(self, place: Path | Rows) -> None:
        """place: the journal's file, or a connection to where else it lies."""
        self._place: Rows = SqliteRows(place) if isinstance(place, Path) else place
        self.where = self._place.where

    def __enter__(self) -> "Reader":
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Connect and check the format."""
        self._place.open()

    def close(self) -> None:
        """Let go of it."""
        self._place.close()

    def kept(self, task: TaskId) -> dict[str, bytes]:
        """The contents that a task keeps beside the entries, by name."""
        return dict(self._rows("SELECT name, content FROM kept WHERE task = ?", task))

    def kept_tasks(self) -> set[TaskId]:
        """The tasks that keep something."""
        return {TaskId(task) for (task,) in self._rows("SELECT DISTINCT task FROM kept")}

    def __len__(self) -> int:
        """The number of entries."""
        return int(self._rows("SELECT coalesce(max(position) + 1, 0) FROM entry")[0][0])

    def entries(
        self, start: int = 0, stop: int | None = None, *, kinds: Collection[str] = (), task: str = "", author: str = ""
    ) -> Iterator[Entry]:
        """The entries `start` to `stop` (not included) in order, only those of the kinds, task and author if named.

        Read in pages: a slow caller holds nothing up, and sees entries that are appended meanwhile.
        """
        conditions = ["position >= ?", "position < ?"]
        values: list[object] = [1 << 62 if stop is None else stop]
        if kinds:
            conditions.append(f"kind IN ({', '.join('?' * len(kinds))})")
            values.extend(kinds)
        for column, wanted in (("task", task), ("author", author)):
            if wanted:
                conditions.append(f"{column} = ?")
                values.append(wanted)
        if task:
            conditions.append("task <> ''")  # or SQLite, not knowing the value, leaves the index of tasks aside
        where = " AND ".join(conditions)
        while True:
            query = f"SELECT {_COLUMNS} FROM entry WHERE {where} ORDER BY position LIMIT {_PAGE_ROWS}"
            page = self._rows(query, start, *values)
            for row in page:
                yield _entry(row)
            if len(page) < _PAGE_ROWS:
                return
            start = int(page[-1][0]) + 1

    def entry(self, index: int) -> Entry:
        """The entry at the index. Raises InvalidInput if there is none."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM entry WHERE position = ?", index)
        if not rows:
            raise InvalidInput(f"journal {self.where} has no entry {index}; it has {len(self)}")
        return _entry(rows[0])

    def find(self, statement: str) -> Entry | None:
        """The entry of the statement with this id, if it is here."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM entry WHERE id = ?", statement)
        return _entry(rows[0]) if rows else None

    def latest(self, kind: str, author: str) -> Entry | None:
        """The author's last statement of the kind, if there is one."""
        query = f"SELECT {_COLUMNS} FROM entry WHERE kind = ? AND author = ? ORDER BY position DESC LIMIT 1"
        rows = self._rows(query, kind, author)
        return _entry(rows[0]) if rows else None

    def open_tasks(self, party: str) -> list[TaskId]:
        """Tasks that were proposed and have no end here, by their ids; read from an index alone.

        party: what the names of the journal's own nodes begin with; only their refusals end a task here.
        """
        ended = "SELECT task FROM entry WHERE kind IN ('receipt', 'stop')"
        refused = "SELECT task FROM entry WHERE kind = 'refusal' AND substr(author, 1, ?) = ?"
        query = f"SELECT task FROM entry WHERE kind = 'proposal' EXCEPT {ended} EXCEPT {refused} ORDER BY task"
        return [TaskId(task) for (task,) in self._rows(query, len(party), party)]

    def ended_tasks(self, party: str, most: int) -> list[TaskId]:
        """Tasks whose first end came last, `most` of them, in the order of these ends; read from an index alone."""
        query = (
            "SELECT task, min(position) AS first FROM entry WHERE kind IN ('receipt', 'stop')"
            " OR (kind = 'refusal' AND substr(author, 1, ?) = ?) GROUP BY task ORDER BY first DESC LIMIT ?"
        )
        return [TaskId(task) for task, _ in reversed(self._rows(query, len(party), party, most))]

    def kept_since(self, at: float) -> dict[str, tuple[int, int]]:
        """Author → how many entries, and how many bytes of them, came since then: since the first of the last entries
        that are all dated so late."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            ((dated,),) = self._rows("SELECT at FROM entry WHERE position = ?", middle)
            low, high = (low, middle) if dated >= at else (middle + 1, high)
        query = "SELECT author, count(*), sum(length(envelope)) FROM entry WHERE position >= ? GROUP BY author"
        return {author: (int(entries), int(size)) for author, entries, size in self._rows(query, low)}

    def authors(self, party: str) -> list[str]:
        """The nodes whose certificates are here, of the party that their names begin with."""
        query = "SELECT DISTINCT author FROM entry WHERE kind = ? AND substr(author, 1, ?) = ? ORDER BY author"
        return [author for (author,) in self._rows(query, CERTIFICATE, len(party), party)]

    def said(self, authors: Collection[str], kinds: Collection[str], before: int, most: int) -> list[Entry]:
        """The last entries before a place that these authors made, of these kinds, `most` of them, the latest first."""
        if not authors:
            return []
        chosen = f"kind IN ({', '.join('?' * len(kinds))}) AND author IN ({', '.join('?' * len(authors))})"
        inner = f"SELECT position FROM entry WHERE {chosen} AND position < ? ORDER BY position DESC LIMIT ?"
        query = f"SELECT {_COLUMNS} FROM entry WHERE position IN ({inner}) ORDER BY position DESC"
        return [_entry(row) for row in self._rows(query, *kinds, *authors, before, most)]

    def root_at(self, size: int) -> bytes:
        """The root of the first `size` entries. Raises StorageFailed if the place does not hold so many."""
        return tree.root_at(size, self.node)

    def checkpoints(self, last: bool = False) -> list[tuple[int, str]]:
        """The signed tree heads kept in the file, `(size, note)`, largest first; with `last` only that one."""
        rows = self._rows(f"SELECT size, note FROM checkpoint ORDER BY size DESC{' LIMIT 1' if last else ''}")
        return [(int(size), str(note)) for size, note in rows]

    def node(self, level: int, index: int) -> bytes:
        """The tree node, for `tree.inclusion_proof` and its like. Raises StorageFailed if the file does not hold it."""
        row = ((index + 1) << level) - 1
        rows = self._rows("SELECT substr(hashes, ?, 32) FROM entry WHERE position = ?", 32 * level + 1, row)
        if not rows or not isinstance(rows[0][0], bytes) or len(rows[0][0]) != tree.HASH_BYTES:
            raise StorageFailed(f"journal {self.where} lacks tree node {level}/{index} at entry {row}")
        return bytes(rows[0][0])

    def completed(self, index: int) -> tuple[bytes, ...]:
        """All tree nodes the entry's append completed: its leaf, then its parents. Raises StorageFailed."""
        rows = self._rows("SELECT hashes FROM entry WHERE position = ?", index)
        if not rows or not isinstance(rows[0][0], bytes):
            raise StorageFailed(f"journal {self.where} lacks the tree nodes of entry {index}")
        hashes = rows[0][0]
        return tuple(hashes[start : start + tree.HASH_BYTES] for start in range(0, len(hashes), tree.HASH_BYTES))

    def integrity_findings(self) -> int:
        """The number of faults that the place itself finds in its tables and indexes, 100 at most."""
        return self._place.findings()

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self._place.run(query, *values)


def _entry(row: tuple[object, ...]) -> Entry:
    index, kind, task, author, name, at, envelope, hashes = row
    match index, kind, task, author, name, at, envelope, hashes:
        case int(), str(), str(), str(), str(), float(), bytes(), bytes():
            return Entry(index, kind, TaskId(task), author, name, at, envelope, hashes[: tree.HASH_BYTES])
    raise StorageFailed(f"entry {index} of the journal does not hold what its columns should")
