# SPDX-License-Identifier: Apache-2.0
"""The terms of a threshold: its limits for each group, and the parties that take part."""

from dataclasses import dataclass

from junto.errors import InvalidInput
from junto.secure import dominance
from junto.secure.shamir import P
from junto.types import PartyId, Tokens


@dataclass(frozen=True, slots=True)
class Terms:
    """The parties that take part in a threshold, and its limits. Raises InvalidInput where the terms do not fit.

    guards: the number of counts of each group: the first is its own units, each further one those behind some
    measure. sums: for each sum whose dominance is tested, the index of the count that guards it. dominance: the most,
    per cent, that one unit may carry of such a sum. tokens: how groups are lined up, see `alignment.py`.
    """

    contributors: tuple[PartyId, ...]
    receiver: PartyId
    nodes: tuple[PartyId, ...]
    units: int
    parties: int = 1
    guards: int = 1
    sums: tuple[int, ...] = ()
    dominance: int = 80
    tokens: Tokens = "hmac"

    def __post_init__(self) -> None:
        everyone = {*self.contributors, self.receiver}
        if not self.contributors or len(everyone) != len(self.contributors) + 1:
            raise InvalidInput("a threshold takes distinct contributors, at least one, and a receiver that is not one")
        if self.units < 0 or self.parties < 0 or len(self.contributors) * max(self.units, self.parties, 1) >= P:
            raise InvalidInput(f"a threshold of {self.units} units and {self.parties} parties cannot be computed")
        if self.guards < 1 or not all(0 <= guard < self.guards for guard in self.sums):
            raise InvalidInput(f"sums guarded by counts {self.sums} do not fit {self.guards} counts")
        if not 1 <= self.dominance <= 100:
            raise InvalidInput(f"one unit may carry from 1 to 100 per cent of a sum, not {self.dominance}")
        if len(set(self.nodes)) != len(self.nodes):
            raise InvalidInput("the nodes of a threshold are distinct")
        if len(self.contributors) > 1 and self.rows and len(self.nodes) < 3:
            raise InvalidInput(f"{len(self.nodes)} nodes cannot compute a threshold; it takes three")

    @property
    def limits(self) -> tuple[int, ...]:
        """The limit of each condition: units, then contributors. Conditions that always hold are left out."""
        return tuple(limit for limit, least in ((self.units, 1), (self.parties, 2)) if limit >= least)

    @property
    def guarded(self) -> int:
        """The number of counts compared: all, or none if every count passes."""
        return self.guards if self.limits else 0

    @property
    def rows(self) -> int:
        """The number of numbers that a contributor shares of each group."""
        return self.guarded * len(self.limits) + 2 * self.width * len(self.sums)

    @property
    def width(self) -> int:
        """The number of numbers that carry the demand of one sum, and as many what its total reaches."""
        return dominance.width(len(self.contributors), self.dominance)

    @property
    def cells(self) -> int:
        """The number of numbers opened of each group: one for each count compared, then one for each sum tested."""
        return self.guarded + len(self.sums)

    @property
    def computing(self) -> tuple[PartyId, ...]:
        """The nodes that compute: an odd number; none if nothing is asked or one contributor decides alone."""
        if len(self.contributors) == 1 or not self.rows:
            return ()
        return self.nodes[: (len(self.nodes) - 1) // 2 * 2 + 1]

    @property
    def readers(self) -> tuple[PartyId, ...]:
        """Whoever is told what is opened: contributors, and the receiver if it computes."""
        return (*self.contributors, *((self.receiver,) if self.receiver in self.computing else ()))
