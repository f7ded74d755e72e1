# SPDX-License-Identifier: Apache-2.0
"""What cannot be answered is an error that names the clause and the mend; whatever the text, never another error."""

import random
import re
from contextlib import suppress
from functools import partial

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junto.errors import InvalidInput, UnsupportedSQL
from junto.frontends.sql import compile_sql
from junto.plan import review, steps
from junto.testing.plans import published
from junto.trust.rules import Rule
from junto.types import PartyId

FLIGHTS = pa.table(
    {"id": [1], "origin": ["JFK"], "month": [1], "delay": [2.5], "time_hour": pa.array([0], pa.timestamp("us"))}
)
RULES = (Rule(("*",), "group"), Rule(("*",), "aggregate"), Rule(("*",), "extremes"))
OPEN = (Rule(("*",), "open"),)
WEATHER = pa.table({"origin": ["JFK"], "visib": [10.0], "tags": [["wind"]]})
DATASETS = [
    published("delta", "flights", FLIGHTS, RULES, "id"),
    published("united", "flights", FLIGHTS, RULES, "id"),
    published("united", "crew", pa.table({"id": [1], "role": ["pilot"]}), RULES, "id"),
    published("delta", "fares", pa.table({"id": [1], "fare": [1.0]}), RULES),
    published("united", "fares", pa.table({"id": [1], "fare": [1.0]}), RULES),
    published("bts", "weather", WEATHER, OPEN),
    published("faa", "airports", pa.table({"origin": ["JFK"], "name": ["Kennedy"]}), OPEN),
    published("delta", "codes", pa.table({"origin": ["JFK"]}), OPEN),
    published("united", "codes", pa.table({"origin": ["LGA"]}), OPEN),
    published("delta", "bags", pa.table({"id": [1]}), RULES),
    published("united", "bags", pa.table({"id": ["1"]}), RULES),
]


def compiled(question: str) -> steps.Plan:
    return compile_sql(question, DATASETS, PartyId("bts"))


NAMES = {
    "SELECT COUNT(*) FROM flihgts": "no dataset 'flihgts'; did you mean 'flights'?",
    "SELECT COUNT(*) FROM untied.flights": "untied has no dataset 'flights'; did you mean 'united'?",
    "SELECT AVG(dealy) FROM flights": "no column 'dealy'; did you mean 'delay'?",
    "SELECT AVG(f.dealy) FROM flights f": "f has no column 'dealy'; did you mean 'delay'?",
    "SELECT AVG(g.delay) FROM flights f": "no table 'g' in FROM; there is f",
    "SELECT COUNT(*) FROM flights JOIN weather USING (orgin)": "no column 'orgin'; did you mean 'origin'?",
    "SELECT origin, COUNT(*) FROM flights JOIN weather ON flights.origin = weather.origin GROUP BY 1": "ambiguous",
    "SELECT COUNT(*) FROM flights f JOIN weather f ON TRUE": "'f' names two tables",
    "SELECT COUNT(*) FROM bags": "'id' is BIGINT at delta and VARCHAR at united; write delta.bags",
    "SELECT origin, COUNT(*) FROM flights": "'origin' is neither in GROUP BY|must appear in the GROUP BY",
    "SELECT COUNT(*) FROM flights GROUP BY 3": "GROUP BY 3: the question has 1 outputs",
    "SELECT COUNT(*) FROM flights ORDER BY 2": "ORDER BY 2: the question has 1 outputs",
    "SELECT COUNT(*) FROM flights WHERE SUM(delay) > 1": "WHERE holds the aggregate SUM(delay): move it to HAVING",
    "SELECT SUM(origin) FROM flights": "SUM(origin) is of type VARCHAR|No function matches",
    "SELECT AVG(time_hour) FROM flights": "AVG(time_hour) is of type TIMESTAMP",
    "SELECT origin + 1, COUNT(*) FROM flights GROUP BY 1": "not valid",
    "SELECT 1": "names no dataset",
    "": "the question is empty",
    "SELECT FROM": "the SQL does not parse",
    "SELECT COUNT(* FROM flights": "the SQL does not parse",
    "SELECT COUNT(*) FROM fares JOIN weather ON fare = visib": "fares of delta has no unit",
    "SELECT COUNT(*) FROM weather.flights.x": "write a table as `dataset` or `party.dataset`|parse",
}


