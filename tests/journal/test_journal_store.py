# SPDX-License-Identifier: Apache-2.0
"""What is acknowledged is on disk, once, in order; a full disk costs nothing, a failing one ends the node."""

import asyncio
import errno
import os
import sqlite3
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import pytest
from journal_parties import PARTIES, Consortium, found

from junto.errors import InvalidInput, PeerFault, StorageFailed
from junto.journal import tree
from junto.journal.reading import Reader
from junto.journal.sqlite import Commit, SqliteStorage
from junto.journal.statement import STATEMENT_BYTES, Statement
from junto.journal.store import CHECKPOINT_ENTRIES, Appended, Journal
from junto.journal.verify import verify_journal


@pytest.fixture(scope="module")
def consortium() -> Consortium:
    return found(PARTIES)


def unexpected(what: str) -> None:
    raise AssertionError(what)


def journal_of(
    consortium: Consortium, path: Path | SqliteStorage, commit: Commit = sqlite3.Connection.commit
) -> Journal:
    key = consortium.nodes["united"].key
    return Journal(path, origin=consortium.origin, key=key, on_fatal=unexpected, commit=commit)


class SlowFirstCommit:
    """Commits as usual, but the first waits for `go`: what is submitted meanwhile is one batch."""

    def __init__(self) -> None:
        self.begun: Future[None] = Future()
        self.go: Future[None] = Future()
        self.sizes: list[int] = []  # of the journal, after each

    def __call__(self, connection: sqlite3.Connection) -> None:
        if not self.begun.done():
            self.begun.set_result(None)
            self.go.result(10)
        connection.commit()
        self.sizes.append(connection.execute("SELECT count(*) FROM entry").fetchone()[0])


def settled(journal: Journal, said: tuple[bytes, Statement]) -> "Future[Appended]":
    future = journal.submit(*said)
    future.exception(10)
    return future


def fill(journal: Journal, consortium: Consortium, count: int) -> None:
    futures = [journal.submit(*said) for said in consortium.talk(count)]
    for future in futures:
        future.result(10)


def test_appends_are_numbered_in_order_and_read_back(consortium: Consortium, tmp_path: Path) -> None:
    said = consortium.talk(7)

    async def append_all(journal: Journal) -> list[Appended]:
        return await asyncio.gather(*(journal.append(*each) for each in said))

    with journal_of(consortium, tmp_path / "journal.db") as journal:
        appended = asyncio.run(append_all(journal))
        assert appended == [Appended(index, new=True) for index in range(11)]
        assert [entry.envelope for entry in journal.entries()] == [envelope for envelope, _ in said]
        assert [entry.statement for entry in journal.entries()] == [statement for _, statement in said]
        assert [entry.id for entry in journal.entries(task="task1")] == ["s1", "s6"]
        assert [entry.index for entry in journal.entries(kinds=("charter", "certificate"))] == [0, 1, 2, 3]
        assert [entry.index for entry in journal.entries(2, 4)] == [2, 3]
        delta = consortium.nodes["delta"].name.uri
        assert [entry.id for entry in journal.entries(kinds=("decision",), author=delta)] == ["s1", "s4"]
        latest = journal.latest("decision", delta)
        assert latest is not None
        assert latest.id == "s4"
        assert journal.latest("receipt", delta) is None
        found = journal.find("s3")
        assert found is not None
        assert found.index == 7
        assert journal.find("nothing") is None
        with pytest.raises(InvalidInput, match="no entry 11; it has 11"):
            journal.reader.entry(11)


def test_a_tasks_entries_are_found_without_reading_those_of_others(
    consortium: Consortium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, tuple[object, ...]]] = []
    rows = Reader._rows

    def told(reader: Reader, query: str, *values: object) -> list[tuple[object, ...]]:
        asked.append((query, values))
        return rows(reader, query, *values)

    path = tmp_path / "journal.db"
    with journal_of(consortium, path) as journal:
        fill(journal, consortium, 5)
        monkeypatch.setattr(Reader, "_rows", told)
        assert [entry.id for entry in journal.entries(kinds=("decision", "offer"), task="task1")] == ["s1"]
    ((query, values),) = asked[:1]
    plain = sqlite3.connect(path)
    plan = plain.execute(f"EXPLAIN QUERY PLAN {query}", values).fetchall()
    plain.close()
    assert ["entry_by_task (task=?" in row[-1] for row in plan] == [True]


