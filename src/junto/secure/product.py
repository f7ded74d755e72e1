# SPDX-License-Identifier: Apache-2.0
"""The computing nodes' part of a threshold: multiply shared factors with a joint random, and open only the product.

Theory of operation
-------------------
n = 2t + 1 nodes hold Shamir shares of degree t of some sums s_c, one array per condition. A sum passes unless it is one
of 0, …, limit − 1. The nodes compute ρ · ∏_c ∏_{v < limit_c} (s_c − v), where ρ is the sum of one uniform element from
each node. The product is zero if any sum is below its limit; otherwise it is uniform over the nonzero field elements,
times the chance of 2⁻³¹ that ρ itself is zero (the group is then withheld although it passed).

Subtracting a constant is local. A multiplication multiplies shares, which raises the degree to 2t; each node then
shares its product afresh with degree t, and a fixed linear combination of the new shares is a share of degree t
of the same value. Factors are multiplied in a tree, so ⌈log₂(1 + Σ limit)⌉ rounds.

Adversary: semi-honest, static. Any t nodes together see only independent uniform elements and the opened product.
One honest node suffices for ρ to be uniform. The opening is checked for being of degree t, which finds a node that
errs, but does not say which.

Source: Ben-Or, Goldwasser, Wigderson, STOC 1988; degree reduction after Gennaro, Rabin, Rabin, PODC 1998, section 3.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from junto.errors import InvalidInput, PeerFault
from junto.secure.codec import pack, unpack_u32
from junto.secure.machine import Script, Send, receive
from junto.secure.shamir import Field, P, add, combine, multiply, rebuild, split, subtract, uniform, weights
from junto.types import PartyId, RandomBytes

ELEMENTS_MAX = 1 << 26
"""The most factors times groups that a node multiplies: 512 MiB of them."""

Elements = NDArray[np.uint32]


def rounds(factors: int) -> int:
    """How many rounds of multiplication a product of ρ and so many factors takes."""
    return factors.bit_length()


def zero_test(
    party: PartyId, nodes: Sequence[PartyId], limits: Sequence[int], sums: Field, random_bytes: RandomBytes
) -> Script[Field]:
    """This node's shares of the products, shape (n,), to be opened; `sums` are its shares of the sums, (conditions, n).

    `nodes` are 2t + 1 in an order that all share, `party` among them. Reads "rho" and "product-1", … of each other one.
    """
    conditions, size = sums.shape
    others = [node for node in nodes if node != party]
    degree = len(nodes) // 2
    own_row = list(nodes).index(party)

    def reshare(name: str, secret: Field) -> Script[list[Elements]]:
        """Share `secret` among the nodes; the shares this node got, one array per node, in their order."""
        shares = split(secret, len(nodes), degree, random_bytes).astype(np.uint32)
        for row, node in enumerate(nodes):
            if node != party:
                yield Send(node, name, pack(shares[row]))
        found = yield from receive(name, others, partial(read_elements, name, secret.shape))
        return [shares[own_row] if node == party else found[node] for node in nodes]

    randoms = yield from reshare("rho", uniform((size,), random_bytes))
    factors = np.empty((1 + sum(limits), size), dtype=np.uint64)
    factors[0] = combine(randoms, [1] * len(nodes))
    row = 1
    for condition in range(conditions):
        for value in range(limits[condition]):
            factors[row] = subtract(sums[condition], np.array(value, dtype=np.uint64))
            row += 1
    reduction = weights(len(nodes))
    for turn in range(1, rounds(sum(limits)) + 1):
        pairs = len(factors) // 2
        products = multiply(factors[:pairs], factors[pairs : 2 * pairs])
        reshared = yield from reshare(f"product-{turn}", products)
        factors = np.concatenate((combine(reshared, reduction), factors[2 * pairs :]))
    product: Field = factors[0]
    return product


def opened(party: PartyId, nodes: Sequence[PartyId], own: Field | None, size: int | None) -> Script[Field]:
    """The products, from the message "open" of each node; `own` is this party's share if it is a node.

    Raises PeerFault if the shares do not lie on polynomials of degree t.
    """
    others = [node for node in nodes if node != party]
    found = yield from receive("open", others, partial(read_elements, "open", (size,)))
    rows = [own.astype(np.uint32) if node == party and own is not None else found[node] for node in nodes]
    if len({row.shape for row in rows}) > 1:
        raise PeerFault(f"the nodes {', '.join(nodes)} opened different numbers of groups")
    try:
        return rebuild(np.stack(rows).astype(np.uint64), len(nodes) // 2)
    except InvalidInput as error:
        raise PeerFault(f"the opened shares disagree: one of {', '.join(nodes)} computed wrongly") from error


def summed(party: PartyId, shares: dict[PartyId, Elements], own: Field | None) -> Field:
    """The sum of the contributors' shares. Raises PeerFault if they are of different shapes."""
    total = own
    for sender, share in sorted(shares.items()):
        if total is not None and share.shape != total.shape:
            raise PeerFault(f"{sender} shared {share.shape[1]} groups with {party}, others {total.shape[1]}")
        wide = share.astype(np.uint64)
        total = wide if total is None else add(total, wide)
    if total is None:
        raise InvalidInput("nobody shares anything")
    return total


def check_size(limits: Sequence[int], size: int) -> None:
    """Raises InvalidInput if the product would be too large to compute."""
    if (1 + sum(limits)) * size > ELEMENTS_MAX:
        raise InvalidInput(
            f"{size} groups with a threshold of {sum(limits)} in all are too many to compare: group more coarsely"
        )


def read_elements(name: str, shape: tuple[int | None, ...], sender: PartyId, payload: bytes) -> Elements:
    """The field elements in a payload. Raises PeerFault unless they are of that shape and below P."""
    elements = unpack_u32(sender, name, payload, shape)
    if elements.size and int(elements.max()) >= P:
        raise PeerFault(f"{sender}'s {name!r} holds a number outside the field")
    return elements
