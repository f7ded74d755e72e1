# SPDX-License-Identifier: Apache-2.0
"""Delivers our statements to other parties: in order per party, together when several wait, again until they expire.

The receiver's journal drops what it already holds, so a delivery that was answered too late does no harm. A statement
that a party refuses is not sent again; whoever handed it in may ask to be told. Where our journal takes no statement,
the bare word that a task has ended here goes the same way, after the statements before it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import islice

import msgspec

from junto.errors import JuntoError, Lack, StorageFailed, Unavailable
from junto.link import methods
from junto.link.links import Links
from junto.logs import logger
from junto.types import PartyId, TaskId

_log = logger("junto.courier")
_BATCH_BYTES = 2 << 20
_PAUSE_SECONDS = 0.2
_FULL_PAUSE_SECONDS = 1.0  # before another attempt at a party that has no room

Refused = Callable[[PartyId, JuntoError], None]
"""A callback that hears which party did not take a statement in, and why."""


class Unrecorded(methods.Message, frozen=True):
    """A participant's word that a task has ended there, and that its journal cannot take the statement that says so."""

    task: TaskId
    lack: Lack


@dataclass(frozen=True, slots=True)
class _Letter:
    envelope: bytes  # or the body of a call of its own
    expires: float  # monotonic seconds
    refused: Refused | None = None
    method: str = methods.PEER_TELL


class Courier:
    """One queue and one carrier per party."""

    def __init__(
        self,
        links: Links,
        *,
        clock: Callable[[], float] | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._links = links
        self._clock = clock or asyncio.get_running_loop().time
        self._pause = pause
        self._queues: dict[PartyId, deque[_Letter]] = {}
        self._carriers: dict[PartyId, asyncio.Task[None]] = {}

    def send(self, envelope: bytes, to: tuple[PartyId, ...], seconds: float, refused: Refused | None = None) -> None:
        """Deliver a durable statement; after `seconds` it is given up. `refused` hears of a party that will not."""
        for party in to:
            self._post(party, _Letter(envelope, self._clock() + seconds, refused))

    def send_unrecorded(self, task: TaskId, lack: Lack, to: tuple[PartyId, ...], seconds: float) -> None:
        """Tell parties that a task has ended here for want of a statement; after `seconds` it is given up."""
        word = msgspec.msgpack.encode(Unrecorded(task, lack))
        for party in to:
            self._post(party, _Letter(word, self._clock() + seconds, method=methods.PEER_UNRECORDED))

    def _post(self, party: PartyId, letter: _Letter) -> None:
        self._queues.setdefault(party, deque()).append(letter)
        carrier = self._carriers.get(party)
        if carrier is None or carrier.done():
            self._carriers[party] = asyncio.create_task(self._carry(party))

    async def flush(self, seconds: float) -> None:
        """Wait until everything is delivered, `seconds` at most."""
        running = [c for c in self._carriers.values() if not c.done()]
        if running:
            await asyncio.wait(running, timeout=seconds)

    async def close(self) -> None:
        """Stop carrying; what is undelivered stays in the journal."""
        for carrier in self._carriers.values():
            carrier.cancel()
        await asyncio.gather(*self._carriers.values(), return_exceptions=True)

    async def _carry(self, party: PartyId) -> None:
        queue = self._queues[party]
        alone = 0  # so many go one by one: some of them was refused
        while queue:
            now = self._clock()
            while queue and queue[0].expires <= now:
                queue.popleft()
                _log.warning("a statement was not delivered in time", party=party)
            batch = _batch(queue, 1 if alone else len(queue))
            if not batch:
                continue
            patience = max(letter.expires for letter in batch) - now
            try:
                link = await self._links.to(party, patience)
                method = batch[0].method
                body = batch[0].envelope if method != methods.PEER_TELL else _told(batch)
                await link.call(method, body, timeout_seconds=min(patience, 30.0))
            except Unavailable:
                await self._pause(_PAUSE_SECONDS)
                continue
            except StorageFailed as error:
                # It may have room before they expire. Who must know now is told, and does not go on with it.
                for _ in batch:
                    queue.popleft()
                queue.extendleft(letter for letter in reversed(batch) if letter.refused is None)
                for letter in batch:
                    _refuse(letter, party, error)
                await self._pause(_FULL_PAUSE_SECONDS)
                continue
            except JuntoError as error:
                if len(batch) > 1:
                    alone = len(batch)
                    continue
                _refuse(batch[0], party, error)
            for _ in batch:
                queue.popleft()
            alone = max(0, alone - 1)


def _refuse(letter: _Letter, party: PartyId, error: JuntoError) -> None:
    _log.warning("a statement was not accepted", party=party, code=error.code, reason=str(error))
    if letter.refused is not None:
        letter.refused(party, error)


def _told(batch: list[_Letter]) -> bytes:
    return msgspec.msgpack.encode(methods.Envelopes(tuple(letter.envelope for letter in batch)))


def _batch(queue: deque[_Letter], most: int) -> list[_Letter]:
    batch: list[_Letter] = []
    size = 0
    for letter in islice(queue, most):
        size += len(letter.envelope)
        if batch and (size > _BATCH_BYTES or letter.method != methods.PEER_TELL):
            break
        batch.append(letter)
        if letter.method != methods.PEER_TELL:
            break
    return batch
