# SPDX-License-Identifier: Apache-2.0
"""Attackers that hand their own, honest node a plan written by hand. Every owner's node is honest too."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from attack_desk import Claims, Desk, canonical, plausible
from attack_kinds import attack
from attack_world import ASKER, OWNERS
from msgspec.structs import replace

from junto.catalog.dataset import Dataset
from junto.plan.steps import AnyStep, Measure, Move, Plan, Query, Read, Release, Threshold
from junto.types import DatasetName, PartyId, StepId

_COLUMN = re.compile(r'"t0"\."(\w+)"')


def rewritten(change: Callable[[str], str], measures: tuple[Measure, ...] | None = None) -> Callable[[Plan], Plan]:
    """A change of every fragment's SQL; the columns that each says it reads are those its new SQL names."""

    def of_step(step: AnyStep) -> AnyStep:
        if not isinstance(step, Query):
            return step
        sql = canonical(change(step.sql))
        read = replace(step.reads[0], columns=tuple(sorted(set(_COLUMN.findall(sql)))))
        return replace(step, sql=sql, reads=(read,), measures=step.measures if measures is None else measures)

    return lambda plan: replace(plan, steps=tuple(of_step(step) for step in plan.steps))


@attack("id")
def extreme_of_the_unit(desk: Desk) -> Claims:
    """MAX(DISTINCT unit) of one described person, in place of an aggregate that needs a rule."""
    claims = Claims({})
    for person in desk.targets:
        rows = desk.planned(
            f"SELECT MAX(age) FILTER (WHERE {person.described}) FROM people",
            rewritten(lambda sql: sql.replace('MAX("t0"."age")', 'MAX(DISTINCT "t0"."id")')),
        )
        if rows and rows[0][0] is not None:
            claims[person.id] = rows[0][0]
    return claims


@attack()
def figure_in_place_of_another(desk: Desk) -> Claims:
    """The salary where the plan had an aggregate of a column with `group`, in spellings a reviewer may pass over."""
    claims = Claims({})
    forms = (
        'MAX("t0"."salary")',
        'MAX(DISTINCT "t0"."salary")',
        'MAX(CASE WHEN TRUE THEN "t0"."salary" END)',
        'MAX("t0"."age" + "t0"."salary" - "t0"."age")',
        'MIN(DISTINCT "t0"."salary")',
        'MAX("t0"."SALARY")',
    )
    for form in forms:
        for person in desk.targets:
            rows = desk.planned(
                f"SELECT MAX(age) FROM people WHERE dept = '{person.dept}'",
                rewritten(lambda sql, form=form: sql.replace('MAX("t0"."age")', form)),  # type: ignore[misc]
            )
            value = plausible(rows[0][0]) if rows else None
            best = max((p for p in desk.truth.people if p.dept == person.dept), key=lambda p: p.salary)
            if value:
                claims[best.id] = value
    return claims


@attack()
def units_counted_otherwise(desk: Desk) -> Claims:
    """A fragment whose `units` is not the number of units, in several spellings, over one person."""
    claims = Claims({})
    forms = (
        ('COUNT(*) AS "units"', '1000 AS "units"'),
        ('COUNT(*) AS "units"', 'COUNT(*) * 100 AS "units"'),
        ('COUNT(*) AS "units"', 'COUNT("t0"."age") + 100 AS "units"'),
        ('COUNT(*) AS "units"', 'COUNT(*) AS "UNITS", 1000 AS "units"'),
        ('COUNT(*) AS "units"', 'CAST(SUM("t0"."age") AS BIGINT) AS "units"'),
        ('COUNT(*) AS "units"', 'GREATEST(COUNT(DISTINCT "t0"."id"), 1000) AS "units"'),
        ('COUNT(*) AS "units"', 'COUNT(DISTINCT "t0"."zip") AS "units"'),
    )
    for before, after in forms:
        for person in desk.targets:
            rows = desk.planned(
                f"SELECT SUM(salary), COUNT(*) FROM people WHERE {person.described}",
                rewritten(lambda sql, b=before, a=after: sql.replace(b, a)),  # type: ignore[misc]
            )
            value = plausible(rows[0][0]) if rows else None
            if value:
                claims[person.id] = value
    return claims


