# SPDX-License-Identifier: Apache-2.0
"""The computing nodes' part of a threshold: add what contributors shared, test it, prove the test, open its results.

Each contributor sends each node a message "share": its share of a row of numbers for each group (its clipped units
and a bit "holds a unit" for each count; for each sum the vectors of its demand and of its total), of CHECKS random
numbers that hide it when its shares are looked at, and a keyed digest of the union of groups. Nodes compare the
digests: contributors that were told different unions would add up different groups. For what follows see `verified.py`.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from junto.errors import InvalidInput, PeerFault
from junto.secure import dominance
from junto.secure.codec import pack
from junto.secure.machine import Script, Send, receive
from junto.secure.product import factors_of, shape_of, sums, tree, tree_rounds
from junto.secure.shamir import Field, Shares, split, uniform
from junto.secure.terms import Terms
from junto.secure.verified import (
    CHECKS,
    DIGEST_WORDS,
    Arithmetic,
    Job,
    Pair,
    Wire,
    messages,
    read_elements,
    together,
    words_of,
)
from junto.types import PartyId, RandomBytes

ELEMENTS_MAX = 1 << 27
"""The most shares that a node keeps at a time: 512 MiB of them."""


@dataclass(frozen=True, slots=True)
class Given:
    """One contributor's shares at a node: digest of the union, numbers (rows, size), masks (CHECKS,)."""

    digest: Shares
    numbers: Shares
    masks: Shares


def inbox(party: PartyId, terms: Terms) -> list[tuple[PartyId, str]]:
    """The messages that a computing node reads, but for the openings."""
    others = [node for node in terms.computing if node != party]
    return [
        *((other, "share") for other in terms.contributors if other != party),
        *((other, name) for name in messages(_rounds(terms)) for other in others),
    ]


def shared(terms: Terms, numbers: Field, digest: bytes, random_bytes: RandomBytes) -> list[Shares]:
    """A contributor's shares for each node in turn: its numbers, of shape (rows, size), the masks, the digest."""
    secret = np.concatenate((numbers.reshape(-1), uniform((CHECKS,), random_bytes)))
    shares = split(secret, len(terms.computing), _degree(terms), random_bytes)
    return [np.concatenate((words_of(digest), row)) for row in shares]


def compute(
    party: PartyId, terms: Terms, context: bytes, own: Shares | None, random_bytes: RandomBytes
) -> Script[Shares]:
    """This node's shares of what may be opened, one row for each cell, (cells, size) flat, once all is proved.

    own: its own "share", if it contributes. Raises PeerFault, and then opens nothing.
    """
    read = partial(_read_share, terms)
    given = yield from receive("share", [other for other in terms.contributors if other != party], read)
    if own is not None:
        given[party] = _given(terms, own)
    size = _size_of(party, given)
    check_size(terms, size)

    arithmetic = Arithmetic(party, terms.computing, context, random_bytes)
    guarded, tested = terms.guarded * size, len(terms.sums) * size
    rho, sigma = np.split((yield from arithmetic.deal(guarded + tested)), [guarded])
    wires = yield from arithmetic.authenticate([x.reshape(-1) for x in _inputs(terms, given)])
    reaches = [_vectors(terms, given[contributor])[1] for contributor in terms.contributors]
    result = yield from arithmetic.computed(_cells(arithmetic, terms, size, wires, reaches, rho, sigma), _rounds(terms))
    yield from arithmetic.prove({c: (g.numbers.reshape(-1), g.masks) for c, g in given.items()})
    opening: Shares = result[0]
    for reader in terms.readers:
        if reader != party:
            yield Send(reader, "open", pack(opening))
    return opening


def check_size(terms: Terms, size: int) -> None:
    """Raises InvalidInput if the products would be too many to compute."""
    count = sum(shape_of(limit).products + 1 for limit in terms.limits) * terms.guarded
    if terms.sums:
        count += dominance.products(len(terms.contributors), terms.dominance) * len(terms.sums)
    if (1 + CHECKS) * count * size > ELEMENTS_MAX:
        raise InvalidInput(
            f"{size} groups of {terms.guarded} counts and {len(terms.sums)} sums are too many to compare: group more"
            " coarsely, or ask for fewer measures"
        )


