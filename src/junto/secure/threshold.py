# SPDX-License-Identifier: Apache-2.0
"""Which groups have enough units and come from enough contributors, decided without showing the counts.

Theory of operation
-------------------
Roles. The *contributors* hold groups: keys and, of each, a number of units. The *receiver* learns the keys of groups
that pass; it holds no groups here (what it owns itself it adds later). The *nodes*, at least three of contributors and
receiver, compute; of an even number the last is not needed. The first contributor is the *designated* one, the
second its *helper*.

Rounds.
 1. "key": contributors exchange random bytes, hence a token key (`groupkeys.py`).
 2. "tokens": they exchange sorted tokens of their group keys; their union is the order of the groups.
 3. "share": each contributor clips its units to `units` and shares them, and a bit "holds a unit" if `parties` > 1,
    with degree t = ⌊(nodes − 1) / 2⌋ among the nodes. A clipped sum reaches `units` exactly if the sum does.
 4. "rho", "product-1", …: the nodes multiply (`product.py`); one product per group, over both conditions.
 5. "open": each node sends its shares of the products to contributors and receiver. Zero: too small. Else: passed.
 6. "pad": the receiver's key for pads, to every contributor but the designated one (sent at the start).
    "masked-keys": of each group that passed and that the designated one lacks, the first contributor that holds it
    sends the key under its pad to the designated one. "pads": the helper sends it the pads of those it does hold.
    "keys": the designated one sends the receiver all rows in order.

A single contributor decides alone and sends "keys" in the clear. If nothing is asked (`units` = 0, `parties` ≤ 1) every
group passes, and rounds 3 to 5 do not take place.

Adversary. Semi-honest, static; links are authenticated and encrypted.

Leakage, beyond what a party may know already:
- receiver: how many groups the union has, which of its (unnamed) positions passed, the keys of those that passed, and
  their width. Not the counts, not who holds which, not which condition failed, nothing of withheld keys.
- contributor: tokens of the others' groups (how many they hold, which it shares with them, and whether a key that it
  guesses exists), the width, which groups of the union passed. The designated one sees other keys under pads only.
- node: uniform shares.

Collusion. Any t nodes learn nothing of the counts; t + 1 learn them all. The receiver with any contributor can test
guessed keys of withheld groups. The designated contributor with the receiver learns who holds which of the groups that
passed; with another contributor, the keys that passed, even those neither holds.

Errors. A group that passes is withheld with probability 2⁻³¹ (ρ = 0); one that does not pass never passes.

Source: DESIGN, "Secure protocols"; primitives as cited in `product.py`, `shamir.py` and `keystream.py`.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from junto.errors import InvalidInput, PeerFault
from junto.secure import groupkeys
from junto.secure.codec import pack, unpack_bytes
from junto.secure.groupkeys import GroupCounts, PassedKeys, Positions, Rows, Selection
from junto.secure.keystream import stretched
from junto.secure.machine import Machine, Script, Send, receive, take_input
from junto.secure.product import Elements, check_size, opened, read_elements, rounds, summed, zero_test
from junto.secure.shamir import Field, P, split
from junto.types import PartyId, RandomBytes


@dataclass(frozen=True, slots=True)
class Terms:
    """Who takes part in a threshold, and what a group needs to pass. Raises InvalidInput where they do not fit."""

    contributors: tuple[PartyId, ...]
    receiver: PartyId
    nodes: tuple[PartyId, ...]
    units: int
    parties: int = 1

    def __post_init__(self) -> None:
        everyone = {*self.contributors, self.receiver}
        if not self.contributors or len(everyone) != len(self.contributors) + 1:
            raise InvalidInput("a threshold takes distinct contributors, at least one, and a receiver that is not one")
        if self.units < 0 or self.parties < 0 or len(self.contributors) * max(self.units, self.parties, 1) >= P:
            raise InvalidInput(f"a threshold of {self.units} units and {self.parties} parties cannot be computed")
        if len(set(self.nodes)) != len(self.nodes) or not everyone.issuperset(self.nodes):
            raise InvalidInput("the nodes of a threshold are distinct, and contributors or the receiver")
        if len(self.contributors) > 1 and self.limits and len(self.nodes) < 3:
            raise InvalidInput(f"{len(self.nodes)} nodes cannot compute a threshold; it takes three")

    @property
    def limits(self) -> tuple[int, ...]:
        """What each condition asks for: units, then contributors. Conditions that always hold are left out."""
        return tuple(limit for limit, least in ((self.units, 1), (self.parties, 2)) if limit >= least)

    @property
    def computing(self) -> tuple[PartyId, ...]:
        """The nodes that compute: an odd number; none if nothing is asked or one contributor decides alone."""
        if len(self.contributors) == 1 or not self.limits:
            return ()
        return self.nodes[: (len(self.nodes) - 1) // 2 * 2 + 1]


def contribute(
    party: PartyId, terms: Terms, context: bytes, random_bytes: RandomBytes
) -> Machine[GroupCounts, Selection]:
    """A contributor's machine: takes its groups, gives which groups of the union passed.

    `context` names the contract and the step; the same bytes at all parties, never used twice.
    Raises InvalidInput unless `party` is a contributor.
    """
    if party not in terms.contributors:
        raise InvalidInput(f"{party} is not one of the {len(terms.contributors)} contributors of this threshold")
    if len(terms.contributors) == 1:
        return Machine("threshold", _decide_alone(terms), [])
    others = [other for other in terms.contributors if other != party]
    inbox = [(other, name) for name in ("key", "tokens") for other in others]
    inbox += _node_inbox(party, terms)
    if party == terms.contributors[0]:
        inbox += [*((other, "masked-keys") for other in others), (others[0], "pads")]
    else:
        inbox.append((terms.receiver, "pad"))
    return Machine("threshold", _contribute(party, terms, context, random_bytes), inbox)


def receive_keys(terms: Terms, context: bytes, random_bytes: RandomBytes) -> Machine[None, PassedKeys]:
    """The receiver's machine: takes no input, gives the keys of groups that passed."""
    inbox = [*_node_inbox(terms.receiver, terms), (terms.contributors[0], "keys")]
    return Machine("threshold", _receive_keys(terms, context, random_bytes), inbox)


