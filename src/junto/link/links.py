# SPDX-License-Identifier: Apache-2.0
"""All links of a node: it listens, dials every party that has an address, and keeps one link per pair of nodes.

Either side may dial. When two connections to one node meet, both sides choose alike and calls survive:

- the peer has restarted (its Hello names another instance): the new one, the old is dead;
- both were dialled by the same side: the new one, the dialler has given up the old;
- one was dialled by each side: the one dialled by the smaller name. If that is the older one, the new one
  serves until the older has answered a ping, for it may have died unnoticed.

The connection that gives way is drained: what is under way on it ends there, what is new goes over the other.

Of several nodes of one party one acts. When another one of them has taken over, the link to the first is cut. Those of
our own party that do not act dial us to help: they are nobody's link, and answer only whoever holds theirs.
"""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from junto.errors import InvalidInput, JuntoError, Unavailable
from junto.link.connection import Handler, Link
from junto.link.dial import Here, Proxies, dial, first_open, opening_of
from junto.link.listener import Listener
from junto.link.settings import LinkSettings
from junto.link.tls import client_context, server_context
from junto.logs import logger
from junto.trust.certificates import Identity
from junto.trust.charter import Member
from junto.trust.names import Address, Name, parse_address
from junto.types import NodeId, PartyId

_log = logger("junto.link")
COPY = "another process runs as"
"""The beginning of the refusal that a process gets when a process started later has taken its place."""


@dataclass(frozen=True, slots=True)
class PartyStatus:
    """The present reachability of a party. `since` is Unix seconds; the last error stays after it was overcome."""

    party: PartyId
    up: bool
    since: float
    error: str
    dialled: bool
    address: str
    round_trip_ms: float | None
    clock_ahead_seconds: float | None
    bytes_in: int
    bytes_out: int


@dataclass(slots=True)
class _Party:
    name: PartyId
    addresses: tuple[Address, ...]
    since: float
    error: str
    links: dict[NodeId, Link] = field(default_factory=dict)
    all: set[Link] = field(default_factory=set)
    up: asyncio.Event = field(default_factory=asyncio.Event)
    down: asyncio.Event = field(default_factory=asyncio.Event)
    tried: asyncio.Event = field(default_factory=asyncio.Event)  # once: it was reached, or an attempt has failed
    replaced: set[str] = field(default_factory=set)  # instances that gave way to one that was started later
    bytes_in: int = 0
    bytes_out: int = 0

    @property
    def link(self) -> Link | None:
        return next((link for link in self.links.values() if link.is_open), None)


