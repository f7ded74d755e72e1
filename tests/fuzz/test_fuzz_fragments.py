# SPDX-License-Identifier: Apache-2.0
"""What DuckDB's binder reads for a fragment is what the reviewer judged; `differential.py` runs the same for hours."""

from random import Random

import pytest
from differential import block
from fuzz_fragments import Binder, Made, Maker, check, reading_of
from sqlglot import exp

from junto.plan import scopes
from junto.plan.fragment import _Reader


def test_the_engine_reads_no_column_of_a_random_fragment_that_nobody_judged() -> None:
    counts, differing = block(1, 300)
    assert differing == []
    assert counts["accepted"] > 40
    assert counts["bound"] > 30


def _made(wanted: str) -> list[Made]:
    maker = Maker(Random(3))
    found = [made for made in (maker.made() for _ in range(1500)) if made is not None]
    return [made for made in found if wanted in made.sql]


def test_a_reviewer_that_takes_distinct_units_for_counted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = _Reader._measure

    def believing(reader: _Reader, output: exp.Expr, label: object) -> None:
        for distinct in output.find_all(exp.Distinct):
            reader._unit_column(distinct)
            return
        measure(reader, output, label)  # type: ignore[arg-type]  # handed through

    monkeypatch.setattr(_Reader, "_measure", believing)
    assert any(_differs(made) for made in _made("(DISTINCT"))


def test_a_reviewer_that_tells_aliases_apart_by_case_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scopes, "distinct", lambda names: len({*names}) == len([*names]))
    sql = (
        'SELECT COUNT(*) AS "units", COUNT(*) FILTER(WHERE 1 IN (SELECT "T0"."phone" FROM "list" AS "T0")) AS "m0"'
        ' FROM "people" AS "t0"'
    )
    made = next(made for made in _made(" IN (SELECT"))
    assert Binder().bound(sql) is not None
    assert made is not None


def _differs(made: Made) -> bool:
    reading = reading_of(made)
    return reading is not None and bool(check(made, reading, Binder()))
