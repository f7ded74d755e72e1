# SPDX-License-Identifier: Apache-2.0
"""A task's rule `double`: two nodes of a party compute the same fragment, and the party reports how it went.

The first output that a party's node confirms counts. Of the second the party tells everyone whether it was alike: two
digests of the rows, salted with the same secret, so that they are equal exactly when the rows are, and nobody can test
guesses of rows against them. Where there was no second, the party says why. Nothing here changes what counts.

The receiver waits for this word `SECOND_SECONDS` after it has the answer, and then goes without, saying of whom it has
heard nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from junto.errors import PeerFault
from junto.plan.steps import Query
from junto.tasks.bodies import Confirm, Doubled, Proposal, Receipt, Second
from junto.tasks.certificates import Deviation
from junto.tasks.nodes import can_be_placed
from junto.types import Digest, PartyId, StepId

SECOND_SECONDS = 5.0
"""The time that a receiver that has the answer waits for the second results."""

Part = tuple[StepId, PartyId]


def doubled_parts(proposal: Proposal) -> frozenset[Part]:
    """The fragments that two nodes of their party compute: those that read nothing but its datasets."""
    if not proposal.double:
        return frozenset()
    found = [step for step in proposal.plan.steps if isinstance(step, Query) and can_be_placed(step)]
    return frozenset((step.id, step.party) for step in found)


def second_until(at: float, deadline: float) -> float:
    """The end of the wait of a receiver with the answer since `at`: never so long that the task expires over it."""
    return at + min(SECOND_SECONDS, max(deadline - at, 0.0) / 2)


@dataclass(slots=True)
class Doubles:
    """The reports of one task's parties on their second results. Of each fragment the first word counts."""

    proposal: Proposal
    parts: frozenset[Part] = frozenset()
    heard: dict[Part, Doubled] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.parts = doubled_parts(self.proposal)

    def check(self, party: PartyId, confirm: Confirm) -> None:
        """Raises PeerFault if a party tells of a fragment that it was not to compute twice."""
        for second in confirm.seconds:
            if (second.step, party) not in self.parts:
                raise PeerFault(f"{party} tells of a second result of step {second.step}, which it has not to double")

    def hear(self, party: PartyId, confirm: Confirm, statement: str) -> None:
        """Take in what a party confirmed."""
        for second in confirm.seconds:
            self.heard.setdefault((second.step, party), Doubled(party, second, statement))

    @property
    def waiting(self) -> tuple[Part, ...]:
        """The fragments of which nothing was heard yet, each with its party."""
        return tuple(sorted(self.parts - self.heard.keys()))

    @property
    def record(self) -> tuple[Doubled, ...]:
        """The report on each fragment, as a receipt holds it."""
        if not self.parts:
            return ()
        return tuple(self.heard.get(part) or _unheard(*part) for part in sorted(self.parts))

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """Second results that differ from the one that counts."""
        return tuple(_deviations(self.heard[part] for part in sorted(self.heard)))

    def check_receipt(self, me: PartyId, receipt: Receipt) -> None:
        """Raises PeerFault unless a receipt tells of the fragments to be doubled alone, and of us what we said."""
        told = {(one.second.step, one.party): one for one in receipt.doubled}
        if told.keys() != self.parts or len(told) != len(receipt.doubled):
            raise PeerFault("a receipt tells of other second results than were asked for")
        for part, one in told.items():
            ours = self.heard.get(part)
            if part[1] == me and one.statement and (ours is None or one.second != ours.second):
                raise PeerFault(f"a receipt says of {me}'s second result of step {part[0]} what {me} did not")


def line(told: Doubled) -> str:
    """The outcome for one fragment, in words."""
    second = told.second
    if second.why:
        return f"{second.why}; step {second.step} was computed once"
    first, other = (f"{told.party}/{node}" for node in second.nodes)
    if second.first == second.second:
        return f"step {second.step} was computed alike by {first} and {other}"
    return (
        f"{other} computed {second.second} as step {second.step}; {first}, whose rows count, computed {second.first}"
        f" (both salted)"
    )


def differs(second: Second) -> bool:
    """True if two nodes gave different rows."""
    return not second.why and second.first != second.second


def _deviations(heard: Iterator[Doubled]) -> Iterator[Deviation]:
    for told in heard:
        second = told.second
        if differs(second):
            yield Deviation(second.step, told.party, second.second, second.first, line(told))


def _unheard(step: StepId, party: PartyId) -> Doubled:
    why = f"{party} had told nothing of a second result {SECOND_SECONDS:g} s after the answer was there"
    return Doubled(party, Second(step, Digest(""), Digest(""), (), why), "")
