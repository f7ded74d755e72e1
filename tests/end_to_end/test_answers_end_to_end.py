# SPDX-License-Identifier: Apache-2.0
"""Answers over real nodes equal DuckDB's over the pooled rows with the threshold applied, whoever asks whom."""

import math
import random
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, time
from decimal import Decimal
from fractions import Fraction

import pyarrow as pa
import pytest
from pooled import OPEN, Pooled, assert_same

from junto.errors import InvalidInput, UnsupportedSQL
from junto.plan.steps import MaskedSum, Threshold
from junto.testing.until import until

_ORIGINS = ("JFK", "LGA", "Été", "it's", None)
_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("origin", pa.string()),
        ("month", pa.int32()),
        ("delay", pa.int32()),
        ("dist", pa.float64()),
        ("fare", pa.decimal128(12, 2)),
        ("day", pa.date32()),
        ("seen", pa.timestamp("us")),
        ("Straße „α“", pa.string()),
        ("order", pa.int16()),
    ]
)


def _flights(seed: int, rows: int, first_id: int) -> pa.Table:
    rng = random.Random(seed)
    made = [
        {
            "id": first_id + i,
            "origin": rng.choice(_ORIGINS),
            "month": rng.randint(1, 4),
            "delay": None if rng.random() < 0.1 else rng.randint(-60, 600),
            "dist": rng.uniform(-1e5, 1e5),
            "fare": Decimal(rng.randint(-99_999_999, 99_999_999)) / 100,
            "day": rng.choice((date(1, 1, 1), date(1970, 1, 1), date(2012, 2, 29), date(9999, 12, 31))),
            "seen": datetime(2013, rng.randint(1, 12), 28, 23, 59, 59, 999_999),
            "Straße „α“": rng.choice(("x", "ß", "東京", "")),
            "order": rng.randint(-(2**15), 2**15 - 1),
        }
        for i in range(rows)
    ]
    return pa.Table.from_pylist(made, schema=_SCHEMA)


_WEATHER = pa.table(
    {
        "origin": ["JFK", "JFK", "LGA", "Été", None],
        "month": pa.array([1, 2, 1, 3, 1], pa.int32()),
        "visib": [10.0, 2.5, 10.0, 0.5, 7.0],
    }
)


@pytest.fixture(scope="module")
def world() -> Iterator[Pooled]:
    with Pooled(["ann", "bea", "cyd", "dan"]) as consortium:
        sizes = {"ann": 90, "bea": 40, "cyd": 70}
        flights = {p: _flights(i, n, 1000 * i) for i, (p, n) in enumerate(sizes.items())}
        consortium.share("flights", flights, unit="id")
        consortium.share("pair", {p: flights[p] for p in ("ann", "bea")}, unit="id")
        consortium.share("solo", {"ann": flights["ann"]}, unit="id")
        consortium.share("weather", {"dan": _WEATHER}, OPEN)
        consortium.share("halves", {"bea": _WEATHER.slice(0, 2), "dan": _WEATHER.slice(2)}, OPEN)
        yield consortium


