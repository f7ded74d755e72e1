# SPDX-License-Identifier: Apache-2.0
"""A party's signed statements about questions that ask themselves again: the trigger, its changes, and each firing.

A `trigger` says what is asked, when, and what becomes of the times that were missed. A `firing` is written before its
task is asked, and names the task: whoever reads the journal again asks the same task, so each occasion runs once. A
`misfire` says why a firing came to no task.
"""

import hashlib
from typing import Literal

import msgspec

from junto.plan.repin import Basis
from junto.plan.steps import Plan
from junto.tasks.bodies import Absent, Body
from junto.types import DatasetName, PartyId, TaskId, spelled_id

Missed = Literal["catch-up", "skip"]
Ends = Literal["done", "any"]
Standing = Literal["active", "paused", "removed"]


class Condition(msgspec.Struct, frozen=True, tag_field="when", forbid_unknown_fields=True):
    """The condition on which a trigger fires; a new kind of occasion is a new member of `When`."""


class Cron(Condition, frozen=True, tag="cron"):
    """The times of a cron expression of five fields, on the clocks of a time zone."""

    expression: str
    zone: str = "UTC"


class NewVersion(Condition, frozen=True, tag="version"):
    """A party publishes another version of a dataset; without a party, any party does."""

    dataset: DatasetName
    party: PartyId | None = None


class TaskEnd(Condition, frozen=True, tag="task"):
    """A task ends."""

    task: TaskId
    ends: Ends = "any"


class TriggerEnd(Condition, frozen=True, tag="trigger"):
    """A task of another trigger ends."""

    trigger: str
    ends: Ends = "any"


When = Cron | NewVersion | TaskEnd | TriggerEnd


class Trigger(Body, frozen=True):
    """A user's: ask this plan whenever the condition holds. `basis` is what its datasets were when it was compiled."""

    name: str
    user: str
    plan: Plan
    basis: tuple[Basis, ...]
    when: When
    missed: Missed
    seconds: float  # each task's, from its opening to its deadline
    purpose: str = ""
    priority: int = 0
    absent: Absent = ""  # each task's
    at_least: int = 0
    double: bool = False


class TriggerState(Body, frozen=True):
    """A user's: from now on the trigger is this."""

    trigger: str  # its statement's id
    state: Standing
    user: str


class Firing(Body, frozen=True):
    """One occasion of a trigger, about to be asked as this task. `user` fired it by hand; empty for its condition."""

    id: str
    trigger: str
    occasion: str
    due: float  # unix seconds
    task: TaskId
    user: str = ""


class Misfire(Body, frozen=True):
    """A firing that came to no task, and why."""

    firing: str
    trigger: str
    code: str
    reason: str


BODIES: dict[str, type[Body]] = {
    "trigger": Trigger,
    "trigger-state": TriggerState,
    "firing": Firing,
    "misfire": Misfire,
}
"""Statement kind → the shape of its body. These stay in the journal of the party that wrote them."""


def firing_of(trigger: str, occasion: str, due: float, at: float) -> Firing:
    """The firing of one occasion, decided at `at`: the same id, and the same task for the same `at`."""
    said = hashlib.sha256(f"{trigger} {occasion}".encode())
    return Firing(said.hexdigest()[:32], trigger, occasion, due, TaskId(spelled_id(at, said.digest())))


def firing_by_hand(trigger: str, task: TaskId, user: str, at: float) -> Firing:
    """A user's own firing, as the task whose id the user chose: asked again with the same id, it is the same."""
    said = hashlib.sha256(f"{trigger} {by_hand(task)}".encode())
    return Firing(said.hexdigest()[:32], trigger, by_hand(task), at, task, user)


def by_hand(task: TaskId) -> str:
    """The occasion that a user made."""
    return f"by hand {task}"


def spoken(when: When) -> str:
    """The condition in words."""
    match when:
        case Cron():
            return f"at {when.expression} ({when.zone})"
        case NewVersion(party=None):
            return f"a new version of {when.dataset} at any party"
        case NewVersion():
            return f"a new version of {when.dataset} at {when.party}"
        case TaskEnd():
            return f"the end of task {when.task}{_ends(when.ends)}"
        case TriggerEnd():
            return f"the end of each task of trigger {when.trigger}{_ends(when.ends)}"


def _ends(ends: Ends) -> str:
    return " with an answer" if ends == "done" else ""
