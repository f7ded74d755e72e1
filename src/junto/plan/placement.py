# SPDX-License-Identifier: Apache-2.0
"""The choice of the holder that serves an open table, where several parties hold the same table.

Two open datasets are the same table if name, columns and content digest agree. (A version will not do to compare them:
it covers the owner's rules too.) Everybody may see them, so reading one rather than another tells nobody anything new.

A frontend compiles for one holder: the asker, if it is one, or else the first by name. The asker's node, which knows
its links and what offers said of load, places anew before it proposes; what it proposes is judged like any other plan.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from junto.catalog.dataset import Dataset
from junto.errors import InvalidInput
from junto.plan.fragment import is_open
from junto.plan.graph import certifying
from junto.plan.steps import AnyStep, Move, Plan, Query, Read, Release, parties_of
from junto.types import DatasetName, Digest, PartyId, StepId


@dataclass(frozen=True, slots=True)
class Holder:
    """A party that can perform a fragment over open tables: what the fragment reads there, name by name."""

    party: PartyId
    reads: tuple[Read, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """A party's standing at the asker's node: its link's round trip, and the time that work there waits to begin."""

    round_trip_seconds: float
    wait_seconds: float = 0.0


def same_table(one: Dataset, other: Dataset) -> bool:
    """True if two datasets are one open table, held twice."""
    alike = (one.name, one.columns, one.content) == (other.name, other.columns, other.content)
    return alike and is_open(one) and is_open(other)


def alternatives(plan: Plan, datasets: Iterable[Dataset]) -> dict[StepId, tuple[Holder, ...]]:
    """The fragments that another party could perform as well, each with those parties, by name.

    Such a fragment gives rows, and reads datasets only, all of them open. The receiver's own tables stay with it.
    """
    published = tuple(datasets)
    found: dict[StepId, tuple[Holder, ...]] = {}
    for step in plan.steps:
        if isinstance(step, Query) and _movable(plan, step):
            others = tuple(h for h in holders(step, published) if h.party != step.party and _room(plan, step, h.party))
            if others:
                found[step.id] = others
    return found


def holders(query: Query, datasets: Sequence[Dataset]) -> tuple[Holder, ...]:
    """The parties that hold every dataset a fragment reads, its own included, by name; none unless all are open."""
    reads = [read for read in query.reads if read.dataset is not None]
    known = {(d.party, d.name, d.version): d for d in datasets}
    wanted = [known.get((query.party, r.dataset or DatasetName(""), r.version or Digest(""))) for r in reads]
    if not reads or len(reads) != len(query.reads):
        return ()
    found: list[Holder] = []
    for party in sorted({d.party for d in datasets}):
        own = {d.name: d for d in datasets if d.party == party}
        there = [own.get(d.name) if d is not None else None for d in wanted]
        pairs = [(a, b) for a, b in zip(wanted, there, strict=True) if a is not None and b is not None]
        if len(pairs) == len(reads) and all(same_table(a, b) for a, b in pairs):
            versions = tuple(
                msgspec.structs.replace(read, version=b.version) for read, (_, b) in zip(reads, pairs, strict=True)
            )
            found.append(Holder(party, versions))
    return tuple(found)


def place(plan: Plan, others: Mapping[StepId, Sequence[Holder]], standings: Mapping[PartyId, Standing]) -> Plan:
    """The plan with each fragment of `others` at the holder that costs least, as `cost` says.

    others: of `alternatives`, for this plan. One fragment is placed after the other, in the plan's order, each as the
    plan stands by then; the same arguments give the same plan.
    """
    for step in plan.steps:
        if step.id in others:
            current = plan.step(step.id)
            if isinstance(current, Query):
                here = Holder(current.party, current.reads)
                best = min((here, *others[step.id]), key=lambda h: cost(plan, current, h.party, standings))
                if best.party != current.party and _room(plan, current, best.party):
                    plan = moved(plan, step.id, best)
    return plan


