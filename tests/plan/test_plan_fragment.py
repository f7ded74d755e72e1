# SPDX-License-Identifier: Apache-2.0
"""What a question needs of each column follows from the places where its fragment uses it, and from nothing else."""

from collections.abc import Mapping

import msgspec
import pyarrow as pa
import pytest

from junto.errors import PeerFault, UnsupportedSQL
from junto.frontends.sql import compile_sql
from junto.plan import expressions, fragment
from junto.plan.disclosure import Disclosure, digest_of, disclosures
from junto.plan.explain import explain
from junto.plan.fragment import Table
from junto.plan.review import review
from junto.plan.steps import Query, Read
from junto.testing.plans import published
from junto.trust.rules import Rule
from junto.types import DatasetName, PartyId, StepId

COLUMNS = pa.table({name: [1] for name in ("id", "a", "b", "c", "s", "pub")} | {"t": ["x"], "f": [1.5]})
RULES = (Rule(("a",), "group"), Rule(("pub",), "open"))
OPEN = (Rule(("*",), "open"),)
DATASETS = [
    *(published(p, "d", COLUMNS, RULES, "id") for p in ("delta", "jetblue", "united")),
    published("bts", "w", pa.table({"a": [1], "x": [2], "y": [3]}), OPEN),
]

BENT = (
    "b + 0 * ABS(b)",
    "ABS(b)",
    "SIGN(b - 3)",
    "LEAST(GREATEST(b - 3, 0), 1)",
    "ROUND(b)",
    "FLOOR(b / 3)",
    "b // 2",
    "b % 2",
    "b ** 2",
    "EXP(b)",
    "SQRT(b - 3)",
    "LN(b)",
    "NULLIF(b, 7)",
    "1 / b",
    "CAST(b AS INTEGER)",
    "LENGTH(CAST(b AS VARCHAR))",
    "ABS(b + 1e16)",
)
"""Operands that tell more of `b` than its sum does."""

