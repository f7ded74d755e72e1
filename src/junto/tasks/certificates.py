# SPDX-License-Identifier: Apache-2.0
"""Compares what several parties say of the same step: whom a certificate names, and who differs.

Every party of `plan/certify.py` confirms its own fragment with the canonical digest of what it computed; each
confirmation is a statement it signed. A step is certified when a majority of those who compute it, its own party among
them, told the same digest, and whoever its output was moved to confirmed that this is what arrived. A party that told
another differs, and is named with it. So is one that told two.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from junto.errors import PeerFault
from junto.plan.certify import certifiers
from junto.plan.steps import Move, Plan, Query, Release
from junto.tasks.bodies import Certified, Confirm, Receipt, Signed
from junto.types import Digest, PartyId, StepId


@dataclass(frozen=True, slots=True)
class Certificate:
    """The digests told of one step: by its own party, by those that recomputed it, by those to whom it was moved."""

    step: StepId
    party: PartyId  # whose output is used
    told: tuple[tuple[PartyId, Digest], ...]  # the step's own party first, then by name
    waiting: tuple[PartyId, ...]  # who computes it and has told nothing yet
    received: tuple[tuple[PartyId, Digest], ...] = ()  # what arrived where it was moved
    coming: tuple[PartyId, ...] = ()  # where it is moved, and nothing was told yet of what arrived

    @property
    def agreed(self) -> Digest | None:
        """The digest told by more than half of all who compute the step; None until then, or if there is none."""
        counts = Counter(digest for _, digest in self.told)
        digest, times = max(counts.items(), key=lambda item: item[1], default=(None, 0))
        return digest if 2 * times > len(self.told) + len(self.waiting) else None

    @property
    def deviating(self) -> tuple[tuple[PartyId, Digest], ...]:
        """The digests that differ from the majority's, by party; all of them, if they differ without a majority."""
        if len({digest for _, digest in self.told}) <= 1:
            return ()
        return tuple((party, digest) for party, digest in self.told if digest != self.agreed)

    @property
    def arrived_otherwise(self) -> tuple[tuple[PartyId, Digest], ...]:
        """The digests of arrived outputs that differ from the digest of the step's own party, and their receivers."""
        used = dict(self.told).get(self.party)
        return tuple(one for one in self.received if used is not None and one[1] != used)

    @property
    def whole(self) -> bool:
        """True if everybody has told."""
        return not self.waiting and not self.coming

    @property
    def sound(self) -> bool:
        """True if everybody has told, and the output used is what the majority computed."""
        used = dict(self.told).get(self.party)
        return self.whole and used is not None and used == self.agreed and not self.arrived_otherwise

    @property
    def line(self) -> str:
        """The outcome of the step, in one line, with digests shortened: they are of open data."""
        signers = ", ".join(party for party, digest in self.told if digest == self.agreed)
        if not self.whole:
            return f"step {self.step} waits for the digest of {', '.join((*self.waiting, *self.coming))}"
        told = []
        if self.deviating:
            told = [f"{party} computed {digest[:15]}…" for party, digest in self.deviating]
            told = [", ".join(told), *([f"{signers} computed {self.agreed[:15]}…"] if self.agreed else ())]
        for party, digest in self.arrived_otherwise:
            told.append(f"{digest[:15]}… arrived at {party} from {self.party}, which says {self.told[0][1][:15]}…")
        if not told:
            return f"step {self.step} was computed alike by {signers}"
        return f"step {self.step} was not computed alike: {'; '.join(told)}"


@dataclass(frozen=True, slots=True)
class Deviation:
    """One party told something else of a step than what counts."""

    step: StepId
    party: PartyId
    digest: Digest
    counts: Digest | None  # None: no digest has a majority
    line: str


def certificates(plan: Plan, told: Mapping[tuple[StepId, PartyId], Digest]) -> tuple[Certificate, ...]:
    """The certificate of each certified step of a plan, in its order, from the digests that arrived so far.

    told: by the step a digest was confirmed for (a certifying one, the certified one itself, or a move of it) and the
    party that did. Other parties' digests of them do not count.
    """
    found = []
    for step, own, computing, moved in _expected(plan):
        found.append(
            Certificate(
                step,
                own,
                tuple((party, told[id, party]) for id, party in computing if (id, party) in told),
                tuple(party for id, party in computing if (id, party) not in told),
                tuple((party, told[id, party]) for id, party in moved if (id, party) in told),
                tuple(party for id, party in moved if (id, party) not in told),
            )
        )
    return tuple(found)


def certified_parts(plan: Plan) -> frozenset[tuple[StepId, PartyId]]:
    """The parts of steps that are confirmed with a canonical digest of their output."""
    return frozenset(part for _, _, computing, moved in _expected(plan) for part in (*computing, *moved))


_Part = tuple[StepId, PartyId]


