# SPDX-License-Identifier: Apache-2.0
"""What peers tell has its effect once, whatever becomes of the link it came over."""

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from junto.errors import InvalidInput, JuntoError, StorageFailed, Unavailable
from junto.journal.statement import Statement
from junto.link import methods
from junto.link.connection import Caller, Link
from junto.node.clocks import Clocks
from junto.node.exchange import Outbox, Pull
from junto.node.facts import Facts
from junto.node.ledger import Kept, Ledger
from junto.node.peers import Peers
from junto.node.quotas import Quota, Quotas
from junto.node.runner import Runner
from junto.tasks.bodies import Contract
from junto.trust.names import Name, parse_name
from junto.types import Digest, NodeId, PartyId, StepId, TaskId

_DELTA = Name("air", PartyId("delta"), NodeId("node-1"))


def _peers(ledger: Ledger, facts: Facts, runner: Runner, leads: Callable[[], bool] = lambda: True) -> Peers:
    quotas = Quotas(PartyId("united"), Quota(), lambda: 0.0, lambda _: 0, lambda *_: None)
    outbox, clocks = cast(Outbox, None), cast(Clocks, None)
    return Peers(
        ledger, facts, runner, outbox, 60.0, lambda: 0.0, lambda *_: None, leads, clocks, quotas, lambda _: None
    )


class _Desk:
    """A ledger whose disk is slow, and the facts it leads to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.keeping = asyncio.Event()
        self.durable = asyncio.Event()
        self.absorbed: list[str] = []
        self._kept: set[str] = set()
        self._failure = failure

    def open(self, envelope: bytes, sender: PartyId) -> Statement:
        return Statement(kind="dataset", author=_DELTA.uri, id=envelope.decode(), at=0.0, body=msgspec.Raw(b"{}"))

    def holds(self, envelope: bytes, statement: Statement) -> bool:
        return False

    async def keep(self, envelope: bytes, statement: Statement) -> Kept:
        new = statement.id not in self._kept
        self._kept.add(statement.id)  # a commit that has begun ends, whoever waits for it
        self.keeping.set()
        await self.durable.wait()
        if self._failure is not None:
            raise self._failure
        return Kept(statement, envelope, parse_name(statement.author), new)

    def absorb(self, kept: Kept) -> Sequence[str]:
        self.absorbed.append(kept.statement.id)
        return ()

    def peers(self) -> Peers:
        ledger, facts = cast(Ledger, self), cast(Facts, self)
        return _peers(ledger, facts, cast(Runner, None))


class _Stranger(_Desk):
    """A ledger to which a contract comes with the offer of a node whose certificate is on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.name = _DELTA
        self.knows = False
        self.leads = True

    def open(self, envelope: bytes, sender: PartyId) -> Statement:
        body = msgspec.Raw(msgspec.json.encode(Contract("p", Digest("sha256:0"), Digest("sha256:0"), ("offer",))))
        return Statement(kind="contract", author=_DELTA.uri, id="c", at=0.0, task=TaskId("t"), body=body)

    def knows_signers(self, contract: Contract) -> bool:
        return self.knows

    def find(self, task: TaskId) -> object:
        return SimpleNamespace(task=SimpleNamespace(proposal=SimpleNamespace(participants=("delta",))))

    @property
    def live(self) -> dict[TaskId, object]:
        return {TaskId("t"): self.find(TaskId("t"))}

    def peers(self) -> Peers:
        ledger, facts, runner = cast(Ledger, self), cast(Facts, self), cast(Runner, self)
        return _peers(ledger, facts, runner, lambda: self.leads)


class _Ignorant(_Stranger):
    """A ledger that a task has not come to; `leads`: whether no other node of its party can have it."""

    def __init__(self, *, leads: bool) -> None:
        super().__init__()
        self.leads = leads

    @property
    def live(self) -> dict[TaskId, object]:
        return {}


async def _link_lost(desk: _Desk, peers: Peers, payload: bytes) -> None:
    telling = asyncio.create_task(peers.tell(_caller(), payload))
    await desk.keeping.wait()
    telling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await telling
    desk.durable.set()


def _caller() -> Caller:
    return Caller(_DELTA, methods.PEER_TELL, 60.0, "", cast(Link, None))


def test_a_link_that_goes_down_between_disk_and_effect_takes_no_effect_away() -> None:
    async def story() -> None:
        desk = _Desk()
        peers = desk.peers()
        payload = msgspec.msgpack.encode(methods.Envelopes((b"one", b"two")))
        await _link_lost(desk, peers, payload)
        await peers.tell(_caller(), payload)  # told again over the next link: none of it is new
        assert desk.absorbed == ["one", "two"]

    asyncio.run(story())


def test_a_contract_with_the_offer_of_a_node_not_heard_of_yet_is_to_be_told_again_and_not_kept() -> None:
    async def story() -> None:
        desk = _Stranger()
        payload = msgspec.msgpack.encode(methods.Envelopes((b"contract",)))
        with pytest.raises(Unavailable, match="has not heard yet of a node whose offer delta took up"):
            await desk.peers().tell(_caller(), payload)
        assert not desk.keeping.is_set()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("leads", "refusal", "words"),
    [
        (True, InvalidInput, "delta speaks of task t, which is not known here"),
        (False, Unavailable, "this node of delta hung, and does not know yet whether it leads"),
    ],
)
def test_a_task_that_is_unknown_to_a_node_that_hung_is_to_be_told_again_to_the_one_that_leads(
    leads: bool, refusal: type[JuntoError], words: str
) -> None:
    async def story() -> None:
        desk = _Ignorant(leads=leads)
        contract = msgspec.msgpack.encode(methods.Envelopes((b"contract",)))
        pull = msgspec.msgpack.encode(Pull(TaskId("t"), StepId("s"), "rows", ""))
        for asked in (desk.peers().tell(_caller(), contract), desk.peers().pull(_caller(), pull)):
            with pytest.raises(refusal, match=words):
                await asked
        assert not desk.keeping.is_set()

    asyncio.run(story())


def test_a_failure_that_nobody_is_left_to_hear_of_is_no_fault_of_the_loop() -> None:
    async def story() -> None:
        heard: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
        desk = _Desk(StorageFailed("the disk is full"))
        await _link_lost(desk, desk.peers(), msgspec.msgpack.encode(methods.Envelopes((b"one",))))
        for _ in range(5):
            await asyncio.sleep(0)
        assert (heard, desk.absorbed) == ([], [])

    asyncio.run(story())
