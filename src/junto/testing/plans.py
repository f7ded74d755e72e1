# SPDX-License-Identifier: Apache-2.0
"""Runs a plan in one process, every party's part in plain DuckDB: what the nodes must come to, without cryptography."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from junto.catalog.dataset import Column, Dataset, version_of
from junto.errors import InvalidInput
from junto.plan.counting import engine_sql
from junto.plan.guards import Guards, guards, question_of
from junto.plan.steps import Deviation, MaskedSum, Move, Plan, Query, Release, Threshold
from junto.secure.spreads import MAGNITUDE_BOUND
from junto.trust.rules import Rule
from junto.types import DatasetName, Digest, PartyId, StepId

Data = Mapping[tuple[PartyId, DatasetName], pa.Table]
"""The rows of each party's datasets."""


@dataclass(frozen=True)
class Answer:
    """The answer's table, and how many groups were withheld."""

    table: pa.Table
    withheld: int


def published(
    party: str, name: str, table: pa.Table, rules: Sequence[Rule], unit: str | None = None, *, unit_unique: bool = False
) -> Dataset:
    """A table as its owner would publish it."""
    with duckdb.connect(":memory:") as connection:
        connection.register("t", table)
        columns = tuple(Column(row[0], row[1]) for row in connection.execute("DESCRIBE t").fetchall())
    content = _content(table)
    version = version_of(columns, unit, content, rules)
    return Dataset(
        PartyId(party),
        DatasetName(name),
        version,
        content,
        columns,
        table.num_rows,
        table.nbytes,
        unit,
        unit_unique,
        tuple(rules),
        (),
        0.0,
    )


def _content(table: pa.Table) -> Digest:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return Digest("sha256:" + hashlib.sha256(sink.getvalue()).hexdigest())


@dataclass
class _Run:
    plan: Plan
    data: Data
    connection: duckdb.DuckDBPyConnection
    outputs: dict[StepId, pa.Table] = field(default_factory=dict)
    passed: dict[StepId, pa.Table] = field(default_factory=dict)
    withheld: int = 0

    def sql(self, sql: str, **tables: pa.Table) -> pa.Table:
        """The result of a SELECT over some tables."""
        for name, table in tables.items():
            self.connection.register(name, table)
        try:
            return self.connection.sql(sql).to_arrow_table()
        finally:
            for name in tables:
                self.connection.unregister(name)


def run_plan(plan: Plan, data: Data) -> Answer:
    """The answer of a plan over the data of all parties. Raises InvalidInput if a step refers to what is not there."""
    with duckdb.connect(":memory:") as connection:
        run = _Run(plan, data, connection)
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
                    return Answer(_release(run, step), run.withheld)
    raise InvalidInput("the plan releases nothing")


def _query(run: _Run, step: Query) -> pa.Table:
    tables = {}
    for read in step.reads:
        if read.dataset is not None:
            tables[read.name] = run.data[(step.party, read.dataset)]
        elif read.step is not None:
            tables[read.name] = run.outputs[read.step]
    return run.sql(step.sql if step.keys is None else engine_sql(step, {}), **tables)


def _union(run: _Run, inputs: Sequence[StepId]) -> pa.Table:
    return pa.concat_tables([run.outputs[id] for id in inputs])


def _threshold(run: _Run, step: Threshold) -> pa.Table:
    """The keys of the groups that passed, and of each measure whether it is shown."""
    keys = _grouped(run, step.inputs[0]).keys or ()
    found = guards(question_of(run.plan, step))
    parts = [_with_all_shares(run.outputs[id], _grouped(run, id), found) for id in step.inputs]
    counts = pa.concat_tables(parts)
    group = f"GROUP BY {', '.join(keys)}" if keys else ""
    enough = [
        f"SUM({u}) >= {step.units} AND COUNT(*) FILTER ({u} > 0) >= {step.parties}"
        for u in ("units", *(f"u{i}" for i in range(1, len(found.counts))))
    ]
    small = [f"MAX(x{i}) <= SUM(t{i}) * {step.dominance} / 100" for i in range(len(found.sums))]
    flags = [*enough, *small]
    shown = [f"{' AND '.join(flags[i] for i in found.flags(name))} AS shown_{name}" for name in found.of]
    chosen = ", ".join(keys) or "1 AS one"
    text = f"SELECT {', '.join([chosen, *shown])} FROM counts {group} HAVING {enough[0]}"
    passed = run.sql(text, counts=counts)
    everything = run.sql(f"SELECT {chosen} FROM counts {group}", counts=counts).num_rows if keys else 1
    run.withheld += everything - passed.num_rows
    return passed


