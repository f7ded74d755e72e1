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

from functools import partial

import numpy as np

from junto.errors import InvalidInput, PeerFault
from junto.secure import dominance, groupkeys, nodes
from junto.secure.codec import pack, unpack_bytes
from junto.secure.groupkeys import Flags, GroupCounts, PassedKeys, Positions, Rows, Selection
from junto.secure.machine import Machine, Script, Send, receive, take_input
from junto.secure.shamir import Field, Shares
from junto.secure.terms import Terms
from junto.secure.verified import opened
from junto.types import PartyId, RandomBytes


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
    if len(terms.contributors) == 1:
        inbox.append((terms.contributors[0], "cells"))
    return Machine("threshold", _receive_keys(terms, context, random_bytes), inbox)


def compute(party: PartyId, terms: Terms, context: bytes, random_bytes: RandomBytes) -> Machine[None, None]:
    """The machine of a node that neither contributes nor receives: takes no input, gives nothing here.

    Raises InvalidInput unless `party` computes, and only that.
    """
    if party not in terms.computing or party in (*terms.contributors, terms.receiver):
        raise InvalidInput(f"{party} does not compute this threshold for others")
    return Machine("threshold", _compute(party, terms, context, random_bytes), nodes.inbox(party, terms))


def _compute(party: PartyId, terms: Terms, context: bytes, random_bytes: RandomBytes) -> Script[None]:
    yield from nodes.compute(party, terms, context, None, random_bytes)


def _node_inbox(party: PartyId, terms: Terms) -> list[tuple[PartyId, str]]:
    others = [node for node in terms.computing if node != party]
    inbox = nodes.inbox(party, terms) if party in terms.computing else []
    return inbox + [(other, "open") for other in others]


def _decide_alone(terms: Terms) -> Script[Selection]:
    counts = yield from take_input(GroupCounts, lambda counts: counts.check(terms.guards, len(terms.sums)))
    size = len(counts.keys)
    enough = np.full(size, terms.parties <= 1) & (counts.units >= terms.units)
    shown = dominance.alone(counts.totals, counts.largest, terms.dominance) & enough[list(terms.sums)]
    passed = enough[0]
    order = sorted(range(size), key=counts.keys.__getitem__)  # the engine's order stays here
    positions = np.empty(size, dtype=np.int64)
    positions[order] = np.arange(size)
    keys = [counts.keys[index] for index in order if passed[index]]
    rows = groupkeys.to_rows(keys, groupkeys.row_width(max(map(len, keys), default=0)))
    cells = np.concatenate((enough, shown))[:, order]
    yield Send(terms.receiver, "cells", pack(cells[:, cells[0]].astype(np.uint8)))
    yield Send(terms.receiver, "keys", pack(rows, (size,)))
    return Selection(size, cells, positions)


def _contribute(party: PartyId, terms: Terms, context: bytes, random_bytes: RandomBytes) -> Script[Selection]:
    others = [other for other in terms.contributors if other != party]
    contribution = random_bytes(32)
    for other in others:
        yield Send(other, "key", pack(np.frombuffer(contribution, dtype=np.uint8)))
    counts = yield from take_input(GroupCounts, lambda counts: counts.check(terms.guards, len(terms.sums)))
    contributions = yield from receive("key", others, partial(_read_key, "key"))
    token_key = groupkeys.token_key({**contributions, party: contribution}, context)

    own_tokens, order = groupkeys.tokens(token_key, counts.keys)
    width = groupkeys.row_width(max(map(len, counts.keys), default=0))
    for other in others:
        yield Send(other, "tokens", pack(own_tokens, (width,)))
    announced = yield from receive("tokens", others, groupkeys.read_tokens)
    width = max(width, *(theirs for _, theirs in announced.values()))
    union = {other: own_tokens if other == party else announced[other][0] for other in terms.contributors}
    size, held = groupkeys.merge(union)
    positions = np.empty(len(order), dtype=np.int64)
    positions[order] = held[party]

    cells = np.ones((terms.guards + len(terms.sums), size), dtype=np.bool_)
    if terms.computing:
        nodes.check_size(terms, size)
        digest = groupkeys.union_digest(token_key, union)
        shares = nodes.shared(terms, _numbers(terms, counts, positions, size), digest, random_bytes)
        for share, node in zip(shares, terms.computing, strict=True):
            if node != party:
                yield Send(node, "share", pack(share))
        own = shares[terms.computing.index(party)] if party in terms.computing else None
        cells = yield from _test(party, terms, context, own, size, random_bytes)
    selection = Selection(size, cells, positions)
    passed = selection.passed

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


