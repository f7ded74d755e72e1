# SPDX-License-Identifier: Apache-2.0
"""Each measure has the guard that its own SQL gives it, and the engine counts the units behind it without failing."""

from collections.abc import Mapping, Sequence

import duckdb
import pytest

from junto.plan.counting import engine_sql
from junto.plan.guards import Guards, guards
from junto.plan.steps import Measure, Query, Read
from junto.types import DatasetName, Digest, PartyId, StepId

TYPES = {
    "d": {"id": "BIGINT", "k": "VARCHAR", "x": "BIGINT", "y": "INTEGER", "f": "DOUBLE", "s": "VARCHAR"},
    "w": {"k": "VARCHAR", "w": "DOUBLE"},
}
ROWS, UNITS = "COUNT(*)", 'COUNT(DISTINCT "t0"."id")'


def count(operand: str = "*") -> tuple[str, Measure]:
    return f"COUNT({operand})", Measure("", "sum", "count", "BIGINT")


def exact(operand: str, condition: str = "") -> tuple[str, Measure]:
    where = f" FILTER(WHERE {condition})" if condition else ""
    return f"CAST(COALESCE(SUM({operand}){where}, 0) AS DECIMAL(38, 0))", Measure("", "sum", "integer", "DECIMAL(38,0)")


def real(operand: str) -> tuple[str, Measure]:
    return f"COALESCE(FSUM(CAST({operand} AS DOUBLE)), 0)", Measure("", "sum", "real", "DOUBLE")


def fragment(
    *measures: tuple[str, Measure],
    units: str = ROWS,
    join: str = "",
    where: str = "",
    key: str = '"t0"."k"',
) -> Query:
    labels = tuple(Measure(f"m{i}", m.combine, m.encoding, m.type, m.scale) for i, (_, m) in enumerate(measures))
    outputs = [f'{key} AS "k0"', f'{units} AS "units"', *(f'{sql} AS "m{i}"' for i, (sql, _) in enumerate(measures))]
    sql = f'SELECT {", ".join(outputs)} FROM "d" AS "t0"{join}{f" WHERE {where}" if where else ""} GROUP BY 1'
    reads = (
        Read("d", DatasetName("d"), Digest("v")),
        *((Read("w", step=StepId("open-0")),) if join else ()),
    )
    return Query(StepId("q"), PartyId("p"), sql, reads, keys=("k0",), key_types=("VARCHAR",), measures=labels)


def run(
    query: Query, rows: Sequence[tuple[object, ...]], weights: Sequence[tuple[object, ...]] = ()
) -> list[dict[str, object]]:
    with duckdb.connect(":memory:") as connection:
        connection.execute("CREATE TABLE d (id BIGINT, k VARCHAR, x BIGINT, y INTEGER, f DOUBLE, s VARCHAR)")
        connection.execute("CREATE TABLE w (k VARCHAR, w DOUBLE)")
        if rows:
            connection.executemany("INSERT INTO d VALUES (?, ?, ?, ?, ?, ?)", rows)
        if weights:
            connection.executemany("INSERT INTO w VALUES (?, ?)", weights)
        found: list[dict[str, object]] = connection.sql(engine_sql(query, TYPES)).to_arrow_table().to_pylist()
        return sorted(found, key=lambda row: (row["k0"] is None, str(row["k0"])))


def of(*measures: tuple[str, Measure], **more: str) -> Guards:
    return guards([fragment(*measures, **more)])


def test_a_sum_of_numbers_too_long_for_it_is_null_and_not_the_sum_of_the_others() -> None:
    product = '(CAST("t0"."x" AS HUGEINT) * CAST("t0"."x" AS HUGEINT))'
    rows = [(1, "a", 10**17, 1, 1.0, ""), (2, "a", 3, 1, 1.0, ""), (3, "b", 4, 1, 1.0, ""), (4, "b", None, 1, 1.0, "")]
    found = run(fragment(exact(product)), rows)
    assert [row["m0"] for row in found] == [None, 16]
    of_one = run(fragment(exact(product, '"t0"."y" = 2')), rows)
    assert [row["m0"] for row in of_one] == [0, 0]


