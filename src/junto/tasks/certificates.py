# SPDX-License-Identifier: Apache-2.0
"""Compares what several parties say of the same step: whom a certificate names, and who differs.

Every party of `plan/certify.py` confirms its own fragment with the canonical digest of what it computed; each
confirmation is a statement it signed. A step is certified when a majority of those who compute it, its own party among
them, told the same digest. A party that told another differs, and is named with it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from junto.plan.certify import certifiers
from junto.plan.steps import Plan, Query, Release
from junto.types import Digest, PartyId, StepId


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was told of one step: by its own party, and by those that computed it again."""

    step: StepId
    party: PartyId  # whose output is used
    told: tuple[tuple[PartyId, Digest], ...]  # the step's own party first, then by name
    waiting: tuple[PartyId, ...]  # who has told nothing yet

    @property
    def agreed(self) -> Digest | None:
        """What more than half of all who compute the step told, once they have; None until then, or if none is."""
        counts = Counter(digest for _, digest in self.told)
        digest, times = max(counts.items(), key=lambda item: item[1], default=(None, 0))
        return digest if 2 * times > len(self.told) + len(self.waiting) else None

    @property
    def deviating(self) -> tuple[tuple[PartyId, Digest], ...]:
        """Who told something else than the majority, and what; all who told, if they differ and there is none."""
        if len({digest for _, digest in self.told}) <= 1:
            return ()
        return tuple((party, digest) for party, digest in self.told if digest != self.agreed)

    @property
    def sound(self) -> bool:
        """Whether everybody has told, and what is used is what the majority computed."""
        used = dict(self.told).get(self.party)
        return not self.waiting and used is not None and used == self.agreed

    @property
    def line(self) -> str:
        """What became of it, in one line, with digests shortened: they are of open data."""
        signers = ", ".join(party for party, digest in self.told if digest == self.agreed)
        if self.waiting:
            return f"step {self.step} waits for the digest of {', '.join(self.waiting)}"
        if not self.deviating:
            return f"step {self.step} was computed alike by {signers}"
        told = ", ".join(f"{party} computed {digest[:15]}…" for party, digest in self.deviating)
        return f"step {self.step} was not computed alike: {told}" + (
            f"; {signers} computed {self.agreed[:15]}…" if self.agreed else ""
        )


def certificates(plan: Plan, told: Mapping[tuple[StepId, PartyId], Digest]) -> tuple[Certificate, ...]:
    """One for each certified step of a plan, in its order, from the digests that arrived so far.

    told: by the step a digest was confirmed for (a certifying one, or the certified one itself) and the party that did.
    What others than the step's party told of it does not count.
    """
    found = []
    again = certifiers(plan)
    for step in plan.steps:
        if step.id in again and isinstance(step, Query | Release):
            own = step.party if isinstance(step, Query) else step.receiver
            expected = [(step.id, own), *sorted(((q.id, q.party) for q in again[step.id]), key=lambda pair: pair[1])]
            found.append(
                Certificate(
                    step.id,
                    own,
                    tuple((party, told[id, party]) for id, party in expected if (id, party) in told),
                    tuple(party for id, party in expected if (id, party) not in told),
                )
            )
    return tuple(found)
