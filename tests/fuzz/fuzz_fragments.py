# SPDX-License-Identifier: Apache-2.0
"""Random fragments, most of them hostile, and what DuckDB's own binder says that each reads.

The binder notes for every table that it scans which columns a text refers to, before any of them is optimised away.
`check` compares that with what the reviewer judged: a column that the engine reads and nobody judged is what may never
be; nor may a unit, on which no rule speaks, be read for anything but to be counted.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import duckdb
import pyarrow as pa

from junto.engines.duckdb import _check
from junto.errors import FragmentFailed, InvalidInput, PeerFault
from junto.plan import expressions, fragment
from junto.plan.fragment import Reading, Table
from junto.plan.steps import Combine, Encoding, Measure, Query, Read
from junto.testing.plans import published
from junto.trust.rules import Rule
from junto.types import PartyId, StepId

NORTH = PartyId("north")
_PEOPLE = pa.table(
    {"id": [1], "dept": ["a"], "salary": [2], "phone": ["x"], "pub": [3], 'we"ird': [4], "Ärger": ["y"], "f": [1.5]}
)
_VISITS = pa.table({"visit": [1], "person": [1], "day": ["d"], "cost": [2], "hidden": [3]})
_COPY = pa.table({"dept": ["a"], "x": [1], "salary": [9]})
_LIST = pa.table({"c0": ["a"], "phone": ["x"], "c1": [1]})
_DATASETS = {
    "people": published("north", "people", _PEOPLE, (Rule(("pub",), "open"),), "id"),
    "visits": published("north", "visits", _VISITS, (Rule(("day",), "group"),), "visit", unit_unique=True),
}
_STEPS = {"copy": _COPY, "list": _LIST}
TABLES: Mapping[str, Table] = {
    **{name: Table(tuple(c.name for c in d.columns), d) for name, d in _DATASETS.items()},
    **{name: Table(tuple(table.column_names)) for name, table in _STEPS.items()},
}
_ALIASES = (
    "t0",
    "T0",
    "t1",
    "s",
    "S",
    "people",
    "PEOPLE",
    "copy",
    "ｔ0",
    "ß",
    "SS",
    'q"t',
    "id",
    "a",
    "duckdb_columns",
)
_CATALOGUE = ("duckdb_columns", "DUCKDB_TABLES", "pg_class", "sqlite_master", "people", "People", "copy", "nowhere")
_CONSTANTS = ("1", "0", "2", "7", "NULL", "2.5", "-3", "'1'", "'--'")
_FUNCTIONS = ("ABS", "SIGN", "LN", "SQRT", "FLOOR", "ROUND", "EXP")


@dataclass(frozen=True, slots=True)
class Made:
    """A fragment as its asker would hand it in."""

    query: Query

    @property
    def sql(self) -> str:
        return self.query.sql


class Maker:
    """Makes fragments of all shapes. Most are nearly what the reviewer takes, with one thing or two bent."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def made(self) -> Made | None:
        """A fragment in its canonical spelling, or None if what came out is no SQL."""
        shape = self._random.choices(("groups", "rows", "any"), (5, 2, 3))[0]
        text, query = getattr(self, f"_{shape}")()
        if self._random.random() < 0.4:
            text = self._bent(text)
        try:
            spelled = expressions.spelling(expressions.parse(text))
        except InvalidInput:
            return None
        return Made(replace_sql(query, spelled))

    # ── shapes ──────────────────────────────────────────────────────────────────────────────────────

    def _groups(self) -> tuple[str, Query]:
        aliases = self._sources()
        keys = [self._expression(aliases, 1) for _ in range(self._random.randrange(3))]
        measures: list[Measure] = []
        outputs = [f'{key} AS "k{i}"' for i, key in enumerate(keys)]
        outputs.append(f'{self._units(aliases)} AS "units"')
        for i in range(self._random.randrange(1, 4)):
            text, measure = self._measure(f"m{i}", aliases)
            outputs.append(f'{text} AS "m{i}"')
            measures.append(measure)
        group = f" GROUP BY {', '.join(str(i + 1) for i in range(len(keys)))}" if keys else ""
        text = f"SELECT {', '.join(outputs)} {self._from(aliases)}{self._where(aliases)}{group}"
        names = tuple(f"k{i}" for i in range(len(keys)))
        return text, bare_query("", names, ("VARCHAR",) * len(names), tuple(measures))

    def _rows(self) -> tuple[str, Query]:
        aliases = self._sources()
        outputs = [f'{self._expression(aliases, 1)} AS "c{i}"' for i in range(self._random.randrange(1, 4))]
        order = self._random.choice(("", "", " ORDER BY 1", f" ORDER BY {len(outputs)} DESC LIMIT 3", " LIMIT 2"))
        return f"SELECT {', '.join(outputs)} {self._from(aliases)}{self._where(aliases)}{order}", bare_query("")

    def _any(self) -> tuple[str, Query]:
        return self._select(2, ()), bare_query("")

    def _select(self, depth: int, withs: Sequence[str]) -> str:
        random = self._random
        own: list[str] = []
        head = ""
        if depth and random.random() < 0.35:
            own = [random.choice((*_ALIASES, *_CATALOGUE)) for _ in range(random.randrange(1, 3))]
            inner = [f"{_quoted(name)} AS ({self._select(depth - 1, withs)})" for name in own]
            head = f"WITH {', '.join(inner)} "
        places = [*withs, *own]
        names, items = [], []
        for _ in range(random.randrange(1, 3)):
            alias = random.choice(_ALIASES)
            names.append(alias)
            if depth and random.random() < 0.3:
                items.append(f"({self._select(depth - 1, places)}) AS {_quoted(alias)}")
            else:
                pool = (*TABLES, *TABLES, *places, *places, *_CATALOGUE)
                items.append(f"{self._cased(random.choice(pool))} AS {_quoted(alias)}")
        outputs = [f"{self._loose(names, depth, places)} AS c{i}" for i in range(random.randrange(1, 3))]
        where = f" WHERE {self._loose(names, depth, places)} = 1" if random.random() < 0.4 else ""
        tail = random.choice(("", "", "", " LIMIT 3", " ORDER BY 1"))
        distinct = random.choice(("", "", "DISTINCT "))
        joined = " INNER JOIN ".join(items[:1]) + "".join(f" INNER JOIN {item} ON TRUE" for item in items[1:])
        return f"{head}SELECT {distinct}{', '.join(outputs)} FROM {joined}{where}{tail}"

    def _loose(self, aliases: Sequence[str], depth: int, withs: Sequence[str]) -> str:
        random = self._random
        column = _quoted(random.choice([c for t in TABLES.values() for c in t.columns] + ["c0", "c1", "column_name"]))
        kind = random.randrange(8)
        if kind < 3:
            return f"{self._cased(random.choice(aliases))}.{column}"
        if kind < 4:
            return column
        if kind < 5 and depth:
            return f"(SELECT MAX(c0) AS m FROM ({self._select(depth - 1, withs)}) AS z)"
        if kind < 6 and depth:
            return f"CAST(1 IN ({self._select(depth - 1, withs)}) AS INT)"
        return random.choice(_CONSTANTS) if kind < 7 else f"COUNT({column})"

    # ── parts ───────────────────────────────────────────────────────────────────────────────────────

    def _sources(self) -> dict[str, str]:
        random = self._random
        aliases: dict[str, str] = {}
        for i in range(random.choice((1, 1, 2, 2, 3))):
            alias = f"t{i}" if random.random() < 0.7 else random.choice(_ALIASES)
            aliases[alias] = random.choice(("people", "people", "visits", "copy", "list"))
        if random.random() < 0.8 and not {"people", "visits"} & set(aliases.values()):
            aliases[next(iter(aliases))] = "people"
        return aliases

    def _from(self, aliases: Mapping[str, str]) -> str:
        parts: list[str] = []
        for i, (alias, name) in enumerate(aliases.items()):
            table = f"{_quoted(name)} AS {_quoted(alias)}"
            if not i:
                parts.append(f"FROM {table}")
            else:
                condition = self._condition(aliases, 1) if self._random.random() < 0.7 else "TRUE"
                parts.append(f"{self._random.choice(('INNER', 'LEFT'))} JOIN {table} ON {condition}")
        return " ".join(parts)

    def _where(self, aliases: Mapping[str, str]) -> str:
        return f" WHERE {self._condition(aliases, 1)}" if self._random.random() < 0.5 else ""

    def _column(self, aliases: Mapping[str, str]) -> str:
        alias, name = self._random.choice(list(aliases.items()))
        return f"{_quoted(alias)}.{_quoted(self._random.choice(TABLES[name].columns))}"

    def _expression(self, aliases: Mapping[str, str], depth: int) -> str:
        random = self._random
        if not depth or random.random() < 0.4:
            return self._column(aliases) if random.random() < 0.8 else random.choice(_CONSTANTS)
        inner = [self._expression(aliases, depth - 1) for _ in range(3)]
        return random.choice(
            (
                f"({inner[0]} + {inner[1]})",
                f"({inner[0]} * {inner[1]})",
                f"{random.choice(_FUNCTIONS)}({inner[0]})",
                f"COALESCE({inner[0]}, {inner[1]})",
                f"NULLIF({inner[0]}, {inner[1]})",
                f"GREATEST({inner[0]}, {inner[1]})",
                f"CAST({inner[0]} AS {random.choice(('BIGINT', 'DOUBLE', 'HUGEINT', 'DECIMAL(9, 2)'))})",
                f"CASE WHEN {self._condition(aliases, depth - 1)} THEN {inner[1]} ELSE {inner[2]} END",
                f"CASE {inner[0]} WHEN {inner[1]} THEN {inner[2]} END",
                f"LOWER(CAST({inner[0]} AS TEXT))",
            )
        )

    def _condition(self, aliases: Mapping[str, str], depth: int) -> str:
        random = self._random
        one, other = self._expression(aliases, depth), self._expression(aliases, depth)
        if depth and random.random() < 0.3:
            word = random.choice(("AND", "OR"))
            return f"({self._condition(aliases, depth - 1)} {word} {self._condition(aliases, depth - 1)})"
        return random.choice(
            (
                f"{one} = {other}",
                f"{one} > {random.choice(_CONSTANTS)}",
                f"{one} IS NULL",
                f"NOT {one} IS NULL",
                f"{one} BETWEEN 1 AND {other}",
                f"{one} IN ({other}, 1)",
                f"{one} IN ({self._listed(aliases)})",
                f"CAST({one} AS TEXT) LIKE 'a%'",
            )
        )

    def _listed(self, aliases: Mapping[str, str]) -> str:
        """The SELECT of an IN list, its alias perhaps one that stands outside."""
        random = self._random
        alias = "s" if random.random() < 0.5 else random.choice((*aliases, *_ALIASES))
        name = "list" if random.random() < 0.7 else random.choice(("copy", "people", "visits"))
        used = alias if random.random() < 0.8 else self._cased(random.choice((alias, *aliases))).strip('"')
        column = random.choice((*TABLES[name].columns, "phone", "id", "salary"))
        return f"SELECT {_quoted(used)}.{_quoted(column)} FROM {_quoted(name)} AS {_quoted(alias)}"

    def _units(self, aliases: Mapping[str, str]) -> str:
        random = self._random
        units = {"people": "id", "visits": "visit"}
        counts = [f'COUNT(DISTINCT {_quoted(a)}."{units[t]}")' for a, t in aliases.items() if t in units]
        if not counts or random.random() < 0.1:
            return "COUNT(*)"
        return counts[0] if len(counts) == 1 else f"LEAST({', '.join(counts)})"

    def _measure(self, name: str, aliases: Mapping[str, str]) -> tuple[str, Measure]:
        random = self._random
        operand = self._expression(aliases, random.choice((0, 0, 1)))
        if random.random() < 0.2:
            operand = f"DISTINCT {self._column(aliases)}"
        where = f" FILTER(WHERE {self._condition(aliases, 1)})" if random.random() < 0.3 else ""
        kind = random.randrange(5)
        if kind == 0:
            call = f"COUNT({'*' if random.random() < 0.3 else operand}){where}"
            return call, _labelled(name, "sum", "count", "BIGINT")
        if kind == 1:
            scale = random.choice((0, 2))
            call = f"CAST(COALESCE(SUM({operand}){where}, 0) AS DECIMAL(38, {scale}))"
            return call, Measure(name, "sum", "integer", f"DECIMAL(38,{scale})", scale)
        if kind == 2:
            call = f"COALESCE(FSUM(CAST({operand} AS DOUBLE)){where}, 0)"
            return call, _labelled(name, "sum", "real", "DOUBLE")
        return (
            (f"MIN({operand}){where}", _labelled(name, "min", "value", "VARCHAR"))
            if kind == 3
            else (f"MAX({operand}){where}", _labelled(name, "max", "value", "VARCHAR"))
        )

    # ── bending ─────────────────────────────────────────────────────────────────────────────────────

    def _cased(self, name: str) -> str:
        change = self._random.choice((str, str, str, str.upper, str.title, str.swapcase))
        return _quoted(change(name))

    def _bent(self, text: str) -> str:
        random = self._random
        found = list(re.finditer(r'"(?:[^"]|"")+"', text))
        for _ in range(random.randrange(1, 3)):
            if not found:
                return text
            one, other = random.choice(found), random.choice(found)
            piece = random.choice(
                (
                    one[0].upper(),
                    one[0].swapcase(),
                    other[0],
                    _quoted(random.choice(_ALIASES)),
                    _quoted(random.choice([c for t in TABLES.values() for c in t.columns])),
                    one[0].strip('"'),
                    f"'{one[0][1:-1]}'",
                )
            )
            bent = text[: one.start()] + piece + text[one.end() :]
            text = random.choice((bent, bent, bent, text.replace("COUNT(", random.choice(("MAX(", "SUM(")), 1)))
            found = list(re.finditer(r'"(?:[^"]|"")+"', text))
        return text


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _labelled(name: str, combine: Combine, encoding: Encoding, type: str) -> Measure:
    return Measure(name, combine, encoding, type)


