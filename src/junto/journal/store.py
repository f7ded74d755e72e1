# SPDX-License-Identifier: Apache-2.0
"""The journal a node writes: append-only, durable before it is acknowledged, one writer.

Appends from any thread or from the event loop meet in a queue; one writer thread commits everything that waits as one
transaction and one fsync (group commit), then resolves their futures: persist, then send. What can go wrong:

- *Disk full* (or a quota, a limit of the system, another process that holds the file for too long): the batch is rolled
  back, its callers get StorageFailed, and later appends work as soon as there is space.
- *Any other failure to write or sync*: what the disk holds is now unknown, and trying again would hide it (a failed
  fsync may drop the dirty pages and succeed the next time). `on_fatal` is called; production ends the process, and the
  next start reads what is really there.
- *SIGKILL or power loss*: SQLite's log recovers every committed transaction and no part of another.

The frontier of the tree stays in memory; opening reads it from the nodes of log2(size) rows, compares it with the last
signed checkpoint, and hashes the entries after that anew.
"""

import queue
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from junto.errors import Fenced, InvalidInput, JuntoError, PeerFault, StorageFailed
from junto.journal import checkpoint, tree
from junto.journal.checkpoint import Checkpoint
from junto.journal.reading import Entry, Reader
from junto.journal.sqlite import Commit, SqliteStorage
from junto.journal.statement import STATEMENT_BYTES, Statement
from junto.journal.storage import Held, Row, Storage, lost_line
from junto.journal.telling import Told, tell
from junto.trust.names import parse_name
from junto.types import TaskId

CHECKPOINT_ENTRIES = 1024
"""A tree head is signed whenever the size passes a multiple of this, at open and at close."""

_BATCH_ENTRIES = 4096
_LATE_ENTRIES = 4096  # looked at in full when a journal is opened; `verify` looks at all
_FOLD_COMMITS = 256  # the write-ahead log is folded into the file after so many commits
_FOLD_BYTES = 4 << 20  # or so many bytes of envelopes


@dataclass(frozen=True, slots=True)
class Appended:
    """A statement's place; `new` unless the journal held it before, so that effects happen once."""

    index: int
    new: bool


Outcome = Appended | PeerFault


@dataclass(frozen=True, slots=True)
class _Keep:
    """Something a task keeps beside the entries; None as content: everything but the names in `but` goes."""

    task: TaskId
    name: str
    content: bytes | None
    but: tuple[str, ...]
    future: "Future[None] | Told[None]"


@dataclass(frozen=True, slots=True)
class _Request:
    envelope: bytes
    statement: Statement
    leaf: bytes
    future: "Future[Appended] | Told[Appended]"


