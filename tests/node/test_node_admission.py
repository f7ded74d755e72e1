# SPDX-License-Identifier: Apache-2.0
"""Reservations and slots in real time: who waits is woken, and whoever goes away leaves nothing behind."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from dataclasses import field as made
from typing import TypeVar

import pytest

from junto.errors import Busy, Cancelled, InvalidTransition, Refused
from junto.link import methods
from junto.node import admission
from junto.node.admission import Admission
from junto.node.runner import Live
from junto.plan import steps
from junto.plan.steps import Plan, Query, Read, Release
from junto.tasks.bodies import Estimate, Proposal
from junto.tasks.capacity import Cap, Capacity
from junto.tasks.estimates import FRAGMENT_BYTES, Pace
from junto.tasks.events import CancelAsked, Opened, Permitted
from junto.tasks.reservations import Outcome
from junto.tasks.resources import Resources
from junto.tasks.state import Task
from junto.tasks.waiting import Patience
from junto.types import DatasetName, Digest, PartyId, StepId, TaskId

BTS, DELTA = PartyId("bts"), PartyId("delta")
QUERY = Query(StepId("q"), DELTA, "SELECT 1", (Read("t", DatasetName("t")),), columns=("a",), column_types=("BIGINT",))
PLAN = Plan("SELECT 1", BTS, (QUERY, Release(StepId("r"), BTS, "SELECT 1")))
JUDGED = Permitted(Digest("sha256:d"), (), Estimate(), 0.0)
ONE_TASK = Capacity(slots=1, memory=FRAGMENT_BYTES, disk=1000)
R = TypeVar("R")


@dataclass
class Node:
    """One node's admission, and tasks of another party for it."""

    capacity: Capacity = ONE_TASK
    patience: Patience = made(default_factory=Patience)
    now: float = made(default_factory=time.time)

    def __post_init__(self) -> None:
        self.admission = Admission(DELTA, self.capacity, self.patience, lambda *_: None, 10**8, lambda: self.now)

    def task(self, id: str, priority: int = 0) -> Live:
        proposal = Proposal(PLAN, steps.digest(PLAN), (BTS, DELTA), "ana", "", 60.0, priority)
        task = Task(TaskId(id), DELTA, BTS, proposal, self.patience)
        task.handle(Opened("s", self.now))
        return Live(task)

    async def admitted(self, id: str) -> Live:
        live = self.task(id)
        await self.admission.admit(live.task, JUDGED)
        await self.admission.begin(live.task)
        return live

    def end(self, live: Live) -> None:
        live.task.handle(CancelAsked("ana", self.now))
        self.admission.look(live)

    @property
    def view(self) -> methods.Top:
        return self.admission.view()


def run(story: Callable[[], Coroutine[None, None, R]]) -> R:
    async def bounded() -> R:
        async with asyncio.timeout(10):
            return await story()

    return asyncio.run(bounded())


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_what_fits_is_permitted_with_its_estimate_and_how_long_it_is_held() -> None:
    async def story() -> None:
        node = Node()
        found = await node.admission.admit(node.task("a").task, JUDGED)
        assert found.estimate.memory == FRAGMENT_BYTES
        assert found.estimate.seconds == pytest.approx(Pace().least_seconds)
        assert found.starts == 0.0
        assert found.reserves == pytest.approx(15.0, abs=0.1)
        assert found.offer("p", Digest("sha256:p")).reserves == found.reserves

    run(story)


def test_the_next_has_it_when_the_task_before_has_ended() -> None:
    async def story() -> None:
        node = Node()
        first = await node.admitted("a")
        waiting = asyncio.create_task(node.admission.admit(node.task("b").task, JUDGED))
        await settled()
        assert not waiting.done()
        assert "of 2.1 MB of memory at delta bts has 2.1 MB of memory" in node.admission.why(TaskId("b"))
        node.end(first)
        await waiting
        assert [held.task for held in node.view.held] == ["b"]

    run(story)


def test_who_could_not_reserve_in_time_refuses_naming_who_has_it() -> None:
    async def story() -> None:
        node = Node(patience=Patience(offer_seconds=0.05))
        await node.admitted("a")
        with pytest.raises(Busy, match=r"could not begin within 0.0\d+ s: .*; of 2.1 MB of memory .* bts has") as told:
            await node.admission.admit(node.task("b").task, JUDGED)
        assert told.value.retry_after_seconds is not None
        assert node.view.waiting == ()

    run(story)


def test_a_limit_that_passes_between_two_looks_at_the_clock_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    stalled = 0.0

    def slow(resources: Resources, now: float) -> list[Outcome]:
        nonlocal stalled
        stalled += 0.5
        return advance(resources, now)

    advance = Resources.advance
    monkeypatch.setattr(Resources, "advance", slow)
    monkeypatch.setattr(admission, "_now", lambda: asyncio.get_running_loop().time() + stalled)

    async def story() -> None:
        node = Node(patience=Patience(offer_seconds=0.4))
        await node.admitted("a")
        with pytest.raises(Busy, match="delta could not begin"):
            async with asyncio.timeout(1):  # not at some later moment, at which something else is due
                await node.admission.admit(node.task("b").task, JUDGED)

    run(story)


def test_a_cap_that_can_never_be_met_is_a_refusal() -> None:
    async def story() -> None:
        node = Node(Capacity(caps={BTS: Cap(memory=1000)}))
        with pytest.raises(Refused, match="delta gives bts 1 KB of memory at most"):
            await node.admission.admit(node.task("a").task, JUDGED)

    run(story)