def _numbers(terms: Terms, counts: GroupCounts, positions: Positions, size: int) -> Field:
    """What this contributor shares of each group, (rows, size); of one that it lacks, no units and no demand."""
    guarded, tested = terms.guarded, len(terms.sums)
    numbers = np.zeros((terms.rows, size), dtype=np.uint64)
    row = 0
    for limit in (limit for limit, least in ((terms.units, 1), (1 if terms.parties >= 2 else 0, 1)) if limit >= least):
        numbers[row : row + guarded, positions] = np.minimum(counts.units, limit)
        row += guarded
    if tested:
        rungs = dominance.ladder(len(terms.contributors), terms.dominance)
        numbers[row : row + tested] = dominance.limit_of(rungs)
        numbers[row : row + tested, positions] = dominance.demanded(
            counts.totals, counts.largest, rungs, terms.dominance
        )
        numbers[row + tested :, positions] = dominance.reached(counts.totals, rungs)
    return numbers


def _test(
    party: PartyId, terms: Terms, context: bytes, own: Shares | None, size: int | None, random_bytes: RandomBytes
) -> Script[Flags]:
    """Which counts and sums passed, (guards + sums, size), as the nodes open it; this party computes too if it is one.

    own: its share of its own numbers.
    """
    result = None
    if party in terms.computing:
        result = yield from nodes.compute(party, terms, context, own, random_bytes)
    found = yield from opened(party, terms.computing, result, None if size is None else terms.cells * size)
    if len(found) % terms.cells:
        raise PeerFault(f"the nodes opened {len(found)} numbers, of {terms.cells} for each group")
    cells = (found != 0).reshape(terms.cells, -1)
    always = terms.guards - terms.guarded
    return np.concatenate((np.ones((always, cells.shape[1]), dtype=np.bool_), cells))


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
    cells: Flags | None = None
    if terms.computing:
        cells = yield from _test(terms.receiver, terms, context, None, None, random_bytes)
    expected = cells.shape[1] if cells is not None else None
    passed = int(np.count_nonzero(cells[0])) if cells is not None else None

    def read(sender: PartyId, payload: bytes) -> tuple[list[bytes], int]:
        rows, (size,) = unpack_bytes(sender, "keys", payload, (passed, None), extras=1)
        count, width = rows.shape
        if count > size or expected not in (None, size):
            raise PeerFault(f"{sender} sent {count} keys of {size} groups; {expected} groups were compared")
        if width % 16 or not 16 <= width <= groupkeys.row_width(groupkeys.KEY_BYTES_MAX):
            raise PeerFault(f"{sender} sent {count} keys of width {width}")
        if len(terms.contributors) > 1:
            rows = rows ^ groupkeys.pads(pad_key, context, count, width)
        return groupkeys.from_rows(sender, rows), size

    found = yield from receive("keys", [designated], read)
    keys, size = found[designated]
    if cells is not None:
        return PassedKeys(keys, size, cells[:, cells[0]])
    shape = (terms.guards + len(terms.sums), len(keys))
    if len(terms.contributors) > 1:
        return PassedKeys(keys, size, np.ones(shape, dtype=np.bool_))
    told = yield from receive("cells", [designated], partial(_read_cells, shape))
    return PassedKeys(keys, size, told[designated])


def _read_cells(shape: tuple[int, int], sender: PartyId, payload: bytes) -> Flags:
    cells = unpack_bytes(sender, "cells", payload, shape)[0]
    if np.any(cells > 1) or not np.all(cells[0]):
        raise PeerFault(f"{sender}'s 'cells' do not say of {shape[1]} groups that passed what passed of them")
    return cells.astype(np.bool_)


def _read_key(name: str, sender: PartyId, payload: bytes) -> bytes:
    return unpack_bytes(sender, name, payload, (32,))[0].tobytes()
