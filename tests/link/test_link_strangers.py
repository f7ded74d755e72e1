# SPDX-License-Identifier: Apache-2.0
"""Strangers that hold connections open, or open them without end, keep no member out and do not fill the log."""

import asyncio
import resource

import pytest
from link_world import ANY_PORT, World
from structlog.testing import capture_logs

from junto.link.dial import dial
from junto.link.links import Links
from junto.link.settings import LinkSettings
from junto.link.strangers import Stranger, Tally, gives_way, network_of


def _held(*strangers: tuple[str, bool]) -> dict[int, Stranger]:
    return dict(enumerate(Stranger(network, spoke) for network, spoke in strangers))


def test_the_network_with_most_connections_gives_way() -> None:
    held = _held(("a", False), ("b", True), ("b", True), ("c", False))
    assert gives_way(held, "d") == 1
    assert gives_way(held, "c") == 3  # with the newcomer it holds as many, and this one sent nothing


def test_of_one_network_who_sent_nothing_gives_way_and_the_oldest_of_these() -> None:
    assert gives_way(_held(("a", True), ("a", False), ("a", False)), "a") == 1
    assert gives_way(_held(("a", True), ("a", True)), "a") == 0


def test_a_newcomer_of_a_full_network_pushes_out_its_own() -> None:
    assert gives_way(_held(("a", False), ("b", True)), "b") == 1


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_addresses_of_one_subscriber_share_one_limit(host: str, network: str) -> None:
    assert network_of(host) == network


def test_a_tally_tells_the_first_and_then_counts() -> None:
    tally = Tally(60.0)
    assert [tally.due(now) for now in (0.0, 1.0, 59.0, 60.0, 61.0)] == [0, None, None, 2, None]


def test_a_flood_of_silent_connections_keeps_no_member_out_and_logs_two_lines() -> None:
    world = World()
    settings = LinkSettings(connect_seconds=30.0, strangers=8)

    async def claim() -> tuple[int, int]:
        links = Links(
            world.here("delta", world.charter()),
            world.charter().members,
            handlers={},
            listen=ANY_PORT,
            settings=settings,
        )
        async with links:
            address = links.listening[0]
            most, stopped = 0, asyncio.Event()
            flood: set[asyncio.StreamWriter] = set()

            async def flooding() -> None:
                nonlocal most
                while not stopped.is_set():
                    _, writer = await asyncio.open_connection(address.host, address.port)
                    flood.add(writer)
                    most = max(most, links._listener.strangers)

            jobs = [asyncio.create_task(flooding()) for _ in range(4)]
            opened = 0
            for _ in range(5):
                link = await dial(world.here("united", world.charter()), address)
                opened += 1
                await link.close()
            stopped.set()
            await asyncio.gather(*jobs)
            for writer in flood:
                writer.close()
            return opened, most

    with capture_logs() as lines:
        opened, most = asyncio.run(claim())
    assert opened == 5
    assert most <= 9  # the newcomer is there before the one that gives way is gone
    assert sum(line["event"] == "connection refused" and "party" not in line for line in lines) <= 2


def test_strangers_hold_an_eighth_of_the_files_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    links = Links(world.here("delta", world.charter()), world.charter().members, handlers={})
    assert links._listener._most == 8
