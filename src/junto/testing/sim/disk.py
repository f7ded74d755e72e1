# SPDX-License-Identifier: Apache-2.0
"""A node's disk that survives its process: a journal and files, with what was not synced lost or torn at a crash.

A write becomes durable at a later moment of virtual time, all that waits together, as group commit does it. At a crash
what had not been synced is lost, or, as SQLite's log allows, the whole last batch is there although nobody was told.
"""

import asyncio
import errno
import heapq
import io
import random
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from junto.errors import InvalidInput, PeerFault, StorageFailed
from junto.journal import tree
from junto.journal.reading import Entry
from junto.journal.statement import Statement
from junto.journal.storage import Fence, lost_line
from junto.journal.store import Appended
from junto.testing.sim.loop import PROCESS, Process
from junto.types import TaskId

_SYNC_SECONDS = 0.001


@dataclass(slots=True)
class Disk:
    """The contents that a party's store keeps across processes, and the disk's present faults."""

    name: str
    entries: list[Entry] = field(default_factory=list)
    kept: dict[tuple[TaskId, str], bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    epochs: list[int] = field(default_factory=list)  # of each entry: under which lease it was written
    full: bool = False
    was_full: bool = False  # once in this run
    breaks: bool = False  # the next sync fails
    dies_at: str = ""  # the process dies while it writes this
    tears: bool = False  # a file that is being written at a crash is left half-written

    def copy(self) -> "Disk":
        """The same content, on another disk."""
        return Disk(self.name, list(self.entries), dict(self.kept), dict(self.files), list(self.epochs))

    def check(self) -> None:
        """Raises OSError if there is no room."""
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")


class SimFiles:
    """See `junto.node.spool.Files`."""

    def __init__(self, disk: Disk, process: Process) -> None:
        self._disk = disk
        self._process = process

    def write(self, path: Path, pieces: Iterable[bytes]) -> None:
        """A new file."""
        data = b"".join(pieces)
        self._alive()
        self._disk.check()
        self._disk.files[path.name] = data

    @contextmanager
    def read(self, path: Path, offset: int) -> Iterator[BinaryIO]:
        """The file, open."""
        self._alive()
        if path.name not in self._disk.files:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
        stream = io.BytesIO(self._disk.files[path.name])
        stream.seek(offset)
        yield stream

    def size(self, path: Path) -> int:
        """The size of a file in bytes."""
        if path.name not in self._disk.files:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
        return len(self._disk.files[path.name])

    def remove(self, path: Path) -> None:
        """Forget it."""
        if not self._process.dead:
            self._disk.files.pop(path.name, None)

    def names(self, folder: Path) -> list[Path]:
        """The files of a folder."""
        return [folder / name for name in sorted(self._disk.files)]

    def _alive(self) -> None:
        if self._process.dead:
            raise OSError(errno.EIO, "the process is gone")


@dataclass(slots=True)
class _Waiting:
    act: Callable[[], object]
    what: str
    future: asyncio.Future[Any]


class SimJournal:
    """See `junto.journal.store.Journal`: the same tree, the same ids once only, on a simulated disk."""

    def __init__(
        self,
        disk: Disk,
        faults: random.Random,
        path: Path,
        *,
        on_fatal: Callable[[str], None],
        fence: Fence | None = None,
        is_over: Callable[[int], bool] = lambda epoch: False,
        **_: object,
    ) -> None:
        """fence: the lease it is written under. is_over: whether the store holds another now."""
        self.path = path
        self.fence = fence
        self._is_over = is_over
        self._disk = disk
        self._faults = faults
        self._on_fatal = on_fatal
        self._waiting: list[_Waiting] = []
        self._timer: asyncio.TimerHandle | None = None
        self._ids: dict[str, Entry] = {}
        self._frontier = tree.Frontier()
        self._roots = [self._frontier.root]
        self._process = PROCESS.get() or Process("harness")
        self._by_task: dict[str, list[Entry]] = {}
        self._by_kind: dict[str, list[Entry]] = {}

    def open(self, *, begun: bool = False) -> None:
        """Read what is there."""
        if begun and not self._disk.entries:
            raise InvalidInput(lost_line(self._disk.name))
        for entry in self._disk.entries:
            self._take(entry)

    def close(self) -> None:
        """Commit what waits."""
        self._commit()

    def crash(self) -> None:
        """The process is gone: what waits is lost, or all of it is there."""
        if self._waiting and self._faults.random() < 0.5 and not self._disk.full and not self._fenced():
            for waiting in self._waiting:
                if not waiting.future.cancelled():
                    waiting.act()
        self._waiting = []

    async def append(self, envelope: bytes, statement: Statement) -> Appended:
        """The place of the statement, once it is durable."""
        appended: Appended = await self._enqueue(lambda: self._append(envelope, statement), statement.kind)
        return appended

    async def keep(self, task: TaskId, name: str, content: bytes) -> None:
        """See `Journal.keep`."""
        what = name if name == "answer" else "keep"
        await self._enqueue(lambda: self._disk.kept.__setitem__((task, name), content), what)

    def forget(self, task: TaskId, *, but: Collection[str] = ()) -> asyncio.Future[None]:
        """See `Journal.forget`."""

        def act() -> None:
            for key in [key for key in self._disk.kept if key[0] == task and key[1] not in but]:
                del self._disk.kept[key]

        return self._enqueue(act, "forget")

    def kept(self, task: TaskId) -> dict[str, bytes]:
        """See `Journal.kept`."""
        return {name: content for (of, name), content in self._disk.kept.items() if of == task}

    def kept_tasks(self) -> set[TaskId]:
        """See `Journal.kept_tasks`."""
        return {task for task, _ in self._disk.kept}

    def head(self) -> tuple[int, bytes]:
        """Size and root."""
        return self._frontier.size, self._frontier.root

    def __len__(self) -> int:
        return self._frontier.size

    def entries(
        self, start: int = 0, stop: int | None = None, *, kinds: Collection[str] = (), task: str = "", author: str = ""
    ) -> Iterator[Entry]:
        """See `Reader.entries`."""
        found = self._disk.entries
        if task:
            found = self._by_task.get(task, [])
        elif kinds:
            found = list(heapq.merge(*(self._by_kind.get(kind, []) for kind in set(kinds)), key=lambda e: e.index))
        for entry in found[:]:
            if stop is not None and entry.index >= stop:
                return
            if entry.index >= start and (not kinds or entry.kind in kinds) and (not author or entry.author == author):
                yield entry

    def find(self, statement: str) -> Entry | None:
        """The entry of that id."""
        return self._ids.get(statement)

    def open_tasks(self, party: str) -> list[TaskId]:
        """See `Reader.open_tasks`."""
        ended = self._ends(party)
        return sorted({entry.task for entry in self._by_kind.get("proposal", []) if entry.task not in ended})

    def ended_tasks(self, party: str, most: int) -> list[TaskId]:
        """See `Reader.ended_tasks`."""
        return list(self._ends(party))[-most:]

    def _ends(self, party: str) -> dict[TaskId, None]:
        """The tasks that have ended, in the order of their first ends."""
        found = self.entries(kinds=("receipt", "stop", "refusal"))
        return dict.fromkeys(e.task for e in found if e.kind != "refusal" or e.author.startswith(party))

    def authors(self, party: str) -> list[str]:
        """See `Reader.authors`."""
        return sorted({e.author for e in self._by_kind.get("certificate", []) if e.author.startswith(party)})

    def said(self, authors: Collection[str], kinds: Collection[str], before: int, most: int) -> list[Entry]:
        """See `Reader.said`."""
        found = [e for e in self.entries(stop=before, kinds=kinds) if e.author in authors]
        return found[-most:][::-1]

    def root_at(self, size: int) -> bytes:
        """See `Reader.root_at`."""
        return self._roots[size]

    def kept_since(self, at: float) -> dict[str, tuple[int, int]]:
        """See `Reader.kept_since`."""
        return {}

    def latest(self, kind: str, author: str) -> Entry | None:
        """The author's last of the kind."""
        return next((entry for entry in reversed(self._by_kind.get(kind, [])) if entry.author == author), None)

    # ── the writer ──

    def _enqueue(self, act: Callable[[], Any], what: str) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        if self._process.dead:
            future.cancel()
            return future
        self._waiting.append(_Waiting(act, what, future))
        if self._timer is None:
            self._timer = loop.call_later(_SYNC_SECONDS * (0.5 + self._faults.random()), self._commit)
        return future

    def _commit(self) -> None:
        self._timer = None
        if self._process.dead:
            return
        batch, self._waiting = self._waiting, []
        if self.fence is not None and self._fenced():
            self.fence.fenced(f"lease {self.fence.epoch} of this node is over")
            return
        if self._disk.dies_at and any(waiting.what == self._disk.dies_at for waiting in batch):
            self._waiting, what, self._disk.dies_at = batch, self._disk.dies_at, ""
            self._on_fatal(f"killed while it wrote {what!r}")
            return
        if self._disk.breaks and batch:
            self._disk.breaks = False
            self._waiting = batch  # perhaps on the disk, perhaps not: `crash` decides
            self._on_fatal(f"journal {self.path.name} cannot be written any more: SQLITE_IOERR_FSYNC")
            return
        for waiting in batch:
            if waiting.future.cancelled():
                continue
            if self._disk.full:
                waiting.future.set_exception(StorageFailed("nothing was stored: no space left on its disk"))
                continue
            try:
                waiting.future.set_result(waiting.act())
            except PeerFault as error:
                waiting.future.set_exception(error)

    def _fenced(self) -> bool:
        """True if the lease is no longer the writer's, as every transaction of a writer asks in itself."""
        return self.fence is not None and self._is_over(self.fence.epoch)

    def _append(self, envelope: bytes, statement: Statement) -> Appended:
        held = self._ids.get(statement.id)
        if held is not None:
            if held.envelope != envelope:
                raise PeerFault(f"{statement.author} sent a statement with the id {statement.id}, which another has")
            return Appended(held.index, new=False)
        entry = Entry(
            self._frontier.size,
            statement.kind,
            statement.task,
            statement.author,
            statement.id,
            statement.at,
            envelope,
            tree.leaf_hash(envelope),
        )
        self._disk.entries.append(entry)
        self._disk.epochs.append(self.fence.epoch if self.fence is not None else 0)
        self._take(entry)
        return Appended(entry.index, new=True)

    def _take(self, entry: Entry) -> None:
        self._frontier, _ = self._frontier.appended(entry.leaf)
        self._roots.append(self._frontier.root)
        self._ids[entry.id] = entry
        self._by_kind.setdefault(entry.kind, []).append(entry)
        if entry.task:
            self._by_task.setdefault(entry.task, []).append(entry)
