# SPDX-License-Identifier: Apache-2.0
"""The present work of each node of one party, and the choice of the node for the next fragment.

The node that acts is always there; others help while they are connected. A fragment goes to the node that its key
belongs to on the ring (`hashing.py`), passing over nodes without a free slot: what a node has read before, it reads
again. One that no helper has room for is the acting node's, which makes it wait its turn.
"""

from collections import Counter
from dataclasses import dataclass

from junto.plan.steps import Query
from junto.tasks.hashing import Ring
from junto.types import NodeId, StepId, TaskId

LEAST_LEFT_SECONDS = 1.0
"""A task that must end sooner is not handed on: there would be no time to compute it again."""


@dataclass(frozen=True, slots=True)
class Running:
    """A fragment that a node computes, since then (seconds of the acting node's own time)."""

    task: TaskId
    step: StepId
    node: NodeId
    since: float


class Nodes:
    """A party's nodes, as the one that acts knows them. No clock, no socket."""

    def __init__(self, me: NodeId, slots: int) -> None:
        self.me = me
        self._slots = {me: slots}
        self._running: list[Running] = []
        self.computed: Counter[NodeId] = Counter()  # fragments that each node has computed to their end

    @property
    def slots(self) -> int:
        """The number of fragments that all of them compute at once."""
        return sum(self._slots.values())

    @property
    def helpers(self) -> tuple[NodeId, ...]:
        """The others, by name."""
        return tuple(sorted(node for node in self._slots if node != self.me))

    def slots_of(self, node: NodeId) -> int:
        """The number of fragments that a node computes at once; 0 if it does not help."""
        return self._slots.get(node, 0)

    def joined(self, node: NodeId, slots: int) -> None:
        """A node helps from now on."""
        self._slots[node] = slots

    def left(self, node: NodeId) -> None:
        """A node helps no more; what it computed is computed anew by others."""
        if node != self.me:
            self._slots.pop(node, None)
            self._running = [one for one in self._running if one.node != node]

    def choose(self, key: str) -> NodeId:
        """The node that takes one more fragment of this key."""
        loads = self.loads
        free = tuple(sorted(node for node, slots in self._slots.items() if loads[node] < slots))
        return Ring(free).choose(key, loads) if free else self.me

    def helper(self, key: str) -> NodeId | None:
        """A node with room, other than the acting one, that takes a fragment of this key; None if there is none."""
        loads = self.loads
        free = tuple(node for node in self.helpers if loads[node] < self._slots[node])
        return Ring(free).choose(key, loads) if free else None

    def begin(self, running: Running) -> None:
        """A node computes a fragment."""
        self._running.append(running)

    def end(self, running: Running, *, whole: bool) -> None:
        """Note that a node's work on a fragment is over. whole: the node has given all rows of it."""
        if running in self._running:
            self._running.remove(running)
        self.computed[running.node] += whole

    def running(self, node: NodeId) -> tuple[Running, ...]:
        """A node's present work, the oldest first."""
        return tuple(one for one in self._running if one.node == node)

    @property
    def loads(self) -> Counter[NodeId]:
        """The number of fragments that each node computes now."""
        return Counter(one.node for one in self._running)


def can_be_placed(step: Query) -> bool:
    """True if any node of the party can compute a fragment: it reads datasets alone, nothing that one node holds."""
    return bool(step.reads) and all(read.dataset is not None and read.version is not None for read in step.reads)


def placing_key(step: Query) -> str:
    """The datasets that a fragment reads: fragments of one key go to one node, where the files are cached."""
    return " ".join(sorted(f"{read.dataset}@{read.version}" for read in step.reads))


def patience_seconds(left: float) -> float:
    """The time that a helper may take for a fragment of a task that ends in `left` seconds: half, so that the acting
    node has the other half to compute it itself."""
    return left / 2 if left >= LEAST_LEFT_SECONDS else 0.0
