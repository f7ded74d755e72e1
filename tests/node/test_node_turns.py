# SPDX-License-Identifier: Apache-2.0
"""Turns at reading plans: one at a time for each party, few in all, and a share of the time for each but our own."""

import asyncio
from dataclasses import dataclass, field

import pytest

from junto.errors import Busy
from junto.node.turns import Turns
from junto.types import PartyId

ANN, BEA, CYD = (PartyId(name) for name in ("ann", "bea", "cyd"))


@dataclass
class World:
    """Turns at the node of ann, with a clock that is moved by hand."""

    now: float = 0.0
    order: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.turns = Turns(ANN, "reading plans", clock=lambda: self.now, at_once=2, seconds=10.0, share=0.5)

    async def take(self, party: PartyId, name: str, seconds: float = 0.0, until: asyncio.Event | None = None) -> None:
        """One turn of so many seconds."""
        async with self.turns.of(party):
            self.order.append(f"{name} begins")
            if until is not None:
                await until.wait()
            self.now += seconds
            self.order.append(f"{name} ends")


def test_one_party_takes_one_turn_at_a_time_and_others_pass() -> None:
    world = World()

    async def run() -> None:
        hold = asyncio.Event()
        one = asyncio.create_task(world.take(BEA, "b1", until=hold))
        await asyncio.sleep(0)
        two = asyncio.create_task(world.take(BEA, "b2"))
        await world.take(CYD, "c1")
        hold.set()
        await asyncio.gather(one, two)

    asyncio.run(run())
    assert world.order == ["b1 begins", "c1 begins", "c1 ends", "b1 ends", "b2 begins", "b2 ends"]


def test_a_party_that_has_had_its_share_is_told_when_to_ask_again() -> None:
    world = World()

    async def run() -> None:
        await world.take(BEA, "b1", seconds=12.0)
        with pytest.raises(Busy, match=r"bea has used its time for reading plans at ann \(10 s at once, then"):
            await world.take(BEA, "b2")
        await world.take(CYD, "c1", seconds=1.0)
        world.now += 10.0
        await world.take(BEA, "b3")

    asyncio.run(run())


def test_our_own_questions_have_no_share() -> None:
    world = World()

    async def run() -> None:
        for number in range(3):
            await world.take(ANN, f"a{number}", seconds=100.0)

    asyncio.run(run())


def test_a_party_with_many_waiting_is_refused() -> None:
    world = World()

    async def run() -> None:
        hold = asyncio.Event()
        waiting = [asyncio.create_task(world.take(BEA, f"b{n}", until=hold)) for n in range(64)]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="64 plans of bea waiting"):
            await world.take(BEA, "one more")
        hold.set()
        await asyncio.gather(*waiting)
        await world.take(BEA, "again")

    asyncio.run(run())
