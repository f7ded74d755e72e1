# SPDX-License-Identifier: Apache-2.0
"""One node's view of one task, from proposal to receipt.

Every participant runs the same machine; the asker's also collects the offers and writes the contract.

    judging ──▶ proposed (asker) ──▶ running ──▶ done
       └──────▶ offered (others) ──▶ running ──▶ done
    any of these ──▶ refused | failed | cancelled | expired

The tables `LEGAL` and `MOVES` say so exactly; `docs/tasks.md` is drawn from them.

Invariants: we perform only a plan whose digest and disclosures we judged ourselves; a contract holds everyone's
offer or nobody performs; each participant ends the task by its own clock at the deadline, whoever else is silent;
a task that has ended stays ended. Every wait names a party, a reason, since when and until when.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, assert_never

from junto.errors import DeadlineExceeded, InvalidTransition, PeerFault
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

_ALWAYS: tuple[type, ...] = (StopArrived, CancelAsked, PartyDown, PartyUp, Restarted, Ticked)
_LATE: tuple[type, ...] = (
    *_ALWAYS,
    Permitted,
    Forbidden,
    OfferArrived,
    RefusalArrived,
    ContractArrived,
    ConfirmArrived,
    StepFinished,
    StepFailed,
    Released,
    ReceiptArrived,
)

LEGAL: dict[State, tuple[type, ...]] = {
    "new": (Opened,),
    "judging": (*_ALWAYS, Permitted, Forbidden, OfferArrived, RefusalArrived),
    "proposed": (*_ALWAYS, OfferArrived, RefusalArrived),
    "offered": (*_ALWAYS, ContractArrived, ConfirmArrived),  # another's confirmation may overtake the contract
    "running": (*_ALWAYS, ConfirmArrived, StepFinished, StepFailed, Released, ReceiptArrived),
    "done": _LATE,
    "refused": _LATE,
    "failed": _LATE,
    "cancelled": _LATE,
    "expired": _LATE,
}
"""Which events each state accepts. In an ended state late events are accepted and change nothing but the record."""

_BROKEN_OFF: tuple[State, ...] = ("refused", "failed", "cancelled", "expired")

MOVES: dict[State, tuple[State, ...]] = {
    "new": ("judging",),
    "judging": ("proposed", "offered", *_BROKEN_OFF),
    "proposed": ("running", *_BROKEN_OFF),
    "offered": ("running", *_BROKEN_OFF),
    "running": ("done", *_BROKEN_OFF),
    "done": ("failed",),  # only at the receiver, and only if its receipt could not be written
    "refused": (),
    "failed": (),
    "cancelled": (),
    "expired": (),
}
"""Which states may follow each state."""

ENDED: frozenset[State] = frozenset(("done", *_BROKEN_OFF))


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
            case "judging":
                return (Wait(self.me, "its judgement", self.since, self.deadline),)
            case "proposed":
                until = min(self.deadline, self.opened_at + self._patience.offer_seconds)
                missing = [p for p in self.proposal.participants if p not in self._offers and p not in self._refusals]
                return tuple(Wait(p, "its offer", self.opened_at, until) for p in missing)
            case "offered":
                return (Wait(self.asker, "the contract", self.since, self.deadline),)
            case "running":
                unfinished = [part for part in self._parts() if part not in self.finished]
                if not unfinished:
                    return (Wait(self.receiver, "the receipt", self.since, self.deadline),)
                return tuple(Wait(p, f"step {step}", self.since, self.deadline) for step, p in unfinished)
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
            case StepFailed() if event.code == DeadlineExceeded.code:
                # A wait inside the step ran out with the task's own time: name whom the task hung on, not who noticed.
                return self._stop(*self._lapsed("the deadline", event.at), event.at)
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
                return self._stop_arrived(event)
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
        end = _end_of(event.code)
        if self.me == self.asker:
            return self._stop(end, event.code, self.me, event.reason, event.at)
        refusal = Refusal(self._proposal_id, self.proposal.plan_digest, event.code, event.reason)
        return [
            Publish(refusal, (self.asker,)),
            *self._conclude(end, event.code, self.me, event.reason, event.at),
        ]

    def _offer_arrived(self, event: OfferArrived) -> list[Instruction]:
        self._check_asked_by_us(event.party)
        self._check_digest(event.party, event.offer.plan_digest)
        if event.offer.proposal != self._proposal_id:
            raise PeerFault(f"{event.party} offered for another proposal than that of task {self.id}")
        self._check_versions(event.party, event.offer)
        self._offers.setdefault(event.party, (event.offer, event.envelope))
        return self._answered(event.at)

    def _refusal_arrived(self, event: RefusalArrived) -> list[Instruction]:
        self._check_asked_by_us(event.party)
        self._check_digest(event.party, event.refusal.plan_digest)
        if event.refusal.proposal != self._proposal_id:
            raise PeerFault(f"{event.party} refused another proposal than that of task {self.id}")
        self._refusals.setdefault(event.party, event.refusal)
        if self._refused_at is not None:
            return self._answered(event.at)
        self._refused_at = event.at
        return self._answered(event.at) or [Wake(event.at + self._patience.refusal_seconds)]

    def _answered(self, at: float) -> list[Instruction]:
        """The asker's: contract when everyone offered; stop when somebody refused and the others have answered."""
        if self.state != "proposed":
            return []
        missing = set(self.proposal.participants) - set(self._offers) - set(self._refusals)
        waited = self._refused_at is not None and at >= self._refused_at + self._patience.refusal_seconds
        if self._refusals and (not missing or waited):
            # By name, whoever was first; a refusal by rule before any other, as asking again would not mend it.
            first = min(self._refusals, key=lambda p: (self._refusals[p].code != "refused", p))
            code = self._refusals[first].code
            reasons = "\n".join(dict.fromkeys(self._refusals[p].reason for p in sorted(self._refusals)))
            return self._stop(_end_of(code), code, first, reasons, at)
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

    def abandon(self, code: str, reason: str, at: float) -> list[Instruction]:
        """Our journal cannot record what we ordered last: the task ends here, unsigned; an answer without its receipt
        is none. What must still be done."""
        if self.state in ENDED and not (self.state == "done" and self.me == self.receiver):
            return [Halt(), self._concluded()]
        self.receipt = None
        return self._conclude("failed", code, self.me, reason, at)

    def contracted(self, statement: str) -> None:
        """Our own contract is in the journal under this id (the receipt names it)."""
        self.contract = statement

    def confirmed(self) -> None:
        """What we have finished so far is confirmed in the journal."""
        self._unconfirmed = []

    def _contract_arrived(self, event: ContractArrived) -> list[Instruction]:
        if event.party != self.asker:
            raise PeerFault(f"{event.party} sent a contract for task {self.id}, which {self.asker} asked")
        self._check_digest(event.party, event.contract.plan_digest)
        if event.contract.proposal != self._proposal_id:
            raise PeerFault(f"{event.party} sent a contract for another proposal than that of task {self.id}")
        if event.contract.disclosures != self._disclosures:
            raise PeerFault(f"the contract of task {self.id} names other disclosures than {self.me} judged")
        offered = [party for party, _ in event.offers]
        if sorted(offered) != sorted(self.proposal.participants):
            raise PeerFault(f"the contract of task {self.id} does not hold one offer of every participant")
        for party, offer in event.offers:
            self._check_digest(party, offer.plan_digest)
            if offer.proposal != self._proposal_id or offer.disclosures != self._disclosures:
                raise PeerFault(f"the contract of task {self.id} holds an offer of {party} for something else")
            self._check_versions(party, offer)
        self.contract = event.statement
        self._keep_versions(offer for _, offer in event.offers)
        self._move("running", event.at)
        return [Perform()]

    # ── running ─────────────────────────────────────────────────────────────────────────────────────

    def _step_finished(self, event: StepFinished) -> list[Instruction]:
        if (event.finished.step, self.me) not in self._parts():
            raise InvalidTransition(f"task {self.id}: {self.me} finished step {event.finished.step}, not a part of its")
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
        if self.me != self.receiver:
            raise InvalidTransition(f"task {self.id}: {self.me} has an answer that {self.receiver} receives")
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
        self._check_receipt(event)
        self.receipt = event.receipt
        return [*self._confirm(), *self._conclude("done", "", event.party, "", event.at)]

    def _check_receipt(self, event: ReceiptArrived) -> None:
        if event.party != self.receiver:
            raise PeerFault(f"{event.party} sent a receipt for task {self.id}, whose receiver is {self.receiver}")
        self._check_digest(event.party, event.receipt.plan_digest)

    def _stop_arrived(self, event: StopArrived) -> list[Instruction]:
        stop = event.stop
        self._check_participant(event.party)
        self._check_digest(event.party, stop.plan_digest)
        if stop.end == "done":
            raise PeerFault(f"{event.party} says task {self.id} is done; only a receipt says that")
        if stop.party not in self.proposal.participants:
            raise PeerFault(f"{event.party} ends task {self.id} because of {stop.party}, which takes no part in it")
        if self.me != self.asker or self.state == "running":
            return [*self._confirm(), *self._conclude(stop.end, stop.code, stop.party, stop.reason, event.at)]
        # Another participant may have had this stop before our proposal, and so not have known what it was about.
        return self._stop(stop.end, stop.code, stop.party, stop.reason, event.at)

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
        """Names whom the task hung on: all who owe what is due first, one that cannot be reached before the others."""
        waits = self.waits()
        due = [wait for wait in waits if wait.what == waits[0].what]
        due.sort(key=lambda wait: (wait.party not in self._down, wait.party == self.me))
        party = due[0].party
        detail = f" ({self._down[party][0]})" if party in self._down else ""
        names = ", ".join(wait.party for wait in due)
        reason = f"{limit} passed waiting {round(until - due[0].since, 3):g} s for {names}: {due[0].what}{detail}"
        return "expired", "deadline-exceeded", party, reason

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

    def _check_asked_by_us(self, party: PartyId) -> None:
        self._check_participant(party)
        if self.me != self.asker:
            raise PeerFault(f"{party} answered {self.me} about task {self.id}, which {self.asker} asked")

    def _check_versions(self, party: PartyId, offer: Offer) -> None:
        if any(version.party != party for version in offer.versions):
            raise PeerFault(f"{party} offered for task {self.id} with another party's dataset version")

    def _check_digest(self, party: PartyId, digest: Digest) -> None:
        if digest != self.proposal.plan_digest:
            raise PeerFault(f"{party} speaks of another plan than the one proposed as task {self.id}")

    def _note_late(self, event: Event) -> None:
        match event:
            case ConfirmArrived():
                self._confirm_arrived(event)
            case StepFinished():
                self.finished.setdefault((event.finished.step, self.me), event.finished)
            case ReceiptArrived():
                self._check_receipt(event)
                self.receipt = self.receipt or event.receipt
            case _:
                pass

    def _stop(self, end: End, code: str, party: PartyId, reason: str, at: float) -> list[Instruction]:
        """We end the task: tell everyone, with what we had finished by then."""
        stop = Stop(self.proposal.plan_digest, end, code, party, reason)
        return [*self._confirm(), Publish(stop, self.others), *self._conclude(end, code, party, reason, at)]

    def _conclude(self, end: End, code: str, party: PartyId, reason: str, at: float) -> list[Instruction]:
        self._move(end, at)
        self.outcome = Outcome(end, code, party, reason, at)
        return [Halt(), self._concluded()]

    def _concluded(self) -> Conclude:
        if self.outcome is None:
            raise InvalidTransition(f"task {self.id} is {self.state} without an outcome")
        return Conclude(self.outcome.end, self.outcome.code, self.outcome.party, self.outcome.reason)

    def _move(self, state: State, at: float) -> None:
        if state not in MOVES[self.state]:
            raise InvalidTransition(f"task {self.id} cannot go from {self.state} to {state}")
        self.state = state
        self.since = at


def _end_of(code: str) -> End:
    """Whether a participant that could not offer may not, or cannot."""
    return "refused" if code == "refused" else "failed"