NEEDS: Mapping[str, set[tuple[str, str]]] = {
    # places
    "SELECT a, COUNT(*) FROM d GROUP BY a": {("a", "group")},
    "SELECT a + b, COUNT(*) FROM d GROUP BY 1": {("a", "group"), ("b", "group")},
    "SELECT CASE WHEN b > 3 THEN 'x' ELSE 'y' END, COUNT(*) FROM d GROUP BY 1": {("b", "group")},
    "SELECT COUNT(*) FROM d": {("*", "aggregate")},
    "SELECT COUNT(DISTINCT id) FROM d": {("*", "aggregate")},
    "SELECT COUNT(*) FROM d WHERE a > 3": {("a", "filter")},
    "SELECT COUNT(*) FROM d WHERE a > 3 AND (b = 2 OR NOT c IS NULL)": {
        ("a", "filter"),
        ("b", "filter"),
        ("c", "filter"),
    },
    "SELECT SUM(b), AVG(c), STDDEV(s), COUNT(f) FROM d": {(c, "aggregate") for c in "bcsf"},
    "SELECT MIN(b), MAX(c) FROM d": {("b", "extremes"), ("c", "extremes")},
    "SELECT a FROM d": {("a", "rows")},
    "SELECT a + b FROM d WHERE c = 1 ORDER BY s": {("a", "rows"), ("b", "rows"), ("s", "rows"), ("c", "filter")},
    # the union of places
    "SELECT SUM(CASE WHEN a > 3 THEN b END) FROM d": {("a", "filter"), ("b", "aggregate")},
    "SELECT SUM(b) FILTER (WHERE a > 3) FROM d": {("a", "filter"), ("b", "aggregate")},
    "SELECT COUNT(*) FILTER (WHERE a = 1) FROM d": {("a", "filter")},
    "SELECT COUNT(CASE WHEN a = 1 THEN 1 END) FROM d": {("a", "filter")},
    "SELECT SUM(CAST(a = 7 AS INTEGER)) FROM d": {("a", "filter")},
    "SELECT SUM(NULLIF(b, 7)) FROM d": {("b", "aggregate"), ("b", "filter")},
    "SELECT SUM(COALESCE(b, c)) FROM d": {("b", "aggregate"), ("c", "aggregate")},
    "SELECT SUM(CASE b WHEN 1 THEN c END) FROM d": {("b", "filter"), ("c", "aggregate")},
    "SELECT MAX(CASE WHEN a > 3 THEN b ELSE c END) FROM d": {("a", "filter"), ("b", "extremes"), ("c", "extremes")},
    "SELECT MIN(-b) FROM d": {("b", "extremes")},
    "SELECT MAX(-ABS(b - 7)) FROM d": {("b", "extremes"), ("b", "filter")},
    "SELECT MAX(LEAST(b, c)) FROM d": {(c, a) for c in "bc" for a in ("extremes", "group")},
    # constants, sums and products of two leave a column as it is
    "SELECT SUM(2 * b - c / 4 + 3), AVG(-b * 1e9), COUNT(b + c) FROM d": {("b", "aggregate"), ("c", "aggregate")},
    "SELECT SUM(b * c), SUM((b + 1) * (c - 2)), SUM(b * b) FROM d": {("b", "aggregate"), ("c", "aggregate")},
    "SELECT STDDEV(2 * b + 7), VAR_POP(f), SUM(CAST(b AS DOUBLE) * f) FROM d": {("b", "aggregate"), ("f", "aggregate")},
    "SELECT SUM(CASE WHEN a > 3 THEN b WHEN s = 1 THEN 2 * c ELSE 0 END) FROM d": {
        ("a", "filter"),
        ("s", "filter"),
        ("b", "aggregate"),
        ("c", "aggregate"),
    },
    "SELECT SUM(COALESCE(b, 0)), AVG(COALESCE(c, 7)) FROM d": {("b", "aggregate"), ("c", "aggregate")},
    "SELECT SUM(b * CAST(a = 1 AS INTEGER)) FROM d": {("a", "filter"), ("b", "aggregate")},
    # whatever can select or bend it needs more
    **{f"SELECT SUM({bent}) FROM d": {("b", "aggregate"), ("b", "filter")} for bent in BENT},
    "SELECT SUM(GREATEST(b, c)) FROM d": {(c, a) for c in "bc" for a in ("aggregate", "group")},
    "SELECT SUM(b * c * s) FROM d": {(c, a) for c in "bcs" for a in ("aggregate", "filter")},
    "SELECT SUM(b * ABS(a)) FROM d": {("a", "aggregate"), ("a", "filter"), ("b", "aggregate")},
    "SELECT MIN(b) FILTER (WHERE a > 3) FROM d": {("a", "filter"), ("b", "extremes")},
    "SELECT a, SUM(a) FROM d WHERE a > 1 GROUP BY a": {("a", "group"), ("a", "aggregate")},
    "SELECT a, SUM(b) FROM d GROUP BY a HAVING MAX(c) > 1 ORDER BY AVG(s)": {
        ("a", "group"),
        ("b", "aggregate"),
        ("c", "extremes"),
        ("s", "aggregate"),
    },
    # private columns compared with each other are keys of one another; open ones are like constants
    "SELECT COUNT(*) FROM d WHERE a > b": {("a", "group"), ("b", "group")},
    "SELECT COUNT(*) FROM d WHERE a + b > 3": {("a", "group"), ("b", "group")},
    "SELECT SUM(CASE WHEN a = b THEN c END) FROM d": {("a", "group"), ("b", "group"), ("c", "aggregate")},
    "SELECT COUNT(*) FROM d WHERE a > pub": {("a", "filter")},
    "SELECT pub, SUM(pub) FROM d GROUP BY pub": {("*", "aggregate")},
    "SELECT COUNT(*) FROM d WHERE a IN (SELECT a FROM w WHERE x > 1)": {("a", "filter")},
    # joins
    "SELECT COUNT(*) FROM d JOIN w ON d.a = w.a": {("a", "filter")},
    "SELECT SUM(w.x) FROM d JOIN w ON d.a = w.a AND d.b > 3": {("a", "group"), ("b", "filter")},
    "SELECT SUM(d.c * w.x) FROM d JOIN w ON d.a = w.a": {("a", "group"), ("c", "aggregate")},
    "SELECT SUM(d.c) FILTER (WHERE w.x > 1) FROM d JOIN w ON d.a = w.a": {("a", "group"), ("c", "aggregate")},
    "SELECT SUM(d.c) FILTER (WHERE w.x = d.b) FROM d LEFT JOIN w ON d.a > w.a": {
        ("a", "group"),
        ("b", "group"),
        ("c", "aggregate"),
    },
    "SELECT COUNT(*) FROM d JOIN w ON TRUE": {("*", "aggregate")},
    "SELECT w.x, COUNT(*) FROM d JOIN w ON d.a = w.a GROUP BY 1": {("a", "group")},
    "SELECT w.x, COUNT(*) FROM d JOIN w ON d.a > w.a AND d.b = 1 GROUP BY 1": {("a", "group"), ("b", "filter")},
    "SELECT w.x, COUNT(*) FROM d JOIN w ON TRUE WHERE d.a = w.y GROUP BY 1": {("a", "group")},
    # an open table must not say by another name what a private column holds
    "SELECT MAX(w.x) FROM d JOIN w ON d.a = w.a WHERE d.b = 1": {("a", "extremes"), ("a", "filter"), ("b", "filter")},
    "SELECT d.b, w.x FROM d JOIN w ON d.a = w.a WHERE d.c = 1": {("a", "rows"), ("b", "rows"), ("c", "filter")},
    "SELECT d.b FROM d JOIN w ON d.a = w.a": {("a", "filter"), ("b", "rows")},
    "SELECT w.x, SUM(CASE WHEN d.b = w.x THEN 1 END) FROM d JOIN w ON d.a = w.a GROUP BY 1": {
        ("a", "group"),
        ("b", "group"),
    },
    "SELECT v.x, COUNT(*) FROM d JOIN w ON d.a = w.a JOIN w v ON v.a = w.x GROUP BY 1": {("a", "group")},
}


