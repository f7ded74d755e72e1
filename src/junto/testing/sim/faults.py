# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in a run: a list drawn from a seed, each at its moment; all is mended before the run ends."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from junto.types import PartyId

Kind = Literal[
    "crash",
    "crash-at-message",
    "crash-in-commit",
    "crash-all",
    "stop",
    "pause",
    "cut",
    "partition",
    "one-way",
    "isolate",
    "loss",
    "twice",
    "late",
    "disk-full",
    "sync-fails",
    "skew",
    "jump",
]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when, what, to whom, for how long, how strong."""

    at: float
    kind: Kind
    party: PartyId
    other: PartyId
    seconds: float
    size: float

    def line(self) -> str:
        """As the story tells it."""
        match self.kind:
            case "crash-all":
                return f"every node is killed, back after {self.seconds:.2f} s"
            case "cut" | "partition" | "one-way":
                return f"{self.kind} between {self.party} and {self.other} for {self.seconds:.2f} s"
            case "loss" | "twice" | "late":
                return f"messages: {self.kind} {self.size:.0%} for {self.seconds:.2f} s"
            case "skew" | "jump":
                return f"the clock of {self.party}: {self.kind} {self.size * 3600:+.1f} s"
            case _:
                return f"{self.party}: {self.kind} for {self.seconds:.2f} s"


def faults(
    source: random.Random, parties: Sequence[PartyId], count: int, span: float, kinds: Sequence[Kind]
) -> list[Fault]:
    """So many faults over `span` seconds; the first few are of different kinds."""
    found: list[Fault] = []
    if source.random() < 0.5:  # where clocks agree, more can be asked of the end
        kinds = [kind for kind in kinds if kind not in ("skew", "jump")] or kinds
    order = list(kinds)
    source.shuffle(order)
    for number in range(count):
        kind = order[number] if number < len(order) else source.choice(list(kinds))
        party = source.choice(list(parties))
        other = source.choice([one for one in parties if one != party])
        seconds = source.choice((0.05, 0.5, 2.0, 8.0)) * (0.5 + source.random())
        size = source.uniform(-1.0, 1.0) if kind in ("skew", "jump") else source.choice((0.02, 0.1, 0.3))
        found.append(Fault(source.random() * span, kind, party, other, seconds, size))
    return sorted(found, key=lambda fault: (fault.at, fault.kind, fault.party))
