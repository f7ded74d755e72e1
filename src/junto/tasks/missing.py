# SPDX-License-Identifier: Apache-2.0
"""The participants that a task cannot do without, and the fate of the task when somebody stays away.

A party is *spare* if the answer is the same without it: a helper that only computes a threshold for two owners. Its
absence, and whatever else keeps it from its part, never ends the question, whatever the asker wants of others that
stay away: who asked asks again without it. A helper that deviates is no absent one; the task ends, and names it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from junto.errors import DataChanged, DeadlineExceeded, Deviation, HelperAway, InvalidInput, PeerFault
from junto.plan.computing import spare
from junto.tasks.bodies import Absent, Proposal
from junto.types import PartyId

_NOT_FOR_WANT = frozenset(error.code for error in (DataChanged, DeadlineExceeded, Deviation, InvalidInput, PeerFault))
"""Ends that another helper would not mend, or that people must see."""

Parties = tuple[PartyId, ...]


@dataclass(frozen=True, slots=True)
class Missing:
    """One participant's look at who may be missing in a task."""

    proposal: Proposal
    me: PartyId
    asker: PartyId

    @property
    def _asks(self) -> bool:
        return self.me == self.asker

    @property
    def _spare(self) -> frozenset[PartyId]:
        return spare(self.proposal.plan)

    def ending(self, away: Sequence[PartyId], *, runs: bool) -> Parties:
        """The parties staying away for want of which the task ends here, the needed ones first."""
        return self._of(away, _ends_when_away(self.proposal.absent, asks=self._asks, runs=runs))

    def late(self, silent: Sequence[PartyId]) -> Parties:
        """The parties without an offer in time for want of which the task ends here, the needed ones first."""
        return self._of(silent, self.proposal.absent != "wait")

    def _of(self, gone: Sequence[PartyId], ends: bool) -> Parties:
        needed = [party for party in gone if ends and party not in self._spare]
        return (*needed, *(party for party in gone if self._asks and party in self._spare))

    def spared(self, code: str, party: PartyId) -> Parties:
        """The spare parties without which a task that ends by this code, because of this party, is asked again."""
        if not self._asks:
            return ()
        if code == HelperAway.code:
            return tuple(sorted(self._spare))
        return (party,) if party in self._spare and code not in _NOT_FOR_WANT else ()

    def left_out(self, gone: Parties) -> tuple[Parties, str]:
        """The parties without whom a task that ends for their want is asked again; if none, perhaps the reason."""
        needed = set(gone) - self._spare
        if not self._asks or self.me in gone:
            return (), ""
        if not needed:
            return gone, ""
        if self.proposal.absent != "go-on":
            return (), ""
        left, least = len({*self.proposal.participants} - self._spare - needed), self.proposal.at_least
        if left >= max(least, 1):
            return gone, ""
        return (), f"; {left} participants would be left, at least {least} are asked for"


def _ends_when_away(absent: Absent, *, asks: bool, runs: bool) -> bool:
    """True if a needed participant that stays away ends the task here: at who asked (`asks`), once it `runs`."""
    match absent:
        case "wait":
            return False
        case "fail":
            return True
        case "go-on":
            return asks
        case _:  # who asked decides: a participant cannot know whether the contract is not on its way already
            return asks and not runs
