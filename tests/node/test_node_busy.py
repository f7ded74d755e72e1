# SPDX-License-Identifier: Apache-2.0
"""A question that found no room is asked again: once, by its asker, while there is time."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field

import pytest

from junto.node.busy import AskingAgain
from junto.node.ground import Ground
from junto.node.runner import Live
from junto.plan import steps
from junto.plan.steps import Plan, Query, Release
from junto.tasks.bodies import End, Proposal
from junto.tasks.state import Task
from junto.tasks.waiting import Outcome, Patience
from junto.types import PartyId, StepId, TaskId

BTS, DELTA = PartyId("bts"), PartyId("delta")
PLAN = Plan("SELECT 1", BTS, (Query(StepId("q"), DELTA, "SELECT 1", ()), Release(StepId("r"), BTS, "SELECT 1")))
NOW = 1_700_000_000.0


@dataclass
class _World:
    asked: list[TaskId] = field(default_factory=list)
    jobs: list[Coroutine[None, None, None]] = field(default_factory=list)

    def again(self, me: PartyId = BTS) -> AskingAgain:
        return AskingAgain(me, self._go_on, self.jobs.append, Ground(lambda: NOW, bytes))

    def _go_on(self, live: Live, absent: tuple[PartyId, ...]) -> None:
        assert absent == ()
        self.asked.append(live.task.id)
        live.continued = TaskId("next")

    def run(self) -> None:
        for job in self.jobs:
            asyncio.run(job)


def _ended(code: str = "busy", end: End = "failed", opened: float = 1.0, ended: float = 0.0) -> Live:
    """A task that was opened and has ended so many seconds ago."""
    task = Task(TaskId("t"), BTS, BTS, Proposal(PLAN, steps.digest(PLAN), (BTS, DELTA), "ana", "", 10.0), Patience())
    task.opened_at = NOW - opened
    task.state = end
    task.outcome = Outcome(end, code, DELTA, "no room", NOW - ended)
    return Live(task)


def test_it_is_asked_again_once_and_whoever_watches_waits_for_the_other_name() -> None:
    world, live = _World(), _ended()
    again = world.again()
    again.look(live)
    again.look(live)
    assert live.going_on
    world.run()
    assert (world.asked, live.going_on) == (["t"], False)
    again.look(live)
    assert len(world.jobs) == 1


@pytest.mark.parametrize(
    ("live", "me"),
    [
        (_ended("unavailable"), BTS),
        (_ended("refused", "refused"), BTS),
        (_ended(), DELTA),
        (_ended(opened=8.1), BTS),  # of ten seconds
        (_ended(ended=11.0), BTS),  # before a restart
    ],
    ids=["unreachable", "refused", "another asked", "too late", "long ago"],
)
def test_nothing_else_is(live: Live, me: PartyId) -> None:
    world = _World()
    world.again(me).look(live)
    assert (world.jobs, live.going_on) == ([], False)


def test_what_had_its_contract_is_not_asked_again() -> None:
    world, live = _World(), _ended()
    live.task.contract = "c"
    world.again().look(live)
    assert world.jobs == []


def test_what_goes_on_already_is_not_asked_again() -> None:
    world, live = _World(), _ended()
    world.again().look(live)
    live.continued = TaskId("found in the journal")
    world.run()
    assert (world.asked, live.going_on) == ([], False)
