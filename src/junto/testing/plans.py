# SPDX-License-Identifier: Apache-2.0
"""Runs a plan in one process, every party's part in plain DuckDB: what the nodes must come to, without cryptography."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import duckdb
import pyarrow as pa

from junto.errors import InvalidInput
from junto.plan.steps import Deviation, MaskedSum, Move, Plan, Query, Release, Threshold
from junto.types import DatasetName, PartyId, StepId

Data = Mapping[tuple[PartyId, DatasetName], pa.Table]
"""The rows of each party's datasets."""


@dataclass(frozen=True)
class Answer:
    """The answer's table, and how many groups were withheld."""

    table: pa.Table
    withheld: int


@dataclass
class _Run:
    plan: Plan
    data: Data
    outputs: dict[StepId, pa.Table] = field(default_factory=dict)
    passed: dict[StepId, pa.Table] = field(default_factory=dict)
    withheld: int = 0


def run_plan(plan: Plan, data: Data) -> Answer:
    """The answer of a plan over the data of all parties. Raises InvalidInput if a step refers to what is not there."""
    run = _Run(plan, data)
    answer: pa.Table | None = None
    for step in plan.steps:
        match step:
            case Query():
                run.outputs[step.id] = _query(run, step)
            case Threshold():
                run.passed[step.id] = _threshold(run, step)
            case Move():
                run.outputs[step.id] = run.outputs[step.input].select(list(step.columns))
            case MaskedSum():
                pass
            case Release():
                answer = _release(run, step)
    if answer is None:
        raise InvalidInput("the plan releases nothing")
    return Answer(answer, run.withheld)


def _query(run: _Run, step: Query) -> pa.Table:
    with duckdb.connect(":memory:") as connection:
        for read in step.reads:
            if read.dataset is not None:
                connection.register(read.name, run.data[(step.party, read.dataset)])
            elif read.step is not None:
                connection.register(read.name, run.outputs[read.step])
        return _table(connection, step.sql)


def _table(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    return connection.sql(sql).to_arrow_table()


def _union(run: _Run, inputs: Sequence[StepId]) -> pa.Table:
    return pa.concat_tables([run.outputs[id] for id in inputs])


def _threshold(run: _Run, step: Threshold) -> pa.Table:
    keys = _keys(run, step.inputs[0])
    with duckdb.connect(":memory:") as connection:
        connection.register("a", _union(run, step.inputs))
        group = f"GROUP BY {', '.join(keys)}" if keys else ""
        chosen = ", ".join(keys) or "1 AS one"
        having = f"SUM(units) >= {step.units} AND COUNT(*) FILTER (units > 0) >= {step.parties}"
        passed = _table(connection, f"SELECT {chosen} FROM a {group} HAVING {having}")
        everything = _table(connection, f"SELECT {chosen} FROM a {group}").num_rows if keys else 1
    run.withheld += everything - passed.num_rows
    return passed


def _keys(run: _Run, id: StepId) -> tuple[str, ...]:
    query = run.plan.step(id)
    if not isinstance(query, Query):
        raise InvalidInput(f"step {id} is no query")
    return query.keys or ()


def _release(run: _Run, step: Release) -> pa.Table:
    released = _groups(run, step, step.threshold) if step.threshold is not None else _rows(run, step)
    with duckdb.connect(":memory:") as connection:
        connection.register("released", released)
        return _table(connection, step.sql)


def _rows(run: _Run, step: Release) -> pa.Table:
    inputs = [*step.moves, *([step.own] if step.own is not None else [])]
    return _union(run, inputs)


def _groups(run: _Run, step: Release, threshold_id: StepId) -> pa.Table:
    threshold = run.plan.step(threshold_id)
    if not isinstance(threshold, Threshold):
        raise InvalidInput(f"step {threshold_id} is no threshold")
    first = run.plan.step(threshold.inputs[0])
    if not isinstance(first, Query):
        raise InvalidInput(f"step {threshold.inputs[0]} is no query")
    keys = first.keys or ()
    inputs = [*threshold.inputs, *([step.own] if step.own is not None else [])]
    with duckdb.connect(":memory:") as connection:
        connection.register("a", _union(run, inputs))
        connection.register("passed", run.passed[threshold_id])
        combined = [f"a.{key}" for key in keys]
        for measure in first.measures:
            function = {"sum": "fsum" if measure.encoding == "real" else "sum", "min": "min", "max": "max"}
            combined.append(f"CAST({function[measure.combine]}(a.{measure.name}) AS {measure.type}) AS {measure.name}")
        same = " AND ".join(f"a.{key} IS NOT DISTINCT FROM passed.{key}" for key in keys) or "TRUE"
        group = f"GROUP BY {', '.join(f'a.{key}' for key in keys)}" if keys else "HAVING COUNT(*) > 0"
        sql = f"SELECT {', '.join(combined) or '1 AS one'} FROM a JOIN passed ON {same} {group}"
        table = _table(connection, sql)
    for deviation in step.deviations:
        table = table.append_column(deviation.name, pa.array(_deviations(table, deviation), pa.float64()))
    return table


def _deviations(table: pa.Table, deviation: Deviation) -> list[float | None]:
    found: list[float | None] = []
    columns = (table[name].to_pylist() for name in (deviation.n, deviation.s, deviation.ss))
    for n, s, ss in zip(*columns, strict=True):
        found.append(float(max(Fraction(ss) - Fraction(s) ** 2 / n, Fraction(0))) if n else None)
    return found
