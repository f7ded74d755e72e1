# SPDX-License-Identifier: Apache-2.0
"""The bodies of the statements that parties sign about a task, in the order they are written."""

from typing import Literal

import msgspec

from junto.plan.steps import Plan
from junto.types import DatasetName, Digest, NodeId, PartyId, StepId, TaskId, Withheld

End = Literal["done", "refused", "failed", "cancelled", "expired"]

Absent = Literal["", "wait", "fail", "go-on"]
"""The fate of a task when a participant stays away. `wait`: until the deadline. `fail`: it ends, naming them.
`go-on`: the others begin anew without them, if enough are left. Nothing: before the contract, when nothing was computed
yet, who asked lets it fail, and after it it waits."""

NO_TASK = TaskId("")


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A statement's body; unknown fields are a fault of the sender."""


class Proposal(Body, frozen=True):
    """The asker's: this plan, by this time, for this purpose."""

    plan: Plan
    plan_digest: Digest
    participants: tuple[PartyId, ...]
    user: str
    purpose: str
    seconds: float  # from opening to the deadline, on each participant's own clock
    priority: int = 0
    absent: Absent = ""
    at_least: int = 0  # with "go-on": so many participants must be left
    missing: tuple[PartyId, ...] = ()  # left out, because they stayed away from the task that this one continues
    continues: TaskId = NO_TASK
    double: bool = False  # two nodes of a party compute each fragment that both can; see `doubles.py`


class Version(Body, frozen=True):
    """A dataset in the state that will be read."""

    party: PartyId
    dataset: DatasetName
    version: Digest


class Estimate(Body, frozen=True):
    """A participant's expected cost of its part: what it reads, how long it computes, what it needs meanwhile."""

    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0
    memory: int = 0  # bytes


class Offer(Body, frozen=True):
    """A participant's: I can and may. `disclosures` is the digest of what it derived and judged.

    It can start `starts` seconds from now at the earliest, and holds what it reserved for `reserves` seconds without a
    contract.
    """

    proposal: str
    plan_digest: Digest
    disclosures: Digest
    versions: tuple[Version, ...] = ()
    estimate: Estimate = Estimate()
    starts: float = 0.0
    reserves: float = 0.0


class Refusal(Body, frozen=True):
    """A participant's: I may not, or cannot; the reason names column, rule and grant."""

    proposal: str
    plan_digest: Digest
    code: str
    reason: str


class Contract(Body, frozen=True):
    """The asker's: everybody offered. `offers` are the signed envelopes, one per participant."""

    proposal: str
    plan_digest: Digest
    disclosures: Digest
    offers: tuple[str, ...]


class Finished(Body, frozen=True):
    """One party's part of one step, done."""

    step: StepId
    digest: Digest  # of the step's output at this party, salted: small outputs could be guessed
    rows: int | None  # of what crossed; None where the count itself is private
    bytes: int  # sent to other parties
    seconds: float
    attempt: str = ""  # see `tasks/attempts.py`
    certified: Digest | None = None  # canonical, unsalted: of steps that several parties compute, over open data


class Second(Body, frozen=True):
    """The result of a fragment at a second node of a party, beside the one whose rows count."""

    step: StepId
    first: Digest  # of the rows that count, canonical, then salted; empty if there was no second
    second: Digest  # of the other node's, salted alike: equal exactly when the rows are
    nodes: tuple[NodeId, ...]  # who computed the one and the other
    why: str = ""  # there was no second, or none that can be compared


class Confirm(Body, frozen=True):
    """A party's: these steps of mine are finished; and how the second results of some compare."""

    plan_digest: Digest
    steps: tuple[Finished, ...]
    seconds: tuple[Second, ...] = ()


class Doubled(Body, frozen=True):
    """One party's word on a second result, and the statement that holds it; none, if the party had said nothing."""

    party: PartyId
    second: Second
    statement: str


class Attempt(Body, frozen=True):
    """A participant's: I lost my side of this joint step; whoever takes part begins it anew, under this number."""

    plan_digest: Digest
    step: StepId
    number: int
    reason: str


class Signed(Body, frozen=True):
    """One party's confirmation of a certified step, and the statement that holds it."""

    party: PartyId
    step: StepId  # the step itself, one that computes it again, or the move by which it came
    digest: Digest
    statement: str


class Certified(Body, frozen=True):
    """A step that several parties computed: the digest that counts, and what each signed."""

    step: StepId
    digest: Digest
    signed: tuple[Signed, ...]


class Receipt(Body, frozen=True):
    """The receiver's: what came out, of what."""

    plan_digest: Digest
    contract: str
    result: Digest  # of the answer as an Arrow IPC stream, which carries a salt
    rows: int
    withheld: Withheld | int  # a number in journals of before 2026-12
    versions: tuple[Version, ...]
    seconds: float
    missing: tuple[PartyId, ...] = ()  # owners whose rows are not in the answer, because they stayed away
    certificates: tuple[Certified, ...] = ()
    doubled: tuple[Doubled, ...] = ()

    @property
    def told(self) -> Withheld:
        """The word that may be told of the groups withheld."""
        return self.withheld if isinstance(self.withheld, str) else "unknown"


class Stop(Body, frozen=True):
    """A participant's: the task ends here, because of `party`."""

    plan_digest: Digest
    end: End
    code: str
    party: PartyId
    reason: str
    without: tuple[PartyId, ...] = ()  # the asker's: it asks again, without these


BODIES: dict[str, type[Body]] = {
    "proposal": Proposal,
    "offer": Offer,
    "refusal": Refusal,
    "contract": Contract,
    "confirm": Confirm,
    "attempt": Attempt,
    "receipt": Receipt,
    "stop": Stop,
}
"""Statement kind → the shape of its body."""


def kind_of(body: Body) -> str:
    """The statement kind a body belongs to."""
    return next(kind for kind, shape in BODIES.items() if isinstance(body, shape))
