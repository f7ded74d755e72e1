# SPDX-License-Identifier: Apache-2.0
"""One node's view of one task, from proposal to receipt.

Every participant runs the same machine; the asker's also collects the offers and writes the contract.

    judging ──▶ proposed (asker) ──▶ running ──▶ done
       └──────▶ offered (others) ──▶ running ──▶ done
    any of these ──▶ refused | failed | cancelled | expired

The tables in `table.py` say so exactly; `docs/tasks.md` is drawn from them.

Invariants: we perform only a plan whose digest and disclosures we judged ourselves; a contract holds everyone's
offer or nobody performs; each participant ends the task by its own clock at the deadline, whoever else is silent;
a task that has ended stays ended. Every wait names a party, a reason, since when and until when.
"""

from collections.abc import Iterable
from typing import assert_never

from junto.errors import DeadlineExceeded, Deviation, InvalidTransition, PeerFault
from junto.plan.steps import Release, parties_of
from junto.tasks import checks
from junto.tasks.attempts import MOST_ATTEMPTS, joint_steps, lost_steps, resting_on, run_of
from junto.tasks.bodies import (
    Attempt,
    Confirm,
    Contract,
    End,
    Finished,
    Offer,
    Proposal,
    Receipt,
    Refusal,
    Second,
    Stop,
    Version,
)
from junto.tasks.certificates import Deviation as Deviates
from junto.tasks.certificates import Signatures
from junto.tasks.coarse import coarse_seconds
from junto.tasks.doubles import Doubles, second_until
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
    Permitted,
    ReceiptArrived,
    RefusalArrived,
    Released,
    Restarted,
    StepDoubled,
    StepFailed,
    StepFinished,
    StepTried,
    StopArrived,
    Ticked,
)
from junto.tasks.instructions import Conclude, GoOn, Halt, Instruction, Judge, Perform, Publish, Redo, Wake
from junto.tasks.missing import Missing
from junto.tasks.table import ENDED, LEGAL, MOVES, State
from junto.tasks.waiting import Outcome, Patience, Wait, end_of, lapsed
from junto.types import Digest, PartyId, StepId, TaskId


