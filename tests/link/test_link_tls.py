# SPDX-License-Identifier: Apache-2.0
"""Real TLS on loopback: who gets in, who does not, and what each side is told."""

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from link_world import ANY_PORT, World, echo, links_of

from junto.errors import JuntoError, PeerFault, Refused, Unavailable
from junto.link.connection import Answer, Caller
from junto.link.dial import Here, dial
from junto.link.frames import FRAME_BYTES, Call, encode
from junto.link.links import Links
from junto.link.settings import LinkSettings
from junto.link.tls import ALPN, client_context
from junto.trust.names import Address
from junto.types import PartyId

DELTA, UNITED = PartyId("delta"), PartyId("united")
QUICK = LinkSettings(connect_seconds=2.0)


def with_listener(
    world: World, test: Callable[[Links, Address], Awaitable[None]], settings: LinkSettings = QUICK
) -> None:
    """Run the test against delta's listening node."""

    async def run() -> None:
        charter = world.charter()
        async with links_of(world.here("delta", charter), charter, {"echo": echo}, settings=settings) as links:
            await test(links, links.listening[0])

    asyncio.run(run())


def dial_fault(world: World, here: Here, expected: PartyId | None = None) -> JuntoError:
    """How dialling delta as `here` fails."""
    found: list[JuntoError] = []

    async def test(links: Links, address: Address) -> None:
        with pytest.raises(JuntoError) as caught:
            await dial(here, address, settings=QUICK, expected=expected)
        found.append(caught.value)

    with_listener(world, test)
    return found[0]


def test_both_sides_know_whom_the_other_sides_certificate_names() -> None:
    world = World()

    async def test(links: Links, address: Address) -> None:
        link = await dial(world.here("united", world.charter()), address, settings=QUICK)
        assert (link.peer.party, link.peer.node) == ("delta", "main")
        back = await links.to(UNITED, 2)
        assert back.peer.uri == "spiffe://skies/united/main"
        await link.close()

    with_listener(world, test)


def test_a_name_from_another_partys_authority_is_refused() -> None:
    world = World(("delta", "united", "jetblue"))
    forged = world.identity("united", signed_by="jetblue")
    error = dial_fault(world, world.here("united", world.charter(), identity=forged))
    assert isinstance(error, PeerFault)
    assert "authority" in str(error)
    assert "united" in str(error)


def test_a_listener_with_another_partys_name_is_not_believed() -> None:
    world = World(("delta", "united", "jetblue"))
    forged = world.identity("delta", signed_by="jetblue")
    charter = world.charter()

    async def run() -> None:
        async with links_of(world.here("delta", charter, identity=forged), charter, {"echo": echo}) as links:
            with pytest.raises(PeerFault, match="authority"):
                await dial(world.here("united", charter), links.listening[0], settings=QUICK)

    asyncio.run(run())


def test_an_authority_outside_the_charter_is_refused_in_plain_words() -> None:
    error = dial_fault(World(), World().here("united", World().charter()))
    assert isinstance(error, Unavailable)
    assert "foreign authority" in str(error)


def test_the_stranger_learns_that_its_authority_is_unknown() -> None:
    world, other = World(), World()
    here = replace(other.here("united", world.charter()), identity=other.identity("united"))
    assert "does not know our certificate authority" in str(dial_fault(world, here))


def test_an_expired_certificate_is_refused() -> None:
    world = World()
    old = world.identity("united", begins=time.time() - 7200, lives=3600)
    assert "our certificate has expired" in str(dial_fault(world, world.here("united", world.charter(), identity=old)))


def test_a_certificate_that_is_not_valid_yet_is_refused() -> None:
    world = World()
    early = world.identity("united", begins=time.time() + 7200)
    error = dial_fault(world, world.here("united", world.charter(), identity=early))
    assert "compare both clocks" in str(error)


