# SPDX-License-Identifier: Apache-2.0
"""A participant stays away: what the task's own rule makes of it, at who asked and at who takes part."""

import pytest
from msgspec.structs import replace
from task_world import (
    BTS,
    DELTA,
    PARTIES,
    PATIENCE,
    PROPOSAL,
    SECONDS,
    START,
    TASK,
    UNITED,
    all_of,
    anew,
    asker,
    at_state,
    bodies,
    confirmed,
    contracted,
    finished,
    offer_of,
    offered,
    permitted,
    refused,
    running_asker,
    stopped,
    without_wakes,
)

from junto.tasks.bodies import Absent, Attempt, Contract, Offer, Proposal, Stop
from junto.tasks.events import CancelAsked, Event, Opened, PartyDown, Restarted, StepFailed, Ticked
from junto.tasks.instructions import GoOn, Instruction, Judge, Perform, Publish, Wake
from junto.tasks.replay import Entry, replay
from junto.tasks.state import Task
from junto.tasks.table import State
from junto.types import PartyId, StepId

LAPSE = START + PATIENCE.absence_seconds
OFFERS_DUE = START + PATIENCE.offer_seconds
DEADLINE = START + SECONDS


def _task(state: State, me: PartyId, absent: Absent, at_least: int = 0) -> Task:
    contract: list[Event] = [offered(party) for party in PARTIES] if me == BTS else [contracted()]
    roads: dict[State, list[Event]] = {
        "judging": [Opened(PROPOSAL, START)],
        "proposed": [Opened(PROPOSAL, START), permitted(me), offered(me)],
        "offered": [Opened(PROPOSAL, START), permitted(me)],
        "running": [Opened(PROPOSAL, START), permitted(me), *contract],
    }
    proposed = replace(at_state("new").proposal, absent=absent, at_least=at_least)
    task = Task(TASK, me, BTS, proposed, PATIENCE)
    for event in roads[state]:
        task.handle(event)
    assert task.state == state
    return task


def _away(task: Task, *gone: PartyId) -> list[Instruction]:
    for party in gone:
        task.handle(PartyDown(party, "no route to host", START))
    assert bodies(task.handle(Ticked(LAPSE - 0.001))) == []
    return task.handle(Ticked(LAPSE))


PLACES: list[tuple[State, PartyId]] = [
    ("judging", BTS),
    ("proposed", BTS),
    ("running", BTS),
    ("judging", DELTA),
    ("offered", DELTA),
    ("running", DELTA),
]


ENDING: dict[Absent, list[tuple[State, PartyId]]] = {
    "": PLACES[:2],
    "wait": [],
    "fail": PLACES,
    "go-on": PLACES[:3],
}
"""The places where an absence ends a task: by default only where it was asked, before the contract."""


@pytest.mark.parametrize("absent", ["", "wait", "fail", "go-on"])
@pytest.mark.parametrize(("state", "me"), PLACES)
def test_each_rule_does_in_each_state_what_it_says(state: State, me: PartyId, absent: Absent) -> None:
    task = _task(state, me, absent)
    ordered = _away(task, UNITED)
    assert (task.state == "failed") is ((state, me) in ENDING[absent])
    assert any(isinstance(one, GoOn) for one in ordered) is (absent == "go-on" and me == BTS)
    if task.outcome is not None:
        assert (task.outcome.code, task.outcome.party) == ("unavailable", UNITED)
        assert task.outcome.reason.startswith("united cannot be reached: no route to host")


@pytest.mark.parametrize("absent", ["", "wait"])
@pytest.mark.parametrize("me", [BTS, DELTA])
def test_who_is_waited_for_and_cannot_be_reached_is_shown_with_the_reason_and_named_at_the_deadline(
    me: PartyId, absent: Absent
) -> None:
    task = _task("running", me, absent)
    _away(task, UNITED)
    whys = {wait.party: wait.why for wait in task.waits()}
    assert whys[UNITED] == "cannot be reached: no route to host"
    assert {why for party, why in whys.items() if party != UNITED} == {""}
    task.handle(confirmed(DELTA, "q-delta") if me == BTS else finished("q-delta"))
    (stop, *_) = [body for body in bodies(task.handle(Ticked(DEADLINE))) if isinstance(body, Stop)]
    assert (stop.end, stop.party) == ("expired", UNITED)
    assert stop.reason.endswith("for united: step q-united (cannot be reached: no route to host)")


