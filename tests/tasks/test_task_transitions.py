# SPDX-License-Identifier: Apache-2.0
"""Events in, instructions out: every transition of a task, seen from the asker and from an owner."""

import pytest
from msgspec import structs
from msgspec.structs import replace
from task_world import (
    BTS,
    CONTRACT,
    DELTA,
    OTHER_DIGEST,
    PARTIES,
    PATIENCE,
    PLAN,
    PLAN_DIGEST,
    PROPOSAL,
    RESULT,
    SECONDS,
    START,
    TASK,
    UNITED,
    after,
    all_of,
    asker,
    at_state,
    bodies,
    confirmed,
    contracted,
    done_part,
    finished,
    new_task,
    offer_of,
    offered,
    permitted,
    proposal,
    receipt,
    refused,
    released,
    running_asker,
    stopped,
    version_of,
    without_wakes,
)

from junto.errors import PeerFault
from junto.plan import steps
from junto.plan.steps import Plan, Release
from junto.tasks.bodies import Absent, Attempt, Confirm, Receipt, Refusal, Stop
from junto.tasks.events import (
    AttemptArrived,
    CancelAsked,
    ConfirmArrived,
    ContractArrived,
    Event,
    Forbidden,
    OfferArrived,
    Opened,
    PartyDown,
    PartyUp,
    Restarted,
    StepFailed,
    Ticked,
)
from junto.tasks.instructions import Conclude, GoOn, Halt, Instruction, Judge, Perform, Publish, Redo, Wake
from junto.tasks.state import Task
from junto.tasks.table import ENDED, State
from junto.tasks.waiting import Wait
from junto.types import PartyId, StepId

DEADLINE = START + SECONDS
OFFERS_DUE = START + PATIENCE.offer_seconds


def _outcome(task: Task) -> tuple[str, str, str, str]:
    assert task.outcome is not None
    return (task.outcome.end, task.outcome.code, task.outcome.party, task.outcome.reason)


# ── proposing ───────────────────────────────────────────────────────────────────────────────────────


def test_the_asker_publishes_its_proposal_before_it_judges() -> None:
    task = new_task(BTS)
    assert task.handle(Opened("", START)) == [
        Wake(DEADLINE),
        Wake(OFFERS_DUE),
        Publish(proposal(), (DELTA, UNITED)),
        Judge(),
    ]
    assert task.state == "judging"


def test_an_owner_judges_what_was_proposed() -> None:
    assert new_task(DELTA).handle(Opened(PROPOSAL, START)) == [Wake(DEADLINE), Judge()]


def test_an_owner_offers_to_the_asker_alone() -> None:
    task = after(DELTA, Opened(PROPOSAL, START))
    assert task.handle(permitted(DELTA)) == [Publish(offer_of(DELTA), (BTS,))]
    assert task.state == "offered"


def test_an_owner_that_may_not_refuses_to_the_asker_and_has_ended() -> None:
    task = after(DELTA, Opened(PROPOSAL, START))
    instructions = task.handle(Forbidden("refused", "column tailnum: no rule", START))
    assert instructions == [
        Publish(Refusal(PROPOSAL, PLAN_DIGEST, "refused", "column tailnum: no rule"), (BTS,)),
        Halt(),
        Conclude("refused", "refused", DELTA, "column tailnum: no rule"),
    ]
    assert task.state == "refused"


def test_an_owner_that_cannot_has_failed_not_refused() -> None:
    task = after(DELTA, Opened(PROPOSAL, START))
    task.handle(Forbidden("data-changed", "flights.csv is not what was published", START))
    assert task.state == "failed"


def test_an_asker_that_may_not_tells_everyone() -> None:
    task = after(BTS, Opened(PROPOSAL, START))
    (stop,) = bodies(task.handle(Forbidden("refused", "no rule", START)))
    assert stop == Stop(PLAN_DIGEST, "refused", "refused", BTS, "no rule")


# ── offers and the contract ─────────────────────────────────────────────────────────────────────────


def test_the_contract_is_written_when_all_have_offered_and_then_we_perform() -> None:
    task = asker(offered(UNITED))
    assert task.state == "proposed"
    assert task.handle(offered(DELTA)) == [Publish(CONTRACT, (DELTA, UNITED)), Perform()]


