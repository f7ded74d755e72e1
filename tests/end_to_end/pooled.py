# SPDX-License-Identifier: Apache-2.0
"""A consortium in this process beside all its rows pooled in one DuckDB, which nobody has outside a test."""

import math
import shlex
from collections.abc import Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Self, TypeVar

import duckdb
import pyarrow as pa

from junto.client.question import Answer
from junto.inprocess import Local
from junto.journal.reading import Reader
from junto.journal.statement import Statement
from junto.node.home import Home
from junto.node.node import Node
from junto.node.settings import NodeSettings

T = TypeVar("T")

GROUPED: list[dict[str, object]] = [{"columns": ["*"], "allow": kind} for kind in ("group", "aggregate", "extremes")]
PARTS: list[dict[str, object]] = [{**rule, "owners": "any"} for rule in GROUPED]
OPEN: list[dict[str, object]] = [{"columns": ["*"], "allow": "open"}]


class Pooled(Local):
    """A consortium whose published tables are also pooled; `owner_` tells whose a row of a private table is."""

    def __init__(self, parties: Iterable[str], settings: NodeSettings | None = None) -> None:
        super().__init__(list(parties), settings)
        self._pool = duckdb.connect(":memory:")

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        super().__exit__(kind, error, tb)
        self._pool.close()

    def share(
        self,
        name: str,
        tables: Mapping[str, pa.Table],
        rules: Iterable[Mapping[str, object]] = GROUPED,
        *,
        unit: str | None = None,
    ) -> None:
        """Publish one table at each of several parties, and pool them."""
        for party, table in tables.items():
            self.publish(party, name, table, list(rules), unit=unit)
        if rules is not OPEN:
            tables = {p: t.append_column("owner_", pa.array([p] * t.num_rows, pa.string())) for p, t in tables.items()}
        self._pool.register(name, pa.concat_tables(tables.values()))

    def pooled(self, question: str) -> pa.Table:
        """DuckDB's answer over the pooled rows."""
        return self._pool.sql(question).to_arrow_table()

    def ask(self, party: str, question: str, *, purpose: str = "", deadline: str = "90s") -> Answer:
        """The consortium's answer."""
        return self[party].sql(question, purpose=purpose).run(deadline=deadline)

    def node(self, party: str) -> Node:
        """A party's node, to break it."""
        return self._nodes[party]

    def home(self, party: str) -> Home:
        """A party's folder."""
        return self._homes[party]

    def on_loop(self, work: Coroutine[object, object, T]) -> T:
        """Run something where the nodes run."""
        return self._portal.run(work)


def assert_same(found: pa.Table, expected: pa.Table, question: str) -> None:
    """The same columns, types and rows in the same order; reals within the stated bound."""
    assert found.schema.names == expected.schema.names, question
    assert found.schema.types == expected.schema.types, question
    rows, wanted = (list(zip(*(c.to_pylist() for c in t.columns), strict=True)) for t in (found, expected))
    assert len(rows) == len(wanted), (question, rows, wanted)
    for row, want in zip(rows, wanted, strict=True):
        assert all(map(_same_value, row, want)), (question, row, want)


def _same_value(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-6)
    return one == other


def command_in(message: str, party: str) -> list[list[str]]:
    """The commands that a refusal says a party would type, as words after `junto`."""
    line = next(line for line in message.splitlines() if line.startswith(f"{party} refuses"))
    _, _, typed = line.partition(f"{party} would type: ")
    return [shlex.split(command)[1:] for command in typed.split(" && ")]


def statements(consortium: Pooled, party: str, task: str) -> list[Statement]:
    """What a party's journal holds of a task, read from its file."""
    with Reader(consortium.home(party).journal_path) as reader:
        return [entry.statement for entry in reader.entries(task=task)]