def test_several_that_are_away_at_once_are_left_out_together() -> None:
    task = _task("running", BTS, "go-on", 1)
    ordered = _away(task, UNITED, DELTA)
    assert ordered[-1] == GoOn((DELTA, UNITED))
    assert task.left_out == (DELTA, UNITED)


def test_one_that_is_not_away_for_long_enough_is_not_left_out_with_another_that_is() -> None:
    task = _task("running", BTS, "go-on", 1)
    task.handle(PartyDown(DELTA, "no route to host", START))
    task.handle(PartyDown(UNITED, "no route to host", START + 1))
    assert task.handle(Ticked(LAPSE))[-1] == GoOn((DELTA,))


@pytest.mark.parametrize(
    ("at_least", "gone", "goes_on"), [(2, 1, True), (3, 1, False), (1, 2, True), (2, 2, False), (0, 2, True)]
)
def test_a_task_goes_on_only_if_as_many_are_left_as_it_asks_for(at_least: int, gone: int, goes_on: bool) -> None:
    task = _task("running", BTS, "go-on", at_least)
    ordered = _away(task, *(DELTA, UNITED)[:gone])
    assert any(isinstance(one, GoOn) for one in ordered) is goes_on
    assert task.outcome is not None
    assert ("are asked for" in task.outcome.reason) is not goes_on
    assert task.state == "failed"


@pytest.mark.parametrize("state", ["proposed", "running"])
def test_a_task_is_asked_again_once(state: State) -> None:
    task = _task(state, BTS, "go-on", 1)
    assert sum(isinstance(one, GoOn) for one in _away(task, UNITED)) == 1
    before = all_of(task)
    for event in (Ticked(LAPSE + 1), Ticked(DEADLINE), PartyDown(DELTA, "gone", LAPSE), CancelAsked("ana", LAPSE)):
        assert task.handle(event) == []
    assert all_of(task) == before


def test_that_a_task_is_asked_again_survives_a_crash_in_between() -> None:
    task = _task("proposed", BTS, "go-on", 1)
    (stop,) = bodies(_away(task, UNITED))
    journal = [
        Entry(0, BTS, PROPOSAL, START, task.proposal),
        Entry(1, BTS, "offer-bts", START, offer_of(BTS)),
        Entry(2, BTS, "stop-1", LAPSE, stop),
    ]
    told = replay(TASK, BTS, journal, PATIENCE)
    assert (told.state, told.left_out) == ("failed", (UNITED,))
    assert told.handle(Restarted(frozenset(), LAPSE + 1)) == []


def test_no_end_but_an_absence_leaves_anybody_out() -> None:
    for event in (CancelAsked("ana", START), stopped(UNITED), StepFailed(StepId("t"), "internal", BTS, "no", START)):
        task = _task("running", BTS, "go-on", 1)
        task.handle(event)
        assert task.left_out == ()


# ── the time for offers ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("absent", "state"), [("", "expired"), ("wait", "proposed"), ("fail", "expired"), ("go-on", "expired")]
)
def test_the_time_for_offers_ends_every_task_but_one_that_waits(absent: Absent, state: State) -> None:
    task = _task("proposed", BTS, absent, 1)
    assert without_wakes(task.handle(Ticked(OFFERS_DUE - 0.001))) == []
    ordered = task.handle(Ticked(OFFERS_DUE))
    assert task.state == state
    assert [one for one in ordered if isinstance(one, GoOn)] == ([GoOn((DELTA, UNITED))] if absent == "go-on" else [])


def test_a_task_that_waits_for_offers_waits_until_its_deadline_and_says_so() -> None:
    task = _task("proposed", BTS, "wait")
    assert {wait.until for wait in task.waits()} == {DEADLINE}
    task.handle(Ticked(OFFERS_DUE))
    task.handle(offered(DELTA, OFFERS_DUE + 5))
    assert Perform() in task.handle(offered(UNITED, OFFERS_DUE + 9))