def test_the_root_is_that_of_the_envelopes_after_every_reopening(consortium: Consortium, tmp_path: Path) -> None:
    said = consortium.talk(9)
    frontier = tree.Frontier()
    for start in range(0, len(said), 3):
        with journal_of(consortium, tmp_path / "journal.db") as journal:
            assert journal.head() == (frontier.size, frontier.root)
            for each in said[start : start + 3]:
                journal.submit(*each).result(10)
                frontier, _ = frontier.appended(tree.leaf_hash(each[0]))
            assert journal.head() == (frontier.size, frontier.root)
            assert [entry.index for entry in journal.entries()] == list(range(len(journal)))


def test_proofs_from_the_file_verify(consortium: Consortium, tmp_path: Path) -> None:
    with journal_of(consortium, tmp_path / "journal.db") as journal:
        fill(journal, consortium, 20)
        size, root = journal.head()
        for entry in journal.entries():
            proof = tree.inclusion_proof(entry.index, size, journal.reader.node)
            tree.verify_inclusion(entry.leaf, entry.index, size, proof, root)
        old = tree.root_at(13, journal.reader.node)
        tree.verify_consistency(13, size, tree.consistency_proof(13, size, journal.reader.node), old, root)


def test_the_same_statement_again_keeps_its_index_and_is_not_new(consortium: Consortium, tmp_path: Path) -> None:
    said = consortium.talk(3)
    with journal_of(consortium, tmp_path / "journal.db") as journal:
        futures = [journal.submit(*each) for each in (*said, said[5], *said)]
        assert [future.result(10) for future in futures] == [
            *(Appended(index, new=True) for index in range(7)),
            Appended(5, new=False),
            *(Appended(index, new=False) for index in range(7)),
        ]
        assert len(journal) == 7


def test_another_statement_under_the_same_id_is_a_fault_and_others_beside_it_are_kept(
    consortium: Consortium, tmp_path: Path
) -> None:
    first = consortium.signed("delta", consortium.say("delta", "one"))
    second = consortium.signed("bts", consortium.say("bts", "one"))
    third = consortium.signed("bts", consortium.say("bts", "three"))
    with journal_of(consortium, tmp_path / "journal.db") as journal:
        futures = [journal.submit(*each) for each in (first, second, third)]
        assert futures[0].result(10).index == 0
        with pytest.raises(PeerFault, match="the id one, which entry 0"):
            futures[1].result(10)
        assert futures[2].result(10).index == 1
        assert [entry.id for entry in journal.entries()] == ["one", "three"]


def test_a_batch_of_any_size_tells_the_new_from_the_known(consortium: Consortium, tmp_path: Path) -> None:
    slow = SlowFirstCommit()
    said = consortium.talk(150)
    first, rest = said[:1], said[1:]
    with journal_of(consortium, tmp_path / "journal.db", slow) as journal:
        known = [journal.submit(*each) for each in first]
        slow.begun.result(10)
        batch = [journal.submit(*each) for each in (*rest, *first, *rest)]
        slow.go.set_result(None)
        found = [future.result(10) for future in (*known, *batch)]
        assert found[: len(said)] == [Appended(index, new=True) for index in range(len(said))]
        assert found[len(said) :] == [Appended(index, new=False) for index in (0, *range(1, len(said)))]
        assert [entry.envelope for entry in journal.entries()] == [envelope for envelope, _ in said]


def test_everything_that_waits_is_one_commit(consortium: Consortium, tmp_path: Path) -> None:
    slow = SlowFirstCommit()
    said = consortium.talk(20)
    with journal_of(consortium, tmp_path / "journal.db", slow) as journal:
        first = journal.submit(*said[0])
        slow.begun.result(10)
        rest = [journal.submit(*each) for each in said[1:]]
        assert not any(future.done() for future in (first, *rest))
        slow.go.set_result(None)
        for future in (first, *rest):
            future.result(10)
        assert slow.sizes == [1, 24]


def test_a_full_disk_refuses_the_batch_and_later_appends_work(consortium: Consortium, tmp_path: Path) -> None:
    """SQLite's own limit on pages makes a real SQLITE_FULL."""
    limits: list[str] = []

    def limited(connection: sqlite3.Connection) -> None:
        connection.commit()
        if limits:
            connection.execute(limits.pop())

    said = consortium.talk(40)
    storage = SqliteStorage(tmp_path / "journal.db", commit=limited)
    with journal_of(consortium, storage) as journal:
        limits.append("PRAGMA max_page_count = 1")  # SQLite rounds up to the pages there are
        journal.submit(*said[0]).result(10)
        failed = [future for future in (settled(journal, each) for each in said[1:]) if future.exception(0)]
        with pytest.raises(
            StorageFailed, match="nothing was stored in this append, SQLITE_FULL: no space left on its disk, free some"
        ):
            failed[0].result(0)
        size, root = journal.head()
        assert size == len(said) - len(failed) == len(list(journal.entries()))
        assert journal.find("charter") is not None
        storage._writer.execute("PRAGMA max_page_count = 4294967294")
        assert sum(journal.submit(*each).result(10).new for each in said) == len(failed)
        proof = tree.consistency_proof(size, len(said), journal.reader.node)
        tree.verify_consistency(size, len(said), proof, root, journal.head()[1])
    assert verify_journal(tmp_path / "journal.db").problems == ()


