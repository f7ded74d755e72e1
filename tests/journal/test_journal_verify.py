# SPDX-License-Identifier: Apache-2.0
"""Whoever changes a journal's file is found out from the file alone, with the place in words."""

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from journal_parties import NOW, PARTIES, Consortium, found

from junto.errors import InvalidInput
from junto.journal import checkpoint, statement, tree
from junto.journal.checkpoint import Checkpoint
from junto.journal.statement import Statement, certificate_statement, charter_statement, sign
from junto.journal.store import CHECKPOINT_ENTRIES, Journal
from junto.journal.verify import Report, verify_journal
from junto.trust import charter as charters
from junto.trust.certificates import issue, pem

Said = list[tuple[bytes, Statement]]
Change = Callable[[sqlite3.Connection], object]


@pytest.fixture(scope="module")
def consortium() -> Consortium:
    return found(PARTIES)


@pytest.fixture(scope="module")
def untouched(consortium: Consortium, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound journal of 24 entries."""
    return written(consortium, tmp_path_factory.mktemp("untouched") / "journal.db", consortium.talk(20))


def unexpected(what: str) -> None:
    raise AssertionError(what)


def written(consortium: Consortium, path: Path, said: Said) -> Path:
    with Journal(path, origin=consortium.origin, key=consortium.nodes["united"].key, on_fatal=unexpected) as journal:
        for future in [journal.submit(*each) for each in said]:
            future.result(10)
    return path


def changed(untouched: Path, folder: Path, *changes: str | Change, rehash: bool = False) -> Report:
    """The report on a copy that somebody with the file and SQL at hand has changed."""
    path = folder / "changed.db"
    shutil.copy(untouched, path)
    connection = sqlite3.connect(path)
    connection.executescript("DROP TRIGGER entry_is_not_changed; DROP TRIGGER entry_is_not_removed;")
    for change in changes:
        if isinstance(change, str):
            connection.executescript(change)
        else:
            change(connection)
    if rehash:
        rewrite_hashes(connection)
    connection.commit()
    connection.close()
    return verify_journal(path)


def rewrite_hashes(connection: sqlite3.Connection) -> None:
    """What a careful forger does: compute the whole tree anew."""
    frontier = tree.Frontier()
    for position, envelope in connection.execute("SELECT position, envelope FROM entry ORDER BY position").fetchall():
        frontier, completed = frontier.appended(tree.leaf_hash(envelope))
        connection.execute("UPDATE entry SET hashes = ? WHERE position = ?", (b"".join(completed), position))


def put(connection: sqlite3.Connection, position: int, envelope: bytes, said: Statement) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (position, said.kind, said.task, said.author, said.id, said.at, envelope, tree.leaf_hash(envelope)),
    )


def words(report: Report) -> str:
    return "\n".join(str(problem) for problem in report.problems)


SWAP = """
UPDATE entry SET position = -1 WHERE position = {0};
UPDATE entry SET position = {0} WHERE position = {1};
UPDATE entry SET position = {1} WHERE position = -1;
"""


def test_a_sound_journal_has_no_problem(consortium: Consortium, untouched: Path) -> None:
    before = untouched.read_bytes()
    report = verify_journal(untouched, consortium.charter)
    assert report.problems == ()
    assert report.owner == consortium.nodes["united"].name.uri
    assert report.charter == consortium.charter.digest
    assert (report.entries, report.covered, report.checkpoints) == (24, 24, 1)
    assert report.kinds == {"certificate": 3, "charter": 1, "decision": 20}
    assert untouched.read_bytes() == before
    assert [path.name for path in untouched.parent.iterdir() if path.name != "journal.db.lock"] == ["journal.db"]


def test_a_journal_in_use_is_verified_beside_its_writer(consortium: Consortium, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(path, origin=consortium.origin, key=consortium.nodes["united"].key, on_fatal=unexpected) as journal:
        for future in [journal.submit(*each) for each in consortium.talk(5)]:
            future.result(10)
        report = verify_journal(path)
        assert (report.entries, report.problems, report.root) == (9, (), journal.head()[1])


def test_an_empty_journal_proves_nothing_and_has_no_problem(consortium: Consortium, tmp_path: Path) -> None:
    report = verify_journal(written(consortium, tmp_path / "journal.db", []))
    assert (report.entries, report.problems, report.root) == (0, (), tree.EMPTY_ROOT)


@pytest.mark.parametrize("column", ["envelope", "hashes"])
def test_a_flipped_byte_is_found_at_its_entry(untouched: Path, tmp_path: Path, column: str) -> None:
    choice = random.Random(7)
    for _ in range(12):
        position = choice.randrange(24)

        def flip(connection: sqlite3.Connection, position: int = position) -> None:
            query = f"SELECT {column} FROM entry WHERE position = ?"
            content = bytearray(connection.execute(query, (position,)).fetchone()[0])
            content[choice.randrange(len(content))] ^= 1 << choice.randrange(8)
            connection.execute(f"UPDATE entry SET {column} = ? WHERE position = ?", (bytes(content), position))

        report = changed(untouched, tmp_path, flip)
        assert any(problem.index == position for problem in report.problems)


def test_entries_out_of_order_are_found_even_with_a_new_tree(untouched: Path, tmp_path: Path) -> None:
    for first, second in ((4, 5), (8, 20), (22, 23)):
        swap = SWAP.format(first, second)
        assert "tree nodes do not follow" in words(changed(untouched, tmp_path, swap))
        assert "not those of the signed checkpoint of 24" in words(changed(untouched, tmp_path, swap, rehash=True))


def test_a_dropped_entry_is_found_even_if_the_gap_is_closed(untouched: Path, tmp_path: Path) -> None:
    drop = "DELETE FROM entry WHERE position = 9;"
    assert "entry 10: entry 9 is missing before it" in words(changed(untouched, tmp_path, drop))
    closed = drop + "".join(f"UPDATE entry SET position = {p - 1} WHERE position = {p};" for p in range(10, 24))
    report = changed(untouched, tmp_path, closed, rehash=True)
    assert "the journal was cut: it holds 23 entries, and a signed checkpoint of 24" in words(report)


def test_a_cut_journal_is_found(untouched: Path, tmp_path: Path) -> None:
    for size in (0, 1, 16, 23):
        report = changed(untouched, tmp_path, f"DELETE FROM entry WHERE position >= {size}")
        assert "the journal was cut" in words(report)


def test_an_inserted_entry_is_found(consortium: Consortium, untouched: Path, tmp_path: Path) -> None:
    said = consortium.signed("delta", consortium.say("delta", "inserted"))

    def insert(connection: sqlite3.Connection) -> None:
        for position in range(23, 9, -1):
            connection.execute("UPDATE entry SET position = ? WHERE position = ?", (position + 1, position))
        put(connection, 10, *said)

    assert "tree nodes do not follow" in words(changed(untouched, tmp_path, insert))
    assert "not those of the signed checkpoint" in words(changed(untouched, tmp_path, insert, rehash=True))


def test_an_exchanged_entry_is_found(consortium: Consortium, untouched: Path, tmp_path: Path) -> None:
    other = consortium.signed("delta", consortium.say("delta", "s1", task="task1", at=NOW + 1.5))
    report = changed(untouched, tmp_path, lambda connection: put(connection, 5, *other), rehash=True)
    assert words(report) == "the first 24 entries are not those of the signed checkpoint of 24"


def test_a_checkpoint_by_another_key_is_found(consortium: Consortium, untouched: Path, tmp_path: Path) -> None:
    def forge(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM entry WHERE position = 23")
        rows = connection.execute("SELECT envelope FROM entry ORDER BY position").fetchall()
        frontier = tree.Frontier()
        for (envelope,) in rows:
            frontier, _ = frontier.appended(tree.leaf_hash(envelope))
        note = checkpoint.sign(Checkpoint(consortium.origin, 23, frontier.root), consortium.nodes["delta"].key)
        connection.execute("UPDATE checkpoint SET size = 23, note = ?", (note,))

    assert "is not signed by a key of its node" in words(changed(untouched, tmp_path, forge))


def test_a_checkpoint_kept_for_another_size_or_malformed_is_found(untouched: Path, tmp_path: Path) -> None:
    assert "kept for 20 entries is of 24" in words(changed(untouched, tmp_path, "UPDATE checkpoint SET size = 20"))
    assert "three lines" in words(changed(untouched, tmp_path, "UPDATE checkpoint SET note = 'x'"))
    assert "checkpoint" in words(changed(untouched, tmp_path, "UPDATE checkpoint SET note = x'00ff'"))


def test_removed_checkpoints_are_found_once_one_was_due(consortium: Consortium, tmp_path: Path) -> None:
    path = written(consortium, tmp_path / "journal.db", consortium.talk(CHECKPOINT_ENTRIES))
    report = changed(path, tmp_path, "DELETE FROM checkpoint")
    assert words(report).startswith(
        f"checkpoints were removed: of {CHECKPOINT_ENTRIES + 4} entries, one of 1024 or more"
    )


@pytest.mark.parametrize(
    "change",
    ["task = 'other'", "kind = 'receipt'", "id = 'other'", "at = 5.0", "author = 'spiffe://air/bts/node1'"],
)
def test_columns_that_differ_from_the_envelope_are_found(untouched: Path, tmp_path: Path, change: str) -> None:
    report = changed(untouched, tmp_path, f"UPDATE entry SET {change} WHERE position = 5")
    assert "entry 5: its columns are not what its envelope says" in words(report)


def test_damaged_pages_are_found_or_the_file_is_refused(untouched: Path, tmp_path: Path) -> None:
    content = untouched.read_bytes()
    choice = random.Random(11)
    for _ in range(40):
        place = choice.randrange(4096, len(content))
        damaged = bytearray(content)
        damaged[place : place + 64] = bytes(byte ^ 0x5A for byte in damaged[place : place + 64])
        path = tmp_path / "damaged.db"
        path.write_bytes(damaged)
        try:
            report = verify_journal(path)
        except InvalidInput:
            continue
        same = sqlite_content(untouched) == sqlite_content(path)
        assert report.problems or same, f"damage at {place} went unseen"


def sqlite_content(path: Path) -> list[tuple[object, ...]] | None:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT * FROM entry UNION ALL SELECT *, 0, 0, 0, 0, 0, 0 FROM checkpoint").fetchall()
    except sqlite3.Error:
        return None
    finally:
        connection.close()


def test_a_cut_file_is_found_or_refused(untouched: Path, tmp_path: Path) -> None:
    content = untouched.read_bytes()
    for size in (0, 100, 4096, len(content) // 2, len(content) - 4096):
        path = tmp_path / "cut.db"
        path.write_bytes(content[:size])
        try:
            report = verify_journal(path)
        except InvalidInput:
            continue
        assert report.problems, f"a file cut to {size} bytes went unseen"


def test_a_forged_author_is_named(consortium: Consortium, tmp_path: Path) -> None:
    forged = consortium.say("delta", "forged")
    said = [*consortium.opening(), (sign(forged, consortium.nodes["bts"].key), forged)]
    report = verify_journal(written(consortium, tmp_path / "journal.db", said))
    assert words(report) == (
        "entry 4: the decision statement forged names spiffe://air/delta/node1 as its author but bts/node1 signed it"
    )


def test_a_certificate_of_a_foreign_authority_is_named_with_what_rests_on_it(
    consortium: Consortium, tmp_path: Path
) -> None:
    delta, key = consortium.nodes["delta"], Ed25519PrivateKey.generate()
    foreign = found(PARTIES).authorities["delta"]
    certificate = certificate_statement(
        delta.name, pem(issue(foreign, delta.name, key.public_key(), NOW)), id="f", at=NOW
    )
    resting = consortium.say("delta", "resting")
    said = [*consortium.opening(), (sign(certificate, key), certificate), (sign(resting, key), resting)]
    report = verify_journal(written(consortium, tmp_path / "journal.db", said))
    assert [problem.index for problem in report.problems] == [4, 5]
    assert "not signed by the authority of delta" in words(report)
    assert "unknown key" in words(report)


def test_a_journal_of_other_authorities_is_told_by_the_auditor_s_charter(
    consortium: Consortium, tmp_path: Path
) -> None:
    impostors = found(PARTIES)
    path = written(impostors, tmp_path / "journal.db", impostors.talk(3))
    assert verify_journal(path).problems == ()
    report = verify_journal(path, consortium.charter)
    assert "the journal's charter is not the one given" in words(report)
    assert "delta has another authority certificate" in words(report)


def test_a_charter_that_somebody_did_not_sign_is_not_believed(consortium: Consortium, tmp_path: Path) -> None:
    united = consortium.nodes["united"]
    unsigned = charters.create(consortium.charter.members, "air", NOW)
    partly = charters.sign(unsigned, consortium.authorities["united"])
    first = charter_statement(united.name, partly.encode(), id="charter", at=NOW)
    said = [(sign(first, united.key), first), *consortium.opening()[1:]]
    report = verify_journal(written(consortium, tmp_path / "journal.db", said))
    assert "entry 0: its charter is not in force: bts, delta have not signed it" in words(report)
    assert {problem.index for problem in report.problems} >= {0, 1, 2, 3}


def test_a_journal_that_does_not_begin_with_its_charter_is_told(consortium: Consortium, tmp_path: Path) -> None:
    said = consortium.opening()
    report = verify_journal(written(consortium, tmp_path / "journal.db", [said[1], said[0], *said[2:]]))
    assert "entry 0: it is a certificate; a journal begins with its charter" in words(report)


def test_the_first_entry_s_signature_is_checked_too(consortium: Consortium, tmp_path: Path) -> None:
    opening = consortium.opening()
    first = opening[0][1]
    forged = (sign(first, consortium.nodes["delta"].key), first)
    report = verify_journal(written(consortium, tmp_path / "a.db", [forged, *opening[1:]]))
    assert [problem.index for problem in report.problems] == [0]
    alone = verify_journal(written(consortium, tmp_path / "b.db", opening[:1]))
    assert "entry 0: nothing shows its signature good" in words(alone)


def test_a_backdated_statement_of_the_owner_is_listed_and_no_problem(consortium: Consortium, tmp_path: Path) -> None:
    said = [*consortium.opening(), consortium.signed("united", consortium.say("united", "b", at=NOW + 3600))]
    said += [consortium.signed("united", consortium.say("united", "a", at=NOW + 1))]
    report = verify_journal(written(consortium, tmp_path / "journal.db", said))
    assert not report.problems
    assert [str(oddity) for oddity in report.oddities] == [
        "entry 5: it is dated 3599 s before entry 4: the clock of node node1 was set back"
    ]


def test_an_id_used_twice_is_told(consortium: Consortium, untouched: Path, tmp_path: Path) -> None:
    again = consortium.signed("delta", consortium.say("delta", "s0"))

    def insert(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE other AS SELECT * FROM entry")
        connection.execute("DROP TABLE entry")
        connection.execute("ALTER TABLE other RENAME TO entry")
        put(connection, 24, *again)

    assert "entry 24: its id s0 is that of entry 4" in words(changed(untouched, tmp_path, insert))


def test_what_is_no_statement_is_told(consortium: Consortium, untouched: Path, tmp_path: Path) -> None:
    said = consortium.say("delta", "junk")
    report = changed(untouched, tmp_path, lambda connection: put(connection, 24, b"junk", said))
    assert any(problem.index == 24 and "not a signed envelope" in problem.what for problem in report.problems)


def test_a_later_charter_is_taken_up(consortium: Consortium, tmp_path: Path) -> None:
    second = charters.create(consortium.charter.members, "air", NOW, version=2)
    for authority in consortium.authorities.values():
        second = charters.sign(second, authority)
    united = consortium.nodes["united"]
    change = charter_statement(united.name, second.encode(), id="charter2", at=NOW)
    back = charter_statement(united.name, consortium.signed_charter, id="charter3", at=NOW)
    said = [*consortium.opening(), (sign(change, united.key), change)]
    report = verify_journal(written(consortium, tmp_path / "a.db", said))
    assert (report.problems, report.charter) == ((), second.charter.digest)
    report = verify_journal(written(consortium, tmp_path / "b.db", [*said, (sign(back, united.key), back)]))
    assert words(report) == "entry 5: its charter is version 1, after version 2"


def test_msgspec_bodies_of_unknown_kinds_are_no_problem(consortium: Consortium, tmp_path: Path) -> None:
    said = msgspec.structs.replace(consortium.say("united", "new"), kind="of-tomorrow")
    assert statement.read_statement(sign(said, consortium.nodes["united"].key)) == said
    path = written(consortium, tmp_path / "journal.db", [*consortium.opening(), consortium.signed("united", said)])
    assert verify_journal(path).kinds["of-tomorrow"] == 1
