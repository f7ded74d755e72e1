# SPDX-License-Identifier: Apache-2.0
"""The words for others about a step that failed over a party's rows: always the same.

The failure of a fragment that groups private rows is made independent of the rows (`plan/total.py`). Other causes,
memory above all, may still differ with rows that no answer would show. So the failure's kind, its step and its measure
stay in this node's own log.
"""

from dataclasses import dataclass

from junto.errors import Crashed, FragmentFailed, InvalidInput, JuntoError, StorageFailed
from junto.logs import logger
from junto.plan.steps import AnyStep, MaskedSum, Move, Query, Release, Threshold
from junto.tasks.events import StepFailed
from junto.types import PartyId, StepId

_log = logger("junto.work")
_SAID = "it cannot be computed over the rows of an owner: group more coarsely, or ask for less at once"


@dataclass(frozen=True, slots=True)
class Failure:
    """The step that could not be finished, the party that caused it, and the error."""

    step: StepId
    party: PartyId
    error: JuntoError

    def event(self, at: float) -> StepFailed:
        """The event of this failure for the task."""
        return StepFailed(self.step, self.error.code, self.party, str(self.error), at)


class StepError(Exception):
    """A step of ours failed; carries the failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure.error))
        self.failure = failure


def worded(step: AnyStep, error: StepError, me: PartyId) -> StepError:
    """The failure as others may hear it, if it is ours; our own log holds it unchanged."""
    failure = error.failure
    if failure.party != me:
        return error
    _log.warning("a step failed", step=step.id, reason=str(failure.error))
    return StepError(Failure(*told(step, me, failure.error)))


def told(step: AnyStep, party: PartyId, error: JuntoError) -> tuple[StepId, PartyId, JuntoError]:
    """The step, the party and the error that all participants are told; the party is who signs that."""
    if isinstance(error, StorageFailed):
        return step.id, party, error.told_by(party)
    if not _rests_on_groups(step) or not (isinstance(error, FragmentFailed | Crashed) or type(error) is InvalidInput):
        return step.id, party, error
    return StepId(""), party, FragmentFailed(_SAID)


def _rests_on_groups(step: AnyStep) -> bool:
    """True if a step's work rests on groups that a threshold looks at."""
    match step:
        case Query():
            return step.keys is not None
        case Move() | Release():
            return step.threshold is not None
        case Threshold() | MaskedSum():
            return True
