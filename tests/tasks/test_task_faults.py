# SPDX-License-Identifier: Apache-2.0
"""What a peer gets wrong is a PeerFault, what the state does not know an InvalidTransition; neither changes us."""

from dataclasses import replace

import msgspec
import pytest
from task_world import (
    BTS,
    CONTRACT,
    DELTA,
    OFFERS,
    OTHER_DIGEST,
    PLAN_DIGEST,
    PROPOSAL,
    START,
    STRANGER,
    UNITED,
    after,
    all_of,
    anew,
    asker,
    at_state,
    confirmed,
    contracted,
    finished,
    offer_of,
    offered,
    permitted,
    receipt,
    refused,
    released,
    running_asker,
    stopped,
    tried,
    version_of,
)

from junto.errors import InvalidTransition, PeerFault
from junto.tasks.attempts import MOST_ATTEMPTS
from junto.tasks.bodies import BODIES, Attempt, Body, Confirm, Contract, Offer, Receipt, Refusal, Second, Stop, kind_of
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
    ReceiptArrived,
    RefusalArrived,
    Restarted,
    StepDoubled,
    StepFailed,
    StepTried,
    StopArrived,
    Ticked,
)
from junto.tasks.state import Task
from junto.tasks.table import ENDED, LEGAL, MOVES, State
from junto.types import Digest, PartyId, StepId

OTHER = "another-proposal"


def _offer(offer: Offer, party: PartyId = UNITED) -> OfferArrived:
    return OfferArrived(party, offer, "envelope", START)


def _contract(
    contract: Contract = CONTRACT, offers: tuple[tuple[PartyId, Offer], ...] = OFFERS, party: PartyId = BTS
) -> ContractArrived:
    return ContractArrived(party, "contract-1", contract, offers, START)


def _with(offer: Offer) -> tuple[tuple[PartyId, Offer], ...]:
    return (*OFFERS[:2], (UNITED, offer))


