# SPDX-License-Identifier: Apache-2.0
"""The choice of groups with enough units of enough contributors, without showing the counts.

Theory of operation
-------------------
Roles. The *contributors* hold groups: keys and, of each, numbers of units (`guards`: its own, and those behind each
measure) and magnitudes (of each sum whose dominance is tested). The *receiver* learns the keys of groups that pass,
and which counts and sums pass in them; it holds no groups here (what it owns itself it adds later). The *nodes*, an
odd number of at least three parties, compute: contributors, a party that does so for others, or the receiver. The
first contributor is the *designated* one, the second its *helper*.

Rounds.
 1. and 2. Contributors come to one order of all their groups and of drawn dummies (`alignment.py`).
    "given": digests of the rows that each was given to join; where they differ, nothing is shared.
 3. "share": each contributor clips each count to `units` and shares it, and a bit "holds a unit" if `parties` > 1, with
    degree t = ⌊(nodes − 1) / 2⌋ among the nodes. A clipped sum reaches `units` exactly if the sum does. For each sum it
    shares two rungs of a ladder, as vectors (`dominance.py`).
 4. "random", "mac", "product-1", …, "coin", "check": the nodes multiply, and prove to each other that they did
    (`nodes.py`, `verified.py`); one product for each count and each sum of each group.
 5. "open": each node sends its shares of the products to contributors and computing nodes. Zero: too small. Else:
    passed.
    "withheld": each contributor tells the others how wide its keys that passed are, and if at least `units` of its
    units are in groups that did not.
 6. "pad": the receiver's key for pads, to every contributor but the designated one (sent at the start).
    "masked-keys": of each group that passed and that the designated one lacks, the first contributor that holds it
    sends the key under its pad to the designated one. "pads": the helper sends it the pads of those it does hold.
    "keys": the designated one sends the receiver all rows in order (beside "cells", which measures passed in them,
    to one that does not compute), and if enough was withheld for this to be told: at
    least `parties` contributors (and one) have at least `units` units there.

A single contributor decides alone and sends "keys" in the clear, and no number of other groups. If nothing is asked
(`units` = 0, `parties` ≤ 1) every group passes, and rounds 3 to 5 do not take place.

Adversary. Malicious towards the data of others, static; links are authenticated and encrypted. At most t nodes deviate,
and any number of contributors and the receiver do. The opened numbers are then right for the numbers shared, but for a
chance below 2⁻⁵⁸ (`verified.py`); owners are free to lie about their own data, and answers are as right as they are.

Gains of a deviating party:
- node: the end of the run, before anything is opened. If it opens a wrong share, its readers notice.
- contributor: numbers that are no counts are lies about its counts: of each group, one bit for each lie and run,
  whether the others' sum lies in a range that the liar chose; and a group of others that has too few units passes if
  the liar says that it has the rest. Shares that lie on no polynomial, and a union that differs from contributor to
  contributor (which would add one's group to another's), end the run before anything is computed of them or opened.
  Wrong rows, pads or widths spoil the keys.
- designated one: it can leave keys out, or put its own in. It cannot take pads off.
- receiver: pads that differ from contributor to contributor spoil its own keys. It chooses no node and no group.

Leakage, beyond what a party may know already:
- receiver: the keys of groups that passed, their width, and if enough was withheld for this to be told. Not how many
  groups there are: if it computes, it sees the union's size, which the dummies hide. Not the counts, not who holds
  which, not which condition failed, nothing of withheld keys; that all were withheld and that there was no group is
  the same to it.
- contributor: what tokens tell (`alignment.py`), which groups of the union passed, the width of each other one's keys
  that passed, and which other ones have at least `units` units in withheld groups. Of a group of its own with fewer
  than `units` units that passes, it learns that others have the rest; a contributor that invents such a group learns
  this of a key it guesses. The designated one sees other keys under pads only.
- node: uniform shares, and the size.

Collusion. Any t nodes learn nothing of the counts; t + 1 learn them all. The receiver with any contributor can test
guessed keys of withheld groups. The designated contributor with the receiver learns who holds which of the groups that
passed; with another contributor, the keys that passed, even those neither holds.

Errors. A group that passes is withheld with probability 2⁻³¹ (ρ = 0); one that does not pass never passes.

Source: DESIGN, "Secure protocols"; primitives as cited in `product.py`, `shamir.py` and `keystream.py`.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from junto.errors import InvalidInput, PeerFault
from junto.secure import alignment, dominance, groupkeys, nodes
from junto.secure.codec import pack, unpack_bytes
from junto.secure.groupkeys import Flags, GroupCounts, PassedKeys, Positions, Rows, Selection
from junto.secure.machine import Machine, Script, Send, receive, take_input
from junto.secure.shamir import Field, Shares
from junto.secure.terms import Terms
from junto.secure.verified import opened
from junto.types import PartyId, RandomBytes


def contribute(
    party: PartyId, terms: Terms, context: bytes, random_bytes: RandomBytes, dummies: int
) -> Machine[GroupCounts, Selection]:
    """A contributor's machine: takes its groups, gives which groups of the union passed.

    `context` names the contract and the step; the same bytes at all parties, never used twice. `dummies` is how many it
    adds: see `padding.py`; none where all groups pass, or where the question has one group that all contributors have.
    Raises InvalidInput unless `party` is a contributor.
    """
    if party not in terms.contributors:
        raise InvalidInput(f"{party} is not one of the {len(terms.contributors)} contributors of this threshold")
    if len(terms.contributors) == 1:
        return Machine("threshold", _decide_alone(terms), [])
    others = [other for other in terms.contributors if other != party]
    inbox = alignment.inbox(party, terms.contributors, terms.tokens)
    inbox += [(other, "given") for other in others]
    inbox += [*_node_inbox(party, terms), *((other, "withheld") for other in others)]
    if party == terms.contributors[0]:
        inbox += [*((other, "masked-keys") for other in others), (others[0], "pads")]
    else:
        inbox.append((terms.receiver, "pad"))
    return Machine("threshold", _contribute(party, terms, context, random_bytes, dummies), inbox)


def receive_keys(terms: Terms, context: bytes, random_bytes: RandomBytes) -> Machine[None, PassedKeys]:
    """The receiver's machine: takes no input, gives the keys of groups that passed."""
    inbox = [*_node_inbox(terms.receiver, terms), (terms.contributors[0], "keys")]
    if terms.receiver not in terms.computing:
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
    return inbox + [(other, "open") for other in others if party in terms.readers]


