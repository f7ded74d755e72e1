# SPDX-License-Identifier: Apache-2.0
"""Two nodes of one party, as processes, share its fragments: either may die in the middle, and the other goes on."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from parties import OPEN, Parties, parties
from test_processes_failover import Pair

from junto.client.question import Answer
from junto.link.methods import Doubled
from junto.testing.until import until

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),  # a node outlives its command
]

_LONG = "SELECT SUM(v + w) AS s, COUNT(*) AS n FROM t JOIN several ON t.k = several.k"
_ROWS, _TIMES = 40_000, 800  # of cyd's fragment: some seconds of one processor


def _publish(three: Parties) -> int:
    """Every party has its own rows, and the very table that they are joined with; how many rows that gives."""
    for party, rows in (("ann", 40), ("bea", 40), ("cyd", _ROWS)):
        three.publish(party, "t", pa.table({"id": range(rows), "k": [1] * rows, "v": [1.0] * rows}))
    for party in three.names:
        three.publish(party, "several", pa.table({"k": [1] * _TIMES, "w": [1.0] * _TIMES}), OPEN, unit=None)
    return (_ROWS + 80) * _TIMES


def _helper(pair: Pair, node: str) -> None:
    """Wait until a node helps the one that acts."""
    with pair.three.desk("cyd") as desk:
        until(lambda: [helper.node for helper in desk.status().helpers] == [node], f"{node} helps")


def _computing(pair: Pair) -> None:
    """Wait until both nodes compute."""
    with pair.three.desk("cyd") as desk:
        until(lambda: [len(node.running) for node in next(iter(desk.top())).nodes] == [1, 1], "both compute")


def _of_cyd(answer: Answer) -> Doubled:
    return next(one for one in answer.doubled if one.party == "cyd")


def test_a_pair_doubles_a_fragment_and_either_node_may_die_in_the_middle_of_it(tmp_path: Path) -> None:
    with parties(("ann", "bea", "cyd"), tmp_path, "threads = 1\n") as three:
        pair = Pair(three)
        try:
            pair.whole()
            rows = _publish(three)
            right = {"s": [2.0 * rows], "n": [rows]}
            acting, standing_by = pair.acting()
            _helper(pair, standing_by)
            with three.desk("ann") as desk, ThreadPoolExecutor(1) as waiting:
                task = desk.sql(_LONG).submit(deadline="240s", double=True)
                answer = waiting.submit(desk.wait, task)
                _computing(pair)
                pair.processes[standing_by].kill()
                found = answer.result(timeout=240)
                assert found.table.to_pydict() == right
                assert _of_cyd(found).line == (
                    f"{standing_by} of cyd gave no second result; step query-cyd was computed once"
                )
                pair.ended(standing_by)
                pair.start(standing_by)
                _helper(pair, standing_by)

                task = desk.sql(f"{_LONG} -- again").submit(deadline="240s", double=True)
                answer = waiting.submit(desk.wait, task)
                _computing(pair)
                pair.processes[acting].kill()
                pair.ended(acting)
                pair.start(acting)
                assert answer.result(timeout=240).table.to_pydict() == right
                _helper(pair, acting)

                found = desk.sql("SELECT k, SUM(v) AS s FROM t GROUP BY k").run(deadline="100s", double=True)
                assert found.deviations == ()
                both = _of_cyd(found)
                assert sorted(both.nodes) == [acting, standing_by]
                assert both.first == both.second != ""
            printed = three.type_at(pair.homes[standing_by], "node", "status")
            assert f"helper       {acting} for" in printed.out
            for node in pair.homes:
                assert "Traceback" not in (pair.homes[node] / "node.log").read_text()
        finally:
            pair.stop()
