# SPDX-License-Identifier: Apache-2.0
"""Rebuilds a task's machine from the statements a journal holds: after a restart, and to show old tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from junto.errors import InvalidInput, InvalidTransition, PeerFault
from junto.tasks.bodies import Attempt, Body, Confirm, Contract, Offer, Proposal, Receipt, Refusal, Stop, kind_of
from junto.tasks.events import (
    AttemptArrived,
    ConfirmArrived,
    ContractArrived,
    Event,
    Forbidden,
    OfferArrived,
    Opened,
    Permitted,
    ReceiptArrived,
    RefusalArrived,
    Released,
    StepFinished,
    StopArrived,
)
from junto.tasks.state import Task
from junto.tasks.waiting import Patience
from junto.types import PartyId, TaskId


@dataclass(frozen=True, slots=True)
class Entry:
    """One journaled statement of the task: its place, author, id, time and body; of a contract also its offers."""

    index: int
    party: PartyId
    id: str
    at: float
    body: Body
    envelope: str = ""
    offers: tuple[tuple[PartyId, Offer], ...] = ()

    @property
    def kind(self) -> str:
        """The statement's kind."""
        return kind_of(self.body)


def replay(id: TaskId, me: PartyId, entries: Sequence[Entry], patience: Patience) -> Task:
    """The machine as the statements left it; instructions are not given again.

    Raises InvalidInput if the entries hold no proposal.
    """
    first = next((e for e in entries if isinstance(e.body, Proposal)), None)
    if first is None or not isinstance(first.body, Proposal):
        raise InvalidInput(f"the journal holds no proposal of task {id}")
    task = Task(id, me, first.party, first.body, patience)
    for entry in _in_order(entries, me):
        for event in _events(entry, me, task.asker):
            try:
                task.handle(event)
            except (InvalidTransition, PeerFault):
                continue  # it was refused when it arrived, too
        if entry.party == me:
            _recall(task, entry)
    return task


def by_our_clock(entries: Sequence[Entry], me: PartyId, now: float) -> list[Entry]:
    """The entries with the times at which they came, as near as our own statements tell.

    Others' statements bear the time of their clocks, which may be wrong by hours; a deadline counts by ours. Each came
    between our statements before and after it, and a proposal right before the next: that is our judgement of it.
    """
    later = now
    bounds = []
    for entry in reversed(entries):
        if entry.party == me:
            later = entry.at
        bounds.append(later)
    found = []
    earlier: float | None = None
    for entry, later in zip(entries, reversed(bounds), strict=True):
        at = entry.at
        if entry.party == me:
            earlier = at
        elif isinstance(entry.body, Proposal):
            at = later
        else:
            at = min(at if earlier is None else max(at, earlier), later)
        found.append(replace(entry, at=at))
    return found


def _recall(task: Task, entry: Entry) -> None:
    """Take from our own statement what the machine does not derive again; it counts as it was written."""
    match entry.body:
        case Contract():
            task.contracted(entry.id)
        case Confirm():
            task.confirmed()
        case Receipt() as receipt if task.receipt is not None:
            task.receipt = receipt
        case Stop() as stop:
            task.left_out = stop.without
            task.spoke()
        case Refusal():
            task.spoke()
        case _:
            pass


def _in_order(entries: Sequence[Entry], me: PartyId) -> list[Entry]:
    """The entries as the machine knew them. It never ends a task that has ended: so if we ended it, what others say of
    its end came later, though it may have been durable before our own statement was."""
    own = next((e for e in entries if e.party == me and isinstance(e.body, Receipt | Refusal | Stop)), None)
    if own is None:
        return list(entries)
    overtaking = [e for e in entries[: entries.index(own)] if e.party != me and isinstance(e.body, Receipt | Stop)]
    return [*(e for e in entries if e not in overtaking), *overtaking]


def _events(entry: Entry, me: PartyId, asker: PartyId) -> list[Event]:
    own = entry.party == me
    at = entry.at
    match entry.body:
        case Proposal():
            return [Opened(entry.id, at)]
        case Offer() as offer if own:
            permitted = Permitted(offer.disclosures, offer.versions, offer.estimate, at)
            return [permitted, OfferArrived(me, offer, entry.envelope, at)] if me == asker else [permitted]
        case Offer() as offer:
            return [OfferArrived(entry.party, offer, entry.envelope, at)]
        case Refusal() as refusal if own:
            return [Forbidden(refusal.code, refusal.reason, at)]
        case Refusal() as refusal:
            return [RefusalArrived(entry.party, refusal, at)]
        case Contract() as contract:
            return [] if own else [ContractArrived(entry.party, entry.id, contract, entry.offers, at)]
        case Confirm() as confirm if own:
            said = ConfirmArrived(me, confirm, at, entry.id)
            return [*(StepFinished(finished, at) for finished in confirm.steps), said]
        case Confirm() as confirm:
            return [ConfirmArrived(entry.party, confirm, at, entry.id)]
        case Attempt() as attempt:
            return [AttemptArrived(entry.party, attempt, at)]
        case Receipt() as receipt if own:
            return [Released(receipt.result, receipt.rows, receipt.told, at, recorded=True)]
        case Receipt() as receipt:
            return [ReceiptArrived(entry.party, receipt, at)]
        case Stop() as stop:
            return [StopArrived(entry.party, stop, at)]
        case _:
            return []
