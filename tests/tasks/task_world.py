# SPDX-License-Identifier: Apache-2.0
"""One task of three parties: bts asks and receives, delta and united own what is asked about."""

import copy
from typing import Any

from junto.plan import steps
from junto.plan.steps import MaskedSum, Plan, Query, Release, Threshold
from junto.tasks.bodies import (
    Absent,
    Attempt,
    Body,
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
    AttemptArrived,
    ConfirmArrived,
    ContractArrived,
    Event,
    OfferArrived,
    Opened,
    Permitted,
    ReceiptArrived,
    RefusalArrived,
    Released,
    StepFinished,
    StepTried,
    StopArrived,
)
from junto.tasks.instructions import Instruction, Publish, Wake
from junto.tasks.state import Task
from junto.tasks.table import State
from junto.tasks.waiting import Patience
from junto.types import DatasetName, Digest, PartyId, StepId, TaskId

BTS, DELTA, UNITED, STRANGER = PartyId("bts"), PartyId("delta"), PartyId("united"), PartyId("jetblue")
PARTIES = (BTS, DELTA, UNITED)
TASK = TaskId("01jtask")
PROPOSAL = "proposal-1"
PATIENCE = Patience()
SECONDS = 60.0
START = 1000.0


def _plan() -> Plan:
    queries = tuple(
        Query(StepId(f"q-{party}"), party, "SELECT 1", (), keys=(), measures=()) for party in (DELTA, UNITED)
    )
    inputs = tuple(query.id for query in queries)
    threshold = Threshold(StepId("t"), inputs, (DELTA, UNITED), BTS, PARTIES, 10)
    sums = MaskedSum(StepId("m"), threshold.id, inputs, (DELTA, UNITED), BTS, ())
    release = Release(StepId("r"), BTS, "SELECT 1", threshold=threshold.id, sums=sums.id)
    return Plan("SELECT 1", BTS, (*queries, threshold, sums, release))


PLAN = _plan()
PLAN_DIGEST = steps.digest(PLAN)
OTHER_DIGEST = Digest("sha256:" + "9" * 64)
JUDGED = Digest("sha256:" + "d" * 64)
PARTS = [(step.id, party) for step in PLAN.steps for party in sorted(steps.parties_of(step))]
RESULT = Digest("sha256:" + "a" * 64)


def proposal(seconds: float = SECONDS, absent: Absent = "", at_least: int = 0) -> Proposal:
    """What bts proposes."""
    return Proposal(PLAN, PLAN_DIGEST, PARTIES, "ana", "fleet-safety", seconds, absent=absent, at_least=at_least)


def new_task(me: PartyId, seconds: float = SECONDS, proposed: Proposal | None = None) -> Task:
    """The machine of one party, nothing having happened."""
    return Task(TASK, me, BTS, proposed or proposal(seconds), PATIENCE)


def version_of(party: PartyId) -> Version:
    """The one version a party reads."""
    return Version(party, DatasetName("flights"), Digest("sha256:" + party.ljust(64, "0")))


def versions_of(party: PartyId) -> tuple[Version, ...]:
    """What a party's offer names; bts has no data."""
    return () if party == BTS else (version_of(party),)


def offer_of(
    party: PartyId, *, proposed: str = PROPOSAL, plan: Digest = PLAN_DIGEST, disclosures: Digest = JUDGED
) -> Offer:
    """A party's offer."""
    return Offer(proposed, plan, disclosures, versions_of(party))


def permitted(party: PartyId, at: float = START) -> Permitted:
    """A party's own judgement: it may."""
    offer = offer_of(party)
    return Permitted(offer.disclosures, offer.versions, offer.estimate, at)


def offered(party: PartyId, at: float = START) -> OfferArrived:
    """A party's offer reached the asker."""
    return OfferArrived(party, offer_of(party), f"envelope of {party}", at)


def refused(party: PartyId, at: float = START, code: str = "refused") -> RefusalArrived:
    """A party's refusal reached the asker."""
    return RefusalArrived(party, Refusal(PROPOSAL, PLAN_DIGEST, code, f"{party} says no"), at)


CONTRACT = Contract(PROPOSAL, PLAN_DIGEST, JUDGED, tuple(f"envelope of {party}" for party in PARTIES))
OFFERS = tuple((party, offer_of(party)) for party in PARTIES)


