# SPDX-License-Identifier: Apache-2.0
"""Multiplication of shared numbers by an honest majority: nothing is opened unless every product was right.

Theory of operation
-------------------
n = 2t + 1 nodes hold Shamir shares of degree t. Sums and multiples of shared numbers are local. A product is taken
share by share, which raises the degree to 2t; each node shares its product afresh with degree t, and a fixed
combination of the new shares is a share of degree t of the same value (Gennaro, Rabin, Rabin). A node that deviates
there adds a number of its choice to the product: nothing else (Genkin et al.; Lindell, Nof). Beside each number x the
nodes therefore carry r·x, for a joint random r that nobody knows, and multiply both; a number that was added to x·y
is not r times what was added to r·x·y. A `Wire` holds a node's shares of x and of r·x for each of CHECKS independent
r.

Rounds.
 1. "random": each node deals shares of random numbers (those of the caller, the r, and what the checks below take), and
    commits to a seed.
 2. "mac": the products r·x of the inputs.
 3. "product-1", …: the caller's products, all that are independent of each other in one round.
 4. "coin": each node opens its seed once it has every message of the rounds before. The seeds together give the
    coefficients α. With the seed goes a digest of all commitments, so that all nodes have the same ones.
 5. "check": u = Σ α·(r·x) and w = Σ α·x over all wires, a random number and its r-fold among them. For each verifier
    apart, the nodes send that verifier shares of ρ·u − (ρ·r)·w, of degree 2t, hidden but for the value at 0, with a
    joint random ρ for that verifier alone. The value is ρ·(u − r·w): zero if nobody deviated. Also, for the inputs of
    each contributor, shares of Σ γ·x plus a random number of the contributor's: they must lie on a polynomial of
    degree t.

A node that finds both right may open results. They are of degree t among n nodes, of which t + 1 are honest, so an
opened number is right or the reader notices.

Adversary: malicious, static, at most t of the nodes and any number of contributors. Messages may be held back and sent
after those of others: the seeds of all honest nodes are needed to know α, and each opens its own after it has all
messages; a verifier's shares go to it alone, so no node can fit its own share to the others'.

Bound. For one check: some number is wrong, and u = r·w, with probability at most 2/P over r and α; u ≠ r·w, and the
shares for an honest verifier still give zero, with probability at most 1/P over its ρ. The CHECKS = 2 checks have r,
ρ and α of their own: a wrong number is opened with probability at most (3/P)² < 2⁻⁵⁸. A check that fails tells a
verifier a uniform number.

Gain of a deviating node: the end of the run. A node that gives different messages to different nodes is one case
of the above. The deviating node shows only where a message is malformed, a seed does not fit its commitment, or one
contributor's shares lie on no polynomial (then it is that contributor, or a node).

Cost: three products for one. A field of 2⁶¹ − 1 would take two for one, of four times the work each in numpy.

Source: Chida, Genkin, Hamada, Ikarashi, Kikuchi, Lindell, Nof, CRYPTO 2018, protocol 4.1 for small fields; Gennaro,
Rabin, Rabin, PODC 1998, section 3; Genkin et al., STOC 2014; Lindell, Nof, CCS 2017.
"""

import hashlib
import hmac
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from junto.errors import InvalidInput, PeerFault
from junto.secure.codec import pack, unpack_bytes, unpack_u32
from junto.secure.keystream import Keystream, derive, stretched
from junto.secure.machine import Script, Send, receive
from junto.secure.shamir import (
    Field,
    P,
    Shares,
    add,
    combine,
    folded,
    inner,
    multiply,
    rebuild,
    reduced,
    split,
    subtract,
    uniform,
    weights,
)
from junto.types import PartyId, RandomBytes

T = TypeVar("T")

CHECKS = 2
"""The number of independent checks that a run takes."""

DIGEST_WORDS = 9
"""The number of elements that carry a digest of 32 bytes."""

Wire = Shares
"""A node's shares of n numbers x, and of r·x for each check: shape (1 + CHECKS, n)."""

Pair = tuple[Wire, Shares]
"""A wire, and shares (n,) of the numbers by which it is to be multiplied. Or m of each, (1 + CHECKS, m, n) and (m, n),
whose products are added up: that is one multiplication, too."""

Job = Generator[list[Pair], list[Wire], Wire]
"""A computation: yields the pairs to multiply in one round, is sent their products, returns its result."""

_BLOCK = 1 << 15
"""The most numbers worked on at a time: they stay in the second-level cache."""
_SEED_BYTES = 32
_WORD_BITS = 30


def messages(rounds: int) -> tuple[str, ...]:
    """The names of what a node reads of each other one, for jobs of so many rounds."""
    return ("random", "mac", *(f"product-{turn}" for turn in range(1, rounds + 1)), "coin", "check")


