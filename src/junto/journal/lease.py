# SPDX-License-Identifier: Apache-2.0
"""The right to write to a journal that several nodes of a party share: the one lease kept beside it, and its holder.

Roles: the *holder* renews the lease every quarter of its time; a *challenger* looks at it, and takes it over when it
has seen the same renewal for the whole time on its own steady clock, or when the holder let go of it, or is known to be
dead. No two clocks are ever compared. Each takeover counts the epoch up, by compare-and-set: of two challengers one
wins. Every transaction of a writer checks the epoch in itself (`storage.Fence`), so safety rests on the place that
keeps the journal, never on time: a holder that slept writes nothing, however late it wakes. Time decides only how soon
somebody acts.

Source: Gray & Cheriton, Leases, SOSP 1989; the fencing number is that of Burrows, Chubby, OSDI 2006, section 2.4.
"""

from dataclasses import dataclass, replace

from junto.errors import StorageFailed
from junto.journal.storage import Rows

RENEWALS = 4
"""The holder renews so often in the time of a lease; a challenger looks twice as often."""

LEASE_TABLE = """
CREATE TABLE IF NOT EXISTS lease (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    holder TEXT NOT NULL,              -- the node; empty: nobody
    epoch BIGINT NOT NULL,             -- counts the takeovers
    renewals BIGINT NOT NULL,
    seconds DOUBLE PRECISION NOT NULL, -- how long it holds without a renewal
    since DOUBLE PRECISION NOT NULL,   -- unix seconds, the holder's clock: for people alone
    renewed DOUBLE PRECISION NOT NULL
)
"""
"""The table that holds the lease, in SQLite as in Postgres."""

_COLUMNS = "holder, epoch, renewals, seconds, since, renewed"


@dataclass(frozen=True, slots=True)
class Lease:
    """The holder of the lease, the number of times the lease was taken, and of its renewals since."""

    holder: str
    epoch: int
    renewals: int
    seconds: float
    since: float
    renewed: float

    def after(self, seen: "Lease | None") -> "Lease":
        """The same, as what follows the lease that was seen."""
        return replace(self, epoch=seen.epoch + 1 if seen is not None else 1, renewals=0)


class Challenge:
    """A challenger's side. No clock: `look` is told the time."""

    def __init__(self) -> None:
        self._seen: Lease | None = None
        self._since = 0.0

    def look(self, found: Lease | None, now: float, gone: bool = False) -> bool:
        """True if the lease that was found may be taken over now.

        now: seconds of a clock that never jumps. gone: the holder is known to be dead.
        """
        if found is None or not found.holder or gone:
            return True
        before = self._seen
        if before is None or (before.epoch, before.renewals) != (found.epoch, found.renewals):
            self._seen, self._since = found, now
            return False
        return now - self._since >= found.seconds


class Leases:
    """The one lease that lies in a place. Any thread may use it; every method raises StorageFailed."""

    def __init__(self, rows: Rows) -> None:
        """rows: a connection that writes, and whose changes need not outlive a loss of power by themselves."""
        self._rows = rows

    def open(self) -> None:
        """Connect; make the lease's table if it is not there."""
        self._rows.open()
        try:
            self._rows.run(LEASE_TABLE)
        except BaseException:
            self._rows.close()
            raise

    def close(self) -> None:
        """Let go of the place."""
        self._rows.close()

    def read(self) -> Lease | None:
        """The lease; None if nobody ever held it."""
        found = self._rows.run(f"SELECT {_COLUMNS} FROM lease")
        match found:
            case []:
                return None
            case [(str(holder), int(epoch), int(renewals), float(seconds), float(since), float(renewed))]:
                return Lease(holder, epoch, renewals, seconds, since, renewed)
        raise StorageFailed(f"the lease in {self._rows.where} does not read")

    def take(self, seen: Lease | None, lease: Lease) -> bool:
        """Put a lease in the place of the one seen. False if that is not the one there any more."""
        values = (lease.holder, lease.epoch, lease.renewals, lease.seconds, lease.since, lease.renewed)
        if seen is None:
            query = f"INSERT INTO lease (one, {_COLUMNS}) VALUES (1, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
            return bool(self._rows.run(f"{query} RETURNING epoch", *values))
        query = (
            "UPDATE lease SET holder = ?, epoch = ?, renewals = ?, seconds = ?, since = ?, renewed = ?"
            " WHERE epoch = ? AND renewals = ? AND holder = ? RETURNING epoch"
        )
        return bool(self._rows.run(query, *values, seen.epoch, seen.renewals, seen.holder))

    def renew(self, epoch: int, now: float) -> bool:
        """Renew the lease of this epoch. False if it is over. now: unix seconds."""
        query = "UPDATE lease SET renewals = renewals + 1, renewed = ? WHERE epoch = ? AND holder <> '' RETURNING epoch"
        return bool(self._rows.run(query, now, epoch))

    def release(self, epoch: int) -> None:
        """Let go of the lease of this epoch, so that nobody waits for it to lapse."""
        self._rows.run("UPDATE lease SET holder = '' WHERE epoch = ? RETURNING epoch", epoch)