FAULTS: dict[str, tuple[State, Event]] = {
    "an offer for another plan": ("proposed", _offer(offer_of(UNITED, plan=OTHER_DIGEST))),
    "an offer for another proposal": ("proposed", _offer(offer_of(UNITED, proposed=OTHER))),
    "an offer of a stranger": ("proposed", _offer(offer_of(STRANGER), STRANGER)),
    "an offer of another's version": ("proposed", _offer(offer_of(DELTA))),
    "an offer to somebody who did not ask": ("judging", offered(UNITED)),
    "a refusal of another plan": (
        "proposed",
        RefusalArrived(UNITED, Refusal(PROPOSAL, OTHER_DIGEST, "refused", "no"), START),
    ),
    "a refusal of another proposal": (
        "proposed",
        RefusalArrived(UNITED, Refusal(OTHER, PLAN_DIGEST, "refused", "no"), START),
    ),
    "a refusal of a stranger": ("proposed", refused(STRANGER)),
    "a refusal to somebody who did not ask": ("judging", refused(UNITED)),
    "a contract that is not the asker's": ("offered", _contract(party=UNITED)),
    "a contract over another plan": ("offered", _contract(msgspec.structs.replace(CONTRACT, plan_digest=OTHER_DIGEST))),
    "a contract over another proposal": ("offered", _contract(msgspec.structs.replace(CONTRACT, proposal=OTHER))),
    "a contract with other disclosures": (
        "offered",
        _contract(msgspec.structs.replace(CONTRACT, disclosures=OTHER_DIGEST)),
    ),
    "a contract that lacks an offer": ("offered", _contract(offers=OFFERS[:2])),
    "a contract with an offer twice": ("offered", _contract(offers=(*OFFERS[:2], OFFERS[1]))),
    "a contract with an offer too many": ("offered", _contract(offers=(*OFFERS, (STRANGER, offer_of(STRANGER))))),
    "a contract with an offer for another plan": (
        "offered",
        _contract(offers=_with(offer_of(UNITED, plan=OTHER_DIGEST))),
    ),
    "a contract with an offer for another proposal": (
        "offered",
        _contract(offers=_with(offer_of(UNITED, proposed=OTHER))),
    ),
    "a contract with an offer of other disclosures": (
        "offered",
        _contract(offers=_with(offer_of(UNITED, disclosures=OTHER_DIGEST))),
    ),
    "a contract with an offer of another's version": (
        "offered",
        _contract(offers=_with(msgspec.structs.replace(offer_of(UNITED), versions=(version_of(DELTA),)))),
    ),
    "a confirmation of another plan": ("running", ConfirmArrived(UNITED, Confirm(OTHER_DIGEST, ()), START)),
    "a confirmation of a stranger": ("running", confirmed(STRANGER, "t")),
    "a confirmation of a step one has no part in": ("running", confirmed(UNITED, "t", "q-delta")),
    "a confirmation of a step that is not": ("running", confirmed(UNITED, "t", "x")),
    "an attempt of a stranger": ("running", anew(STRANGER, "t", 1)),
    "an attempt of another plan": (
        "running",
        AttemptArrived(UNITED, Attempt(OTHER_DIGEST, StepId("t"), 1, "lost"), START),
    ),
    "an attempt at a step that is not": ("running", anew(UNITED, "x", 1)),
    "an attempt at a step that is no joint one": ("running", anew(UNITED, "q-united", 1)),
    "an attempt at a step one has no part in": ("running", anew(UNITED, "r", 1)),
    "an attempt that is the first": ("running", anew(UNITED, "t", 0)),
    "an attempt too many": ("running", anew(UNITED, "t", MOST_ATTEMPTS + 1)),
    "an attempt of a stranger before the contract": ("offered", anew(STRANGER, "t", 1)),
    "a receipt of somebody who does not receive": ("running", receipt(signer=UNITED)),
    "a receipt of another plan": (
        "running",
        ReceiptArrived(BTS, msgspec.structs.replace(receipt().receipt, plan_digest=OTHER_DIGEST), START),
    ),
    "a stop of another plan": (
        "running",
        StopArrived(UNITED, Stop(OTHER_DIGEST, "failed", "internal", UNITED, "no"), START),
    ),
    "a stop of a stranger": ("running", stopped(STRANGER)),
    "a stop because of a stranger": ("running", stopped(UNITED, because=STRANGER)),
    "a stop that says done": ("running", stopped(UNITED, "done")),
    "a late confirmation of a stranger": ("done", confirmed(STRANGER, "t")),
    "a late receipt of somebody who does not receive": ("failed", receipt(signer=UNITED)),
    "a late receipt of another plan": (
        "failed",
        ReceiptArrived(BTS, msgspec.structs.replace(receipt().receipt, plan_digest=OTHER_DIGEST), START),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_peer_is_refused_and_leaves_the_task_as_it_was(fault: str) -> None:
    state, event = FAULTS[fault]
    task = asker() if state == "proposed" else at_state(state)
    before = all_of(task)
    with pytest.raises(PeerFault) as refusal:
        task.handle(event)
    assert "\n" not in str(refusal.value)
    assert all_of(task) == before


def test_after_a_fault_the_right_message_still_counts() -> None:
    task = at_state("offered")
    with pytest.raises(PeerFault):
        task.handle(_contract(offers=OFFERS[:2]))
    task.handle(_contract())
    assert task.state == "running"


# ── the table ───────────────────────────────────────────────────────────────────────────────────────

EVENTS: tuple[Event, ...] = (
    Opened(PROPOSAL, START),
    permitted(DELTA),
    Forbidden("refused", "no", START),
    offered(UNITED),
    refused(UNITED),
    contracted(),
    finished("q-delta"),
    StepFailed(StepId("t"), "internal", DELTA, "no", START),
    released(),
    confirmed(UNITED, "t"),
    anew(UNITED, "t", 1),
    tried("q-delta"),
    receipt(),
    stopped(UNITED),
    CancelAsked("ana", START),
    AttemptArrived(UNITED, Attempt(PLAN_DIGEST, StepId("t"), 1, "it crashed"), START),
    StepTried(StepId("t"), 1, "storage-failed", "no room", START),
    StepDoubled(Second(StepId("q"), Digest("sha256:1"), Digest("sha256:1"), ()), START),
    PartyDown(UNITED, "gone", START),
    PartyUp(UNITED, START),
    Restarted(frozenset(), START),
    Ticked(START),
)
OUTSIDE = [(state, event) for state in LEGAL for event in EVENTS if not isinstance(event, LEGAL[state])]


def test_the_events_here_are_all_there_are() -> None:
    assert {type(event) for event in EVENTS} == set(Event.__args__)


@pytest.mark.parametrize(
    ("state", "event"), OUTSIDE, ids=lambda one: one if isinstance(one, str) else type(one).__name__
)
def test_an_event_outside_the_table_is_an_invalid_transition_and_changes_nothing(state: State, event: Event) -> None:
    task = at_state(state)
    before = all_of(task)
    with pytest.raises(InvalidTransition, match=type(event).__name__):
        task.handle(event)
    assert all_of(task) == before


def _machine_for(state: State, event: Event) -> Task:
    """The party that such an event reaches: an asker hears of offers, a receiver has the answer."""
    if isinstance(event, OfferArrived | RefusalArrived) and state == "judging":
        return after(BTS, Opened(PROPOSAL, START))
    if event == released() and state == "running":
        return running_asker()
    return at_state(state)


@pytest.mark.parametrize("state", LEGAL)
def test_every_event_in_the_table_is_accepted_and_leads_where_the_table_says(state: State) -> None:
    for event in EVENTS:
        if isinstance(event, LEGAL[state]):
            task = _machine_for(state, event)
            task.handle(event)
            assert task.state == state or task.state in MOVES[state], f"{state}, {type(event).__name__}"


def test_no_state_but_the_end_is_a_dead_end() -> None:
    assert {state for state, following in MOVES.items() if not following} == ENDED - {"done"}
    assert MOVES.keys() == LEGAL.keys()


def test_we_do_not_finish_what_is_not_ours() -> None:
    task = at_state("running")
    before = all_of(task)
    for event in (finished("q-united"), released()):
        with pytest.raises(InvalidTransition):
            task.handle(event)
    assert all_of(task) == before


# ── bodies ──────────────────────────────────────────────────────────────────────────────────────────


def test_every_body_has_the_kind_it_is_listed_under() -> None:
    found: list[Body] = [
        at_state("new").proposal,
        offer_of(DELTA),
        Refusal(PROPOSAL, PLAN_DIGEST, "refused", "no"),
        CONTRACT,
        Confirm(PLAN_DIGEST, ()),
        Attempt(PLAN_DIGEST, StepId("t"), 1, "it crashed"),
        receipt().receipt,
        stopped(UNITED).stop,
    ]
    assert [kind_of(body) for body in found] == list(BODIES)
    for body in found:
        assert msgspec.json.decode(msgspec.json.encode(body), type=BODIES[kind_of(body)]) == body


def test_a_body_with_a_field_we_do_not_know_is_refused() -> None:
    encoded = msgspec.json.encode({**msgspec.to_builtins(Confirm(PLAN_DIGEST, ())), "more": 1})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(encoded, type=Confirm)


def test_a_receipt_names_versions_in_one_order() -> None:
    task = running_asker()
    task.handle(replace(released(), withheld="unknown"))
    assert isinstance(task.receipt, Receipt)
    assert [version.party for version in task.receipt.versions] == [DELTA, UNITED]
