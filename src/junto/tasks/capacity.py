# SPDX-License-Identifier: Apache-2.0
"""A node's capacity, and the part of it that one other party may take."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from junto.types import PartyId

Kind = Literal["slots", "memory", "disk", "tasks"]


@dataclass(frozen=True, slots=True)
class Amount:
    """The bytes that a task holds from its offer to its end."""

    memory: int = 0
    disk: int = 0


@dataclass(frozen=True, slots=True)
class Cap:
    """The most that one other party's tasks may take at a time: fragments running, bytes, tasks; None is no limit."""

    slots: int | None = None
    memory: int | None = None
    disk: int | None = None
    tasks: int | None = None

    def of(self, kind: Kind) -> int | None:
        """The limit of one kind."""
        match kind:
            case "slots":
                return self.slots
            case "memory":
                return self.memory
            case "disk":
                return self.disk
            case "tasks":
                return self.tasks


NO_CAP = Cap()


@dataclass(frozen=True, slots=True)
class Capacity:
    """All that a node has. `cap` is for every other party that has none of its own in `caps`."""

    slots: int = 4
    memory: int = 4 << 30
    disk: int = 64 << 30
    cap: Cap = NO_CAP
    caps: Mapping[PartyId, Cap] = field(default_factory=dict)

    def of(self, kind: Kind) -> int | None:
        """All there is of one kind; tasks are limited by what they hold alone."""
        match kind:
            case "slots":
                return self.slots
            case "memory":
                return self.memory
            case "disk":
                return self.disk
            case "tasks":
                return None

    def cap_of(self, party: PartyId, me: PartyId) -> Cap:
        """The cap of a party; there is none on the node's own tasks."""
        return NO_CAP if party == me else self.caps.get(party, self.cap)


def in_bytes(size: float) -> str:
    """A size in words: 200 MB, 1.5 GB."""
    for step, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if size >= step:
            return f"{size / step:.3g} {unit}"
    return f"{size:.0f} B"


def in_words(kind: Kind, size: int) -> str:
    """An amount of one kind in words."""
    if kind in ("memory", "disk"):
        return f"{in_bytes(size)} of {kind}"
    name = {"slots": "slot", "tasks": "task"}[kind]
    return f"{size} {name}{'' if size == 1 else 's'}"