QUESTIONS = (
    "SELECT origin, month, COUNT(*) AS n, SUM(delay) AS s, AVG(delay) AS a FROM {t} GROUP BY origin, month"
    " {having} ORDER BY origin, month",
    "SELECT month, MIN(delay), MAX(delay), MIN(day), MAX(fare), MIN(origin) FROM {t} GROUP BY month {having}"
    " ORDER BY month",
    "SELECT VAR_SAMP(delay), VAR_POP(fare), STDDEV(delay), STDDEV_POP(dist), SUM(dist), AVG(fare) FROM {t} {having}",
    "SELECT month AS m, SUM(fare) AS s FROM {t} WHERE delay > 0 OR delay IS NULL GROUP BY m {having}"
    " ORDER BY s DESC, m LIMIT 2 OFFSET 1",
    "SELECT COUNT(DISTINCT id) AS flights, COUNT(delay) AS known FROM {t} WHERE origin IN ('JFK', 'it''s') {having}",
    'SELECT "Straße „α“" AS "Ort", SUM("order") AS "Σ" FROM {t} GROUP BY "Straße „α“" {having} ORDER BY 1',
    "SELECT day, COUNT(*) FROM {t} WHERE day < DATE '9999-12-31' GROUP BY day {having} ORDER BY day",
    "SELECT date_trunc('quarter', seen) AS q, year(day) AS y, COUNT(*) FROM {t} GROUP BY q, y {having} ORDER BY q, y",
    "WITH late AS (SELECT origin AS o, delay * 2 AS d{owner} FROM {t} WHERE delay BETWEEN 0 AND 300)"
    " SELECT o, SUM(d) FROM late GROUP BY o {having} ORDER BY o NULLS FIRST",
    "SELECT CASE WHEN delay > 60 THEN 'late' WHEN delay IS NULL THEN NULL ELSE 'fine' END AS how, COUNT(*)"
    " FROM {t} GROUP BY how {having} ORDER BY how",
    "SELECT visib, COUNT(*) AS n, AVG(delay) AS a FROM {t} JOIN weather USING (origin, month)"
    " GROUP BY visib {having} ORDER BY visib",
)


def guarded(question: str, asker: str) -> str:
    """The question, each aggregate of a column NULL to which fewer than ten rows of others contribute."""

    def shown(found: re.Match[str]) -> str:
        call, column, named = found[0].removesuffix(" AS"), found[2], found[0].endswith(" AS")
        counted = f"COUNT({column}) FILTER (WHERE owner_ <> '{asker}')"
        return f"CASE WHEN {counted} >= 10 THEN {call} END" + (" AS" if named else "")

    return re.sub(
        r"(SUM|AVG|MIN|MAX|COUNT|VAR_SAMP|VAR_POP|STDDEV|STDDEV_POP)\((\w+|\"[^\"]+\")\)( AS)?", shown, question
    )


@pytest.mark.parametrize(
    ("asker", "table"),
    [
        ("dan", "flights"),  # three owners, the asker has no rows
        ("ann", "flights"),  # two owners compute, the asker adds its own
        ("dan", "pair"),  # two owners and an asker
        ("bea", "pair"),  # one other owner and an asker with rows: two parties alone
        ("dan", "solo"),  # one owner
    ],
)
def test_every_constellation_answers_what_duckdb_does(world: Pooled, asker: str, table: str) -> None:
    for question in QUESTIONS:
        asked = question.format(t=table, having="", owner="")
        threshold = f"HAVING COUNT(*) FILTER (WHERE owner_ <> '{asker}') >= 10"
        expected = world.pooled(guarded(question, asker).format(t=table, having=threshold, owner=", owner_"))
        found = world.ask(asker, asked).table
        assert_same(found, expected.rename_columns(found.schema.names), f"{asker}: {asked}")


def test_groups_that_only_the_asker_has_many_of_are_withheld(world: Pooled) -> None:
    mine = pa.table({"id": list(range(50)), "k": ["own"] * 40 + ["both"] * 10})
    theirs = pa.table({"id": list(range(50)), "k": ["own"] * 4 + ["both"] * 46})
    world.share("lopsided", {"ann": mine, "bea": theirs}, unit="id")
    answer = world.ask("ann", "SELECT k, COUNT(*) AS n FROM lopsided GROUP BY k")
    assert answer.table.to_pylist() == [{"k": "both", "n": 56}]
    assert (answer.receipt.withheld, answer.own_left_out) == ("unknown", 1)  # bea has four units there
    assert world.ask("dan", "SELECT k, COUNT(*) AS n FROM lopsided GROUP BY k ORDER BY k").table.to_pylist() == [
        {"k": "both", "n": 56},
        {"k": "own", "n": 44},
    ]


def test_open_tables_alone_are_answered_whole(world: Pooled) -> None:
    for question in (
        "SELECT origin, COUNT(*) AS n FROM weather GROUP BY origin ORDER BY n DESC, origin",
        "SELECT visib FROM halves WHERE month = 1 ORDER BY visib LIMIT 2",
        "SELECT origin, MAX(visib) AS v FROM halves GROUP BY origin ORDER BY origin",
    ):
        for asker in ("ann", "dan"):
            assert_same(world.ask(asker, question).table, world.pooled(question), question)


