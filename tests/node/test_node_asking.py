# SPDX-License-Identifier: Apache-2.0
"""A question that is asked twice under one id is one task; an id that stands for something else is refused."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from junto.errors import InvalidInput
from junto.journal.statement import Statement
from junto.journal.store import Journal
from junto.node.asking import Asking, Wish
from junto.node.ground import Ground
from junto.node.runner import Runner
from junto.plan.steps import Plan
from junto.tasks.bodies import Proposal
from junto.trust.rights import OPERATOR
from junto.types import Digest, PartyId, TaskId, is_task_id

BTS, DELTA = PartyId("bts"), PartyId("delta")
PLAN = Plan("SELECT 1", BTS, ())
CHOSEN = TaskId("01hf7yat00393ehy7j5t2hfbkj")


class _World:
    """A runner that begins nothing, and a journal that holds what was proposed before."""

    def __init__(self) -> None:
        self.live: dict[TaskId, SimpleNamespace] = {}
        self.journaled: dict[TaskId, Proposal] = {}
        self.asked: list[TaskId] = []

    def placed(self, plan: Plan) -> Plan:
        """Each time elsewhere: what is proposed differs from what was asked, and from what was proposed before."""
        return msgspec.structs.replace(plan, format=100 + len(self.asked))

    def ask(self, id: TaskId, proposal: Proposal) -> SimpleNamespace:
        self.asked.append(id)
        self.live[id] = SimpleNamespace(task=SimpleNamespace(id=id, proposal=proposal))
        return self.live[id]

    def entries(self, *, kinds: tuple[str, ...], task: TaskId) -> Iterator[SimpleNamespace]:
        if task in self.journaled and kinds == ("proposal",):
            raw = msgspec.Raw(msgspec.json.encode(self.journaled[task]))
            said = Statement(kind="proposal", author="spiffe://sky/bts/n1", id="p", at=0.0, task=task, body=raw)
            yield SimpleNamespace(statement=said)

    def trim(self) -> None:
        """All tasks ended long ago: only the journal knows of them, as after a restart."""
        self.journaled |= {id: live.task.proposal for id, live in self.live.items()}
        self.live.clear()


@pytest.fixture
def world() -> _World:
    return _World()


@pytest.fixture
def asking(world: _World) -> Asking:
    return Asking(BTS, cast(Runner, world), cast(Journal, world), 3600.0, Ground(), world.placed, lambda user: OPERATOR)


def test_without_an_id_every_ask_is_a_task_of_its_own(asking: Asking, world: _World) -> None:
    ids = {asking.begin(Wish(PLAN, "ana", 60.0)), asking.begin(Wish(PLAN, "ana", 60.0))}
    assert len(ids) == len(world.asked) == 2
    assert all(is_task_id(id) for id in ids)


@pytest.mark.parametrize("trimmed", [False, True])
def test_the_same_ask_with_the_same_id_is_the_same_task(asking: Asking, world: _World, trimmed: bool) -> None:
    wish = Wish(PLAN, "ana", 60.0, "safety", 0, CHOSEN)
    assert asking.begin(wish) == CHOSEN
    if trimmed:
        world.trim()
    assert asking.begin(wish) == CHOSEN
    assert world.asked == [CHOSEN]


@pytest.mark.parametrize(
    "other",
    [
        Wish(PLAN, "ben", 60.0, "safety", 0, CHOSEN),
        Wish(PLAN, "ana", 60.0, "marketing", 0, CHOSEN),
        Wish(PLAN, "ana", 60.0, "safety", 0, CHOSEN, "wait"),
        Wish(Plan("SELECT 2", BTS, ()), "ana", 60.0, "safety", 0, CHOSEN),
    ],
)
@pytest.mark.parametrize("trimmed", [False, True])
def test_an_id_that_stands_for_something_else_is_refused(
    asking: Asking, world: _World, other: Wish, trimmed: bool
) -> None:
    asking.begin(Wish(PLAN, "ana", 60.0, "safety", 0, CHOSEN))
    if trimmed:
        world.trim()
    with pytest.raises(InvalidInput, match=f"task {CHOSEN} is another question"):
        asking.begin(other)
    assert world.asked == [CHOSEN]


def test_the_id_of_another_partys_task_is_refused(asking: Asking, world: _World) -> None:
    theirs = Proposal(Plan("SELECT 1", DELTA, ()), Digest("sha256:0"), (DELTA, BTS), "ana", "", 60.0)
    world.live[CHOSEN] = SimpleNamespace(task=SimpleNamespace(id=CHOSEN, proposal=theirs))
    with pytest.raises(InvalidInput, match="another question"):
        asking.begin(Wish(PLAN, "ana", 60.0, "", 0, CHOSEN))


@pytest.mark.parametrize("id", ["1", "x" * 26, CHOSEN.upper(), CHOSEN + "0", CHOSEN + "\n", "8" + CHOSEN[1:]])
def test_what_is_no_id_is_refused_before_anything_begins(asking: Asking, world: _World, id: str) -> None:
    with pytest.raises(InvalidInput, match="no id of a task"):
        asking.begin(Wish(PLAN, "ana", 60.0, "", 0, TaskId(id)))
    assert not world.asked


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (Wish(Plan("SELECT 1", DELTA, ()), "ana", 60.0), "asked by delta"),
        (Wish(PLAN, "ana", 0.0), "deadline"),
        (Wish(PLAN, "ana", 3601.0), "longest"),
        (Wish(PLAN, "ana", float("nan")), "deadline"),
        (Wish(PLAN, "ana", 60.0, at_least=2), "at least 2 parties"),
        (Wish(PLAN, "ana", 60.0, at_least=-1), "at least -1"),
    ],
)
def test_only_our_own_questions_with_an_allowed_deadline_begin(
    asking: Asking, world: _World, wish: Wish, says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        asking.begin(wish)
    assert not world.asked
