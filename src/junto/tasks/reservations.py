# SPDX-License-Identifier: Apache-2.0
"""The words of `resources.py`: what is asked for, what comes of it, and what is taken."""

from dataclasses import dataclass, field
from typing import Literal

from junto.tasks.capacity import Amount, Capacity, Kind
from junto.types import PartyId, StepId, TaskId


@dataclass(frozen=True, slots=True)
class Request:
    """A task wants this much until it ends. `party` asked the task; it waits until `until` at most."""

    task: TaskId
    party: PartyId
    amount: Amount
    priority: int
    at: float
    until: float
    seconds: float = 0.0  # how long it is expected to compute here


@dataclass(frozen=True, slots=True)
class Held:
    """A task has what it asked for, since `since`; without a contract until `until`."""

    request: Request
    since: float
    until: float | None

    @property
    def ends(self) -> float:
        """The moment at which the task is expected to give back."""
        return self.since + self.request.seconds


@dataclass(frozen=True, slots=True)
class Fragment:
    """A step of a task that wants a slot, or has one since `at`."""

    task: TaskId
    step: StepId
    party: PartyId
    priority: int
    at: float


@dataclass(frozen=True, slots=True)
class Granted:
    """The task holds what it asked for."""

    task: TaskId


@dataclass(frozen=True, slots=True)
class Denied:
    """The task does not get it; `code` is that of an error."""

    task: TaskId
    code: str
    reason: str
    retry_after_seconds: float


@dataclass(frozen=True, slots=True)
class Lapsed:
    """No contract came: the task holds nothing any more."""

    task: TaskId


@dataclass(frozen=True, slots=True)
class Started:
    """The step has a slot."""

    task: TaskId
    step: StepId


Outcome = Granted | Denied | Lapsed | Started


@dataclass(frozen=True, slots=True)
class Lack:
    """The reason why somebody waits: a kind of which too little is left, of the node's or within the party's cap, or
    its turn, which is another task's."""

    kind: Kind | Literal["turn"]
    capped: bool = False


@dataclass(slots=True)
class Use:
    """The amounts taken, in all or by one party."""

    slots: int = 0
    memory: int = 0
    disk: int = 0
    tasks: int = 0

    def add(self, amount: Amount, times: int = 1) -> None:
        """Count a task's amount, or take it off again."""
        self.memory += times * amount.memory
        self.disk += times * amount.disk
        self.tasks += times

    def of(self, kind: Kind) -> int:
        """The amount taken of one kind."""
        match kind:
            case "slots":
                return self.slots
            case "memory":
                return self.memory
            case "disk":
                return self.disk
            case "tasks":
                return self.tasks


@dataclass(frozen=True, slots=True)
class View:
    """Everything at one moment. Those who wait are in the order in which they come next, each with what it lacks."""

    capacity: Capacity
    use: Use
    parties: dict[PartyId, Use]
    held: tuple[Held, ...]
    waiting: tuple[tuple[Request, Lack], ...]
    running: tuple[Fragment, ...]
    queued: tuple[tuple[Fragment, Lack], ...]


@dataclass(slots=True)
class Book:
    """The amounts taken, added up: in all, and by party."""

    total: Use = field(default_factory=Use)
    parties: dict[PartyId, Use] = field(default_factory=dict)

    def of(self, party: PartyId) -> Use:
        """The amounts that a party's tasks have taken."""
        return self.parties.get(party) or Use()

    def add(self, request: Request, times: int = 1) -> None:
        """Count what a task holds, or take it off again."""
        self.total.add(request.amount, times)
        self._party(request.party).add(request.amount, times)
        self._tidy(request.party)

    def slot(self, party: PartyId, times: int) -> None:
        """Count a slot, or take it off again."""
        self.total.slots += times
        self._party(party).slots += times
        self._tidy(party)

    def _party(self, party: PartyId) -> Use:
        return self.parties.setdefault(party, Use())

    def _tidy(self, party: PartyId) -> None:
        if self.parties[party] == Use():
            del self.parties[party]


def needed(amount: Amount, kind: Kind) -> int:
    """The amount of one kind that a task, or a fragment, takes."""
    match kind:
        case "memory":
            return amount.memory
        case "disk":
            return amount.disk
        case "slots" | "tasks":
            return 1


def fits(amount: Amount, kind: Kind, use: Use, limit: int | None) -> bool:
    """True if there is room for an amount beside what is taken."""
    return limit is None or use.of(kind) + needed(amount, kind) <= limit
