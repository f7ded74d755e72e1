# SPDX-License-Identifier: Apache-2.0
"""Entries that a journal has lost are named when its node starts, and what the others hold of them comes back."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from parties import Parties, parties

from junto.client import connect
from junto.demo.consortium import is_alive
from junto.journal.reading import Reader
from junto.link.ports import free_ports
from junto.testing.until import until

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),  # a node outlives its command
]

_FILES = ("journal.db", "journal.db-wal", "journal.db-shm")


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Parties]:
    with parties(("ann", "bea"), tmp_path, "threads = 1\n") as running:
        for party in ("ann", "bea"):
            running.publish(party, "t", pa.table({"id": list(range(20))}))
        yield running


def _said(two: Parties, party: str) -> str:
    """What a party's node has told its operator of journals."""
    with two.desk(party) as desk:
        notices = desk.notices(kinds=["journal"], past_seconds=3600.0)
        return str(next(notices).text)


def _granted(two: Parties) -> str:
    """A grant that ann gave and took back again."""
    words = ["--to", "bea", "--dataset", "t", "--columns", "id", "--allow", "rows", "--until", "2099-01-01"]
    printed = two.type("ann", "grant", "give", *words)
    assert printed.code == 0, printed.err
    with two.desk("ann") as desk:
        (grant,) = [str(state["grant"]["id"]) for state in msgspec.json.decode(desk.request("operator.grants"))]
    printed = two.type("ann", "grant", "revoke", grant)
    assert printed.code == 0, printed.err
    return grant


def _known_at(two: Parties, party: str, kind: str) -> None:
    """Wait until a party's journal holds a statement of ann of that kind."""

    def held() -> bool:
        with Reader(two.home(party) / "journal.db") as reader:
            return any("/ann/" in entry.author for entry in reader.entries(kinds=(kind,)))

    until(held, f"{party} holds ann's {kind}")


def test_a_revocation_that_a_cut_log_has_lost_comes_back_before_anything_is_answered(two: Parties) -> None:
    _granted(two)
    _known_at(two, "bea", "revocation")
    two.signal("ann", signal.SIGKILL)
    log = two.home("ann") / "journal.db-wal"
    os.truncate(log, log.stat().st_size - 1)
    two.start("ann")
    with connect(two.home("ann")) as desk:
        states = desk.request("operator.grants")
    assert all(state["revoked_at"] is not None for state in msgspec.json.decode(states))
    with Reader(two.home("ann") / "journal.db") as reader:
        assert len(list(reader.entries(kinds=("revocation",)))) == 1
        assert len(list(reader.entries(kinds=("gap",)))) == 1
    assert "bea has seen" in _said(two, "ann")
    until(lambda: "ann has lost entries of its journal" in _said(two, "bea"), "bea is told")
    two.type("ann", "node", "stop")
    two.start("ann")  # what was said to be lost is not said again
    with Reader(two.home("ann") / "journal.db") as reader:
        assert len(list(reader.entries(kinds=("gap",)))) == 1
    printed = two.type("ann", "journal", "verify")
    assert printed.code == 0, (printed.out, two.type("ann", "journal", "ls", "--limit", "0").out)


def test_an_older_copy_that_is_put_back_takes_back_what_was_said_since(two: Parties, tmp_path: Path) -> None:
    two.type("ann", "node", "stop")
    shutil.copy(two.home("ann") / "journal.db", tmp_path / "old.db")
    two.start("ann")
    two.publish("ann", "later", pa.table({"id": [1, 2, 3]}))
    two.type("ann", "node", "stop")
    shutil.copy(tmp_path / "old.db", two.home("ann") / "journal.db")
    two.start("ann")
    with two.desk("ann") as desk:
        assert ("ann", "later") in {(d.party, d.name) for d in desk.datasets()}
    assert "put back from an older copy" in _said(two, "ann")


def test_a_journal_that_is_begun_anew_is_announced_and_filled_with_what_others_hold(two: Parties) -> None:
    two.type("ann", "node", "stop")
    for name in _FILES:
        (two.home("ann") / name).unlink(missing_ok=True)
    printed = two.type("ann", "node", "start", "--new-journal", "--background")
    assert printed.code == 0, printed.err
    with two.desk("ann") as desk:
        assert ("ann", "t") in {(d.party, d.name) for d in desk.datasets()}
    until(lambda: "ann has lost" in _said(two, "bea"), "bea is told")


def test_a_home_that_was_copied_and_runs_twice_is_named_by_both_and_by_the_others(two: Parties, tmp_path: Path) -> None:
    two.type("ann", "node", "stop")
    copy = tmp_path / "copy"
    shutil.copytree(two.home("ann"), copy)
    two.start("ann")
    with two.desk("ann") as desk:
        until(lambda: all(link.up for link in desk.status().links), "ann reaches bea")
    party = (copy / "party.toml").read_text()
    line = next(line for line in party.splitlines() if line.startswith("listen"))
    (copy / "party.toml").write_text(party.replace(line, f'listen = "127.0.0.1:{free_ports(1)[0]}"'))
    second = subprocess.Popen([sys.executable, "-m", "junto", "node", "start", "--home", str(copy)])
    try:
        until(lambda: "copied" in _said(two, "bea") or "copy" in _said(two, "bea"), "bea names it")
        until(lambda: "copy" in _said(two, "ann"), "the first names it")
    finally:
        second.terminate()
        until(lambda: not is_alive(second.pid) or second.poll() is not None, "the copy is gone")
    with Reader(copy / "journal.db") as reader:
        (gap,) = list(reader.entries(kinds=("gap",)))
        assert b"bea" in bytes(gap.statement.body)
