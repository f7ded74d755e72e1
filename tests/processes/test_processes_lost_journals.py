# SPDX-License-Identifier: Apache-2.0
"""A node whose journal is gone or damaged does not start in silence: it says which file, and the ways back."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from parties import Parties, parties

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),  # a node outlives its command
]

_QUESTION = "SELECT COUNT(*) AS n FROM t"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    with parties(("ann", "bea", "cyd"), tmp_path_factory.mktemp("three"), "threads = 1\n") as running:
        for party in ("ann", "bea", "cyd"):
            running.publish(party, "t", pa.table({"id": list(range(20))}))
        yield running


def _journal(three: Parties, party: str) -> list[Path]:
    """The files of a stopped node's journal."""
    names = ("journal.db", "journal.db-wal", "journal.db-shm")
    return [path for name in names if (path := three.home(party) / name).exists()]


def _remove(files: list[Path]) -> None:
    for file in files:
        file.unlink()


def _empty(files: list[Path]) -> None:
    for file in files:
        file.write_bytes(b"")


@pytest.mark.parametrize("lose", [_remove, _empty])
@pytest.mark.parametrize("how", [("--background",), ()])
def test_a_journal_that_is_gone_is_not_begun_anew_in_silence(
    three: Parties, tmp_path: Path, lose: Callable[[list[Path]], None], how: tuple[str, ...]
) -> None:
    three.type("bea", "node", "stop")
    files = _journal(three, "bea")
    for file in files:
        shutil.copy(file, tmp_path)
    lose(files)
    printed = three.type("bea", "node", "start", *how)
    assert printed.code != 0
    (line,) = printed.err.splitlines()
    for word in (str(three.home("bea") / "journal.db"), "backup", "--new-journal"):
        assert word in line, line
    assert all(file.stat().st_size == 0 for file in _journal(three, "bea")), "it was left as it was found"
    for file in tmp_path.iterdir():
        shutil.copy(file, three.home("bea"))
    three.whole()
    printed = three.type("ann", "sql", _QUESTION, "--quiet")
    assert printed.out.split()[-1:] == ["60"], printed.err


def test_another_journal_is_begun_only_where_there_is_none(three: Parties) -> None:
    three.type("bea", "node", "stop")
    printed = three.type("bea", "node", "start", "--new-journal", "--background")
    assert printed.code != 0
    assert "start without --new-journal" in printed.err
    three.whole()