class Journal:
    """One node's journal. Inert until opened; `with Journal(...) as journal` opens and closes it."""

    def __init__(
        self,
        place: Path | Storage,
        *,
        origin: str,
        key: Ed25519PrivateKey,
        on_fatal: Callable[[str], None],
        commit: Commit = sqlite3.Connection.commit,
    ) -> None:
        """place: the file, which is this node's alone, or where else the journal lies.

        `origin` and `key` sign the checkpoints; `on_fatal` gets one line and should end the process.
        """
        self._storage: Storage = SqliteStorage(place, commit=commit) if isinstance(place, Path) else place
        self.where = self._storage.where
        self.reader = Reader(self._storage.reading)
        self._origin = origin
        self._key = key
        self._on_fatal = on_fatal
        self._queue: queue.SimpleQueue[_Request | _Keep | None] = queue.SimpleQueue()
        self._gate = threading.Lock()  # no request enters the queue after the None that ends it
        self._accepting = False
        self._broken = ""
        self._frontier = tree.Frontier()
        self._checkpoint_size = 0
        self._commits = 0
        self._bytes = 0

    def __enter__(self) -> "Journal":
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, *, begun: bool = False) -> None:
        """Take the place for this node, check what it holds, sign a checkpoint and start the writer.

        begun: the party has had a journal here, so one that is missing or empty was lost.
        Raises InvalidInput (lost, another process has it, no journal, a newer format) or StorageFailed (damaged, disk
        full, fenced).
        """
        self._storage.open(begun=begun)
        try:
            self.reader.open()
            self._frontier, self._checkpoint_size, self._origin = _checked_frontier(
                self.reader, self._origin, self._storage.shared
            )
            if begun and not self._frontier.size:
                raise InvalidInput(lost_line(self.where))
            self._sign_checkpoint_alone()
            if self._broken:
                raise StorageFailed(self._broken)
        except BaseException:
            self.reader.close()
            self._storage.close()
            raise
        self._thread = threading.Thread(target=self._serve, name="journal", daemon=True)
        self._thread.start()
        self._accepting = True

    def close(self) -> None:
        """Commit what waits, sign a checkpoint, fold the log into the file and let go of it."""
        with self._gate:
            if not self._accepting:
                return
            self._accepting = False
            self._queue.put(None)
        self._thread.join()
        self.reader.close()
        self._storage.close()

    async def append(self, envelope: bytes, statement: Statement) -> Appended:
        """The statement's place, once it is on disk. A statement that the journal holds already keeps its place.

        envelope: the signed bytes that `statement` was opened from. Cancelling before the commit begins withdraws it.
        Raises PeerFault if another statement has its id, StorageFailed if it could not be stored.
        """
        told: Told[Appended] = Told()
        self._append(envelope, statement, told)
        return await told.heard()

    def submit(self, envelope: bytes, statement: Statement) -> "Future[Appended]":
        """As `append`, from any thread."""
        future: Future[Appended] = Future()
        self._append(envelope, statement, future)
        return future

    def _append(self, envelope: bytes, statement: Statement, future: "Future[Appended] | Told[Appended]") -> None:
        if len(envelope) > STATEMENT_BYTES:
            raise InvalidInput(f"statement {statement.id} of {len(envelope)} bytes: at most {STATEMENT_BYTES} are kept")
        self._enqueue(_Request(envelope, statement, tree.leaf_hash(envelope), future))

    async def keep(self, task: TaskId, name: str, content: bytes) -> None:
        """Keep something for a task beside the entries, in place of what it kept under that name, until `forget`.

        It is no statement and no part of the tree. Durable when this returns, by the same write as statements. The
        content lies there unchanged: encrypt it. Raises StorageFailed.
        """
        told: Told[None] = Told()
        self._enqueue(_Keep(task, name, content, (), told))
        await told.heard()

    def forget(self, task: TaskId, *, but: Collection[str] = ()) -> "Future[None]":
        """Let go of what a task keeps, but for the names given. The future holds StorageFailed if it could not be."""
        future: Future[None] = Future()
        try:
            self._enqueue(_Keep(task, "", None, tuple(but), future))
        except StorageFailed as error:
            future.set_exception(error)
        return future

    def kept(self, task: TaskId) -> dict[str, bytes]:
        """See `Reader.kept`."""
        return self.reader.kept(task)

    def kept_tasks(self) -> set[TaskId]:
        """See `Reader.kept_tasks`."""
        return self.reader.kept_tasks()

    def _enqueue(self, request: "_Request | _Keep") -> None:
        with self._gate:
            if self._broken or not self._accepting:
                raise StorageFailed(self._broken or f"journal {self.where} is closed")
            self._queue.put(request)

    def head(self) -> tuple[int, bytes]:
        """Size and root of the tree, as committed."""
        frontier = self._frontier
        return frontier.size, frontier.root

    def signed_head(self) -> str:
        """A checkpoint of the head, signed now."""
        size, root = self.head()
        return checkpoint.sign(Checkpoint(self._origin, size, root), self._key)

    def sign_with(self, key: Ed25519PrivateKey) -> None:
        """Sign checkpoints with another key of the node from now on; its certificate is in the journal."""
        self._key = key

    def __len__(self) -> int:
        return self._frontier.size

    def entries(
        self, start: int = 0, stop: int | None = None, *, kinds: Collection[str] = (), task: str = "", author: str = ""
    ) -> Iterator[Entry]:
        """See `Reader.entries`."""
        return self.reader.entries(start, stop, kinds=kinds, task=task, author=author)

    def find(self, statement: str) -> Entry | None:
        """The entry of the statement with this id, if it is here."""
        return self.reader.find(statement)

    def open_tasks(self, party: str) -> list[TaskId]:
        """See `Reader.open_tasks`."""
        return self.reader.open_tasks(party)

    def ended_tasks(self, party: str, most: int) -> list[TaskId]:
        """See `Reader.ended_tasks`."""
        return self.reader.ended_tasks(party, most)

    def authors(self, party: str) -> list[str]:
        """See `Reader.authors`."""
        return self.reader.authors(party)

    def said(self, authors: Collection[str], kinds: Collection[str], before: int, most: int) -> list[Entry]:
        """See `Reader.said`."""
        return self.reader.said(authors, kinds, before, most)

    def root_at(self, size: int) -> bytes:
        """See `Reader.root_at`."""
        return self.reader.root_at(size)

    def kept_since(self, at: float) -> dict[str, tuple[int, int]]:
        """See `Reader.kept_since`."""
        return self.reader.kept_since(at)

    def latest(self, kind: str, author: str) -> Entry | None:
        """The author's last statement of the kind, if there is one."""
        return self.reader.latest(kind, author)

    def _serve(self) -> None:
        """The writer thread. Should it ever end by a fault of ours, nobody waits for it in silence."""
        ended_well = False
        try:
            self._write()
            ended_well = True
        finally:
            if not ended_well:
                self._broken = f"journal {self.where}: its writer ended by a fault"
                self._on_fatal(self._broken)

    def _write(self) -> None:
        """Everything that waits is one batch."""
        while (first := self._queue.get()) is not None:
            batch: list[_Request | _Keep] = [first]
            ended = False
            while len(batch) < _BATCH_ENTRIES and not self._queue.empty():
                request = self._queue.get()
                if request is None:
                    ended = True
                    break
                batch.append(request)
            self._store([r for r in batch if r.future.set_running_or_notify_cancel()])
            tell(request.future for request in batch)
            if ended:
                break
            self._fold()
        self._sign_checkpoint_alone()
        self._fold(at_end=True)

    def _store(self, batch: "list[_Request | _Keep]") -> None:
        if self._broken:
            for request in batch:
                request.future.set_exception(StorageFailed(self._broken))
            return
        storage = self._storage
        try:
            storage.begin()
            for request in batch:
                if isinstance(request, _Keep):
                    self._keep(request)
            rows, frontier, outcomes = self._sorted_out([r for r in batch if isinstance(r, _Request)])
            storage.insert(rows)
            signed = self._checkpoint_size
            if frontier.size // CHECKPOINT_ENTRIES > signed // CHECKPOINT_ENTRIES:
                signed = self._insert_checkpoint(frontier)
            storage.commit()
        except storage.errors as error:
            failure = self._failed("append", error)
            self._commits = _FOLD_COMMITS  # folded, the log's space is used again
            for request in batch:
                request.future.set_exception(failure)
            return
        self._frontier, self._checkpoint_size = frontier, signed
        self._commits += 1
        self._bytes += sum(len(r.content or b"") if isinstance(r, _Keep) else len(r.envelope) for r in batch)
        for keep in batch:
            if isinstance(keep, _Keep):
                keep.future.set_result(None)
        for request, outcome in outcomes:
            if isinstance(outcome, Appended):
                request.future.set_result(outcome)
            else:
                request.future.set_exception(outcome)

    def _keep(self, keep: _Keep) -> None:
        if keep.content is not None:
            self._storage.keep(keep.task, keep.name, keep.content)
        else:
            self._storage.forget(keep.task, keep.but)

    def _sorted_out(self, batch: list[_Request]) -> tuple[list[Row], tree.Frontier, list[tuple[_Request, Outcome]]]:
        """The rows to add, the tree with them, and what each caller is told."""
        frontier = self._frontier
        held = self._storage.held([request.statement.id for request in batch])
        rows: list[Row] = []
        outcomes: list[tuple[_Request, Outcome]] = []
        for request in batch:
            statement, index = request.statement, frontier.size
            before = held.get(statement.id)
            if before is None:
                frontier, completed = frontier.appended(request.leaf)
                rows.append(Row(index, *_columns(statement), request.envelope, b"".join(completed)))
                held[statement.id] = Held(index, request.envelope, statement.author)
                outcomes.append((request, Appended(index, new=True)))
            elif before.envelope == request.envelope:
                outcomes.append((request, Appended(before.position, new=False)))
            else:
                fault = PeerFault(
                    f"{statement.author} sent a statement with the id {statement.id}, "
                    f"which entry {before.position} of {before.author} has"
                )
                outcomes.append((request, fault))
        return rows, frontier, outcomes

    def _insert_checkpoint(self, frontier: tree.Frontier) -> int:
        note = checkpoint.sign(Checkpoint(self._origin, frontier.size, frontier.root), self._key)
        self._storage.mark(frontier.size, note)
        return frontier.size

    def _sign_checkpoint_alone(self) -> None:
        """Sign at open and at close. A full disk does not hinder either: the entries are whole without a signature."""
        if self._broken or self._checkpoint_size == self._frontier.size:
            return
        try:
            self._storage.begin()
            signed = self._insert_checkpoint(self._frontier)
            self._storage.commit()
        except self._storage.errors as error:
            self._failed("checkpoint", error)
            return
        self._checkpoint_size = signed

    def _fold(self, at_end: bool = False) -> None:
        """Tidy up after many commits, beside the appends' path but not beside their error handling."""
        due = self._commits >= _FOLD_COMMITS or self._bytes >= _FOLD_BYTES
        if self._broken or not (due or at_end):
            return
        self._commits = self._bytes = 0
        try:
            self._storage.fold(at_end)
        except self._storage.errors as error:
            self._failed("fold of the write-ahead log", error)

    def _failed(self, doing: str, error: Exception) -> JuntoError:
        """Undo the transaction; end everything unless the disk was merely full or the file busy."""
        if isinstance(error, Fenced):
            self._broken = str(error)
            self._on_fatal(self._broken)
            return error
        cause = self._storage.cause(error)
        if not cause.passing:
            self._broken = f"journal {self.where} cannot be written any more: {cause.name} during {doing}"
            self._on_fatal(self._broken)
            return StorageFailed(self._broken)
        self._storage.undo()
        why = f"journal {self.where}: nothing was stored in this {doing}, {cause.name}: {cause.passing}"
        return StorageFailed(why, lack=cause.lack)


