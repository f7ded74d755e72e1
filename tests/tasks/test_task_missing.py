# SPDX-License-Identifier: Apache-2.0
"""A helper that only computes is never what a question fails for, whatever the asker wants of others that stay away."""

import msgspec
import pytest
from task_world import BTS, DELTA, PARTIES, PATIENCE, PLAN, PROPOSAL, SECONDS, START, TASK, UNITED, bodies, permitted

from junto.plan import steps
from junto.plan.computing import spare
from junto.plan.steps import Threshold
from junto.tasks.bodies import Absent, Offer, Proposal, Refusal, Stop
from junto.tasks.events import (
    CancelAsked,
    Event,
    OfferArrived,
    Opened,
    PartyDown,
    PartyUp,
    RefusalArrived,
    StepFailed,
    StopArrived,
    Ticked,
)
from junto.tasks.instructions import GoOn, Instruction
from junto.tasks.replay import Entry, replay
from junto.tasks.state import Task
from junto.types import PartyId, StepId

HUB = PartyId("hub")
_NODES = (DELTA, UNITED, HUB)
_HELPED = msgspec.structs.replace(
    PLAN,
    steps=tuple(msgspec.structs.replace(s, nodes=_NODES) if isinstance(s, Threshold) else s for s in PLAN.steps),
)
_DIGEST = steps.digest(_HELPED)
_ALL = (*PARTIES, HUB)
ABSENCE = START + PATIENCE.absence_seconds
OFFERS_DUE = START + PATIENCE.offer_seconds
RULES: list[Absent] = ["", "wait", "fail", "go-on"]


def _offered(party: PartyId) -> OfferArrived:
    offer = Offer(PROPOSAL, _DIGEST, permitted(party).disclosures)
    return OfferArrived(party, offer, f"envelope of {party}", START)


def _task(me: PartyId, absent: Absent, *heard: PartyId) -> Task:
    proposal = Proposal(_HELPED, _DIGEST, _ALL, "ana", "", SECONDS, absent=absent, at_least=3)
    task = Task(TASK, me, BTS, proposal, PATIENCE)
    task.handle(Opened(PROPOSAL, START))
    task.handle(permitted(me))
    for party in heard:
        task.handle(_offered(party))
    return task


def _again(ordered: list[Instruction]) -> list[tuple[PartyId, ...]]:
    return [one.without for one in ordered if isinstance(one, GoOn)]


def test_only_a_helper_that_does_nothing_else_is_spare() -> None:
    assert spare(PLAN) == frozenset()
    assert spare(_HELPED) == {HUB}


@pytest.mark.parametrize("absent", RULES)
@pytest.mark.parametrize("heard", [(), (BTS, DELTA, UNITED), _ALL], ids=["proposed", "others offered", "running"])
def test_a_helper_that_stays_away_has_the_question_asked_again_without_it(
    absent: Absent, heard: tuple[PartyId, ...]
) -> None:
    task = _task(BTS, absent, *heard)
    task.handle(PartyDown(HUB, "no route to host", START))
    assert _again(task.handle(Ticked(ABSENCE - 0.01))) == []
    assert _again(task.handle(Ticked(ABSENCE))) == [(HUB,)]
    assert _again(task.handle(Ticked(ABSENCE + 1))) == []


def test_a_helper_that_comes_back_in_time_stays() -> None:
    task = _task(BTS, "", *_ALL)
    task.handle(PartyDown(HUB, "no route to host", START))
    task.handle(PartyUp(HUB, ABSENCE - 0.01))
    assert _again(task.handle(Ticked(ABSENCE))) == []
    assert task.state == "running"


@pytest.mark.parametrize("absent", RULES)
def test_a_helper_that_makes_no_offer_in_time_is_not_waited_for(absent: Absent) -> None:
    assert _again(_task(BTS, absent, BTS, DELTA, UNITED).handle(Ticked(OFFERS_DUE))) == [(HUB,)]