def test_measures_of_one_aggregate_share_a_guard_and_rows_have_the_groups() -> None:
    square = '(CAST("t0"."x" AS HUGEINT) * CAST("t0"."x" AS HUGEINT))'
    found = of(count(), count('"t0"."x"'), exact('"t0"."x"'), exact(square), real('"t0"."x"'))
    assert len(found.counts) == 2
    assert found.of == {"m0": 0, "m1": 1, "m2": 1, "m3": 1, "m4": 1}
    assert found.sums == ("m2", "m3", "m4")


def test_a_filter_and_a_product_are_guards_of_their_own() -> None:
    x, y = '"t0"."x"', '"t0"."y"'
    found = of(exact(x), exact(x, f"{y} > 3"), exact(f"{x} * {y}"), exact(f"{y} * {x}"), exact(x, f"NOT {y} IS NULL"))
    assert [found.of[f"m{i}"] for i in range(5)] == [1, 2, 3, 3, 3]
    assert found.flags("m1") == (2, len(found.counts) + 1)


def test_units_behind_each_guard_are_counted_and_the_largest_share_is_found() -> None:
    x = '"t0"."x"'
    query = fragment(exact(x), exact(x, '"t0"."y" > 1'), count(x))
    rows = [(i, "a", v, i, None, None) for i, v in enumerate((5, -7, None, 100))]
    (row,) = run(query, rows)
    assert (row["units"], row["u1"], row["u2"]) == (4, 3, 1)
    assert (row["t0"], row["x0"], row["t1"], row["x1"]) == (112.0, 100.0, 100.0, 100.0)


def test_a_unit_of_several_rows_counts_once_and_brings_all_of_them() -> None:
    x = '"t0"."x"'
    query = fragment(exact(x), count(), count(x), units=UNITS)
    rows: list[tuple[object, ...]] = [
        (1, "a", 5, 0, None, None),
        (1, "a", -6, 0, None, None),
        (2, "a", 4, 0, None, None),
        (3, None, 9, 0, None, None),
    ]
    rows += [(2, "a", None, 0, None, None), (2, "a", None, 0, None, None)]
    assert guards([query]).sums == ("m0", "m1", "m2")
    first, none = run(query, rows)
    assert (first["k0"], none["k0"]) == ("a", None)
    assert (first["units"], first["u1"]) == (2, 2)
    assert (first["t0"], first["x0"]) == (15.0, 11.0)
    assert (first["t1"], first["x1"]) == (5.0, 3.0)
    assert (first["t2"], first["x2"]) == (3.0, 2.0)
    assert (none["t0"], none["x0"]) == (9.0, 9.0)


def test_counts_are_tested_for_dominance_if_a_unit_has_several_rows_at_any_owner() -> None:
    plain, several = fragment(count()), fragment(count(), units=UNITS)
    assert guards([plain]).sums == ()
    assert guards([plain, several]).sums == guards([several, plain]).sums == ("m0",)


def test_a_weight_of_nothing_or_of_any_unusual_size_contributes_nothing() -> None:
    join = ' LEFT JOIN "w" AS "t1" ON "t1"."k" = "t0"."s"'
    product = 'CAST("t0"."x" AS DOUBLE) * CAST("t1"."w" AS DOUBLE)'
    query = fragment((f"COALESCE(FSUM({product}), 0)", real("")[1]), units=UNITS, join=join)
    weights = [("one", 1.0), ("zero", 0.0), ("huge", 1e12), ("tiny", 1e-12), ("nan", float("nan"))]
    rows = [(i, "a", 10, 0, None, w) for i, w in enumerate(("one", "zero", "huge", "tiny", "nan", "none"))]
    (row,) = run(query, rows, weights)
    assert (row["units"], row["u1"], row["m0"], row["t0"], row["x0"]) == (6, 1, 10.0, 10.0, 10.0)