class Arithmetic:
    """One node's side: deal, authenticate, compute, prove, in that order; then its results may be opened."""

    def __init__(self, party: PartyId, nodes: Sequence[PartyId], context: bytes, random_bytes: RandomBytes) -> None:
        """`nodes` are 2t + 1 in an order that all share, `party` among them."""
        self.party = party
        self.nodes = tuple(nodes)
        self.degree = len(nodes) // 2
        self._others = tuple(node for node in nodes if node != party)
        self._row = self.nodes.index(party)
        self._reduction = weights(len(nodes))
        self._context = context
        self._random_bytes = stretched(random_bytes)
        self._seed = random_bytes(_SEED_BYTES)
        self._commitments: dict[PartyId, bytes] = {}
        self._wires: list[Wire] = []  # all that the checks look at

    def deal(self, count: int) -> Script[Shares]:
        """Shares of `count` uniform numbers that nobody knows."""
        verifiers = len(self.nodes)
        fixed = CHECKS * (2 + verifiers)
        drawn = uniform((count + fixed,), self._random_bytes)
        shares = np.concatenate(
            (
                split(drawn, verifiers, self.degree, self._random_bytes),
                split(
                    np.zeros(CHECKS * verifiers, dtype=np.uint64), verifiers, 2 * self.degree, self._random_bytes
                ),  # hides all of a product of degree 2t but its value at 0
            ),
            axis=1,
        )
        own_commitment = commitment(self._context, self.party, self._seed)
        words = words_of(own_commitment)
        for row, node in enumerate(self.nodes):
            if node != self.party:
                yield Send(node, "random", pack(np.concatenate((words, shares[row]))))
        read = partial(read_elements, "random", (DIGEST_WORDS + shares.shape[1],))
        found = yield from receive("random", self._others, read)
        self._commitments = {node: _bytes(found[node][:DIGEST_WORDS]) for node in self._others}
        self._commitments[self.party] = own_commitment
        rows = [shares[self._row], *(found[node][DIGEST_WORDS:] for node in self._others)]
        total = combine(rows, [1] * len(rows)).astype(np.uint32)
        given, self._r, self._masks, self._rho, self._zeros = np.split(
            total, np.cumsum([count, CHECKS, CHECKS, CHECKS * verifiers])
        )
        return given

    def authenticate(self, inputs: Sequence[Shares]) -> Script[list[Wire]]:
        """The inputs, shares of shape (n,), as wires."""
        lengths = [len(shares) for shares in inputs]
        flat = np.concatenate(inputs) if inputs else np.zeros(0, dtype=np.uint32)
        verifiers = len(self.nodes)
        pairs: list[Pair] = [(np.broadcast_to(r, (1, len(flat))), flat) for r in self._r]
        pairs.append((self._masks[None], self._r))
        pairs.append((self._rho[None], np.tile(self._r, verifiers)))
        *macs, masks, self._rho_r = (row[0] for row in (yield from self._multiplied("mac", pairs)))
        self._mask_macs = masks
        wire = np.stack((flat, *macs))
        self._wires.append(wire)
        return np.split(wire, np.cumsum(lengths)[:-1], axis=1) if inputs else []

    def computed(self, job: Job, rounds: int) -> Script[Wire]:
        """The job's result, in so many rounds."""
        pairs = next(job)
        for turn in range(1, rounds + 1):
            products = yield from self._multiplied(f"product-{turn}", pairs)
            self._wires += products
            try:
                pairs = job.send(products)
            except StopIteration as stop:
                result: Wire = stop.value
                if turn != rounds:
                    raise InvalidInput(f"a computation of {rounds} rounds took {turn}") from None
                return result
        raise InvalidInput(f"a computation takes more than {rounds} rounds")

    def prove(self, inputs: Mapping[PartyId, tuple[Shares, Shares]]) -> Script[None]:
        """Raises PeerFault unless all products were right and the inputs lie on polynomials of degree t.

        inputs: of each contributor, this node's shares of its numbers, (n,), and of CHECKS random ones.
        """
        coin = yield from self._coin()
        u, w = self._combined(coin)
        shape = (len(self.nodes), CHECKS)
        rho, rho_r, zeros = (x.reshape(shape) for x in (self._rho, self._rho_r, self._zeros))
        proofs = add(subtract(multiply(rho, u), multiply(rho_r, w)), zeros)
        hidden = [_masked_sums(coin, numbers, masks) for _, (numbers, masks) in sorted(inputs.items())]
        own = {
            node: np.concatenate((proof, *hidden)).astype(np.uint32)
            for node, proof in zip(self.nodes, proofs, strict=True)
        }
        for node in self._others:
            yield Send(node, "check", pack(own[node]))
        length = CHECKS * (1 + len(inputs))
        found = yield from receive("check", self._others, partial(read_elements, "check", (length,)))
        rows = np.stack([own[node] if node == self.party else found[node] for node in self.nodes])
        for index, contributor in enumerate(sorted(inputs), start=1):
            try:
                rebuild(rows[:, CHECKS * index : CHECKS * (index + 1)], self.degree)
            except InvalidInput as error:
                raise PeerFault(
                    f"the shares of {contributor}'s counts do not fit together: {contributor} deviated, or one of"
                    f" {', '.join(self.nodes)}; nothing was opened"
                ) from error
        if np.any(combine(rows[:, :CHECKS], self._reduction)):
            raise PeerFault(f"a product is wrong: one of {', '.join(self.nodes)} deviated; nothing was opened")
        self._wires.clear()

    def constant(self, value: int) -> Field:
        """This node's shares of a known number as a wire's column, shape (1 + CHECKS, 1)."""
        key = np.concatenate((np.ones(1, dtype=np.uint64), self._r.astype(np.uint64)))
        return multiply(key, np.full_like(key, value % P))[:, None]

    def linear(self, wires: Sequence[Wire], factors: Sequence[int], constant: int = 0) -> Wire:
        """Σ factors[i] · wires[i] + constant, as a wire."""
        total = combine(wires, [factor % P for factor in factors])
        return add(total, self.constant(constant)).astype(np.uint32)

    def _multiplied(self, name: str, pairs: Sequence[Pair]) -> Script[list[Wire]]:
        """The products of the pairs, of the shapes of their wires, in one round."""
        sizes = [len(wire) * wire.shape[-1] for wire, _ in pairs]
        total = sum(sizes)
        shares = np.empty((len(self.nodes), total), dtype=np.uint32)
        at = 0
        for products in _blocks(pairs):
            shares[:, at : at + len(products)] = split(products, len(self.nodes), self.degree, self._random_bytes)
            at += len(products)
        for row, node in enumerate(self.nodes):
            if node != self.party:
                yield Send(node, name, pack(shares[row]))
        found = yield from receive(name, self._others, partial(read_elements, name, (total,)))
        rows = [shares[self._row] if node == self.party else found[node] for node in self.nodes]
        flat = np.empty(total, dtype=np.uint32)
        for start in range(0, total, _BLOCK):
            stop = start + _BLOCK
            flat[start:stop] = combine([row[start:stop] for row in rows], self._reduction)
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        return [part.reshape(len(wire), -1) for part, (wire, _) in zip(parts, pairs, strict=True)]

    def _coin(self) -> Script[bytes]:
        """The joint seed, after every node has opened its own."""
        agreed = hashlib.sha256(b"".join(self._commitments[node] for node in self.nodes)).digest()
        for node in self._others:
            yield Send(node, "coin", pack(np.frombuffer(self._seed + agreed, dtype=np.uint8)))

        def read(sender: PartyId, payload: bytes) -> bytes:
            both = unpack_bytes(sender, "coin", payload, (2 * _SEED_BYTES,))[0].tobytes()
            seed, theirs = both[:_SEED_BYTES], both[_SEED_BYTES:]
            if not hmac.compare_digest(commitment(self._context, sender, seed), self._commitments[sender]):
                raise PeerFault(f"{sender}'s coin is not the one that it committed to; nothing was opened")
            if theirs != agreed:
                raise PeerFault(
                    f"{sender} was told other commitments than {self.party}: one of {', '.join(self.nodes)} deviated;"
                    " nothing was opened"
                )
            return seed

        seeds = {**(yield from receive("coin", self._others, read)), self.party: self._seed}
        return derive(b"".join(seeds[node] for node in self.nodes), "threshold-coin", self._context)

    def _combined(self, coin: bytes) -> tuple[Field, Field]:
        """This node's shares of u and w, one of each for each check."""
        u, w = self._mask_macs.astype(np.uint64), self._masks.astype(np.uint64)
        draws = [_coefficients(coin, f"wires {check}") for check in range(CHECKS)]
        for block in _gathered(self._wires):
            for check, draw in enumerate(draws):
                alpha = uniform((block.shape[1],), draw)
                u[check] = (int(u[check]) + inner(alpha, block[1 + check])) % P
                w[check] = (int(w[check]) + inner(alpha, block[0])) % P
        return u, w