def test_a_commit_without_space_leaves_nothing_half_written(consortium: Consortium, tmp_path: Path) -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorname = "SQLITE_FULL"
    failing = [full]

    def commit(connection: sqlite3.Connection) -> None:
        if failing:
            raise failing.pop()
        connection.commit()

    said = consortium.talk(0)
    with journal_of(consortium, tmp_path / "journal.db", commit) as journal:
        with pytest.raises(StorageFailed, match="SQLITE_FULL"):
            journal.submit(*said[0]).result(10)
        assert (len(journal), list(journal.entries())) == (0, [])
        assert journal.submit(*said[1]).result(10) == Appended(0, new=True)
        assert journal.submit(*said[0]).result(10) == Appended(1, new=True)


@pytest.mark.parametrize(
    ("number", "lack"),
    [
        (errno.ENOSPC, "is full"),
        (errno.EDQUOT, "is over its quota"),
        (errno.EFBIG, "takes no larger file"),
        (errno.EMFILE, "takes no more open files"),
    ],
)
def test_a_quota_or_a_limit_costs_what_a_full_disk_does(
    consortium: Consortium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, lack: str
) -> None:
    said = consortium.talk(1)
    with journal_of(consortium, tmp_path / "journal.db", _refused_write(monkeypatch, number)) as journal:
        with pytest.raises(StorageFailed, match=f"SQLITE_IOERR_WRITE: {os.strerror(number).lower()}") as failed:
            journal.submit(*said[0]).result(10)
        assert failed.value.lack == lack
        monkeypatch.undo()
        assert str(failed.value.told_by("bea")) == f"the disk of bea {lack}: it can record nothing; its log says where"
        assert journal.submit(*said[0]).result(10) == Appended(0, new=True)
    assert sorted(path.name for path in tmp_path.glob("*.room")) == []


