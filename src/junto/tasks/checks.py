# SPDX-License-Identifier: Apache-2.0
"""The statements that a participant may make about a task; anything else is its fault and has no effect.

Every check raises PeerFault, one line that names the party and the task.
"""

from collections.abc import Collection

from junto.errors import PeerFault
from junto.tasks.attempts import MOST_ATTEMPTS, Joint
from junto.tasks.bodies import Offer, Proposal, Refusal
from junto.tasks.events import (
    AttemptArrived,
    ConfirmArrived,
    ContractArrived,
    Event,
    OfferArrived,
    RefusalArrived,
    StopArrived,
)
from junto.types import Digest, PartyId, StepId, TaskId

Parts = Collection[tuple[StepId, PartyId]]
"""The parties with a part in each step."""


def check_participant(id: TaskId, proposal: Proposal, party: PartyId) -> None:
    """Refuse a party that takes no part."""
    if party not in proposal.participants:
        raise PeerFault(f"{party} takes no part in task {id}")


def check_digest(id: TaskId, proposal: Proposal, party: PartyId, digest: Digest) -> None:
    """Refuse a statement about another plan than the one proposed."""
    if digest != proposal.plan_digest:
        raise PeerFault(f"{party} speaks of another plan than the one proposed as task {id}")


def check_answer(
    id: TaskId, me: PartyId, asker: PartyId, proposal: Proposal, statement: str, party: PartyId, answer: Offer | Refusal
) -> None:
    """Refuse an answer that is not to the asker, or not to the proposal in that statement."""
    check_participant(id, proposal, party)
    if me != asker:
        raise PeerFault(f"{party} answered {me} about task {id}, which {asker} asked")
    check_digest(id, proposal, party, answer.plan_digest)
    if answer.proposal != statement:
        did = "offered for" if isinstance(answer, Offer) else "refused"
        raise PeerFault(f"{party} {did} another proposal than that of task {id}")


def check_versions(id: TaskId, party: PartyId, offer: Offer) -> None:
    """Refuse an offer of versions that are not the party's own."""
    if any(version.party != party for version in offer.versions):
        raise PeerFault(f"{party} offered for task {id} with another party's dataset version")


def check_contract(
    id: TaskId, asker: PartyId, proposal: Proposal, statement: str, disclosures: Digest, event: ContractArrived
) -> None:
    """The contract is the asker's, of the proposal in that statement, over what we judged, with everybody's offer."""
    if event.party != asker:
        raise PeerFault(f"{event.party} sent a contract for task {id}, which {asker} asked")
    check_digest(id, proposal, event.party, event.contract.plan_digest)
    if event.contract.proposal != statement:
        raise PeerFault(f"{event.party} sent a contract for another proposal than that of task {id}")
    if event.contract.disclosures != disclosures:
        raise PeerFault(f"the contract of task {id} names other disclosures than were judged here")
    if sorted(party for party, _ in event.offers) != sorted(proposal.participants):
        raise PeerFault(f"the contract of task {id} does not hold one offer of every participant")
    for party, offer in event.offers:
        check_digest(id, proposal, party, offer.plan_digest)
        if offer.proposal != statement or offer.disclosures != disclosures:
            raise PeerFault(f"the contract of task {id} holds an offer of {party} for something else")
        check_versions(id, party, offer)


def check_confirm(id: TaskId, proposal: Proposal, parts: Parts, event: ConfirmArrived) -> None:
    """Refuse a confirmation of parts that are not the party's own."""
    check_participant(id, proposal, event.party)
    check_digest(id, proposal, event.party, event.confirm.plan_digest)
    if any((finished.step, event.party) not in parts for finished in event.confirm.steps):
        raise PeerFault(f"{event.party} confirms a step of task {id} in which it has no part")


def check_attempt(id: TaskId, proposal: Proposal, parts: Parts, joint: Joint, event: AttemptArrived) -> None:
    """Refuse a new run of a step that is no joint step of the party, and a run beyond the last number allowed."""
    attempt = event.attempt
    check_participant(id, proposal, event.party)
    check_digest(id, proposal, event.party, attempt.plan_digest)
    if (attempt.step, event.party) not in parts or joint[attempt.step][-1:] != (attempt.step,):
        raise PeerFault(f"{event.party} begins a step of task {id} anew that is no joint step of its")
    if not 0 < attempt.number <= MOST_ATTEMPTS:
        raise PeerFault(f"{event.party} begins step {attempt.step} of task {id} for the {attempt.number}th time")


def check_stop(id: TaskId, proposal: Proposal, event: StopArrived) -> None:
    """Refuse a stop that says the task is done, or that names no participant as the cause."""
    check_participant(id, proposal, event.party)
    check_digest(id, proposal, event.party, event.stop.plan_digest)
    if event.stop.end == "done":
        raise PeerFault(f"{event.party} says task {id} is done; only a receipt says that")
    if event.stop.party not in proposal.participants:
        raise PeerFault(f"{event.party} ends task {id} because of {event.stop.party}, which takes no part in it")


def check_late(id: TaskId, me: PartyId, asker: PartyId, proposal: Proposal, event: Event) -> None:
    """Refuse a statement that comes too late to matter, unless it was for us and is about this plan."""
    match event:
        case OfferArrived(party, offer):
            answered, digest = me == asker, offer.plan_digest
        case RefusalArrived(party, refusal):
            answered, digest = me == asker, refusal.plan_digest
        case ContractArrived(party, _, contract):
            answered, digest = party == asker, contract.plan_digest
        case AttemptArrived(party, attempt):
            answered, digest = True, attempt.plan_digest
        case StopArrived(party, stop):
            answered, digest = True, stop.plan_digest
        case _:
            return
    check_participant(id, proposal, party)
    check_digest(id, proposal, party, digest)
    if not answered:
        raise PeerFault(f"{party} tells {me} of task {id} what was never for it")
