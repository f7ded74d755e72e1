# SPDX-License-Identifier: Apache-2.0
"""Node processes killed in the middle of a task: how long until the answer is there, and what was computed twice.

The task has twenty steps that rest on each other: ten fragments at three owners in turn, nine outputs of a megabyte
handed on, and the release at the asker. A node says in its log (`log = "debug"`) when it has computed a step; what it
says of one step twice was computed twice.
"""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from junto.catalog.dataset import Dataset
from junto.catalog.write import dataset_file
from junto.client import Desk, Question
from junto.client.question import Answer
from junto.demo.consortium import Consortium, consortium, junto
from junto.errors import JuntoError
from junto.link.ports import free_ports
from junto.node.process import STANDS_BY
from junto.plan import expressions
from junto.plan.steps import AnyStep, Move, Plan, Query, Read, Release
from junto.types import DatasetName, PartyId, StepId, TaskId

OWNERS = ("north", "south", "west")
ASKER = "north"
ROWS = 125_000
STEP_BYTES = 8 * ROWS
STEPS = 20
_PAIRS = 300  # rows that each fragment compares with all: some 60 ms of one core
SECONDS = 60.0


@dataclass(frozen=True)
class Crash:
    """What came of a kill: seconds from the process's start to the answer at the client, and what ran twice."""

    seconds: float
    finished_before: int
    again: int

    @property
    def bytes_again(self) -> int:
        """The outputs of steps that had been computed before, and were again."""
        return self.again * STEP_BYTES


@contextmanager
def three() -> Iterator[Consortium]:
    """Three owners, one of whom has a table of a megabyte that everybody may see."""
    with consortium(OWNERS, "bench") as running:
        for home in running.homes.values():
            junto("node", "stop", "--home", str(home))
            (home / "node.toml").write_text('log = "debug"\n')
        for home in running.homes.values():
            _start(home)
        home = running.homes[ASKER]
        pq.write_table(pa.table({"v": range(ROWS)}), home / "data" / "base.parquet")
        opened = [{"columns": ["*"], "allow": "open"}]
        (home / "data" / "base.toml").write_text(dataset_file("base", "base.parquet", opened, None))
        junto("dataset", "publish", str(home / "data" / "base.toml"), "--home", str(home))
        yield running


def chain(datasets: "list[Dataset]") -> Plan:
    """Twenty steps, each of which needs the one before it; the answer is every value plus ten."""
    base = next(dataset for dataset in datasets if dataset.name == "base")
    steps: list[AnyStep] = []
    sql = _spelt(
        'SELECT "t"."v" + 1 + (SELECT count(*) FROM "t" AS "a", "t" AS "b"'
        f' WHERE "a"."v" < {_PAIRS} AND "a"."v" + "b"."v" < 0) AS "v" FROM "t"'
    )
    fragments = STEPS // 2
    for number in range(fragments):
        party = PartyId(OWNERS[number % len(OWNERS)])
        read = (
            Read("t", DatasetName("base"), base.version, columns=("v",))
            if number == 0
            else Read("t", step=StepId(f"move-{number - 1}"), columns=("v",))
        )
        steps.append(Query(StepId(f"query-{number}"), party, sql, (read,), columns=("v",), column_types=("BIGINT",)))
        if number < fragments - 1:
            to = PartyId(OWNERS[(number + 1) % len(OWNERS)])
            steps.append(Move(StepId(f"move-{number}"), StepId(f"query-{number}"), party, (to,), ("v",)))
    own = StepId(f"query-{fragments - 1}")
    last = _spelt('SELECT "v" AS "v" FROM "released"')
    steps.append(Release(StepId("release"), PartyId(ASKER), last, own, columns=("v",), column_types=("BIGINT",)))
    return Plan("twenty steps, one after the other", PartyId(ASKER), tuple(steps))


def _spelt(sql: str) -> str:
    return expressions.text_of(expressions.parse(sql))


