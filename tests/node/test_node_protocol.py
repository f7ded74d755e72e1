# SPDX-License-Identifier: Apache-2.0
"""Secure machines driven as a node drives them: each party in a task of its own, pulling what it needs."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from junto.errors import PeerFault, Unavailable
from junto.node.protocol import drive
from junto.secure import maskedsum, threshold
from junto.secure.groupkeys import GroupCounts, PassedKeys, Selection
from junto.secure.terms import Terms
from junto.testing.secure import seeded
from junto.types import PartyId

BTS, DELTA, UNITED = PartyId("bts"), PartyId("delta"), PartyId("united")
OWNERS = (DELTA, UNITED)
NONE = np.zeros((0, 2))

Pull = Callable[[PartyId, str], Awaitable[bytes]]


class _Wires:
    """Every message waits for the party it is for, as in the outbox."""

    def __init__(self) -> None:
        self._kept: defaultdict[tuple[PartyId, PartyId, str], asyncio.Future[bytes]] = defaultdict(
            lambda: asyncio.get_running_loop().create_future()
        )

    def sender(self, party: PartyId) -> Callable[[PartyId, str, bytes], None]:
        return lambda to, name, payload: self._kept[party, to, name].set_result(payload)

    def puller(self, party: PartyId) -> Pull:
        async def pull(sender: PartyId, name: str) -> bytes:
            return await self._kept[sender, party, name]

        return pull


def test_three_parties_decide_a_threshold_and_then_sum() -> None:
    terms = Terms(OWNERS, BTS, (BTS, *OWNERS), 10)
    groups = {
        DELTA: GroupCounts([b"ewr", b"jfk"], np.array([[9, 3]]), NONE, NONE),
        UNITED: GroupCounts([b"ewr", b"lga"], np.array([[1, 50]]), NONE, NONE),
    }

    async def owner(wires: _Wires, party: PartyId) -> Selection:
        machine = threshold.contribute(party, terms, b"t", seeded(party), 0)
        return await drive(machine, lambda: _counts(party), wires.sender(party), wires.puller(party))

    async def _counts(party: PartyId) -> GroupCounts:
        await asyncio.sleep(0)
        return groups[party]

    async def receiver(wires: _Wires) -> PassedKeys:
        machine = threshold.receive_keys(terms, b"t", seeded("bts"))
        return await drive(machine, None, wires.sender(BTS), wires.puller(BTS))

    async def threshold_run() -> tuple[PassedKeys, Selection, Selection]:
        wires = _Wires()
        async with asyncio.timeout(10):
            return await asyncio.gather(receiver(wires), owner(wires, DELTA), owner(wires, UNITED))

    passed, delta, united = asyncio.run(threshold_run())
    assert set(passed.keys) == {b"ewr", b"lga"}
    assert not passed.some
    assert list(delta.own) == [True, False]
    assert list(united.own) == [True, True]

    vectors = {party: np.full((2, 100_000), number, dtype=np.uint64) for party, number in ((DELTA, 5), (UNITED, 2))}

    async def vector(party: PartyId) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
        return vectors[party]

    async def shape() -> tuple[int, int]:
        return 2, 100_000

    async def add(wires: _Wires, party: PartyId) -> None:
        machine = maskedsum.contribute(party, OWNERS, BTS, b"m", seeded(party))
        await drive(machine, lambda: vector(party), wires.sender(party), wires.puller(party))

    async def sum_run() -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
        wires = _Wires()
        machine = maskedsum.receive_sum(OWNERS, BTS)
        async with asyncio.timeout(10):
            total, _, _ = await asyncio.gather(
                drive(machine, shape, wires.sender(BTS), wires.puller(BTS)), add(wires, DELTA), add(wires, UNITED)
            )
        return total

    assert np.array_equal(asyncio.run(sum_run()), np.full((2, 100_000), 7, dtype=np.uint64))


def _received(pull: Pull, own: Callable[[], Awaitable[tuple[int, int]]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(10):
            await drive(maskedsum.receive_sum(OWNERS, BTS), own, lambda to, name, payload: None, pull)

    asyncio.run(run())


async def _never() -> bytes:
    never: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    return await never


async def _shape() -> tuple[int, int]:
    return 1, 2


def test_a_message_the_machine_refuses_is_a_peer_fault_and_ends_the_step() -> None:
    async def pull(sender: PartyId, name: str) -> bytes:
        return b"garbage"

    with pytest.raises(PeerFault, match=r"delta|united"):
        _received(pull, _shape)


def test_a_pull_that_fails_ends_the_step_as_it_failed_and_leaves_nobody_waiting() -> None:
    left: list[str] = []

    async def pull(sender: PartyId, name: str) -> bytes:
        if sender == DELTA:
            await asyncio.sleep(0)
            raise Unavailable("delta hung up")
        try:
            return await _never()
        finally:
            left.append(sender)

    with pytest.raises(Unavailable, match="delta hung up"):
        _received(pull, _shape)
    assert left == [UNITED]


def test_an_own_part_that_fails_ends_the_step_as_it_failed() -> None:
    async def pull(sender: PartyId, name: str) -> bytes:
        return await _never()

    async def own() -> tuple[int, int]:
        raise PeerFault("step t gives nothing")

    with pytest.raises(PeerFault, match="step t gives nothing"):
        _received(pull, own)


def test_an_own_part_is_not_begun_for_a_step_that_is_stopped_at_once() -> None:
    async def stopped() -> None:
        step = asyncio.create_task(drive(maskedsum.receive_sum(OWNERS, BTS), own, lambda to, name, payload: None, pull))
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step

    begun: list[str] = []

    async def own() -> tuple[int, int]:
        begun.append("own")
        return 1, 2

    async def pull(sender: PartyId, name: str) -> bytes:
        return await _never()

    asyncio.run(stopped())
    assert begun == []