def test_there_is_no_contract_before_the_askers_own_offer_is_durable() -> None:
    task = after(BTS, Opened(PROPOSAL, START), offered(DELTA), permitted(BTS), offered(UNITED))
    assert task.state == "proposed"
    assert without_wakes(task.handle(offered(BTS))) == [Publish(CONTRACT, (DELTA, UNITED)), Perform()]


def test_offers_with_other_disclosures_make_no_contract_and_the_odd_one_is_named() -> None:
    task = asker(offered(UNITED))
    odd = OfferArrived(DELTA, offer_of(DELTA, disclosures=OTHER_DIGEST), "envelope", START)
    instructions = task.handle(odd)
    assert Perform() not in instructions
    assert _outcome(task)[:3] == ("failed", "peer-fault", DELTA)


def test_a_refusal_ends_the_task_at_once_when_all_have_answered() -> None:
    task = asker(offered(UNITED))
    (stop,) = bodies(task.handle(refused(DELTA)))
    assert stop == Stop(PLAN_DIGEST, "refused", "refused", DELTA, "delta says no")


def test_a_refusal_waits_a_moment_so_that_all_reasons_are_named() -> None:
    task = asker()
    assert task.handle(refused(UNITED, START + 1)) == [Wake(START + 1 + PATIENCE.refusal_seconds)]
    (stop,) = bodies(task.handle(refused(DELTA, START + 1.5)))
    assert stop == Stop(PLAN_DIGEST, "refused", "refused", DELTA, "delta says no\nunited says no")


def test_a_refusal_does_not_wait_long_for_the_silent() -> None:
    task = asker(refused(UNITED, START + 1))
    assert task.handle(Ticked(START + 1.5)) == []
    (stop,) = bodies(task.handle(Ticked(START + 1 + PATIENCE.refusal_seconds)))
    assert stop == Stop(PLAN_DIGEST, "refused", "refused", UNITED, "united says no")


def test_a_refusal_shortly_before_the_deadline_is_told_rather_than_who_is_silent() -> None:
    task = asker(refused(UNITED, DEADLINE - 0.1))
    (stop,) = bodies(task.handle(Ticked(DEADLINE)))
    assert stop == Stop(PLAN_DIGEST, "refused", "refused", UNITED, "united says no")


def test_a_refusal_by_rule_names_the_task_before_any_other() -> None:
    task = asker(refused(DELTA, code="data-changed"))
    task.handle(refused(UNITED, START))
    assert _outcome(task) == ("refused", "refused", UNITED, "delta says no\nunited says no")


def test_a_party_that_cannot_ends_the_task_as_failed() -> None:
    task = asker(offered(UNITED))
    task.handle(refused(DELTA, code="data-changed"))
    assert _outcome(task)[:3] == ("failed", "data-changed", DELTA)


def test_a_refusal_before_our_own_judgement_is_not_forgotten() -> None:
    task = after(BTS, Opened(PROPOSAL, START), refused(DELTA), offered(UNITED), permitted(BTS, START + 3))
    (stop,) = bodies(task.handle(offered(BTS, START + 3)))
    assert isinstance(stop, Stop)
    assert (stop.end, stop.party) == ("refused", DELTA)


def test_a_silent_participant_is_named_at_the_limit_for_offers() -> None:
    task = asker(offered(UNITED))
    assert task.handle(Ticked(OFFERS_DUE - 0.001)) == []
    task.handle(Ticked(OFFERS_DUE))
    reason = "the time for offers passed waiting 10 s for delta: its offer"
    assert _outcome(task) == ("expired", "deadline-exceeded", DELTA, reason)


def test_all_who_are_silent_are_named() -> None:
    task = asker()
    task.handle(Ticked(OFFERS_DUE))
    assert "waiting 10 s for delta, united: their offer" in _outcome(task)[3]


def test_of_two_silent_the_one_that_cannot_be_reached_is_named_first() -> None:
    task = asker(PartyDown(UNITED, "connection refused", OFFERS_DUE - 1))
    task.handle(Ticked(OFFERS_DUE))
    assert _outcome(task)[2:] == (
        UNITED,
        "the time for offers passed waiting 10 s for united, delta: their offer"
        " (cannot be reached: connection refused)",
    )


