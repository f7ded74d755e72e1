# SPDX-License-Identifier: Apache-2.0
"""The references between a plan's steps: the earlier steps that each refers to, and those behind its answer."""

from collections.abc import Iterable
from typing import assert_never

import msgspec

from junto.plan.steps import AnyStep, MaskedSum, Move, Plan, Query, Release, Threshold
from junto.types import StepId


def references(step: AnyStep) -> list[StepId]:
    """The steps that a step refers to, all of them earlier ones."""
    match step:
        case Query():
            return [read.step for read in step.reads if read.step is not None]
        case Threshold():
            return list(step.inputs)
        case MaskedSum():
            return [step.threshold, *step.inputs]
        case Move():
            return [step.input, *([step.threshold] if step.threshold is not None else [])]
        case Release():
            return [id for id in (step.own, step.threshold, step.sums, *step.moves) if id is not None]
        case _:
            assert_never(step)


def reached(plan: Plan, roots: Iterable[StepId] | None = None) -> frozenset[StepId]:
    """The steps that some come of, themselves included; without `roots`, those that the answer comes of."""
    by_id = {step.id: step for step in plan.steps}
    frontier = list(roots) if roots is not None else [plan.steps[-1].id]
    found: set[StepId] = set()
    while frontier:
        step = by_id[frontier.pop()]
        if step.id not in found:
            found.add(step.id)
            frontier += references(step)
    return frozenset(found)


def certifying(plan: Plan) -> tuple[Query, ...]:
    """The fragments that only compute again what another step gives."""
    return tuple(step for step in plan.steps if isinstance(step, Query) and step.certifies)


def pruned(plan: Plan) -> Plan:
    """The plan without what serves neither its answer nor a certificate, each output sent only to those who use it."""
    served = reached(plan, [plan.steps[-1].id, *(query.id for query in certifying(plan))])
    release = plan.steps[-1]
    used = {(r.step, s.party) for s in plan.steps if isinstance(s, Query) and s.id in served for r in s.reads}
    if isinstance(release, Release):
        used.update((id, release.receiver) for id in release.moves)
    kept: list[AnyStep] = []
    for step in plan.steps:
        if step.id not in served:
            continue
        if isinstance(step, Move) and step.threshold is None:
            to = tuple(party for party in step.to if (step.id, party) in used)
            kept.append(msgspec.structs.replace(step, to=to))
        else:
            kept.append(step)
    return msgspec.structs.replace(plan, steps=tuple(kept))
