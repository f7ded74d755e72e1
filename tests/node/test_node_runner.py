# SPDX-License-Identifier: Apache-2.0
"""What the machines order is done in order, one thing durable before the next; whatever fails ends the task by name."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

import msgspec
import pytest

from junto.errors import InvalidInput, InvalidTransition, Lack, PeerFault, StorageFailed
from junto.journal.statement import Statement
from junto.node.courier import Courier, Refused
from junto.node.ledger import Kept, Ledger
from junto.node.runner import Live, Runner
from junto.plan import steps
from junto.plan.steps import Plan, Query, Release
from junto.tasks.bodies import Contract, Estimate, Finished, Offer, Proposal, Refusal, Stop
from junto.tasks.events import (
    ContractArrived,
    Forbidden,
    OfferArrived,
    Opened,
    Permitted,
    RefusalArrived,
    Released,
    StopArrived,
)
from junto.tasks.state import Task
from junto.tasks.table import ENDED
from junto.tasks.waiting import Patience
from junto.trust.names import Name
from junto.types import Digest, NodeId, PartyId, StepId, TaskId

BTS, DELTA = PartyId("bts"), PartyId("delta")
JUDGED = Digest("sha256:" + "d" * 64)
TASK = TaskId("01jtask")
PLAN = Plan("SELECT 1", BTS, (Query(StepId("q"), DELTA, "SELECT 1", ()), Release(StepId("r"), BTS, "SELECT 1")))
PLAN_DIGEST = steps.digest(PLAN)


def _proposal(seconds: float = 60.0) -> Proposal:
    return Proposal(PLAN, PLAN_DIGEST, (BTS, DELTA), "ana", "", seconds)


@dataclass
class _World:
    """One node without disk or links: what it did stands in `did`, in order."""

    me: PartyId = BTS
    did: list[str] = field(default_factory=list)
    verdict: Permitted | Forbidden | Exception = field(default_factory=lambda: Permitted(JUDGED, (), Estimate(), 0.0))
    full_at: str = ""  # the kind of statement for which there is no room
    full_times: int = 1_000_000  # how often there is none
    slow_at: str = ""  # the kind of statement whose writing waits for `written`
    written: asyncio.Event = field(default_factory=asyncio.Event)
    down: dict[PartyId, str] = field(default_factory=dict)
    not_taken_in: Refused | None = None  # whom the courier would tell
    working: asyncio.Event = field(default_factory=asyncio.Event)
    patience: Patience = field(default_factory=Patience)
    let_go: list[TaskId] = field(default_factory=list)

    def runner(self) -> Runner:
        return Runner(
            self.me,
            cast(Ledger, self),
            cast(Courier, self),
            self.patience,
            self._judge,
            self._perform,
            lambda live: self.did.append("forget"),
            self.let_go.append,
            lambda live, absent: self.did.append(f"go on without {', '.join(absent)}"),
            self.down.get,
            time.time,
        )

    async def write(self, kind: str, body: msgspec.Struct, task: TaskId) -> Kept:
        """The ledger's."""
        if kind == self.full_at and self.full_times > 0:
            self.full_times -= 1
            raise StorageFailed("no space left for the journal in /home/4242", lack="is full")
        if kind == self.slow_at:
            await self.written.wait()
        await asyncio.sleep(0)
        self.did.append(f"write {kind}")
        name = Name("sky", self.me, node=NodeId("n1"))
        raw = msgspec.Raw(msgspec.json.encode(body))
        statement = Statement(kind=kind, author=name.uri, id=f"id of {kind}", at=0.0, task=task, body=raw)
        return Kept(statement, kind.encode(), name)

    def send_unrecorded(self, task: TaskId, lack: Lack, to: tuple[PartyId, ...], seconds: float) -> None:
        """The courier's."""
        self.did.append(f"tell {', '.join(to)} without a statement that the disk {lack}")

    def send(self, envelope: bytes, to: tuple[PartyId, ...], seconds: float, refused: Refused | None = None) -> None:
        """The courier's."""
        if refused is not None:
            self.not_taken_in = refused
        if to:
            self.did.append(f"send {envelope.decode()} to {', '.join(to)}")

    async def _judge(self, task: Task) -> Permitted | Forbidden:
        await asyncio.sleep(0)
        self.did.append("judge")
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict

    async def _perform(self, live: Live) -> None:
        self.did.append("perform")
        self.working.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.did.append("work ends")


