# SPDX-License-Identifier: Apache-2.0
"""A disk that has no room while a question runs: everybody hears whose, nobody waits for the deadline, and what was
begun is answered where room comes in time.

The system refuses a node's process every write of a file, as a full disk would; that takes no rights.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from parties import OPEN, Parties, parties

from junto.errors import StorageFailed
from junto.journal.verify import verify_journal
from junto.node import home as homes
from junto.testing.until import until
from junto.types import TaskId

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),  # a node outlives its command
]

_ANSWER = 500 * (sum(range(0, 40, 2)) + 20 + 50_000 * 2)
_NO_ROOM = "the disk of {} takes no larger file: it can record nothing; its log says where"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    with parties(("ann", "bea", "cyd"), tmp_path_factory.mktemp("full"), "threads = 1\n") as running:
        few = pa.table({"id": list(range(40)), "k": [1, 2] * 20, "v": list(range(40))})
        much = pa.table({"id": list(range(100_000)), "k": [1, 3] * 50_000, "v": [1] * 100_000})
        running.publish("ann", "t", few)
        running.publish("bea", "t", much)
        yield running


@contextmanager
def _full(three: Parties, party: str) -> Iterator[None]:
    """A party's node that can write no file, from now on until the end."""
    pid = three.pid(party)
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
        assert three.pid(party) == pid


def _asked(three: Parties, name: str, seconds: int) -> TaskId:
    """A question of cyd's that runs, over a table of its own that nobody holds a copy of."""
    three.publish("cyd", name, pa.table({"k": [1] * 500, "w": [1] * 500}), OPEN, unit=None)
    with three.desk("cyd") as desk:
        task = desk.sql(f"SELECT SUM(v + w) AS s FROM t JOIN {name} ON t.k = {name}.k").submit(deadline=f"{seconds}s")
    until(lambda: _state(three, task) == "running", "the question runs")
    return task


def _state(three: Parties, task: TaskId) -> str:
    progress = three.task("cyd", task)
    return progress.state if progress is not None else ""


def _ends_by_name(three: Parties, task: TaskId, party: str) -> None:
    """Everybody hears whose disk it is, before the deadline; nobody is told of files."""
    for other in three.names:
        end = three.ended(other, task, 100)
        assert (end.state, end.code, end.party) == ("failed", "storage-failed", party), (other, end.reason)
        assert end.ended_at is not None
        assert end.ended_at < end.deadline
        if other != party:
            assert end.reason == _NO_ROOM.format(party)
    with three.desk("cyd") as desk, pytest.raises(StorageFailed, match=party):  # of which `junto sql` ends with 1
        desk.wait(task)


def _has_no_outputs(home: Path) -> bool:
    return not list((home / "spool").glob("*.out"))


def _is_whole(three: Parties) -> None:
    """Nothing half-written is left, and nodes work on."""
    with three.desk("cyd") as desk:
        assert desk.sql("SELECT k, SUM(v) AS s FROM t GROUP BY k").run(deadline="100s").table.num_rows == 3
    for party in three.names:
        home = homes.load(three.home(party))
        assert [str(problem) for problem in verify_journal(home.journal_path, home.charter()).problems] == []
        until(partial(_has_no_outputs, home.path), f"outputs of {party} are gone")
        assert not list((home.path / "cache").glob("*.part"))
        assert not list(home.path.glob("*.room"))


def _is_answered(three: Parties, task: TaskId) -> None:
    with three.desk("cyd") as desk:
        assert desk.wait(task).table.to_pydict() == {"s": [_ANSWER]}
    for party in three.names:
        assert three.ended(party, task, 60).state == "done"


def test_everybody_hears_whose_disk_is_full_and_the_node_works_on_when_there_is_room(three: Parties) -> None:
    task = _asked(three, "several", 100)
    with _full(three, "cyd"):
        _ends_by_name(three, task, "cyd")
    _is_whole(three)


def test_a_question_whose_disk_has_room_again_in_time_is_answered(three: Parties) -> None:
    task = _asked(three, "again", 100)
    with _full(three, "cyd"):
        until(lambda: _waits_for_room(three, "cyd", task), "cyd waits for room", 60)
    _is_answered(three, task)
    _is_whole(three)


def _waits_for_room(three: Parties, party: str, task: TaskId) -> bool:
    """True if a party has tried in vain, as its own people are told."""
    with three.desk(party) as desk:
        return any("takes no larger file" in wait.why or "too large" in wait.why for wait in desk.task(task).waits)