def _node_inbox(party: PartyId, terms: Terms) -> list[tuple[PartyId, str]]:
    others = [node for node in terms.computing if node != party]
    inbox: list[tuple[PartyId, str]] = []
    if party in terms.computing:
        inbox += [(other, "share") for other in terms.contributors if other != party]
        names = ("rho", *(f"product-{turn}" for turn in range(1, rounds(sum(terms.limits)) + 1)))
        inbox += [(other, name) for name in names for other in others]
    return inbox + [(other, "open") for other in others]


def _decide_alone(terms: Terms) -> Script[Selection]:
    counts = yield from take_input(GroupCounts, GroupCounts.check)
    size = len(counts.keys)
    passed = np.full(size, terms.parties <= 1) & (counts.units >= terms.units)
    order = sorted(range(size), key=counts.keys.__getitem__)  # the engine's order stays here
    positions = np.empty(size, dtype=np.int64)
    positions[order] = np.arange(size)
    keys = [counts.keys[index] for index in order if passed[index]]
    rows = groupkeys.to_rows(keys, groupkeys.row_width(max(map(len, keys), default=0)))
    yield Send(terms.receiver, "keys", pack(rows, (size,)))
    return Selection(size, passed[order], positions)


def _contribute(party: PartyId, terms: Terms, context: bytes, random_bytes: RandomBytes) -> Script[Selection]:
    others = [other for other in terms.contributors if other != party]
    contribution = random_bytes(32)
    for other in others:
        yield Send(other, "key", pack(np.frombuffer(contribution, dtype=np.uint8)))
    counts = yield from take_input(GroupCounts, GroupCounts.check)
    contributions = yield from receive("key", others, partial(_read_key, "key"))
    token_key = groupkeys.token_key({**contributions, party: contribution}, context)

    own_tokens, order = groupkeys.tokens(token_key, counts.keys)
    width = groupkeys.row_width(max(map(len, counts.keys), default=0))
    for other in others:
        yield Send(other, "tokens", pack(own_tokens, (width,)))
    announced = yield from receive("tokens", others, groupkeys.read_tokens)
    width = max(width, *(theirs for _, theirs in announced.values()))
    size, held = groupkeys.merge(
        {other: own_tokens if other == party else announced[other][0] for other in terms.contributors}
    )
    positions = np.empty(len(order), dtype=np.int64)
    positions[order] = held[party]

    passed = np.ones(size, dtype=np.bool_)
    if terms.limits:
        check_size(terms.limits, size)
        shares = split(_conditions(terms, counts, positions, size), len(terms.computing), _degree(terms), random_bytes)
        for row, node in enumerate(terms.computing):
            if node != party:
                yield Send(node, "share", pack(shares[row].astype(np.uint32)))
        own = shares[terms.computing.index(party)] if party in terms.computing else None
        products = yield from _test(party, terms, own, size, random_bytes)
        passed = products != 0
    selection = Selection(size, passed, positions)

    supplier = groupkeys.senders_of([held[other] for other in terms.contributors], size)[passed]
    mine = order[passed[held[party]]]  # the own groups that passed, in the union's order
    if party == terms.contributors[0]:
        rows = groupkeys.rows_of(counts.keys, mine, width)
        yield from _put_together(terms, others, supplier, rows, size)
    else:
        rank = (np.cumsum(passed) - 1)[positions[mine]]
        lacking = mine[supplier[rank] == terms.contributors.index(party)]
        rows = groupkeys.rows_of(counts.keys, lacking, width)
        yield from _hand_over(party, terms, context, supplier, rows)
    return selection