@attack()
def threshold_of_another_kind(desk: Desk) -> Claims:
    """A threshold that asks for less, of fewer, or is computed by whom the asker likes, over one person."""

    def changed(change: Callable[[Threshold], Threshold]) -> Callable[[Plan], Plan]:
        return lambda plan: replace(plan, steps=tuple(change(s) if isinstance(s, Threshold) else s for s in plan.steps))

    hub = PartyId(ASKER)
    changes: tuple[Callable[[Threshold], Threshold], ...] = (
        lambda t: replace(t, units=0),
        lambda t: replace(t, units=1),
        lambda t: replace(t, units=5),
        lambda t: replace(t, nodes=(hub, *(n for n in t.nodes if n != hub))),
        lambda t: replace(t, nodes=(hub,)),
        lambda t: replace(t, contributors=t.contributors[::-1], inputs=t.inputs[::-1]),
        lambda t: replace(t, contributors=t.contributors[:1], inputs=t.inputs[:1], nodes=t.contributors[:1], units=1),
    )
    claims = Claims({})
    for change in changes:
        for person in desk.targets[:3]:
            rows = desk.planned(f"SELECT SUM(salary) FROM people WHERE {person.described}", changed(change))
            value = plausible(rows[0][0]) if rows else None
            if value:
                claims[person.id] = value
    return claims


@attack()
def figures_on_another_road(desk: Desk) -> Claims:
    """Groups or sums that leave their owner beside the threshold, or under another threshold's name."""
    claims = Claims({})
    for person in desk.targets:
        sql = f"SELECT SUM(salary) FROM people WHERE {person.described}"
        for change in (_moved_whole, _released_alone):
            rows = desk.planned(sql, change)
            for row in rows or []:
                value = next((v for v in map(plausible, row) if v), None)
                if value:
                    claims[person.id] = value
    return claims


def _moved_whole(plan: Plan) -> Plan:
    query = next(step for step in plan.steps if isinstance(step, Query))
    move = Move(StepId("out"), query.id, query.party, (PartyId(ASKER),), ("m0", "m1"))
    release = Release(StepId("release"), PartyId(ASKER), 'SELECT "m1" AS "x" FROM "released"', moves=(move.id,),
                      columns=("x",), column_types=("DECIMAL(38,0)",))  # fmt: skip
    return replace(plan, steps=(query, move, release))


def _released_alone(plan: Plan) -> Plan:
    steps = tuple(step for step in plan.steps if not isinstance(step, Threshold))
    return replace(plan, steps=steps)


# ── rows ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Rows:
    """A plan in which an owner joins rows that the asker sent along, and moves what comes of it to the asker."""

    desk: Desk
    owner: str

    def ask(self, own: str, says: str, sql: str) -> list[object]:
        """The first column of the answer. own: the asker's fragment over `mine`; says: what it calls its column."""
        columns = tuple(sorted({"age"} if '."age"' in sql else set()))
        datasets = self.desk.world.local[ASKER].datasets()
        mine, people = _dataset(datasets, ASKER, "mine"), _dataset(datasets, self.owner, "people")
        hub, owner = PartyId(ASKER), PartyId(self.owner)
        steps: tuple[AnyStep, ...] = (
            Query(
                StepId("mine"), hub, canonical(own), (Read("mine", mine.name, mine.version, None, ("x",)),),
                columns=(says,), column_types=("VARCHAR",),
            ),
            Move(StepId("got"), StepId("mine"), hub, (owner,), (says,)),
            Query(
                StepId("picked"), owner, canonical(sql),
                tuple(sorted((
                    Read("got", step=StepId("got"), columns=(says,)),
                    Read("people", people.name, people.version, None, columns),
                ), key=lambda read: read.name)),
                columns=("c0",), column_types=("VARCHAR",),
            ),
            Move(StepId("out"), StepId("picked"), owner, (hub,), ("c0",)),
            Release(StepId("release"), hub, 'SELECT "c0" AS "x" FROM "released"', moves=(StepId("out"),),
                    columns=("x",), column_types=("VARCHAR",)),
        )  # fmt: skip
        rows = self.desk.planned("SELECT x FROM mine", lambda plan: replace(plan, steps=steps))
        return [row[0] for row in rows or []]