class Task:
    """One node's side of a task. No clock, no socket, no journal: `handle` says what must be done."""

    def __init__(self, id: TaskId, me: PartyId, asker: PartyId, proposal: Proposal, patience: Patience) -> None:
        self.id = id
        self.me = me
        self.asker = asker
        self.proposal = proposal
        self.state: State = "new"
        self.opened_at = 0.0
        self.asked_at = 0.0  # the time for offers counts from here: it was opened, or the asker's node started anew
        self.since = 0.0
        self.outcome: Outcome | None = None
        self.contract: str | None = None
        self.receipt: Receipt | None = None
        self.finished: dict[tuple[StepId, PartyId], Finished] = {}
        self.left_out: tuple[PartyId, ...] = ()  # it has ended to be asked again without these
        self._patience = patience
        self.proposal_id = ""
        self._judged: Permitted | None = None
        self._offers: dict[PartyId, tuple[Offer, str]] = {}
        self._refusals: dict[PartyId, Refusal] = {}
        self._refusals_due: float | None = None  # after a first one: until when the others may answer
        self._unconfirmed: list[Finished] = []
        self._unsaid: list[Second] = []
        self.signatures = Signatures(proposal.plan)
        self.doubles = Doubles(proposal)
        self._answer: Released | None = None  # it is here, and waits for what certifies it
        self._versions: dict[tuple[PartyId, str], Version] = {}
        self._joint = joint_steps(proposal.plan)
        self._parts = tuple((step.id, p) for step in proposal.plan.steps for p in sorted(parties_of(step)))
        self._ahead: dict[tuple[StepId, PartyId], Finished] = {}  # the latest of runs that we have not heard of yet
        self._last_word = False  # that the task ended stands in a statement
        self.attempts: dict[StepId, int] = {}
        self.tried: dict[StepId, StepTried] = {}
        self.away: dict[PartyId, tuple[str, float]] = {}  # participants not reached now: why, since when

    @property
    def others(self) -> tuple[PartyId, ...]:
        """Every participant but us."""
        return tuple(p for p in self.proposal.participants if p != self.me)

    @property
    def deadline(self) -> float:
        """The moment at which the task ends here at the latest, on our clock."""
        return self.opened_at + self.proposal.seconds

    @property
    def offers_due(self) -> float:
        """The end of the asker's wait for offers, on our clock."""
        return self.asked_at + self._patience.offer_seconds

    @property
    def context(self) -> str:
        """The name of this run of this plan for the secure protocols: alike at every participant, never used twice."""
        return f"{self.proposal_id} {self.proposal.plan_digest}"

    def run_of(self, step: StepId) -> str:
        """The name of a step's run that counts now: see `tasks/attempts.py`."""
        return run_of(self._joint, step, self.attempts)

    def resting_on(self, step: StepId) -> frozenset[StepId]:
        """A joint step, and every step whose output depends on its."""
        return resting_on(self._joint, step)

    @property
    def receiver(self) -> PartyId:
        """The party that gets the answer."""
        return next((s.receiver for s in self.proposal.plan.steps if isinstance(s, Release)), self.asker)

    @property
    def deviations(self) -> tuple[Deviates, ...]:
        """Every word about a step that differs from what counts, another party's or their own other node's."""
        return (*self.signatures.deviations, *self.doubles.deviations)

    @property
    def parts_total(self) -> int:
        """The number of parts of steps that all participants have together."""
        return len(self._parts)

    def waits(self) -> tuple[Wait, ...]:
        """The parties that we wait for now."""
        match self.state:
            case "judging":
                return (Wait(self.me, "its judgement", self.since, self.deadline),)
            case "proposed":
                until = self.deadline
                if self.proposal.absent != "wait":
                    until = min(until, self.offers_due)
                missing = [p for p in self.proposal.participants if p not in self._offers and p not in self._refusals]
                return tuple(Wait(p, "its offer", self.asked_at, until, self._why(p)) for p in missing)
            case "offered":
                return (Wait(self.asker, "the contract", self.since, self.deadline, self._why(self.asker)),)
            case "running" if self._answer is not None:
                at, due = self._answer.at, second_until(self._answer.at, self.deadline)
                digests = [(p, f"its digest of step {step}", self.deadline) for step, p in self.signatures.waiting]
                seconds = [(p, f"its second result of step {step}", due) for step, p in self.doubles.waiting]
                return tuple(Wait(p, what, at, until, self._why(p)) for p, what, until in (*digests, *seconds))
            case "running":
                unfinished = [part for part in self._parts if part not in self.finished]
                if not unfinished:
                    return (Wait(self.receiver, "the receipt", self.since, self.deadline, self._why(self.receiver)),)
                return tuple(
                    Wait(p, f"step {step}", self.since, self.deadline, self._why(p, step)) for step, p in unfinished
                )
            case _:
                return ()

    def check(self, event: Event) -> None:
        """Nothing, if `handle` would take the event now. Raises PeerFault, InvalidTransition."""
        if not isinstance(event, LEGAL[self.state]):
            raise InvalidTransition(f"task {self.id} is {self.state}: {type(event).__name__} is not expected")
        match event:
            case ConfirmArrived():
                checks.check_confirm(self.id, self.proposal, set(self._parts), event)
                self.doubles.check(event.party, event.confirm)
            case ReceiptArrived():
                self._check_receipt(event)
            case _ if self.state in ENDED:
                pass  # it changes nothing but the record
            case StopArrived():
                checks.check_stop(self.id, self.proposal, event)
            case AttemptArrived():
                checks.check_attempt(self.id, self.proposal, self._parts, self._joint, event)
            case OfferArrived(party, answer) | RefusalArrived(party, answer):
                checks.check_answer(self.id, self.me, self.asker, self.proposal, self.proposal_id, party, answer)
                if isinstance(answer, Offer):
                    checks.check_versions(self.id, party, answer)
            case ContractArrived():
                checks.check_contract(self.id, self.asker, self.proposal, self.proposal_id, self._disclosures, event)

    def handle(self, event: Event) -> list[Instruction]:
        """Absorb one event; say what must now be done. Raises PeerFault, InvalidTransition; then nothing changed."""
        self.check(event)
        if self.state in ENDED:
            return self._note_late(event)
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
                return self._settled(event.at)
            case AttemptArrived():
                return self._attempt_arrived(event)
            case StepTried():
                self.tried[event.step] = event
                return []
            case StepDoubled():
                self._unsaid += [event.second] if (event.second.step, self.me) not in self.doubles.heard else []
                return [Wake(event.at + self._patience.confirm_seconds)]
            case ReceiptArrived():
                return self._receipt_arrived(event)
            case StopArrived():
                return self._stop_arrived(event)
            case CancelAsked():
                reason = f"cancelled by {event.user} at {self.me}"
                return self._stop("cancelled", "cancelled", self.me, reason, event.at)
            case PartyDown():
                self.away.setdefault(event.party, (event.detail, event.at))
                return [Wake(event.at + self._patience.absence_seconds)]
            case PartyUp():
                self.away.pop(event.party, None)
                return []
            case Restarted():
                return self._restarted(event)
            case Ticked():
                return self._ticked(event.at)
            case _:
                assert_never(event)

    # ── offers ──────────────────────────────────────────────────────────────────────────────────────

    def _opened(self, event: Opened) -> list[Instruction]:
        self.proposal_id = event.proposal
        self.opened_at = self.asked_at = event.at
        self._move("judging", event.at)
        wakes: list[Instruction] = [Wake(self.deadline)]
        if self.me == self.asker and self.offers_due < self.deadline:
            wakes.append(Wake(self.offers_due))
        if self.me == self.asker:
            return [*wakes, Publish(self.proposal, self.others), Judge()]
        return [*wakes, Judge()]

    def _permitted(self, event: Permitted) -> list[Instruction]:
        self._judged = event
        offer = event.offer(self.proposal_id, self.proposal.plan_digest)
        if self.me == self.asker:
            self._move("proposed", event.at)
            return [Publish(offer, ())]  # it comes back as `OfferArrived` when it is durable
        self._move("offered", event.at)
        return [Publish(offer, (self.asker,))]

    def _forbidden(self, event: Forbidden) -> list[Instruction]:
        end = end_of(event.code)
        if self.me == self.asker:
            return self._stop(end, event.code, self.me, event.reason, event.at)
        refusal = Refusal(self.proposal_id, self.proposal.plan_digest, event.code, event.reason)
        return [
            Publish(refusal, (self.asker,)),
            *self._conclude(end, event.code, self.me, event.reason, event.at),
        ]

    def _offer_arrived(self, event: OfferArrived) -> list[Instruction]:
        self._offers.setdefault(event.party, (event.offer, event.envelope))
        return self._answered(event.at)

    def _refusal_arrived(self, event: RefusalArrived) -> list[Instruction]:
        self._refusals.setdefault(event.party, event.refusal)
        if self._refusals_due is not None:
            return self._answered(event.at)
        self._refusals_due = min(event.at + self._patience.refusal_seconds, self.deadline)
        return self._answered(event.at) or [Wake(self._refusals_due)]

    def _answered(self, at: float) -> list[Instruction]:
        """The asker's: contract when everyone offered; stop when somebody refused and the others have answered."""
        if self.state != "proposed":
            return []
        missing = set(self.proposal.participants) - set(self._offers) - set(self._refusals)
        waited = self._refusals_due is not None and at >= self._refusals_due
        if self._refusals and (not missing or waited):
            # By name, whoever was first; a refusal by rule before any other, as asking again would not mend it.
            first = min(self._refusals, key=lambda p: (self._refusals[p].code != "refused", p))
            code = self._refusals[first].code
            reasons = "\n".join(dict.fromkeys(self._refusals[p].reason for p in sorted(self._refusals)))
            return self._stop(end_of(code), code, first, reasons, at)
        if missing:
            return []
        differing = sorted(p for p, (o, _) in self._offers.items() if o.disclosures != self._disclosures)
        if differing:
            reason = f"{differing[0]} derives other disclosures from the plan than {self.me}: versions may differ"
            return self._stop("failed", "peer-fault", differing[0], reason, at)
        self._keep_versions(self._offers[p][0] for p in self.proposal.participants)
        self._move("running", at)
        return [Publish(self._contract(), self.others), Perform()]

    def _contract(self) -> Contract:
        return Contract(
            self.proposal_id,
            self.proposal.plan_digest,
            self._disclosures,
            tuple(self._offers[p][1] for p in self.proposal.participants),
        )

    def proposed(self, statement: str) -> None:
        """Our own proposal is in the journal under this id (offers name it)."""
        self.proposal_id = statement

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
        """Everything that we have finished so far is confirmed in the journal."""
        self._unconfirmed, self._unsaid = [], []

    def spoke(self) -> None:
        """Note that the end of the task stands in a statement of ours."""
        self._last_word = True

    def _contract_arrived(self, event: ContractArrived) -> list[Instruction]:
        self.contract = event.statement
        self._keep_versions(offer for _, offer in event.offers)
        self._move("running", event.at)
        return [Perform()]

    # ── running ─────────────────────────────────────────────────────────────────────────────────────

    def _step_finished(self, event: StepFinished) -> list[Instruction]:
        if (event.finished.step, self.me) not in self._parts:
            raise InvalidTransition(f"task {self.id}: {self.me} finished step {event.finished.step}, not a part of its")
        if event.finished.attempt != self.run_of(event.finished.step):
            return []  # a run that was given up meanwhile
        self.finished[(event.finished.step, self.me)] = event.finished
        self.tried.pop(event.finished.step, None)
        self._unconfirmed.append(event.finished)
        if all((step, p) in self.finished for step, p in self._parts if p == self.me):
            return self._confirm()
        return [Wake(event.at + self._patience.confirm_seconds)] if len(self._unconfirmed) == 1 else []

    def _confirm(self) -> list[Instruction]:
        if not self._unconfirmed and not self._unsaid:
            return []
        confirm = Confirm(self.proposal.plan_digest, tuple(self._unconfirmed), tuple(self._unsaid))
        self._unconfirmed, self._unsaid = [], []
        return [Publish(confirm, self.others)]

    def _confirm_arrived(self, event: ConfirmArrived) -> None:
        self.signatures.hear(event.party, event.confirm, event.statement)
        self.doubles.hear(event.party, event.confirm, event.statement)
        for finished in event.confirm.steps:
            if finished.attempt == self.run_of(finished.step):
                self.finished.setdefault((finished.step, event.party), finished)
            else:
                self._ahead[(finished.step, event.party)] = finished

    def _attempt_arrived(self, event: AttemptArrived) -> list[Instruction]:
        attempt = event.attempt
        if attempt.number <= self.attempts.get(attempt.step, 0):
            return []
        self._begin_anew(attempt.step, attempt.number)
        return [Redo(attempt.step)] if self.state == "running" else []

    def _begin_anew(self, step: StepId, number: int) -> None:
        """Void all knowledge of earlier runs; what others said of this run before we knew of it counts now."""
        self.attempts[step] = number
        for resting in self.resting_on(step):
            run = self.run_of(resting)
            self.tried.pop(resting, None)
            self._unconfirmed = [done for done in self._unconfirmed if done.step != resting]
            for party in self.proposal.participants:
                self.finished.pop((resting, party), None)
                done = self._ahead.get((resting, party))
                if done is not None and done.attempt == run:
                    self.finished[(resting, party)] = self._ahead.pop((resting, party))

    def _restarted(self, event: Restarted) -> list[Instruction]:
        """Our process was started anew: what was waited for is waited for again, what was begun goes on."""
        self.away = {}
        wakes: list[Instruction] = [Wake(self.deadline), Wake(event.at)]
        if self.me == self.asker and self.state in ("judging", "proposed"):
            self.asked_at = event.at  # whoever answered while we were away could not be heard
            wakes.append(Wake(self.offers_due))
            if self._refusals_due is not None:
                wakes.append(Wake(self._refusals_due))
        match self.state:
            case "judging":
                return [*wakes, Judge()]
            case "running":
                contract = [Publish(self._contract(), self.others)] if self.contract is None else []
                said = self._lost(event)
                return said if self.state != "running" else [*wakes, *contract, *said, Perform()]
            case _:
                return wakes

    def _lost(self, event: Restarted) -> list[Instruction]:
        """Our outputs that did not survive are made again; a joint step that we had not finished begins anew."""
        mine = [step for step, party in self._parts if party == self.me]
        for step in mine:
            if step not in event.kept:
                self.finished.pop((step, self.me), None)
        said: list[Instruction] = []
        for step in lost_steps(self._joint, mine, event.kept):
            number = self.attempts.get(step, 0) + 1
            reason = f"the node of {self.me} was started anew and had not finished it"
            if number > MOST_ATTEMPTS:
                why = f"step {step} was begun {number} times and never finished: {reason}"
                return self._stop("failed", "unavailable", self.me, why, event.at)
            self._begin_anew(step, number)
            said.append(Publish(Attempt(self.proposal.plan_digest, step, number, reason), self.others))
        return said

    def _released(self, event: Released) -> list[Instruction]:
        if self.me != self.receiver:
            raise InvalidTransition(f"task {self.id}: {self.me} has an answer that {self.receiver} receives")
        self._answer = event
        return self._settled(event.at)

    def _settled(self, at: float) -> list[Instruction]:
        """The receipt, once the answer and all that certifies it are here; the end, if it does not hold."""
        event = self._answer
        if event is None:
            return []
        if self.signatures.waiting:
            return self._confirm()
        unsound = self.signatures.unsound
        if unsound is not None:
            return self._stop("failed", Deviation.code, unsound.party, unsound.line, at)
        until = second_until(event.at, self.deadline)
        if self.doubles.waiting and at < until and not event.recorded:
            return [*self._confirm(), Wake(until)]
        self.receipt = Receipt(
            self.proposal.plan_digest,
            self.contract or "",
            event.result,
            event.rows,
            event.withheld,
            tuple(self._versions[key] for key in sorted(self._versions)),
            coarse_seconds(at - self.opened_at),
            self.proposal.missing,
            self.signatures.record,
            self.doubles.record,
        )
        return [
            *self._confirm(),
            Publish(self.receipt, self.others),
            *self._conclude("done", "", self.me, "", at),
        ]

    def _receipt_arrived(self, event: ReceiptArrived) -> list[Instruction]:
        self.receipt = event.receipt
        return [*self._confirm(), *self._conclude("done", "", event.party, "", event.at)]

    def _check_receipt(self, event: ReceiptArrived) -> None:
        if event.party != self.receiver:
            raise PeerFault(f"{event.party} sent a receipt for task {self.id}, whose receiver is {self.receiver}")
        checks.check_digest(self.id, self.proposal, event.party, event.receipt.plan_digest)
        self.signatures.check_receipt(self.me, event.receipt)
        self.doubles.check_receipt(self.me, event.receipt)

    def _stop_arrived(self, event: StopArrived) -> list[Instruction]:
        stop = event.stop
        spared = self._missing.spared(stop.code, stop.party)
        if self.me != self.asker or (self.state == "running" and not spared):
            return [*self._confirm(), *self._conclude(stop.end, stop.code, stop.party, stop.reason, event.at)]
        # Another participant may have had this stop before our proposal, and so not have known what it was about.
        return self._stop(stop.end, stop.code, stop.party, stop.reason, event.at)

    def _ticked(self, at: float) -> list[Instruction]:
        if at >= self.deadline:
            if self.state == "proposed" and self._refusals:  # who refused is a better reason than who is still silent
                return self._answered(at)
            return self._stop(*self._lapsed("the deadline", self.deadline), at)
        away = [p for p, (_, since) in sorted(self.away.items()) if at >= since + self._patience.absence_seconds]
        if gone := self._missing.ending(away, runs=self.state == "running"):
            reason = f"{gone[0]} cannot be reached: {self.away[gone[0]][0]}"
            return self._without(gone, "unavailable", reason, at)
        if self.state == "proposed":
            if at >= self.offers_due and not self._refusals:
                _, code, party, reason = self._lapsed("the time for offers", at)
                if late := self._missing.late([party, *(w.party for w in self.waits() if w.party != party)]):
                    return self._without(late, code, reason, at)
            return self._answered(at)
        if self.state == "running":
            return self._settled(at) or self._confirm()
        return []

    @property
    def _missing(self) -> Missing:
        return Missing(self.proposal, self.me, self.asker)

    def _without(self, gone: tuple[PartyId, ...], code: str, reason: str, at: float) -> list[Instruction]:
        """The task ends for want of these parties; if it may go on without them, it is asked again."""
        end: End = "expired" if code == DeadlineExceeded.code else "failed"
        self.left_out, why_not = self._missing.left_out(gone)
        return self._stop(end, code, gone[0], reason + why_not, at)

    def _lapsed(self, limit: str, until: float) -> tuple[End, str, PartyId, str]:
        party, reason = lapsed(limit, until, self.waits(), self.me)
        return "expired", DeadlineExceeded.code, party, reason

    def _why(self, party: PartyId, step: StepId | None = None) -> str:
        """The known reason for a delay."""
        if party in self.away:
            return f"cannot be reached: {self.away[party][0]}"
        tried = self.tried.get(step) if step is not None and party == self.me else None
        return f"try {tried.tries + 1}, {tried.reason}" if tried is not None else ""

    # ── shared ──────────────────────────────────────────────────────────────────────────────────────

    @property
    def _disclosures(self) -> Digest:
        if self._judged is None:
            raise InvalidTransition(f"task {self.id}: nothing was judged yet")
        return self._judged.disclosures

    def _keep_versions(self, offers: Iterable[Offer]) -> None:
        self._versions = {(v.party, v.dataset): v for offer in offers for v in offer.versions}

    def _note_late(self, event: Event) -> list[Instruction]:
        match event:
            case ConfirmArrived():
                self._confirm_arrived(event)
            case StepFinished():
                self.finished.setdefault((event.finished.step, self.me), event.finished)
            case ReceiptArrived():
                self.receipt = self.receipt or event.receipt
            case Restarted() if not self._last_word and self.outcome is not None and self.outcome.end != "done":
                ended = self.outcome  # we ended it, and our process did before it could say so
                self._last_word = True
                stop = Stop(self.proposal.plan_digest, ended.end, ended.code, ended.party, ended.reason, self.left_out)
                return [Publish(stop, self.others)]
            case _:
                pass
        return []

    def _stop(self, end: End, code: str, party: PartyId, reason: str, at: float) -> list[Instruction]:
        """We end the task: tell everyone, with what we had finished; ask again if it was for want of a spare party."""
        self.left_out = self.left_out or self._missing.spared(code, party)
        if self.left_out:
            reason = f"{reason}; it is asked again without {', '.join(self.left_out)}"
        stop = Stop(self.proposal.plan_digest, end, code, party, reason, self.left_out)
        concluded = self._conclude(end, code, party, reason, at)
        self._last_word = False
        again = [GoOn(self.left_out)] if self.left_out else []
        return [*self._confirm(), Publish(stop, self.others), *concluded, *again]

    def _conclude(self, end: End, code: str, party: PartyId, reason: str, at: float) -> list[Instruction]:
        self._move(end, at)
        self._last_word = True
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
