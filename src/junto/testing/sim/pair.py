# SPDX-License-Identifier: Apache-2.0
"""A party's two nodes over one store: the real lease, challenge and standby in virtual time, on a simulated place.

The lease lies in SQLite in memory, so its statements are the real ones; a journal's commit asks it as the writer's
transaction does. The renewal, a thread in `node/standby.py`, is a coroutine here that does the same.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

from junto.journal.beacon import Beacon
from junto.journal.lease import RENEWALS, Lease, Leases
from junto.journal.storage import Fence
from junto.node import standby as standbys
from junto.node.home import Home
from junto.node.settings import Shared
from junto.node.standby import Standby
from junto.testing.sim.loop import PROCESS, Process
from junto.types import PartyId

LEASE_SECONDS = 1.0
_TAKEOVER_SECONDS = 3.0
"""A store whose leading node died or hangs has another by then, if there is one that runs all the while."""


class _Rows:
    """The lease's table. See `junto.journal.storage.Rows`."""

    where = "the pair's store"

    def __init__(self) -> None:
        self._database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)

    def open(self) -> None:
        """Do nothing: the place is always open."""

    def close(self) -> None:
        """The store outlives who opens it."""

    def run(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows."""
        return self._database.execute(query, cast(Any, values)).fetchall()

    def findings(self) -> int:
        """None."""
        return 0


class _Lights:
    """See `Beacon`: lit while the process lives."""

    def __init__(self) -> None:
        self._lit: dict[int, Process | None] = {}

    def light(self, epoch: int) -> bool:
        """Light the beacon for the process that asks."""
        by = self._lit.get(epoch)
        if by is not None and not by.dead and by is not PROCESS.get():
            return False
        self._lit[epoch] = PROCESS.get()
        return True

    def is_out(self, epoch: int) -> bool:
        """True if the process that lit the beacon is dead."""
        by = self._lit.get(epoch)
        return by is not None and by.dead

    def put_out(self, epoch: int) -> None:
        """Nobody holds this store locked."""


class _Renewing:
    """Stands for the thread that renews a lease."""

    def __init__(self, *, target: Callable[[Lease], None], args: tuple[Lease], **_: object) -> None:
        self._standby = cast(Any, target).__self__
        self._lease = args[0]

    def start(self) -> None:
        """Renew from now on, as `Standby._renew` does."""
        asyncio.get_running_loop().create_task(self._renew())

    def join(self) -> None:
        """Do nothing: the renewal ends with its process."""

    async def _renew(self) -> None:
        standby, lease = self._standby, self._lease
        while True:
            await asyncio.sleep(lease.seconds / RENEWALS)
            if standby._stop.is_set():
                return
            asked = asyncio.get_running_loop().time()
            if not standby._leases.renew(lease.epoch, asked):
                standby._fenced(standby._over(lease))
                return
            standby._renewed = asked


@contextmanager
def in_virtual_time() -> Iterator[None]:
    """While it is entered, `node/standby.py` reads the loop's clock and renews on the loop."""

    def now() -> float:
        return asyncio.get_running_loop().time()

    clock = SimpleNamespace(monotonic=now, time=now, strftime=time.strftime, localtime=time.localtime)
    threads = SimpleNamespace(Event=threading.Event, Thread=_Renewing)
    with patch.object(standbys, "time", clock), patch.object(standbys, "threading", threads):
        yield


@dataclass(slots=True)
class Pair:
    """Two homes of one party, and what they share."""

    party: PartyId
    homes: tuple[Home, Home]
    rows: _Rows = field(default_factory=_Rows)
    lights: _Lights = field(default_factory=_Lights)
    takeovers: int = 0
    late: str = ""
    _who: Process | None = None  # could lead since
    _since: float = 0.0

    @property
    def shared(self) -> Shared:
        """The lease settings as a node reads them."""
        return Shared(cast(Any, self), LEASE_SECONDS)

    def leases(self) -> tuple[Leases, Beacon]:
        """See `Place.leases`."""
        return Leases(self.rows), self.lights

    def storage(self, fence: Fence | None) -> Any:
        """See `Place.storage`: here the fence alone, the journal is made elsewhere."""
        return fence

    def is_over(self, epoch: int) -> bool:
        """True if the lease is not that of the epoch any more."""
        return [(epoch,)] != self.rows.run("SELECT epoch FROM lease")

    async def lead(self, home: Home, stopping: asyncio.Event, fenced: Callable[[str], None], act: "Act") -> None:
        """One node's life: it stands by, leads, and lets go of the lease when it is stopped."""
        async with Standby(home.party.node, self.shared, fenced) as standby:
            fence = cast(Fence | None, await standby.lead(stopping, lambda lease: None))
            if fence is not None:
                self.takeovers += 1
                await act(fence, standby.leads)

    def look(self, now: float, leads: bool, could: list[Process]) -> None:
        """Called every moment. leads: a node acts. could: the processes that may take the store, if it is well."""
        if leads or self._who not in could:
            self._who, self._since = (could[0] if could and not leads else None), now
        elif now - self._since > _TAKEOVER_SECONDS and not self.late:
            self.late = f"nobody leads {self.party} for {now - self._since:.1f} s, though {could[0].name} could"


Act = Callable[[Fence, Callable[[], bool]], Coroutine[Any, Any, None]]