def cost(
    plan: Plan, query: Query, party: PartyId, standings: Mapping[PartyId, Standing]
) -> tuple[bool, bool, int, int, str]:
    """The cost of letting a party perform a fragment; the least is best, compared from left to right.

    - whether the party cannot be reached: the asker itself always can, others if they have a standing;
    - whether the party would take part for this fragment alone: it too must then offer, and may fail;
    - the number of copies of the output that cross between parties: none to a party that uses it at home;
    - seconds until an answer could begin: the party's round trip and the wait before its work begins. Times under a
      millisecond are alike, and so are those between two powers of two: a holder is not left, with the copies that
      others keep of its output, for a difference that is gone at the next question;
    - the party's name.
    """
    standing = Standing(0.0) if party == plan.asker and party not in standings else standings.get(party)
    users = _users(plan, query.id)
    seconds = standing.round_trip_seconds + standing.wait_seconds if standing is not None else 0.0
    length = max(math.frexp(seconds * 1000)[1], 0)  # 0 below a millisecond, and one more for each doubling
    return standing is None, party not in _needed(plan, query.id), len(users - {party}), length, party


def moved(plan: Plan, id: StepId, holder: Holder) -> Plan:
    """The plan with one fragment of `alternatives` at another holder: those who use its output get it from there."""
    query = plan.step(id)
    if not isinstance(query, Query):
        raise InvalidInput(f"step {id} is no fragment: only fragments are placed")
    move = next((s for s in plan.steps if isinstance(s, Move) and s.input == id), None)
    to = tuple(sorted(_users(plan, id) - {holder.party}))
    again = Move(move.id if move is not None else _fresh(plan, id), id, holder.party, to, query.columns)
    steps: list[AnyStep] = []
    for step in plan.steps:
        match step:
            case Query() if step.id == id:
                steps.append(msgspec.structs.replace(step, party=holder.party, reads=holder.reads))
                steps += [again] if to else []
            case Query():
                source = id if step.party == holder.party else again.id
                reads = tuple(
                    msgspec.structs.replace(r, step=source) if r.step is not None and r.step in (id, again.id) else r
                    for r in step.reads
                )
                steps.append(msgspec.structs.replace(step, reads=reads))
            case Move() if step.id == again.id:
                pass
            case Release() if again.id in step.moves and holder.party == step.receiver:
                moves = tuple(m for m in step.moves if m != again.id)
                steps.append(msgspec.structs.replace(step, own=id, moves=moves))
            case _:
                steps.append(step)
    return msgspec.structs.replace(plan, steps=tuple(steps))


def _movable(plan: Plan, query: Query) -> bool:
    """True if a fragment's output is rows that others use; the receiver's fragment at home can move nowhere nearer.

    A certified fragment was placed before: its certifiers were chosen for where it is.
    """
    release = plan.steps[-1]
    fixed = bool(query.certifies) or any(again.certifies == query.id for again in certifying(plan))
    return query.keys is None and not fixed and not (isinstance(release, Release) and release.own == query.id)


def _room(plan: Plan, query: Query, party: PartyId) -> bool:
    """True if a party can perform a fragment of the release: the receiver releases at most one fragment of its own."""
    release = plan.steps[-1]
    if not isinstance(release, Release) or party != release.receiver or release.own is None:
        return True
    moves = {s.id for s in plan.steps if isinstance(s, Move) and s.input == query.id}
    return not moves & set(release.moves)


def _users(plan: Plan, id: StepId) -> frozenset[PartyId]:
    """The parties that use a fragment's rows, at home or sent."""
    sent = [s for s in plan.steps if isinstance(s, Move) and s.input == id]
    readers = {s.party for s in plan.steps if isinstance(s, Query) for r in s.reads if r.step == id}
    return frozenset(readers.union(*(move.to for move in sent)))


def _needed(plan: Plan, id: StepId) -> frozenset[PartyId]:
    """The parties that take part whoever performs a fragment."""
    rest = [s for s in plan.steps if s.id != id and not (isinstance(s, Move) and s.input == id)]
    return frozenset((plan.asker, *_users(plan, id), *(p for s in rest for p in parties_of(s))))


def _fresh(plan: Plan, id: StepId) -> StepId:
    """A name for the copies of a fragment that had none so far."""
    taken = {step.id for step in plan.steps}
    name = f"copy-{id}"
    while name in taken:
        name += "-again"
    return StepId(name)
