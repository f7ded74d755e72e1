# SPDX-License-Identifier: Apache-2.0
"""All links of a node: who dials whom, one link per pair, coming back, rotating."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from link_world import CONSORTIUM, World, echo, free_addresses, links_of

from junto.errors import InvalidInput, JuntoError, Unavailable
from junto.link.connection import Answer, Caller, Handler, Link
from junto.link.dial import Proxies, connect, dial, first_open
from junto.link.links import Links, PartyStatus
from junto.link.settings import LinkSettings
from junto.trust.certificates import Identity, issue
from junto.trust.charter import Charter
from junto.trust.names import Address, Name
from junto.types import Digest, NodeId, PartyId

DELTA, UNITED = PartyId("delta"), PartyId("united")
SWIFT = LinkSettings(first_retry_seconds=0.02, longest_retry_seconds=0.05)


class Pair:
    """Two nodes of one charter in which both have an address."""

    def __init__(self, handlers: Mapping[str, Handler] | None = None, settings: LinkSettings = SWIFT) -> None:
        self.world = World()
        addresses = free_addresses(2)
        self.addresses = {"delta": addresses[0], "united": addresses[1]}
        self.charter: Charter = self.world.charter(self.addresses)
        self.handlers = handlers or {"echo": echo}
        self.settings = settings

    def node(self, party: str, *, instance: str = "first") -> Links:
        here = self.world.here(party, self.charter, instance=instance)
        return links_of(here, self.charter, self.handlers, settings=self.settings, listen=self.addresses[party])


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run it, for at most half a minute."""

    async def limited() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(limited())


async def until(holds: Callable[[], bool]) -> None:
    """Return once it holds; the links themselves move on in between."""
    while not holds():  # noqa: ASYNC110  what it waits for is other code's state, which tells nobody
        await asyncio.sleep(0)


def up(links: Links) -> PartyStatus:
    (status,) = links.status()
    return status


def live(links: Links, party: PartyId) -> list[Link]:
    """The connections with a party that are not closed."""
    return [link for link in links.connections(party) if not link.closed.done()]


@pytest.mark.parametrize("turn", range(4))
def test_two_that_dial_at_once_end_with_the_same_one_link(turn: int) -> None:
    async def test() -> None:
        pair = Pair()
        async with pair.node("delta") as delta, pair.node("united") as united:
            ways = [await delta.to(UNITED, 5), await united.to(DELTA, 5)]
            answers = await asyncio.gather(
                *(link.call("echo", b"%d" % n, timeout_seconds=5) for link in ways for n in range(20))
            )
            assert answers == [b"%d" % n for n in range(20)] * 2
            await until(lambda: len(live(delta, UNITED)) == len(live(united, DELTA)) == 1)
            # If both connected, the one that delta, the smaller name, dialled has stayed.
            assert up(delta).dialled != up(united).dialled

    run(test)


def test_of_two_connections_that_crossed_the_smaller_names_stays_and_no_call_is_lost() -> None:
    release = asyncio.Event()

    async def slow(caller: Caller, payload: bytes) -> Answer:
        await release.wait()
        return payload

    async def test() -> None:
        world = World()
        charter = world.charter()
        handlers = {"slow": slow, "echo": echo}
        async with (
            links_of(world.here("delta", charter), charter, handlers) as delta,
            links_of(world.here("united", charter), charter, handlers) as united,
        ):
            first = await dial(united.here, delta.listening[0], handlers=handlers)
            united.adopt(first)
            under_way = [
                asyncio.create_task(first.call("slow", b"from united", timeout_seconds=20)),
                asyncio.create_task((await delta.to(UNITED, 5)).call("slow", b"from delta", timeout_seconds=20)),
            ]
            await first.ping(5)
            second = await dial(delta.here, united.listening[0], handlers=handlers)
            delta.adopt(second)
            await until(lambda: up(delta).dialled and not up(united).dialled)
            assert not first.closed.done()
            assert await first.call("echo", b"goes over the second", timeout_seconds=5) == b"goes over the second"
            release.set()
            assert await asyncio.gather(*under_way) == [b"from united", b"from delta"]
            assert await first.closed == "was replaced by another link"
            assert len(live(delta, UNITED)) == len(live(united, DELTA)) == 1

    run(test)