def contracted(at: float = START) -> ContractArrived:
    """The contract reached a participant."""
    return ContractArrived(BTS, "contract-1", CONTRACT, OFFERS, at)


def done_part(part: str) -> Finished:
    """One part of a step, finished; `t@1` is step t in run 1."""
    step, _, run = part.partition("@")
    return Finished(StepId(step), Digest("sha256:" + "5" * 64), None, 100, 0.25, run)


def finished(step: str, at: float = START) -> StepFinished:
    """We finished our part of a step."""
    return StepFinished(done_part(step), at)


def confirmed(party: PartyId, *parts: str, at: float = START) -> ConfirmArrived:
    """A party finished its parts of steps."""
    return ConfirmArrived(party, Confirm(PLAN_DIGEST, tuple(done_part(part) for part in parts)), at)


def anew(party: PartyId, step: str, number: int, at: float = START) -> AttemptArrived:
    """A party lost its side of a joint step."""
    return AttemptArrived(party, Attempt(PLAN_DIGEST, StepId(step), number, f"{party} lost it"), at)


def tried(step: str, tries: int = 1, at: float = START) -> StepTried:
    """A part of ours did not succeed, and is tried again."""
    return StepTried(StepId(step), tries, "out-of-memory", "it needs more memory", at)


def released(at: float = START) -> Released:
    """The answer is here."""
    return Released(RESULT, 36, "some", at)


def receipt(at: float = START, signer: PartyId = BTS) -> ReceiptArrived:
    """The receiver has the answer."""
    versions = (version_of(DELTA), version_of(UNITED))
    return ReceiptArrived(signer, Receipt(PLAN_DIGEST, "contract-1", RESULT, 36, 2, versions, at - START), at)


def stopped(party: PartyId, end: End = "failed", because: PartyId = UNITED, at: float = START) -> StopArrived:
    """A party ended the task."""
    return StopArrived(party, Stop(PLAN_DIGEST, end, "out-of-memory", because, "it needs more memory"), at)


_ROADS: dict[State, tuple[Event, ...]] = {
    "new": (),
    "judging": (Opened(PROPOSAL, START),),
    "proposed": (Opened(PROPOSAL, START), permitted(BTS)),
    "offered": (Opened(PROPOSAL, START), permitted(DELTA)),
    "running": (Opened(PROPOSAL, START), permitted(DELTA), contracted()),
    "done": (Opened(PROPOSAL, START), permitted(DELTA), contracted(), receipt()),
    "refused": (Opened(PROPOSAL, START), stopped(BTS, "refused")),
    "failed": (Opened(PROPOSAL, START), stopped(BTS, "failed")),
    "cancelled": (Opened(PROPOSAL, START), stopped(BTS, "cancelled")),
    "expired": (Opened(PROPOSAL, START), stopped(BTS, "expired")),
}


def at_state(state: State, proposed: Proposal | None = None) -> Task:
    """A machine in that state: of bts for `proposed`, of delta for the others."""
    return after(BTS if state == "proposed" else DELTA, *_ROADS[state], proposed=proposed)


def after(me: PartyId, *events: Event, seconds: float = SECONDS, proposed: Proposal | None = None) -> Task:
    """A machine after these events."""
    task = new_task(me, seconds, proposed)
    for event in events:
        task.handle(event)
    return task


def asker(*events: Event, proposed: Proposal | None = None) -> Task:
    """The asker's machine, its own offer made and durable, after these events."""
    return after(BTS, Opened(PROPOSAL, START), permitted(BTS), offered(BTS), *events, proposed=proposed)


def running_asker(proposed: Proposal | None = None) -> Task:
    """The asker's machine with a contract."""
    task = asker(offered(DELTA), offered(UNITED), proposed=proposed)
    task.contracted("contract-1")
    return task


def all_of(task: Task) -> dict[str, Any]:
    """Everything the machine holds, copied."""
    return copy.deepcopy(vars(task))


def bodies(instructions: list[Instruction]) -> list[Body]:
    """What is to be published, in order."""
    return [i.body for i in instructions if isinstance(i, Publish)]


def without_wakes(instructions: list[Instruction]) -> list[Instruction]:
    """The instructions but `Wake`."""
    return [i for i in instructions if not isinstance(i, Wake)]