@pytest.mark.parametrize("absent", RULES)
def test_owners_leave_a_helpers_absence_to_the_asker(absent: Absent) -> None:
    task = _task(DELTA, absent)
    task.handle(PartyDown(HUB, "no route to host", START))
    assert task.handle(Ticked(ABSENCE)) == []
    assert task.state == "offered"


def test_an_owner_that_is_missing_beside_the_helper_is_what_the_task_ends_for() -> None:
    task = _task(BTS, "fail", *_ALL)
    for party in (HUB, UNITED):
        task.handle(PartyDown(party, "no route to host", START))
    assert _again(task.handle(Ticked(ABSENCE))) == []
    assert task.outcome is not None
    assert task.outcome.party == UNITED


def test_a_helper_is_none_of_the_parties_that_must_be_left() -> None:
    task = _task(BTS, "go-on", *_ALL)  # at least 3
    task.handle(PartyDown(UNITED, "no route to host", START))
    assert _again(task.handle(Ticked(ABSENCE))) == []
    assert task.outcome is not None
    assert "2 participants would be left" in task.outcome.reason


def _refused(party: PartyId, code: str) -> RefusalArrived:
    return RefusalArrived(party, Refusal(PROPOSAL, _DIGEST, code, f"{party} says no"), START)


@pytest.mark.parametrize(
    ("party", "code", "again"),
    [
        (HUB, "refused", True),
        (HUB, "busy", True),
        (HUB, "storage-failed", True),
        (HUB, "peer-fault", False),
        (HUB, "invalid-input", False),
        (DELTA, "helper-away", True),
        (DELTA, "refused", False),
        (DELTA, "busy", False),
    ],
)
def test_a_refusal_for_want_of_the_helper_alone_is_asked_again(party: PartyId, code: str, again: bool) -> None:
    task = _task(BTS, "", *(one for one in _ALL if one != party))
    ordered = task.handle(_refused(party, code))
    assert _again(ordered) == ([(HUB,)] if again else [])
    (stop,) = [body for body in bodies(ordered) if isinstance(body, Stop)]
    assert ("it is asked again without hub" in stop.reason) is again


def test_what_an_owner_refuses_by_rule_counts_more_than_the_helpers_want() -> None:
    task = _task(BTS, "", BTS, UNITED)
    task.handle(_refused(HUB, "busy"))
    assert _again(task.handle(_refused(DELTA, "refused"))) == []
    assert task.state == "refused"


ENDS: list[tuple[Event, bool]] = [
    (StopArrived(HUB, Stop(_DIGEST, "failed", "internal", HUB, "a fault"), START), True),
    (StopArrived(HUB, Stop(_DIGEST, "cancelled", "cancelled", HUB, "cancelled by hub"), START), True),
    (StopArrived(HUB, Stop(_DIGEST, "failed", "peer-fault", HUB, "bent shares"), START), False),
    (StopArrived(DELTA, Stop(_DIGEST, "failed", "peer-fault", HUB, "bent shares"), START), False),
    (StopArrived(HUB, Stop(_DIGEST, "failed", "internal", DELTA, "a fault of delta"), START), False),
    (StepFailed(StepId("t"), "unavailable", HUB, "gone", START), True),
    (StepFailed(StepId("t"), "peer-fault", HUB, "bent shares", START), False),
    (CancelAsked("ana", START), False),
]


@pytest.mark.parametrize(("event", "again"), ENDS)
def test_a_running_task_is_asked_again_where_the_helper_fails_and_not_where_it_deviates(
    event: Event, again: bool
) -> None:
    task = _task(BTS, "", *_ALL)
    assert _again(task.handle(event)) == ([(HUB,)] if again else [])


def test_that_it_is_asked_again_survives_a_crash_of_the_askers_node() -> None:
    task = _task(BTS, "", *_ALL)
    (stop,) = [b for b in bodies(task.handle(ENDS[0][0])) if isinstance(b, Stop)]
    journal = [Entry(0, BTS, PROPOSAL, START, task.proposal), Entry(1, BTS, "stop-1", START, stop)]
    assert replay(TASK, BTS, journal, PATIENCE).left_out == (HUB,)
