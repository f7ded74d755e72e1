# SPDX-License-Identifier: Apache-2.0
"""A user hands an honest node plans written by hand, to read what no rule lets out: each wall alone keeps it in."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import msgspec
import pyarrow as pa
import pytest
from pooled import OPEN, Pooled
from sqlglot import exp

from junto.client.question import Question
from junto.errors import JuntoError
from junto.frontends.sql import compile_sql
from junto.node.declared import Declared
from junto.plan import scopes
from junto.plan.fragment import Reading, _Reader
from junto.plan.steps import AnyStep, Measure, Move, Plan, Query, Read, Release
from junto.types import PartyId

_ROWS = 60
_PEOPLE = pa.table(
    {
        "id": list(range(_ROWS)),
        "dept": ["a", "b"] * (_ROWS // 2),
        "salary": [1000 + i for i in range(_ROWS)],
        "phone": [f"+49-{i}" for i in range(_ROWS)],
    }
)
_RULES: list[dict[str, object]] = [
    {"columns": ["dept"], "allow": "group"},
    {"columns": ["dept"], "allow": "extremes"},
    {"columns": ["salary"], "allow": "aggregate"},
]
_JOINED = "SELECT MAX(g.phone) AS m FROM people p JOIN got g ON p.dept = g.dept"
_LISTED = "SELECT COUNT(*) AS n FROM people WHERE dept IN (SELECT dept FROM got)"
_COUNTED = "SELECT COUNT(*) AS n, MAX(dept) AS m FROM people"
_HAS_PHONE = """'+49-17' IN (SELECT "t0"."phone" FROM "list0" AS "t0")"""


@pytest.fixture(scope="module")
def world() -> Iterator[Pooled]:
    with Pooled(["north", "east", "hub"]) as world:
        world.share("people", {"north": _PEOPLE, "east": _PEOPLE}, _RULES, unit="id")
        world.share("got", {"hub": pa.table({"phone": ["none"], "dept": ["a"]})}, OPEN)
        yield world


def _compiled(world: Pooled, question: str) -> Plan:
    return compile_sql(question, world["hub"].datasets(), PartyId("hub"))


def _crafted(
    plan: Plan,
    exchanged: Mapping[str, str],
    opened: str = "",
    columns: tuple[str, ...] = (),
    used: tuple[str, ...] | None = None,
) -> Plan:
    """The plan with pieces of the owners' SQL exchanged, and with other SQL and column names of the open table.

    used: what the fragments say that they read of `people`.
    """
    changed: list[AnyStep] = []
    for step in plan.steps:
        match step:
            case Query(id="open-0"):
                names = columns or step.columns
                types = ("VARCHAR",) * len(names)
                changed.append(msgspec.structs.replace(step, sql=opened or step.sql, columns=names, column_types=types))
            case Move(id="copy-0"):
                changed.append(msgspec.structs.replace(step, columns=columns or step.columns))
            case Query(keys=keys) if keys is not None:
                sql = step.sql
                for old, new in exchanged.items():
                    assert old in sql
                    sql = sql.replace(old, new)
                reads = tuple(_read(read, columns, used) for read in step.reads)
                changed.append(msgspec.structs.replace(step, sql=sql, reads=reads))
            case _:
                changed.append(step)
    return msgspec.structs.replace(plan, steps=tuple(changed))


def _read(read: Read, columns: tuple[str, ...], used: tuple[str, ...] | None) -> Read:
    if read.dataset is None:
        return msgspec.structs.replace(read, columns=tuple(sorted(columns)) or read.columns)
    return msgspec.structs.replace(read, columns=read.columns if used is None else tuple(sorted(used)))


def _by_case(world: Pooled, output: str = "'phone'") -> Plan:
    """An alias in another case: DuckDB looks for the column, which `got` has not, in `people`."""
    return _crafted(
        _compiled(world, _JOINED),
        {'"t0"."dept" = "t1"."dept"': "TRUE", '"t0"': '"T0"', '"t1"': '"t0"'},
        f'SELECT {output} FROM "got" AS "t0"',
        columns=("phone",),
        used=("id",),
    )


def _by_case_of_a_cast(world: Pooled) -> Plan:
    """The same with a name that a parser takes from inside of an expression, and the engine does not."""
    return _by_case(world, 'CAST("t0"."phone" AS TEXT)')


def _by_list(world: Pooled) -> Plan:
    """An IN list with the alias of a table outside of it: DuckDB falls through to that one's column."""
    return _crafted(
        _compiled(world, _LISTED),
        {'"t0"."dept" IN (SELECT "s"."c0" FROM "list0" AS "s")': _HAS_PHONE},
        """SELECT 'phone' FROM "got" AS "got\"""",
        columns=("phone",),
        used=(),
    )


def _by_list_in_a_filter(world: Pooled) -> Plan:
    has_phone = _HAS_PHONE.replace('"t0"', '"T0"')
    return _crafted(
        _compiled(world, "SELECT COUNT(*) AS n FROM people WHERE dept IN (SELECT dept FROM got)"),
        {
            'COUNT(*) AS "m0"': f'COUNT(*) FILTER(WHERE {has_phone}) AS "m0"',
            ' WHERE "t0"."dept" IN (SELECT "s"."c0" FROM "list0" AS "s")': "",
        },
        """SELECT 'phone' FROM "got" AS "got\"""",
        columns=("phone",),
        used=(),
    )


def _distinct(function: str) -> Callable[[Pooled], Plan]:
    def crafted(world: Pooled) -> Plan:
        condition = """FILTER(WHERE "t0"."dept" = 'b')"""
        plan = _crafted(
            _compiled(world, _COUNTED.replace("MAX", function)),
            {f'{function}("t0"."dept")': f'{function}(DISTINCT "t0"."id") {condition}'},
            used=("dept", "id"),
        )
        return _with_type(plan, "BIGINT")

    return crafted