def test_an_asker_sees_its_own_rows_without_anybody(world: Pooled) -> None:
    answer = world.ask("ann", "SELECT id, delay FROM ann.flights WHERE id < 3 ORDER BY id")
    assert answer.progress.participants == ("ann",)
    assert_same(answer.table, world.pooled("SELECT id, delay FROM flights WHERE id < 3 ORDER BY id"), "own rows")


def test_an_open_table_crosses_once_and_is_kept_by_version(world: Pooled) -> None:
    wide = pa.table({"origin": ["JFK"] * 9999, "pad": [f"{i:060d}" for i in range(9999)]})
    world.share("bulky", {"dan": wide.slice(0, 1)}, OPEN)
    question = "SELECT pad, COUNT(*) FROM solo JOIN bulky USING (origin) GROUP BY pad"

    def crossed() -> int:
        before = next(link for link in world["ann"].status().links if link.party == "dan").bytes_in
        world.ask("cyd", question)
        return next(link for link in world["ann"].status().links if link.party == "dan").bytes_in - before

    world.ask("cyd", question)
    world.publish("dan", "bulky", wide, OPEN)
    assert crossed() > 500_000
    assert crossed() < 50_000
    copies = list(world.home("ann").cache_path.glob("*.arrow"))
    assert any(copy.stat().st_size > 500_000 for copy in copies)


def test_empty_and_all_null_tables_take_part(world: Pooled) -> None:
    schema = pa.schema([("id", pa.int64()), ("k", pa.string()), ("v", pa.int32())])
    nothing = schema.empty_table()
    nulls = pa.table({"id": list(range(20)), "k": [None] * 20, "v": [None] * 20}, schema=schema)
    some = pa.table({"id": list(range(20)), "k": ["a"] * 20, "v": list(range(20))}, schema=schema)
    world.share("gaps", {"ann": nothing, "bea": nulls, "cyd": some}, unit="id")
    question = (
        "SELECT k, COUNT(*), COUNT(v), SUM(v), AVG(v), MIN(v), MAX(v), STDDEV(v) FROM gaps {} GROUP BY k ORDER BY k"
    )
    for where in ("", "WHERE v IS NULL", "WHERE v > 100"):
        for asker in ("dan", "ann", "cyd"):
            asked = question.format(where)
            having = f" HAVING COUNT(*) FILTER (WHERE owner_ <> '{asker}') >= 10 ORDER BY k"
            expected = world.pooled(guarded(asked, asker).replace(" ORDER BY k", having))
            found = world.ask(asker, asked).table
            assert_same(found, expected.rename_columns(found.schema.names), asked)
    world.share("nobody", {"ann": nothing, "bea": nothing}, unit="id")
    answer = world.ask("dan", "SELECT COUNT(*) AS n, SUM(v) AS s FROM nobody")
    assert (answer.table.num_rows, answer.withheld, answer.receipt.withheld) == (0, False, "unknown")
    assert world.ask("dan", "SELECT k, SUM(v) FROM nobody GROUP BY k").table.num_rows == 0


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("odd", [(NAN,), (INF,), (-INF,), (INF, -INF), (INF, 1e300)])
def test_nan_and_infinity_in_a_released_group_give_what_duckdb_gives(world: Pooled, odd: tuple[float, ...]) -> None:
    rows = {"id": list(range(20)), "k": ["odd"] * 10 + ["plain"] * 10}
    tables = {
        "ann": pa.table({**rows, "v": [1.5] * 20}),
        "bea": pa.table({**rows, "v": [odd[0]] + [1.0] * 19}),
        "cyd": pa.table({**rows, "v": [odd[-1]] + [2.0] * 18 + [None]}),
    }
    world.share("reals", tables, unit="id")
    question = "SELECT k, COUNT(v), SUM(v), AVG(v), STDDEV(v), VAR_POP(v) FROM reals GROUP BY k ORDER BY k"
    for asker in ("dan", "ann", "bea"):
        assert_same(world.ask(asker, question).table, world.pooled(question), question)
    above = "SELECT k FROM reals GROUP BY k HAVING SUM(v) > 1e9 ORDER BY k"
    assert_same(world.ask("dan", above).table, world.pooled(above), above)