def _refused_write(monkeypatch: pytest.MonkeyPatch, number: int) -> Commit:
    """A commit that the system refuses the first time, as it then refuses any other file."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = "SQLITE_IOERR_WRITE"
    failing = [error]

    def refused(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    def commit(connection: sqlite3.Connection) -> None:
        if failing and number:  # 0: the disk takes another file, so this one was not refused for want of room
            monkeypatch.setattr("junto.journal.sqlite.os.pwrite", refused)
        if failing:
            raise failing.pop()
        connection.commit()

    return commit


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, 0])
def test_a_write_that_fails_for_another_reason_is_fatal(
    consortium: Consortium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fatal: list[str] = []
    commit = _refused_write(monkeypatch, number)
    key = consortium.nodes["united"].key
    journal = Journal(tmp_path / "journal.db", origin=consortium.origin, key=key, on_fatal=fatal.append, commit=commit)
    with journal, pytest.raises(StorageFailed, match="cannot be written any more: SQLITE_IOERR_WRITE"):
        journal.submit(*consortium.talk(0)[0]).result(10)
    assert len(fatal) == 1


def test_a_failed_sync_is_fatal_and_nothing_is_acknowledged(consortium: Consortium, tmp_path: Path) -> None:
    fatal: list[str] = []

    def failing(connection: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
        raise error

    said = consortium.talk(1)
    path = tmp_path / "journal.db"
    key = consortium.nodes["united"].key
    with Journal(path, origin=consortium.origin, key=key, on_fatal=fatal.append, commit=failing) as journal:
        with pytest.raises(StorageFailed, match="SQLITE_IOERR_FSYNC"):
            journal.submit(*said[0]).result(10)
        with pytest.raises(StorageFailed, match="cannot be written any more"):
            journal.submit(*said[1]).result(10)
        assert len(fatal) == 1
        assert journal.head()[0] == 0
    with journal_of(consortium, path) as journal:
        assert len(journal) == 0


def test_a_withdrawn_append_is_not_written(consortium: Consortium, tmp_path: Path) -> None:
    slow = SlowFirstCommit()
    said = consortium.talk(0)
    with journal_of(consortium, tmp_path / "journal.db", slow) as journal:
        first = journal.submit(*said[0])
        slow.begun.result(10)
        second, third = journal.submit(*said[1]), journal.submit(*said[2])
        assert second.cancel()
        assert not first.cancel()
        slow.go.set_result(None)
        assert third.result(10).index == 1
        assert journal.find(said[1][1].id) is None


def test_only_one_process_writes(consortium: Consortium, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    naming = pytest.raises(InvalidInput, match=rf"is open in process {os.getpid()}: stop that one")
    with journal_of(consortium, path), naming:
        journal_of(consortium, path).open()
    with journal_of(consortium, path) as journal:
        assert len(journal) == 0


def test_a_newer_format_is_refused_naming_both_versions(consortium: Consortium, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with journal_of(consortium, path) as journal:
        fill(journal, consortium, 0)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 3")
    connection.close()
    before = path.read_bytes()
    for opening in (journal_of(consortium, path).open, Reader(path).open):
        with pytest.raises(InvalidInput, match="has format 3; this Junto knows up to 2"):
            opening()
    assert path.read_bytes() == before


def test_what_is_not_a_journal_is_refused_and_left_alone(consortium: Consortium, tmp_path: Path) -> None:
    text, other = tmp_path / "notes.txt", tmp_path / "other.db"
    text.write_text("not a database at all" * 100)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    for path in (text, other):
        before = path.read_bytes()
        for opening in (journal_of(consortium, path).open, Reader(path).open):
            with pytest.raises(InvalidInput, match="not a journal"):
                opening()
        assert path.read_bytes() == before
    with pytest.raises(InvalidInput, match="there is no journal at"):
        Reader(tmp_path / "absent.db").open()


def test_a_folder_that_cannot_be_is_one_line(consortium: Consortium, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "journal.db").mkdir()
    for path in (tmp_path / "file" / "journal.db", tmp_path / "journal.db"):
        with pytest.raises(StorageFailed, match="cannot be opened"):
            journal_of(consortium, path).open()


def test_another_node_s_journal_is_refused(consortium: Consortium, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with journal_of(consortium, path) as journal:
        fill(journal, consortium, 0)
    other = Journal(path, origin="junto/air/delta/node1", key=consortium.nodes["delta"].key, on_fatal=unexpected)
    with pytest.raises(InvalidInput, match="is of junto/air/united/node1, not of junto/air/delta/node1"):
        other.open()


def test_opening_notices_a_changed_tree(consortium: Consortium, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with journal_of(consortium, path) as journal:
        fill(journal, consortium, 4)
    connection = sqlite3.connect(path)
    connection.execute("DROP TRIGGER entry_is_not_removed")
    connection.execute("DELETE FROM entry WHERE position = 7")
    connection.commit()
    connection.close()
    with pytest.raises(StorageFailed, match="holds 7 entries, and a checkpoint of 8"):
        journal_of(consortium, path).open()


def test_rows_are_neither_changed_nor_removed_by_sql(consortium: Consortium, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with journal_of(consortium, path) as journal:
        fill(journal, consortium, 0)
    connection = sqlite3.connect(path)
    for change in ("UPDATE entry SET at = 0", "DELETE FROM entry"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(change)
    connection.close()


def test_checkpoints_are_signed_at_the_interval_and_at_close(consortium: Consortium, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with journal_of(consortium, path) as journal:
        fill(journal, consortium, CHECKPOINT_ENTRIES)
        sizes = [size for size, _ in journal.reader.checkpoints()]
        assert len(sizes) == 1
        assert sizes[0] >= CHECKPOINT_ENTRIES
    with Reader(path) as reader:
        assert reader.checkpoints()[0][0] == CHECKPOINT_ENTRIES + 4
    assert not path.with_name("journal.db-wal").exists()


def test_an_oversized_statement_is_refused(consortium: Consortium, tmp_path: Path) -> None:
    journal = journal_of(consortium, tmp_path / "journal.db")
    with journal, pytest.raises(InvalidInput, match="at most 1048576"):
        journal.submit(b"x" * (STATEMENT_BYTES + 1), consortium.say("delta", "big"))
    with pytest.raises(StorageFailed, match="is closed"):
        journal.submit(*consortium.talk(0)[0])


@pytest.mark.parametrize("column", ["kind", "task", "author", "id"])
def test_a_flipped_bit_in_a_column_is_named_at_the_next_start(
    consortium: Consortium, tmp_path: Path, column: str
) -> None:
    path = tmp_path / "journal.db"
    with journal_of(consortium, path) as journal:
        for envelope, said in consortium.talk(6):
            journal.submit(envelope, said).result()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER entry_is_not_changed")
        connection.execute(f"UPDATE entry SET {column} = {column} || 'x' WHERE position = 5")
        connection.commit()
    with pytest.raises(StorageFailed, match="the columns of entry 5 are not what its envelope says"):
        journal_of(consortium, path).open()