def _with_type(plan: Plan, type: str) -> Plan:
    """The plan in which the extreme is of another type."""
    changed: list[AnyStep] = []
    for step in plan.steps:
        match step:
            case Query() if step.measures:
                measures = tuple(
                    Measure(m.name, m.combine, m.encoding, type, m.scale) if m.encoding == "value" else m
                    for m in step.measures
                )
                changed.append(msgspec.structs.replace(step, measures=measures))
            case Release():
                changed.append(msgspec.structs.replace(step, column_types=("BIGINT", type)))
            case _:
                changed.append(step)
    return msgspec.structs.replace(plan, steps=tuple(changed))


_PLANS: Mapping[str, Callable[[Pooled], Plan]] = {
    "an alias in another case": _by_case,
    "an alias in another case, and a name out of a cast": _by_case_of_a_cast,
    "an IN list that falls through": _by_list,
    "an IN list in a FILTER, in another case": _by_list_in_a_filter,
    "the greatest unit": _distinct("MAX"),
    "the least unit": _distinct("MIN"),
}


def _answer(world: Pooled, plan: Plan) -> pa.Table:
    return Question("crafted", plan, "", world["hub"]).run(deadline="15s").table


@pytest.mark.parametrize("name", _PLANS)
def test_a_crafted_plan_reads_nothing_that_no_rule_lets_out(world: Pooled, name: str) -> None:
    with pytest.raises(JuntoError) as refusal:
        _answer(world, _PLANS[name](world))
    assert "+49" not in str(refusal.value)


@pytest.fixture
def believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reviewer that believes what a step says of its columns, and takes any two aliases for different ones."""
    read = _Reader.reading

    def reading(reader: _Reader, tree: exp.Select) -> Reading:
        return replace(read(reader, tree), columns=tuple(p.alias_or_name for p in tree.expressions))

    def any_select(reader: _Reader, tree: exp.Select) -> None:
        reader.used.update({name: set(table.columns) for name, table in reader.tables.items()})

    monkeypatch.setattr(_Reader, "reading", reading)
    monkeypatch.setattr(_Reader, "any_select", any_select)
    monkeypatch.setattr(_Reader, "_all_joined", lambda reader, tree: None)
    monkeypatch.setattr(scopes, "distinct", lambda names: True)


@pytest.mark.parametrize("crafted", [_by_case, _by_list])
@pytest.mark.usefixtures("believed")
def test_a_view_without_the_column_stops_what_a_reviewer_lets_through(
    world: Pooled, monkeypatch: pytest.MonkeyPatch, crafted: Callable[[Pooled], Plan]
) -> None:
    monkeypatch.setattr(Declared, "check", lambda declared, schema: None)
    with pytest.raises(JuntoError, match=r"cannot be computed over the rows of an owner"):
        _answer(world, crafted(world))


@pytest.mark.parametrize("crafted", [_by_case, _by_list])
@pytest.mark.usefixtures("believed")
def test_rows_of_other_names_stop_what_a_reviewer_lets_through(
    world: Pooled, crafted: Callable[[Pooled], Plan]
) -> None:
    with pytest.raises(JuntoError, match="by name and in order"):
        _answer(world, crafted(world))


_CATALOGUE = {
    "a WITH in a subquery": (
        'SELECT "a"."c0" AS "c0" FROM (SELECT d.table_name FROM duckdb_columns AS d WHERE d.table_name IN'
        ' (WITH duckdb_columns AS (SELECT 1 AS x) SELECT CAST(x AS TEXT) FROM duckdb_columns) OR TRUE) AS "a"("c0")'
        ' INNER JOIN "got" AS g ON TRUE'
    ),
    "a WITH beside": (
        'SELECT "b"."c0" AS "c0" FROM (WITH duckdb_databases AS (SELECT 1 AS x) SELECT x FROM duckdb_databases) AS "a"'
        ' INNER JOIN (SELECT database_name FROM duckdb_databases) AS "b"("c0") ON TRUE INNER JOIN "got" AS g ON TRUE'
    ),
    "a WITH of its own name": (
        'WITH duckdb_columns AS (SELECT column_name FROM duckdb_columns) SELECT "d"."column_name" AS "c0"'
        ' FROM duckdb_columns AS "d" INNER JOIN "got" AS g ON TRUE'
    ),
    "a later WITH": (
        "WITH a AS (SELECT column_name FROM duckdb_columns), duckdb_columns AS (SELECT 1 AS x) SELECT"
        ' "d"."column_name" AS "c0" FROM a AS "d" INNER JOIN "got" AS g ON TRUE'
    ),
    "a name in another case": (
        'WITH duckdb_columns AS (SELECT 1 AS x) SELECT "d"."column_name" AS "c0" FROM (SELECT column_name FROM'
        ' (SELECT 1 AS y) AS z INNER JOIN pg_class AS p ON TRUE) AS "d" INNER JOIN "got" AS g ON TRUE'
    ),
}


@pytest.mark.parametrize("name", _CATALOGUE)
def test_a_fragment_reads_no_catalogue_table_through_another_scope(world: Pooled, name: str) -> None:
    sql = _CATALOGUE[name]
    plan = _compiled(world, "SELECT COUNT(*) AS n FROM people WHERE dept IN (SELECT dept FROM got)")
    crafted = _crafted(plan, {}, sql)
    with pytest.raises(JuntoError, match=r"which is not among the tables|has the name of|does not name"):
        _answer(world, crafted)