def test_an_older_preferred_link_that_died_unnoticed_gives_way() -> None:
    async def test() -> None:
        world = World()
        charter = world.charter()
        settings = LinkSettings(ping_seconds=0.1)
        async with (
            links_of(world.here("delta", charter), charter, {"echo": echo}, settings=settings) as delta,
            links_of(world.here("united", charter), charter, {"echo": echo}, settings=settings) as united,
        ):
            older = await dial(delta.here, united.listening[0], handlers={"echo": echo}, settings=settings)
            delta.adopt(older)
            (deaf,) = [await united.to(DELTA, 5)]
            deaf._transport.pause_reading()  # as if the network between had gone
            newer = await dial(united.here, delta.listening[0], handlers={"echo": echo}, settings=settings)
            await until(older.closed.done)
            assert "no sign of life" in await older.closed
            assert (await delta.to(UNITED, 5)) is not older
            assert await (await delta.to(UNITED, 5)).call("echo", b"alive", timeout_seconds=5) == b"alive"
            deaf.abort("the test is over")
            await newer.close()

    run(test)


def test_a_restarted_peer_replaces_its_old_link_at_once() -> None:
    async def test() -> None:
        world = World()
        charter = world.charter()
        async with links_of(world.here("delta", charter), charter, {"echo": echo}) as delta:
            old = await dial(world.here("united", charter, instance="first"), delta.listening[0])
            before = await delta.to(UNITED, 5)
            new = await dial(world.here("united", charter, instance="second"), delta.listening[0])
            assert "restarted" in await before.closed
            assert (await delta.to(UNITED, 5)) is not before
            await old.close()
            await new.close()

    run(test)


def test_a_dropped_link_comes_back_and_both_ends_are_told() -> None:
    told: list[str] = []

    async def test() -> None:
        world = World()
        (address,) = free_addresses(1)
        charter = world.charter({"delta": address})
        delta = links_of(world.here("delta", charter), charter, {"echo": echo}, settings=SWIFT, listen=address)
        united = links_of(world.here("united", charter), charter, {"echo": echo}, settings=SWIFT, listen=None)
        delta.watch(lambda party: told.append(f"{party} up"), lambda party, reason: told.append(f"{party} down"))
        async with delta, united:
            link = await delta.to(UNITED, 5)
            link.abort("the cable was cut")
            assert await link.closed == "the cable was cut"
            again = await delta.to(UNITED, 5)
            assert again is not link
            assert await again.call("echo", b"again", timeout_seconds=5) == b"again"
            assert told[:3] == ["united up", "united down", "united up"]

    run(test)


def test_a_peer_that_starts_later_is_reached() -> None:
    async def test() -> None:
        pair = Pair()
        async with pair.node("delta") as delta:
            with pytest.raises(Unavailable, match=r"united cannot be reached since .* UTC: .* refuses connections"):
                await delta.to(UNITED, 0.2)
            assert not up(delta).up
            async with pair.node("united"):
                link = await delta.to(UNITED, 10)
                assert await link.call("echo", b"late", timeout_seconds=5) == b"late"
                assert up(delta).up

    run(test)


def test_a_party_without_an_address_is_reached_once_it_dials() -> None:
    async def test() -> None:
        world = World()
        (address,) = free_addresses(1)
        charter = world.charter({"delta": address})
        async with links_of(world.here("delta", charter), charter, {"echo": echo}, listen=address) as delta:
            assert up(delta).error == "has no address: waiting for it to dial us"
            async with links_of(world.here("united", charter), charter, {"echo": echo}, listen=None) as united:
                link = await delta.to(UNITED, 10)
                assert await link.call("echo", b"hello", timeout_seconds=5) == b"hello"
                assert up(united).dialled
                assert not up(delta).dialled

    run(test)


