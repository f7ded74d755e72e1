# SPDX-License-Identifier: Apache-2.0
"""A journal that its own operator wrote anew, cut or forked is found by the journal of any party it spoke to."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from journal_parties import NOW, PARTIES, Consortium, found

from junto.cli import main
from junto.errors import InvalidInput
from junto.journal import statement as statements
from junto.journal.against import Against, verify_against
from junto.journal.checkpoint import origin_of
from junto.journal.heads import GAP, START, Gap, Start
from junto.journal.statement import Head, Statement, sign
from junto.journal.store import Journal
from junto.journal.verify import verify_journal
from junto.trust.certificates import pem

Told = tuple[bytes, Statement]


@pytest.fixture(scope="module")
def consortium() -> Consortium:
    return found(PARTIES)


class Book:
    """One party's journal, open to be written."""

    def __init__(self, consortium: Consortium, party: str, path: Path) -> None:
        self.node = consortium.nodes[party]
        self.path = path
        self.journal = Journal(path, origin=origin_of("air", party, "node1"), key=self.node.key, on_fatal=pytest.fail)
        self.journal.open()
        charter = statements.charter_statement(self.node.name, consortium.signed_charter, id=f"c-{party}", at=NOW)
        self.keep((sign(charter, self.node.key), charter))
        for other, node in sorted(consortium.nodes.items(), key=lambda one: one[0] != party):
            said = statements.certificate_statement(node.name, pem(node.certificate), id=f"certificate-{other}", at=NOW)
            self.keep((sign(said, node.key), said))

    def keep(self, told: Told) -> Told:
        """Keep somebody's statement."""
        self.journal.submit(*told).result()
        return told

    def say(self, id: str, body: msgspec.Struct | None = None, kind: str = "offer", start: int = 1) -> Told:
        """A statement of this party, with the head of its journal, kept here."""
        size, root = self.journal.head()
        raw = msgspec.Raw(b"{}" if body is None else msgspec.json.encode(body))
        head = Head(size, root.hex(), start)
        said = Statement(kind=kind, author=self.node.name.uri, id=id, at=NOW, head=head, body=raw)
        return self.keep((sign(said, self.node.key), said))


class World:
    """United's journal, the one it might rather have, and that of bts, which hears of united."""

    def __init__(self, consortium: Consortium, folder: Path) -> None:
        self.united = Book(consortium, "united", folder / "united.db")
        self.anew = Book(consortium, "united", folder / "anew.db")
        self.bts = Book(consortium, "bts", folder / "bts.db")
        self.folder = folder

    def close(self) -> None:
        for book in (self.united, self.anew, self.bts):
            book.journal.close()

    def found(self, book: Book) -> Against:
        """What bts's journal shows of one of united's."""
        return verify_against(book.path, self.bts.path)


@pytest.fixture
def world(consortium: Consortium, tmp_path: Path) -> Iterator[World]:
    made = World(consortium, tmp_path)
    yield made
    made.close()


def _problems(found: Against) -> list[str]:
    return [str(problem) for problem in found.problems]


def test_an_honest_journal_leads_to_every_head_that_others_hold(world: World) -> None:
    for number in range(5):
        world.united.say(f"private-{number}", kind="grant")
        world.bts.keep(world.united.say(f"offer-{number}"))
    found = world.found(world.united)
    assert (found.statements, found.heads, found.problems, found.declared) == (5, 5, (), ())
    assert verify_journal(world.united.path).problems == ()
    both = verify_against(world.bts.path, world.united.path)  # nothing of bts is there
    assert (both.statements, both.problems) == (0, ())