class Links:
    """The links of one node to the other parties of its charter. `async with Links(...)` listens and dials.

    here: who we are. members: the charter's, our own among them. jitter: numbers in [0, 1), for back-off.
    """

    def __init__(
        self,
        here: Here,
        members: Iterable[Member],
        *,
        handlers: Mapping[str, Handler],
        listen: Address | None = None,
        settings: LinkSettings | None = None,
        proxies: Proxies | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.here = here
        self.handlers = handlers
        self.settings = settings or LinkSettings.for_lan()
        self.proxies = proxies or Proxies()
        self._listen = listen
        self._jitter = jitter
        self._watchers: list[tuple[Callable[[PartyId], None], Callable[[PartyId, str], None]]] = []
        self._copies: list[Callable[[PartyId], None]] = []
        self._members = {member.name: member for member in members}
        self._parties: dict[PartyId, _Party] = {}
        self._others: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dial_context = client_context(here.identity, here.authorities)
        self._closing = False
        now = here.unix_time()
        for member in self._members.values():
            if member.name != here.identity.name.party:
                addresses = tuple(parse_address(text) for text in member.addresses)
                error = "not reached yet" if addresses else "has no address: waiting for it to dial us"
                self._parties[member.name] = party = _Party(member.name, addresses, now, error)
                party.down.set()
                if not addresses:
                    party.tried.set()
        self._listener = Listener(
            self.settings,
            server_context(here.identity, here.authorities),
            lambda address: opening_of(self.here, self.handlers, self.settings, address),
            self.adopt,
            self._turned_away,
        )

    async def __aenter__(self) -> Self:
        """Listen, and begin to dial. Raises Unavailable when the address cannot be listened on."""
        if self._listen is not None:
            await self._listener.listen(self._listen)
        for party in self._parties.values():
            if party.addresses:
                self._start(self._keep_dialling(party))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all links."""
        await self.close()

    async def close(self, *, grace_seconds: float = 0.0) -> None:
        """Stop listening and dialling; let what is under way finish within the grace; hang up."""
        self._closing = True
        await self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        links = [link for party in self._parties.values() for link in party.all]
        links += self._others
        await asyncio.gather(*(link.close(grace_seconds=grace_seconds) for link in links))

    @property
    def listening(self) -> list[Address]:
        """The addresses at which this node listens."""
        return self._listener.addresses

    async def to(self, party: PartyId, timeout_seconds: float) -> Link:
        """The open link to a party. Raises Unavailable (who, since when, why) after the time; InvalidInput."""
        state = self._state(party)
        link = state.link
        if link is not None:
            return link
        try:
            async with asyncio.timeout(timeout_seconds):
                while link is None:
                    await state.up.wait()
                    link = state.link
                    if link is None:
                        await asyncio.sleep(0)
        except TimeoutError:
            since = time.strftime("%H:%M:%S", time.gmtime(state.since))
            raise Unavailable(
                f"{party} cannot be reached since {since} UTC: {state.error}",
                retry_after_seconds=self.settings.longest_retry_seconds,
            ) from None
        return link

    async def tried(self, party: PartyId, timeout_seconds: float) -> Link | None:
        """The open link to a party; None as soon as an attempt to reach it has failed, or the time has passed."""
        state = self._state(party)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await state.tried.wait()
        return state.link

    def now_to(self, party: PartyId) -> Link | None:
        """The open link to a party, if there is one at this moment. Raises InvalidInput."""
        return self._state(party).link

    def connections(self, party: PartyId) -> list[Link]:
        """Every connection with a party, also one that is giving way to another. Raises InvalidInput."""
        return list(self._state(party).all)

    def watch(self, on_up: Callable[[PartyId], None], on_down: Callable[[PartyId, str], None]) -> None:
        """Be told when a party can be reached, and when it no longer can, with the reason."""
        self._watchers.append((on_up, on_down))

    def watch_copies(self, on_copy: Callable[[PartyId], None]) -> None:
        """Be told when a process of a party comes back whose place another one took that was started later."""
        self._copies.append(on_copy)

    def status(self) -> list[PartyStatus]:
        """The reachability of each other party, by name."""
        return [self._status_of(party) for _, party in sorted(self._parties.items())]

    def member(self, party: PartyId) -> Member:
        """The charter's entry of a party. Raises InvalidInput."""
        if party not in self._members:
            raise InvalidInput(f"no party {party!r} in the charter; its parties: {', '.join(sorted(self._members))}")
        return self._members[party]

    def rotate(self, identity: Identity) -> None:
        """Use a renewed certificate for new handshakes; links that are up stay unchanged. Raises InvalidInput."""
        here = replace(self.here, identity=identity)
        dial_context = client_context(identity, here.authorities)
        self._listener.context = server_context(identity, here.authorities)
        self._dial_context = dial_context
        self.here = here

    # ── the rest ──

    def _state(self, party: PartyId) -> _Party:
        state = self._parties.get(party)
        if state is None:
            if party == self.here.identity.name.party:
                raise InvalidInput(f"{party} is this node's own party: there is no link to it")
            raise InvalidInput(f"no party {party!r} in the charter; there are {', '.join(sorted(self._parties))}")
        return state

    def _status_of(self, party: _Party) -> PartyStatus:
        link = party.link
        trip = link.round_trip_seconds if link is not None else None
        return PartyStatus(
            party=party.name,
            up=link is not None,
            since=party.since,
            error=party.error,
            dialled=link is not None and link.dialled,
            address=link.address if link is not None else ", ".join(str(a) for a in party.addresses),
            round_trip_ms=trip * 1000 if trip is not None else None,
            clock_ahead_seconds=link.clock_ahead_seconds if link is not None else None,
            bytes_in=party.bytes_in + sum(one.bytes_in for one in party.all),
            bytes_out=party.bytes_out + sum(one.bytes_out for one in party.all),
        )

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep_dialling(self, party: _Party) -> None:
        settings = self.settings
        failures = 0
        while True:
            await party.down.wait()
            if await self._dial_once(party):
                failures = 0
                continue
            party.tried.set()
            limit = min(settings.longest_retry_seconds, settings.first_retry_seconds * 2.0 ** min(failures, 30))
            failures += 1
            with suppress(TimeoutError):
                # Somewhere in the upper half, so that nodes that fell together do not return together.
                async with asyncio.timeout(limit * (0.5 + self._jitter() / 2)):
                    await party.up.wait()
                    failures = 0

    async def _dial_once(self, party: _Party) -> bool:
        def attempt(address: Address) -> Coroutine[None, None, Link]:
            return dial(
                self.here,
                address,
                handlers=self.handlers,
                settings=self.settings,
                expected=party.name,
                proxies=self.proxies,
                context=self._dial_context,
            )

        def failed(error: JuntoError) -> None:
            if party.error != str(error):
                _log.info("cannot reach", party=party.name, reason=str(error))
            party.error = str(error)

        link = await first_open(party.addresses, attempt, failed)
        if link is not None:
            self.adopt(link)
        return link is not None

    def _turned_away(self, name: Name, reason: str) -> None:
        """A node dialled us and cannot be a link: that is fresher news than our own last attempt."""
        party = self._parties.get(name.party)
        if party is not None and name.node and party.link is None:
            party.error = reason

    def adopt(self, link: Link) -> None:
        """Take an open link into use, beside or instead of the one there is."""
        name, own = link.peer, self.here.identity.name
        refusal = ""
        if self._closing:
            refusal = "the node is stopping"
        elif name.user and name.party != own.party:
            refusal = f"{name} is not a user of {own.party}: users talk to their own party's node"
        elif name == own:
            refusal = f"{name} is this node itself: give every node of a party a home of its own"
        if refusal:
            self._start(link.close(refusal))
        elif name.user or name.party == own.party or (link.hello is not None and link.hello.trial):
            self._others.add(link)
            link.gone.add_done_callback(lambda _: self._others.discard(link))
        else:
            self._choose(self._parties[name.party], link)

    def _choose(self, party: _Party, link: Link) -> None:
        node = link.peer.node
        current = party.links.get(node)
        if _instance(link) in party.replaced:
            self._start(link.close(f"{COPY} {link.peer}, started later: is one of them a copy of the other's home?"))
            for on_copy in self._copies:
                on_copy(party.name)
            return
        party.all.add(link)
        link.gone.add_done_callback(lambda _: self._gone(party, link))
        self._install(party, link)
        link.closed.add_done_callback(lambda reason: self._lost(party, link, reason.result()))
        for other in [one for name, one in party.links.items() if name != node]:
            other.abort(f"{link.peer} has taken over")  # of a party's nodes one acts: the one that came last
        if current is None or current.closed.done():
            return
        if _instance(current) != _instance(link):
            party.replaced.add(_instance(current))
            current.abort("the peer has restarted")
        elif current.dialled == link.dialled or self._is_preferred(link):
            current.retire(link)
        else:
            self._start(self._prefer_if_alive(party, current, link))

    def _is_preferred(self, link: Link) -> bool:
        return link.dialled == (self.here.identity.name.uri < link.peer.uri)

    async def _prefer_if_alive(self, party: _Party, older: Link, newer: Link) -> None:
        try:
            await older.ping(self.settings.ping_seconds)
        except Unavailable as error:
            older.abort(str(error))
            return
        if older.is_open and party.links.get(newer.peer.node) is newer:
            self._install(party, older)
            newer.retire(older)

    def _install(self, party: _Party, link: Link) -> None:
        party.links[link.peer.node] = link
        if not party.up.is_set():
            party.since = self.here.unix_time()
            party.down.clear()
            party.up.set()
            party.tried.set()
            _log.info("link up", party=party.name, address=link.address, dialled=link.dialled)
            for on_up, _ in self._watchers:
                on_up(party.name)

    def _gone(self, party: _Party, link: Link) -> None:
        party.all.discard(link)
        party.bytes_in += link.bytes_in
        party.bytes_out += link.bytes_out

    def _lost(self, party: _Party, link: Link, reason: str) -> None:
        if party.links.get(link.peer.node) is not link:
            return
        del party.links[link.peer.node]
        if party.links:
            return
        party.since = self.here.unix_time()
        party.error = reason
        party.up.clear()
        party.down.set()
        _log.info("link down", party=party.name, reason=reason)
        for _, on_down in self._watchers:
            on_down(party.name, reason)


def _instance(link: Link) -> str:
    return link.hello.instance if link.hello is not None else ""
