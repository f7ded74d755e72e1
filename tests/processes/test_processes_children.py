# SPDX-License-Identifier: Apache-2.0
"""Fragments run in children of a node: they end with their task and their node, and a crash costs no answer."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pyarrow as pa
import pytest
from parties import OPEN, Parties, parties

from junto.demo.consortium import is_alive
from junto.link.methods import ChildStatus
from junto.plan.steps import Query
from junto.testing.until import until
from junto.types import TaskId

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),  # a node outlives its command
]

_LONG = "SELECT SUM(v + w) AS s, COUNT(*) AS n FROM t JOIN several ON t.k = several.k"
_SHORT = "SELECT SUM(v) AS s, COUNT(*) AS n FROM t"
_ROWS, _TIMES = 40_000, 800  # of bea's fragment: some seconds of one processor


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    with parties(("ann", "bea"), tmp_path_factory.mktemp("children"), "threads = 1\n") as two:
        two.publish("ann", "t", pa.table({"id": range(40), "k": [1] * 40, "v": [1.0] * 40}))
        two.publish("bea", "t", pa.table({"id": range(_ROWS), "k": [1] * _ROWS, "v": [1.0] * _ROWS}))
        for party in two.names:
            for name, times in (("several", _TIMES), ("endless", 400_000)):
                two.publish(party, name, pa.table({"k": [1] * times, "w": [1.0] * times}), OPEN, unit=None)
        yield two


def _children(two: Parties, party: str, *, busy: bool, kind: str = "fragments") -> tuple[ChildStatus, ...]:
    with two.desk(party) as desk:
        return tuple(child for child in desk.status().children if (child.kind, child.busy) == (kind, busy))


def _computing(two: Parties, party: str) -> ChildStatus:
    return until(lambda: _children(two, party, busy=True), f"a child of {party} computes")[0]


def _asked(two: Parties, deadline: str = "60s") -> TaskId:
    """A question whose fragment at bea takes minutes."""
    with two.desk("ann") as desk:
        return desk.sql(_LONG.replace("several", "endless")).submit(deadline=deadline)


def test_a_node_has_no_child_before_its_first_fragment_and_shows_those_it_has(two: Parties) -> None:
    two.type("bea", "node", "stop")
    two.start("bea")
    two.whole()
    assert _children(two, "bea", busy=False) == ()
    with two.desk("ann") as desk:
        desk.sql(_SHORT).run(deadline="30s")
    (child,) = _children(two, "bea", busy=False)
    assert f"child        fragments, pid {child.pid}, rests" in two.type("bea", "node", "status").out


def test_a_child_that_crashes_costs_no_answer(two: Parties) -> None:
    with two.desk("ann") as desk, ThreadPoolExecutor(1) as waiting:
        answer = waiting.submit(lambda: desk.sql(_LONG).run(deadline="60s"))
        os.kill(_computing(two, "bea").pid, signal.SIGSEGV)
        assert answer.result(timeout=240).table.to_pydict()["n"] == [_TIMES * (_ROWS + 40)]


def test_a_fragment_that_crashes_twice_fails_by_name(two: Parties) -> None:
    task = _asked(two)
    first = _computing(two, "bea")
    os.kill(first.pid, signal.SIGSEGV)
    again = until(lambda: [c for c in _children(two, "bea", busy=True) if c.pid != first.pid], "it is tried again")
    os.kill(again[0].pid, signal.SIGSEGV)
    ended = two.ended("ann", task)
    assert (ended.state, ended.party) == ("failed", "bea")


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_a_fragment_ends_with_its_task_and_its_slot_is_free(two: Parties, how: str) -> None:
    task = _asked(two, "5s" if how == "deadline" else "60s")
    child = _computing(two, "bea")
    if how == "cancel":
        with two.desk("ann") as desk:
            desk.cancel(task)
    two.ended("bea", task)
    until(lambda: not is_alive(child.pid), "its child is gone")
    with two.desk("bea") as desk:
        until(lambda: next(iter(desk.top())).used.slots == 0, "its slot is free")


def test_fifty_questions_leave_neither_descriptors_nor_processes(two: Parties) -> None:
    with two.desk("ann") as desk:

        def asked() -> None:
            desk.sql(_SHORT).run(deadline="30s")

        def held() -> dict[str, int]:
            return {party: len(os.listdir(f"/proc/{two.pid(party)}/fd")) for party in two.names}

        for _ in range(5):
            asked()
        before = held()
        for _ in range(50):
            asked()
        until(lambda: all(held()[party] <= before[party] + 2 for party in two.names), "descriptors are given back")
    for party in two.names:
        assert len(_children(two, party, busy=True)) == 0
        assert len(_children(two, party, busy=False, kind="plans")) == 1
        assert len(_children(two, party, busy=False)) <= 2


def test_a_node_answers_and_keeps_its_links_while_it_reads_a_plan_that_takes_long(two: Parties) -> None:
    with two.desk("ann") as desk:
        plan = desk.sql(_SHORT).plan
        first = next(step for step in plan.steps if isinstance(step, Query) and step.party == "bea")
        sums = ", ".join(f'SUM(CASE WHEN "t0"."v" > {i} THEN 1 ELSE 0 END) AS "m{i}"' for i in range(1_500))
        large = msgspec.structs.replace(first, sql=f'SELECT {sums} FROM "t" AS "t0"')
        steps = tuple(large if step.id == first.id else step for step in plan.steps)
        task = desk.submit(msgspec.structs.replace(plan, steps=steps), seconds=60.0, purpose="", priority=0)
        until(lambda: _children(two, "ann", busy=True, kind="plans"), "a child of ann reads the plan")
        assert desk.task(task).state == "judging"  # the node answers meanwhile
        assert two.ended("ann", task).state == "failed"
        for party in two.names:
            with two.desk(party) as other:
                assert all(link.up for link in other.status().links)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_node_that_ends_during_a_fragment_leaves_no_child(two: Parties, how: signal.Signals) -> None:
    task = _asked(two)
    child = _computing(two, "bea")
    node = two.pid("bea")
    os.kill(node, how)
    until(lambda: not is_alive(node), "the node is gone")
    until(lambda: not is_alive(child.pid), "its child is gone")
    with two.desk("ann") as desk:
        desk.cancel(task)
    two.whole()
