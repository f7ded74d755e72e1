# SPDX-License-Identifier: Apache-2.0
"""A node started twice, on a taken port, with another charter or on a full disk says what is wrong, and the mend."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from parties import Parties, parties

from junto.cli import main
from junto.journal.verify import verify_journal
from junto.node import home as homes
from junto.testing.until import until
from junto.trust import charter as charters

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),  # a node outlives its command
]

_SETTINGS = 'threads = 1\noffers = "10s"\nabsence = "1500ms"\n'
_QUESTION = "SELECT SUM(v) AS s FROM t"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    with parties(("ann", "bea", "cyd"), tmp_path_factory.mktemp("three"), _SETTINGS) as running:
        table = pa.table({"id": list(range(40)), "v": list(range(40))})
        running.publish("ann", "t", table)
        running.publish("bea", "t", table)
        yield running


@pytest.fixture(autouse=True)
def _whole(three: Parties) -> None:
    three.whole()


def _answers(three: Parties) -> None:
    printed = three.type("cyd", "sql", _QUESTION, "--quiet", "--deadline", "20s")
    assert (printed.code, printed.out.split()[-1:]) == (0, ["1560"]), printed.err


def _one_line(text: str) -> str:
    (line,) = text.splitlines()
    return line


def test_a_second_node_of_a_home_is_refused_with_the_firsts_process(three: Parties) -> None:
    pid = three.pid("bea")
    for words in (("--background",), ()):
        printed = three.type("bea", "node", "start", *words)
        assert printed.code == 1
        assert re.search(rf"\b{pid}\b", _one_line(printed.err))
    assert three.pid("bea") == pid
    _answers(three)


def test_a_taken_port_is_named(three: Parties) -> None:
    assert three.type("bea", "node", "stop").code == 0
    described = three.home("bea") / "party.toml"
    kept = described.read_text()
    taken = homes.load(three.home("ann")).party.listen
    described.write_text(re.sub(r'listen = ".*"', f'listen = "{taken}"', kept))
    for words in (("--background",), ()):
        line = _one_line(three.type("bea", "node", "start", *words).err)
        assert f"cannot listen on {taken}" in line
        assert "is another node running here" in line
    described.write_text(kept)
    three.whole()
    _answers(three)


def test_nodes_with_different_charters_say_what_differs_on_both_sides(three: Parties, tmp_path: Path) -> None:
    newer = _newer_charter(three, tmp_path)
    assert three.type("bea", "node", "stop").code == 0
    assert three.type("bea", "node", "start", "--background", "--charter", str(newer)).code == 0
    for party, other, mine, theirs, whose in (("ann", "bea", 1, 2, "us"), ("bea", "ann", 2, 1, "them")):
        told = re.compile(
            rf"charter differs: here version {mine} sha256:\w+…, at {other}/node-1 version {theirs} sha256:\w+…:"
            rf" give the newer to {whose}"
        )
        _await_status(three, party, told)
        checked = three.type(party, "doctor", other)
        assert checked.code == 4
        assert re.search(rf"failed {party} → {other}  charter .*{told.pattern}", checked.out)
        assert "mend: hand the newer charter" in checked.out
        assert "`junto node start --charter FILE`" in checked.out
    _await_status(three, "cyd", re.compile("bea.*charter differs"))
    refused = three.type("cyd", "sql", _QUESTION, "--deadline", "20s")
    assert refused.code == 4
    assert "bea cannot be reached" in refused.err.splitlines()[-1]
    assert "charter differs" in refused.err.splitlines()[-1]
    for party in ("ann", "cyd"):
        assert three.type(party, "node", "stop").code == 0
        assert three.type(party, "node", "start", "--background", "--charter", str(newer)).code == 0
    three.whole()
    _answers(three)
    older = three.type("ann", "node", "start", "--charter", str(three.running.folder / "tests.charter"))
    assert "older than version 2" in _one_line(older.err)


def _await_status(three: Parties, party: str, told: re.Pattern[str]) -> None:
    until(lambda: told.search(three.type(party, "node", "status").out), f"{party} tells its operator")


def _newer_charter(three: Parties, folder: Path) -> Path:
    file = folder / "newer.charter"
    cards = [str(three.running.folder / f"{party}.card") for party in three.names]
    assert main(["charter", "create", *cards, "--name", "tests", "--version", "2", "--out", str(file)]) == 0
    signed = charters.verify(file.read_bytes())
    for party in three.names:
        signed = charters.sign(signed, homes.load(three.home(party)).authority())
    file.write_bytes(signed.encode())
    return file


def test_a_certificate_from_a_wrong_clock_is_renewed_when_the_clock_is_right(three: Parties) -> None:
    assert three.type("bea", "node", "stop").code == 0
    home = homes.load(three.home("bea"))
    (home.path / "keys" / "node.pem").unlink()
    wrong = home.node_identity(4_000_000_000.0)  # a clock in the year 2096
    three.whole()
    _answers(three)
    with three.desk("bea") as desk:
        assert desk.status().certificate_until < wrong.expires


@contextmanager
def _small_disk(three: Parties, party: str) -> Iterator[None]:
    """A party's folder on a file system of 6 MB of its own. Skips where nothing can be mounted."""
    folder = three.home(party)
    assert three.type(party, "node", "stop").code == 0
    kept = folder.with_name(folder.name + ".kept")
    folder.rename(kept)
    folder.mkdir()
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m,mode=700", "tmpfs", str(folder)], capture_output=True, check=False
    )
    try:
        if mounting.returncode == 0:
            shutil.copytree(kept, folder, dirs_exist_ok=True)
            try:
                yield
            finally:
                three.type(party, "node", "stop")
            shutil.rmtree(kept)
            shutil.copytree(folder, kept)
    finally:
        if mounting.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()
        kept.rename(folder)
    if mounting.returncode != 0:
        pytest.skip("this machine lets us mount no file system")