def test_a_task_that_ends_while_it_waits_waits_no_more() -> None:
    async def story() -> None:
        node = Node()
        await node.admitted("a")
        live = node.task("b")
        waiting = asyncio.create_task(node.admission.admit(live.task, JUDGED))
        await settled()
        node.end(live)
        with pytest.raises(Cancelled, match="task b has ended"):
            await waiting
        assert node.view.waiting == ()
        with pytest.raises(Cancelled):
            await node.admission.admit(live.task, JUDGED)

    run(story)


def test_a_wait_that_is_cancelled_frees_its_place() -> None:
    async def story() -> None:
        node = Node()
        first = await node.admitted("a")
        waiting = asyncio.create_task(node.admission.admit(node.task("b").task, JUDGED))
        await settled()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert node.view.waiting == ()
        node.end(first)
        assert node.view.held == ()

    run(story)


def test_a_reservation_lapses_without_a_contract_and_who_waits_has_it() -> None:
    async def story() -> None:
        node = Node(patience=Patience(absence_seconds=0.0))
        first = node.task("a").task
        node.now += 9.95  # of the ten seconds for offers
        await node.admission.admit(first, JUDGED)
        assert node.view.held[0].lapses_at == pytest.approx(node.now + 0.05, abs=0.01)
        second = node.task("b")
        await node.admission.admit(second.task, JUDGED)
        assert [held.task for held in node.view.held] == ["b"]
        node.end(second)
        await node.admission.begin(first)  # late, but there is room
        assert [(held.task, held.lapses_at) for held in node.view.held] == [("a", None)]

    run(story)


def test_a_contract_that_comes_too_late_finds_out_at_once() -> None:
    async def story() -> None:
        node = Node()
        await node.admitted("a")
        with pytest.raises(Busy, match=r"what was reserved lapsed before the contract came; .* bts has"):
            await node.admission.begin(node.task("b").task)
        assert [held.task for held in node.view.held] == ["a"]

    run(story)


def test_what_an_earlier_process_had_promised_is_held_again() -> None:
    async def story() -> None:
        node = Node()
        live = node.task("a")
        live.task.state = "running"
        node.admission.adopt(live.task)
        offered = node.task("b")
        node.admission.adopt(offered.task)
        assert [(held.task, held.lapses_at is None) for held in node.view.held] == [("a", True), ("b", False)]

    run(story)


def test_one_fragment_after_the_other_has_the_slot() -> None:
    async def story() -> None:
        node = Node(Capacity(slots=1))
        order: list[str] = []

        async def fragment(id: str) -> None:
            async with node.admission.slot(TaskId(id), StepId("q")):
                order.append(f"{id} begins")
                await settled()
                order.append(f"{id} ends")

        for id in ("a", "b"):
            await node.admitted(id)
        await asyncio.gather(fragment("a"), fragment("b"))
        assert order == ["a begins", "a ends", "b begins", "b ends"]
        assert node.view.running == ()

    run(story)


def test_a_fragment_that_fails_or_is_cancelled_gives_its_slot_back() -> None:
    async def story() -> None:
        node = Node(Capacity(slots=1))
        for id in ("a", "b"):
            await node.admitted(id)

        async def fragment(id: str) -> None:
            async with node.admission.slot(TaskId(id), StepId("q")):
                await asyncio.sleep(60)

        running, queued = (asyncio.create_task(fragment(id)) for id in ("a", "b"))
        await settled()
        assert [(step.task, step.why != "") for step in node.view.queued] == [("b", True)]
        for job in (queued, running):
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)
        assert (node.view.running, node.view.queued) == ((), ())
        with pytest.raises(ZeroDivisionError):
            async with node.admission.slot(TaskId("a"), StepId("q")):
                _ = 1 / 0
        assert node.view.running == ()

    run(story)


def test_a_fragment_that_waits_for_a_slot_is_told_when_its_task_ends() -> None:
    async def story() -> None:
        node = Node(Capacity(slots=1))
        first, second = await node.admitted("a"), await node.admitted("b")

        async def fragment(live: Live) -> None:
            async with node.admission.slot(live.task.id, StepId("q")):
                await asyncio.sleep(60)

        running, queued = asyncio.create_task(fragment(first)), asyncio.create_task(fragment(second))
        await settled()
        node.end(second)
        with pytest.raises(Cancelled):
            await queued
        with pytest.raises(InvalidTransition):
            await fragment(second)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert node.view.used.slots == 0

    run(story)


def test_what_a_fragment_took_is_what_the_next_is_expected_to_take() -> None:
    async def story() -> None:
        node = Node()
        node.admission.ran(QUERY, 5, 3.5)
        found = await node.admission.admit(node.task("a").task, JUDGED)
        assert found.estimate.seconds == 3.5

    run(story)


def test_the_view_has_wall_clock_times_and_whose_each_thing_is() -> None:
    async def story() -> None:
        node = Node(Capacity(slots=1, memory=10**9, caps={BTS: Cap(slots=1)}), now=1_700_000_000.0)
        await node.admitted("a")
        async with node.admission.slot(TaskId("a"), StepId("q")):
            top = node.view
        assert top.at == 1_700_000_000.0
        assert top.capacity == methods.Share(1, 10**9, 64 << 30)
        (bts,) = top.parties
        assert (bts.used.slots, bts.used.tasks, bts.cap) == (1, 1, methods.Share(slots=1))
        assert top.running[0].since == pytest.approx(top.at, abs=1.0)
        assert top.held[0].party == BTS
        assert top.held[0].since == pytest.approx(top.at, abs=1.0)

    run(story)