@pytest.mark.parametrize("question", NEEDS)
def test_a_need_follows_from_the_place(question: str) -> None:
    plan = compile_sql(question, DATASETS, PartyId("bts"))
    for party in ("delta", "united"):
        needs = [need for demand in review(plan, PartyId(party), DATASETS).demands for need in demand.needs]
        assert {(n.column, n.allow) for n in needs} == NEEDS[question]
        assert all(need.clause and need.party == party for need in needs)


@pytest.mark.parametrize(
    "question",
    [
        "SELECT MAX(w.x) FILTER (WHERE d.a = w.a) FROM d JOIN w ON TRUE",
        "SELECT w.x, SUM(d.b) FILTER (WHERE d.a = w.a) FROM d JOIN w ON TRUE GROUP BY w.x",
        "SELECT w.x, SUM(d.b) FROM d LEFT JOIN w ON d.a > 3 GROUP BY w.x",
        "SELECT SUM(d.b * w.x) FROM d JOIN w ON w.y > 3",
    ],
)
def test_rows_that_pair_with_every_private_row_tell_nothing(question: str) -> None:
    with pytest.raises(UnsupportedSQL, match=r"ON TRUE and uses its '[xy]': join it"):
        compile_sql(question, DATASETS, PartyId("bts"))


@pytest.mark.parametrize(
    "measure",
    [
        'CASE WHEN "t0"."a" = 1 THEN "t0"."b" ELSE 50000 END',
        'COALESCE(NULLIF("t0"."b", 7), 50000)',
        '"t0"."b" * CAST("t0"."a" = 1 AS INT)',
        '"t0"."t"',
        'CAST("t0"."b" AS INT128) * CAST(9223372036854775807 AS INT128)',
        'CAST("t0"."b" AS INT128) * LENGTH("t0"."t")',
    ],
)
def test_no_rule_lets_a_crafted_sum_choose_between_values_or_overflow(measure: str) -> None:
    plan = compile_sql("SELECT SUM(b) FROM d", DATASETS, PartyId("bts"))
    query = next(s for s in plan.steps if isinstance(s, Query) and s.party == "delta")
    sql = query.sql.replace('SUM("t0"."b")', f"SUM({measure})")
    assert sql != query.sql
    table = Table(tuple(c.name for c in DATASETS[0].columns), DATASETS[0])
    with pytest.raises(PeerFault, match=r"a choice is a FILTER|holds no numbers|29 digits"):
        fragment.read(msgspec.structs.replace(query, sql=sql), {"d": table})