def _decide_alone(terms: Terms) -> Script[Selection]:
    counts = yield from take_input(GroupCounts, lambda counts: counts.check(terms.guards, len(terms.sums)))
    size = len(counts.keys)
    enough = np.full(size, terms.parties <= 1) & (_units(counts) >= terms.units)
    shown = dominance.alone(counts.totals, counts.largest, terms.dominance) & enough[list(terms.sums)]
    passed = enough[0]
    order = sorted(range(size), key=counts.keys.__getitem__)  # the engine's order stays here
    positions = np.empty(size, dtype=np.int64)
    positions[order] = np.arange(size)
    keys = [counts.keys[index] for index in order if passed[index]]
    rows = groupkeys.to_rows(keys, groupkeys.row_width(max(map(len, keys), default=0)))
    cells = np.concatenate((enough, shown))[:, order]
    yield Send(terms.receiver, "cells", pack(cells[:, cells[0]].astype(np.uint8)))
    some = terms.parties <= 1 and _holds_enough(terms, counts, passed)
    yield Send(terms.receiver, "keys", pack(rows, (int(some),)))
    return Selection(size, cells, positions)


def _contribute(
    party: PartyId, terms: Terms, context: bytes, random_bytes: RandomBytes, dummies: int
) -> Script[Selection]:
    others = [other for other in terms.contributors if other != party]
    contribution = yield from alignment.begin(party, terms.contributors, random_bytes)
    counts = yield from take_input(GroupCounts, lambda counts: counts.check(terms.guards, len(terms.sums)))
    for other in others:
        yield Send(other, "given", pack(counts.given))
    dummies = dummies if terms.limits and counts.keys != [b""] else 0
    found = yield from alignment.aligned(
        party, terms.contributors, terms.tokens, counts.keys, dummies, context, contribution, random_bytes
    )
    theirs = yield from receive("given", others, partial(groupkeys.read_given, len(counts.given)))
    for other, given in theirs.items():
        groupkeys.check_given(party, counts.given, other, given)
    size, held, order, positions = found.size, found.held, found.order, found.positions

    cells = np.ones((terms.guards + len(terms.sums), size), dtype=np.bool_)
    if terms.computing:
        nodes.check_size(terms, size)
        shares = nodes.shared(terms, _numbers(terms, counts, positions, size), found.digest, random_bytes)
        for share, node in zip(shares, terms.computing, strict=True):
            if node != party:
                yield Send(node, "share", pack(share))
        own = shares[terms.computing.index(party)] if party in terms.computing else None
        cells = yield from _test(party, terms, context, own, size, random_bytes)
    selection = Selection(size, cells, positions)
    passed = selection.passed

    own_order = np.argsort(held[party])
    mine = order[own_order][passed[held[party][own_order]]]  # the own groups that passed, in the union's order
    if np.any(mine >= len(counts.keys)):
        raise PeerFault(f"the nodes {', '.join(terms.computing)} let a group pass that nobody has")
    own_width = groupkeys.row_width(max((len(counts.keys[index]) for index in mine.tolist()), default=0))
    many = _holds_enough(terms, counts, selection.own)
    for other in others:
        yield Send(other, "withheld", pack(np.zeros(0, dtype=np.uint8), (own_width, int(many))))
    told = yield from receive("withheld", others, _read_withheld)
    width = max(own_width, *(wide for wide, _ in told.values()))
    some = many + sum(enough for _, enough in told.values()) >= max(terms.parties, 1)

    supplier = groupkeys.senders_of([held[other] for other in terms.contributors], size)[passed]
    if party == terms.contributors[0]:
        if terms.receiver not in terms.computing:
            yield Send(terms.receiver, "cells", pack(cells[:, passed].astype(np.uint8)))
        rows = groupkeys.rows_of(counts.keys, mine, width)
        yield from _put_together(terms, others, supplier, rows, some)
    else:
        rank = (np.cumsum(passed) - 1)[positions[mine]]
        lacking = mine[supplier[rank] == terms.contributors.index(party)]
        rows = groupkeys.rows_of(counts.keys, lacking, width)
        yield from _hand_over(party, terms, context, supplier, rows)
    return selection


