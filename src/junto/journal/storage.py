# SPDX-License-Identifier: Apache-2.0
"""The storage under a journal: a place that keeps rows for good, and says which node may add to them.

`sqlite.py` and `postgres.py` are such places, and pass one suite of tests. One thread writes: it begins, adds what one
batch holds, commits. Any thread reads. Where several nodes of a party share a place, each transaction of the writer
checks in itself that the lease is still the one it writes under (`Fence`): a node that slept through a takeover wakes
to a refusal, not to a second history.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from junto.errors import Lack
from junto.types import TaskId


@dataclass(frozen=True, slots=True)
class Row:
    """A new entry: the columns of `entry`, in their order."""

    position: int
    kind: str
    task: str
    author: str
    id: str
    at: float
    envelope: bytes
    hashes: bytes

    @property
    def values(self) -> tuple[int, str, str, str, str, float, bytes, bytes]:
        """The entry's values in the order of the SQL statement."""
        return (self.position, self.kind, self.task, self.author, self.id, self.at, self.envelope, self.hashes)


@dataclass(frozen=True, slots=True)
class Held:
    """An entry that is there already."""

    position: int
    envelope: bytes
    author: str


@dataclass(frozen=True, slots=True)
class Fence:
    """The lease that a writer writes under. `fenced` hears, in one line, that it is another's now."""

    epoch: int
    fenced: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Cause:
    """The place's own name for what went wrong; why that is no reason to end, or nothing; what others may hear."""

    name: str
    passing: str = ""
    lack: Lack = "is full or failing"


class Rows(Protocol):
    """A connection that reads with plain SQL, `?` for each value. Any thread may use it."""

    @property
    def where(self) -> str:
        """The place, as messages name it."""

    def open(self) -> None:
        """Connect and check the format. Raises InvalidInput (no journal, a newer format) or StorageFailed."""

    def close(self) -> None:
        """Let go of it."""

    def run(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows that a statement gives; what it changes is committed. Raises StorageFailed."""

    def findings(self) -> int:
        """The number of faults that the place itself finds in its tables; 0 where it has no such check."""


class Storage(Protocol):
    """The writer's side. Between `begin` and `commit` one thread alone calls it."""

    errors: tuple[type[Exception], ...]
    """The errors that its methods raise when the place refuses, `Fenced` among them; `cause` reads the others."""

    @property
    def where(self) -> str:
        """The place, as messages name it."""

    @property
    def reading(self) -> Rows:
        """A connection of its own for those who read."""

    @property
    def shared(self) -> bool:
        """True if other nodes of the party may have written here before."""

    def open(self, *, begun: bool = False) -> None:
        """Take the place for this node; make the tables if they are not there. Raises InvalidInput, StorageFailed.

        begun: the party has had a journal here. A place without one is then refused, and nothing in it is touched.
        """

    def close(self) -> None:
        """Let go of it."""

    def begin(self) -> None:
        """Open a transaction. Raises Fenced when the lease is another's."""

    def held(self, ids: Sequence[str]) -> dict[str, Held]:
        """The ids among those given that are there."""

    def insert(self, rows: Sequence[Row]) -> None:
        """Add entries."""

    def mark(self, size: int, note: str) -> None:
        """Add a checkpoint, unless there is one of that size."""

    def keep(self, task: TaskId, name: str, content: bytes) -> None:
        """Keep something beside the entries."""

    def forget(self, task: TaskId, but: Collection[str]) -> None:
        """Let go of what a task keeps, but for some names."""

    def commit(self) -> None:
        """Make the transaction durable."""

    def undo(self) -> None:
        """Give the transaction up, if one is open."""

    def fold(self, at_end: bool) -> None:
        """Tidy up what many commits leave behind."""

    def cause(self, error: Exception) -> "Cause":
        """The reason of a failed write, and whether the node must end for it."""


def lost_line(where: str) -> str:
    """The refusal of a place that has lost its journal."""
    return (
        f"the journal {where} is missing or empty, and this party has had one: put it back from a backup, with its "
        f"-wal file if there is one; without a backup, `junto node start --new-journal` begins another and says so to "
        f"the other parties"
    )


def fenced_line(where: str, epoch: int, found: tuple[Any, ...] | None) -> str:
    """The message of a fenced writer."""
    now = f"{found[1] or 'nobody'} holds number {found[0]}" if found is not None else "there is none"
    return f"journal {where}: lease {epoch} of this node is over, {now}: nothing more is written here"