def test_a_refusal_just_before_the_limit_for_offers_is_a_refusal_still() -> None:
    task = asker(refused(UNITED, OFFERS_DUE - 0.1))
    assert task.handle(Ticked(OFFERS_DUE)) == []
    task.handle(Ticked(OFFERS_DUE - 0.1 + PATIENCE.refusal_seconds))
    assert _outcome(task)[:3] == ("refused", "refused", UNITED)


def test_the_first_offer_of_a_party_is_the_one_that_counts() -> None:
    task = asker(offered(UNITED), OfferArrived(UNITED, offer_of(UNITED), "another envelope", START))
    assert without_wakes(task.handle(offered(DELTA)))[0] == Publish(CONTRACT, (DELTA, UNITED))


def test_a_receiver_that_did_not_ask_names_the_versions_in_the_contract() -> None:
    plan = Plan("SELECT 1", BTS, (*PLAN.steps[:2], Release(StepId("r"), DELTA, "SELECT 1")))
    digest = steps.digest(plan)
    task = Task(TASK, DELTA, BTS, replace(proposal(), plan=plan, plan_digest=digest), PATIENCE)
    task.handle(Opened(PROPOSAL, START))
    task.handle(permitted(DELTA))
    offers = tuple((party, offer_of(party, plan=digest)) for party in PARTIES)
    task.handle(ContractArrived(BTS, "contract-1", replace(CONTRACT, plan_digest=digest), offers, START))
    task.handle(released(START + 1))
    assert task.receipt is not None
    assert task.receipt.versions == (version_of(DELTA), version_of(UNITED))


def test_an_owner_performs_the_contract_it_offered_for() -> None:
    task = at_state("offered")
    assert task.handle(contracted()) == [Perform()]
    assert (task.state, task.contract) == ("running", "contract-1")


# ── running ─────────────────────────────────────────────────────────────────────────────────────────


def test_finished_steps_are_confirmed_together_after_a_moment() -> None:
    task = at_state("running")
    assert task.handle(finished("q-delta")) == [Wake(START + PATIENCE.confirm_seconds)]
    assert task.handle(finished("t")) == []
    confirm = Confirm(PLAN_DIGEST, (done_part("q-delta"), done_part("t")))
    assert task.handle(Ticked(START + PATIENCE.confirm_seconds)) == [Publish(confirm, (BTS, UNITED))]
    assert task.handle(Ticked(START + 1)) == []


def test_the_last_part_is_confirmed_at_once() -> None:
    task = at_state("running")
    task.handle(finished("q-delta"))
    task.handle(finished("t"))
    (confirm,) = bodies(task.handle(finished("m")))
    assert isinstance(confirm, Confirm)
    assert [part.step for part in confirm.steps] == ["q-delta", "t", "m"]


def test_what_others_confirm_is_on_the_timeline_once() -> None:
    task = at_state("running")
    assert task.handle(confirmed(UNITED, "q-united", "t")) == []
    assert task.handle(confirmed(UNITED, "t")) == []
    assert set(task.finished) == {("q-united", UNITED), ("t", UNITED)}


def test_a_confirmation_that_overtook_the_contract_counts() -> None:
    task = at_state("offered")
    task.handle(confirmed(UNITED, "q-united"))
    task.handle(contracted())
    assert (StepId("q-united"), UNITED) in task.finished


def test_the_receiver_signs_what_came_out_of_which_versions() -> None:
    task = running_asker()
    task.handle(finished("t", START + 1))
    instructions = task.handle(released(START + 2))
    versions = (version_of(DELTA), version_of(UNITED))
    assert instructions == [
        Publish(Confirm(PLAN_DIGEST, (done_part("t"),)), (DELTA, UNITED)),
        Publish(Receipt(PLAN_DIGEST, "contract-1", RESULT, 36, "some", versions, 2.0), (DELTA, UNITED)),
        Halt(),
        Conclude("done", "", BTS, ""),
    ]
    assert task.state == "done"


def test_a_receipt_ends_the_task_and_what_was_finished_is_still_confirmed() -> None:
    task = at_state("running")
    task.handle(finished("q-delta"))
    confirm = Confirm(PLAN_DIGEST, (done_part("q-delta"),))
    assert task.handle(receipt(START + 2)) == [
        Publish(confirm, (BTS, UNITED)),
        Halt(),
        Conclude("done", "", BTS, ""),
    ]