def _run(world: _World, claim: Callable[[Runner], Awaitable[None]]) -> None:
    async def within() -> None:
        runner = world.runner()
        try:
            async with asyncio.timeout(10):
                await claim(runner)
        finally:
            await runner.close()

    asyncio.run(within())


async def _settled(live: Live) -> None:
    """Let the task do all that it ordered so far."""
    while live.carrier is not None and not live.carrier.done():
        await asyncio.wait([live.carrier])


def _delta_offers() -> OfferArrived:
    return OfferArrived(DELTA, Offer("id of proposal", PLAN_DIGEST, JUDGED), "envelope", 0.0)


async def _running(runner: Runner, world: _World) -> Live:
    live = runner.ask(TASK, _proposal())
    await _settled(live)
    runner.dispatch(live, _delta_offers())
    await world.working.wait()
    return live


def test_an_asker_does_one_thing_after_the_other_each_durable_before_it_is_sent() -> None:
    world = _World()

    async def claim(runner: Runner) -> None:
        live = await _running(runner, world)
        runner.dispatch(live, Released(JUDGED, 1, "unknown", live.task.opened_at + 1))
        await _settled(live)
        assert live.task.state == "done"
        assert live.receipt_statement == "id of receipt"

    _run(world, claim)
    assert world.did == [
        "write proposal",
        "send proposal to delta",
        "judge",
        "write offer",
        "write contract",
        "send contract to delta",
        "perform",
        "write receipt",
        "send receipt to delta",
        "forget",
        "work ends",
    ]


def test_nothing_is_sent_or_performed_while_what_precedes_it_is_not_durable() -> None:
    world = _World(slow_at="contract")

    async def claim(runner: Runner) -> None:
        live = runner.ask(TASK, _proposal())
        await _settled(live)
        runner.dispatch(live, _delta_offers())
        for _ in range(20):
            await asyncio.sleep(0)
        assert (live.task.state, world.did[-1]) == ("running", "write offer")
        assert not live.contracted.is_set()
        world.written.set()
        await world.working.wait()
        assert world.did[-3:] == ["write contract", "send contract to delta", "perform"]
        assert live.contracted.is_set()

    _run(world, claim)


def test_an_owner_offers_and_performs_the_contract() -> None:
    world = _World(me=DELTA)

    async def claim(runner: Runner) -> None:
        runner.open_proposal(TASK, BTS, "p1", _proposal())
        live = runner.find(TASK)
        await _settled(live)
        assert world.did == ["judge", "write offer", "send offer to bts"]
        contract = Contract("p1", PLAN_DIGEST, JUDGED, ("", ""))
        offers = tuple((party, Offer("p1", PLAN_DIGEST, JUDGED)) for party in (BTS, DELTA))
        runner.dispatch(live, ContractArrived(BTS, "c1", contract, offers, 0.0))
        assert live.contracted.is_set()
        await world.working.wait()

    _run(world, claim)


@pytest.mark.parametrize(
    ("verdict", "code", "reason"),
    [
        (Forbidden("refused", "column x: no rule", 0.0), "refused", "column x: no rule"),
        (StorageFailed("no space left in /home/4242"), "storage-failed", "the disk of delta is full or failing"),
        (KeyError("4242"), "internal", "a fault of this node (KeyError)"),
    ],
)
def test_a_judgement_that_fails_is_told_to_the_asker_like_any_refusal(
    verdict: Forbidden | Exception, code: str, reason: str
) -> None:
    world = _World(me=DELTA, verdict=verdict)

    async def claim(runner: Runner) -> None:
        runner.open_proposal(TASK, BTS, "p1", _proposal())
        live = runner.find(TASK)
        await _settled(live)
        assert live.task.outcome is not None
        assert live.task.outcome.code == code
        assert reason in live.task.outcome.reason
        assert "4242" not in live.task.outcome.reason

    _run(world, claim)
    assert world.did == ["judge", "write refusal", "send refusal to bts", "forget"]