def _conditions(terms: Terms, counts: GroupCounts, positions: Positions, size: int) -> Field:
    """The numbers this contributor adds to the sums: shape (conditions, size), zero where it has no such group."""
    clipped = [np.minimum(counts.units, terms.units)] if terms.units >= 1 else []
    bits = [np.minimum(counts.units, 1)] if terms.parties >= 2 else []
    numbers = np.zeros((len(terms.limits), size), dtype=np.uint64)
    numbers[:, positions] = np.stack([*clipped, *bits]).astype(np.uint64)
    return numbers


def _test(
    party: PartyId, terms: Terms, own: Field | None, size: int | None, random_bytes: RandomBytes
) -> Script[Field]:
    """The opened products; computes them too if this party is a node. `own` is its share of its own numbers."""
    result = None
    if party in terms.computing:
        random_bytes = stretched(random_bytes)
        contributors = [other for other in terms.contributors if other != party]
        read = partial(read_elements, "share", (len(terms.limits), size))
        shares: dict[PartyId, Elements] = yield from receive("share", contributors, read)
        sums = summed(party, shares, own)
        size = sums.shape[1]
        check_size(terms.limits, size)
        result = yield from zero_test(party, terms.computing, terms.limits, sums, random_bytes)
        payload = pack(result.astype(np.uint32))
        for reader in (*terms.contributors, terms.receiver):
            if reader != party:
                yield Send(reader, "open", payload)
    return (yield from opened(party, terms.computing, result, size))


def _put_together(terms: Terms, others: list[PartyId], supplier: Positions, own_rows: Rows, size: int) -> Script[None]:
    """The designated contributor: gather padded rows, pad the own ones, send all to the receiver in order."""
    width = own_rows.shape[1]
    gathered = np.empty((len(supplier), width), dtype=np.uint8)

    def read(name: str, which: int, sender: PartyId, payload: bytes) -> Rows:
        return unpack_bytes(sender, name, payload, (int(np.count_nonzero(supplier == which)), width))[0]

    for index, other in enumerate(others, start=1):
        found = yield from receive("masked-keys", [other], partial(read, "masked-keys", index))
        gathered[supplier == index] = found[other]
    helper = others[0]
    own_pads = yield from receive("pads", [helper], partial(read, "pads", 0))
    gathered[supplier == 0] = own_rows ^ own_pads[helper]
    yield Send(terms.receiver, "keys", pack(gathered, (size,)))


def _hand_over(
    party: PartyId,
    terms: Terms,
    context: bytes,
    supplier: Positions,
    rows: Rows,
) -> Script[None]:
    """Any other contributor: send the designated one padded keys that it lacks, and as its helper the pads it needs.

    rows: the keys of the groups that passed which this contributor supplies, in their order.
    """
    found = yield from receive("pad", [terms.receiver], partial(_read_key, "pad"))
    pads = groupkeys.pads(found[terms.receiver], context, len(supplier), rows.shape[1])
    index = terms.contributors.index(party)
    designated = terms.contributors[0]
    yield Send(designated, "masked-keys", pack(rows ^ pads[supplier == index]))
    if index == 1:
        yield Send(designated, "pads", pack(pads[supplier == 0]))


def _receive_keys(terms: Terms, context: bytes, random_bytes: RandomBytes) -> Script[PassedKeys]:
    designated = terms.contributors[0]
    pad_key = random_bytes(32)
    for contributor in terms.contributors[1:]:
        yield Send(contributor, "pad", pack(np.frombuffer(pad_key, dtype=np.uint8)))
    passed: int | None = None
    expected: int | None = None
    if terms.computing:
        products = yield from _test(terms.receiver, terms, None, None, random_bytes)
        passed, expected = int(np.count_nonzero(products)), products.size

    def read(sender: PartyId, payload: bytes) -> PassedKeys:
        rows, (size,) = unpack_bytes(sender, "keys", payload, (passed, None), extras=1)
        count, width = rows.shape
        if count > size or expected not in (None, size):
            raise PeerFault(f"{sender} sent {count} keys of {size} groups; {expected} groups were compared")
        if width % 16 or not 16 <= width <= groupkeys.row_width(groupkeys.KEY_BYTES_MAX):
            raise PeerFault(f"{sender} sent {count} keys of width {width}")
        if len(terms.contributors) > 1:
            rows = rows ^ groupkeys.pads(pad_key, context, count, width)
        return PassedKeys(groupkeys.from_rows(sender, rows), size)

    found = yield from receive("keys", [designated], read)
    return found[designated]


def _degree(terms: Terms) -> int:
    return len(terms.computing) // 2


def _read_key(name: str, sender: PartyId, payload: bytes) -> bytes:
    return unpack_bytes(sender, name, payload, (32,))[0].tobytes()
