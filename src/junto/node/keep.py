# SPDX-License-Identifier: Apache-2.0
"""The outputs of finished steps, kept until their task has ended, so that a crash computes no finished step again.

Small outputs lie in a table beside the journal's entries and become durable with the same write; large ones are files
of the spool. Both are encrypted under the node's spool key. With an output are kept the messages that its step has for
other parties: whoever still needs one pulls it after the restart as before.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from junto.errors import Cancelled, JuntoError, PeerFault, StorageFailed
from junto.journal.store import Journal
from junto.logs import logger
from junto.node.cache import Copy
from junto.node.exchange import Content
from junto.node.spool import Spool, Spooled
from junto.plan.steps import Plan, parties_of
from junto.tasks.attempts import needs
from junto.tasks.bodies import Finished
from junto.types import Digest, PartyId, StepId, TaskId, Withheld

if TYPE_CHECKING:
    from junto.node.locals import Local  # arrays and tables: loaded with the first piece of work

_log = logger("junto.keep")
INLINE_BYTES = 64 * 1024
"""Up to this size an output lies beside the journal's entries; beyond, in a file."""
_ANSWER = "answer"
_AGAIN_SECONDS = 5.0
_REMEMBERED_TASKS = 1000


@dataclass(frozen=True, slots=True)
class Message:
    """A step's message to another party, under the name by which it is pulled."""

    name: str
    to: PartyId
    content: Content
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """A finished step: what it gave here, what it has for others, what is confirmed of it."""

    local: "Local"
    messages: tuple[Message, ...]
    finished: Finished


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer as an Arrow IPC stream, in memory or in the spool."""

    result: Content
    digest: Digest
    rows: int
    withheld: Withheld


class File(msgspec.Struct, frozen=True, tag="file"):
    """A file of the spool."""

    name: str
    id: bytes
    sha256: bytes
    bytes: int


class Copied(msgspec.Struct, frozen=True, tag="copy"):
    """A copy of an open table, in the cache."""

    path: str
    sha256: bytes
    bytes: int


class Inline(msgspec.Struct, frozen=True, tag="inline"):
    """The bytes themselves."""

    data: bytes


Place = File | Copied | Inline
"""The place of something kept."""


class _Message(msgspec.Struct, frozen=True):
    name: str
    to: PartyId
    place: Place
    sha256: bytes


class _Kept(msgspec.Struct, frozen=True):
    local: msgspec.Raw
    messages: tuple[_Message, ...]
    finished: Finished


class _Answer(msgspec.Struct, frozen=True):
    place: Place
    digest: Digest
    rows: int
    withheld: Withheld


class Keeper:
    """The outputs of one node's open tasks, and the answers of the latest."""

    def __init__(self, journal: Journal, spool: Spool) -> None:
        self._journal = journal
        self._spool = spool
        self._files: dict[TaskId, list[Spooled]] = defaultdict(list)
        self._closed = False
        self._ended: deque[TaskId] = deque(maxlen=_REMEMBERED_TASKS)  # a thread may still be writing for one

    # ── while a task is open ──

    def write(self, task: TaskId, pieces: Iterable[bytes]) -> Spooled:
        """An output as a file, which goes when its task ends. Blocks while it writes. Raises StorageFailed."""
        spooled = self._spool.write(pieces)
        if task in self._ended:
            self._spool.remove(spooled)
            raise Cancelled(f"task {task} has ended")
        self._files[task].append(spooled)
        return spooled

    def hold(self, task: TaskId, data: bytes) -> Content:
        """An output in memory if it is small, else as a file. Blocks while it writes. Raises StorageFailed."""
        return data if len(data) <= INLINE_BYTES else self.write(task, [data])

    async def save(self, task: TaskId, kept: Kept) -> None:
        """Keep a finished step; durable when this returns. Raises StorageFailed."""
        small = _is_small(kept)
        data = self._encoded(task, kept) if small else await asyncio.to_thread(self._encoded, task, kept)
        if task in self._ended:
            return
        name = str(kept.finished.step)
        await self._journal.keep(task, name, self._spool.seal(_label(task, name), data))

    async def save_answer(self, task: TaskId, answer: Answered) -> None:
        """Keep the answer; durable when this returns, and until `let_go`. Raises StorageFailed."""
        place = _placed(answer.result)
        data = msgspec.msgpack.encode(_Answer(place, answer.digest, answer.rows, answer.withheld))
        await self._journal.keep(task, _ANSWER, self._spool.seal(_label(task, _ANSWER), data))

    # ── after a restart ──

    def recall(self, task: TaskId, plan: Plan, me: PartyId) -> dict[StepId, Kept]:
        """The finished steps of a task: each whose output is whole and rests only on our outputs that are here too."""
        found: dict[StepId, Kept] = {}
        sealed = self._journal.kept(task)
        for step in plan.steps:
            ours = [needed for needed in needs(step) if me in parties_of(plan.step(needed))]
            if step.id not in sealed or any(needed not in found for needed in ours):
                continue
            try:
                found[step.id] = self._decoded(task, step.id, sealed[step.id])
            except (JuntoError, msgspec.MsgspecError, ValueError) as error:
                _log.warning("an output is not what was kept", task=task, step=step.id, reason=type(error).__name__)
        return found

    def recall_answer(self, task: TaskId) -> Answered | None:
        """The task's answer, if it is here."""
        sealed = self._journal.kept(task).get(_ANSWER)
        if sealed is None:
            return None
        try:
            kept = msgspec.msgpack.decode(self._spool.unseal(_label(task, _ANSWER), sealed), type=_Answer)
            content = self._content(task, kept.place)
        except (JuntoError, msgspec.MsgspecError) as error:
            _log.warning("an answer is not what was kept", task=task, reason=type(error).__name__)
            return None
        if isinstance(content, Copy):
            return None
        return Answered(content, kept.digest, kept.rows, kept.withheld)

    def clear(self, known: Iterable[TaskId]) -> None:
        """At start, when what is known was recalled: let go of what belongs to no task that is known."""
        tasks = set(known)
        for task in sorted(self._journal.kept_tasks() - tasks):
            self._forget(task, ())
        self._spool.clear({spooled.path for files in self._files.values() for spooled in files})

    # ── when it has ended ──

    def ended(self, task: TaskId, answer: Content | None) -> None:
        """Let go of everything of a task but its answer."""
        self._ended.append(task)
        self._forget(task, (_ANSWER,) if answer is not None else ())
        for spooled in self._files.pop(task, []):
            if spooled == answer:
                self._files[task].append(spooled)
            else:
                self._spool.remove(spooled)

    def _forget(self, task: TaskId, but: tuple[str, ...]) -> None:
        """A disk without room forgets nothing: it is asked again."""
        loop = asyncio.get_running_loop()

        def told(done: "Future[None] | asyncio.Future[None]") -> None:
            if not done.cancelled() and done.exception() is not None and not self._closed:
                loop.call_soon_threadsafe(loop.call_later, _AGAIN_SECONDS, self._forget, task, but)

        if not self._closed:
            self._journal.forget(task, but=but).add_done_callback(told)

    def close(self) -> None:
        """The node stops: the next start forgets what is left."""
        self._closed = True

    def let_go(self, task: TaskId) -> None:
        """Let go of the answer too."""
        self.ended(task, None)

    @property
    def tasks(self) -> frozenset[TaskId]:
        """The tasks of which files lie here."""
        return frozenset(task for task, files in self._files.items() if files)

    # ── encoding ──

    def _encoded(self, task: TaskId, kept: Kept) -> bytes:
        from junto.node.locals import encode

        def place(content: Content) -> Place:
            return _placed(self.hold(task, content) if isinstance(content, bytes) else content)

        messages = tuple(_Message(made.name, made.to, place(made.content), made.sha256) for made in kept.messages)
        local = msgspec.Raw(encode(kept.local, place))
        return msgspec.msgpack.encode(_Kept(local, messages, kept.finished))

    def _decoded(self, task: TaskId, step: StepId, sealed: bytes) -> Kept:
        from junto.node.locals import decode

        kept = msgspec.msgpack.decode(self._spool.unseal(_label(task, step), sealed), type=_Kept)
        messages = tuple(Message(m.name, m.to, self._content(task, m.place), m.sha256) for m in kept.messages)
        local = decode(bytes(kept.local), lambda place: self._content(task, place), self._whole)
        return Kept(local, messages, kept.finished)

    def _whole(self, content: Content) -> bytes:
        if isinstance(content, Copy):
            raise PeerFault("a small output is not kept as a copy of a table")
        return content if isinstance(content, bytes) else b"".join(self._spool.read(content))

    def _content(self, task: TaskId, place: Place) -> Content:
        """The content in its place; a file counts as the task's again. Raises StorageFailed if it is gone."""
        match place:
            case Inline(data):
                return data
            case File(name, id, sha256, size):
                spooled = self._spool.found(name, id, sha256, size)
                if spooled not in self._files[task]:
                    self._files[task].append(spooled)
                return spooled
            case Copied(path, sha256, size):
                copy = Copy(Path(path), sha256, size)
                if not copy.path.exists():
                    raise StorageFailed("a copy of an open table made room for others")
                return copy


def _is_small(kept: Kept) -> bool:
    """True if an output is written down at once, without a disk: it lies in files already, with little besides."""
    if kept.local is not None and not isinstance(kept.local, Spooled | Copy):
        return False
    return sum(len(made.content) for made in kept.messages if isinstance(made.content, bytes)) <= INLINE_BYTES


def _placed(content: Content) -> Place:
    return Inline(content) if isinstance(content, bytes) else _on_disk(content)


def _on_disk(content: Spooled | Copy) -> File | Copied:
    if isinstance(content, Copy):
        return Copied(str(content.path), content.sha256, content.bytes)
    return File(content.path.name, content.id, content.sha256, content.bytes)


def _label(task: TaskId, name: str) -> bytes:
    """The label that a sealed output is bound to: it cannot stand in for another's."""
    return f"{task} {name}".encode()
