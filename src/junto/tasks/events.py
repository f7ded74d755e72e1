# SPDX-License-Identifier: Apache-2.0
"""The events of a task, as one node sees it. `at` is the node's clock, unix seconds."""

from dataclasses import dataclass

from junto.tasks.bodies import (
    Attempt,
    Confirm,
    Contract,
    Estimate,
    Finished,
    Offer,
    Receipt,
    Refusal,
    Second,
    Stop,
    Version,
)
from junto.types import Digest, PartyId, StepId, Withheld


@dataclass(frozen=True, slots=True)
class Opened:
    """The proposal is in our journal: we wrote it, or it arrived."""

    proposal: str
    at: float


@dataclass(frozen=True, slots=True)
class Permitted:
    """Our own rules, grants and data allow our part, and what it needs is reserved: for `reserves` seconds without a
    contract, to start in `starts` seconds at the earliest."""

    disclosures: Digest
    versions: tuple[Version, ...]
    estimate: Estimate
    at: float
    starts: float = 0.0
    reserves: float = 0.0

    def offer(self, proposal: str, plan: Digest) -> Offer:
        """The offer that we make of it to the asker."""
        return Offer(proposal, plan, self.disclosures, self.versions, self.estimate, self.starts, self.reserves)


@dataclass(frozen=True, slots=True)
class Forbidden:
    """Our own rules or data do not allow our part."""

    code: str
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class OfferArrived:
    """A participant (or we) offered; `envelope` is what it signed."""

    party: PartyId
    offer: Offer
    envelope: str
    at: float


@dataclass(frozen=True, slots=True)
class RefusalArrived:
    """A participant refused."""

    party: PartyId
    refusal: Refusal
    at: float


@dataclass(frozen=True, slots=True)
class ContractArrived:
    """The contract, its offers' signatures checked: who offered which plan and which disclosures."""

    party: PartyId
    statement: str
    contract: Contract
    offers: tuple[tuple[PartyId, Offer], ...]
    at: float


@dataclass(frozen=True, slots=True)
class StepFinished:
    """We finished our part of a step."""

    finished: Finished
    at: float


@dataclass(frozen=True, slots=True)
class StepFailed:
    """Our part of a step cannot be finished; `party` is whose doing it is."""

    step: StepId
    code: str
    party: PartyId
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Released:
    """We are the receiver, and the answer is here; `recorded`: its receipt was in the journal already."""

    result: Digest
    rows: int
    withheld: Withheld
    at: float
    recorded: bool = False


@dataclass(frozen=True, slots=True)
class ConfirmArrived:
    """A participant finished its part of a step. (Our own comes back when it is durable, if it certifies something.)"""

    party: PartyId
    confirm: Confirm
    at: float
    statement: str = ""


@dataclass(frozen=True, slots=True)
class AttemptArrived:
    """A participant lost its side of a joint step: it is done again."""

    party: PartyId
    attempt: Attempt
    at: float


@dataclass(frozen=True, slots=True)
class ReceiptArrived:
    """The receiver has the answer."""

    party: PartyId
    receipt: Receipt
    at: float


@dataclass(frozen=True, slots=True)
class StopArrived:
    """A participant ended the task."""

    party: PartyId
    stop: Stop
    at: float


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """A user of ours wants the task to end."""

    user: str
    at: float


@dataclass(frozen=True, slots=True)
class PartyDown:
    """The link to a participant is down; `detail` says since when and why."""

    party: PartyId
    detail: str
    at: float


@dataclass(frozen=True, slots=True)
class PartyUp:
    """The link to a participant is up again."""

    party: PartyId
    at: float


@dataclass(frozen=True, slots=True)
class StepTried:
    """Our part of a step failed by what may pass, and is tried again; `tries` so far."""

    step: StepId
    tries: int
    code: str
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class StepDoubled:
    """The comparison of a second result of a fragment of ours is known, or there is none."""

    second: Second
    at: float


@dataclass(frozen=True, slots=True)
class Restarted:
    """This node's process was started anew; the outputs of the steps in `kept` are still here."""

    kept: frozenset[StepId]
    at: float


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passed; sent at the moments `Wake` asked for."""

    at: float


Event = (
    Opened
    | Permitted
    | Forbidden
    | OfferArrived
    | RefusalArrived
    | ContractArrived
    | StepFinished
    | StepFailed
    | Released
    | ConfirmArrived
    | AttemptArrived
    | StepTried
    | StepDoubled
    | ReceiptArrived
    | StopArrived
    | CancelAsked
    | PartyDown
    | PartyUp
    | Restarted
    | Ticked
)
