# SPDX-License-Identifier: Apache-2.0
"""One node's view of one task, from proposal to receipt.

Every participant runs the same machine; the asker's also collects the offers and writes the contract.

    judging ──▶ proposed (asker) ──▶ running ──▶ done
       └──────▶ offered (others) ──▶ running ──▶ done
    any of these ──▶ refused | failed | cancelled | expired

Invariants: we perform only a plan whose digest and disclosures we judged ourselves; a contract holds everyone's
offer or nobody performs; each participant ends the task by its own clock at the deadline, whoever else is silent;
a task that has ended stays ended. Every wait names a party, a reason, since when and until when.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, assert_never

from junto.errors import InvalidTransition, PeerFault
from junto.plan.steps import Release, parties_of
from junto.tasks.bodies import (
    Confirm,
    Contract,
    End,
    Finished,
    Offer,
    Proposal,
    Receipt,
    Refusal,
    Stop,
    Version,
)
from junto.tasks.events import (
    CancelAsked,
    ConfirmArrived,
    ContractArrived,
    Event,
    Forbidden,
    OfferArrived,
    Opened,
    PartyDown,
    PartyUp,
    Permitted,
    ReceiptArrived,
    RefusalArrived,
    Released,
    Restarted,
    StepFailed,
    StepFinished,
    StopArrived,
    Ticked,
)
from junto.tasks.instructions import Conclude, Halt, Instruction, Judge, Perform, Publish, Wake
from junto.types import Digest, PartyId, StepId, TaskId

State = Literal["new", "judging", "proposed", "offered", "running", "done", "refused", "failed", "cancelled", "expired"]

_OPEN: tuple[type, ...] = (StopArrived, CancelAsked, PartyDown, PartyUp, Restarted, Ticked, ConfirmArrived)
_LATE: tuple[type, ...] = (
    *_OPEN,
    Permitted,
    Forbidden,
    OfferArrived,
    RefusalArrived,
    ContractArrived,
    StepFinished,
    StepFailed,
    Released,
    ReceiptArrived,
)

LEGAL: dict[State, tuple[type, ...]] = {
    "new": (Opened, Restarted),
    "judging": (*_OPEN, Permitted, Forbidden, OfferArrived, RefusalArrived),
    "proposed": (*_OPEN, OfferArrived, RefusalArrived),
    "offered": (*_OPEN, ContractArrived),
    "running": (*_OPEN, StepFinished, StepFailed, Released, ReceiptArrived),
    "done": _LATE,
    "refused": _LATE,
    "failed": _LATE,
    "cancelled": _LATE,
    "expired": _LATE,
}
"""Which events each state accepts. In an ended state late events are accepted and change nothing but the record."""

ENDED: frozenset[State] = frozenset(("done", "refused", "failed", "cancelled", "expired"))


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a node waits, in seconds, before it names somebody. The task's own deadline caps both."""

    offer_seconds: float = 10.0
    absence_seconds: float = 5.0  # a participant's link may be down so long
    refusal_seconds: float = 1.0  # after a first refusal, others may still answer so long
    confirm_seconds: float = 0.05  # finished steps are confirmed together at this pace


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody is waited for: who, for what, since and until when (unix seconds)."""

    party: PartyId
    what: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the task ended, and whose doing it was."""

    end: End
    code: str
    party: PartyId
    reason: str
    at: float