def _numbers(terms: Terms, counts: GroupCounts, positions: Positions, size: int) -> Field:
    """A contributor's numbers to share of each group, (rows, size); of one that it lacks, no units and no demand."""
    guarded, tested, units = terms.guarded, len(terms.sums), _units(counts)
    numbers = np.zeros((terms.rows, size), dtype=np.uint64)
    row = 0
    for limit in (limit for limit, least in ((terms.units, 1), (1 if terms.parties >= 2 else 0, 1)) if limit >= least):
        numbers[row : row + guarded, positions] = np.minimum(units, limit)
        row += guarded
    if tested:
        rungs = dominance.ladder(len(terms.contributors), terms.dominance)
        base = dominance.base(len(terms.contributors), terms.dominance)
        for found in (
            dominance.demanded(counts.totals, counts.largest, rungs, terms.dominance),
            dominance.reached(counts.totals, rungs),
        ):
            all_groups = np.zeros((tested, size), dtype=np.int64)
            all_groups[:, positions] = found
            vectors = dominance.vectors(all_groups.reshape(-1), base)
            numbers[row : row + tested * terms.width] = vectors.reshape(-1, size)
            row += tested * terms.width
    return numbers


def _test(
    party: PartyId, terms: Terms, context: bytes, own: Shares | None, size: int | None, random_bytes: RandomBytes
) -> Script[Flags]:
    """The counts and sums that passed, (guards + sums, size), as the nodes open them; a computing party computes too.

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


def _put_together(terms: Terms, others: list[PartyId], supplier: Positions, own_rows: Rows, some: bool) -> Script[None]:
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
    yield Send(terms.receiver, "keys", pack(gathered, (int(some),)))


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
    found = yield from receive("pad", [terms.receiver], partial(groupkeys.read_key, "pad"))
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
    if terms.receiver in terms.computing:
        cells = yield from _test(terms.receiver, terms, context, None, None, random_bytes)
    passed = int(np.count_nonzero(cells[0])) if cells is not None else None

    def read(sender: PartyId, payload: bytes) -> tuple[list[bytes], bool]:
        rows, (some,) = unpack_bytes(sender, "keys", payload, (passed, None), extras=1)
        count, width = rows.shape
        if not groupkeys.is_width(width) or some > 1:
            raise PeerFault(f"{sender} sent {count} keys of width {width}, and {some} for whether more were withheld")
        if len(terms.contributors) > 1:
            rows = rows ^ groupkeys.pads(pad_key, context, count, width)
        return groupkeys.from_rows(sender, rows), bool(some)

    found = yield from receive("keys", [designated], read)
    keys, some = found[designated]
    if cells is not None:
        return PassedKeys(keys, some, cells[:, cells[0]])
    shape = (terms.guards + len(terms.sums), len(keys))
    told = yield from receive("cells", [designated], partial(_read_cells, shape))
    return PassedKeys(keys, some, told[designated])


def _read_cells(shape: tuple[int, int], sender: PartyId, payload: bytes) -> Flags:
    cells = unpack_bytes(sender, "cells", payload, shape)[0]
    if np.any(cells > 1) or not np.all(cells[0]):
        raise PeerFault(f"{sender}'s 'cells' do not say of {shape[1]} groups that passed what passed of them")
    return cells.astype(np.bool_)


def _units(counts: GroupCounts) -> NDArray[np.int64]:
    """The units that count towards a threshold: none of a group whose key is too long to be released."""
    fits = np.fromiter(map(len, counts.keys), dtype=np.int64, count=len(counts.keys)) <= groupkeys.KEY_BYTES_MAX
    return np.where(fits, counts.units, 0)


def _holds_enough(terms: Terms, counts: GroupCounts, own: Flags) -> bool:
    """True if a contributor's groups that did not pass hold enough units for this to be told."""
    return int(counts.units[0][~own].sum()) >= max(terms.units, 1)


def _read_withheld(sender: PartyId, payload: bytes) -> tuple[int, int]:
    """The width of another contributor's keys that passed, and 1 if enough of its units were withheld."""
    _, (width, many) = unpack_bytes(sender, "withheld", payload, (0,), extras=2)
    if not groupkeys.is_width(width) or many > 1:
        raise PeerFault(f"{sender} announces keys of width {width}, and {many} for whether units were withheld")
    return width, many
