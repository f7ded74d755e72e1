# SPDX-License-Identifier: Apache-2.0
"""The network between simulated nodes: one link per pair, with what the real link promises and no more.

A call is done at most once by one attempt of a link, and an error leaves open whether it was done: it may be lost on
the way there, or done and its answer lost. Between attempts the network may also do it twice, late, or out of order.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from junto.errors import (
    DeadlineExceeded,
    InvalidInput,
    JuntoError,
    Unavailable,
    error_from_code,
)
from junto.link import methods
from junto.link.connection import Answer, Caller, Handler, Link
from junto.link.links import PartyStatus
from junto.node.exchange import Parcel, decode_pull
from junto.testing.sim.loop import PROCESS, Process
from junto.trust.charter import Member
from junto.trust.names import Address, Name
from junto.types import PartyId, TaskId

_SILENT_SECONDS = 15.0
_TRIED_SECONDS = 0.6  # after which a first attempt to reach a party has failed


@dataclass(slots=True)
class Weather:
    """The present behaviour of the network. Rates are per message."""

    delay: float = 0.002
    loss: float = 0.0
    twice: float = 0.0
    late: float = 0.0
    garble: float = 0.0  # of an output's pieces
    late_seconds: float = 3.0


class Network:
    """All links of all nodes."""

    def __init__(self, faults: random.Random, told: Callable[[str], None]) -> None:
        self.weather = Weather()
        self.blocked: set[tuple[PartyId, PartyId]] = set()
        self.nodes: dict[PartyId, SimLinks] = {}
        self.faults = faults
        self.told = told
        self.before_call: Callable[[PartyId, PartyId, str, bytes], None] = lambda *_: None
        self.after_call: Callable[[PartyId, PartyId, str, bytes, Answer], None] = lambda *_: None
        self.messages = 0
        self.traps: dict[PartyId, int] = {}  # a party dies when it has sent or answered so many messages more
        self.on_trap: Callable[[PartyId], None] = lambda party: None
        self.faults_found: list[str] = []
        self.garbled: set[TaskId] = set()  # tasks of which an output came with other bytes than were sent

    def trapped(self, party: PartyId) -> bool:
        """True if a party's process dies at this message."""
        left = self.traps.get(party)
        if left is None:
            return False
        self.traps[party] = left - 1
        if left > 0:
            return False
        del self.traps[party]
        self.on_trap(party)
        return True

    def pause(self) -> float:
        """The time that one message takes."""
        weather = self.weather
        if weather.late and self.faults.random() < weather.late:
            return self.faults.random() * weather.late_seconds
        return weather.delay * (0.2 + self.faults.random())

    def carried(self, task: TaskId, piece: bytes) -> bytes:
        """The bytes of an output as they come: now and then one is another, or missing."""
        if not piece or not self.weather.garble or self.faults.random() >= self.weather.garble:
            return piece
        self.garbled.add(task)
        at = self.faults.randrange(len(piece))
        instead = b"" if self.faults.random() < 0.3 else bytes([piece[at] ^ (1 << self.faults.randrange(8))])
        return piece[:at] + instead + piece[at + 1 :]

    def join(self, links: "SimLinks") -> None:
        """A node is up: the others find it within a moment."""
        self.nodes[links.me] = links
        for other in sorted(self.nodes):
            if other != links.me:
                self._connect(links.me, other)

    def leave(self, links: "SimLinks", reason: str) -> None:
        """A node is gone: the others notice, sooner or later."""
        if self.nodes.get(links.me) is links:
            del self.nodes[links.me]
        for other in sorted(links.ways):
            links.ways[other].lose(reason)
            remote = self.nodes.get(other)
            way = remote.ways[links.me] if remote is not None else None
            if way is not None and way.link is not None and way.link.remote is links:
                way.lose_soon(f"{links.me} closed the connection", self.pause())

    def block(self, one: PartyId, other: PartyId) -> None:
        """Messages of `one` to `other` vanish; both notice after a silence."""
        self.blocked.add((one, other))
        for a, b in ((one, other), (other, one)):
            links = self.nodes.get(a)
            if links is not None:
                links.ways[b].lose_soon(f"{b} is silent for {_SILENT_SECONDS:g} s", _SILENT_SECONDS, while_blocked=True)

    def heal(self) -> None:
        """Every message arrives again, in time."""
        self.blocked.clear()
        self.weather = Weather()
        for one in sorted(self.nodes):
            for other in sorted(self.nodes):
                if one < other:
                    self._connect(one, other)

    def cut(self, one: PartyId, other: PartyId) -> None:
        """The link of two goes down in the middle of what it carries, and comes back."""
        for a, b in ((one, other), (other, one)):
            links = self.nodes.get(a)
            if links is not None:
                links.ways[b].lose(f"{b}: connection reset by peer")
        self._connect(one, other)

    def is_open(self, one: PartyId, other: PartyId) -> bool:
        """True if messages pass in both directions."""
        return (one, other) not in self.blocked and (other, one) not in self.blocked

    def _connect(self, one: PartyId, other: PartyId) -> None:
        asyncio.get_running_loop().call_later(
            0.05 + self.faults.random() * 0.5, self._connected, one, other, context=_harness()
        )

    def _connected(self, one: PartyId, other: PartyId) -> None:
        a, b = self.nodes.get(one), self.nodes.get(other)
        if a is None or b is None or not self.is_open(one, other):
            return
        a.ways[other].found(b)
        b.ways[one].found(a)


