# SPDX-License-Identifier: Apache-2.0
"""The outputs that cross between parties while a task runs: each waits here for its one party, which pulls it.

An output is served to the party it was made for and to nobody else, and only while its task is open. A puller may come
before the output is there: its call waits, and its own deadline ends the wait.
"""

import asyncio
import hashlib
import re
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, assert_never

import msgspec

from junto.errors import Cancelled, DeadlineExceeded, PeerFault, StorageFailed, Unavailable
from junto.link import methods
from junto.link.connection import Link
from junto.node.cache import Copy
from junto.node.spool import Spool, Spooled
from junto.plan.steps import MaskedSum, Move, Plan, Threshold, parties_of
from junto.types import PartyId, StepId, TaskId

INLINE_BYTES = 1 << 20
"""Up to this size an output travels in the reply; beyond, it is streamed."""

PIECE_BYTES = 1 << 20
"""An output is streamed in pieces of this size."""

_REMEMBERED_TASKS = 1000
"""The number of ended tasks that are remembered, for work and pulls that come a moment too late."""
_PAUSE_SECONDS = 0.05
"""The pause between two attempts to reach a party whose link went down."""
_WAITED_FOR = 256
"""Outputs of one task that are not made yet and that one party may ask for at once."""
_NAME_CHARACTERS = 100


