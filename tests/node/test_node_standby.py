# SPDX-License-Identifier: Apache-2.0
"""A standby takes the lease from one that let go, died, or hangs, also while it has the store locked; no other time."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from junto.errors import StorageFailed
from junto.journal.lease import Lease
from junto.journal.places import SqlitePlace
from junto.journal.storage import Storage
from junto.node.settings import Shared
from junto.node.standby import Standby
from junto.testing.until import until

_HOLDER = """
import os, signal, sqlite3, sys, time
from contextlib import closing
from pathlib import Path
from junto.journal.lease import Lease
from junto.journal.places import SqlitePlace

place = SqlitePlace(Path(sys.argv[1]))
leases, beacon = place.leases()
leases.open()
assert beacon.light(1)
assert leases.take(None, Lease("node-1", 1, 0, 0.5, time.time(), time.time()))
writer = sqlite3.connect(sys.argv[1], isolation_level=None)
if sys.argv[2] == "locked":
    writer.execute("BEGIN IMMEDIATE")
print("holds", flush=True)
signal.pause()
"""
"""A node that has the lease of half a second and never renews it, perhaps in the middle of a write."""


def _holder(path: Path, how: str) -> "subprocess.Popen[bytes]":
    child = subprocess.Popen([sys.executable, "-c", _HOLDER, str(path), how], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"holds\n"
    child.stdout.close()
    return child


def _unexpected(line: str) -> None:
    raise AssertionError(line)


async def _led(path: Path, waits: list[Lease], stop: asyncio.Event | None = None) -> Storage | None:
    """What the standby node-2 gets to write."""
    async with Standby("node-2", Shared(SqlitePlace(path), 0.5), _unexpected) as standby, asyncio.timeout(20):
        storage = await standby.lead(stop or asyncio.Event(), waits.append)
        if storage is not None:
            storage.open()
            storage.begin()
            storage.commit()
            storage.close()
        return storage


def _lease(path: Path) -> Lease | None:
    leases, _ = SqlitePlace(path).leases()
    leases.open()
    try:
        return leases.read()
    finally:
        leases.close()


def test_the_first_node_of_all_leads_at_once_and_lets_go_in_the_end(tmp_path: Path) -> None:
    waits: list[Lease] = []
    assert asyncio.run(_led(tmp_path / "journal.db", waits)) is not None
    assert waits == []
    lease = _lease(tmp_path / "journal.db")
    assert lease is not None
    assert (lease.holder, lease.epoch) == ("", 1)


def test_a_dead_holder_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    child = _holder(path, "idle")
    child.kill()
    child.wait()
    leases, beacon = SqlitePlace(path).leases()
    leases.open()
    assert beacon.is_out(1)
    leases.close()
    assert asyncio.run(_led(path, [])) is not None


@pytest.mark.parametrize("how", ["idle", "locked"])
def test_a_holder_that_hangs_loses_the_lease_also_in_the_middle_of_a_write(tmp_path: Path, how: str) -> None:
    path = tmp_path / "journal.db"
    child = _holder(path, how)
    child.send_signal(signal.SIGSTOP)
    try:
        waits: list[Lease] = []
        assert asyncio.run(_led(path, waits)) is not None
        assert [lease.holder for lease in waits] == ["node-1"]
        lease = _lease(path)
        assert lease is not None
        assert lease.epoch == 2
        if how == "locked":
            assert child.wait(10) == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()


def test_a_standby_that_is_stopped_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    child = _holder(path, "idle")
    try:
        stop = asyncio.Event()
        stop.set()
        assert asyncio.run(_led(path, [], stop)) is None
        lease = _lease(path)
        assert lease is not None
        assert lease.holder == "node-1"
    finally:
        child.kill()
        child.wait()


def test_a_node_whose_lease_another_took_hears_of_it_and_can_write_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    fenced: list[str] = []

    async def superseded() -> None:
        async with Standby("node-1", Shared(SqlitePlace(path), 0.5), fenced.append) as standby:
            storage = await standby.lead(asyncio.Event(), lambda lease: None)
            assert storage is not None
            storage.open()
            leases, _ = SqlitePlace(path).leases()
            leases.open()
            while not leases.take(seen := leases.read(), Lease("node-2", 2, 0, 0.5, time.time(), time.time())):
                assert seen is not None  # it was renewed in between
            with pytest.raises(StorageFailed, match="lease 1 of this node is over, node-2 holds number 2"):
                storage.begin()
            await asyncio.to_thread(until, lambda: len(fenced) == 2, "its renewal has failed, too")
            storage.close()
            leases.close()

    asyncio.run(superseded())
    assert any("node-1 had lease 1, which lapsed: node-2 leads since" in line for line in fenced)


def test_a_node_that_could_not_renew_its_lease_for_so_long_as_it_lasts_is_not_sure_that_it_leads(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.db"

    async def hindered() -> None:
        async with Standby("node-1", Shared(SqlitePlace(path), 0.5), _unexpected) as standby:
            assert not standby.leads()
            await standby.lead(asyncio.Event(), lambda lease: None)
            assert standby.leads()
            with closing(sqlite3.connect(path, isolation_level=None)) as another:
                another.execute("BEGIN IMMEDIATE")
                await asyncio.to_thread(until, lambda: not standby.leads(), "its lease may be another's")
            await asyncio.to_thread(until, standby.leads, "it has renewed it")

    asyncio.run(hindered())
