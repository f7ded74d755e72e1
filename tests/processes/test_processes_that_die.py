# SPDX-License-Identifier: Apache-2.0
"""Nodes that die and come back go on with their tasks; of one that hangs or stays away the task ends in time at every
other, naming it; nothing told is lost."""

import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from parties import OPEN, Parties, parties

from junto.errors import Unavailable
from junto.journal.reading import Reader
from junto.journal.verify import verify_journal
from junto.link.methods import Progress, Waiting
from junto.node import home as homes
from junto.testing.until import until
from junto.types import TaskId

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),  # a node outlives its command
]

_SETTINGS = 'threads = 1\noffers = "3s"\nabsence = "1500ms"\n'
_QUICK = "SELECT k, SUM(v) AS s FROM t GROUP BY k ORDER BY k"
_SLOW = "SELECT SUM(v + w) AS s FROM t JOIN many ON t.k = many.k"
_LONG = "SELECT SUM(v + w) AS s FROM t JOIN several ON t.k = several.k"
_LONG_ANSWER = 2_000 * (sum(range(0, 40, 2)) + 20 + 50_000 * 2)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    with parties(("ann", "bea", "cyd"), tmp_path_factory.mktemp("three"), _SETTINGS) as running:
        few = pa.table({"id": list(range(40)), "k": [1, 2] * 20, "v": list(range(40))})
        # Joined with `many`, bea's rows are billions: her fragment takes longer than any deadline here.
        much = pa.table({"id": list(range(100_000)), "k": [1, 3] * 50_000, "v": [1] * 100_000})
        running.publish("ann", "t", few)
        running.publish("bea", "t", much)
        running.publish("cyd", "several", pa.table({"k": [1] * 2_000, "w": [1] * 2_000}), OPEN, unit=None)
        running.publish("cyd", "many", pa.table({"k": [1] * 50_000, "w": [1] * 50_000}), OPEN, unit=None)
        yield running


@pytest.fixture(autouse=True)
def _whole(three: Parties) -> None:
    three.whole()


def _answers(three: Parties) -> None:
    three.whole()
    with three.desk("cyd") as desk:
        assert desk.sql(_QUICK).run(deadline="100s").table.num_rows == 3


def _begun(three: Parties, deadline: str = "20s", question: str = _SLOW) -> TaskId:
    """A task that runs: bea works on her fragment, everybody else waits for it."""
    with three.desk("cyd") as desk:
        task = desk.sql(question).submit(deadline=deadline)
    until(lambda: _waits_for_bea(three, task), "cyd waits for bea's fragment")
    for party in ("ann", "bea"):
        until(lambda: _state(three, party, task) == "running", f"{party} has the contract")  # noqa: B023  # used at once
    return task


def _waits_for_bea(three: Parties, task: TaskId) -> bool:
    progress = three.task("cyd", task)
    return progress is not None and {w.party for w in progress.waits if w.what == "step query-bea"} == {"bea"}


def _state(three: Parties, party: str, task: TaskId) -> str:
    progress = three.task(party, task)
    return progress.state if progress is not None else ""


def _statements(three: Parties, party: str, task: TaskId, author: str) -> set[str]:
    """Ids of one party's statements about a task that a party's journal holds."""
    with Reader(three.home(party) / "journal.db") as reader:
        return {e.statement.id for e in reader.entries(task=task) if f"/{author}/" in e.statement.author}


def _proves_itself(three: Parties, party: str) -> None:
    home = homes.load(three.home(party))
    report = verify_journal(home.journal_path, home.charter())
    assert [str(problem) for problem in report.problems] == []


def test_a_participant_that_is_killed_goes_on_when_it_is_back_and_loses_nothing_it_acknowledged(three: Parties) -> None:
    task = _begun(three, "60s", _LONG)
    three.signal("bea", signal.SIGKILL)
    _proves_itself(three, "bea")  # as the kill left it, before any node repairs it
    _statements_survive(three, task, "bea")
    until(lambda: any(w.why for w in _waits(three, task) if w.party == "bea"), "cyd says why it waits for bea")
    three.start("bea")
    _is_answered(three, task)
    _proves_itself(three, "bea")


def test_a_participant_that_stays_away_ends_the_task_at_its_deadline_named(three: Parties) -> None:
    task = _begun(three, "5s")
    three.signal("bea", signal.SIGKILL)
    for party in ("cyd", "ann"):
        end = three.ended(party, task)
        assert (end.state, end.party) == ("expired", "bea")
        assert re.search(r"waiting .* for .*bea.*: step .*cannot be reached", end.reason)
    three.start("bea")
    assert three.ended("bea", task).state == "expired"
    _answers(three)