def _fill(file: Path) -> None:
    with open(os.open(file, os.O_CREAT | os.O_WRONLY), "wb", buffering=0) as filler:
        try:
            while filler.write(bytes(4096)):
                pass
        except OSError:
            pass


def test_a_full_disk_refuses_work_in_one_line_and_nothing_else(three: Parties) -> None:
    with _small_disk(three, "bea"):
        three.whole()
        _answers(three)
        with three.desk("bea") as desk:
            earlier = desk.sql(_QUESTION).run(deadline="20s").task
        pid = three.pid("bea")
        filler = three.home("bea") / "filler"
        _fill(filler)
        for _ in range(3):
            asked = three.type("cyd", "sql", _QUESTION, "--quiet", "--deadline", "20s")
            assert asked.code == 1
            line = _one_line(asked.err)
            assert "failed at bea: bea did not take in the proposal: the disk of bea is full" in line
            assert str(three.home("bea")) not in line
        own = three.type("bea", "sql", _QUESTION, "--quiet", "--deadline", "20s")
        assert (own.code, "no space left" in _one_line(own.err)) == (1, True)
        publishing = three.type("bea", "dataset", "publish", str(three.home("bea") / "data" / "t.toml"))
        assert (publishing.code, "no space left" in _one_line(publishing.err)) == (1, True)
        for words in (("node", "status"), ("dataset", "ls"), ("task", "ls"), ("journal", "verify"), ("journal", "ls")):
            assert three.type("bea", *words).code == 0, words
        with three.desk("bea") as desk:
            assert desk.wait(earlier).table.to_pylist() == [{"s": 1560}]
        assert three.pid("bea") == pid
        filler.unlink()
        until(lambda: three.type("cyd", "sql", _QUESTION, "--quiet", "--deadline", "20s").code == 0, "bea works again")
        _answers(three)
        assert three.pid("bea") == pid
    home = homes.load(three.home("bea"))
    assert [str(problem) for problem in verify_journal(home.journal_path, home.charter()).problems] == []
    three.whole()
    _answers(three)