def _with_all_shares(table: pa.Table, query: Query, found: Guards) -> pa.Table:
    """The groups of an owner with the shares of every sum that is tested, in one order of columns."""
    own = guards((query,)).sums
    names = ["units", *(f"u{i}" for i in range(1, len(found.counts)))]
    columns = {name: table.column(name) for name in (*(query.keys or ()), *names)}
    for index, name in enumerate(found.sums):
        units = table.column(names[found.of[name]]).cast(pa.float64())
        one = pc.min_element_wise(units, pa.scalar(1.0))
        columns[f"t{index}"] = table.column(f"t{own.index(name)}") if name in own else units
        columns[f"x{index}"] = table.column(f"x{own.index(name)}") if name in own else one
    return pa.table(columns)


def _grouped(run: _Run, id: StepId) -> Query:
    query = run.plan.step(id)
    if not isinstance(query, Query):
        raise InvalidInput(f"step {id} is no query")
    return query


def _is_grouped(run: _Run, id: StepId) -> bool:
    step = run.plan.step(id)
    return isinstance(step, Query) and step.keys is not None


def _release(run: _Run, step: Release) -> pa.Table:
    if step.threshold is not None:
        released = _groups(run, step, step.threshold)
    elif step.own is not None and _is_grouped(run, step.own):
        released = run.outputs[step.own]
        for deviation in step.deviations:
            released = _with_deviation(released, deviation)
    else:
        released = _union(run, [*step.moves, *([step.own] if step.own is not None else [])])
    return run.sql(step.sql, released=released)


def _groups(run: _Run, step: Release, threshold_id: StepId) -> pa.Table:
    threshold = run.plan.step(threshold_id)
    if not isinstance(threshold, Threshold):
        raise InvalidInput(f"step {threshold_id} is no threshold")
    first = _grouped(run, threshold.inputs[0])
    keys = first.keys or ()
    inputs = [*threshold.inputs, *([step.own] if step.own is not None else [])]
    plain = [*keys, *(m.name for m in first.measures)]
    parts = pa.concat_tables([run.outputs[id].select(plain) for id in inputs])
    parts = parts.append_column("one", pa.array([1] * parts.num_rows))
    chosen = [f"parts.{key}" for key in keys]
    for measure in first.measures:
        function = "fsum" if measure.encoding == "real" else measure.combine
        value = f"CAST({function}(parts.{measure.name}) AS {measure.type})"
        value = f"LIST(parts.{measure.name})" if measure.encoding == "spread" else value
        chosen.append(f"CASE WHEN ANY_VALUE(passed.shown_{measure.name}) THEN {value} END AS {measure.name}")
    same = " AND ".join(f"parts.{key} IS NOT DISTINCT FROM passed.{key}" for key in keys) or "TRUE"
    group = f"GROUP BY {', '.join(f'parts.{key}' for key in keys)}" if keys else "HAVING COUNT(*) > 0"
    sql = f"SELECT {', '.join(chosen) or '1 AS one'} FROM parts JOIN passed ON {same} {group}"
    table = run.sql(sql, parts=parts, passed=run.passed[threshold_id])
    for deviation in step.deviations:
        table = _with_deviation(table, deviation)
    return table


def _with_deviation(table: pa.Table, deviation: Deviation) -> pa.Table:
    return table.append_column(deviation.name, pa.array(_deviations(table, deviation), pa.float64()))


def _deviations(table: pa.Table, deviation: Deviation) -> list[float | None]:
    found: list[float | None] = []
    columns = (table.column(name).to_pylist() for name in (deviation.n, deviation.s, deviation.ss))
    for n, s, ss in zip(*columns, strict=True):
        known = n and s is not None and ss is not None
        if deviation.s == deviation.ss:
            found.append(_spread(n, [s] if isinstance(s, dict) else s) if known else None)
            continue
        found.append(float(max(Fraction(ss) - Fraction(s) ** 2 / n, Fraction(0))) if known else None)
    return found


def _spread(n: int, parts: Sequence[Mapping[str, float]]) -> float | None:
    held = [part for part in parts if part["n"]]
    if not all(math.isfinite(part["z"]) for part in held):
        return math.nan
    if any(part["z"] >= MAGNITUDE_BOUND for part in held):
        return None
    exact = [{name: Fraction(value) for name, value in part.items()} for part in held]
    s = sum(p["n"] * p["c"] + p["t"] for p in exact)
    ss = sum(p["q"] + 2 * p["c"] * p["t"] + p["n"] * p["c"] ** 2 for p in exact)
    return float(max(ss - s**2 / n, Fraction(0)))