def test_a_step_that_fails_ends_the_task_naming_whose_doing_it_is() -> None:
    task = at_state("running")
    task.handle(finished("q-delta"))
    instructions = task.handle(StepFailed(StepId("t"), "unavailable", UNITED, "united hung up", START))
    stop = Stop(PLAN_DIGEST, "failed", "unavailable", UNITED, "united hung up")
    assert bodies(instructions) == [Confirm(PLAN_DIGEST, (done_part("q-delta"),)), stop]
    assert instructions[-2:] == [Halt(), Conclude("failed", "unavailable", UNITED, "united hung up")]


def test_a_step_that_ran_out_of_time_names_whom_it_waited_for_not_who_noticed() -> None:
    task = at_state("running")
    task.handle(finished("q-delta"))
    task.handle(StepFailed(StepId("t"), "deadline-exceeded", DELTA, "no reply within 59.9 s", DEADLINE - 0.01))
    assert _outcome(task)[:3] == ("expired", "deadline-exceeded", UNITED)


# ── every open state ────────────────────────────────────────────────────────────────────────────────

OPEN: list[State] = ["judging", "proposed", "offered", "running"]
OVER: list[State] = ["done", "refused", "failed", "cancelled", "expired"]


@pytest.mark.parametrize("state", OPEN)
def test_a_user_may_cancel_and_everyone_is_told(state: State) -> None:
    task = at_state(state)
    instructions = task.handle(CancelAsked("ana", START))
    assert instructions[0] == Publish(
        Stop(PLAN_DIGEST, "cancelled", "cancelled", task.me, f"cancelled by ana at {task.me}"), task.others
    )
    assert task.state == "cancelled"


@pytest.mark.parametrize("state", OPEN)
def test_anothers_stop_ends_the_task_as_it_says(state: State) -> None:
    task = at_state(state)
    task.handle(stopped(UNITED))
    assert _outcome(task) == ("failed", "out-of-memory", UNITED, "it needs more memory")


@pytest.mark.parametrize("state", ["judging", "offered", "running"])
def test_an_owner_does_not_repeat_a_stop(state: State) -> None:
    assert bodies(at_state(state).handle(stopped(UNITED))) == []


def test_the_asker_repeats_a_stop_to_those_who_may_not_have_had_the_proposal() -> None:
    stop = stopped(UNITED).stop
    assert asker().handle(stopped(UNITED))[0] == Publish(stop, (DELTA, UNITED))
    assert bodies(running_asker().handle(stopped(UNITED))) == []


def _ruled(state: State, absent: Absent, at_least: int = 0) -> Task:
    task = at_state(state)
    task.proposal = structs.replace(task.proposal, absent=absent, at_least=at_least)
    return task


@pytest.mark.parametrize("state", OPEN)
def test_a_task_that_may_not_wait_ends_when_a_party_is_down_for_longer_than_our_patience(state: State) -> None:
    task = _ruled(state, "fail")
    wake = START + 1 + PATIENCE.absence_seconds
    assert task.handle(PartyDown(UNITED, "no route to host", START + 1)) == [Wake(wake)]
    assert bodies(task.handle(Ticked(wake - 0.001))) == []
    assert task.state == state
    (stop,) = bodies(task.handle(Ticked(wake)))
    reason = "united cannot be reached: no route to host"
    assert stop == Stop(PLAN_DIGEST, "failed", "unavailable", UNITED, reason)


@pytest.mark.parametrize(
    ("state", "absent", "ends"),
    [
        ("proposed", "", True),
        ("judging", "", False),  # only who asked decides: the contract may be on its way
        ("offered", "", False),
        ("running", "", False),
        *((state, "wait", False) for state in OPEN),
        *((state, "go-on", state == "proposed") for state in OPEN),
    ],
)
def test_whether_an_absence_ends_the_task_is_the_tasks_own_rule(state: State, absent: Absent, ends: bool) -> None:
    task = _ruled(state, absent)
    task.handle(PartyDown(UNITED, "no route to host", START + 1))
    task.handle(Ticked(START + 1 + PATIENCE.absence_seconds))
    assert (task.state == "failed") is ends
    if not ends and state == "running":
        assert any(wait.why == "cannot be reached: no route to host" for wait in task.waits() if wait.party == UNITED)