def test_an_address_that_leads_to_another_party_is_refused() -> None:
    world = World(("delta", "united", "jetblue"))
    error = dial_fault(world, world.here("united", world.charter()), expected=PartyId("jetblue"))
    assert isinstance(error, Refused)
    assert "answers as delta/main, not jetblue" in str(error)


def test_both_sides_say_how_their_charters_differ() -> None:
    world = World()
    reasons: list[str] = []

    async def test(links: Links, address: Address) -> None:
        newer = world.charter(version=2)
        with pytest.raises(JuntoError) as caught:
            await dial(world.here("united", newer), address, settings=QUICK)
        reasons.append(str(caught.value))
        assert links.status()[0].up is False

    with_listener(world, test)
    old, new = world.charter().digest[:19], world.charter(version=2).digest[:19]
    assert reasons == [
        f"charter differs: here version 2 {new}…, at delta/main version 1 {old}…: give the newer to them"
    ]


def test_a_user_of_another_party_is_sent_to_its_own_node() -> None:
    world = World()

    async def test(links: Links, address: Address) -> None:
        user = world.here("united", world.charter(), identity=world.identity("united", user="ada"))
        link = await dial(user, address, settings=QUICK)
        assert "users talk to their own party's node" in await link.closed
        await link.close()

    with_listener(world, test)


def test_a_user_of_the_same_party_calls_its_node() -> None:
    world = World()

    async def test(links: Links, address: Address) -> None:
        user = world.here("delta", world.charter(), identity=world.identity("delta", user="ada"))
        link = await dial(user, address, settings=QUICK)
        assert await link.call("echo", b"hello", timeout_seconds=5) == b"hello"
        await link.close()

    with_listener(world, test)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


