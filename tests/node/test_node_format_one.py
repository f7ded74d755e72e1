# SPDX-License-Identifier: Apache-2.0
"""A journal of format 1, by the release before: it opens, verifies, shows its tasks, and is of today afterwards."""

import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from junto.journal.sqlite import FORMAT
from junto.journal.store import Journal
from junto.journal.verify import verify_journal
from junto.node.ground import Ground
from junto.node.history import tasks_in
from junto.node.ledger import Ledger
from junto.tasks.events import Restarted, Ticked
from junto.tasks.state import Task
from junto.tasks.table import ENDED
from junto.tasks.waiting import Patience
from junto.trust import charter as charters
from junto.trust.charter import Charter
from junto.trust.names import parse_name
from junto.types import PartyId

FOLDER = Path(__file__).parent.parent / "data" / "format-1"
BTS = PartyId("bts")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    shutil.copy(FOLDER / "journal.db", tmp_path)
    (tmp_path / "journal.db").chmod(0o600)
    return tmp_path / "journal.db"


def _charter() -> Charter:
    return charters.verify((FOLDER / "charter.json").read_bytes()).charter


def _format(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        return int(found)


def _in(path: Path, look: Callable[[Journal, list[tuple[Task, str]]], None]) -> None:
    """Opens the journal as a node of today does; `look` sees it, and its tasks with the ids of their receipts."""
    name = parse_name(verify_journal(path).owner)
    key = Ed25519PrivateKey.generate()
    with Journal(path, origin=str(name), key=key, on_fatal=pytest.fail) as journal:
        ledger = Ledger(name, key, journal, _charter(), Ground())
        ledger.learn_known_keys()
        look(journal, list(tasks_in(journal, ledger, Patience(), time.time())))


def test_it_verifies_as_it_lies_there_and_is_not_changed_by_it(path: Path) -> None:
    report = verify_journal(path, _charter())
    assert report.problems == ()
    assert report.kinds["proposal"] == 6
    assert _format(path) == 1


def test_it_is_upgraded_in_place_and_says_what_it_said(path: Path) -> None:
    before = verify_journal(path, _charter())
    with closing(sqlite3.connect(path)) as connection:
        envelopes = connection.execute("SELECT envelope FROM entry ORDER BY position").fetchall()

    def look(journal: Journal, tasks: list[tuple[Task, str]]) -> None:
        assert [(entry.envelope,) for entry in journal.entries()] == envelopes
        assert journal.kept_tasks() == set()

    _in(path, look)
    assert (FORMAT, _format(path)) == (2, 2)
    after = verify_journal(path, _charter())
    assert (after.entries, after.root, after.kinds) == (before.entries, before.root, before.kinds)
    _in(path, look)  # and is opened again


def test_its_tasks_are_shown_as_they_ended(path: Path) -> None:
    def look(journal: Journal, tasks: list[tuple[Task, str]]) -> None:
        assert [task.state for task, _ in tasks] == ["done", "done", "refused", "done", "failed", "offered"]
        for task, receipt in tasks:
            assert (task.asker, task.me) == ("bts", "delta")
            assert bool(receipt) == (task.state == "done") == (task.receipt is not None)
            assert (task.outcome is not None) == (task.state in ENDED)
            assert task.attempts == {}
            assert task.finished.keys() >= {(s, p) for s, p in task._parts if task.state == "done" and s != "release"}
        assert tasks[4][0].outcome is not None
        assert "conversion failed" in tasks[4][0].outcome.reason

    _in(path, look)


def test_its_open_task_goes_on_and_ends_named_at_its_deadline(path: Path) -> None:
    def look(journal: Journal, tasks: list[tuple[Task, str]]) -> None:
        task = tasks[-1][0]
        task.handle(Restarted(frozenset(), task.opened_at + 9))
        assert [(wait.party, wait.what) for wait in task.waits()] == [(BTS, "the contract")]
        task.handle(Ticked(task.deadline))
        assert task.outcome is not None
        assert (task.outcome.end, task.outcome.party) == ("expired", BTS)
        assert "waiting" in task.outcome.reason

    _in(path, look)