def opened(party: PartyId, nodes: Sequence[PartyId], own: Shares | None, size: int | None) -> Script[Field]:
    """The numbers behind the shares in each node's message "open"; `own` are this party's if it is a node.

    Raises PeerFault if the shares do not lie on polynomials of degree t.
    """
    others = [node for node in nodes if node != party]
    found = yield from receive("open", others, partial(read_elements, "open", (size,)))
    rows = [own if node == party and own is not None else found[node] for node in nodes]
    if len({row.shape for row in rows}) > 1:
        raise PeerFault(f"the nodes {', '.join(nodes)} opened different numbers of groups")
    try:
        return rebuild(np.stack(rows), len(nodes) // 2)
    except InvalidInput as error:
        raise PeerFault(f"the opened shares disagree: one of {', '.join(nodes)} computed wrongly") from error


def read_elements(name: str, shape: tuple[int | None, ...], sender: PartyId, payload: bytes) -> Shares:
    """The field elements in a payload. Raises PeerFault unless they are of that shape and below P."""
    elements = unpack_u32(sender, name, payload, shape)
    if elements.size and int(elements.max()) >= P:
        raise PeerFault(f"{sender}'s {name!r} holds a number outside the field")
    return elements


def words_of(digest: bytes) -> Shares:
    """32 bytes as numbers that a field element holds, to travel beside shares."""
    number = int.from_bytes(digest, "big")
    words = [(number >> (_WORD_BITS * index)) & ((1 << _WORD_BITS) - 1) for index in range(DIGEST_WORDS)]
    return np.array(words, dtype=np.uint32)


def together(jobs: Sequence[Generator[list[Pair], list[Wire], T]]) -> Generator[list[Pair], list[Wire], list[T]]:
    """Several computations in the same rounds; their results, in their order."""
    results: dict[int, T] = {}
    waiting: dict[int, list[Pair]] = {}
    for index, job in enumerate(jobs):
        try:
            waiting[index] = next(job)
        except StopIteration as stop:
            results[index] = stop.value
    while waiting:
        products = yield [pair for pairs in waiting.values() for pair in pairs]
        at = 0
        for index, pairs in list(waiting.items()):
            mine = products[at : at + len(pairs)]
            at += len(pairs)
            try:
                waiting[index] = jobs[index].send(mine)
            except StopIteration as stop:
                results[index] = stop.value
                del waiting[index]
    return [results[index] for index in range(len(jobs))]


def _blocks(pairs: Sequence[Pair]) -> Iterator[Field]:
    """The products of the pairs, one after the other, row by row, a block at a time."""
    held: list[Field] = []
    length = 0
    for wire, by in pairs:
        for row in wire:
            for start in range(0, by.shape[-1], _BLOCK):
                stop = start + _BLOCK
                held.append(_product(row[..., start:stop], by[..., start:stop]))
                length += len(held[-1])
                if length >= _BLOCK:
                    yield reduced(np.concatenate(held))
                    held, length = [], 0
    if held:
        yield reduced(np.concatenate(held))


def _product(a: Shares, b: Shares) -> Field:
    """a · b, elementwise or as inner products over the first axis; below 2⁶³ but not reduced."""
    if a.ndim == 1:
        return np.multiply(a, b, dtype=np.uint64)
    total = np.zeros(a.shape[-1], dtype=np.uint64)
    for x, y in zip(a, b, strict=True):
        np.add(total, folded(np.multiply(x, y, dtype=np.uint64)), out=total)
    return total


def _gathered(wires: Sequence[Wire]) -> Iterator[Wire]:
    """The wires beside each other, some _BLOCK numbers at a time."""
    held: list[Wire] = []
    length = 0
    for wire in wires:
        for start in range(0, wire.shape[1], _BLOCK):
            held.append(wire[:, start : start + _BLOCK])
            length += held[-1].shape[1]
            if length >= _BLOCK:
                yield np.concatenate(held, axis=1)
                held, length = [], 0
    if held:
        yield np.concatenate(held, axis=1)


def _masked_sums(coin: bytes, numbers: Shares, masks: Shares) -> Field:
    """Shares of Σ γ · number + mask, one for each check."""
    sums = masks.astype(np.uint64)
    for check in range(CHECKS):
        draw = _coefficients(coin, f"inputs {check}")
        total = int(sums[check])
        for start in range(0, len(numbers), _BLOCK):
            block = numbers[start : start + _BLOCK]
            total += inner(uniform((len(block),), draw), block)
        sums[check] = total % P
    return sums


def _coefficients(coin: bytes, what: str) -> RandomBytes:
    return Keystream(derive(coin, "threshold-coefficients", what.encode(), size=16)).take


def commitment(context: bytes, party: PartyId, seed: bytes) -> bytes:
    return derive(seed, "coin-commitment", context, party.encode())


def _bytes(words: Shares) -> bytes:
    """The bytes that `words_of` was given; of any other words, something that no digest equals."""
    number = sum(int(word) << (_WORD_BITS * index) for index, word in enumerate(words))
    return number.to_bytes(40, "big")[-40:].lstrip(b"\0").rjust(32, b"\0")
