# SPDX-License-Identifier: Apache-2.0
"""One side of a link: frames and local wishes in, bytes and events out. No clock, no socket.

Three small machines, their legal moves in `moves.py`:

    the link     greeting → open → closed          each side sends one Hello first
    asked        a call or stream of ours          the peer ends it exactly once, also after our Cancel
    served       a call or stream of the peer's    we end it exactly once, also after its Cancel

Each side numbers what it asks upwards from 1, so the two sides' ids never mix. Only two races exist: our
answer crosses the peer's Cancel or credit (they name an exchange that is gone, and are ignored), and the
peer's answer crosses our Cancel (it ends the exchange, and is dropped). Any other frame that the table
does not list is the peer's fault and closes the link.

`now` is any clock that only goes forward, in seconds; `wake_at` says when `tick` is due.
"""

from typing import Final

import msgspec

from junto.errors import Cancelled, DeadlineExceeded, InvalidInput, InvalidTransition, PeerFault, Unavailable
from junto.link import frames
from junto.link.events import (
    CallArrived,
    CreditArrived,
    Dropped,
    ErrorArrived,
    Event,
    HelloArrived,
    LinkEnded,
    NoticeArrived,
    PeerDrains,
    PongArrived,
    ReplyArrived,
    StreamAsked,
    StreamDataArrived,
    StreamEnded,
    WaitExpired,
)
from junto.link.frames import (
    Call,
    Cancel,
    Drain,
    Error,
    Header,
    Hello,
    Notice,
    Ping,
    Pong,
    Reply,
    StreamCredit,
    StreamData,
    StreamEnd,
    StreamOpen,
)
from junto.link.greeting import difference
from junto.link.moves import ASKED_MOVES, LINK_MOVES, SERVED_MOVES, AskedState, LinkState, ServedState
from junto.link.settings import LinkSettings

NOTICE = "notice."
"""The beginning of the names of methods that take notices; others answer calls or streams."""

TIME_PASSED = "the time that the caller gave has passed"
"""A peer's answer to a call whose time is over, if its clock rings before the caller's."""

_SEPARATE_BYTES: Final = 32 * 1024  # payloads from this size on are not copied into a frame
_STALL_SECONDS: Final = 2.0  # a tick so late says that we stood still, not the peer
_CREDIT_BYTES: Final = 2**40  # no stream may be owed more


class _Asked(msgspec.Struct, gc=False):
    """A call or stream of ours, until the peer ended it."""

    state: AskedState
    deadline: float
    credit: int = 0  # bytes that the peer may still send
    used: int = 0  # bytes used here that the peer has not been told of


class _Served(msgspec.Struct, gc=False):
    """A call or stream of the peer's, until we ended it."""

    state: ServedState
    deadline: float
    held: int  # bytes of its payload
    credit: int = 0  # bytes that we may still send