def _harness() -> Any:
    context = copy_context()
    context.run(PROCESS.set, None)
    return context


class _Way:
    """One node's side of its link to a party."""

    def __init__(self, links: "SimLinks", party: PartyId, now: float) -> None:
        self.links = links
        self.party = party
        self.since = now
        self.error = "not reached yet"
        self.link: SimLink | None = None
        self.up = asyncio.Event()

    def found(self, remote: "SimLinks") -> None:
        """The other side is there."""
        if self.link is not None:
            if self.link.remote is remote:
                return
            self.lose("the peer has restarted")
        self.link = SimLink(self, remote)
        self.since = self.links.unix_time()
        self.up.set()
        self.links.tell_up(self.party)

    def lose(self, reason: str) -> None:
        """The link is down."""
        link, self.link = self.link, None
        if link is None:
            return
        self.up.clear()
        self.since, self.error = self.links.unix_time(), reason
        link.lost(reason)
        self.links.tell_down(self.party, reason)

    def lose_soon(self, reason: str, seconds: float, *, while_blocked: bool = False) -> None:
        """The link will be found to be down."""
        link = self.link

        def lose() -> None:
            still = not while_blocked or not self.links.network.is_open(self.links.me, self.party)
            if link is not None and self.link is link and still:
                self.lose(reason)

        asyncio.get_running_loop().call_later(seconds, lose, context=_harness())