def undisturbed(running: Consortium) -> float:
    """Seconds of the task when nobody is killed."""
    with running.desk(ASKER) as desk:
        question = _question(desk)
        began = time.perf_counter()
        _check(question.run(deadline=SECONDS))
        return time.perf_counter() - began


def killed(running: Consortium, step: int) -> Crash:
    """The task, and the node that computes its step `step` (of twenty) killed while it does, and started again."""
    number = step // 2
    victim = OWNERS[number % len(OWNERS)]
    with running.desk(ASKER) as desk:
        question = _question(desk)
        task = question.submit(deadline=SECONDS)
        _await_computed(running, task, f"query-{number - 1}")
        time.sleep(0.02)
        finished = len(computed(running, task))
        kill(running.homes[victim])
    began = _start(running.homes[victim])
    answer = _answer(running, task)
    seconds = time.perf_counter() - began
    _check(answer)
    again = sum(times - 1 for times in computed(running, task).values())
    return Crash(seconds, finished, again)


def takeovers(running: Consortium, times: int) -> list[float]:
    """Seconds from the kill of the asker's acting node until its standby acts, each time the other way round."""
    first = running.homes[ASKER]
    second = first.with_name(f"{ASKER}-2")
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    junto("node", "stop", "--home", str(first))
    junto("party", "join", "node-2", "--from", str(first), "--listen", listen, "--home", str(second))
    try:
        _start(first)
        acting, standing = first, second
        found = []
        for _ in range(times):
            _start(standing)
            kill(acting)
            killed_at = time.perf_counter()
            while _stands_by(standing):
                if time.perf_counter() - killed_at > SECONDS:
                    raise TimeoutError("the standby did not take over")
                time.sleep(0.001)
            found.append(time.perf_counter() - killed_at)
            acting, standing = standing, acting
        return found
    finally:
        for home in (first, second):
            with suppress(JuntoError):
                junto("node", "stop", "--home", str(home))


def _stands_by(home: Path) -> bool:
    try:
        return (home / "node.ready").read_text().splitlines()[1] == STANDS_BY
    except (OSError, IndexError):
        return True


def computed(running: Consortium, task: TaskId) -> Counter[tuple[str, str]]:
    """How often each party has computed each step of a task, as its log has it."""
    found: Counter[tuple[str, str]] = Counter()
    for party, home in running.homes.items():
        for line in (home / "node.log").read_text().splitlines():
            if '"a step was computed"' in line and task in line:
                found[party, str(json.loads(line)["step"])] += 1
    return found


def kill(home: Path) -> None:
    """SIGKILL a party's node, and return when it is gone."""
    pid = int((home / "node.ready").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}").exists() and ") Z " not in Path(f"/proc/{pid}/stat").read_text():
        time.sleep(0.001)


def _start(home: Path) -> float:
    """Start a party's node; the moment its process was started."""
    began = time.perf_counter()
    junto("node", "start", "--background", "--home", str(home))
    return began


def _question(desk: Desk) -> Question:
    until = time.monotonic() + SECONDS
    while not any(dataset.name == "base" for dataset in desk.datasets()):
        if time.monotonic() > until:
            raise TimeoutError("the table did not become known")
        time.sleep(0.02)
    while not all(link.up for link in desk.status().links):
        time.sleep(0.02)
    return Question("twenty steps", chain(desk.datasets()), "", desk)


def _answer(running: Consortium, task: TaskId) -> Answer:
    with running.desk(ASKER) as desk:
        return desk.wait(task)


def _await_computed(running: Consortium, task: TaskId, step: str) -> None:
    until = time.monotonic() + SECONDS
    while not any(name == step for _, name in computed(running, task)):
        if time.monotonic() > until:
            raise TimeoutError(f"step {step} was not computed")
        time.sleep(0.002)


def _check(answer: Answer) -> None:
    fragments = STEPS // 2
    if sorted(answer.table.column("v").to_pylist()) != list(range(fragments, ROWS + fragments)):
        raise ValueError("the answer is wrong")