@pytest.mark.parametrize(
    "value",
    [
        "1e9 + i % 3",
        "1000000000.5 + (i // 3) % 3",
        "1735689600.0 + i",  # Unix seconds
        "5412345.25 + (i % 7) / 8",  # a UTM northing, in metres
        "1e18 + 128 * (i % 5)",
        "1e-9 + 1e-12 * (i % 4)",
        "CASE WHEN i % 2 = 0 THEN 1e15 ELSE 1e-3 END + i",
        "0.1",
    ],
)
def test_deviations_far_from_zero_are_those_of_exact_arithmetic(world: Pooled, value: str) -> None:
    rows = f"SELECT i AS id, i % 2 AS k, CAST({value} AS DOUBLE) AS v FROM range(90) t(i)"
    made = world.pooled(rows)
    world.share("far", {p: made.slice(i * 25, 25 + i * 10) for i, p in enumerate(("ann", "bea"))}, unit="id")
    question = "SELECT k, VAR_POP(v) AS a, STDDEV(v) AS b, VAR_SAMP(v) FILTER (WHERE id > 5) AS c FROM far GROUP BY k"
    pooled = world.pooled("SELECT k, id, v FROM far").to_pylist()
    for asker in ("dan", "ann"):
        for row in world.ask(asker, question).table.to_pylist():
            values = [Fraction(r["v"]) for r in pooled if r["k"] == row["k"]]
            later = [Fraction(r["v"]) for r in pooled if r["k"] == row["k"] and r["id"] > 5]
            expected = (
                float(_squares(values) / len(values)),
                math.sqrt(_squares(values) / (len(values) - 1)),
                float(_squares(later) / (len(later) - 1)),
            )
            assert (row["a"], row["b"], row["c"]) == pytest.approx(expected, rel=1e-13, abs=0.0)


def test_extremes_of_every_type_are_duckdbs_and_nan_is_the_greatest(world: Pooled) -> None:
    schema = {
        "b": pa.bool_(),
        "u": pa.uint8(),
        "f": pa.float32(),
        "d": pa.float64(),
        "m": pa.decimal128(20, 3),
        "s": pa.string(),
        "x": pa.binary(),
        "day": pa.date32(),
        "t": pa.time64("us"),
        "seen": pa.timestamp("us"),
        "z": pa.timestamp("us", "UTC"),
        "n": pa.timestamp("ns"),
    }
    at = datetime(2013, 5, 6, 7, 8, 9)
    odd: list[object] = [True, 200, NAN, NAN, Decimal("9.5"), "é", b"\xff", date(9999, 1, 1), at.time(), at, at, at]
    low: list[object] = [
        False,
        0,
        -INF,
        1.5,
        Decimal("-9.5"),
        "",
        b"",
        date(1, 1, 1),
        time(),
        datetime(1, 1, 1),
        at,
        at,
    ]
    none: list[object] = [None] * len(schema)
    held: dict[str, tuple[list[list[object]], list[list[object]]]] = {
        "ann": ([odd, low], [low]),
        "bea": ([low, none], [low, none]),
        "cyd": ([none], [odd]),
    }
    parts: dict[str, pa.Table] = {}
    for party, (of_a, of_b) in held.items():
        rows = [("a", *row) for row in of_a * 10] + [("b", *row) for row in of_b * 10]
        columns = zip(*rows, strict=True)
        names = ("k", *schema)
        types = (pa.string(), *schema.values())
        made = {n: pa.array(c, t) for n, c, t in zip(names, columns, types, strict=True)}
        parts[party] = pa.table({"id": list(range(len(rows))), **made})
    world.share("kinds", parts, unit="id")
    outputs = [f"{f}({c}) AS {f}_{c}" for c in schema if c != "z" for f in ("MIN", "MAX")]
    outputs.append("MAX(z) = MIN(z) AS one")  # the pooled DuckDB names another zone
    outputs += ["MAX(CAST(u AS HUGEINT)) AS h", "MAX(k || s) AS ks"]
    compared = ["MAX(u > 3) AS above", "MIN(d > 3) AS below"]  # for dan alone enough units stand on both sides
    for asker in ("dan", "ann", "cyd"):
        shown = [*outputs, *(compared if asker == "dan" else [])]
        question = f"SELECT k, {', '.join(shown)} FROM kinds GROUP BY k ORDER BY k"
        assert_same(world.ask(asker, question).table, world.pooled(question), question)
    with pytest.raises(UnsupportedSQL, match=r"MAX\(seen - seen\) is of type INTERVAL, which parties do not compare"):
        world.ask("dan", "SELECT MAX(seen - seen) FROM kinds")


