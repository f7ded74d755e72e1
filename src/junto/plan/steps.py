# SPDX-License-Identifier: Apache-2.0
"""The plan: a list of steps in dependency order, plain data that every party can read and digest.

A grouped question over a joint table becomes, with `others` the owners that are not the receiver:

    Query at each owner          key columns k0…, `units`, measures m0…      (stays inside the party)
    Threshold over others        which groups have enough units              → receiver learns the keys that passed
    MaskedSum over others        the summed measures of groups that passed   → receiver learns the sums
    Move per owner               minima and maxima, where rules permit
    Release at the receiver      adds its own Query, evaluates HAVING, ORDER BY, LIMIT and expressions

Where no owner but the receiver is left, its Query and the Release are the whole plan, and nothing is withheld.
A question for rows is Query and Move per owner, and a Release that concatenates. An open table that a
fragment joins is Query and Move to each party that needs it, kept there by version; at its own owner the
fragment reads the dataset, or the step that computed it.

The table `released` has the columns k0…, then m0… (a count as BIGINT, an integer as DECIMAL(38, scale), a real
as DOUBLE, a value as its type, a spread not at all), then d0… as DOUBLE; of a question for rows, the columns that the
rows have.
A partial sum is 0 where there is nothing to sum; a partial minimum or maximum is NULL.
"""

import hashlib
from typing import Literal

import msgspec

from junto.types import DatasetName, Digest, PartyId, StepId, Tokens

FORMAT = 2
"""The version of the meaning of a plan's steps. Since 2 each measure has a threshold of its own."""

Combine = Literal["sum", "min", "max"]
Encoding = Literal["count", "integer", "real", "spread", "value"]
"""The form in which a measure travels. `count`: one 64-bit lane. `integer`: exact decimal128 with `scale`, three lanes.
`real`: fixed point with 64 fractional bits and flags, four lanes. `spread`: a sum and a sum of squares of which a
deviation loses no digit, 15 lanes. `value`: as Arrow holds it (minima, maxima)."""


class Step(msgspec.Struct, frozen=True, tag_field="step", forbid_unknown_fields=True):
    """The part that every step has: a name that later steps refer to."""

    id: StepId


class Read(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table a fragment reads, under the name its SQL uses: a dataset of the party, or a step's output."""

    name: str
    dataset: DatasetName | None = None
    version: Digest | None = None
    step: StepId | None = None
    columns: tuple[str, ...] = ()


class Measure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A partial aggregate in a fragment's output, and how the parties' values become one."""

    name: str
    combine: Combine
    encoding: Encoding
    type: str
    scale: int = 0


class Deviation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A derived column: the sum of squared deviations, `ss - s*s/n`, computed without cancellation.

    n, s and ss are measures: a count, then a sum and one of squares, or twice the same spread.
    """

    name: str
    n: str
    s: str
    ss: str


class Query(Step, frozen=True, tag="query"):
    """SQL on one party's engine. Output: `keys`, then `units`, then `measures`; or rows if `keys` is None."""

    party: PartyId
    sql: str
    reads: tuple[Read, ...]
    keys: tuple[str, ...] | None = None
    key_types: tuple[str, ...] = ()
    measures: tuple[Measure, ...] = ()
    columns: tuple[str, ...] = ()  # of a rows query, in order
    column_types: tuple[str, ...] = ()
    certifies: StepId | msgspec.UnsetType = msgspec.UNSET  # what it computes again; see `certify.py`


class Threshold(Step, frozen=True, tag="threshold"):
    """The choice of groups with at least `units` units and `parties` contributors, without showing the counts.

    `inputs` are the Query steps of `contributors`, in the same order; neither holds the receiver.
    `nodes` compute, as `computing.py` chooses them: the one contributor alone, or at least three parties.
    """

    inputs: tuple[StepId, ...]
    contributors: tuple[PartyId, ...]
    receiver: PartyId
    nodes: tuple[PartyId, ...]
    units: int
    parties: int = 1
    dominance: int = 80  # a sum of which one unit brings more per cent is not shown
    tokens: Tokens = "hmac"


class MaskedSum(Step, frozen=True, tag="masked_sum"):
    """The sums of the measures over the contributors, for the groups that passed `threshold`."""

    threshold: StepId
    inputs: tuple[StepId, ...]
    contributors: tuple[PartyId, ...]
    receiver: PartyId
    measures: tuple[Measure, ...]


class Move(Step, frozen=True, tag="move"):
    """An output crosses unchanged to the parties named. With `threshold`, only its groups that passed."""

    input: StepId
    sender: PartyId
    to: tuple[PartyId, ...]
    columns: tuple[str, ...]
    threshold: StepId | None = None


class Release(Step, frozen=True, tag="release"):
    """The answer, at its receiver: SQL over the table `released`, built from the inputs named."""

    receiver: PartyId
    sql: str
    own: StepId | None = None  # the receiver's own Query, which crosses nothing
    threshold: StepId | None = None
    sums: StepId | None = None
    moves: tuple[StepId, ...] = ()
    deviations: tuple[Deviation, ...] = ()
    columns: tuple[str, ...] = ()
    column_types: tuple[str, ...] = ()


AnyStep = Query | Threshold | MaskedSum | Move | Release


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The steps to perform, and by whom. Nothing in a plan is believed: every party derives its meaning anew."""

    question: str
    asker: PartyId
    steps: tuple[AnyStep, ...]
    format: int = FORMAT

    @property
    def parties(self) -> tuple[PartyId, ...]:
        """Everyone who takes part, the asker first, then by name."""
        return (self.asker, *sorted({p for step in self.steps for p in parties_of(step)} - {self.asker}))

    def step(self, id: StepId) -> AnyStep:
        """The step of that name. Raises KeyError."""
        for step in self.steps:
            if step.id == id:
                return step
        raise KeyError(id)


def parties_of(step: AnyStep) -> frozenset[PartyId]:
    """The parties that do work in a step or receive its output."""
    match step:
        case Query():
            return frozenset((step.party,))
        case Threshold():
            return frozenset((*step.contributors, *step.nodes, step.receiver))
        case MaskedSum():
            return frozenset((*step.contributors, step.receiver))
        case Move():
            return frozenset((step.sender, *step.to))
        case Release():
            return frozenset((step.receiver,))


def encode(plan: Plan) -> bytes:
    """The plan's one canonical spelling: JSON, fields in declared order, no spaces."""
    return msgspec.json.encode(plan)


def decode(data: bytes) -> Plan:
    """The plan in `data`. Raises msgspec.ValidationError on anything that is not one."""
    return msgspec.json.decode(data, type=Plan)


def digest(plan: Plan) -> Digest:
    """SHA-256 of the canonical spelling."""
    return Digest("sha256:" + hashlib.sha256(encode(plan)).hexdigest())