@attack("phone")
def name_that_two_tables_have(desk: Desk) -> Claims:
    """A column that the reviewer gives to rows sent along, and the engine to the private table."""
    desk.world.publish_open("mine", {"x": ["1"]})
    claims = Claims({})
    for private, sent in (("T9", "t9"), ("t9", "T9"), ("ß9", "ẞ9"), ("k", "\u212a"), ("t9", "t9 ")):
        for person in desk.targets:

            def fold(sql: str, private: str = private, sent: str = sent) -> str:
                named = sql.replace('"t0"', f'"{private}"').replace('"t1"."x"', f'"{sent}"."phone"')
                return named.replace('"t1"', f'"{sent}"')

            rows = desk.planned(
                f"SELECT MAX(m.x) FILTER (WHERE {person.described}) FROM people p JOIN mine m ON p.age >= 0",
                _with_sent_rows("SELECT 'phone' FROM \"mine\"", "phone", fold),
            )
            if rows and rows[0][0] is not None:
                claims[person.id] = rows[0][0]
    return claims


@attack("phone")
def list_that_reads_outside(desk: Desk) -> Claims:
    """An IN list whose column falls through to the private table around it; the attacker has a telephone book."""
    phones = [person.phone for person in desk.targets]
    desk.world.publish_open("mine", {"x": phones})
    claims = Claims({})
    for person in desk.targets:

        def through(sql: str) -> str:
            return sql.replace("IN ('a list')", 'IN (SELECT "t0"."phone" FROM "mine" AS "t0")')

        rows = desk.planned(
            f"SELECT MAX(m.x) FILTER (WHERE {person.described} AND m.x IN ('a list')) FROM people p"
            " JOIN mine m ON p.age >= 0",
            _with_sent_rows('SELECT "t0"."x" AS "x", \'phone\' FROM "mine" AS "t0"', "phone", through, also=("x",)),
        )
        if rows and rows[0][0] is not None:
            claims[person.id] = rows[0][0]
    return claims


def _with_sent_rows(
    own: str, says: str, change: Callable[[str], str], also: tuple[str, ...] = ()
) -> Callable[[Plan], Plan]:
    """A change of a plan in which owners join the table `mine`: the asker's own fragment over it, and theirs.

    own: the asker's fragment; says: what it calls its last column; also: its columns before that.
    """
    columns = (*also, says)

    def of_step(step: AnyStep) -> AnyStep:
        match step:
            case Query() if step.party == ASKER:
                types = ("VARCHAR",) * len(columns)
                return replace(step, sql=canonical(own), columns=columns, column_types=types)
            case Move() if step.threshold is None:
                return replace(step, columns=columns)
            case Query():
                sql = canonical(change(step.sql))
                reads = tuple(replace(r, columns=tuple(sorted(columns))) if r.step else r for r in step.reads)
                return replace(step, sql=sql, reads=reads)
            case _:
                return step

    return lambda plan: replace(plan, steps=tuple(of_step(step) for step in plan.steps))


@attack("phone")
def catalogue_and_files(desk: Desk) -> Claims:
    """The engine's own catalogue, files by name, and table functions, in scopes a reviewer may not resolve."""
    desk.world.publish_open("mine", {"x": ["1"]})
    phones = {person.phone: person.id for person in desk.truth.people}
    claims = Claims({})
    for sql in (
        'SELECT "sql" AS "c0" FROM "duckdb_views"()',
        'WITH "duckdb_views" AS (SELECT 1) SELECT (SELECT "sql" FROM "duckdb_views" LIMIT 1) AS "c0" FROM "got"',
        'SELECT (SELECT "phone" FROM "people" LIMIT 1) AS "c0" FROM "got"',
        'SELECT * FROM "got" UNION ALL SELECT "phone" FROM "people"',
        'SELECT "phone" AS "c0" FROM (SELECT * FROM "people") AS "got"',
        'SELECT CAST("people" AS TEXT) AS "c0" FROM "people", "got"',
    ):
        for owner in OWNERS[:1]:
            for value in _Rows(desk, owner).ask('SELECT "t0"."x" AS "c0" FROM "mine" AS "t0"', "c0", sql):
                claims.update({phones[p]: p for p in phones if p in str(value)})
    return claims


def _dataset(datasets: list[Dataset], party: str, name: str) -> Dataset:
    return next(d for d in datasets if d.party == party and d.name == DatasetName(name))
