# SPDX-License-Identifier: Apache-2.0
"""Typed at a shell: a result that three parties check; the asker's node is killed while it waits for a signature."""

import signal
from collections.abc import Iterator

import pyarrow as pa
import pytest
from parties import OPEN, Parties, parties

from junto.journal.verify import verify_journal
from junto.link.methods import Progress
from junto.node import home as homes
from junto.testing.until import until
from junto.types import TaskId

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),  # a node outlives its command
]

_MEAN = "SELECT AVG(v) AS m FROM weather"
_LONG = "SELECT SUM(a.v + b.v) AS s FROM weather a JOIN weather b ON a.k = b.k"
_ROWS = 12_000


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    names = ("ann", "bea", "cyd", "dot")
    with parties(names, tmp_path_factory.mktemp("four"), 'threads = 1\nabsence = "1500ms"\n') as running:
        weather = pa.table({"k": [1] * _ROWS, "v": [0.1 * (i % 7) for i in range(_ROWS)]})
        for party in names[1:]:
            running.publish(party, "weather", weather, OPEN, unit=None)
        yield running


def test_a_result_is_checked_and_shown_with_its_signatures(four: Parties) -> None:
    shown = four.type("ann", "sql", _MEAN, "--certify", "3", "--explain")
    assert "computes step query again, to certify it" in shown.out
    printed = four.type("ann", "sql", _MEAN, "--certify", "3")
    assert printed.code == 0, printed.err
    assert "certified step query sha256:" in printed.err
    assert "by bea, cyd, dot, ann" in printed.err
    with four.desk("ann") as desk:
        task = desk.tasks()[0]
    assert task.receipt is not None
    lines = four.type("ann", "task", "show", task.task).out
    for signed in task.receipt.certificates[0].signed:
        assert f"{signed.party}" in lines
        assert signed.statement in lines
        for party in ("ann", "bea", "cyd", "dot"):
            found = four.type(party, "journal", "show", signed.statement)
            assert found.code == 0, found.err
            assert signed.digest in found.out
            assert f"/{signed.party}/" in found.out
    for party in ("ann", "bea", "cyd", "dot"):
        assert four.type(party, "journal", "verify").code == 0
    too_many = four.type("ann", "sql", _MEAN, "--certify", "4")
    assert too_many.code != 0
    assert "only bea, cyd, dot can compute" in too_many.err


def test_an_asker_killed_while_it_waits_for_a_signature_goes_on_and_has_its_receipt(four: Parties) -> None:
    with four.desk("ann") as desk:
        task = desk.sql(_LONG).submit(deadline="60s", certify=3)
    until(lambda: _at(four, "dot", task) == "running", "dot computes")
    four.signal("dot", signal.SIGSTOP)
    until(lambda: _owing(four, task) == {"dot"}, "ann waits for dot's digest alone")
    four.signal("ann", signal.SIGKILL)
    four.start("ann")
    until(lambda: _owing(four, task) == {"dot"}, "ann waits for dot's digest again")
    four.signal("dot", signal.SIGCONT)
    end = four.ended("ann", task, 40.0)
    assert end.state == "done", end.reason
    with four.desk("ann") as desk:
        answer = desk.wait(task)
    assert answer.table.num_rows == 1
    assert answer.deviations == ()
    assert {s.party for s in answer.certificates[0].signed} == {"ann", "bea", "cyd", "dot"}
    assert four.ended("dot", task).receipt is not None
    for party in ("ann", "dot"):
        home = homes.load(four.home(party))
        assert not verify_journal(home.journal_path, home.charter()).problems


def _at(four: Parties, party: str, task: TaskId) -> str:
    progress = four.task(party, task)
    return progress.state if progress is not None else ""


def _owing(four: Parties, task: TaskId) -> set[str]:
    progress: Progress | None = four.task("ann", task)
    waits = progress.waits if progress is not None else ()
    return {wait.party for wait in waits if wait.what.startswith("its digest of step")}