def _waits(three: Parties, task: TaskId) -> tuple[Waiting, ...]:
    progress = three.task("cyd", task)
    return progress.waits if progress is not None else ()


def _is_answered(three: Parties, task: TaskId) -> None:
    with three.desk("cyd") as desk:
        assert desk.wait(task).table.to_pydict() == {"s": [_LONG_ANSWER]}
    for party in three.names:
        assert three.ended(party, task).state == "done", party


def _statements_survive(three: Parties, task: TaskId, party: str) -> None:
    held = {author: _statements(three, party, task, author) for author in three.names}
    for other in three.names:
        assert _statements(three, other, task, party) <= held[party]
    assert len(held["cyd"]) >= 2  # the proposal and the contract, on which its work rested


def test_the_askers_node_is_killed_and_whoever_waits_there_gets_the_answer_when_it_is_back(three: Parties) -> None:
    task = _begun(three, "60s", _LONG)
    with three.desk("cyd") as desk, ThreadPoolExecutor(1) as waiting:
        answer = waiting.submit(desk.wait, task)
        three.signal("cyd", signal.SIGKILL)
        _proves_itself(three, "cyd")
        _statements_survive(three, task, "cyd")
        three.start("cyd")
        assert answer.result(timeout=240).table.to_pydict() == {"s": [_LONG_ANSWER]}
    _is_answered(three, task)
    three.signal("cyd", signal.SIGKILL)
    three.start("cyd")
    _is_answered(three, task)  # the answer outlives the process too


def test_every_node_is_killed_at_once_and_the_task_is_answered_when_all_are_back(three: Parties) -> None:
    task = _begun(three, "60s", _LONG)
    for party in three.names:
        three.signal(party, signal.SIGKILL)
    three.whole()
    _is_answered(three, task)
    for party in three.names:
        _proves_itself(three, party)


def test_a_participant_that_hangs_ends_the_task_at_its_deadline(three: Parties) -> None:
    task = _begun(three, deadline="4s")
    three.signal("bea", signal.SIGSTOP)
    for party in ("cyd", "ann"):
        end = three.ended(party, task, seconds=12)
        assert (end.state, end.party) == ("expired", "bea")
        assert end.ended_at is not None
        assert end.ended_at < end.deadline + 1.0
    three.signal("bea", signal.SIGCONT)
    assert three.ended("bea", task).state == "expired"
    _answers(three)


def test_a_participant_that_hangs_before_it_offers_is_named(three: Parties) -> None:
    three.signal("bea", signal.SIGSTOP)
    printed = three.type("cyd", "sql", _QUICK, "--deadline", "20s")
    assert printed.code == 4
    assert re.search(r"the time for offers passed waiting 3[.\d]* s for bea: its offer$", printed.err.strip())
    three.signal("bea", signal.SIGCONT)
    _answers(three)


def test_a_node_that_is_down_is_named_at_once(three: Parties) -> None:
    assert three.type("bea", "node", "stop").code == 0
    with three.desk("cyd") as desk:
        until(lambda: not all(link.up for link in desk.status().links), "cyd notices")
    began = time.monotonic()
    printed = three.type("cyd", "sql", _QUICK, "--deadline", "20s")
    assert time.monotonic() - began < 5
    assert printed.code == 4
    last = printed.err.splitlines()[-1]
    assert "bea cannot be reached: no link since" in last
    checked = three.type("cyd", "doctor")
    assert checked.code == 4
    assert re.search(r"failed cyd → bea  tcp .*: .*\n       mend: .*", checked.out)
    assert "bea cannot be asked to try us: no link is up" in checked.out
    with pytest.raises(Unavailable, match="bea"), three.desk("bea"):
        pass
    assert "junto node start" in three.type("bea", "node", "status").err
    _answers(three)


def _is_right_or_names_who_was_away(end: Progress, killed: str) -> None:
    """On a machine with much to do, one that was killed before it offered may come back too late; one that asked may
    not reach the others in time."""
    if end.state != "done":
        assert end.party in ({"ann", "bea"} if killed == "cyd" else {killed}), end.reason
        assert re.search(rf"{end.party} cannot be reached|for offers passed .*\b{end.party}\b", end.reason), end.reason


def test_every_kill_in_a_row_leaves_journals_that_prove_themselves(three: Parties) -> None:
    for party in ("ann", "bea", "cyd"):
        with three.desk("cyd") as desk:
            task = desk.sql(_QUICK).submit(deadline="20s")
        three.signal(party, signal.SIGKILL)  # wherever the task happens to be
        _proves_itself(three, party)
        three.whole()
        for other in three.names:
            if three.task(other, task) is not None:
                _is_right_or_names_who_was_away(three.ended(other, task), party)
    _answers(three)
    for party in three.names:
        _proves_itself(three, party)
