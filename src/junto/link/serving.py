# SPDX-License-Identifier: Apache-2.0
"""Answering what a peer asks over a link: one task per call or stream, ended exactly once."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from junto.errors import Cancelled, InvalidInput, JuntoError
from junto.link.events import CallArrived, NoticeArrived, StreamAsked
from junto.link.frames import PIECE_BYTES, PIECE_COST_BYTES
from junto.link.session import Session
from junto.logs import logger
from junto.trust.names import Name

if TYPE_CHECKING:
    from junto.link.connection import Link

_log = logger("junto.link")
_TURN_BYTES = 256 * 1024  # streams send as much before other work gets a turn


class Caller(msgspec.Struct, frozen=True, gc=False):
    """The asker of a call, the link it came over, and its deadline. `name` is what the certificate proved."""

    name: Name
    method: str
    deadline: float
    trace: str
    link: "Link"

    @property
    def remaining_seconds(self) -> float:
        """The seconds that the caller still waits."""
        return max(0.0, self.deadline - time.monotonic())


Answer: TypeAlias = bytes | AsyncIterator[bytes]
Handler: TypeAlias = Callable[[Caller, bytes], Awaitable[Answer]]
"""Answers a call with bytes, or a stream with an iterator of pieces. A JuntoError crosses as code and message,
anything else as "internal" without a word. Cancelled when the caller cancels or its time is over."""


@dataclass(frozen=True, slots=True)
class Outlet:
    """The ways in which an answer leaves: at once, at the end of this turn of the loop, and when there is room."""

    flush: Callable[[], None]
    flush_soon: Callable[[], None]
    room: Callable[[], Awaitable[None]]


class Serving:
    """The calls of one peer that are not yet answered."""

    def __init__(
        self, link: "Link", peer: Name, session: Session, handlers: Mapping[str, Handler], outlet: Outlet
    ) -> None:
        self._link = link
        self._peer = peer
        self._session = session
        self._handlers = handlers
        self._outlet = outlet
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._notices: set[asyncio.Task[None]] = set()
        self._credit: dict[int, asyncio.Future[None]] = {}
        self._unyielded = 0

    @property
    def under_way(self) -> list[asyncio.Task[None]]:
        """The calls and streams being answered."""
        return list(self._tasks.values())

    def start(self, event: CallArrived | StreamAsked) -> None:
        """Answer a call or stream."""
        self._tasks[event.id] = self._loop.create_task(self._serve(event))

    def drop(self, served_id: int) -> None:
        """Stop working on what is no longer wanted."""
        task = self._tasks.get(served_id)
        if task is not None:
            task.cancel()

    def credit_arrived(self, stream_id: int) -> None:
        """A stream can go on."""
        waiter = self._credit.get(stream_id)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def notice(self, event: NoticeArrived) -> None:
        """Take a notice, unless as many as calls are allowed are under way."""
        if len(self._notices) >= self._session.settings.calls:
            self._session.taken(len(event.payload))
            _log.warning("notice dropped", peer=str(self._peer), method=event.method)
            return
        task = self._loop.create_task(self._take_notice(event))
        self._notices.add(task)
        task.add_done_callback(self._notices.discard)

    def stop(self) -> None:
        """Cancel everything: nobody is there to hear it."""
        for task in (*self._tasks.values(), *self._notices):
            task.cancel()

    async def _serve(self, event: CallArrived | StreamAsked) -> None:
        session = self._session
        try:
            handler = self._handlers.get(event.method)
            if handler is None:
                raise InvalidInput(f"no method {event.method!r} here: do both nodes run the same version?")
            caller = Caller(self._peer, event.method, event.deadline, event.trace, self._link)
            answer = await handler(caller, event.payload)
            if isinstance(event, StreamAsked):
                await self._send_all(event.id, answer)
                session.end(event.id)
            elif isinstance(answer, bytes):
                session.reply(event.id, answer)
            else:
                raise InvalidInput(f"{event.method!r} answers with a stream: open one")
        except JuntoError as error:
            self._fail(event.id, error.code, str(error))
        except asyncio.CancelledError:
            self._fail(event.id, Cancelled.code, "the work was cancelled here")
            raise
        except Exception as error:  # noqa: BLE001  whatever a handler raises, the peer hears one word
            _log.exception("handler failed", peer=str(self._peer), method=event.method, error=type(error).__name__)
            self._fail(event.id, JuntoError.code, "")
        finally:
            del self._tasks[event.id]
            if self._tasks:
                self._outlet.flush_soon()
            else:
                self._outlet.flush()  # nothing to send it together with

    def _fail(self, served_id: int, code: str, message: str) -> None:
        if self._session.serves(served_id):
            self._session.fail(served_id, code, message)

    async def _send_all(self, stream_id: int, answer: Answer) -> None:
        if isinstance(answer, bytes):
            await self._send(stream_id, answer)
            return
        try:
            async for piece in answer:
                await self._send(stream_id, piece)
        finally:
            if isinstance(answer, AsyncGenerator):
                await answer.aclose()

    async def _send(self, stream_id: int, piece: bytes) -> None:
        session = self._session
        for at in range(0, len(piece), PIECE_BYTES):
            part = piece if len(piece) <= PIECE_BYTES else piece[at : at + PIECE_BYTES]
            while session.credit(stream_id) < len(part):
                waiter = self._credit[stream_id] = self._loop.create_future()
                try:
                    await waiter
                finally:
                    del self._credit[stream_id]
            await self._outlet.room()
            self._unyielded += len(part) + PIECE_COST_BYTES
            if self._unyielded > _TURN_BYTES:
                self._unyielded = 0
                await asyncio.sleep(0)  # other work gets its turn, however fast the pieces come
            session.send(stream_id, part)
            self._outlet.flush_soon()

    async def _take_notice(self, event: NoticeArrived) -> None:
        seconds = self._session.settings.silent_seconds
        caller = Caller(self._peer, event.method, time.monotonic() + seconds, event.trace, self._link)
        try:
            handler = self._handlers.get(event.method)
            if handler is None:
                _log.warning("notice of an unknown method", peer=str(self._peer), method=event.method)
                return
            async with asyncio.timeout(seconds):
                await handler(caller, event.payload)
        except Exception as error:  # noqa: BLE001  a notice has nobody to tell of its failure
            _log.warning("notice failed", peer=str(self._peer), method=event.method, error=type(error).__name__)
        finally:
            self._session.taken(len(event.payload))
