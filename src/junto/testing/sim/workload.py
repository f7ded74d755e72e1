# SPDX-License-Identifier: Apache-2.0
"""The questions of the simulated parties' users, and the right answers to them.

Tables are small and every question is compiled once by the real frontend. The engine answers each text once with DuckDB
and remembers: an answer depends on nothing but the text and the tables it reads.
"""

import atexit
import hashlib
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from junto.engines.base import Limits, Rows, Source, Stop, TableSource
from junto.engines.duckdb import DuckDB
from junto.errors import Cancelled
from junto.plan.steps import Plan
from junto.tasks.bodies import Absent
from junto.types import PartyId

ROWS: list[dict[str, object]] = [{"columns": ["*"], "allow": "rows", "to": []}]


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and the DuckDB text that gives its answer over the pooled table `pooled(owner, id, k, v)`."""

    sql: str
    expected: str
    weight: int


QUESTIONS = (
    Question("SELECT id, k, v FROM r ORDER BY id", "SELECT id, k, v FROM pooled ORDER BY id", 5),
    Question("SELECT id, v FROM r WHERE k = 2 ORDER BY id", "SELECT id, v FROM pooled WHERE k = 2 ORDER BY id", 5),
    Question("SELECT v, id FROM r WHERE v < 50 ORDER BY id", "SELECT v, id FROM pooled WHERE v < 50 ORDER BY id", 5),
    Question(
        "SELECT k, SUM(v) AS s, COUNT(*) AS n FROM t GROUP BY k ORDER BY k",
        "SELECT k, SUM(v) AS s, COUNT(*) AS n FROM pooled GROUP BY k HAVING COUNT(*) >= 10 ORDER BY k",
        5,
    ),
)


def table_of(party: PartyId, number: int) -> pa.Table:
    """The rows of one party: ids are unique over all."""
    ids = [number * 1000 + i for i in range(30)]
    return pa.table({"id": ids, "k": [1 + i % 3 for i in range(30)], "v": [(i * 7 + number) % 97 for i in range(30)]})


@dataclass(frozen=True, slots=True)
class Asked:
    """One task of the workload: when, by whom, what, how long it may take; when its user takes it back, if at all."""

    number: int
    at: float
    party: PartyId
    question: int
    seconds: float
    absent: Absent
    cancel_after: float | None
    priority: int

    def line(self) -> str:
        """The question in the words of the story."""
        back = f", taken back after {self.cancel_after:.2f} s" if self.cancel_after is not None else ""
        rule = f", absent {self.absent}" if self.absent else ""
        return f"task {self.number}: {self.party} asks question {self.question} within {self.seconds:.0f} s{rule}{back}"


def workload(source: random.Random, parties: list[PartyId], tasks: int, span: float) -> list[Asked]:
    """A list of `tasks` questions over `span` seconds."""
    weights = [question.weight for question in QUESTIONS]
    found: list[Asked] = []
    for number in range(tasks):
        kind = source.random()
        seconds = source.choice((3.0, 10.0)) if kind < 0.15 else source.choice((40.0, 60.0, 90.0))
        absent: Absent = source.choices(("", "wait", "fail", "go-on"), (70, 12, 9, 9))[0]
        cancel = source.random() * 2 if source.random() < 0.06 else None
        at = source.random() * span
        question = source.choices(range(len(QUESTIONS)), weights)[0]
        found.append(Asked(number, at, source.choice(parties), question, seconds, absent, cancel, source.randrange(3)))
    return sorted(found, key=lambda asked: (asked.at, asked.number))


class RememberingEngine:
    """See `junto.engines.base.Engine`; every text over the same tables is run once in this process."""

    def __init__(self) -> None:
        self._engine = DuckDB()
        atexit.register(self._engine.close)
        self._known: dict[bytes, pa.Table] = {}

    @contextmanager
    def run(self, sql: str, tables: Mapping[str, Source], limits: Limits, stop: Stop) -> Iterator[Rows]:
        """See `Engine.run`."""
        if stop.is_set():
            raise Cancelled("stopped")
        key = _key(sql, tables)
        if key not in self._known:
            alone = Limits(200_000_000, 1, Path("/tmp"))  # noqa: S108  # nothing is spilled
            with self._engine.run(sql, tables, alone, threading.Event()) as rows:
                self._known[key] = rows.table()
        table = self._known[key]
        yield Rows(table.schema, iter(table.to_batches()))

    def close(self) -> None:
        """Do nothing: no part of the engine belongs to one node."""


def _key(sql: str, tables: Mapping[str, Source]) -> bytes:
    digest = hashlib.sha256(sql.encode())
    for name in sorted(tables):
        source = tables[name]
        digest.update(name.encode())
        if isinstance(source, TableSource):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, source.table.schema) as writer:
                writer.write_table(source.table)
            digest.update(sink.getvalue())
        else:
            digest.update(repr(source).encode())
    return digest.digest()


Compiled = Mapping[tuple[PartyId, int], Plan]
"""The plan of each question, as each party asks it."""
