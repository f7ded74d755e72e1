# SPDX-License-Identifier: Apache-2.0
"""The orders to a node about a task, in the sequence given: persist, then send."""

from dataclasses import dataclass

from junto.tasks.bodies import Body, End
from junto.types import PartyId, StepId


@dataclass(frozen=True, slots=True)
class Judge:
    """Derive the disclosures, judge them by our rules; answer with `Permitted` or `Forbidden`."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Sign the body, journal it, and when it is durable deliver it to `to`."""

    body: Body
    to: tuple[PartyId, ...]


@dataclass(frozen=True, slots=True)
class Perform:
    """Run our part of every step of the contracted plan."""


@dataclass(frozen=True, slots=True)
class Redo:
    """Do a joint step, and what rests on it, again under its present attempt; what was begun of it is void."""

    step: StepId


@dataclass(frozen=True, slots=True)
class GoOn:
    """The task has ended here for want of these parties: ask it again without them."""

    without: tuple[PartyId, ...]


@dataclass(frozen=True, slots=True)
class Halt:
    """Stop our part and free what it holds."""


@dataclass(frozen=True, slots=True)
class Conclude:
    """The task has ended here; tell who watches it."""

    end: End
    code: str
    party: PartyId
    reason: str


@dataclass(frozen=True, slots=True)
class Wake:
    """Send `Ticked` at this time, unix seconds."""

    at: float


Instruction = Judge | Publish | Perform | Redo | GoOn | Halt | Conclude | Wake