def _expected(plan: Plan) -> list[tuple[StepId, PartyId, list[_Part], list[_Part]]]:
    """Each certified step: its party, those who compute it under which name, and those to whom it is moved."""
    again = certifiers(plan)
    found = []
    for step in plan.steps if again else ():
        if step.id in again and isinstance(step, Query | Release):
            own = step.party if isinstance(step, Query) else step.receiver
            computing = [(step.id, own), *sorted(((q.id, q.party) for q in again[step.id]), key=lambda pair: pair[1])]
            moves = [move for move in plan.steps if isinstance(move, Move) and move.input == step.id]
            found.append((step.id, own, computing, [(move.id, party) for move in moves for party in sorted(move.to)]))
    return found


@dataclass(slots=True)
class Signatures:
    """The signatures of one task's parties on its certified steps, as they arrived. Of each the first word counts."""

    plan: Plan
    parts: frozenset[_Part] = frozenset()
    first: dict[_Part, Signed] = field(default_factory=dict)
    later: list[Signed] = field(default_factory=list)  # what somebody told after something else

    def __post_init__(self) -> None:
        self.parts = certified_parts(self.plan)

    def hear(self, party: PartyId, confirm: Confirm, statement: str) -> None:
        """A party confirmed steps. Raises PeerFault, and takes in nothing, if one is to be certified and is not."""
        for done in confirm.steps:
            if (done.step, party) in self.parts and done.certified is None:
                raise PeerFault(f"{party} confirms step {done.step} without the digest that certifies it")
        for done in confirm.steps:
            part = (done.step, party)
            if part in self.parts and done.certified is not None:
                signed = Signed(party, done.step, done.certified, statement)
                before = self.first.setdefault(part, signed)
                if before.digest != signed.digest and signed not in self.later:
                    self.later.append(signed)

    @property
    def waiting(self) -> tuple[_Part, ...]:
        """The parts whose digests have not arrived."""
        return tuple(sorted(self.parts - self.first.keys()))

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """The certificate of each certified step."""
        if not self.parts:
            return ()
        return certificates(self.plan, {part: signed.digest for part, signed in self.first.items()})

    @property
    def unsound(self) -> Certificate | None:
        """The first that everybody told of and that does not hold, if there is one."""
        return next((found for found in self.certificates if found.whole and not found.sound), None)

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """The deviations from what counts: from the majority, once there is one or all have told; from what a party's
        own output was, where it was moved; from what the party had told before."""
        if not self.first:
            return ()
        found: list[Deviation] = []
        for one in self.certificates:
            if one.agreed is not None or not one.waiting:
                found += [_deviation(one, party, digest, one.agreed) for party, digest in one.deviating]
            used = dict(one.told).get(one.party)
            for _, digest in one.arrived_otherwise:
                found.append(_deviation(one, one.party, digest, used))
        for signed in self.later:
            said = self.first[signed.step, signed.party].digest
            line = f"{signed.party} told two digests of step {signed.step}: first {said}, which counts, then"
            found.append(Deviation(signed.step, signed.party, signed.digest, said, f"{line} {signed.digest}"))
        return tuple(dict.fromkeys(found))

    @property
    def record(self) -> tuple[Certified, ...]:
        """The record so far, as a receipt holds it: a step without a majority has an empty digest."""
        if not self.parts:
            return ()
        heard = (*self.first.values(), *self.later)
        found = []
        for (step, _, computing, moved), one in zip(_expected(self.plan), self.certificates, strict=True):
            signed = [said for part in (*computing, *moved) for said in heard if (said.step, said.party) == part]
            found.append(Certified(step, one.agreed or Digest(""), tuple(signed)))
        return tuple(found)

    def check_receipt(self, me: PartyId, receipt: Receipt) -> None:
        """Raises PeerFault unless a receipt's certificates hold together, and say of us what we told."""
        first: dict[_Part, Digest] = {}
        for certified in receipt.certificates:
            for said in certified.signed:
                first.setdefault((said.step, said.party), said.digest)
        found = certificates(self.plan, first)
        claimed = [(certified.step, certified.digest) for certified in receipt.certificates]
        if first.keys() != self.parts or claimed != [(one.step, one.agreed) for one in found]:
            raise PeerFault("a receipt certifies other steps than the plan, or leaves out who computed them")
        if not all(one.sound for one in found):
            raise PeerFault("a receipt certifies what was not computed alike")
        ours = {(said.step, said.digest) for said in (*self.first.values(), *self.later) if said.party == me}
        for (step, party), digest in first.items():
            if party == me and (step, digest) not in ours:
                raise PeerFault(f"a receipt says that {me} told a digest of step {step} that it did not tell")


def _deviation(one: Certificate, party: PartyId, digest: Digest, counts: Digest | None) -> Deviation:
    if (party, digest) in one.deviating:
        alike = ", ".join(p for p, d in one.told if d == counts) if counts is not None else ""
        others = [f"{p} computed {d}" for p, d in one.told if p != party]
        than = f"{alike} computed {counts}" if alike else "; ".join(others)
        return Deviation(one.step, party, digest, counts, f"{party} computed {digest} as step {one.step}; {than}")
    where = ", ".join(p for p, d in one.arrived_otherwise if d == digest)
    line = f"{party} says that it computed {counts} as step {one.step}; {digest} arrived at {where}"
    return Deviation(one.step, party, digest, counts, line)