TYPES = {name: dict.fromkeys(table.columns, "BIGINT") for name, table in TABLES.items()}
"""The types under which a fragment's tables are known to the engine."""


def bare_query(
    sql: str,
    keys: tuple[str, ...] | None = None,
    key_types: tuple[str, ...] = (),
    measures: tuple[Measure, ...] = (),
) -> Query:
    """A fragment over all tables."""
    reads = tuple(
        Read(name, table.dataset.name, table.dataset.version)
        if table.dataset is not None
        else Read(name, step=StepId(name))
        for name, table in TABLES.items()
    )
    return Query(StepId("q"), NORTH, sql, reads, keys=keys, key_types=key_types, measures=measures)


def replace_sql(query: Query, sql: str) -> Query:
    """The fragment with another text."""
    return Query(
        query.id, query.party, sql, query.reads, keys=query.keys, key_types=query.key_types, measures=query.measures
    )


# ── what DuckDB binds ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Bound:
    """What DuckDB's binder makes of a text: the columns read of each table; units read for more than to count them."""

    columns: Mapping[str, frozenset[str]]
    uncounted: frozenset[str]  # columns that stand somewhere else than in COUNT(DISTINCT …)


class Binder:
    """A DuckDB with tables that hold every column, private and not, and no row.

    lacking: columns that a step has not, though its plan says so.
    """

    def __init__(self, lacking: Sequence[tuple[str, str]] = ()) -> None:
        self._connection = duckdb.connect(":memory:", config={"threads": "1"})
        for name, table in {"people": _PEOPLE, "visits": _VISITS, **_STEPS}.items():
            # All of one type: what is tested is where names lead, and most texts should bind.
            has = [column for column in table.column_names if (name, column) not in lacking]
            columns = ", ".join(f"{_quoted(column)} BIGINT" for column in has)
            self._connection.execute(f"CREATE TABLE {_quoted(name)} ({columns})")

    def bound(self, sql: str) -> Bound | None:
        """What is read; None if DuckDB does not bind it."""
        row = self._connection.execute("SELECT json_serialize_plan(?, optimize := false)", [sql]).fetchone()
        found: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
        if found["error"]:
            return None
        columns: dict[str, set[str]] = {}
        for node in _nodes(found["plans"]):
            if node.get("type") == "LOGICAL_GET":
                name, read = _scan(node)
                columns.setdefault(name, set()).update(column for column in read if column is not None)
        uncounted = {name for plan in found["plans"] for name in _uncounted(plan)}
        return Bound({name: frozenset(read) for name, read in columns.items()}, frozenset(uncounted))

    def admitted(self, sql: str, tables: Sequence[str]) -> bool:
        """Whether the engine's own wall lets the text through."""
        try:
            _check(self._connection.cursor(), sql, dict.fromkeys(tables))  # type: ignore[arg-type]  # names alone count
        except FragmentFailed:
            return False
        return True


