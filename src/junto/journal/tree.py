# SPDX-License-Identifier: Apache-2.0
"""The Merkle tree of a journal: roots, proofs and their verification (RFC 6962 section 2.1, RFC 9162 section 2.1).

A *node* `(level, index)` is the root of the complete subtree over the leaves `index << level` up to, not including,
`(index + 1) << level`; level 0 is the leaves. A complete subtree never changes again, so a store keeps each node once
and every root and proof, of any size the tree ever had, needs only about log2(size) of them.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from junto.errors import InvalidInput, PeerFault

HASH_BYTES = 32

Node = Callable[[int, int], bytes]
"""Reads the hash of a complete subtree: `(level, index)` in, 32 bytes out."""

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 ‖ entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """All that appending needs: the complete subtrees of a tree, largest first."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def appended(self, leaf: bytes) -> tuple["Frontier", tuple[bytes, ...]]:
        """The frontier with one more leaf, and the nodes it completed: the leaf, then parents upwards."""
        completed = [leaf]
        left = len(self.hashes)
        while (self.size >> (len(completed) - 1)) & 1:
            left -= 1
            completed.append(node_hash(self.hashes[left], completed[-1]))
        return Frontier(self.size + 1, (*self.hashes[:left], completed[-1])), tuple(completed)

    @property
    def root(self) -> bytes:
        """The root of the tree."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return root


def frontier_at(size: int, node: Node) -> Frontier:
    """The frontier the tree had at `size` leaves."""
    levels = [level for level in range(size.bit_length() - 1, -1, -1) if size >> level & 1]
    return Frontier(size, tuple(node(level, (size >> level) - 1) for level in levels))


def root_at(size: int, node: Node) -> bytes:
    """The root the tree had at `size` leaves."""
    return frontier_at(size, node).root


def inclusion_proof(index: int, size: int, node: Node) -> tuple[bytes, ...]:
    """The hashes that lead from leaf `index` to the root at `size` (RFC 9162 section 2.1.3.1).

    Raises InvalidInput unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise InvalidInput(f"entry {index} is not in a tree of {size}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = _split(start, end)
        if index < middle:
            path.append(_range_root(middle, end, node))
            end = middle
        else:
            path.append(_range_root(start, middle, node))
            start = middle
    return tuple(reversed(path))


def consistency_proof(old: int, new: int, node: Node) -> tuple[bytes, ...]:
    """The hashes that show the tree of `old` leaves to be the beginning of that of `new` (RFC 9162 section 2.1.4.1).

    Raises InvalidInput unless 0 <= old <= new. Nothing needs showing for an empty tree: the proof is empty.
    """
    if not 0 <= old <= new:
        raise InvalidInput(f"a tree of {old} is not the beginning of one of {new}")
    if old == 0:
        return ()
    path: list[bytes] = []
    start, end = 0, new
    while end != old:
        middle = _split(start, end)
        if old <= middle:
            path.append(_range_root(middle, end, node))
            end = middle
        else:
            path.append(_range_root(start, middle, node))
            start = middle
    if start:
        path.append(_range_root(start, end, node))
    return tuple(reversed(path))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Nothing, if the proof leads from the leaf's hash to the root; else PeerFault (RFC 9162 section 2.1.3.2)."""
    fault = PeerFault(f"the inclusion proof of entry {index} does not lead to the root of {size} entries")
    if not 0 <= index < size:
        raise fault
    place, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise fault
        if place & 1 or place == last:
            found = node_hash(sibling, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        place, last = place >> 1, last >> 1
    if last or found != root:
        raise fault


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Nothing, if the old tree is the beginning of the new one; else PeerFault (RFC 9162 section 2.1.4.2)."""
    fault = PeerFault(f"the tree of {old} entries is not shown to be the beginning of that of {new}")
    if not 0 <= old <= new:
        raise fault
    if old in (0, new):
        if proof or old_root != (new_root if old else EMPTY_ROOT):
            raise fault
        return
    steps = list(proof)
    if old & (old - 1) == 0:
        steps.insert(0, old_root)  # the old tree is one complete subtree: its root stands for itself
    if not steps:
        raise fault
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old_found = new_found = steps[0]
    for sibling in steps[1:]:
        if last == 0:
            raise fault
        if place & 1 or place == last:
            old_found = node_hash(sibling, old_found)
            new_found = node_hash(sibling, new_found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            new_found = node_hash(new_found, sibling)
        place, last = place >> 1, last >> 1
    if last or old_found != old_root or new_found != new_root:
        raise fault


def _split(start: int, end: int) -> int:
    """The place where RFC 6962 divides a range: after the largest power of two smaller than its length."""
    return start + (1 << ((end - start - 1).bit_length() - 1))


def _range_root(start: int, end: int, node: Node) -> bytes:
    level = (end - start).bit_length() - 1
    if end - start == 1 << level:
        return node(level, start >> level)
    middle = _split(start, end)
    return node_hash(_range_root(start, middle, node), _range_root(middle, end, node))
