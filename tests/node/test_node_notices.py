# SPDX-License-Identifier: Apache-2.0
"""A node tells whoever watches what happens, once, in order, and says so when a watcher was too slow for all of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest

from junto.errors import InvalidInput
from junto.link.connection import Caller
from junto.node.notices import KEPT, Notices, Wanted, kinds_of
from junto.node.runner import Live
from junto.plan import steps
from junto.plan.steps import Plan, Query, Release
from junto.tasks.bodies import Proposal, Stop
from junto.tasks.events import Event, Forbidden, Opened, StopArrived
from junto.tasks.notices import Kind, Notice
from junto.tasks.state import Task
from junto.tasks.waiting import Patience
from junto.types import PartyId, StepId, TaskId

BTS, DELTA = PartyId("bts"), PartyId("delta")
PLAN = Plan("SELECT 1", BTS, (Query(StepId("q"), DELTA, "SELECT 1", ()), Release(StepId("r"), BTS, "SELECT 1")))
DIGEST = steps.digest(PLAN)
NOON = 43_200.0


class _Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def _board(clock: Callable[[], float] | None = None) -> Notices:
    return Notices(DELTA, 5.0, clock or _Clock())


def _live(id: str, *events: Event) -> Live:
    task = Task(TaskId(id), DELTA, BTS, Proposal(PLAN, DIGEST, (BTS, DELTA), "ana", "", 60.0), Patience())
    for event in events:
        task.handle(event)
    return Live(task)


def _notice(number: int, *, at: float = NOON, kind: Kind = "ended", task: str = "t") -> Notice:
    return Notice(f"ntc_{number}", kind, TaskId(task), DELTA, DELTA, f"number {number}", at, "info")


async def _take(stream: AsyncIterator[Notice], count: int) -> list[Notice]:
    async with asyncio.timeout(5):
        return [await anext(stream) for _ in range(count)]


def test_a_watcher_hears_what_was_raised_since_and_then_what_is_raised() -> None:
    async def claim() -> list[str]:
        board = _board()
        for number, at in enumerate((NOON - 20, NOON - 5, NOON)):
            board.tell(_notice(number, at=at))
        stream = board.follow(Wanted(), NOON - 10)
        found = await _take(stream, 1)
        board.tell(_notice(3))  # while the past is still being read
        found += await _take(stream, 2)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        board.tell(_notice(4, at=NOON - 99))  # it is new, whenever it happened
        return [notice.text for notice in [*found, await waiting]]

    assert asyncio.run(claim()) == ["number 1", "number 2", "number 3", "number 4"]


def test_a_notice_of_a_known_id_is_not_told_again() -> None:
    async def claim() -> list[Notice]:
        board = _board()
        heard: list[Notice] = []
        board.listeners.append(heard.append)
        board.tell(_notice(1))
        board.tell(_notice(1))
        return heard

    assert len(asyncio.run(claim())) == 1


def test_a_slow_watcher_is_told_how_many_it_missed() -> None:
    async def claim() -> list[Notice]:
        board = _board()
        stream = board.follow(Wanted(), 0.0)
        board.tell(_notice(0))
        found = await _take(stream, 1)
        for number in range(1, KEPT + 8):
            board.tell(_notice(number))
        return [*found, *await _take(stream, 2)]

    first, gap, second = asyncio.run(claim())
    assert first.text == "number 0"
    assert (gap.kind, gap.text) == ("gap", "7 notices came faster than they were read and are left out here")
    assert second.text == "number 8"


def test_a_watcher_hears_of_the_tasks_and_kinds_it_named_only() -> None:
    async def claim() -> list[str]:
        board = _board()
        board.tell(_notice(1, task="a", kind="step"))
        board.tell(_notice(2, task="a", kind="ended"))
        board.tell(_notice(3, task="b", kind="ended"))
        found = await _take(board.follow(Wanted(tasks=frozenset([TaskId("a")])), 0.0), 2)
        found += await _take(board.follow(Wanted(kinds=frozenset(["ended"])), 0.0), 2)
        return [notice.text for notice in found]

    assert asyncio.run(claim()) == ["number 1", "number 2", "number 2", "number 3"]


def test_what_happens_to_a_task_is_told_as_it_happens() -> None:
    async def claim() -> list[tuple[str, str]]:
        board = _board()
        heard: list[Notice] = []
        board.listeners.append(heard.append)
        live = _live("a", Opened("p", NOON))
        board.look(live)
        board.look(live)
        live.task.handle(Forbidden("refused", "delta may not", NOON + 1))
        board.look(live)
        live.task.handle(StopArrived(BTS, Stop(DIGEST, "refused", "refused", DELTA, "delta may not"), NOON + 2))
        board.look(live)
        return [(notice.kind, notice.text) for notice in heard]

    assert asyncio.run(claim()) == [
        ("state", "the task of bts is judging"),
        ("ended", "the task was refused: delta may not"),
    ]


def test_after_a_restart_the_same_facts_have_the_same_ids() -> None:
    def once() -> list[Notice]:
        board = _board()
        heard: list[Notice] = []
        board.listeners.append(heard.append)
        board.look(_live("a", Opened("p", NOON), Forbidden("refused", "delta may not", NOON + 1)))
        board.look(_live("b", Opened("p", NOON)))
        return heard

    assert once() == once()
    assert [notice.kind for notice in once()] == ["ended", "state"]


def test_an_unknown_kind_is_named_with_those_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"no kind of notice is called 'end': .*ended"):
        kinds_of(["ended", "end"])


def test_a_request_that_is_none_is_refused() -> None:
    async def claim(payload: bytes) -> None:
        await _board().watch(cast(Caller, None), payload)

    with pytest.raises(InvalidInput, match="no Follow"):
        asyncio.run(claim(b"[]"))
    names = ",".join(f'"{number}"' for number in range(1001))
    with pytest.raises(InvalidInput, match="1001 tasks"):
        asyncio.run(claim(b'{"tasks": [%s]}' % names.encode()))


def test_what_a_node_tells_of_itself_is_told_once_per_occurrence() -> None:
    async def claim() -> list[tuple[str, str]]:
        board = _board()
        heard: list[Notice] = []
        board.listeners.append(heard.append)
        board.of_node("disk", "full 1", "no space left", "error")
        board.of_node("disk", "full 1", "no space left", "error")
        board.of_node("disk", "full 2", "no space left", "error")
        return [(notice.kind, notice.by) for notice in heard]

    assert asyncio.run(claim()) == [("disk", DELTA), ("disk", DELTA)]