def _scan(node: Mapping[str, Any]) -> tuple[str, list[str | None]]:
    """The table that a scan reads, and its columns in the order of its output; a row's number is None."""
    function = node.get("function_data") or {}
    name = str(function.get("table") or node.get("qname", {}).get("path", ["?"])[-1])
    indices = [entry["index"] for entry in node.get("column_indexes", [])]
    return name, [node["names"][index] if index < len(node["names"]) else None for index in indices]


def _nodes(tree: object) -> Iterator[dict[str, Any]]:
    stack = [tree]
    while stack:
        match stack.pop():
            case dict() as node:
                yield node
                stack.extend(node.values())
            case list() as nodes:
                stack.extend(nodes)


def _outputs(node: Mapping[str, Any]) -> list[str | None]:
    """The columns of tables that an operator hands on, by position, as far as they are none other's."""
    children = [_outputs(child) for child in node.get("children", [])]
    match node.get("type"):
        case "LOGICAL_GET":
            return _scan(node)[1]
        case "LOGICAL_FILTER":
            return children[0]
        case str(kind) if "JOIN" in kind or "CROSS" in kind:
            return [column for child in children for column in child]
        case _:
            return []


def _uncounted(node: Mapping[str, Any]) -> Iterator[str]:
    """The columns that an operator, or one below it, takes for something else than COUNT(DISTINCT …).

    A reference has its place in what the operators below hand on, and the name of a column if no output renames it;
    both count. So no table has a column of the name of another's unit.
    """
    children = node.get("children", [])
    below = [_outputs(child) for child in children]
    for part, value in node.items():
        if part == "conditions":
            for condition in value:
                yield from _named(condition.get("left"), below[0])
                yield from _named(condition.get("right"), below[-1])
        elif part != "children":
            yield from _named(value, [column for child in below for column in child])
    for child in children:
        yield from _uncounted(child)