async def raw_tls(here: Here, address: Address, alpn: str = ALPN) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A TLS connection that speaks no Junto."""
    context = client_context(here.identity, here.authorities)
    context.set_alpn_protocols([alpn])
    return await asyncio.open_connection(address.host, address.port, ssl=context, server_hostname="")


def test_tls_below_1_3_is_refused() -> None:
    world = World()

    async def test(links: Links, address: Address) -> None:
        here = world.here("united", world.charter())
        context = client_context(here.identity, here.authorities)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection(address.host, address.port, ssl=context, server_hostname="")

    with_listener(world, test)


def test_a_peer_without_a_certificate_is_refused() -> None:
    world = World()

    async def test(links: Links, address: Address) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context, server_hostname="")
        with pytest.raises(ssl.SSLError, match="certificate required"):
            await reader.read()
        await hang_up(writer)

    with_listener(world, test)


def test_a_peer_that_speaks_another_protocol_over_our_tls_is_refused() -> None:
    world = World()

    async def test(links: Links, address: Address) -> None:
        reader, writer = await raw_tls(world.here("united", world.charter()), address, alpn="h2")
        assert b"not a Junto node" in await reader.read()
        await hang_up(writer)

    with_listener(world, test)


def test_an_authenticated_peer_that_claims_a_large_frame_is_cut() -> None:
    world = World()

    async def test(links: Links, address: Address) -> None:
        reader, writer = await raw_tls(world.here("united", world.charter()), address)
        writer.write((FRAME_BYTES + 1).to_bytes(4, "big") + b"\0\5hello")
        assert b"a frame claims 4,194,309 bytes" in await reader.read()
        await hang_up(writer)

    with_listener(world, test)


def test_a_peer_that_asks_and_never_reads_is_cut() -> None:
    world = World()
    settings = LinkSettings(unsent_bytes=2 * 1024 * 1024)
    asked = 0

    async def large(caller: Caller, payload: bytes) -> Answer:
        nonlocal asked
        asked += 1
        for _ in range(5 * asked):  # an answer in every few turns of the loop: they are not sent all together
            await asyncio.sleep(0)
        return bytes(1_000_000)

    async def test() -> None:
        charter = world.charter()
        here = world.here("united", charter)
        async with links_of(world.here("delta", charter), charter, {"large": large}, settings=settings) as links:
            reader, writer = await raw_tls(here, links.listening[0])
            writer.write(encode(here.hello(settings)))
            await reader.readexactly(10)
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's is one that can
            link = await links.to(UNITED, 5)
            for number in range(1, 65):
                writer.write(encode(Call(number, "large", 30_000, "")))
            assert await link.closed == "united/main does not read: 2,097,152 bytes wait"
            assert link.bytes_out < 64_000_000
            await hang_up(writer)

    asyncio.run(test())


def test_a_peer_that_never_greets_is_cut_in_time() -> None:
    world = World()

    async def test(links: Links, address: Address) -> None:
        reader, writer = await raw_tls(world.here("united", world.charter()), address)
        await reader.read()
        await hang_up(writer)

    with_listener(world, test, LinkSettings(connect_seconds=0.2))


def test_a_connection_that_never_shakes_hands_is_cut_in_time() -> None:
    async def test(links: Links, address: Address) -> None:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"\x16")
        assert await reader.read() == b""
        await hang_up(writer)

    with_listener(World(), test, LinkSettings(connect_seconds=0.2))


def test_too_many_strangers_push_out_the_oldest_and_a_member_still_gets_in() -> None:
    world = World()

    async def test(links: Links, address: Address) -> None:
        strangers = [await asyncio.open_connection(address.host, address.port) for _ in range(6)]
        link = await dial(world.here("united", world.charter()), address)
        assert await strangers[0][0].read() == b""
        assert await link.call("echo", b"in", timeout_seconds=5) == b"in"
        for _, writer in strangers:
            await hang_up(writer)
        await link.close()

    with_listener(world, test, LinkSettings(connect_seconds=30.0, strangers=4))


def test_garbage_from_anyone_harms_nobody() -> None:
    world = World()

    async def test(links: Links, address: Address) -> None:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 1000, b"\x16\x03\x01\xff\xff" + b"\xff" * 500):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(garbage)
            writer.write_eof()
            await reader.read()
            await hang_up(writer)
        link = await dial(world.here("united", world.charter()), address)
        assert await link.call("echo", b"in", timeout_seconds=5) == b"in"
        await link.close()

    with_listener(world, test)


def unreachable(address: Address, settings: LinkSettings = QUICK) -> str:
    """What dialling this address says."""
    world = World()
    with pytest.raises(Unavailable) as caught:
        asyncio.run(dial(world.here("united", world.charter()), address, settings=settings))
    return str(caught.value)


def test_a_port_nobody_listens_on_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert unreachable(Address("127.0.0.1", port)) == (
        f"127.0.0.1:{port} refuses connections: is the node running, and is this its port?"
    )


def test_a_host_name_that_does_not_exist_is_named() -> None:
    assert "no.such.host.invalid: no such name here" in unreachable(Address("no.such.host.invalid", 7300))


async def first_reply(answer: bytes) -> asyncio.Server:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        await writer.drain()
        writer.close()

    return await asyncio.start_server(reply, ANY_PORT.host, 0)


@pytest.mark.parametrize(
    ("answer", "says"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak TLS: not a Junto node"), (b"", "not a Junto node")],
)
def test_what_is_not_a_junto_node_is_called_so(answer: bytes, says: str) -> None:
    world = World()

    async def run() -> None:
        async with await first_reply(answer) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(Unavailable, match=says):
                await dial(world.here("united", world.charter()), Address("127.0.0.1", port), settings=QUICK)

    asyncio.run(run())


def test_a_host_that_accepts_and_says_nothing_is_given_up() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(5)
        address = Address("127.0.0.1", deaf.getsockname()[1])
        said = unreachable(address, LinkSettings(connect_seconds=0.2))
    assert said.startswith(f"{address}: the TLS handshake did not end within 0.2 s")