def test_a_task_that_may_go_on_is_asked_again_without_those_who_stay_away() -> None:
    task = running_asker()
    task.proposal = structs.replace(task.proposal, absent="go-on", at_least=2)
    task.handle(PartyDown(UNITED, "gone", START))
    instructions = task.handle(Ticked(START + PATIENCE.absence_seconds))
    assert instructions[-1] == GoOn((UNITED,))
    assert task.left_out == (UNITED,)
    assert "it is asked again without united" in _outcome(task)[3]


def test_a_task_does_not_go_on_with_fewer_than_it_asks_for() -> None:
    task = running_asker()
    task.proposal = structs.replace(task.proposal, absent="go-on", at_least=3)
    task.handle(PartyDown(UNITED, "gone", START))
    instructions = task.handle(Ticked(START + PATIENCE.absence_seconds))
    assert not any(isinstance(one, GoOn) for one in instructions)
    assert "2 participants would be left, at least 3 are asked for" in _outcome(task)[3]


def test_who_does_not_offer_in_time_is_left_out_too() -> None:
    task = asker(offered(DELTA))
    task.proposal = structs.replace(task.proposal, absent="go-on", at_least=1)
    assert task.handle(Ticked(OFFERS_DUE))[-1] == GoOn((UNITED,))


def test_a_party_that_came_up_again_is_forgiven() -> None:
    task = after(DELTA, Opened(PROPOSAL, START), PartyDown(UNITED, "gone", START), PartyUp(UNITED, START + 1))
    assert task.handle(Ticked(START + PATIENCE.absence_seconds)) == []
    assert task.state == "judging"


def test_going_down_again_and_again_does_not_start_the_count_anew() -> None:
    task = after(BTS, Opened(PROPOSAL, START), PartyDown(UNITED, "gone", START), PartyDown(UNITED, "gone", START + 4))
    task.handle(Ticked(START + PATIENCE.absence_seconds))
    assert task.state == "failed"


@pytest.mark.parametrize(
    ("state", "party", "what"),
    [
        ("judging", DELTA, "for delta: its judgement"),
        ("offered", BTS, "for bts: the contract"),
        ("running", DELTA, "for delta: step q-delta"),
    ],
)
def test_the_deadline_ends_the_task_naming_whom_it_waited_for(state: State, party: str, what: str) -> None:
    task = at_state(state)
    task.handle(Ticked(DEADLINE))
    assert _outcome(task) == ("expired", "deadline-exceeded", party, f"the deadline passed waiting 60 s {what}")


def test_at_the_deadline_the_first_unfinished_step_is_named_not_those_that_wait_for_it() -> None:
    task = at_state("running")
    task.handle(finished("q-delta"))
    task.handle(Ticked(DEADLINE))
    assert _outcome(task)[2:] == (UNITED, "the deadline passed waiting 60 s for united: step q-united")


def test_of_a_joint_step_the_others_are_named_before_ourselves() -> None:
    task = at_state("running")
    task.handle(finished("q-delta"))
    task.handle(confirmed(UNITED, "q-united"))
    task.handle(Ticked(DEADLINE))
    assert _outcome(task)[2:] == (BTS, "the deadline passed waiting 60 s for bts, united, delta: step t")


def test_when_all_parts_are_confirmed_the_receiver_is_waited_for() -> None:
    task = at_state("running")
    for part in ("q-delta", "t", "m"):
        task.handle(finished(part))
    task.handle(confirmed(UNITED, "q-united", "t", "m"))
    task.handle(confirmed(BTS, "t", "m", "r"))
    assert task.waits() == (Wait(BTS, "the receipt", START, DEADLINE),)
    task.handle(Ticked(DEADLINE))
    assert _outcome(task)[2] == BTS


def test_a_node_that_restarted_judges_again_what_it_had_not_judged() -> None:
    task = at_state("judging")
    assert task.handle(Restarted(frozenset(), START + 9)) == [Wake(DEADLINE), Wake(START + 9), Judge()]


@pytest.mark.parametrize("state", ["proposed", "offered"])
def test_a_node_that_restarted_waits_on(state: State) -> None:
    task = at_state(state)
    instructions = task.handle(Restarted(frozenset(), START + 9))
    assert instructions[:2] == [Wake(DEADLINE), Wake(START + 9)]
    assert all(isinstance(one, Wake) for one in instructions)
    assert task.state == state