def test_clauses_of_needs_are_told_as_a_person_would_write_them() -> None:
    question = "SELECT w.x, AVG(b) FROM d JOIN w ON d.a = w.a WHERE d.c BETWEEN 1 AND 3 GROUP BY 1"
    (demand,) = review(compile_sql(question, DATASETS, PartyId("bts")), PartyId("delta"), DATASETS).demands
    told = {need.clause for need in demand.needs}
    assert told == {"COUNT(b)", "SUM(b)", "WHERE c BETWEEN 1 AND 3", "ON d.a = w.a"}


def rows_query(sql: str, columns: tuple[str, ...] = ("c0",)) -> Query:
    return Query(
        StepId("q"),
        PartyId("delta"),
        sql,
        (Read("d", DatasetName("d"), DATASETS[0].version),),
        columns=columns,
        column_types=("BIGINT",) * len(columns),
    )


def read(sql: str) -> fragment.Reading:
    table = Table(tuple(c.name for c in DATASETS[0].columns), DATASETS[0])
    return fragment.read(rows_query(sql), {"d": table})


@pytest.mark.parametrize(
    "sql",
    [
        'SELECT "a"."c0" AS "c0" FROM (SELECT MAX(a) FROM "d" AS d) AS "a"("c0")',
        'SELECT DISTINCT "t0"."a" AS "c0" FROM "d" AS "t0"',
        'SELECT COUNT(*) AS "c0" FROM "d" AS "t0"',
        'SELECT "t0"."a" AS "c0" FROM "d" AS "t0" GROUP BY "t0"."a" HAVING MAX("t0"."b") > 1',
    ],
)
def test_rows_of_any_other_shape_need_every_column_row_by_row(sql: str) -> None:
    assert {(n.column, n.allow) for n in read(sql).needs} == {(c.name, "rows") for c in DATASETS[0].columns}


def test_rows_without_a_column_still_tell_how_many_there_are() -> None:
    assert {(n.column, n.allow) for n in read('SELECT 1 AS "c0" FROM "d" AS "t0"').needs} == {("*", "rows")}


@pytest.mark.parametrize(
    "sql",
    [
        'SELECT "t0"."a" AS "c0" FROM "d" AS "t0" ORDER BY "t0"."b"',
        'SELECT "t0"."a" AS "c0" FROM "d" AS "t0" ORDER BY 2',
        'SELECT "t0"."a" AS "c0" FROM "d" AS "t0" LIMIT 1 + 1',
        'SELECT "a" AS "c0" FROM "d" AS "t0"',
        'SELECT "t0"."a" AS "c0" FROM "d" AS "t0" INNER JOIN "d" AS "t0" ON TRUE',
        'SELECT "t0"."a" AS "c0" FROM "x" AS "t0"',
        'SELECT "t0"."a" AS "c0" FROM main."d" AS "t0"',
        'WITH "d" AS (SELECT 1 AS a) SELECT DISTINCT "t0"."a" AS "c0" FROM "d" AS "t0"',
        'SELECT "t0"."a" AS "c0" FROM "d" AS "t0" WHERE FSUM("t0"."a") > 1',
        "SELECT 1; SELECT 2",
        "DROP TABLE d",
        "",
    ],
)
def test_a_malformed_fragment_of_rows_is_a_peer_fault(sql: str) -> None:
    with pytest.raises(PeerFault):
        read(sql)


@pytest.mark.parametrize("pattern", ["LIKE t ESCAPE '!'", "LIKE 'a!' ESCAPE '!'", "LIKE 'a' ESCAPE '!!'"])
def test_a_pattern_that_a_row_could_make_fail_is_no_pattern(pattern: str) -> None:
    with pytest.raises(UnsupportedSQL, match="ESCAPE needs a pattern"):
        expressions.check(expressions.parse(f"SELECT COUNT(*) FROM d WHERE t {pattern}"))
    expressions.check(expressions.parse("SELECT COUNT(*) FROM d WHERE t LIKE 'a!%!!' ESCAPE '!'"))