@pytest.mark.parametrize("question", NAMES)
def test_a_wrong_name_or_type_is_told_with_the_nearest(question: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        compiled(question)
    assert any(part in str(caught.value) for part in NAMES[question].split("|")), str(caught.value)
    assert "\n" not in str(caught.value)


CLAUSES = {
    "DROP TABLE flights": "DROP",
    "INSERT INTO flights VALUES (1)": "INSERT",
    "PRAGMA database_list": "PRAGMA",
    "COPY flights TO 'x.csv'": "COPY",
    "ATTACH 'x.db'": "ATTACH",
    "SET threads = 1": "SET",
    "SELECT 1; SELECT 2": "2 statements",
    "SELECT id FROM flights UNION SELECT id FROM flights": "UNION",
    "SELECT * FROM read_csv('/etc/passwd')": "as a table is not supported",
    "SELECT * FROM read_parquet(['a', 'b'])": "as a table is not supported",
    "SELECT * FROM range(10)": "as a table is not supported",
    "SELECT COUNT(*) FROM 'flights.csv'": "no dataset 'flights.csv'|not supported|parse",
    "SELECT ROW_NUMBER() OVER () FROM flights": "a window function (OVER)",
    "SELECT SUM(delay) OVER (PARTITION BY origin) FROM flights": "a window function (OVER)",
    "SELECT id FROM flights QUALIFY TRUE": "QUALIFY",
    "SELECT origin, COUNT(*) FROM flights GROUP BY ROLLUP (origin)": "ROLLUP",
    "SELECT origin, COUNT(*) FROM flights GROUP BY CUBE (origin)": "CUBE",
    "SELECT origin, COUNT(*) FROM flights GROUP BY GROUPING SETS ((origin), ())": "GROUPING SETS",
    "SELECT COUNT(*) FROM flights TABLESAMPLE 10%": "SAMPLE",
    "SELECT COUNT(*) FROM flights USING SAMPLE 10": "SAMPLE",
    "SELECT DISTINCT ON (origin) id FROM flights": "DISTINCT",
    "WITH RECURSIVE r AS (SELECT id FROM flights) SELECT COUNT(*) FROM r": "RECURSIVE",
    "SELECT COUNT(*) FROM flights, weather": "a comma between tables",
    "SELECT COUNT(*) FROM flights CROSS JOIN weather": "CROSS JOIN",
    "SELECT COUNT(*) FROM flights RIGHT JOIN weather USING (origin)": "RIGHT JOIN",
    "SELECT COUNT(*) FROM flights FULL JOIN weather USING (origin)": "FULL JOIN",
    "SELECT COUNT(*) FROM flights NATURAL JOIN weather": "NATURAL",
    "SELECT COUNT(*) FROM flights ASOF JOIN weather USING (origin)": "ASOF",
    "SELECT COUNT(*) FROM flights SEMI JOIN weather USING (origin)": "SEMI",
    "SELECT COUNT(*) FROM flights POSITIONAL JOIN weather": "POSITIONAL|parse|comma|without a condition",
    "SELECT COUNT(*) FROM weather LEFT JOIN flights USING (origin)": "at the right of a LEFT JOIN: put it first",
    "SELECT COUNT(*) FROM flights, LATERAL (SELECT 1) t": "LATERAL",
    "SELECT COUNT(*) FROM flights WHERE EXISTS (SELECT 1 FROM weather)": "EXISTS",
    "SELECT COUNT(*) FROM flights WHERE delay > (SELECT AVG(visib) FROM weather)": "a subquery as a value",
    "SELECT COUNT(*) FROM flights WHERE delay > ANY (SELECT visib FROM weather)": "ANY",
    "SELECT COUNT(*) FROM flights WHERE id IN (SELECT id FROM flights)": "not open",
    "SELECT AVG(n) FROM (SELECT origin, COUNT(*) AS n FROM flights GROUP BY origin) t": "flights, which is not open",
    "SELECT AVG(n) FROM (SELECT delay AS n FROM flights LIMIT 5) t": "flights, which is not open",
    "SELECT COUNT(DISTINCT origin) FROM flights": "only that of the unit; the unit is id at delta",
    "SELECT SUM(DISTINCT delay) FROM flights": "DISTINCT",
    "SELECT MEDIAN(delay) FROM flights": "MEDIAN",
    "SELECT quantile_cont(delay, 0.5) FROM flights": "quantile|percentile",
    "SELECT list(id) FROM flights": "list|array_agg",
    "SELECT string_agg(origin, ',') FROM flights": "group_concat|string_agg|listagg",
    "SELECT first(origin) FROM flights": "first",
    "SELECT arg_max(id, delay) FROM flights": "arg_max|argmax",
    "SELECT MIN(id, 3) FROM flights": "with COUNT|with EXPRESSIONS",
    "SELECT SUM(delay ORDER BY id) FROM flights": "not supported|in a place",
    "SELECT COUNT(*), now() FROM flights": "now",
    "SELECT COUNT(*) FROM flights WHERE time_hour > current_date": "the current date",
    "SELECT COUNT(*) FROM flights WHERE random() < 0.5": "random",
    "SELECT getenv('HOME'), COUNT(*) FROM flights": "getenv",
    "SELECT COUNT(*) FROM flights WHERE origin ~ 'J.*'": "a regular expression",
    "SELECT COUNT(*) FROM flights WHERE origin SIMILAR TO 'J.*'": "SIMILAR TO",
    "SELECT COUNT(*) FROM flights WHERE id = ?": "a placeholder",
    "SELECT COUNT(*) FROM flights WHERE id = $1": "a parameter|a placeholder",
    "SELECT COUNT(*) FROM flights LIMIT 10 PERCENT": "LIMIT|parse",
    "SELECT COUNT(*) FROM flights LIMIT (SELECT 1)": "LIMIT",
    "SELECT * EXCLUDE (id) FROM flights": "EXCLUDE|EXCEPT",
    "SELECT COLUMNS('.*') FROM flights": "COLUMNS",
    "SELECT [id] FROM flights": "array",
    "SELECT {'a': id} FROM flights": "struct",
    "SELECT CAST(id AS INTEGER[]) FROM flights": "a cast to",
    "SELECT COUNT(*) FROM flights PIVOT (SUM(id) FOR origin IN ('JFK'))": "PIVOT",
    "SELECT COUNT(*) FROM flights JOIN codes USING (origin)": "say whose you mean, as delta.codes",
    "SELECT COUNT(*) FROM flights JOIN crew USING (id)": "flights and crew are private",
    "SELECT COUNT(*) FROM flights a JOIN flights b USING (id)": "private and at several parties",
    "SELECT COUNT(*) FROM flights f JOIN (SELECT w.origin, MAX(a.name) AS n FROM weather w JOIN airports a"
    " USING (origin) GROUP BY 1) x USING (origin)": "reads open tables of bts, faa",
    "SELECT COUNT(*) FROM flights WHERE id = month IN (1)": "put ( ) around",
    "SELECT COUNT(*) FROM flights WHERE -id ^ 2 > 1": "put ( ) around",
    "SELECT tags, COUNT(*) FROM flights JOIN weather USING (origin) GROUP BY tags": "cast it to VARCHAR",
    "SELECT origin, COUNT(*) FROM flights GROUP BY origin ORDER BY origin COLLATE NOCASE": "COLLATE",
    "SELECT COUNT(*) FROM (VALUES (1)) t": "VALUES|not supported",
    "FROM flights SELECT COUNT(*) HAVING COUNT(*) IN (SELECT visib FROM weather)": "over aggregates",
    "EXPLAIN SELECT COUNT(*) FROM flights": "EXPLAIN",
    "DESCRIBE flights": "DESCRIBE",
    "CALL pragma_version()": "CALL",
    "SELECT COUNT(*) FROM flights FOR UPDATE": "LOCKS|not supported|parse",
    "SELECT COUNT(*) FROM flights AT (VERSION => 1)": "not supported|parse",
    "SELECT unnest([1,2]), COUNT(*) FROM flights": "unnest|explode",
}


@pytest.mark.parametrize("question", CLAUSES)
def test_a_clause_that_is_not_answered_is_named(question: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        compiled(question)
    said = str(caught.value)
    assert any(part.lower() in said.lower() for part in CLAUSES[question].split("|")), said
    assert "\n" not in said
    assert isinstance(caught.value, UnsupportedSQL) or "parse" in said or "no dataset" in said, said


@pytest.mark.parametrize(
    "question",
    [
        "SELECT " + "(" * 5000 + "1" + ")" * 5000 + " FROM flights",
        "SELECT " + "-" * 1 + " - ".join(["id"] * 3000) + " FROM flights",
        "SELECT COUNT(*) FROM flights WHERE " + "NOT " * 3000 + "TRUE",
        "SELECT COUNT(*) FROM flights WHERE " + " AND ".join(["id > 1"] * 6000),
        "SELECT " + "CASE WHEN id > 1 THEN " * 400 + "1" + " END" * 400 + " FROM flights",
        "SELECT COUNT(*) FROM flights WHERE id IN (" + ",".join(map(str, range(30_000))) + ")",
        "SELECT '" + "x" * 200_000 + "' FROM flights",
        "SELECT COUNT(*) FROM flights WHERE id = " + "9" * 5000,
        "SELECT \0 FROM flights",
    ],
    ids=["parentheses", "differences", "nots", "ands", "cases", "list", "text", "digits", "zero"],
)
def test_a_monstrous_question_is_turned_away_and_not_died_of(question: str) -> None:
    with pytest.raises(InvalidInput):
        compiled(question)


SEEDS = [
    "SELECT origin, AVG(delay) AS a FROM flights WHERE month IN (1, 2) GROUP BY origin HAVING COUNT(*) > 3"
    " ORDER BY a LIMIT 5",
    "SELECT w.visib, SUM(f.delay) FILTER (WHERE f.delay > 3) FROM flights f LEFT JOIN weather w ON f.origin = w.origin"
    " AND w.visib BETWEEN 1 AND 5 GROUP BY 1",
    "WITH x AS (SELECT id AS i, delay FROM flights) SELECT i, CASE WHEN delay > 1 THEN 'a' END FROM x ORDER BY 1",
    "SELECT date_trunc('month', time_hour), STDDEV(delay), MIN(id) FROM flights WHERE origin LIKE 'J%' GROUP BY ALL",
    *CLAUSES,
    *NAMES,
]
WORDS = sorted({word for seed in SEEDS for word in re.findall(r"\w+|[^\w\s]|'[^']*'", seed)})


KINDS = (
    ("origin", "month", "delay", "id", "time_hour", "visib", "tags"),
    ("1", "2", "0", "NULL", "'J%'", "TRUE", "5", "-1", "1e300"),
    ("AVG", "SUM", "MIN", "MAX", "STDDEV", "COUNT", "abs", "lower", "year", "median"),
    (">", "<", "=", "<>", "LIKE", "+", "||", "/", "//", "AND", "OR", "IS NOT DISTINCT FROM"),
    ("LEFT JOIN", "INNER JOIN", "JOIN", "CROSS JOIN", "RIGHT JOIN"),
)


def _swapped(rng: random.Random, kind: tuple[str, ...], match: re.Match[str]) -> str:
    return rng.choice(kind) if rng.random() < 0.5 else match[0]


def reworded(rng: random.Random) -> str:
    """A question in which words were exchanged for others of their kind: most often still one."""
    text = rng.choice(SEEDS[:4])
    for _ in range(rng.randint(1, 3)):
        kind = rng.choice(KINDS)
        text = re.sub(
            "|".join(rf"(?<![\w']){re.escape(w)}(?![\w'])" for w in kind),
            partial(_swapped, rng, kind),
            text,
        )
    return text


def mutated(rng: random.Random) -> str:
    tokens = re.findall(r"'[^']*'|\w+|[^\w\s]|\s+", rng.choice(SEEDS[: rng.choice((4, len(SEEDS)))]))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(tokens) + 1)
        match rng.randint(0, 3):
            case 0:
                tokens[at : at + rng.randint(1, 3)] = []
            case 1:
                tokens.insert(at, f" {rng.choice(WORDS)} ")
            case 2 if at < len(tokens):
                tokens[at] = rng.choice(WORDS)
            case _:
                other = re.findall(r"'[^']*'|\w+|[^\w\s]|\s+", rng.choice(SEEDS))
                start = rng.randrange(len(other) or 1)
                tokens[at:at] = other[start : start + rng.randint(1, 8)]
        if not tokens:
            break
    return "".join(tokens)


@pytest.mark.parametrize("seed", range(4))
def test_a_mutated_question_is_a_plan_that_every_owner_accepts_or_bad_input(seed: int) -> None:
    rng = random.Random(seed)
    plans = 0
    for _ in range(80):
        question = reworded(rng) if rng.random() < 0.5 else mutated(rng)
        try:
            plan = compiled(question)
        except InvalidInput:
            continue
        plans += 1
        for party in plan.parties:
            review.review(plan, party, DATASETS)
    assert 0 < plans < 80


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_bad_input_or_a_plan(text: str) -> None:
    for question in (text, f"SELECT {text} FROM flights", f"SELECT COUNT(*) FROM flights WHERE {text}"):
        with suppress(InvalidInput):
            compiled(question)


def test_names_that_differ_in_case_alone_are_told_and_one_partys_may_be_named() -> None:
    table = pa.table({"ward": ["heart"]})
    rules = (Rule(("*",), "open"),)
    datasets = [published("north", "Visits", table, rules), published("south", "visits", table, rules)]
    for name in ("visits", "Visits", "VISITS"):
        with pytest.raises(InvalidInput, match=r"'Visits' of north and 'visits' of south are different tables"):
            compile_sql(f"SELECT ward FROM {name}", datasets, PartyId("south"))
    for name in ("south.visits", "north.Visits", "north.visits"):
        assert compile_sql(f"SELECT ward FROM {name}", datasets, PartyId("south")).steps
