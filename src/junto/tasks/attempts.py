# SPDX-License-Identifier: Apache-2.0
"""The current run of a joint step, when a crash has made the parties begin the step again.

A party that loses its side of a secure protocol cannot take it up: its random numbers are gone, and drawing others
within the same run would break the protocol. So it says, signed, that the step begins anew under the next number, and
everybody drops what they had of it and of all that rests on it. A number only grows, and whoever begins a run has its
number in the journal first: no party ever takes part twice in a run of one name, whatever crashes when.

A run's name is the numbers of all joint steps that the step rests on, itself included, in the plan's order: messages of
runs with different names are never mixed, and each name gives the protocol another context.
"""

from collections.abc import Mapping, Sequence

from junto.plan.steps import AnyStep, MaskedSum, Move, Plan, Query, Release, Threshold
from junto.types import StepId

Joint = dict[StepId, tuple[StepId, ...]]
"""The joint steps that each step rests on: see `joint_steps`."""

MOST_ATTEMPTS = 20
"""A step that was begun so often ends its task: something makes it fail each time."""


def run_of(joint: Joint, step: StepId, numbers: Mapping[StepId, int]) -> str:
    """The name of the step's present run; empty while nothing it rests on was begun anew."""
    found = [numbers.get(one, 0) for one in joint[step]]
    return ".".join(map(str, found)) if any(found) else ""


def resting_on(joint: Joint, step: StepId) -> frozenset[StepId]:
    """The step itself and every step whose output depends on its."""
    return frozenset(one for one, found in joint.items() if step in found)


def joint_steps(plan: Plan) -> Joint:
    """The joint steps that each step rests on, itself included, in the plan's order."""
    found: dict[StepId, tuple[StepId, ...]] = {}
    for step in plan.steps:
        below = {joint for needed in needs(step) for joint in found.get(needed, ())}
        if isinstance(step, Threshold | MaskedSum):
            below.add(step.id)
        found[step.id] = tuple(other.id for other in plan.steps if other.id in below)
    return found


def lost_steps(joint: Joint, mine: Sequence[StepId], kept: frozenset[StepId]) -> list[StepId]:
    """The joint steps of ours that are not kept, and rest on nothing else of ours that is lost."""
    lost = [step for step in mine if joint[step][-1:] == (step,) and step not in kept]
    return [step for step in lost if all(below in kept for below in joint[step][:-1] if below in mine)]


def needs(step: AnyStep) -> tuple[StepId, ...]:
    """The steps whose outputs a step uses."""
    match step:
        case Query():
            found = [read.step for read in step.reads]
        case Threshold():
            found = list(step.inputs)
        case MaskedSum():
            found = [step.threshold, *step.inputs]
        case Move():
            found = [step.input, step.threshold]
        case Release():
            found = [step.own, step.threshold, step.sums, *step.moves]
    return tuple(needed for needed in found if needed is not None)
