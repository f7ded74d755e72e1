# SPDX-License-Identifier: Apache-2.0
"""`junto journal` reads the file alone: it lists, shows with a proof that verifies, and names every problem."""

import base64
import sqlite3
from pathlib import Path

import msgspec
import pytest
from journal_parties import NOW, PARTIES, Consortium, found

from junto.cli import main
from junto.journal import checkpoint, tree
from junto.journal.store import Journal


@pytest.fixture(scope="module")
def consortium() -> Consortium:
    return found(PARTIES)


def unexpected(what: str) -> None:
    raise AssertionError(what)


def opened(consortium: Consortium, path: Path) -> Journal:
    return Journal(path, origin=consortium.origin, key=consortium.nodes["united"].key, on_fatal=unexpected)


@pytest.fixture
def file(consortium: Consortium, tmp_path: Path) -> Path:
    path = tmp_path / "journal.db"
    with opened(consortium, path) as journal:
        for said in consortium.talk(10):
            journal.submit(*said).result(10)
    return path


class Listed(msgspec.Struct):
    id: str
    kind: str
    task: str = ""


class Proof(msgspec.Struct):
    checkpoint: str
    size: int
    hashes: list[bytes]


class Shown(msgspec.Struct):
    index: int
    leaf: bytes
    envelope: msgspec.Raw
    statement: Listed
    proof: Proof | None


def test_ls_shows_the_newest_that_were_asked_for(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def listed(*options: str) -> list[str]:
        assert main(["journal", "ls", "--file", str(file), "--json", *options]) == 0
        return [each.id for each in msgspec.json.decode(capsys.readouterr().out, type=list[Listed])]

    assert listed("--limit", "3") == ["s7", "s8", "s9"]
    assert listed("--task", "task1") == ["s1", "s6"]
    assert listed("--kind", "certificate", "--limit", "2") == ["certificate-bts", "certificate-delta"]
    assert listed("--kind", "certificate", "--kind", "charter") == [
        "charter", "certificate-united", "certificate-bts", "certificate-delta",
    ]  # fmt: skip
    assert len(listed("--limit", "0")) == 14
    assert main(["journal", "ls", "--file", str(file), "--limit", "2"]) == 0
    text = capsys.readouterr().out
    assert "united/node1" in text
    assert "2 of 14 entries; --limit 0 lists all" in text


def test_show_prints_a_proof_that_verifies(
    consortium: Consortium, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = consortium.nodes["united"].key.public_key()
    for wanted in ("0", "s4", "13"):
        assert main(["journal", "show", wanted, "--file", str(file), "--json"]) == 0
        shown = msgspec.json.decode(capsys.readouterr().out, type=Shown)
        assert shown.proof is not None
        head = checkpoint.verify(shown.proof.checkpoint, consortium.origin, key)
        leaf = tree.leaf_hash(bytes(shown.envelope))
        tree.verify_inclusion(leaf, shown.index, head.size, shown.proof.hashes, head.root)
    assert main(["journal", "show", "s4", "--file", str(file)]) == 0
    text = capsys.readouterr().out
    assert "author   spiffe://air/delta/node1" in text
    assert '"of": "s4"' in text
    assert base64.b64encode(head.root).decode() in text


def test_show_says_when_no_checkpoint_binds_the_entry_yet(
    consortium: Consortium, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(consortium, file) as journal:
        journal.submit(*consortium.signed("delta", consortium.say("delta", "new", at=NOW))).result(10)
        assert main(["journal", "show", "new", "--file", str(file)]) == 0
    assert "newer than the last checkpoint" in capsys.readouterr().out


def test_show_names_what_is_not_there(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["journal", "show", "nothing", "--file", str(file)]) == 1
    assert "has no statement 'nothing': `junto journal ls` lists them" in capsys.readouterr().err
    assert main(["journal", "show", "14", "--file", str(file)]) == 1
    assert "has no entry 14; it has 14" in capsys.readouterr().err


def test_verify_passes_a_sound_journal_and_knows_the_charter(
    consortium: Consortium, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, other = tmp_path / "charter.json", tmp_path / "other.json"
    ours.write_bytes(consortium.signed_charter)
    other.write_bytes(found(PARTIES).signed_charter)
    assert main(["journal", "verify", str(file), "--charter", str(ours)]) == 0
    text = capsys.readouterr().out
    assert "No problem" in text
    assert "the first 14 entries are bound" in text
    assert main(["journal", "verify", str(file), "--charter", str(other)]) == 1
    assert "the journal's charter is not the one given" in capsys.readouterr().out


def test_verify_names_every_problem_and_fails(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    connection = sqlite3.connect(file)
    connection.executescript("DROP TRIGGER entry_is_not_changed; UPDATE entry SET task = 'x' WHERE position IN (5, 7)")
    connection.execute("UPDATE entry SET envelope = replace(envelope, 'e', 'f') WHERE position = 9")
    connection.commit()
    connection.close()
    assert main(["journal", "verify", str(file)]) == 1
    text = capsys.readouterr().out
    for place in (5, 7, 9):
        assert f"PROBLEM      entry {place}: " in text
    assert "No problem" not in text


def test_a_missing_journal_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["ls", "--file"], ["verify"], ["show", "0", "--file"]):
        assert main(["journal", *command, str(tmp_path / "none.db")]) == 1
        assert capsys.readouterr().err == f"junto: there is no journal at {tmp_path / 'none.db'}\n"
