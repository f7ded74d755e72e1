# SPDX-License-Identifier: Apache-2.0
"""The node of a party that runs a fragment: consistent hashing with bounded loads.

Each node stands at many points of a ring, each key at one; a key belongs to the next node clockwise that has room. No
node holds more than `factor` times its fair share, so a popular stretch of the ring overflows to the nodes behind it.
A node that joins or leaves moves few keys: those it takes or held, and of the rest what overflows differently, which in
expectation is a constant number of nodes' shares that depends on the factor alone.

A key says what should stay together: the dataset and version a fragment reads, so that copies kept on a node's disk are
found again, or the task and step where nothing is kept.

Source: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018; Karger et al., STOC 1997.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from junto.errors import InvalidInput
from junto.types import NodeId

FACTOR = Fraction(5, 4)
"""The load of a node over its fair share, at most: 1.25."""

POINTS = 64
"""The points of each node on the ring: the shares of equal nodes then differ by some 12 % before any bound."""


@dataclass(frozen=True, slots=True)
class Ring:
    """A party's nodes on the ring. The same nodes give the same ring everywhere, in whatever order they are named.

    Raises InvalidInput if there is no node, one is named twice, or the factor is not above 1.
    """

    nodes: tuple[NodeId, ...]
    factor: Fraction = FACTOR
    points: int = POINTS
    _ring: tuple[tuple[int, NodeId], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.nodes or len(set(self.nodes)) != len(self.nodes):
            raise InvalidInput("a ring needs at least one node, each named once")
        if self.factor <= 1 or self.points < 1:
            raise InvalidInput(
                f"a ring of factor {self.factor} with {self.points} points a node: more than 1, at least 1"
            )
        stands = sorted((_place(f"{node} {point}"), node) for node in self.nodes for point in range(self.points))
        object.__setattr__(self, "_ring", tuple(stands))

    def choose(self, key: str, loads: Mapping[NodeId, int]) -> NodeId:
        """The node that takes one more fragment, of this key.

        loads: how many fragments each node has now; a node that is not named has none, others than the ring's do not
        count. If no node was above `capacity` before, none is afterwards.
        """
        room = self.capacity(sum(loads.get(node, 0) for node in self.nodes) + 1)
        for node in self.order(key):
            if loads.get(node, 0) < room:
                return node
        raise InvalidInput("every node of the ring is above its share: loads below zero, or not a whole count")

    def capacity(self, fragments: int) -> int:
        """The most that one node holds of so many fragments in all: ⌈factor · fragments / nodes⌉."""
        return -int(-self.factor * fragments // len(self.nodes))

    def order(self, key: str) -> Iterator[NodeId]:
        """The nodes in the order in which a key is offered to them, each once."""
        start = bisect_right(self._ring, _place(key), key=lambda stand: stand[0])
        seen: set[NodeId] = set()
        for _, node in (*self._ring[start:], *self._ring[:start]):
            if node not in seen:
                seen.add(node)
                yield node

    def spread(self, keys: Iterable[str]) -> dict[str, NodeId]:
        """A node for each of some keys, whatever order they come in."""
        wanted = sorted(set(keys), key=lambda key: (_place(key), key))
        room = self.capacity(len(wanted))
        loads = dict.fromkeys(self.nodes, 0)
        found: dict[str, NodeId] = {}
        for key in wanted:
            node = next(node for node in self.order(key) if loads[node] < room)
            loads[node] += 1
            found[key] = node
        return found


def _place(text: str) -> int:
    """A place on the ring of 2⁶⁴, the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