def _squares(values: list[Fraction]) -> Fraction:
    mean = sum(values, Fraction(0)) / len(values)
    return sum(((value - mean) ** 2 for value in values), Fraction(0))


def test_a_magnitude_beyond_the_lanes_is_null_and_fails_nothing(world: Pooled) -> None:
    rows = {"id": list(range(20)), "w": [1.0] * 20}
    world.share("huge", {p: pa.table({**rows, "v": [v] * 20}) for p, v in (("ann", 1e30), ("bea", 1.0))}, unit="id")
    found = world.ask("dan", "SELECT SUM(v) AS s, AVG(v) AS a, STDDEV(v) AS d, SUM(w) AS w, COUNT(v) AS n FROM huge")
    assert found.table.to_pylist() == [{"s": None, "a": None, "d": None, "w": 40.0, "n": 40}]


def test_integers_and_decimals_are_exact_to_the_end_and_then_named(world: Pooled) -> None:
    top = 2**63 - 1
    ints = {p: pa.table({"id": list(range(20)), "v": [sign * top] * 20}) for p, sign in (("ann", 1), ("bea", 1))}
    world.share("large", ints, unit="id")
    assert world.ask("dan", "SELECT SUM(v) AS s FROM large").table.to_pylist() == [{"s": 40 * top}]

    def times(number: int) -> Decimal:
        cents = str(number * int("9" * 29))
        return Decimal(f"{cents[:-2]}.{cents[-2:]}")

    most, over = Decimal("9" * 27 + ".99"), Decimal("9" * 36 + ".99")
    exact = pa.table({"id": list(range(20)), "v": pa.array([most] * 20, pa.decimal128(38, 2))})
    world.share("sums", {"ann": exact, "bea": exact}, unit="id")
    assert world.ask("dan", "SELECT SUM(v) AS s FROM sums").table.to_pylist() == [{"s": times(40)}]
    some = pa.table({"id": list(range(20)), "v": pa.array([over] * 5 + [most] * 15, pa.decimal128(38, 2))})
    world.share("over", {"ann": some}, unit="id")
    question = "SELECT SUM(v) AS s, AVG(v) > 0 AS a FROM over"  # what cannot be added up is NULL, whoever has it
    assert world.ask("dan", question).table.to_pylist() == [{"s": times(15), "a": True}]


def test_a_hundred_columns_are_answered_in_one_question(world: Pooled) -> None:
    columns: dict[str, list[int]] = {f"c{i}": [i * row % 97 for row in range(30)] for i in range(120)}
    world.share("wide", {p: pa.table({"id": list(range(30)), **columns}) for p in ("ann", "bea")}, unit="id")
    sums = ", ".join(f"SUM(c{i}) AS s{i}" for i in range(120))
    question = f"SELECT c1 % 2 AS g, {sums} FROM wide GROUP BY g ORDER BY g"
    assert_same(world.ask("dan", question, deadline="100s").table, world.pooled(question), question)