class Pull(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request for one output: of which task, step and run of it, under which name, from which byte on."""

    task: TaskId
    step: StepId
    name: str
    run: str = ""  # see `tasks/attempts.py`
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0


class Parcel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The reply: the output itself, or its size and digest if it is to be streamed."""

    sha256: bytes
    inline: bytes | None
    bytes: int


Content = bytes | Spooled | Copy


def check_pull(pull: Pull, plan: Plan, me: PartyId, to: PartyId) -> None:
    """Nothing, if the plan has `me` make such an output for `to`. Raises PeerFault."""
    step = next((step for step in plan.steps if step.id == pull.step), None)
    match step:
        case Move():
            meant = step.sender == me and to in step.to and pull.name == "rows"
        case Threshold() | MaskedSum():
            meant = {me, to} <= parties_of(step)
        case _:
            meant = False
    if not meant or max(len(pull.name), len(pull.run)) > _NAME_CHARACTERS or _RUN.fullmatch(pull.run) is None:
        raise PeerFault(f"{to} asks for an output of task {pull.task} that its plan does not have {me} make for it")


@dataclass(frozen=True, slots=True)
class _Output:
    content: Content
    sha256: bytes

    @property
    def bytes(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.bytes


_Address = tuple[StepId, str, str, PartyId]
_RUN = re.compile(r"(?:\d+(?:\.\d+)*)?", re.ASCII)


@dataclass(slots=True)
class _Slot:
    """An output that was made or is waited for, and by how many pulls."""

    future: asyncio.Future[_Output]
    pulls: int = 0


class Outbox:
    """The outputs of one node, by task. Files are the keeper's: it removes them when the task has ended."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._waiting: dict[TaskId, dict[_Address, _Slot]] = defaultdict(dict)
        self._dropped: deque[TaskId] = deque(maxlen=_REMEMBERED_TASKS)

    def put(
        self, task: TaskId, step: StepId, run: str, name: str, to: PartyId, content: Content, sha256: bytes
    ) -> None:
        """Make an output available to one party. Of a task that has ended, it is thrown away."""
        if task in self._dropped:
            return
        future = self._slot(task, (step, run, name, to)).future
        if not future.done():
            future.set_result(_Output(content, sha256))

    def made(self, task: TaskId, step: StepId, run: str) -> list[tuple[str, PartyId, Content, bytes]]:
        """The outputs that a run of a step has for others so far: name, for whom, content, SHA-256."""
        found: list[tuple[str, PartyId, Content, bytes]] = []
        for (of, of_run, name, to), slot in self._waiting.get(task, {}).items():
            future = slot.future
            if (of, of_run) == (step, run) and future.done() and not future.cancelled():
                output = future.result()
                found.append((name, to, output.content, output.sha256))
        return found

    def void(self, task: TaskId, step: StepId, run: str) -> None:
        """Every run of a step but this one was given up: forget its outputs, and tell those who wait for one."""
        slots = self._waiting.get(task, {})
        for address in [a for a in slots if a[0] == step and a[1] != run and _is_older(a[1], run)]:
            future = slots.pop(address).future
            if not future.done():
                future.set_exception(Unavailable(f"step {step} of task {task} begins anew"))
                future.exception()  # retrieved: nobody may be waiting

    async def parcel(self, pull: Pull, to: PartyId) -> Parcel:
        """The output asked for, once it is there."""
        output = await self._made(pull, to)
        held = output.content
        inline = held if isinstance(held, bytes) and len(held) <= INLINE_BYTES else None
        return Parcel(output.sha256, inline, output.bytes)

    async def read(self, pull: Pull, to: PartyId) -> AsyncIterator[bytes]:
        """The output's bytes from the offset on."""
        output = await self._made(pull, to)
        async for piece in self.pieces(output.content, pull.offset):
            yield piece

    async def pieces(self, content: Content, offset: int = 0) -> AsyncIterator[bytes]:
        """The bytes of an output; what lies on disk is read in a thread."""
        if isinstance(content, bytes):
            for start in range(offset, len(content), PIECE_BYTES):
                yield content[start : start + PIECE_BYTES]
            return
        match content:
            case Spooled():
                pieces = self._spool.read(content, offset)
            case Copy():
                pieces = _file_pieces(content.path, offset)
            case _:
                assert_never(content)
        while (piece := await asyncio.to_thread(_next, pieces)) is not None:
            yield piece

    def drop(self, task: TaskId, failure: StorageFailed | None = None) -> None:
        """The task has ended: forget its outputs, and tell those who wait for one, for want of a statement also why."""
        self._dropped.append(task)
        for slot in self._waiting.pop(task, {}).values():
            future = slot.future
            if not future.done():
                future.set_exception(failure or Cancelled(f"task {task} has ended"))
                future.exception()  # retrieved: nobody may be waiting

    async def _made(self, pull: Pull, to: PartyId) -> _Output:
        """The output, once it is there. An output that nobody waits for any more is forgotten."""
        address = (pull.step, pull.run, pull.name, to)
        slots = self._waiting.get(pull.task, {})
        if address not in slots:
            unmade = sum(of[3] == to and not slot.future.done() for of, slot in slots.items())
            if unmade >= _WAITED_FOR:
                raise PeerFault(f"{to} waits for {unmade} outputs of task {pull.task} at once; no plan has so many")
        slot = self._slot(pull.task, address)
        slot.pulls += 1
        try:
            return await asyncio.shield(slot.future)
        finally:
            slot.pulls -= 1
            slots = self._waiting.get(pull.task, {})
            if not slot.pulls and not slot.future.done() and slots.get(address) is slot:
                del slots[address]

    def _slot(self, task: TaskId, address: _Address) -> _Slot:
        if task in self._dropped:
            raise Cancelled(f"task {task} has ended")
        slots = self._waiting[task]
        if address not in slots:
            slots[address] = _Slot(asyncio.get_running_loop().create_future())
        return slots[address]


def _is_older(run: str, than: str) -> bool:
    """True if a run was given up for another: none of its numbers is greater."""
    if not run or not than:
        return not run
    return all(int(a) <= int(b) for a, b in zip(run.split("."), than.split("."), strict=False))


def _file_pieces(path: Path, offset: int) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while piece := file.read(PIECE_BYTES):
                yield piece
    except OSError as error:
        raise StorageFailed(f"the copy {path.name} is gone; ask again") from error


def _next(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)


Way = Callable[[float], Awaitable[Link]]
"""The open link to one party, waited for so many seconds at most. Raises Unavailable."""


class Remade(Unavailable):
    """The output was made anew, with other bytes, while it was fetched: what came so far is void."""


async def fetch(way: Way, pull: Pull, *, timeout_seconds: float) -> AsyncIterator[bytes]:
    """The pieces of one output of a party's. A link that goes down is waited for, and the bytes go on where they
    stopped. Raises what the party answered, PeerFault, at the end, if it is not what was announced; Remade if it is
    not the same output any more; Unavailable."""
    clock = asyncio.get_running_loop().time
    until = clock() + timeout_seconds
    digest = hashlib.sha256()
    size = 0
    parcel: Parcel | None = None
    while True:
        left = until - clock()
        link = await way(max(left, 0.0))
        try:
            again = await _parcel(link, pull, left)
            if parcel is not None and size and again.sha256 != parcel.sha256:
                raise Remade(f"step {pull.step} was made anew at {link.peer.party}")
            parcel = again
            async for piece in _pieces(link, pull, parcel, size, left):
                digest.update(piece)
                size += len(piece)
                if size > parcel.bytes:
                    break
                yield piece
            break
        except (DeadlineExceeded, Remade):
            raise
        except Unavailable:
            if clock() + _PAUSE_SECONDS >= until:
                raise
            await asyncio.sleep(_PAUSE_SECONDS)
    if size != parcel.bytes or digest.digest() != parcel.sha256:
        raise PeerFault(f"{link.peer.party} sent other bytes for step {pull.step} than it announced")


async def fetch_whole(way: Way, pull: Pull, *, timeout_seconds: float, most_bytes: int) -> bytes:
    """One output of a party's, in memory. Raises PeerFault if it is larger than `most_bytes`."""
    clock = asyncio.get_running_loop().time
    until = clock() + timeout_seconds
    while True:
        held: list[bytes] = []
        size = 0
        try:
            async for piece in fetch(way, pull, timeout_seconds=until - clock()):
                held.append(piece)
                size += len(piece)
                if size > most_bytes:
                    raise PeerFault(f"the output for step {pull.step} has more than {most_bytes} bytes")
        except Remade:
            continue
        return held[0] if len(held) == 1 else b"".join(held)


async def _parcel(link: Link, pull: Pull, seconds: float) -> Parcel:
    reply = await link.call(methods.PEER_PULL, msgspec.msgpack.encode(pull), timeout_seconds=seconds)
    try:
        return msgspec.msgpack.decode(reply, type=Parcel)
    except msgspec.MsgspecError as error:
        raise PeerFault(f"{link.peer.party} answered a pull of step {pull.step} with something else") from error


async def _pieces(link: Link, pull: Pull, parcel: Parcel, offset: int, seconds: float) -> AsyncIterator[bytes]:
    if parcel.inline is not None:
        yield parcel.inline[offset:]  # it may have been streamed when it was first asked for
        return
    request = msgspec.msgpack.encode(msgspec.structs.replace(pull, offset=offset))
    async for piece in link.stream(methods.PEER_READ, request, timeout_seconds=seconds):
        yield piece


def decode_pull(payload: bytes) -> Pull:
    """The request in `payload`. Raises PeerFault."""
    try:
        return msgspec.msgpack.decode(payload, type=Pull)
    except msgspec.MsgspecError as error:
        raise PeerFault("a pull names a task, a step, a run of it, an output and an offset") from error