def test_rotation_loses_no_call_and_new_handshakes_use_the_new_certificate() -> None:
    async def test() -> None:
        world = World()
        (address,) = free_addresses(1)
        charter = world.charter({"delta": address})
        async with (
            links_of(world.here("delta", charter), charter, {"echo": echo}, settings=SWIFT, listen=address) as delta,
            links_of(world.here("united", charter), charter, {"echo": echo}, settings=SWIFT, listen=None) as united,
        ):
            link = await united.to(DELTA, 10)
            calls = [asyncio.create_task(link.call("echo", b"%d" % n, timeout_seconds=10)) for n in range(50)]
            await asyncio.sleep(0)
            delta.rotate(world.identity("delta"))
            united.rotate(world.identity("united"))
            assert await asyncio.gather(*calls) == [b"%d" % n for n in range(50)]
            assert await united.to(DELTA, 5) is link
            link.abort("dial again")
            fresh = await united.to(DELTA, 10)
            assert await fresh.call("echo", b"renewed", timeout_seconds=5) == b"renewed"

    run(test)


def test_a_certificate_that_expires_is_refused_until_it_is_rotated() -> None:
    async def test() -> None:
        pair = Pair()
        old = pair.world.identity("united", begins=time.time() - 7200, lives=3600)
        here = pair.world.here("united", pair.charter, identity=old)
        united = links_of(here, pair.charter, pair.handlers, settings=SWIFT, listen=None)
        async with pair.node("delta"), united:
            await until(lambda: "our certificate has expired" in up(united).error)
            united.rotate(pair.world.identity("united"))
            assert (await united.to(DELTA, 10)).peer.party == "delta"

    run(test)


def test_status_counts_bytes_over_all_links_there_were() -> None:
    async def test() -> None:
        pair = Pair()
        async with pair.node("delta") as delta, pair.node("united"):
            link = await delta.to(UNITED, 10)
            await link.call("echo", bytes(100_000), timeout_seconds=5)
            link.abort("once more")
            link = await delta.to(UNITED, 10)
            await link.call("echo", bytes(100_000), timeout_seconds=5)
            await link.ping(5)
            status = up(delta)
            assert status.bytes_in > 200_000
            assert status.bytes_out > 200_000
            assert status.round_trip_ms is not None
            assert status.round_trip_ms > 0

    run(test)


def test_a_party_that_is_not_in_the_charter_is_named_as_such() -> None:
    async def test() -> None:
        async with Pair().node("delta") as delta:
            with pytest.raises(InvalidInput, match="no party 'jetblue' in the charter; there are united"):
                await delta.to(PartyId("jetblue"), 1)
            with pytest.raises(InvalidInput, match="own party"):
                await delta.to(DELTA, 1)

    run(test)


def test_an_address_in_use_is_named() -> None:
    async def test() -> None:
        pair = Pair()
        async with pair.node("delta"):
            with pytest.raises(Unavailable, match=r"cannot listen on .*: Address already in use"):
                await pair.node("delta").__aenter__()

    run(test)


# ── proxies ──


