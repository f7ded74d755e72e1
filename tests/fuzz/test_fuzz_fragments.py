# SPDX-License-Identifier: Apache-2.0
"""What DuckDB's binder reads for a fragment is what the reviewer judged; `differential.py` runs the same for hours."""

import pytest
from differential import block
from fuzz_fragments import Binder, Made, bare_query, check, reading_of
from sqlglot import exp

from junto.plan import scopes
from junto.plan.fragment import _Reader
from junto.plan.steps import Measure


def test_the_engine_reads_no_column_of_a_random_fragment_that_nobody_judged() -> None:
    counts, differing = block(1, 120)
    assert differing == []
    assert counts["accepted"] > 15
    assert counts["bound"] > 10


def test_a_reviewer_that_takes_distinct_units_for_counted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sql = 'SELECT COUNT(DISTINCT "t0"."id") AS "units", MAX(DISTINCT "t0"."id") AS "m0" FROM "people" AS "t0"'
    made = Made(bare_query(sql, (), (), (Measure("m0", "max", "value", "BIGINT"),)))
    assert reading_of(made) is None
    measure = _Reader._measure

    def believing(reader: _Reader, output: exp.Expr, label: object) -> None:
        for distinct in output.find_all(exp.Distinct):
            reader._unit_column(distinct)
            return
        measure(reader, output, label)  # type: ignore[arg-type]  # handed through

    monkeypatch.setattr(_Reader, "_measure", believing)
    reading = reading_of(made)
    assert reading is not None
    assert "no need" in check(made, reading, Binder())


def test_a_reviewer_that_tells_aliases_apart_by_case_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = 'COUNT(*) FILTER(WHERE 1 IN (SELECT "T0"."phone" FROM "list" AS "T0"))'
    sql = f'SELECT COUNT(DISTINCT "t0"."id") AS "units", {listed} AS "m0" FROM "people" AS "t0"'
    made = Made(bare_query(sql, (), (), (Measure("m0", "sum", "count", "BIGINT"),)))
    assert reading_of(made) is None
    monkeypatch.setattr(scopes, "distinct", lambda names: len({*names}) == len([*names]))
    reading = reading_of(made)
    assert reading is not None
    assert "phone" in check(made, reading, Binder(lacking=[("list", "phone")]))