def _inputs(terms: Terms, given: Mapping[PartyId, Given]) -> Iterator[Shares]:
    """The numbers that are multiplied: the sums of each condition over the contributors, then the demands of each."""
    numbers = [given[contributor].numbers for contributor in terms.contributors]
    for condition in range(len(terms.limits)):
        rows = slice(condition * terms.guarded, (condition + 1) * terms.guarded)
        yield sums([shares[rows] for shares in numbers])
    if terms.sums:
        for contributor in terms.contributors:
            yield _vectors(terms, given[contributor])[0]


def _vectors(terms: Terms, given: Given) -> tuple[Shares, Shares]:
    """A contributor's demands and what its totals reach, each (width · sums, size)."""
    demands, reaches = np.split(given.numbers[terms.guarded * len(terms.limits) :], 2)
    return demands, reaches


def _cells(
    arithmetic: Arithmetic,
    terms: Terms,
    size: int,
    wires: Sequence[Wire],
    reaches: Sequence[Shares],
    rho: Shares,
    sigma: Shares,
) -> Job:
    """The products that are opened: those of the counts, then those of the sums."""
    conditions = list(zip(wires, terms.limits, strict=False))
    jobs = [_guards(arithmetic, conditions, rho)] if terms.guarded else []
    if terms.sums:
        jobs.append(dominance.decided(wires[len(conditions) :], reaches, sigma))
    found = yield from together(jobs)
    first, last = found[0][0], found[-1][0]
    if not terms.sums or not terms.guarded:
        return first
    behind = first[0].reshape(terms.guarded, size)[list(terms.sums)].reshape(-1)
    return np.concatenate((first, (yield [(last, behind)])[0]), axis=1)


def _guards(
    arithmetic: Arithmetic, conditions: Sequence[tuple[Wire, int]], rho: Shares
) -> Generator[list[Pair], list[Wire], list[Wire]]:
    factors = yield from together([factors_of(arithmetic, total, limit) for total, limit in conditions])
    return [(yield from tree([factor for some in factors for factor in some], rho))]


def _rounds(terms: Terms) -> int:
    """The number of rounds of multiplication that the cells take."""
    shapes = [shape_of(limit) for limit in terms.limits]
    rounds = 0
    if shapes:
        rounds = max(shape.rounds for shape in shapes) + tree_rounds(1 + sum(shape.factors for shape in shapes))
    if terms.sums:
        rounds = max(rounds, dominance.rounds(len(terms.contributors))) + (1 if shapes else 0)
    return rounds


def _size_of(party: PartyId, given: Mapping[PartyId, Given]) -> int:
    """The number of groups that all contributors shared. Raises PeerFault unless they were told the same union."""
    first, *others = sorted(given)
    size = int(given[first].numbers.shape[1])
    for other in others:
        if given[other].numbers.shape[1] != size:
            raise PeerFault(f"{other} shared {given[other].numbers.shape[1]} groups with {party}, {first} {size}")
        if not np.array_equal(given[first].digest, given[other].digest):
            raise PeerFault(f"{first} and {other} were told of different groups: a contributor deviated")
    return size


def _read_share(terms: Terms, sender: PartyId, payload: bytes) -> Given:
    elements = read_elements("share", (None,), sender, payload)
    if (len(elements) - CHECKS - DIGEST_WORDS) % terms.rows or len(elements) < CHECKS + DIGEST_WORDS:
        raise PeerFault(f"{sender}'s 'share' holds {len(elements)} elements; {terms.rows} for each group are expected")
    return _given(terms, elements)


def _given(terms: Terms, elements: Shares) -> Given:
    digest, numbers, masks = np.split(elements, [DIGEST_WORDS, len(elements) - CHECKS])
    return Given(digest, numbers.reshape(terms.rows, -1), masks)


def _degree(terms: Terms) -> int:
    return len(terms.computing) // 2