class Proxy:
    """An HTTP proxy that maps every host to loopback, and answers as it is told."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.port = 0
        self._serving: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.gather(*self._serving)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(request)
        writer.write(self.answer)
        if b" 200 " in self.answer:
            port = int(request.split(b" ")[1].rsplit(b":", 1)[1])
            onward_reader, onward = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(splice(reader, onward), splice(onward_reader, writer))
        else:
            writer.close()
            await writer.wait_closed()


async def splice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()
        await writer.wait_closed()


def test_a_proxy_in_the_environment_is_dialled_through() -> None:
    async def test() -> None:
        world = World()
        charter = world.charter()
        async with (
            Proxy(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n") as proxy,
            links_of(world.here("delta", charter), charter, {"echo": echo}) as delta,
        ):
            through = Proxies.of(
                {"https_proxy": f"http://ada:p%40ss@127.0.0.1:{proxy.port}", "NO_PROXY": "other.example"}
            )
            address = Address("delta.example", delta.listening[0].port)
            link = await dial(world.here("united", charter), address, proxies=through)
            assert await link.call("echo", b"through", timeout_seconds=5) == b"through"
            await link.close()
            assert proxy.requests[0].startswith(f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n".encode())
            assert b"Proxy-Authorization: Basic YWRhOnBAc3M=\r\n" in proxy.requests[0]

    run(test)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "refuses delta.example:7300 with status 403"),
        (b"nonsense\r\n\r\n", "refuses delta.example:7300 with status ?"),
        (b"x" * 10_000, "hung up, or is none"),
    ],
)
def test_a_proxy_that_refuses_is_named(answer: bytes, says: str) -> None:
    async def test() -> None:
        async with Proxy(answer) as proxy:
            with pytest.raises(JuntoError) as caught:
                await connect(Address("delta.example", 7300), Proxies(f"127.0.0.1:{proxy.port}"))
            assert says in str(caught.value)

    run(test)


@pytest.mark.parametrize(
    ("host", "through"),
    [
        ("node.delta.example", True),
        ("node.inside.example", False),
        ("inside.example", False),
        ("notinside.example", True),
        ("127.0.0.1", False),
        ("localhost", False),
        ("::1", False),
    ],
)
def test_no_proxy_names_hosts_and_their_domains(host: str, *, through: bool) -> None:
    proxies = Proxies.of({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".inside.example, 10.0.0.1"})
    assert bool(proxies.proxy_of(host)) == through


def test_a_peer_that_dials_and_is_turned_away_is_the_latest_news_of_it() -> None:
    async def turned_away() -> None:
        pair = Pair(settings=LinkSettings(first_retry_seconds=3600.0, longest_retry_seconds=3600.0))
        newer = replace(pair.world.here("united", pair.charter), charter_version=9, charter_digest=Digest("sha256:9"))
        async with pair.node("delta") as delta:
            await until(lambda: "refuses connections" in up(delta).error)
            with suppress(JuntoError):
                await dial(newer, delta.listening[0])
            await until(lambda: "charter differs" in up(delta).error)

    run(turned_away)


def test_an_address_that_says_nothing_holds_up_the_next_for_half_a_second_only() -> None:
    async def test() -> None:
        pair = Pair()
        silent = socket.create_server(("127.0.0.1", 0))  # like that of a stopped process: the kernel alone accepts
        deaf = Address("127.0.0.1", silent.getsockname()[1])
        failures: list[JuntoError] = []
        here = pair.world.here("united", pair.charter)

        def attempt(address: Address) -> Coroutine[None, None, Link]:
            return dial(here, address, settings=SWIFT, expected=DELTA)

        async with pair.node("delta"):
            began = asyncio.get_running_loop().time()
            link = await first_open([deaf, pair.addresses["delta"]], attempt, failures.append)
            assert link is not None
            assert link.peer.party == DELTA
            assert asyncio.get_running_loop().time() - began < SWIFT.connect_seconds / 2
            await link.close()
        assert await first_open([pair.addresses["delta"]], attempt, failures.append) is None
        assert len(failures) == 1
        silent.close()

    run(test)


def test_a_node_that_took_over_for_its_party_is_the_one_that_is_linked() -> None:
    async def test() -> None:
        pair = Pair()
        name = Name(CONSORTIUM, DELTA, NodeId("second"))
        key = Ed25519PrivateKey.generate()
        certificate = issue(pair.world.authorities["delta"], name, key.public_key(), time.time(), 3600.0)
        second = pair.world.here("delta", pair.charter, identity=Identity(name, key, certificate), instance="second")
        downs: list[str] = []
        nobody = [msgspec.structs.replace(member, addresses=()) for member in pair.charter.members]
        main = Links(  # which does not dial: it is to hang, not to come back
            pair.world.here("delta", pair.charter), nobody, handlers=pair.handlers, listen=pair.addresses["delta"]
        )
        async with main, pair.node("united") as united:
            united.watch(lambda party: None, lambda party, reason: downs.append(reason))
            first = await united.to(DELTA, 5)
            async with links_of(second, pair.charter, pair.handlers, settings=SWIFT):
                assert "delta/second has taken over" in await first.closed
                link = await united.to(DELTA, 5)
                assert link.peer == name
                assert await link.call("echo", b"still", timeout_seconds=5) == b"still"
                assert downs == []

    run(test)
