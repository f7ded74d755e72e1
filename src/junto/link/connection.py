# SPDX-License-Identifier: Apache-2.0
"""A link: a session driven by asyncio over TLS, with calls, notices and streams as coroutines.

Writes are gathered over one turn of the loop; reads go straight into the session's buffer. One timer serves
all deadlines: it is set to the earliest, and a call only moves it when it is due sooner.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, assert_never, cast

from junto.errors import (
    DeadlineExceeded,
    JuntoError,
    PeerFault,
    Refused,
    Unavailable,
    error_from_code,
)
from junto.link import events
from junto.link.frames import Hello
from junto.link.serving import Answer, Caller, Handler, Outlet, Serving
from junto.link.session import TIME_PASSED, Session
from junto.link.settings import LinkSettings
from junto.link.tls import ALPN, VerifyPeer, in_plain_words
from junto.trust.names import Name
from junto.types import PartyId

__all__ = ["Answer", "Caller", "Handler", "Link", "Opening"]

_JOIN_BYTES = 128 * 1024  # pieces smaller than this are written together


@dataclass(frozen=True, slots=True)
class Opening:
    """The needs of a connection to become a link, and the party that it must reach when it dials."""

    greet: Callable[[], Hello]
    verify_peer: VerifyPeer
    handlers: Mapping[str, Handler]
    settings: LinkSettings
    address: str
    expected: PartyId | None = None
    unix_time: Callable[[], float] = time.time


_ForServing: TypeAlias = (
    events.CallArrived | events.StreamAsked | events.CreditArrived | events.Dropped | events.NoticeArrived
)


class Link(asyncio.BufferedProtocol):
    """One authenticated connection to a peer. Made by `Links` and `dial`; usable once `opened` is done.

    `closed` is done, with the reason, once the link is of no more use; `gone` once the socket is closed too.
    """

    def __init__(self, opening: Opening, *, dialled: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._opening = opening
        self._serving: Serving | None = None
        self.address = opening.address
        self.dialled = dialled
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self.closed: asyncio.Future[str] = self._loop.create_future()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self.bytes_in = 0
        self.bytes_out = 0
        self.clock_ahead_seconds = 0.0
        self._connected = False
        self.name: Name | None = None  # known once its certificate proved it
        self._successor: Link | None = None
        self._reason = ""
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._incoming: dict[int, _Incoming] = {}
        self._room: deque[asyncio.Future[None]] = deque()
        self._paused = False
        self._ending = False
        self._flush_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._armed_at = float("inf")
        self._pongs: list[asyncio.Future[float]] = []

    # ── what callers use ──

    @property
    def peer(self) -> Name:
        """The name of the peer, as its certificate proved."""
        if self.name is None:
            raise Unavailable(f"{self.address} has not proven who it is")
        return self.name

    @property
    def hello(self) -> Hello | None:
        """The Hello by which the peer introduced itself; None before it came."""
        return self._session.peer

    @property
    def is_open(self) -> bool:
        """True if new calls may go out on this connection."""
        return self._connected and self._session.state == "open" and not self._session.draining

    @property
    def round_trip_seconds(self) -> float | None:
        """The seconds that the last sign of life took."""
        return self._session.round_trip_seconds

    async def call(self, method: str, payload: bytes = b"", *, timeout_seconds: float, trace: str = "") -> bytes:
        """The peer's answer. At most once: an error leaves open whether the peer acted.

        Raises DeadlineExceeded, Unavailable (the link is or went down), InvalidInput (payload too large: stream
        it), and whatever error the peer's handler raised.
        """
        if self._successor is not None:
            return await self._successor.call(method, payload, timeout_seconds=timeout_seconds, trace=trace)
        now = time.monotonic()
        deadline = now + timeout_seconds
        session = self._session
        if self._paused or not session.has_room:
            await self._await_room(method, timeout_seconds)
            now = time.monotonic()
        call_id = session.call(method, payload, deadline, now, trace)
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting[call_id] = future
        if len(self._waiting) == 1:
            self._flush()  # nothing to send it together with
        else:
            self._flush_soon()
        try:
            return await future
        except _Expired:
            raise self._late(method, timeout_seconds) from None
        except asyncio.CancelledError:
            session.cancel(call_id)
            self._flush_soon()
            raise
        finally:
            self._waiting.pop(call_id, None)

    def notify(self, method: str, payload: bytes = b"", *, trace: str = "") -> None:
        """Tell the peer something; nothing comes back, and it may be lost. Raises Unavailable, InvalidInput."""
        if self._successor is not None:
            self._successor.notify(method, payload, trace=trace)
            return
        self._session.notify(method, payload, trace)
        self._flush_soon()

    async def stream(
        self, method: str, payload: bytes = b"", *, timeout_seconds: float, trace: str = ""
    ) -> AsyncGenerator[bytes, None]:
        """The pieces of the peer's answer, at the pace they are taken; `timeout_seconds` is for the whole stream.

        A piece of up to 1 MiB arrives as the handler gave it; a larger one arrives in several. Leaving the loop
        early cancels the rest. Raises as `call` does.
        """
        if self._successor is not None:
            async for piece in self._successor.stream(method, payload, timeout_seconds=timeout_seconds, trace=trace):
                yield piece
            return
        session = self._session
        now = time.monotonic()
        stream_id = session.open_stream(method, payload, now + timeout_seconds, now, trace)
        incoming = self._incoming[stream_id] = _Incoming(self._loop)
        self._flush_soon()
        try:
            while True:
                taken = await incoming.next()
                if taken is None:
                    return
                yield taken
                session.grant(stream_id, len(taken))
                self._flush_soon()
        except _Expired:
            raise self._late(method, timeout_seconds) from None
        finally:
            del self._incoming[stream_id]
            session.cancel(stream_id)
            self._flush_soon()

    async def ping(self, timeout_seconds: float) -> float:
        """The seconds that a sign of life took. Raises DeadlineExceeded, Unavailable."""
        if self._successor is not None:
            return await self._successor.ping(timeout_seconds)
        if self._session.state != "open":
            raise Unavailable(f"the link to {self._who()} is {self._session.state}")
        pong: asyncio.Future[float] = self._loop.create_future()
        self._pongs.append(pong)
        self._session.ping(time.monotonic())
        self._flush_soon()
        try:
            async with asyncio.timeout(timeout_seconds):
                return await pong
        except TimeoutError:
            raise DeadlineExceeded(f"{self._who()}: no sign of life within {timeout_seconds:g} s") from None
        except Unavailable:
            if self._successor is None:
                raise
            return await self._successor.ping(timeout_seconds)  # it was replaced in between

    def retire(self, successor: "Link") -> None:
        """Send further calls over `successor`; close once what is under way here has ended on both sides."""
        self._successor = successor
        self._session.drain()
        self._loop.call_later(self._opening.settings.drain_seconds, self.abort, "was replaced by another link")
        self._settle()

    async def close(self, reason: str = "the node is stopping", *, grace_seconds: float = 0.0) -> None:
        """Ask nothing more, finish what is under way within the grace, then hang up."""
        if not self._connected:
            return
        if not self.closed.done() and self._session.state == "open":
            self._session.drain()
            self._flush_soon()
            if grace_seconds > 0 and not self._session.idle:
                pending: list[asyncio.Future[None] | asyncio.Future[bytes]]
                pending = [*self._waiting.values()]
                if self._serving is not None:
                    pending += self._serving.under_way
                if pending:
                    await asyncio.wait(pending, timeout=grace_seconds)
        self._end(reason, Unavailable.code)
        await self.gone

    def abort(self, reason: str) -> None:
        """Hang up now."""
        if self._connected and not self.gone.done():
            self._end(reason, Unavailable.code)
            self._transport.abort()

    # ── what the event loop calls ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The TLS handshake succeeded: find out who this is."""
        self._transport = wire = cast(asyncio.Transport, transport)
        self._connected = True
        opening = self._opening
        tls: ssl.SSLObject = wire.get_extra_info("ssl_object")
        refusal: JuntoError | None = None
        try:
            if tls.selected_alpn_protocol() != ALPN:
                raise PeerFault(f"{self.address} does not speak {ALPN}: not a Junto node")
            leaf = tls.getpeercert(binary_form=True)
            if not leaf:
                raise Refused(f"{self.address} showed no certificate")
            self.name = opening.verify_peer(leaf)
            if opening.expected is not None and self.name.party != opening.expected:
                raise Refused(
                    f"{self.address} answers as {self.name}, not {opening.expected}: "
                    "the charter's address leads to the wrong node"
                )
        except JuntoError as error:
            refusal = error
        uri = self.name.uri if self.name is not None else ""
        self._session = Session(opening.greet(), uri, opening.settings, time.monotonic())
        wire.set_write_buffer_limits(high=1024 * 1024)
        if self.name is None or refusal is not None:
            refusal = refusal or Refused(f"{self.address} has no name")
            self._session.refuse(refusal.code, str(refusal))
            self._end(str(refusal), refusal.code)
            return
        outlet = Outlet(self._flush, self._flush_soon, self._writable)
        self._serving = Serving(self, self.name, self._session, opening.handlers, outlet)
        self._flush()
        self._arm()

    def get_buffer(self, sizehint: int) -> memoryview:
        """The buffer for arriving bytes."""
        return self._session.space()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have arrived."""
        self.bytes_in += nbytes
        for event in self._session.received(nbytes, time.monotonic()):
            self._handle(event)
        self._settle()

    def pause_writing(self) -> None:
        """The peer reads more slowly than we write."""
        self._paused = True

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._paused = False
        self._wake_room()

    def eof_received(self) -> None:
        """The peer sends nothing more; the transport closes itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: end all that waits for it."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._reason:
            self._reason = (
                in_plain_words(exc, self.address) if exc is not None else f"{self._who()} closed the connection"
            )
        self._session.state = "closed"
        self._over(Unavailable(self._reason))
        self.gone.set_result(None)

    # ── events of the session ──

    def _handle(self, event: events.Event) -> None:
        match event:
            case events.ReplyArrived():
                future = self._waiting.get(event.id)
                if future is not None and not future.done():
                    future.set_result(event.payload)
                self._wake_room()
            case events.ErrorArrived():
                late = event.code == DeadlineExceeded.code and event.message == TIME_PASSED
                self._fail_asked(event.id, _Expired() if late else error_from_code(event.code, event.message))
                self._wake_room()
            case events.WaitExpired():
                self._fail_asked(event.id, _Expired())
            case events.StreamDataArrived():
                if event.id in self._incoming:
                    self._incoming[event.id].put(event.payload)
            case events.StreamEnded():
                if event.id in self._incoming:
                    self._incoming[event.id].put(None)
            case events.PongArrived():
                for pong in self._pongs:
                    if not pong.done():
                        pong.set_result(event.seconds)
                self._pongs.clear()
            case events.HelloArrived():
                self.clock_ahead_seconds = event.hello.unix_seconds - self._opening.unix_time()
                if not self.opened.done():
                    self.opened.set_result(None)
            case events.PeerDrains():
                pass  # `_settle` looks at it
            case events.LinkEnded():
                self._link_ended(event)
            case _:
                self._serve(event)

    def _serve(self, event: _ForServing) -> None:
        serving = self._serving
        if serving is None:
            return
        match event:
            case events.CallArrived() | events.StreamAsked():
                serving.start(event)
            case events.CreditArrived():
                serving.credit_arrived(event.id)
            case events.Dropped():
                serving.drop(event.id)
            case events.NoticeArrived():
                serving.notice(event)
            case _:
                assert_never(event)

    def _link_ended(self, event: events.LinkEnded) -> None:
        says = f"{self._who()} says: " if event.by_peer else ""
        self._end(says + event.message, event.code)

    # ── sending ──

    def _flush_soon(self) -> None:
        """Send at the end of this turn of the loop, together with whatever else it produces."""
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        out = self._session.outgoing()
        if out and not self._transport.is_closing():
            if len(out) == 1:
                self.bytes_out += len(out[0])
                self._transport.write(out[0])
            else:
                self._write(out)
            too_much = self._transport.get_write_buffer_size() > self._opening.settings.unsent_bytes
            if self._paused and too_much and not self._ending:
                self.abort(f"{self._who()} does not read: {self._opening.settings.unsent_bytes:,} bytes wait")
        if self._session.wake_at < self._armed_at:
            self._arm()

    def _write(self, out: list[bytes]) -> None:
        small: list[bytes] = []
        for piece in out:
            self.bytes_out += len(piece)
            if len(piece) < _JOIN_BYTES:
                small.append(piece)
                continue
            if small:
                self._transport.write(b"".join(small))
                small = []
            self._transport.write(piece)
        if small:
            self._transport.write(b"".join(small))

    async def _wait_for_room(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._room.append(waiter)
        await waiter

    async def _writable(self) -> None:
        while self._paused:
            await self._wait_for_room()

    async def _await_room(self, method: str, timeout_seconds: float) -> None:
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._session.state == "open" and (self._paused or not self._session.has_room):
                    await self._wait_for_room()
        except TimeoutError:
            raise self._late(method, timeout_seconds) from None

    def _wake_room(self) -> None:
        while self._room:
            waiter = self._room.popleft()
            if not waiter.done():
                waiter.set_result(None)

    # ── time and ends ──

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_at = self._session.wake_at
        self._timer = self._loop.call_later(max(0.0, self._armed_at - time.monotonic()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._armed_at = float("inf")
        for event in self._session.tick(time.monotonic()):
            self._handle(event)
        self._flush()
        self._settle()

    def _settle(self) -> None:
        """Send what came of it, and hang up when both sides are done here."""
        self._flush()
        session = self._session
        if session.draining and session.peer_draining and session.idle and session.state == "open":
            self._end("was replaced by another link", Unavailable.code)

    def _end(self, reason: str, code: str) -> None:
        if self.closed.done() or self._ending:
            return
        self._ending = True
        self._reason = reason
        self._session.close(code, reason)
        self._flush()
        self._over(error_from_code(code, reason))
        self._transport.close()

    def _over(self, error: JuntoError) -> None:
        """Nothing more will come of this link: end all that waits for it, and all that works for it."""
        if not self.opened.done():
            self._fail_opening(error)
        self._fail_waiting()
        if self._serving is not None:
            self._serving.stop()
        if not self.closed.done():
            self.closed.set_result(self._reason)

    def _fail_opening(self, error: JuntoError) -> None:
        self.opened.set_exception(error)
        self.opened.exception()  # whoever dials awaits it; nobody does on the accepting side

    def _fail_waiting(self) -> None:
        for asked_id in (*self._waiting, *self._incoming):
            self._fail_asked(asked_id, Unavailable(f"the link to {self._who()} went down: {self._reason}"))
        for pong in self._pongs:
            if not pong.done():
                pong.set_exception(Unavailable(f"the link to {self._who()} went down: {self._reason}"))
        self._pongs.clear()
        self._wake_room()

    def _fail_asked(self, asked_id: int, error: Exception) -> None:
        future = self._waiting.get(asked_id)
        if future is not None and not future.done():
            future.set_exception(error)
        elif asked_id in self._incoming:
            self._incoming[asked_id].fail(error)

    def _late(self, method: str, timeout_seconds: float) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self._who()} did not answer {method} within {timeout_seconds:g} s")

    def _who(self) -> str:
        return str(self.name) if self.name is not None else self.address


class _Expired(Exception):
    """A wait of ours passed its deadline."""


class _Incoming:
    """Pieces of a stream that arrived and were not taken yet; credits bound them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pieces: deque[bytes | None] = deque()
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, piece: bytes | None) -> None:
        self._pieces.append(piece)
        self._wake()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._wake()

    async def next(self) -> bytes | None:
        """The next piece, or None at the end. Pieces that arrived before an error come first."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._pieces.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