def test_who_asked_and_restarted_after_the_time_for_offers_gives_it_anew() -> None:
    task = at_state("proposed")
    back = START + 3 * PATIENCE.offer_seconds
    assert Wake(back + PATIENCE.offer_seconds) in task.handle(Restarted(frozenset(), back))
    assert task.handle(Ticked(back)) == []
    assert {(wait.since, wait.until) for wait in task.waits()} == {(back, back + PATIENCE.offer_seconds)}
    task.handle(Ticked(back + PATIENCE.offer_seconds))
    assert _outcome(task)[3].startswith(f"the time for offers passed waiting {PATIENCE.offer_seconds:g} s for ")


def test_who_asked_and_restarted_gives_no_more_time_than_the_task_has() -> None:
    task = at_state("proposed")
    back = DEADLINE - 1
    task.handle(Restarted(frozenset(), back))
    task.handle(Ticked(DEADLINE))
    assert _outcome(task)[:2] == ("expired", "deadline-exceeded")


def test_a_node_that_restarted_begins_the_joint_step_anew_that_it_had_not_finished() -> None:
    task = at_state("running")
    task.handle(finished("q-delta"))
    instructions = task.handle(Restarted(frozenset({StepId("q-delta")}), START + 9))
    (attempt,) = bodies(instructions)
    assert isinstance(attempt, Attempt)
    assert (attempt.step, attempt.number) == ("t", 1)
    assert instructions[-1] == Perform()
    assert (StepId("q-delta"), DELTA) in task.finished  # a fragment is not computed again


def test_an_output_that_did_not_survive_is_made_again() -> None:
    task = at_state("running")
    task.handle(finished("q-delta"))
    task.handle(Restarted(frozenset(), START + 9))
    assert (StepId("q-delta"), DELTA) not in task.finished


def test_a_contract_that_a_crash_kept_from_the_journal_is_written_again() -> None:
    task = running_asker()
    contract = task._contract()
    task.contract = None
    assert contract in bodies(task.handle(Restarted(frozenset(), START + 9)))


def _anew(task: Task, party: PartyId, number: int, step: str = "t") -> list[Instruction]:
    return task.handle(AttemptArrived(party, Attempt(PLAN_DIGEST, StepId(step), number, "it crashed"), START + 5))


def test_a_joint_step_that_another_lost_begins_anew_with_all_that_rests_on_it() -> None:
    task = at_state("running")
    for part in ("q-delta", "t", "m"):
        task.handle(finished(part))
    assert _anew(task, UNITED, 1) == [Redo(StepId("t"))]
    assert set(task.finished) == {("q-delta", DELTA)}
    assert _anew(task, BTS, 1) == []  # both had crashed: one number for both
    assert _anew(task, BTS, 2) == [Redo(StepId("t"))]
    assert _anew(task, UNITED, 1) == []  # a number never goes back


def test_what_is_confirmed_of_an_older_run_does_not_count_and_of_a_later_one_counts_when_it_is_known() -> None:
    task = at_state("running")
    _anew(task, UNITED, 1)
    task.handle(confirmed(UNITED, "t"))
    assert ("t", UNITED) not in task.finished
    later = structs.replace(done_part("t"), attempt="2")
    task.handle(ConfirmArrived(BTS, Confirm(PLAN_DIGEST, (later,)), START + 6))
    assert ("t", BTS) not in task.finished
    _anew(task, UNITED, 2)
    assert task.finished[StepId("t"), BTS] == later


def test_who_takes_no_part_cannot_begin_a_step_anew_nor_one_that_is_no_joint_step() -> None:
    task = at_state("running")
    for party, step, number in ((UNITED, "q-united", 1), (UNITED, "r", 1), (UNITED, "t", 0), (UNITED, "t", 21)):
        with pytest.raises(PeerFault):
            _anew(task, party, number, step)


def test_a_step_that_is_never_finished_ends_its_task() -> None:
    task = at_state("running")
    task.handle(finished("q-delta"))
    _anew(task, UNITED, 20)
    task.handle(Restarted(frozenset({StepId("q-delta")}), START + 9))
    assert _outcome(task)[:3] == ("failed", "unavailable", DELTA)
    assert "step t was begun 21 times" in _outcome(task)[3]