def _columns(statement: Statement) -> tuple[str, str, str, str, float]:
    return statement.kind, statement.task, statement.author, statement.id, statement.at


def _checked_frontier(reader: Reader, origin: str, shared: bool) -> tuple[tree.Frontier, int, str]:
    """The frontier, the size of the last checkpoint, which the tree must have led to, and the journal's name.

    Entries after that checkpoint are hashed anew; those before it are `verify`'s to read in full. A journal that
    several nodes of a party share has the name of the one that began it.
    """
    size = len(reader)
    if shared and size:
        first = parse_name(reader.entry(0).author)
        begun = checkpoint.origin_of(first.consortium, first.party, first.node)
        if begun.rpartition("/")[0] == origin.rpartition("/")[0]:
            origin = begun
    _check_late(reader, size)
    marks = reader.checkpoints(last=True)
    frontier, marked = tree.Frontier(), 0
    if marks:
        marked, note = marks[0]
        head, _ = checkpoint.parse(note)
        if marked > size:
            raise _damaged(reader.where, f"it holds {size} entries, and a checkpoint of {marked}")
        if head.origin != origin:
            raise InvalidInput(f"journal {reader.where} is of {head.origin}, not of {origin}: use this node's own home")
        frontier = tree.frontier_at(marked, reader.node)
        if (head.size, head.root) != (marked, frontier.root):
            raise _damaged(reader.where, f"its tree does not lead to its checkpoint of {marked}")
    for entry in reader.entries(marked):
        leaf = tree.leaf_hash(entry.envelope)
        if entry.index != frontier.size or leaf != entry.leaf:
            raise _damaged(reader.where, f"entry {frontier.size} is missing or changed")
        frontier, _ = frontier.appended(leaf)
    if frontier.root != tree.root_at(size, reader.node):
        raise _damaged(reader.where, f"the tree of its {size} entries is changed")
    return frontier, marked, origin


def _check_late(reader: Reader, size: int) -> None:
    """Look at the last entries in full, and at the place itself if there are no more: a flipped bit is named at once.

    The columns by which entries are searched for are under no hash, so they are compared with what the envelopes say.
    """
    if 0 < size <= _LATE_ENTRIES and reader.integrity_findings():
        raise _damaged(reader.where, "its tables or indexes are broken")
    for entry in reader.entries(max(size - _LATE_ENTRIES, 0)):
        try:
            said = _columns(entry.statement)
        except InvalidInput:
            said = None
        if tree.leaf_hash(entry.envelope) != entry.leaf:
            raise _damaged(reader.where, f"entry {entry.index} is changed")
        if said != (entry.kind, entry.task, entry.author, entry.id, entry.at):
            raise _damaged(reader.where, f"the columns of entry {entry.index} are not what its envelope says")


def _damaged(where: str, what: str) -> StorageFailed:
    return StorageFailed(f"journal {where} is damaged: {what}; `junto journal verify {where}` names every place")