def test_entries_taken_out_of_the_middle_are_found_with_their_place(world: World) -> None:
    for book in (world.united, world.anew):
        told = book.say("offer-0")
        if book is world.united:
            world.bts.keep(told)
            book.say("grant-1", kind="grant")  # what must not be seen
            book.say("grant-2", kind="grant")
        told = book.say("offer-1")  # signed again, over the other history
        if book is world.united:
            world.bts.keep(told)
    assert verify_journal(world.anew.path).problems == ()  # alone it proves all it says
    assert _problems(world.found(world.united)) == []
    problems = _problems(world.found(world.anew))
    assert any("it was cut" in line or "it was rewritten" in line for line in problems)
    assert any("it lacks the offer offer-1" in line for line in problems)
    world.anew.say("offer-2")
    world.anew.say("offer-3")
    problems = _problems(world.found(world.anew))
    (line,) = [line for line in problems if "it was rewritten" in line]
    assert line.startswith("entry 4: it was rewritten: entries 4 to 6")
    assert "entry 5 of the journal of bts" in line


def test_a_journal_that_was_cut_is_found(world: World) -> None:
    for book in (world.united, world.anew):
        book.say("offer-0")
    for number in range(1, 4):
        world.bts.keep(world.united.say(f"offer-{number}"))
    (cut, *lacks) = _problems(world.found(world.anew))
    assert "it was cut: it ends after 5 entries" in cut
    assert "holds a signed head of 7" in cut
    assert len(lacks) == 3


def test_two_histories_that_one_party_told_are_a_fork(world: World) -> None:
    world.united.say("grant-a", kind="grant")
    world.anew.say("grant-b", kind="grant")
    world.bts.keep(world.united.say("offer-a"))
    world.bts.keep(world.anew.say("offer-b"))
    for book in (world.united, world.anew):
        assert any("two signed heads of 5 entries" in line for line in _problems(world.found(book)))


def test_what_is_said_to_be_lost_is_listed_and_is_no_problem(world: World) -> None:
    world.united.say("offer-0")
    world.anew.say("offer-0")
    lost = [world.bts.keep(world.united.say(f"offer-{number}")) for number in range(1, 4)]
    seen = lost[-1][1].head
    assert isinstance(seen, Head)
    size, _ = world.anew.journal.head()
    for told in lost:
        world.anew.keep(told)  # back from bts, in another order
    world.bts.keep(world.anew.say("gap", Gap(size, seen, "bts", 3), GAP))
    world.bts.keep(world.anew.say("start", Start(2, "0" * 16), START, start=2))
    found = world.found(world.anew)
    assert found.problems == ()
    assert "entries after the first 5 were lost" in found.declared[0]
    assert verify_journal(world.anew.path).problems == ()


def test_a_head_of_another_history_in_ones_own_journal_is_a_problem(world: World) -> None:
    world.anew.say("grant", kind="grant")
    world.united.keep(world.anew.say("offer"))
    (problem,) = verify_journal(world.united.path).problems
    assert str(problem).startswith("entry 4: it was written after 5 entries")


def test_a_head_that_somebody_else_signed_counts_for_nothing(world: World) -> None:
    size, root = 99, "0" * 64
    said = Statement(
        kind="offer",
        author=world.united.node.name.uri,
        id="forged",
        at=NOW,
        head=Head(size, root, 1),
        body=msgspec.Raw(b"{}"),
    )
    world.bts.keep((sign(said, world.bts.node.key), said))
    found = world.found(world.united)
    assert (found.statements, found.problems) == (0, ())


def test_the_command_names_the_problems_and_ends_with_one(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.bts.keep(world.united.say("offer-0"))
    for book in (world.united, world.anew, world.bts):
        book.journal.close()
    words = ["journal", "verify", str(world.united.path), "--against", str(world.bts.path)]
    assert main(words) == 0
    assert "1 statements of this one, 1 heads" in capsys.readouterr().out
    assert main(["journal", "verify", str(world.anew.path), "--against", str(world.bts.path)]) == 1
    assert "PROBLEM      it lacks the offer offer-0" in capsys.readouterr().out
    with pytest.raises(InvalidInput, match="give another party's"):
        verify_against(world.united.path, world.anew.path)