class Task:
    """One node's side of a task. No clock, no socket, no journal: `handle` says what must be done."""

    def __init__(self, id: TaskId, me: PartyId, asker: PartyId, proposal: Proposal, patience: Patience) -> None:
        self.id = id
        self.me = me
        self.asker = asker
        self.proposal = proposal
        self.state: State = "new"
        self.opened_at = 0.0
        self.since = 0.0
        self.outcome: Outcome | None = None
        self.contract: str | None = None
        self.receipt: Receipt | None = None
        self.finished: dict[tuple[StepId, PartyId], Finished] = {}
        self._patience = patience
        self._proposal_id = ""
        self._judged: Permitted | None = None
        self._offers: dict[PartyId, tuple[Offer, str]] = {}
        self._refusals: dict[PartyId, Refusal] = {}
        self._refused_at: float | None = None
        self._down: dict[PartyId, tuple[str, float]] = {}
        self._unconfirmed: list[Finished] = []
        self._versions: dict[tuple[PartyId, str], Version] = {}

    @property
    def others(self) -> tuple[PartyId, ...]:
        """Every participant but us."""
        return tuple(p for p in self.proposal.participants if p != self.me)

    @property
    def deadline(self) -> float:
        """When the task ends here at the latest, on our clock."""
        return self.opened_at + self.proposal.seconds

    @property
    def context(self) -> str:
        """What names this run of this plan to the secure protocols: the same at every participant, never used twice."""
        return f"{self._proposal_id} {self.proposal.plan_digest}"

    @property
    def receiver(self) -> PartyId:
        """The party that gets the answer."""
        return next((s.receiver for s in self.proposal.plan.steps if isinstance(s, Release)), self.asker)

    @property
    def parts_total(self) -> int:
        """How many parts of steps all participants have together."""
        return len(self._parts())

    def waits(self) -> tuple[Wait, ...]:
        """Whom we wait for now."""
        match self.state:
            case "proposed":
                until = min(self.deadline, self.opened_at + self._patience.offer_seconds)
                missing = [p for p in self.proposal.participants if p not in self._offers and p not in self._refusals]
                return tuple(Wait(p, "its offer", self.opened_at, until) for p in missing)
            case "offered":
                return (Wait(self.asker, "the contract", self.since, self.deadline),)
            case "running":
                return tuple(
                    Wait(p, f"step {step}", self.since, self.deadline)
                    for step, p in self._parts()
                    if (step, p) not in self.finished and p != self.me
                )
            case _:
                return ()

    def handle(self, event: Event) -> list[Instruction]:
        """Absorb one event; say what must now be done. Raises PeerFault, InvalidTransition; then nothing changed."""
        if not isinstance(event, LEGAL[self.state]):
            raise InvalidTransition(f"task {self.id} is {self.state}: {type(event).__name__} is not expected")
        if self.state in ENDED:
            self._note_late(event)
            return []
        match event:
            case Opened():
                return self._opened(event)
            case Permitted():
                return self._permitted(event)
            case Forbidden():
                return self._forbidden(event)
            case OfferArrived():
                return self._offer_arrived(event)
            case RefusalArrived():
                return self._refusal_arrived(event)
            case ContractArrived():
                return self._contract_arrived(event)
            case StepFinished():
                return self._step_finished(event)
            case StepFailed():
                return self._stop("failed", event.code, event.party, event.reason, event.at)
            case Released():
                return self._released(event)
            case ConfirmArrived():
                self._confirm_arrived(event)
                return []
            case ReceiptArrived():
                return self._receipt_arrived(event)
            case StopArrived():
                self._check_digest(event.party, event.stop.plan_digest)
                stop = event.stop
                return self._conclude(stop.end, stop.code, stop.party, stop.reason, event.at)
            case CancelAsked():
                reason = f"cancelled by {event.user} at {self.me}"
                return self._stop("cancelled", "cancelled", self.me, reason, event.at)
            case PartyDown():
                self._down.setdefault(event.party, (event.detail, event.at))
                return [Wake(event.at + self._patience.absence_seconds)]
            case PartyUp():
                self._down.pop(event.party, None)
                return []
            case Restarted():
                reason = f"the node of {self.me} restarted while the task was open; ask again"
                return self._stop("failed", "unavailable", self.me, reason, event.at)
            case Ticked():
                return self._ticked(event.at)
            case _:
                assert_never(event)

    # ── offers ──────────────────────────────────────────────────────────────────────────────────────

    def _opened(self, event: Opened) -> list[Instruction]:
        self._proposal_id = event.proposal
        self.opened_at = event.at
        self._move("judging", event.at)
        offers_due = event.at + self._patience.offer_seconds
        wakes: list[Instruction] = [Wake(self.deadline)]
        if self.me == self.asker and offers_due < self.deadline:
            wakes.append(Wake(offers_due))
        if self.me == self.asker:
            return [*wakes, Publish(self.proposal, self.others), Judge()]
        return [*wakes, Judge()]

    def _permitted(self, event: Permitted) -> list[Instruction]:
        self._judged = event
        offer = Offer(self._proposal_id, self.proposal.plan_digest, event.disclosures, event.versions, event.estimate)
        if self.me == self.asker:
            self._move("proposed", event.at)
            return [Publish(offer, ())]  # it comes back as `OfferArrived` when it is durable
        self._move("offered", event.at)
        return [Publish(offer, (self.asker,))]

    def _forbidden(self, event: Forbidden) -> list[Instruction]:
        if self.me == self.asker:
            return self._stop("refused", event.code, self.me, event.reason, event.at)
        refusal = Refusal(self._proposal_id, self.proposal.plan_digest, event.code, event.reason)
        return [
            Publish(refusal, (self.asker,)),
            *self._conclude("refused", event.code, self.me, event.reason, event.at),
        ]

    def _offer_arrived(self, event: OfferArrived) -> list[Instruction]:
        self._check_participant(event.party)
        self._check_digest(event.party, event.offer.plan_digest)
        if event.offer.proposal != self._proposal_id:
            raise PeerFault(f"{event.party} offered for another proposal than that of task {self.id}")
        if any(v.party != event.party for v in event.offer.versions):
            raise PeerFault(f"{event.party} offered for task {self.id} with another party's dataset version")
        self._offers.setdefault(event.party, (event.offer, event.envelope))
        return self._answered(event.at)

    def _refusal_arrived(self, event: RefusalArrived) -> list[Instruction]:
        self._check_participant(event.party)
        self._check_digest(event.party, event.refusal.plan_digest)
        self._refusals.setdefault(event.party, event.refusal)
        if self._refused_at is None:
            self._refused_at = event.at
        return [*self._answered(event.at), Wake(event.at + self._patience.refusal_seconds)]

    def _answered(self, at: float) -> list[Instruction]:
        """The asker's: contract when everyone offered; stop when somebody refused and the others have answered."""
        if self.state != "proposed":
            return []
        missing = set(self.proposal.participants) - set(self._offers) - set(self._refusals)
        waited = self._refused_at is not None and at >= self._refused_at + self._patience.refusal_seconds
        if self._refusals and (not missing or waited):
            first = min(self._refusals)
            refusals = self._refusals.items()
            code = "refused" if all(r.code == "refused" for _, r in refusals) else self._refusals[first].code
            reasons = "\n".join(dict.fromkeys(r.reason for _, r in sorted(refusals)))
            end: End = "refused" if code == "refused" else "failed"
            return self._stop(end, code, first, reasons, at)
        if missing:
            return []
        differing = sorted(p for p, (o, _) in self._offers.items() if o.disclosures != self._disclosures)
        if differing:
            reason = f"{differing[0]} derives other disclosures from the plan than {self.me}: versions may differ"
            return self._stop("failed", "peer-fault", differing[0], reason, at)
        contract = Contract(
            self._proposal_id,
            self.proposal.plan_digest,
            self._disclosures,
            tuple(self._offers[p][1] for p in self.proposal.participants),
        )
        self._keep_versions(self._offers[p][0] for p in self.proposal.participants)
        self._move("running", at)
        return [Publish(contract, self.others), Perform()]

    def proposed(self, statement: str) -> None:
        """Our own proposal is in the journal under this id (offers name it)."""
        self._proposal_id = statement

    def abandon(self, code: str, reason: str, at: float) -> None:
        """Our journal cannot record the task any more: it ends here, unsigned."""
        self._conclude("failed", code, self.me, reason, at)

    def contracted(self, statement: str) -> None:
        """Our own contract is in the journal under this id (the receipt names it)."""
        self.contract = statement

    def _contract_arrived(self, event: ContractArrived) -> list[Instruction]:
        if event.party != self.asker:
            raise PeerFault(f"{event.party} sent a contract for task {self.id}, which {self.asker} asked")
        self._check_digest(event.party, event.contract.plan_digest)
        if event.contract.disclosures != self._disclosures:
            raise PeerFault(f"the contract of task {self.id} names other disclosures than {self.me} judged")
        offered = [party for party, _ in event.offers]
        if sorted(offered) != sorted(self.proposal.participants):
            raise PeerFault(f"the contract of task {self.id} does not hold one offer of every participant")
        for party, offer in event.offers:
            self._check_digest(party, offer.plan_digest)
            if offer.proposal != self._proposal_id or offer.disclosures != self._disclosures:
                raise PeerFault(f"the contract of task {self.id} holds an offer of {party} for something else")
        self.contract = event.statement
        self._keep_versions(offer for _, offer in event.offers)
        self._move("running", event.at)
        return [Perform()]

    # ── running ─────────────────────────────────────────────────────────────────────────────────────

    def _step_finished(self, event: StepFinished) -> list[Instruction]:
        self.finished[(event.finished.step, self.me)] = event.finished
        self._unconfirmed.append(event.finished)
        if all((step, p) in self.finished for step, p in self._parts() if p == self.me):
            return self._confirm()
        return [Wake(event.at + self._patience.confirm_seconds)] if len(self._unconfirmed) == 1 else []

    def _confirm(self) -> list[Instruction]:
        if not self._unconfirmed:
            return []
        confirm = Confirm(self.proposal.plan_digest, tuple(self._unconfirmed))
        self._unconfirmed = []
        return [Publish(confirm, self.others)]

    def _confirm_arrived(self, event: ConfirmArrived) -> None:
        self._check_participant(event.party)
        self._check_digest(event.party, event.confirm.plan_digest)
        parts = set(self._parts())
        for finished in event.confirm.steps:
            if (finished.step, event.party) not in parts:
                raise PeerFault(f"{event.party} confirms a step of task {self.id} in which it has no part")
        for finished in event.confirm.steps:
            self.finished.setdefault((finished.step, event.party), finished)

    def _released(self, event: Released) -> list[Instruction]:
        self.receipt = Receipt(
            self.proposal.plan_digest,
            self.contract or "",
            event.result,
            event.rows,
            event.withheld,
            tuple(self._versions[key] for key in sorted(self._versions)),
            round(event.at - self.opened_at, 6),
        )
        return [
            *self._confirm(),
            Publish(self.receipt, self.others),
            *self._conclude("done", "", self.me, "", event.at),
        ]

    def _receipt_arrived(self, event: ReceiptArrived) -> list[Instruction]:
        if event.party != self.receiver:
            raise PeerFault(f"{event.party} sent a receipt for task {self.id}, whose receiver is {self.receiver}")
        self._check_digest(event.party, event.receipt.plan_digest)
        self.receipt = event.receipt
        return [*self._confirm(), *self._conclude("done", "", event.party, "", event.at)]

    def _ticked(self, at: float) -> list[Instruction]:
        if at >= self.deadline:
            return self._stop(*self._lapsed("the deadline", self.deadline), at)
        for party, (detail, since) in sorted(self._down.items()):
            if at >= since + self._patience.absence_seconds:
                return self._stop("failed", "unavailable", party, f"{party} cannot be reached: {detail}", at)
        if self.state == "proposed":
            if at >= self.opened_at + self._patience.offer_seconds and not self._refusals:
                return self._stop(*self._lapsed("the time for offers", at), at)
            return self._answered(at)
        if self.state == "running":
            return self._confirm()
        return []

    def _lapsed(self, limit: str, until: float) -> tuple[End, str, PartyId, str]:
        waits = self.waits()
        waited = round(until - (waits[0].since if waits else self.opened_at), 3)
        party = waits[0].party if waits else self.me
        what = waits[0].what if waits else f"its own part, {self.state}"
        detail = self._down.get(party, ("", 0.0))[0]
        tail = f" ({detail})" if detail else ""
        return (
            "expired",
            "deadline-exceeded",
            party,
            f"{limit} passed waiting {waited:g} s for {party}: {what}{tail}",
        )

    # ── shared ──────────────────────────────────────────────────────────────────────────────────────

    @property
    def _disclosures(self) -> Digest:
        if self._judged is None:
            raise InvalidTransition(f"task {self.id}: nothing was judged yet")
        return self._judged.disclosures

    def _parts(self) -> list[tuple[StepId, PartyId]]:
        return [(step.id, p) for step in self.proposal.plan.steps for p in sorted(parties_of(step))]

    def _keep_versions(self, offers: Iterable[Offer]) -> None:
        self._versions = {(v.party, v.dataset): v for offer in offers for v in offer.versions}

    def _check_participant(self, party: PartyId) -> None:
        if party not in self.proposal.participants:
            raise PeerFault(f"{party} takes no part in task {self.id}")

    def _check_digest(self, party: PartyId, digest: Digest) -> None:
        if digest != self.proposal.plan_digest:
            raise PeerFault(f"{party} speaks of another plan than the one proposed as task {self.id}")

    def _note_late(self, event: Event) -> None:
        match event:
            case ConfirmArrived():
                self._confirm_arrived(event)
            case StepFinished():
                self.finished[(event.finished.step, self.me)] = event.finished
            case ReceiptArrived() if event.party == self.receiver and self.receipt is None:
                self.receipt = event.receipt
            case _:
                pass

    def _stop(self, end: End, code: str, party: PartyId, reason: str, at: float) -> list[Instruction]:
        """We end the task: tell everyone, unless it was never opened."""
        stop = Stop(self.proposal.plan_digest, end, code, party, reason)
        return [Publish(stop, self.others), *self._conclude(end, code, party, reason, at)]

    def _conclude(self, end: End, code: str, party: PartyId, reason: str, at: float) -> list[Instruction]:
        self.outcome = Outcome(end, code, party, reason, at)
        self._move(end, at)
        return [Halt(), Conclude(end, code, party, reason)]

    def _move(self, state: State, at: float) -> None:
        self.state = state
        self.since = at