class SimLinks:
    """The simulation's stand-in for `junto.link.links.Links` at a node."""

    def __init__(
        self, network: Network, here: Any, members: Any, *, handlers: Mapping[str, Handler], **_: object
    ) -> None:
        self.network = network
        self.here = here
        self.handlers = handlers
        self.me: PartyId = here.identity.name.party
        self.process = PROCESS.get() or Process("harness")
        self._members: dict[PartyId, Member] = {member.name: member for member in members}
        self._watchers: list[tuple[Callable[[PartyId], None], Callable[[PartyId, str], None]]] = []
        now = here.unix_time()
        self.ways = {name: _Way(self, name, now) for name in sorted(self._members) if name != self.me}
        self.settings = None
        self.proxies = None

    def unix_time(self) -> float:
        """The node's wall clock."""
        return float(self.here.unix_time())

    async def __aenter__(self) -> "SimLinks":
        self.network.join(self)
        return self

    async def close(self, *, grace_seconds: float = 0.0) -> None:
        """The node stops."""
        self.network.leave(self, "the node is stopping")

    @property
    def listening(self) -> list[Address]:
        """Nowhere."""
        return []

    async def tried(self, party: PartyId, timeout_seconds: float) -> "SimLink | None":
        """See `Links.tried`."""
        way = self._way(party)
        if way.link is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(timeout_seconds, _TRIED_SECONDS)):
                    await way.up.wait()
        return way.link

    def watch_copies(self, on_copy: object) -> None:
        """No home is copied here."""

    async def to(self, party: PartyId, timeout_seconds: float) -> "SimLink":
        """See `Links.to`."""
        way = self._way(party)
        try:
            async with asyncio.timeout(timeout_seconds):
                while way.link is None:
                    await way.up.wait()
                    if way.link is None:
                        await asyncio.sleep(0)
        except TimeoutError:
            raise Unavailable(f"{party} cannot be reached since {way.since:.3f}: {way.error}") from None
        return way.link

    def now_to(self, party: PartyId) -> "SimLink | None":
        """The open link."""
        return self._way(party).link

    def watch(self, on_up: Callable[[PartyId], None], on_down: Callable[[PartyId, str], None]) -> None:
        """See `Links.watch`."""
        self._watchers.append((on_up, on_down))

    def status(self) -> list[PartyStatus]:
        """The reachability of each party."""
        return [
            PartyStatus(way.party, way.link is not None, way.since, way.error, False, "", 1.0, 0.0, 0, 0)
            for way in self.ways.values()
        ]

    def member(self, party: PartyId) -> Member:
        """The charter's entry."""
        return self._members[party]

    def rotate(self, identity: object) -> None:
        """Certificates are not seen here."""

    def tell_up(self, party: PartyId) -> None:
        """Tell the node."""
        self._in_node(lambda: [on_up(party) for on_up, _ in self._watchers])

    def tell_down(self, party: PartyId, reason: str) -> None:
        """Tell the node."""
        self._in_node(lambda: [on_down(party, reason) for _, on_down in self._watchers])

    def _in_node(self, act: Callable[[], object]) -> None:
        if self.process.dead:
            return
        context = copy_context()
        context.run(PROCESS.set, self.process)
        asyncio.get_running_loop().call_soon(act, context=context)

    def _way(self, party: PartyId) -> _Way:
        if party not in self.ways:
            raise InvalidInput(f"no party {party!r} in the charter")
        return self.ways[party]