def test_an_end_that_a_crash_kept_untold_is_told_once_and_anothers_is_not_echoed() -> None:
    ours, anothers = at_state("running"), at_state("running")
    ours.handle(CancelAsked("ana", START))
    (stop,) = bodies(ours.handle(Restarted(frozenset(), START + 9)))
    assert isinstance(stop, Stop)
    assert ours.handle(Restarted(frozenset(), START + 10)) == []
    anothers.handle(stopped(UNITED))
    assert anothers.handle(Restarted(frozenset(), START + 9)) == []


LATE: list[Event] = [
    permitted(DELTA),
    Forbidden("refused", "no", START),
    offered(UNITED),
    refused(UNITED),
    contracted(),
    StepFailed(StepId("t"), "internal", DELTA, "no", START),
    released(),
    stopped(UNITED, "cancelled"),
    CancelAsked("ana", START),
    PartyDown(UNITED, "gone", START),
    PartyUp(UNITED, START),
    Restarted(frozenset(), START),
    Ticked(DEADLINE + 1),
]


@pytest.mark.parametrize("state", OVER)
@pytest.mark.parametrize("event", LATE, ids=lambda event: type(event).__name__)
def test_a_late_event_changes_nothing(state: State, event: Event) -> None:
    task = at_state(state)
    before = all_of(task)
    assert task.handle(event) == []
    assert all_of(task) == before


@pytest.mark.parametrize("state", OVER)
def test_a_late_part_or_receipt_is_recorded_and_the_end_stays(state: State) -> None:
    task = at_state(state)
    outcome = task.outcome
    assert task.handle(confirmed(UNITED, "q-united")) == []
    assert task.handle(finished("q-delta")) == []
    assert task.handle(receipt(START + 5)) == []
    assert (StepId("q-delta"), DELTA) in task.finished
    assert (StepId("q-united"), UNITED) in task.finished
    assert task.receipt is not None
    assert (task.state, task.outcome) == (state, outcome)


def test_the_first_receipt_is_the_one_that_stays() -> None:
    task = at_state("done")
    first = task.receipt
    task.handle(receipt(START + 5))
    assert task.receipt == first


# ── waits ───────────────────────────────────────────────────────────────────────────────────────────


def test_every_open_state_says_whom_it_waits_for_since_and_until_when() -> None:
    assert at_state("judging").waits() == (Wait(DELTA, "its judgement", START, DEADLINE),)
    assert asker(offered(UNITED)).waits() == (Wait(DELTA, "its offer", START, OFFERS_DUE),)
    assert at_state("offered").waits() == (Wait(BTS, "the contract", START, DEADLINE),)
    running = at_state("running")
    assert running.waits()[:3] == (
        Wait(DELTA, "step q-delta", START, DEADLINE),
        Wait(UNITED, "step q-united", START, DEADLINE),
        Wait(BTS, "step t", START, DEADLINE),
    )
    running.handle(confirmed(UNITED, "q-united"))
    assert UNITED not in [wait.party for wait in running.waits() if wait.what == "step q-united"]


@pytest.mark.parametrize("state", OVER)
def test_a_task_that_has_ended_waits_for_nobody(state: State) -> None:
    assert at_state(state).waits() == ()


def test_offers_are_not_waited_for_beyond_the_deadline() -> None:
    task = after(BTS, Opened(PROPOSAL, START), permitted(BTS), seconds=2.0)
    assert {wait.until for wait in task.waits()} == {START + 2}
    assert {wait.party for wait in task.waits()} == set(PARTIES)


# ── the journal failed ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", OPEN)
def test_a_task_whose_statements_cannot_be_written_ends_here_unsigned(state: State) -> None:
    task = at_state(state)
    ended = Conclude("failed", "storage-failed", task.me, "disk full")
    assert task.abandon("storage-failed", "disk full", START) == [Halt(), ended]
    assert task.state == "failed"


def test_an_answer_whose_receipt_cannot_be_written_is_none() -> None:
    task = running_asker()
    task.handle(released())
    task.abandon("storage-failed", "disk full", START)
    assert (task.state, task.receipt) == ("failed", None)


def test_a_stop_that_cannot_be_written_still_ends_the_work() -> None:
    task = at_state("running")
    task.handle(CancelAsked("ana", START))
    instructions = task.abandon("storage-failed", "disk full", START)
    assert instructions == [Halt(), Conclude("cancelled", "cancelled", DELTA, "cancelled by ana at delta")]
    assert task.state in ENDED
