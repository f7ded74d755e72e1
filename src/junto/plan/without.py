# SPDX-License-Identifier: Apache-2.0
"""The same question without some owners: the plan for those who are there when others stay away.

Rewriting, not compiling: a node has the plan, not the frontend that made it. The question to each owner that is left
is the same as before, word for word, so its judgement of the new plan differs from the old one only in who else
takes part. The result is the plan that the SQL frontend makes of the datasets that are left, with these differences:

- the threshold stays as strict as the rules of all owners made it, though at most as many contributors are asked for
  as are left; an owner whose own rules ask for more refuses;
- a helper that is missing leaves its place to the receiver, or to another helper: `computing.helped`;
- groups stay under the threshold even where all that is left is open;
- what was certified is certified anew, by as many as before;
- where the receiver alone is left with data of its own, it releases its own groups, nothing withheld.
"""

from collections.abc import Collection, Iterable, Sequence

import msgspec

from junto.catalog.dataset import Dataset
from junto.errors import InvalidInput
from junto.plan.certify import certified, signers, uncertified
from junto.plan.computing import computing_nodes, helper_of
from junto.plan.graph import pruned
from junto.plan.placement import alternatives, moved
from junto.plan.steps import AnyStep, MaskedSum, Move, Plan, Query, Release, Threshold
from junto.types import PartyId, StepId


def without(plan: Plan, missing: Collection[PartyId], datasets: Iterable[Dataset] = ()) -> Plan:
    """The plan that answers the same question of everybody's data but that of `missing`.

    datasets: those published; an open table of a missing party is then read at another party that holds the same.
    Parties that have no part in the plan change nothing. Raises InvalidInput, one line, when the asker is missing, when
    an open table that is joined is nowhere else, when nobody is left who holds what is asked, or too few to certify it.
    """
    gone = frozenset(missing)
    if not gone & frozenset(plan.parties):
        return plan
    if plan.asker in gone:
        raise InvalidInput(
            f"{plan.asker} asks the question and receives the answer: it cannot go on without {plan.asker}"
        )
    published, asked = tuple(datasets), signers(plan)
    placed = _placed_elsewhere(uncertified(plan), gone, published)
    lost = frozenset(step.id for step in placed.steps if _worker(step) in gone)
    _check_tables(placed, lost, gone)
    kept = [_kept(step, gone, lost) for step in placed.steps if step.id not in lost]
    again = _closed(plan, [step for step in kept if step is not None], gone)
    there = [dataset for dataset in published if dataset.party not in gone]
    return certified(again, asked, there) if asked > 1 else again


def _placed_elsewhere(plan: Plan, gone: frozenset[PartyId], datasets: Sequence[Dataset]) -> Plan:
    """Open reads of the missing moved to others that hold the same, the asker first, then by name."""
    for step in plan.steps:
        if isinstance(step, Query) and step.party in gone:
            found = alternatives(plan, datasets).get(step.id, ())  # anew: what was moved before has taken a place
            there = sorted((h.party != plan.asker, h.party, h) for h in found if h.party not in gone)
            if there:
                plan = moved(plan, step.id, there[0][2])
    return plan


def _worker(step: AnyStep) -> PartyId | None:
    """The party that performs a step alone; None if several parties do."""
    match step:
        case Query():
            return step.party
        case Move():
            return step.sender
        case _:
            return None


def _check_tables(plan: Plan, lost: frozenset[StepId], gone: frozenset[PartyId]) -> None:
    """Raises InvalidInput if a fragment that stays reads what a missing party would have sent."""
    for step in plan.steps:
        if isinstance(step, Query) and step.party not in gone:
            sources = [plan.step(read.step) for read in step.reads if read.step in lost and read.step is not None]
            for source in sources:
                query = plan.step(source.input) if isinstance(source, Move) else source
                if isinstance(query, Query):
                    tables = " and ".join(sorted({r.dataset or r.name for r in query.reads}))
                    raise InvalidInput(
                        f"the question joins {tables}, which {query.party} has and nobody else that is there, and"
                        f" {query.party} is missing: ask when it is back, or have another party publish the same table"
                    )


def _kept(step: AnyStep, gone: frozenset[PartyId], lost: frozenset[StepId]) -> AnyStep | None:
    match step:
        case Query():
            return step
        case Threshold():
            return _threshold(step, gone)
        case MaskedSum():
            inputs, contributors = _left(step.inputs, step.contributors, gone)
            return msgspec.structs.replace(step, inputs=inputs, contributors=contributors) if inputs else None
        case Move():
            to = tuple(party for party in step.to if party not in gone)
            return msgspec.structs.replace(step, to=to) if to else None
        case Release():
            return msgspec.structs.replace(step, moves=tuple(id for id in step.moves if id not in lost))


def _threshold(step: Threshold, gone: frozenset[PartyId]) -> Threshold | None:
    inputs, contributors = _left(step.inputs, step.contributors, gone)
    if not inputs:
        return None
    helper = helper_of(step)
    helper = None if helper in gone else helper
    return msgspec.structs.replace(
        step,
        inputs=inputs,
        contributors=contributors,
        nodes=computing_nodes(contributors, step.receiver, helper),
        parties=min(step.parties, len(contributors)),
    )


def _left(
    inputs: Sequence[StepId], contributors: Sequence[PartyId], gone: frozenset[PartyId]
) -> tuple[tuple[StepId, ...], tuple[PartyId, ...]]:
    pairs = [(id, party) for id, party in zip(inputs, contributors, strict=True) if party not in gone]
    return tuple(id for id, _ in pairs), tuple(party for _, party in pairs)


def _closed(plan: Plan, steps: Sequence[AnyStep], gone: frozenset[PartyId]) -> Plan:
    """The plan of the steps that are left, as far as the answer still comes of them."""
    *before, last = steps
    if not isinstance(last, Release):
        raise InvalidInput("the plan does not end with a release")
    ids = {step.id for step in steps}
    release = msgspec.structs.replace(
        last,
        threshold=last.threshold if last.threshold in ids else None,
        sums=last.sums if last.sums in ids else None,
    )
    if release.threshold is None and release.own is None and not release.moves:
        names = " and ".join(sorted(gone & frozenset(plan.parties)))
        raise InvalidInput(f"nobody but {names} holds what the question is about: without them there is no answer")
    return pruned(msgspec.structs.replace(plan, steps=(*before, release)))