def test_a_name_in_another_script_is_a_name(world: Pooled) -> None:
    table = pa.table({"id": list(range(30)), "Größe (m²)": [1.5] * 30, 'a"b': ["x"] * 30, "select": [2] * 30})
    world.share("Reisen 2013", {"ann": table, "bea": table}, unit="id")
    question = (
        'SELECT "a""b" AS "c""d", SUM("Größe (m²)") AS "∑", MAX("select") AS "from" FROM "Reisen 2013" GROUP BY "a""b"'
    )
    assert_same(world.ask("dan", question, deadline="100s").table, world.pooled(question), question)


def test_a_threshold_of_parties_hides_what_one_contributor_alone_has(world: Pooled) -> None:
    rules: list[dict[str, object]] = [
        {"columns": ["*"], "allow": "group", "parties": 2},
        {"columns": ["*"], "allow": "aggregate"},
    ]
    everyone, alone = ["all"] * 20, ["lone"] * 20
    tables = {
        "ann": pa.table({"id": list(range(40)), "k": everyone + alone}),
        "bea": pa.table({"id": list(range(20)), "k": everyone}),
        "cyd": pa.table({"id": list(range(20)), "k": everyone}),
    }
    world.share("shared", tables, rules, unit="id")
    for asker in ("dan", "cyd"):
        answer = world.ask(asker, "SELECT k, COUNT(*) AS n FROM shared GROUP BY k")
        assert (answer.table.to_pylist(), answer.receipt.withheld) == ([{"k": "all", "n": 60}], "unknown")


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("SELECT SUM(dealy) FROM flights", r"dealy.*'delay'"),
        ("SELECT COUNT(*) FROM flihgts", r"flihgts.*'flights'"),
        ("SELECT SUM(origin) FROM flights", "(?i)sum.*varchar"),
        ("SELECT a.origin, COUNT(*) FROM flights a JOIN pair b ON a.id = b.id GROUP BY 1", "flights"),
        ("SELECT MEDIAN(delay) FROM flights", "(?i)median"),
        ("DELETE FROM flights", "(?i)select"),
        ("SELECT origin, ROW_NUMBER() OVER () FROM flights", "(?i)over|window"),
    ],
)
def test_a_question_that_cannot_be_answered_says_what_and_what_instead(
    world: Pooled, question: str, names: str
) -> None:
    with pytest.raises(InvalidInput, match=names) as caught:
        world.ask("dan", question)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UnsupportedSQL | InvalidInput)


def test_many_questions_at_once_are_each_answered_right_and_leave_only_their_answers(world: Pooled) -> None:
    questions = [q.format(t="flights", having="", owner="") for q in QUESTIONS[:2]]
    pairs = [(asker, question) for asker in world.parties for question in questions]
    expected = {pair: world.ask(*pair).table for pair in pairs}
    before = {party: _held(world, party) for party in world.parties}
    with ThreadPoolExecutor(16) as pool:
        asked = [(pair, pool.submit(world.ask, *pair)) for pair in pairs * 3]
    for pair, answer in asked:
        assert_same(answer.result().table, expected[pair], pair[1])
    for party in world.parties:
        _await_idle(world, party)
        assert _held(world, party) - before[party] == len(questions) * 3, party


def _await_idle(world: Pooled, party: str) -> None:
    until(lambda: not world.node(party).runner.open, f"{party} has no open task")


def _held(world: Pooled, party: str) -> int:
    """How many answers lie at a party, when nothing else does, in files or beside its journal's entries."""
    journal = world.node(party).journal

    def names() -> list[str]:
        return [name for task in journal.kept_tasks() for name in journal.kept(task)]

    until(lambda: set(names()) <= {"answer"}, f"{party} keeps answers only")
    return len(names())


def test_explain_names_the_protocols_and_runs_nothing(world: Pooled) -> None:
    before = len(world["dan"].tasks())
    explained = world["dan"].sql("SELECT origin, SUM(delay) FROM flights GROUP BY origin").explain()
    assert any(isinstance(step, Threshold) for step in explained.plan.steps)
    assert any(isinstance(step, MaskedSum) for step in explained.plan.steps)
    assert len(world["dan"].tasks()) == before