class SimLink:
    """The simulation's stand-in for `junto.link.connection.Link` at a node, for one life of a connection."""

    def __init__(self, way: _Way, remote: SimLinks) -> None:
        self.remote = remote
        self.peer: Name = remote.here.identity.name
        self.clock_ahead_seconds = remote.unix_time() - way.links.unix_time()
        self._way = way
        self._network = way.links.network
        self._down: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def is_open(self) -> bool:
        """True if calls may go out."""
        return not self._down.done()

    def lost(self, reason: str) -> None:
        """The connection is gone."""
        if not self._down.done():
            self._down.set_result(reason)

    async def call(self, method: str, payload: bytes = b"", *, timeout_seconds: float, trace: str = "") -> bytes:
        """See `Link.call`."""
        answer = await self._asked(method, payload, timeout_seconds)
        if not isinstance(answer, bytes):
            raise InvalidInput(f"{method} answers with a stream")
        if method == methods.PEER_PULL:
            parcel = msgspec.msgpack.decode(answer, type=Parcel)
            if parcel.inline is not None:
                inline = self._network.carried(decode_pull(payload).task, parcel.inline)
                return msgspec.msgpack.encode(msgspec.structs.replace(parcel, inline=inline))
        return answer

    async def stream(
        self, method: str, payload: bytes = b"", *, timeout_seconds: float, trace: str = ""
    ) -> AsyncGenerator[bytes, None]:
        """See `Link.stream`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_seconds
        answer = await self._asked(method, payload, timeout_seconds)
        if isinstance(answer, bytes):
            raise InvalidInput(f"{method} answers with bytes")
        iterator = answer.__aiter__()
        while True:
            piece = await self._in_time(self._in_remote(self._next(iterator)), until - loop.time(), method)
            if piece is None:
                return
            yield self._network.carried(decode_pull(payload).task, piece) if method == methods.PEER_READ else piece

    def notify(self, method: str, payload: bytes = b"", *, trace: str = "") -> None:
        """See `Link.notify`."""
        job = asyncio.get_running_loop().create_task(self._asked(method, payload, 30.0))
        job.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def ping(self, timeout_seconds: float) -> float:
        """A sign of life."""
        return 0.001

    # ── one message there, one back ──

    async def _asked(self, method: str, payload: bytes, seconds: float) -> Answer:
        loop = asyncio.get_running_loop()
        network, me, party = self._network, self._way.links.me, self._way.party
        until = loop.time() + seconds
        if self._way.links.process.dead:
            raise asyncio.CancelledError
        network.messages += 1
        network.before_call(me, party, method, payload)
        if network.trapped(me):
            await loop.create_future()
        await self._in_time(self._arrival(me, party), until - loop.time(), method)
        if network.faults.random() < network.weather.loss:
            self._way.lose_soon(f"{party}: connection reset by peer", 0.0)
            network._connect(me, party)
            await self._in_time(loop.create_future(), until - loop.time(), method)
        if network.faults.random() < network.weather.twice:
            self._in_remote(self._late(method, payload)).add_done_callback(
                lambda done: done.cancelled() or done.exception()
            )
        answered = self._in_remote(self._handled(method, payload, until))
        answer = await self._in_time(answered, until - loop.time(), method)
        if network.faults.random() < network.weather.loss:
            self._way.lose_soon(f"{party}: connection reset by peer", 0.0)
            network._connect(me, party)
            await self._in_time(loop.create_future(), until - loop.time(), method)
        await self._in_time(self._arrival(party, me), until - loop.time(), method)
        if isinstance(answer, JuntoError):
            raise error_from_code(answer.code, str(answer))
        return cast(Answer, answer)

    def _arrival(self, sender: PartyId, to: PartyId) -> asyncio.Future[None]:
        """Done when a message of the one has reached the other."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[None] = loop.create_future()

        def arrive() -> None:
            if arrived.done():
                return
            if (sender, to) in self._network.blocked:
                loop.call_later(0.5, arrive)
            else:
                arrived.set_result(None)

        loop.call_later(self._network.pause(), arrive)
        return arrived

    async def _late(self, method: str, payload: bytes) -> None:
        await asyncio.sleep(self._network.pause() * 20)
        await self._handled(method, payload, asyncio.get_running_loop().time() + 30.0)

    async def _handled(self, method: str, payload: bytes, until: float) -> Answer | JuntoError:
        """The peer's answer or refusal, in the peer's process."""
        caller = Caller(self._way.links.here.identity.name, method, until, "", cast(Link, self))
        handler = self.remote.handlers.get(method)
        if handler is None:
            return InvalidInput(f"no method {method}")
        try:
            async with asyncio.timeout(max(until - asyncio.get_running_loop().time(), 0.0)):
                answer = await handler(caller, payload)
        except TimeoutError:
            return DeadlineExceeded(f"{method}: time passed")
        except JuntoError as error:
            return error
        except Exception as error:  # noqa: BLE001  # the real link says "internal" and no more; here it is told
            self._network.faults_found.append(f"{self._way.party} fails at {method}: {error!r}")
            return JuntoError("a fault of the peer")
        self._network.after_call(self._way.links.me, self._way.party, method, payload, answer)
        if self._network.trapped(self._way.party):
            await asyncio.get_running_loop().create_future()
        return answer

    async def _next(self, iterator: AsyncIterator[bytes]) -> bytes | None:
        await asyncio.sleep(self._network.pause())
        return await anext(iterator, None)

    def _in_remote(self, work: Any) -> asyncio.Task[Any]:
        context = copy_context()
        context.run(PROCESS.set, self.remote.process)
        return asyncio.get_running_loop().create_task(work, context=context)

    async def _in_time(self, job: asyncio.Future[Any], seconds: float, method: str) -> Any:
        """The result of `job` while the link is up and the time lasts."""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()

        def wake(_: object = None) -> None:
            if not woken.done():
                woken.set_result(None)

        timer = loop.call_later(max(seconds, 0.0), wake)
        job.add_done_callback(wake)
        self._down.add_done_callback(wake)
        try:
            await woken
        except asyncio.CancelledError:
            job.cancel()
            raise
        finally:
            timer.cancel()
            self._down.remove_done_callback(wake)
        if job.done() and not job.cancelled():
            return job.result()
        done_there = not job.done() and self._network.faults.random() < 0.5
        if not done_there:
            job.cancel()
        job.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self._down.done():
            raise Unavailable(self._down.result())
        if job.done():
            raise Unavailable(f"{self._way.party} is gone")
        raise DeadlineExceeded(f"{self._way.party} did not answer {method} within {seconds:.3f} s")
