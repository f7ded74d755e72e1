# SPDX-License-Identifier: Apache-2.0
"""Statements are delivered in order, together, again after a failure, and no longer than they last."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec
import pytest
from node_fakes import FakeLink, FakeLinks

from junto.errors import DeadlineExceeded, JuntoError, PeerFault, StorageFailed, Unavailable
from junto.link import methods
from junto.link.connection import Link
from junto.node.courier import Courier, Unrecorded
from junto.types import PartyId, TaskId

BTS, DELTA = PartyId("bts"), PartyId("delta")


@dataclass
class _World:
    """Two parties that take what they are told, unless `troubles` has something for the next call."""

    now: float = 100.0
    troubles: list[Exception] = field(default_factory=list)
    got: dict[str, list[list[bytes]]] = field(default_factory=dict)
    pauses: list[float] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    def courier(self) -> Courier:
        return Courier(FakeLinks(self._to).links, clock=lambda: self.now, pause=self._pause)

    async def _to(self, party: PartyId, timeout_seconds: float) -> Link:
        await self.reached.wait()

        async def call(method: str, payload: bytes) -> bytes:
            if self.troubles:
                raise self.troubles.pop(0)
            if method == methods.PEER_UNRECORDED:
                word = msgspec.msgpack.decode(payload, type=Unrecorded)
                self.got.setdefault(party, []).append([f"{word.task} {word.lack}".encode()])
                return b""
            assert method == methods.PEER_TELL
            told = msgspec.msgpack.decode(payload, type=methods.Envelopes)
            self.got.setdefault(party, []).append(list(told.envelopes))
            return b""

        link = FakeLink(party, call)
        link.timeouts = self.timeouts
        return link.link

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def _run(claim: Callable[[_World, Courier], Awaitable[None]], *troubles: Exception, reached: bool = True) -> _World:
    world = _World(troubles=list(troubles))

    async def within() -> None:
        courier = world.courier()
        if reached:
            world.reached.set()
        async with asyncio.timeout(10):
            await claim(world, courier)
        await courier.close()

    asyncio.run(within())
    return world


def test_what_waits_is_delivered_together_in_order() -> None:
    async def claim(world: _World, courier: Courier) -> None:
        for letter in (b"1", b"2", b"3"):
            courier.send(letter, (DELTA,), 10.0)
        await courier.flush(5.0)

    assert _run(claim).got == {DELTA: [[b"1", b"2", b"3"]]}


def test_each_party_has_its_own_queue() -> None:
    async def claim(world: _World, courier: Courier) -> None:
        courier.send(b"1", (BTS, DELTA), 10.0)
        courier.send(b"2", (BTS,), 10.0)
        await courier.flush(5.0)

    assert _run(claim).got == {BTS: [[b"1", b"2"]], DELTA: [[b"1"]]}


def test_large_statements_do_not_make_one_call_too_large() -> None:
    large = b"x" * (1 << 20)

    async def claim(world: _World, courier: Courier) -> None:
        for _ in range(5):
            courier.send(large, (DELTA,), 10.0)
        courier.send(b"x" * (3 << 20), (DELTA,), 10.0)
        await courier.flush(5.0)

    assert [len(batch) for batch in _run(claim).got[DELTA]] == [2, 2, 1, 1]


@pytest.mark.parametrize("trouble", [Unavailable("gone"), DeadlineExceeded("slow")])
def test_a_party_that_was_not_there_is_tried_again_and_nothing_is_lost_or_reordered(trouble: Exception) -> None:
    async def claim(world: _World, courier: Courier) -> None:
        courier.send(b"1", (DELTA,), 10.0)
        courier.send(b"2", (DELTA,), 10.0)
        await courier.flush(5.0)

    world = _run(claim, trouble, trouble)
    assert world.got == {DELTA: [[b"1", b"2"]]}
    assert len(world.pauses) == 2


def test_what_a_party_refuses_is_not_sent_again_and_the_next_goes_out() -> None:
    async def claim(world: _World, courier: Courier) -> None:
        courier.send(b"1", (DELTA,), 10.0)
        await courier.flush(5.0)
        courier.send(b"2", (DELTA,), 10.0)
        await courier.flush(5.0)

    assert _run(claim, PeerFault("no")).got == {DELTA: [[b"2"]]}


def test_who_handed_in_what_a_party_refuses_is_told_and_the_others_go_out_one_by_one() -> None:
    told: list[tuple[PartyId, str]] = []

    async def claim(world: _World, courier: Courier) -> None:
        for letter in (b"1", b"2", b"3"):
            courier.send(letter, (DELTA,), 10.0, lambda party, error: told.append((party, str(error))))
        await courier.flush(5.0)

    assert _run(claim, PeerFault("one of them"), PeerFault("the first")).got == {DELTA: [[b"2"], [b"3"]]}
    assert told == [(DELTA, "the first")]


def test_a_party_without_room_is_tried_again_but_not_with_what_somebody_waits_for() -> None:
    told: list[JuntoError] = []

    async def claim(world: _World, courier: Courier) -> None:
        courier.send(b"1", (DELTA,), 10.0)
        courier.send(b"awaited", (DELTA,), 10.0, lambda party, error: told.append(error))
        courier.send(b"2", (DELTA,), 10.0)
        await courier.flush(5.0)

    world = _run(claim, StorageFailed("full"), StorageFailed("full"))
    assert world.got == {DELTA: [[b"1", b"2"]]}
    assert [error.code for error in told] == ["storage-failed"]
    assert len(world.pauses) == 2


def test_the_word_that_no_statement_says_goes_alone_after_the_statements_before_it() -> None:
    async def claim(world: _World, courier: Courier) -> None:
        courier.send(b"1", (DELTA,), 10.0)
        courier.send(b"2", (DELTA,), 10.0)
        courier.send_unrecorded(TaskId("01jtask"), "is full", (DELTA,), 10.0)
        courier.send(b"3", (DELTA,), 10.0)
        await courier.flush(5.0)

    assert _run(claim, Unavailable("gone")).got == {DELTA: [[b"1", b"2"], [b"01jtask is full"], [b"3"]]}


def test_a_statement_that_has_expired_is_given_up_and_the_others_go_on() -> None:
    async def claim(world: _World, courier: Courier) -> None:
        courier.send(b"short", (DELTA,), 0.5)
        courier.send(b"long", (DELTA,), 60.0)
        await courier.flush(5.0)

    world = _run(claim, *[Unavailable("gone")] * 4)
    assert world.got == {DELTA: [[b"long"]]}


def test_nothing_is_tried_for_longer_than_it_lasts() -> None:
    async def claim(world: _World, courier: Courier) -> None:
        courier.send(b"1", (DELTA,), 1.0)
        await courier.flush(5.0)

    world = _run(claim, *[Unavailable("gone")] * 100)
    assert world.got == {}
    assert world.now <= 101.2
    assert max(world.timeouts) <= 1.0


def test_what_comes_while_a_delivery_is_under_way_follows_it() -> None:
    async def claim(world: _World, courier: Courier) -> None:
        courier.send(b"1", (DELTA,), 10.0)
        await asyncio.sleep(0)
        courier.send(b"2", (DELTA,), 10.0)
        world.reached.set()
        await courier.flush(5.0)

    assert [letter for batch in _run(claim, reached=False).got[DELTA] for letter in batch] == [b"1", b"2"]


def test_closing_stops_what_cannot_be_delivered() -> None:
    async def claim(world: _World, courier: Courier) -> None:
        courier.send(b"1", (DELTA,), 10.0)
        await asyncio.sleep(0)

    assert _run(claim, reached=False).got == {}
