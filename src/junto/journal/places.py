# SPDX-License-Identifier: Apache-2.0
"""Places for a journal that several nodes of a party share, by their address.

sqlite:/absolute/path/journal.db     nodes on one machine
postgresql://user@host/database      nodes on several machines; one database per party
"""

from dataclasses import dataclass
from pathlib import Path

from junto.errors import InvalidInput
from junto.journal.beacon import Beacon, FileBeacon
from junto.journal.lease import Leases
from junto.journal.sqlite import SqliteRows, SqliteStorage
from junto.journal.storage import Fence, Rows, Storage


@dataclass(frozen=True, slots=True)
class SqlitePlace:
    """A file."""

    path: Path

    def storage(self, fence: Fence) -> Storage:
        """The writer's side."""
        return SqliteStorage(self.path, fence=fence)

    def rows(self) -> Rows:
        """A connection that reads."""
        return SqliteRows(self.path)

    def leases(self) -> tuple[Leases, Beacon]:
        """The lease that lies there, and the holder's sign of life."""
        return Leases(SqliteRows(self.path, writes=True)), FileBeacon(self.path)


Place = SqlitePlace


def place_at(address: str) -> Place:
    """The place an address names. Raises InvalidInput."""
    kind, found, rest = address.partition(":")
    if kind == "sqlite" and found:
        path = Path(rest)
        if not path.is_absolute():
            raise InvalidInput(f"store {address!r}: write the whole path, sqlite:/shared/journal.db")
        return SqlitePlace(path)
    raise InvalidInput("a store is sqlite:/path/of/journal.db or postgresql://user@host/database")