FAILING: Mapping[str, str] = {
    '1 // ("t0"."y" - 1) = 1': "division",
    'CAST("t0"."s" AS INT) > 0': "a cast",
    '"t0"."x" * 9223372036854775807 > 0': "an overflow",
    '"t0"."s" = 5': "a cast that is not written",
    'SQRT("t0"."x" - 100) > 1 AND LN("t0"."x" - 2) > 0': "a domain",
    "DATE '2020-01-01' + INTERVAL '1' DAY * (\"t0\".\"x\" * 1000000000) > DATE '2020-01-01'": "a date out of range",
    'CAST(\'abc\' AS INT) = "t0"."y"': "a constant that cannot be cast",
}


@pytest.mark.parametrize("condition", FAILING)
@pytest.mark.parametrize("place", ["where", "filter", "on", "key", "operand"])
def test_no_row_makes_a_fragment_fail(condition: str, place: str) -> None:
    rows = [(i, "a", v, i, 1.5, s) for i, (v, s) in enumerate(((1, "x"), (2, "7"), (-5, ""), (2**63 - 1, None)))]
    x = '"t0"."x"'
    match place:
        case "where":
            query = fragment(exact(x), where=condition)
        case "filter":
            query = fragment(exact(x, condition))
        case "on":
            query = fragment(exact(x), units=UNITS, join=f' LEFT JOIN "w" AS "t1" ON {condition}')
        case "key":
            query = fragment(exact(x), key=condition)
        case _:
            query = fragment(exact(f"CAST(({condition}) AS INT)"), units=UNITS)
    run(query, rows)


def test_an_exact_sum_never_overflows_and_a_function_gives_finite_reals() -> None:
    rows = [(i, "a", 2**63 - 1, 2**31 - 1, -1.0, None) for i in range(200)] + [(200, "a", 3, 4, 16.0, None)]
    x = 'CAST("t0"."x" AS HUGEINT)'
    query = fragment(exact(f"({x} * {x})"), real('SQRT("t0"."f")'), real('LN("t0"."f" + 1)'))
    (row,) = run(query, rows)
    assert row["m0"] is None
    assert row["m1"] == 4.0
    assert (row["u2"], row["t1"], row["x1"]) == (1, 4.0, 4.0)


def test_what_cannot_fail_stays_as_it_is_written() -> None:
    where = '"t0"."y" > 3 AND "t0"."k" IN (\'a\', \'b\') AND NOT "t0"."f" BETWEEN -1 AND 2.5 AND "t0"."s" LIKE \'a%\''
    sql = engine_sql(fragment(exact('"t0"."x"'), where=where), TYPES)
    assert "TRY" not in sql
    assert where in sql


def test_a_weight_of_any_size_decides_nothing_about_who_is_there() -> None:
    join = ' JOIN "w" AS "t1" ON "t0"."k" = "t1"."k"'
    product = '(CAST("t0"."x" AS HUGEINT) * CAST("t1"."w" AS HUGEINT))'
    question = fragment(exact(product), join=join, key="1")
    here, gone = [(1, "a", 10**10, 1, 1.0, ""), (2, "b", 5, 1, 1.0, "")], [(2, "b", 5, 1, 1.0, "")]
    weights = [("a", 1e25), ("b", 1.0)]
    found, without = run(question, here, weights), run(question, gone, weights)
    assert (found[0]["m0"], found[0]["u1"]) == (without[0]["m0"], without[0]["u1"]) == (5, 1)


@pytest.mark.parametrize("units", [ROWS, UNITS])
def test_the_rows_are_read_once_whatever_is_counted(units: str) -> None:
    measures = (count(), count('"t0"."x"'), exact('"t0"."x"'), real('"t0"."f"'), exact('"t0"."x"', '"t0"."y" = 2'))
    assert engine_sql(fragment(*measures, units=units), TYPES).count('FROM "d"') == 1
