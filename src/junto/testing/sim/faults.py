# SPDX-License-Identifier: Apache-2.0
"""The faults in a run: a list drawn from a seed, each at its moment; all is mended before the run ends."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from junto.types import PartyId

Kind = Literal[
    "crash",
    "crash-at-message",
    "crash-in-commit",
    "crash-at-record",
    "crash-all",
    "stop",
    "pause",
    "slow",
    "cut",
    "partition",
    "one-way",
    "isolate",
    "loss",
    "twice",
    "late",
    "garble",
    "disk-full",
    "sync-fails",
    "skew",
    "jump",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

_LOOK_SECONDS = 0.05
"""The most time that passes before a slow node looks at a clock; times the size of the fault."""
_TIMES_SLOW = 4
"""A node is slow so much longer than others are away: what falls between two looks is seldom."""

RECORDS = (
    *("proposal", "offer", "refusal", "contract", "confirm", "attempt", "receipt", "stop", "stop"),
    *("keep", "answer", "forget"),
)
"""The records at whose writing a node may die: a statement of a kind, an output, the answer, or that outputs may go."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when, what, to whom, for how long, how strong; what the party is writing when it dies."""

    at: float
    kind: Kind
    party: PartyId
    other: PartyId
    seconds: float
    size: float
    record: str = ""

    @property
    def look_seconds(self) -> float:
        """The most time that passes before each look of a slow node at a clock."""
        return self.size * _LOOK_SECONDS

    def line(self) -> str:
        """The fault in the words of the story."""
        match self.kind:
            case "crash-all":
                return f"every node is killed, back after {self.seconds:.2f} s"
            case "cut" | "partition" | "one-way":
                return f"{self.kind} between {self.party} and {self.other} for {self.seconds:.2f} s"
            case "crash-at-record":
                return f"each node dies when it next writes {self.record!r}"
            case "loss" | "twice" | "late" | "garble":
                return f"messages: {self.kind} {self.size:.0%} for {self.seconds:.2f} s"
            case "skew" | "jump":
                return f"the clock of {self.party}: {self.kind} {self.size * 3600:+.1f} s"
            case "slow":
                return f"{self.party}: up to {self.look_seconds * 1000:.0f} ms between looks for {self.seconds:.2f} s"
            case _:
                return f"{self.party}: {self.kind} for {self.seconds:.2f} s"


def faults(
    source: random.Random, parties: Sequence[PartyId], count: int, span: float, kinds: Sequence[Kind]
) -> list[Fault]:
    """A list of `count` faults over `span` seconds; the first few are of different kinds."""
    found: list[Fault] = []
    if source.random() < 0.5:  # where clocks agree, more can be asked of the end
        kinds = [kind for kind in kinds if kind not in ("skew", "jump")] or kinds
    order = [*kinds, *(kind for kind in kinds if kind == "crash-at-record")]  # it has many moments to try
    source.shuffle(order)
    for number in range(count):
        kind = order[number] if number < len(order) else source.choice(list(kinds))
        party = source.choice(list(parties))
        other = source.choice([one for one in parties if one != party])
        seconds = source.choice((0.05, 0.5, 2.0, 8.0)) * (0.5 + source.random())
        seconds *= _TIMES_SLOW if kind == "slow" else 1
        size = source.uniform(-1.0, 1.0) if kind in ("skew", "jump") else source.choice((0.02, 0.1, 0.3))
        record = source.choice(RECORDS) if kind == "crash-at-record" else ""
        found.append(Fault(source.random() * span, kind, party, other, seconds, size, record))
    return sorted(found, key=lambda fault: (fault.at, fault.kind, fault.party))