@pytest.mark.parametrize("text", ["a = (b = c)", "(a IN (1)) = b", "a || (b + c)", "-(a ** 2)"])
def test_parentheses_make_what_could_be_read_in_two_ways_plain(text: str) -> None:
    tree = expressions.parse(f"SELECT {text} FROM t")
    expressions.check(tree)
    bare = text.replace("(b = c)", "b = c").replace("(a IN (1))", "a IN (1)").replace("(b + c)", "b + c")
    with pytest.raises(UnsupportedSQL, match="two ways"):
        expressions.check(expressions.parse(f"SELECT {bare.replace('-(a ** 2)', '-a ** 2')} FROM t"))


# ── disclosures ─────────────────────────────────────────────────────────────────────────────────────


def learnt(question: str, asker: str = "bts") -> set[tuple[str, str, tuple[str, ...]]]:
    found = disclosures(compile_sql(question, DATASETS, PartyId(asker)), DATASETS)
    return {(d.recipient, d.form, d.columns) for d in found}


def test_a_grouped_question_tells_the_asker_groups_and_sums_and_owners_which_groups_they_share() -> None:
    owners = ("delta", "jetblue", "united")
    assert learnt("SELECT a, SUM(b) FROM d GROUP BY a") == {
        ("bts", "groups", ("a",)),
        ("bts", "masked", ("b",)),
        *((party, "matched", ("a",)) for party in owners),
        *((party, "shared", ()) for party in owners),
    }


def test_two_parties_need_no_shares_and_the_sums_are_the_others_own() -> None:
    two = [d for d in DATASETS if d.party in ("delta", "united")]
    plan = compile_sql("SELECT a, SUM(b), MIN(c) FROM d GROUP BY a", two, PartyId("united"))
    found = disclosures(plan)
    assert {(d.recipient, d.form, d.sources) for d in found} == {("united", "groups", ("delta",))}


def test_minima_are_told_of_each_owner_alone() -> None:
    found = disclosures(compile_sql("SELECT MIN(b) FROM d", DATASETS, PartyId("bts")))
    minima = [d for d in found if d.what.startswith("MIN")]
    assert {d.sources for d in minima} == {("delta",), ("jetblue",), ("united",)}
    assert all(d.form == "groups" and "alone" in d.what for d in minima)


def test_open_rows_are_called_open_and_others_rows() -> None:
    assert learnt("SELECT * FROM w", "delta") == {("delta", "open", ("c0", "c1", "c2"))}
    assert ("bts", "rows", ("a",)) in learnt("SELECT a FROM d")
    assert ("delta", "open", ("a", "x")) in learnt("SELECT x, COUNT(*) FROM d JOIN w USING (a) GROUP BY x")


def test_an_asker_of_its_own_rows_tells_nobody_anything() -> None:
    plan = compile_sql("SELECT a FROM delta.d", DATASETS, PartyId("delta"))
    assert disclosures(plan) == ()
    assert "nobody learns anything" in str(explain(plan, DATASETS))


def test_everybody_derives_the_same_digest_from_the_plan_alone() -> None:
    plan = compile_sql("SELECT x, COUNT(*) FROM d JOIN w USING (a) GROUP BY x", DATASETS, PartyId("bts"))
    assert digest_of(disclosures(plan)) == digest_of(disclosures(plan))
    other = Disclosure(PartyId("bts"), (), "less", "open", StepId("q"))
    assert digest_of(disclosures(plan)) != digest_of((*disclosures(plan)[1:], other))


def test_an_explanation_names_who_does_who_learns_and_what_is_needed() -> None:
    text = str(explain(compile_sql("SELECT a, AVG(b) FROM d GROUP BY a", DATASETS, PartyId("bts")), DATASETS))
    for part in (
        "Who does what",
        "Who learns what",
        "What owners must permit",
        "10 units",
        "SUM(b)",
        "masked",
        "group",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) < 200