def test_a_party_that_does_not_take_in_a_proposal_has_refused() -> None:
    world = _World()

    async def claim(runner: Runner) -> None:
        live = runner.ask(TASK, _proposal())
        await _settled(live)
        assert world.not_taken_in is not None
        world.not_taken_in(DELTA, StorageFailed("the disk of delta is full"))
        await _settled(live)
        assert live.task.outcome is not None
        assert (live.task.outcome.party, live.task.outcome.code) == (DELTA, "storage-failed")
        assert live.task.outcome.reason == "delta did not take in the proposal: the disk of delta is full"
        world.not_taken_in(DELTA, StorageFailed("once more"))  # it has ended

    _run(world, claim)


_UNSAID = "tell {} without a statement that the disk is full"


@pytest.fixture
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without room is given two looks."""
    monkeypatch.setattr("junto.node.retries._FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("junto.node.retries.ROOM_SECONDS", 0.002)


def test_a_participant_without_room_offers_when_it_has_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("junto.node.retries._FIRST_PAUSE_SECONDS", 0.001)
    world = _World(me=DELTA, full_at="offer", full_times=2)

    async def claim(runner: Runner) -> None:
        runner.open_proposal(TASK, BTS, "id of proposal", _proposal())
        live = runner.find(TASK)
        await _settled(live)
        assert live.task.state == "offered"

    _run(world, claim)
    assert "send offer to bts" in world.did


@pytest.mark.usefixtures("_brief")
@pytest.mark.parametrize("verdict", [None, Forbidden("refused", "no rule", 0.0)])
def test_a_participant_that_finds_no_room_for_its_answer_tells_who_asked_without_one(verdict: Forbidden | None) -> None:
    world = _World(me=DELTA, full_at="refusal" if verdict else "offer")
    world.verdict = verdict or world.verdict

    async def claim(runner: Runner) -> None:
        runner.open_proposal(TASK, BTS, "id of proposal", _proposal())
        live = runner.find(TASK)
        await _settled(live)
        assert live.task.state in ENDED

    _run(world, claim)
    assert world.did == ["judge", _UNSAID.format("bts"), "forget"]


@pytest.mark.usefixtures("_brief")
@pytest.mark.parametrize("kind", ["proposal", "offer", "contract"])
def test_a_journal_without_room_ends_the_task_here_and_sends_nothing_more(kind: str) -> None:
    world = _World(full_at=kind)

    async def claim(runner: Runner) -> None:
        live = runner.ask(TASK, _proposal())
        await _settled(live)
        if live.task.state not in ENDED:
            runner.dispatch(live, _delta_offers())
            await _settled(live)
        assert live.task.outcome is not None
        assert (live.task.state, live.task.outcome.code) == ("failed", "storage-failed")
        assert not world.working.is_set()
        await asyncio.wait_for(live.recorded.wait(), 5)  # whoever asked is not left waiting for what never will be

    _run(world, claim)
    assert world.did[-1] == "forget"
    assert f"send {kind} to delta" not in world.did
    assert (_UNSAID.format("delta") in world.did) == (kind != "proposal")  # of which nobody has heard


@pytest.mark.usefixtures("_brief")
def test_an_answer_whose_receipt_finds_no_room_is_not_called_done() -> None:
    world = _World(full_at="receipt")

    async def claim(runner: Runner) -> None:
        live = await _running(runner, world)
        runner.dispatch(live, Released(JUDGED, 1, "unknown", live.task.opened_at + 1))
        await _settled(live)
        assert (live.task.state, live.task.receipt) == ("failed", None)

    _run(world, claim)
    assert world.did[-3:] == [_UNSAID.format("delta"), "forget", "work ends"]


def test_a_stop_that_finds_no_room_still_ends_the_work() -> None:
    world = _World(full_at="stop")

    async def claim(runner: Runner) -> None:
        live = await _running(runner, world)
        with pytest.raises(StorageFailed):  # whoever cancelled is not told that it is recorded
            await runner.cancel(TASK, "ana")
        await _settled(live)
        assert live.task.state == "cancelled"

    _run(world, claim)
    assert world.did[-3:] == [_UNSAID.format("delta"), "forget", "work ends"]


@pytest.mark.usefixtures("_brief")
def test_who_has_no_room_to_confirm_once_another_ended_the_task_tells_nobody_that_it_did() -> None:
    world = _World(full_at="confirm")

    async def claim(runner: Runner) -> None:
        live = await _running(runner, world)
        live.task._unconfirmed.append(Finished(StepId("r"), JUDGED, 1, 0, 0.1))
        runner.dispatch(live, StopArrived(DELTA, Stop(PLAN_DIGEST, "failed", "", DELTA, "no"), 0.0))
        await _settled(live)
        assert live.task.state == "failed"

    _run(world, claim)
    assert _UNSAID.format("delta") not in world.did


_FULL = StorageFailed("the disk of delta is full: it can record nothing; its log says where", lack="is full")


def test_a_participant_that_can_record_nothing_ends_a_running_task_with_a_statement_of_ours() -> None:
    world = _World()

    async def claim(runner: Runner) -> None:
        live = await _running(runner, world)
        runner.ended_unrecorded(live, DELTA, _FULL)
        runner.ended_unrecorded(live, DELTA, _FULL)  # told twice
        await _settled(live)
        assert live.task.outcome is not None
        assert (live.task.outcome.party, live.task.outcome.code) == (DELTA, "storage-failed")
        assert live.task.outcome.reason == str(_FULL)

    _run(world, claim)
    assert [did for did in world.did if "stop" in did] == ["write stop", "send stop to delta"]


def test_a_participant_that_can_record_no_answer_has_refused() -> None:
    world = _World()

    async def claim(runner: Runner) -> None:
        live = runner.ask(TASK, _proposal())
        await _settled(live)
        runner.ended_unrecorded(live, DELTA, _FULL)
        await _settled(live)
        assert live.task.outcome is not None
        assert (live.task.state, live.task.outcome.party, live.task.outcome.reason) == ("failed", DELTA, str(_FULL))

    _run(world, claim)


@pytest.mark.parametrize(("who", "state"), [(BTS, "failed"), (PartyId("jetblue"), "offered")])
def test_an_asker_that_can_record_nothing_frees_who_waits_for_its_contract(who: PartyId, state: str) -> None:
    world = _World(me=DELTA)

    async def claim(runner: Runner) -> None:
        runner.open_proposal(TASK, BTS, "id of proposal", _proposal())
        live = runner.find(TASK)
        await _settled(live)
        runner.ended_unrecorded(live, who, _FULL)
        await _settled(live)
        assert live.task.state == state

    _run(world, claim)


def test_who_cancels_hears_so_when_the_journal_has_it() -> None:
    world = _World()

    async def claim(runner: Runner) -> None:
        live = await _running(runner, world)
        await runner.cancel(TASK, "ana")
        assert "write stop" in world.did
        assert live.task.state == "cancelled"

    _run(world, claim)


def test_a_cancelled_task_stops_its_work_and_its_timers() -> None:
    world = _World()

    async def claim(runner: Runner) -> None:
        live = await _running(runner, world)
        assert live.timers
        await runner.cancel(TASK, "ana")
        await _settled(live)
        assert live.timers == []
        assert runner.open == []
        with pytest.raises(InvalidInput, match="ended already"):
            await runner.cancel(TASK, "ana")

    _run(world, claim)
    assert world.did[-4:] == ["write stop", "send stop to delta", "forget", "work ends"]


def test_a_task_ends_at_its_deadline_by_itself() -> None:
    world = _World()

    async def claim(runner: Runner) -> None:
        live = runner.ask(TASK, _proposal(seconds=0.02))
        while live.task.state not in ENDED:
            await live.changed.wait()
        assert live.task.outcome is not None
        assert (live.task.state, live.task.outcome.party) == ("expired", DELTA)

    _run(world, claim)


def test_a_timer_that_rings_early_still_counts_as_the_moment_it_was_set_for() -> None:
    world = _World()

    async def claim(runner: Runner) -> None:
        live = runner.ask(TASK, _proposal())
        await _settled(live)
        runner._tick(live, live.task.deadline)
        assert live.task.state == "expired"

    _run(world, claim)


def test_a_party_that_is_down_when_a_task_begins_is_named_with_the_reason() -> None:
    world = _World(down={DELTA: "connection refused"}, patience=Patience(absence_seconds=0.01))

    async def claim(runner: Runner) -> None:
        live = runner.ask(TASK, _proposal())
        while live.task.state not in ENDED:
            await live.changed.wait()
        assert live.task.outcome is not None
        assert live.task.outcome.reason == "delta cannot be reached: connection refused"

    _run(world, claim)


def test_links_that_come_and_go_reach_the_tasks_they_concern() -> None:
    world = _World(patience=Patience(absence_seconds=0.01))

    async def claim(runner: Runner) -> None:
        live = runner.ask(TASK, _proposal())
        runner.link_changed(PartyId("jetblue"), "gone")
        runner.link_changed(DELTA, "gone")
        runner.link_changed(DELTA, None)
        await _settled(live)
        assert live.task.waits()[0].party == DELTA
        runner.link_changed(DELTA, "gone for good")
        while live.task.state not in ENDED:
            await live.changed.wait()
        assert live.task.outcome is not None
        assert live.task.outcome.reason.endswith("gone for good")

    _run(world, claim)


def test_what_a_peer_gets_wrong_is_raised_to_it_and_does_no_harm() -> None:
    world = _World()

    async def claim(runner: Runner) -> None:
        live = await _running(runner, world)
        with pytest.raises(InvalidTransition):
            runner.dispatch(live, RefusalArrived(DELTA, Refusal("p", PLAN_DIGEST, "refused", "no"), 0.0))
        with pytest.raises(PeerFault):
            runner.dispatch(live, StopArrived(PartyId("x"), Stop(PLAN_DIGEST, "failed", "", DELTA, ""), 0.0))
        with pytest.raises(PeerFault, match="twice"):
            runner.open_proposal(TASK, DELTA, "p1", _proposal())
        with pytest.raises(InvalidInput, match="no part"):
            runner.open_proposal(TaskId("2"), DELTA, "p1", msgspec.structs.replace(_proposal(), participants=(DELTA,)))
        with pytest.raises(InvalidInput, match="no task"):
            runner.find(TaskId("3"))
        assert live.task.state == "running"

    _run(world, claim)


def test_an_open_task_of_the_journal_goes_on_and_an_ended_one_stays() -> None:
    world = _World()

    async def claim(runner: Runner) -> None:
        task = Task(TASK, BTS, BTS, _proposal(), Patience())
        task.handle(Opened("p1", time.time()))
        live = runner.resume(task, "", {}, None)
        await _settled(live)
        assert live.task.state == "proposed"
        await runner.cancel(TASK, "ana")
        await _settled(live)
        again = runner.resume(task, "receipt-1", {}, None)
        assert (again.lane, again.receipt_statement) == (deque(), "receipt-1")

    _run(world, claim)
    assert world.did == ["judge", "write offer", "write stop", "send stop to delta", "forget"]


def test_the_oldest_ended_tasks_are_let_go() -> None:
    world = _World(verdict=Forbidden("refused", "no", 0.0))

    async def claim(runner: Runner) -> None:
        for number in range(202):
            await _settled(runner.ask(TaskId(f"{number:03}"), _proposal()))
        assert len(runner.live) == 200
        assert TaskId("201") in runner.live
        assert world.let_go == ["000", "001"]

    _run(world, claim)


def test_those_that_ended_longest_ago_go_first_also_of_an_earlier_process() -> None:
    world = _World(verdict=Forbidden("refused", "no", 0.0))

    async def claim(runner: Runner) -> None:
        runner.ask(TaskId("000"), _proposal())  # which is refused a moment later
        earlier = Task(TaskId("001"), BTS, BTS, _proposal(), Patience())
        earlier.handle(Opened("p1", time.time()))
        earlier.abandon("internal", "ended before", time.time())
        await _settled(runner.resume(earlier, "", {}, None))
        for number in range(2, 202):
            await _settled(runner.ask(TaskId(f"{number:03}"), _proposal()))
        assert len(runner.live) == 200
        assert TaskId("201") in runner.live
        assert world.let_go == ["001", "000"]

    _run(world, claim)


def test_closing_stops_work_under_way() -> None:
    world = _World()

    async def claim(runner: Runner) -> None:
        await _running(runner, world)

    _run(world, claim)
    assert world.did[-1] == "work ends"
