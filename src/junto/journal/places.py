# SPDX-License-Identifier: Apache-2.0
"""Places for a journal that several nodes of a party share, by their address.

sqlite:/absolute/path/journal.db     nodes on one machine
postgresql://user@host/database      nodes on several machines; one database per party, its password in ~/.pgpass
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from junto.errors import InvalidInput
from junto.journal.beacon import Beacon, FileBeacon
from junto.journal.lease import Leases
from junto.journal.sqlite import SqliteRows, SqliteStorage
from junto.journal.storage import Fence, Rows, Storage


@dataclass(frozen=True, slots=True)
class SqlitePlace:
    """A file."""

    path: Path

    def storage(self, fence: Fence | None) -> Storage:
        """The writer's side; without a fence, for one who knows that no node runs."""
        return SqliteStorage(self.path, fence=fence)

    def rows(self) -> Rows:
        """A connection that reads."""
        return SqliteRows(self.path)

    def leases(self) -> tuple[Leases, Beacon]:
        """The lease that lies there, and the holder's sign of life."""
        return Leases(SqliteRows(self.path, writes=True)), FileBeacon(self.path)


@dataclass(frozen=True, slots=True)
class PostgresPlace:
    """A database."""

    url: str

    def storage(self, fence: Fence | None) -> Storage:
        """The writer's side; without a fence, for one who knows that no node runs."""
        with _extra():
            from junto.journal.postgres import PostgresStorage
        return PostgresStorage(self.url, fence=fence)

    def rows(self) -> Rows:
        """A connection that reads."""
        with _extra():
            from junto.journal.postgres import PostgresRows
        return PostgresRows(self.url)

    def leases(self) -> tuple[Leases, Beacon]:
        """The lease that lies there, and the holder's sign of life."""
        with _extra():
            from junto.journal.postgres import PostgresBeacon, PostgresRows
        rows = PostgresRows(self.url, writes=True)
        return Leases(rows), PostgresBeacon(rows)


@contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise InvalidInput("a store in Postgres needs psycopg: pip install 'junto[ha]'") from None


Place = SqlitePlace | PostgresPlace


def place_at(address: str) -> Place:
    """The place an address names. Raises InvalidInput."""
    kind, found, rest = address.partition(":")
    if kind == "sqlite" and found:
        path = Path(rest)
        if not path.is_absolute():
            raise InvalidInput(f"store {address!r}: write the whole path, sqlite:/shared/journal.db")
        return SqlitePlace(path)
    if kind in ("postgresql", "postgres") and rest.startswith("//"):
        if urlsplit(address).password or "password" in address:
            raise InvalidInput("the store's address holds a password: put that in ~/.pgpass, or in $PGPASSWORD")
        return PostgresPlace(address)
    raise InvalidInput("a store is sqlite:/path/of/journal.db or postgresql://user@host/database")