def test_a_silent_party_that_cannot_be_reached_is_named_before_one_that_is_merely_silent() -> None:
    task = _task("proposed", BTS, "")
    task.handle(PartyDown(UNITED, "refused", OFFERS_DUE - 1))
    task.handle(Ticked(OFFERS_DUE))
    assert task.outcome is not None
    assert task.outcome.party == UNITED
    assert "for united, delta: their offer (cannot be reached: refused)" in task.outcome.reason


def test_a_receipt_that_does_not_come_says_that_its_receiver_cannot_be_reached() -> None:
    task = at_state("running")
    for part in ("q-delta", "t", "m"):
        task.handle(finished(part))
    task.handle(confirmed(UNITED, "q-united", "t", "m"))
    task.handle(confirmed(BTS, "t", "m", "r"))
    task.handle(PartyDown(BTS, "no route to host", START))
    (wait,) = task.waits()
    assert (wait.what, wait.why) == ("the receipt", "cannot be reached: no route to host")


# ── restarts ────────────────────────────────────────────────────────────────────────────────────────


def test_the_time_for_offers_ends_a_task_whose_asker_restarted_while_it_judged() -> None:
    task = _task("judging", BTS, "")
    ordered = task.handle(Restarted(frozenset(), START + 1))
    assert Judge() in ordered
    assert Wake(OFFERS_DUE + 1) in ordered


def test_an_asker_that_restarts_after_a_refusal_waits_no_longer_for_the_others_than_before() -> None:
    task = asker(refused(UNITED, START + 1))
    assert Wake(START + 1 + PATIENCE.refusal_seconds) in task.handle(Restarted(frozenset(), START + 1.2))
    task.handle(Ticked(START + 1 + PATIENCE.refusal_seconds))
    assert task.state == "refused"


def test_an_absence_before_a_restart_is_not_held_against_a_party_after_it() -> None:
    task = _task("running", BTS, "fail")
    task.handle(PartyDown(UNITED, "gone", START))
    task.handle(Restarted(frozenset(), START + 1))
    task.handle(Ticked(LAPSE))
    assert task.state == "running"


def _journal(*entries: tuple[PartyId, str, object]) -> list[Entry]:
    found: list[Entry] = []
    for at, (party, id, body) in enumerate(entries):
        assert isinstance(body, Proposal | Offer | Stop)
        found.append(Entry(at, party, id, START, body, f"envelope of {party}"))
    return found


def test_a_contract_that_was_decided_and_not_durable_is_published_after_the_crash_and_then_performed() -> None:
    proposed = at_state("new").proposal
    task = replay(
        TASK,
        BTS,
        _journal((BTS, PROPOSAL, proposed), *((party, f"offer of {party}", offer_of(party)) for party in PARTIES)),
        PATIENCE,
    )
    contract = running_asker()._contract()
    ordered = without_wakes(task.handle(Restarted(frozenset(), START + 2)))
    assert (ordered[0], ordered[-1]) == (Publish(contract, (DELTA, UNITED)), Perform())
    assert [type(body) for body in bodies(ordered)] == [Contract, Attempt], "its side of a joint step is not here"


def test_a_contract_that_is_durable_is_not_published_again() -> None:
    task = running_asker()
    assert not any(isinstance(body, Contract) for body in bodies(task.handle(Restarted(frozenset(), START + 2))))


def test_an_asker_whose_echo_of_a_stop_was_not_durable_says_it_after_the_crash_once() -> None:
    proposed, stop = at_state("new").proposal, stopped(UNITED).stop
    told = replay(TASK, BTS, _journal((BTS, PROPOSAL, proposed), (UNITED, "stop-1", stop)), PATIENCE)
    assert told.handle(Restarted(frozenset(), START + 2)) == [Publish(stop, (DELTA, UNITED))]
    assert told.handle(Restarted(frozenset(), START + 3)) == []


def test_a_restart_after_attempts_goes_on_counting() -> None:
    task = at_state("running")
    task.handle(finished("q-delta"))
    task.handle(anew(UNITED, "t", 4))
    kept = frozenset({StepId("q-delta")})
    task.handle(Restarted(kept, START + 1))
    task.handle(anew(UNITED, "t", 5))
    task.handle(anew(UNITED, "t", 3))
    assert task.attempts == {"t": 5}
