# SPDX-License-Identifier: Apache-2.0
"""What `junto doctor` is told of a way, step by step."""

import asyncio
import time
from collections.abc import Callable

import pytest
from link_world import World, echo, free_addresses, links_of

from junto.errors import PeerFault
from junto.link.connection import Answer, Caller
from junto.link.dial import Here, Proxies
from junto.link.frames import Hello
from junto.link.greeting import difference
from junto.link.probe import PROBE, Line, ask_back, probe, probing_back
from junto.link.settings import LinkSettings
from junto.types import PartyId

DELTA, UNITED = PartyId("delta"), PartyId("united")
QUICK = LinkSettings(connect_seconds=2.0)
STEPS = ["name", "tcp", "tls", "certificate", "clock", "version", "charter", "call"]


def tried(here: Callable[[World], Here], *, node: Callable[[World], Here] | None = None) -> list[Line]:
    """United's probe, as `here`, of delta's node."""
    world = World()

    async def run() -> list[Line]:
        charter = world.charter()
        delta = node(world) if node is not None else world.here("delta", charter)
        async with links_of(delta, charter, settings=QUICK) as links:
            return await probe(here(world), DELTA, (str(links.listening[0]),), settings=QUICK)

    return asyncio.run(run())


def test_a_good_way_passes_every_step() -> None:
    lines = tried(lambda world: world.here("united", world.charter()))
    assert [line.step for line in lines] == STEPS
    assert all(line.ok and not line.mend for line in lines)
    found = {line.step: line.detail for line in lines}
    assert found["name"] == "127.0.0.1"
    assert found["certificate"].startswith("spiffe://skies/delta/main, 1.0 h left")
    assert found["version"] == "Junto 0.1.0, protocol 2"


def failed(lines: list[Line]) -> Line:
    """The one step that failed, with its mend."""
    (bad,) = [line for line in lines if not line.ok]
    assert bad.mend
    return bad


def test_a_wrong_clock_is_named_and_the_rest_is_still_tried() -> None:
    lines = tried(
        lambda world: world.here("united", world.charter()),
        node=lambda world: world.here("delta", world.charter(), unix_time=lambda: time.time() + 90),
    )
    assert failed(lines).step == "clock"
    assert "ahead of ours" in failed(lines).detail
    assert [line.step for line in lines] == STEPS


def test_another_charter_is_named_with_both_versions() -> None:
    bad = failed(tried(lambda world: world.here("united", world.charter(version=7))))
    assert bad.step == "charter"
    assert "here version 7 sha256:" in bad.detail
    assert "at delta/main version 1 sha256:" in bad.detail


def test_our_expired_certificate_is_named() -> None:
    def expired(world: World) -> Here:
        old = world.identity("united", begins=time.time() - 7200, lives=3600)
        return world.here("united", world.charter(), identity=old)

    bad = failed(tried(expired))
    assert bad.step == "our certificate"
    assert "our certificate has expired" in bad.detail


def test_their_expired_certificate_is_named() -> None:
    def expired(world: World) -> Here:
        old = world.identity("delta", begins=time.time() - 7200, lives=3600)
        return world.here("delta", world.charter(), identity=old)

    bad = failed(tried(lambda world: world.here("united", world.charter()), node=expired))
    assert (bad.step, "has expired" in bad.detail) == ("tls", True)


def test_a_node_of_another_party_is_named() -> None:
    lines = tried(
        lambda world: world.here("united", world.charter()), node=lambda world: world.here("united", world.charter())
    )
    assert failed(lines).step == "certificate"
    assert "answers as united/main, not delta" in failed(lines).detail


def test_a_closed_port_and_an_unknown_name_are_named() -> None:
    async def run() -> list[Line]:
        world = World()
        (address,) = free_addresses(1)
        here = world.here("united", world.charter())
        return await probe(here, DELTA, (str(address), "no.such.host.invalid:7300"), settings=QUICK)

    lines = asyncio.run(run())
    assert [(line.step, line.ok) for line in lines] == [("name", True), ("tcp", False), ("name", False)]
    assert "refuses connections" in lines[1].detail
    assert "no such name here" in lines[2].detail


def test_a_party_without_an_address_is_no_failure() -> None:
    world = World()
    (line,) = asyncio.run(probe(world.here("united", world.charter()), DELTA, ()))
    assert line.ok
    assert "dials us" in line.detail


def test_through_a_proxy_the_name_is_left_to_it() -> None:
    async def run() -> list[Line]:
        world = World()
        (address,) = free_addresses(1)
        proxies = Proxies(f"http://{address}")
        here = world.here("united", world.charter())
        return await probe(here, DELTA, ("delta.example:7300",), settings=QUICK, proxies=proxies)

    lines = asyncio.run(run())
    assert lines[0] == Line("name", "delta.example:7300", True, "left to the proxy")
    assert failed(lines).step == "tcp"


def test_a_peer_probes_back_and_no_link_is_replaced() -> None:
    async def run() -> None:
        world = World()
        first, second = free_addresses(2)
        charter = world.charter({"delta": first, "united": second})
        handlers = {"echo": echo}
        delta = links_of(world.here("delta", charter), charter, handlers, listen=first)
        delta.handlers = {PROBE: probing_back(delta)}
        united = links_of(world.here("united", charter), charter, handlers, listen=second)
        async with delta, united:
            link = await united.to(DELTA, 10)
            lines = await ask_back(link, 10)
            assert [line.step for line in lines] == STEPS
            assert all(line.ok for line in lines)
            lines = await probe(united.here, DELTA, (str(first),))
            assert all(line.ok for line in lines)
            assert await (await delta.to(UNITED, 5)).call("echo", b"still up", timeout_seconds=5) == b"still up"
            assert len(delta.connections(UNITED)) == 1

    asyncio.run(run())


def test_a_report_that_is_none_is_the_peers_fault() -> None:
    async def lie(caller: Caller, payload: bytes) -> Answer:
        return b"all is well"

    async def run() -> None:
        world = World()
        (address,) = free_addresses(1)
        charter = world.charter({"delta": address})
        async with (
            links_of(world.here("delta", charter), charter, {PROBE: lie}, listen=address),
            links_of(world.here("united", charter), charter, listen=None) as united,
        ):
            with pytest.raises(PeerFault, match="something else than lines"):
                await ask_back(await united.to(DELTA, 10), 10)

    asyncio.run(run())


def test_a_side_without_a_charter_is_not_compared_by_it() -> None:
    here = Hello(1, 1, "0.1.0", "skies", 0, "", "spiffe://skies/delta/user/ada", "one", 0.0, 4, 4)
    there = Hello(1, 1, "0.1.0", "skies", 3, "sha256:aa", "spiffe://skies/delta/main", "two", 0.0, 4, 4)
    assert difference(here, there) == difference(there, here) == ""
