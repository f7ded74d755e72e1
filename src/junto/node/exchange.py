# SPDX-License-Identifier: Apache-2.0
"""What crosses between parties while a task runs: each output waits here for the one party it is for, which pulls it.

An output is served to the party it was made for and to nobody else, and only while its task is open. A puller may come
before the output is there: its call waits, and its own deadline ends the wait.
"""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import msgspec
from junto.link.connection import Link

from junto.errors import Cancelled, PeerFault
from junto.node.spool import Spool, Spooled
from junto.types import PartyId, StepId, TaskId

INLINE_BYTES = 1 << 20
"""Up to this size an output travels in the reply; beyond, it is spooled and streamed."""


class Pull(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request for one output: of which task and step, under which name, from which byte on."""

    task: TaskId
    step: StepId
    name: str
    offset: int = 0


class Parcel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The reply: the output itself, or its size and digest if it is to be streamed."""

    bytes: int
    sha256: bytes
    inline: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Output:
    content: bytes | Spooled
    sha256: bytes

    @property
    def bytes(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.bytes


_Address = tuple[StepId, str, PartyId]


class Outbox:
    """The outputs of one node, by task."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._waiting: dict[TaskId, dict[_Address, asyncio.Future[_Output]]] = defaultdict(dict)

    def put(self, task: TaskId, step: StepId, name: str, to: PartyId, content: bytes | Spooled, sha256: bytes) -> None:
        """Make an output available to one party."""
        future = self._slot(task, (step, name, to))
        if not future.done():
            future.set_result(_Output(content, sha256))

    async def parcel(self, pull: Pull, to: PartyId) -> Parcel:
        """The output asked for, once it is there."""
        output = await asyncio.shield(self._slot(pull.task, (pull.step, pull.name, to)))
        inline = output.content if isinstance(output.content, bytes) else None
        return Parcel(output.bytes, output.sha256, inline)

    async def read(self, pull: Pull, to: PartyId) -> AsyncIterator[bytes]:
        """The output's bytes from the offset on."""
        output = await asyncio.shield(self._slot(pull.task, (pull.step, pull.name, to)))
        if isinstance(output.content, bytes):
            yield output.content[pull.offset :]
            return
        pieces = self._spool.read(output.content, pull.offset)
        while (piece := await asyncio.to_thread(_next, pieces)) is not None:
            yield piece

    def drop(self, task: TaskId) -> None:
        """The task has ended: forget its outputs, and tell those who wait for one."""
        for future in self._waiting.pop(task, {}).values():
            if not future.done():
                future.set_exception(Cancelled(f"task {task} has ended"))
                future.exception()  # retrieved: nobody may be waiting
            elif isinstance(future.result().content, Spooled):
                self._spool.remove(future.result().content)

    def _slot(self, task: TaskId, address: _Address) -> asyncio.Future[_Output]:
        slots = self._waiting[task]
        if address not in slots:
            slots[address] = asyncio.get_running_loop().create_future()
        return slots[address]


def _next(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)


async def fetch(link: Link, pull: Pull, *, timeout_seconds: float, most_bytes: int) -> bytes:
    """One output of the peer's, whole, its digest checked. Raises PeerFault if it is not what was announced."""
    reply = await link.call("exchange.pull", msgspec.msgpack.encode(pull), timeout_seconds=timeout_seconds)
    try:
        parcel = msgspec.msgpack.decode(reply, type=Parcel)
    except msgspec.MsgspecError as error:
        raise PeerFault(f"{link.peer.party} answered a pull of step {pull.step} with something else") from error
    if parcel.bytes > most_bytes:
        raise PeerFault(f"{link.peer.party} offers {parcel.bytes} bytes for step {pull.step}; at most {most_bytes}")
    if parcel.inline is not None:
        content = parcel.inline
    else:
        held = bytearray()
        request = msgspec.msgpack.encode(pull)
        async for piece in link.stream("exchange.read", request, timeout_seconds=timeout_seconds):
            held += piece
            if len(held) > parcel.bytes:
                break
        content = bytes(held)
    if len(content) != parcel.bytes or hashlib.sha256(content).digest() != parcel.sha256:
        raise PeerFault(f"{link.peer.party} sent other bytes for step {pull.step} than it announced")
    return content


def decode_pull(payload: bytes) -> Pull:
    """The request in `payload`. Raises PeerFault."""
    try:
        return msgspec.msgpack.decode(payload, type=Pull)
    except msgspec.MsgspecError as error:
        raise PeerFault("a pull names a task, a step, an output and an offset") from error