def _named(tree: object, below: Sequence[str | None]) -> Iterator[str]:
    match tree:
        case list():
            for part in tree:
                yield from _named(part, below)
        case dict() if tree.get("expression_class") == "BOUND_REF":
            yield tree["alias"]
            column = below[tree["index"]] if tree["index"] < len(below) else None
            if column is not None:
                yield column
        case dict():
            counts = tree.get("expression_class") == "BOUND_AGGREGATE" and tree["qname"]["path"][-1] == "count"
            counts = counts and tree.get("aggregate_type") == "DISTINCT"
            for name, part in tree.items():
                if not counts or name != "children":
                    yield from _named(part, below)


# ── the comparison ──────────────────────────────────────────────────────────────────────────────────


def reading_of(made: Made) -> Reading | None:
    """What the reviewer makes of a fragment; None if it refuses it."""
    try:
        return fragment.read(made.query, TABLES)
    except PeerFault:
        return None


def check(made: Made, reading: Reading, binder: Binder, sql: str = "") -> str:
    """How the engine reads more than was judged; empty if it does not. sql: another text that
    the owner runs for the fragment, which may group by units."""
    bound = binder.bound(sql or made.sql)
    if bound is None:
        return ""
    strange = sorted(name for name in bound.columns if name not in reading.used)
    if strange:
        return f"it reads {strange[0]}, which the reviewer did not see"
    for name, read in bound.columns.items():
        dataset = TABLES[name].dataset
        beyond = read - set(reading.used[name])
        if beyond:
            return f"it reads {sorted(beyond)} of {name}; judged were {reading.used[name]}"
        if dataset is None:
            continue
        judged = {need.column for need in reading.needs if need.dataset == dataset.name}
        judged |= fragment.open_columns(dataset)
        for column in read - judged:
            if column != dataset.unit or (not sql and column in bound.uncounted):
                return f"it reads {column} of {name}, for which there is no need"
    return ""