class Session:
    """One side of a link. The driver reads into `space()`, reports with `received`, sends `outgoing()`."""

    def __init__(self, hello: Hello, peer_name: str, settings: LinkSettings, now: float) -> None:
        """`peer_name` is the name that the peer's certificate has proven; its Hello must give the same."""
        self.hello = hello
        self.peer_name = peer_name
        self.settings = settings
        self.state: LinkState = "greeting"
        self.peer: Hello | None = None
        self.draining = False
        self.peer_draining = False
        self.round_trip_seconds: float | None = None
        self.wake_at = self._greet_by = now + settings.connect_seconds
        self._decoder = frames.Decoder(frames.GREETING_BYTES)
        self._out: list[bytes] = [frames.encode(hello)]
        self._asked: dict[int, _Asked] = {}
        self._served: dict[int, _Served] = {}
        self._last_asked = self._last_served = 0
        self._streams_asked = self._streams_served = 0
        self._held_bytes = 0
        self._heard = now
        self._ping_at = now + settings.ping_seconds
        self._pings: dict[int, float] = {}
        self._last_ping = 0

    @property
    def closed(self) -> bool:
        """True if the link is over."""
        return self.state == "closed"

    # ── bytes ──

    def space(self) -> memoryview:
        """The room for the next arriving bytes; never empty."""
        return self._decoder.space()

    def received(self, count: int, now: float) -> list[Event]:
        """Absorb the `count` bytes just written into `space()`; say what happened."""
        events: list[Event] = []
        if self.closed:
            return events
        self._heard = now
        try:
            for header, payload in self._decoder.received(count):
                self._absorb(header, payload, now, events)
                if self.closed:
                    return events
            if self._decoder.fault:
                raise PeerFault(self._decoder.fault)
        except PeerFault as fault:
            self._break(PeerFault.code, str(fault), events)
        return events

    def receive(self, data: bytes, now: float) -> list[Event]:
        """`space` and `received` in one, for bytes that are already here."""
        events: list[Event] = []
        at = 0
        while at < len(data) and not self.closed:
            space = self.space()
            piece = data[at : at + len(space)]
            space[: len(piece)] = piece
            at += len(piece)
            events += self.received(len(piece), now)
        return events

    def outgoing(self) -> list[bytes]:
        """The bytes to send now, in order; each piece is handed out once."""
        out, self._out = self._out, []
        return out

    # ── what we ask ──

    @property
    def has_room(self) -> bool:
        """True if the peer serves one more call of ours now."""
        return self.peer is not None and len(self._asked) - self._streams_asked < self.peer.calls

    def call(self, method: str, payload: bytes, deadline: float, now: float, trace: str = "") -> int:
        """The id of a new call. Raises InvalidInput (too large), Unavailable (not open, or full)."""
        self._check_asking()
        if not self.has_room:
            raise Unavailable(f"{self.peer_name} serves no more calls at once: all are under way")
        call_id = self._last_asked + 1
        self._put(Call(call_id, method, _remaining_ms(deadline, now), trace), payload)
        self._last_asked = call_id
        self._asked[call_id] = _Asked("waiting", deadline)
        self.wake_at = min(self.wake_at, deadline)
        return call_id

    def open_stream(self, method: str, payload: bytes, deadline: float, now: float, trace: str = "") -> int:
        """The id of a new stream towards us. Raises InvalidInput, Unavailable."""
        self._check_asking()
        if self.peer is None or self._streams_asked >= self.peer.streams:
            raise Unavailable(f"{self.peer_name} serves no more streams at once: all are under way")
        stream_id, window = self._last_asked + 1, self.settings.window_bytes
        self._put(StreamOpen(stream_id, method, _remaining_ms(deadline, now), window, trace), payload)
        self._last_asked = stream_id
        self._streams_asked += 1
        self._asked[stream_id] = _Asked("reading", deadline, window)
        self.wake_at = min(self.wake_at, deadline)
        return stream_id

    def notify(self, method: str, payload: bytes, trace: str = "") -> None:
        """Tell the peer something. Raises InvalidInput, Unavailable."""
        self._check_asking()
        self._put(Notice(method, trace), payload)

    def cancel(self, asked_id: int) -> None:
        """Give up a call or stream of ours; a call that has ended stays unchanged."""
        asked = self._asked.get(asked_id)
        if asked is None or asked.state in ("unwanted", "stopped") or self.state != "open":
            return
        asked.state = "unwanted" if asked.state == "waiting" else "stopped"
        self._put(Cancel(asked_id))

    def grant(self, stream_id: int, piece_bytes: int) -> None:
        """A piece of a stream of ours was used; the peer hears of it a quarter window at a time."""
        asked = self._asked.get(stream_id)
        if asked is None or asked.state != "reading" or self.state != "open":
            return
        asked.used += piece_bytes + frames.PIECE_COST_BYTES
        if asked.used * 4 >= self.settings.window_bytes:
            self._put(StreamCredit(stream_id, asked.used))
            asked.credit += asked.used
            asked.used = 0

    def ping(self, now: float) -> int:
        """Ask for a sign of life; its token."""
        self._last_ping += 1
        self._pings[self._last_ping] = now
        self._put(Ping(self._last_ping))
        return self._last_ping

    def drain(self) -> None:
        """Ask nothing more on this link; what is under way ends as usual."""
        if self.state == "open" and not self.draining:
            self.draining = True
            self._put(Drain())

    def refuse(self, code: str, message: str) -> None:
        """End the link without a Hello: the peer is not who it should be."""
        self._out.clear()
        self.close(code, message)

    def close(self, code: str, message: str) -> None:
        """End the link; `outgoing()` then holds the last frame."""
        if self.state != "closed":
            self._put(Error(0, code, message[:1000]))
            self.state = "closed"

    # ── what we answer ──

    @property
    def idle(self) -> bool:
        """True if nothing is under way in either direction."""
        return not self._asked and not self._served

    def serves(self, served_id: int) -> bool:
        """True if the peer still waits for this answer."""
        return self.state == "open" and served_id in self._served

    def reply(self, call_id: int, payload: bytes) -> None:
        """Answer a call. Raises InvalidInput when the payload does not fit a frame."""
        self._serving(call_id, "answering")
        self._put(Reply(call_id), payload)
        self._finish(call_id)

    def credit(self, stream_id: int) -> int:
        """The size of the piece of this stream that the peer can take now; below zero, not even an empty one."""
        return self._serving(stream_id, "sending").credit - frames.PIECE_COST_BYTES

    def send(self, stream_id: int, payload: bytes) -> None:
        """Send a piece of a stream, within its credit."""
        served = self._serving(stream_id, "sending")
        cost = len(payload) + frames.PIECE_COST_BYTES
        if cost > served.credit:
            raise InvalidTransition(f"stream {stream_id}: {cost} bytes to send, credit {served.credit}")
        self._put(StreamData(stream_id), payload)
        served.credit -= cost

    def end(self, stream_id: int) -> None:
        """The stream is complete."""
        self._serving(stream_id, "sending")
        self._put(StreamEnd(stream_id))
        self._finish(stream_id)

    def fail(self, served_id: int, code: str, message: str) -> None:
        """End a call or stream of the peer's with an error."""
        if served_id not in self._served:
            raise InvalidTransition(f"exchange {served_id} cannot fail: it is not being served")
        self._put(Error(served_id, code, message[:1000]))
        self._finish(served_id)

    # ── time ──

    def tick(self, now: float) -> list[Event]:
        """Expire what is overdue and keep the link alive; `wake_at` then says when to tick next."""
        events: list[Event] = []
        if now > self.wake_at + _STALL_SECONDS:
            self._heard = now  # we stood still: bytes may lie unread, so the peer gets its full time again
        if self.state == "greeting" and now >= self._greet_by:
            seconds = self.settings.connect_seconds
            self._break(Unavailable.code, f"no Hello within {seconds:g} s: not a Junto node, or stuck", events)
        if self.state == "open":
            self._tick_open(now, events)
        if self.state == "closed":
            self.wake_at = float("inf")
        return events

    def _tick_open(self, now: float, events: list[Event]) -> None:
        silent_at = self._heard + self.settings.silent_seconds
        if now >= silent_at:
            self._break(Unavailable.code, f"nothing heard for {now - self._heard:.1f} s", events)
            return
        if now >= self._ping_at:
            self._ping_at = now + self.settings.ping_seconds
            self._pings = {token: sent for token, sent in self._pings.items() if sent > self._heard}
            self.ping(now)
        wake_at = min(self._ping_at, silent_at)
        for asked_id, asked in list(self._asked.items()):
            if asked.state in ("unwanted", "stopped"):
                continue
            if asked.deadline <= now:
                self.cancel(asked_id)
                events.append(WaitExpired(asked_id))
            else:
                wake_at = min(wake_at, asked.deadline)
        for served_id, served in list(self._served.items()):
            if served.deadline <= now:
                self.fail(served_id, DeadlineExceeded.code, TIME_PASSED)
                events.append(Dropped(served_id, expired=True))
            else:
                wake_at = min(wake_at, served.deadline)
        self.wake_at = wake_at

    # ── frames that arrive; each of these raises PeerFault ──

    def _absorb(self, header: Header, payload: bytes, now: float, events: list[Event]) -> None:
        kind = type(header)
        if self.state == "greeting" and (self.state, kind) not in LINK_MOVES:
            raise PeerFault(f"{kind.__name__} before Hello")
        if payload and kind in _WITHOUT_PAYLOAD:
            raise PeerFault(f"{kind.__name__} with a payload of {len(payload)} bytes")
        match header:
            case Reply() | StreamData() | StreamEnd():
                self._answer_arrived(header, payload, events)
            case Error():
                if header.id:
                    self._answer_arrived(header, payload, events)
                else:
                    self.state = "closed"
                    events.append(LinkEnded(header.code, header.message, by_peer=True))
            case Call() | StreamOpen():
                self._question_arrived(header, payload, now, events)
            case Cancel() | StreamCredit():
                self._withdrawal_arrived(header, events)
            case Notice():
                self._notice_arrived(header, payload, events)
            case Ping():
                self._put(Pong(header.token))
            case Pong():
                self._pong_arrived(header, now, events)
            case Drain():
                if self.peer_draining:
                    raise PeerFault("Drain twice")
                self.peer_draining = True
                events.append(PeerDrains())
            case Hello():
                self._hello_arrived(header, now, events)

    def _hello_arrived(self, hello: Hello, now: float, events: list[Event]) -> None:
        if self.peer is not None:
            raise PeerFault("Hello twice")
        if hello.name != self.peer_name:
            raise PeerFault(f"Hello in another name than the certificate's, {self.peer_name}")
        self.peer = hello
        differs = difference(self.hello, hello)
        if differs:
            self._break("refused", differs, events)
            return
        self.state = "open"
        self._decoder.frame_bytes = frames.FRAME_BYTES
        self._ping_at = now  # the first ping measures the round trip
        self.wake_at = now
        events.append(HelloArrived(hello))

    def _answer_arrived(
        self, header: Reply | StreamData | StreamEnd | Error, payload: bytes, events: list[Event]
    ) -> None:
        asked_id = header.id
        asked = self._asked.get(asked_id)
        state: AskedState = asked.state if asked is not None else "gone"
        after = ASKED_MOVES.get((state, type(header)))
        if after is None or asked is None:
            raise PeerFault(f"{type(header).__name__} for exchange {asked_id}, which is {state} here")
        if after == "gone":
            del self._asked[asked_id]
            self._streams_asked -= state in ("reading", "stopped")
        match header:
            case StreamData():
                asked.credit -= len(payload) + frames.PIECE_COST_BYTES
                if asked.credit < 0:
                    raise PeerFault(f"stream {asked_id} sent {-asked.credit} bytes beyond its credit")
                if state == "reading":
                    events.append(StreamDataArrived(asked_id, payload))
            case Reply() if state == "waiting":
                events.append(ReplyArrived(asked_id, payload))
            case StreamEnd() if state == "reading":
                events.append(StreamEnded(asked_id))
            case Error() if state in ("waiting", "reading"):
                events.append(ErrorArrived(asked_id, header.code, header.message))

    def _question_arrived(self, header: Call | StreamOpen, payload: bytes, now: float, events: list[Event]) -> None:
        state: ServedState = "new" if header.id > self._last_served else "gone"
        after = SERVED_MOVES.get((state, type(header)))
        if after is None:
            raise PeerFault(f"{type(header).__name__} uses number {header.id} again")
        if self.peer_draining:
            raise PeerFault(f"{type(header).__name__} after Drain")
        self._last_served = header.id
        deadline = now + header.remaining_ms / 1000
        served = self._served[header.id] = _Served(after, deadline, len(payload))
        self._held_bytes += served.held
        if isinstance(header, StreamOpen):
            served.credit = header.credit
            self._streams_served += 1
        if self._streams_served > self.settings.streams:
            raise PeerFault(f"more than {self.settings.streams} streams at once")
        if len(self._served) - self._streams_served > self.settings.calls:
            raise PeerFault(f"more than {self.settings.calls} calls at once")
        if self._held_bytes > self.settings.call_bytes:
            self.fail(header.id, Unavailable.code, f"busy with {self.settings.call_bytes:,} bytes of calls: retry")
            return
        self.wake_at = min(self.wake_at, deadline)
        arrived = StreamAsked if isinstance(header, StreamOpen) else CallArrived
        events.append(arrived(header.id, header.method, payload, deadline, header.trace))

    def _notice_arrived(self, notice: Notice, payload: bytes, events: list[Event]) -> None:
        """A notice counts as a call does, until it was taken; what is too much, or no notice's method, is dropped."""
        if notice.method.startswith(NOTICE) and self._held_bytes + len(payload) <= self.settings.call_bytes:
            self._held_bytes += len(payload)
            events.append(NoticeArrived(notice.method, payload, notice.trace))

    def taken(self, notice_bytes: int) -> None:
        """A notice of so many bytes was taken: nothing of it is held any more."""
        self._held_bytes -= notice_bytes

    def _withdrawal_arrived(self, header: Cancel | StreamCredit, events: list[Event]) -> None:
        served = self._served.get(header.id)
        state: ServedState = served.state if served is not None else "gone" if header.id <= self._last_served else "new"
        if (state, type(header)) not in SERVED_MOVES:
            raise PeerFault(f"{type(header).__name__} for exchange {header.id}, which is {state} here")
        if served is None:
            return
        if isinstance(header, Cancel):
            self.fail(header.id, Cancelled.code, "cancelled by the caller")
            events.append(Dropped(header.id, expired=False))
            return
        served.credit += header.bytes
        if served.credit > _CREDIT_BYTES:
            raise PeerFault(f"stream {header.id} was granted {served.credit:,} bytes")
        events.append(CreditArrived(header.id))

    def _pong_arrived(self, pong: Pong, now: float, events: list[Event]) -> None:
        sent = self._pings.pop(pong.token, None)
        if sent is None:
            if not 1 <= pong.token <= self._last_ping:
                raise PeerFault(f"Pong {pong.token} answers no Ping")
            return
        self.round_trip_seconds = now - sent
        events.append(PongArrived(now - sent))

    # ── the rest ──

    def _check_asking(self) -> None:
        if self.state != "open":
            raise Unavailable(f"the link to {self.peer_name} is {self.state}")
        if self.draining:
            raise Unavailable(f"the link to {self.peer_name} is being closed")

    def _serving(self, served_id: int, state: ServedState) -> _Served:
        served = self._served.get(served_id)
        if served is None or served.state != state:
            found = "gone" if served is None else served.state
            raise InvalidTransition(f"exchange {served_id} is {found}, not {state}")
        return served

    def _finish(self, served_id: int) -> None:
        served = self._served.pop(served_id)
        self._held_bytes -= served.held
        self._streams_served -= served.state == "sending"

    def _put(self, header: Header, payload: bytes = b"") -> None:
        if len(payload) < _SEPARATE_BYTES:
            self._out.append(frames.encode(header, payload))
        else:
            self._out += frames.encode_in_two(header, payload)

    def _break(self, code: str, message: str, events: list[Event]) -> None:
        self.close(code, message)
        events.append(LinkEnded(code, message, by_peer=False))


_WITHOUT_PAYLOAD: Final = frozenset({Hello, Error, StreamCredit, StreamEnd, Cancel, Ping, Pong, Drain})


def _remaining_ms(deadline: float, now: float) -> int:
    if deadline <= now:
        raise InvalidInput("a call needs a time limit above zero seconds")
    return max(1, int((deadline - now) * 1000))
