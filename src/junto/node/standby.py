# SPDX-License-Identifier: Apache-2.0
"""One of several nodes of a party: it stands by until the lease of their journal is its own, then acts and renews it.

A node that stands by listens to nobody and writes nothing. The one that acts and finds its lease over has been taken
for dead: it ends at once, and whoever starts it again makes it stand by.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Self

from junto.errors import StorageFailed
from junto.journal.beacon import Beacon
from junto.journal.lease import RENEWALS, Challenge, Lease, Leases
from junto.journal.storage import Fence, Storage
from junto.logs import logger
from junto.node.settings import Shared
from junto.node.waits import within

_log = logger("junto.standby")
_SILENT_LEASES = 8  # a holder that cannot reach the store for so many times its lease gives up acting
_WARM = ("junto.node.work", "junto.engines.duckdb")


class Standby:
    """One node's side of a party's lease. `async with Standby(...)`; then `lead`, and what that gives is its place."""

    def __init__(self, node: str, shared: Shared, fenced: Callable[[str], None]) -> None:
        """fenced: hears that the lease is over, from any thread; in production it ends the process."""
        self._node = node
        self._shared = shared
        self._fenced = fenced
        self._leases: Leases
        self._beacon: Beacon
        self._leases, self._beacon = shared.place.leases()
        self._held: Lease | None = None
        self._renewed = 0.0  # monotonic seconds, before the store was asked
        self._stop = threading.Event()
        self._renewing: threading.Thread | None = None

    async def __aenter__(self) -> Self:
        """Reach the store. Raises InvalidInput, StorageFailed."""
        await asyncio.to_thread(self._leases.open)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of the lease, so that another may act at once."""
        await asyncio.to_thread(self._close)

    async def lead(self, stopping: asyncio.Event, waiting: Callable[[Lease], None]) -> Storage | None:
        """The journal's place, ours to write, once the lease is ours; None if it is time to stop.

        waiting: hears who acts, each time it is another.
        """
        challenge = Challenge()
        warm = False
        told = 0
        while not stopping.is_set():
            found = await asyncio.to_thread(self._look, challenge)
            if self._held is not None:
                return self._shared.place.storage(Fence(self._held.epoch, self._fenced))
            if found is not None and found.holder and found.epoch != told:
                told = found.epoch
                waiting(found)
            if not warm:
                for module in _WARM:
                    await asyncio.to_thread(import_module, module)
                warm = True
            await within(stopping.wait(), self._shared.lease_seconds / RENEWALS / 2)
        return None

    def leads(self) -> bool:
        """True if nobody can have taken the lease over yet. False right after we hung, until it is renewed or lost."""
        return self._held is not None and time.monotonic() - self._renewed < self._held.seconds

    def _look(self, challenge: Challenge) -> Lease | None:
        """Look at the lease, and take it if that may be."""
        try:
            found = self._leases.read()
            gone = found is not None and bool(found.holder) and self._beacon.is_out(found.epoch)
            if challenge.look(found, time.monotonic(), gone):
                self._take(found, gone)
        except StorageFailed as error:
            _log.warning("the lease cannot be read", reason=str(error))
            return None
        return found

    def _take(self, seen: Lease | None, gone: bool) -> None:
        now = time.time()
        lease = Lease(self._node, 0, 0, self._shared.lease_seconds, now, now).after(seen)
        self._renewed = time.monotonic()
        try:
            if not self._beacon.light(lease.epoch) or not self._leases.take(seen, lease):
                return
        except StorageFailed:
            if seen is not None and seen.holder and not gone:
                # Its lease has lapsed, and it holds the store locked: stopped, say, in the middle of a write.
                _log.warning("the node that hangs is ended", node=seen.holder, epoch=seen.epoch)
                self._beacon.put_out(seen.epoch)
            raise
        self._held = lease
        before = seen.holder if seen is not None else ""
        _log.info("lease taken", node=self._node, epoch=lease.epoch, before=before)
        self._renewing = threading.Thread(target=self._renew, args=(lease,), name="lease", daemon=True)
        self._renewing.start()

    def _renew(self, lease: Lease) -> None:
        while not self._stop.wait(lease.seconds / RENEWALS):
            asked = time.monotonic()
            try:
                mine = self._leases.renew(lease.epoch, time.time())
            except StorageFailed as error:
                silent = time.monotonic() - self._renewed
                _log.warning("the lease was not renewed", seconds=round(silent, 1), reason=str(error))
                if silent > _SILENT_LEASES * lease.seconds:
                    self._fenced(f"the lease could not be renewed for {silent:.0f} s: {error}")
                    return
                continue
            if not mine:
                self._fenced(self._over(lease))
                return
            self._renewed = asked

    def _over(self, lease: Lease) -> str:
        try:
            found = self._leases.read()
        except StorageFailed:
            found = None
        now = f"{found.holder} leads since {clock(found.since)}" if found is not None else "there is none any more"
        return f"{self._node} had lease {lease.epoch}, which lapsed: {now}"

    def _close(self) -> None:
        self._stop.set()
        if self._renewing is not None:
            self._renewing.join()
        if self._held is not None:
            try:
                self._leases.release(self._held.epoch)
            except StorageFailed as error:
                _log.warning("the lease was not released; it lapses", reason=str(error))
        self._leases.close()


def clock(at: float) -> str:
    """A moment, as people at this machine read it."""
    return time.strftime("%H:%M:%S", time.localtime(at))
