# SPDX-License-Identifier: Apache-2.0
"""A plan has one budget, looked at before its SQL is: whatever it is made of, reading it costs a bounded amount."""

import contextlib

import msgspec
import pytest
import sqlglot
from sqlglot import exp

from junto.errors import InvalidInput, JuntoError, PeerFault
from junto.plan import budget, expressions, texts
from junto.plan.disclosure import disclosures
from junto.plan.review import check, review
from junto.plan.steps import Plan, Query, Read, Release
from junto.plan.texts import Texts
from junto.types import DatasetName, Digest, PartyId, StepId

HUB, NORTH = PartyId("hub"), PartyId("north")


def _plan(*texts: str, names: int = 1) -> Plan:
    """A plan by hand: a fragment of rows for each text, and a release."""
    columns = tuple(f"c{i:06}" for i in range(names))
    read = Read("t", DatasetName("t"), Digest("sha256:" + "0" * 64), columns=columns)
    queries = [
        Query(StepId(f"q{i}"), NORTH, text, (read,), columns=("x",), column_types=("BIGINT",))
        for i, text in enumerate(texts)
    ]
    sql = 'SELECT "x" AS "x" FROM "released"'
    release = Release(StepId("release"), HUB, sql, columns=("x",), column_types=("BIGINT",))
    return Plan("a question", HUB, (*queries, release))


def _wide(nodes: int) -> str:
    return "SELECT " + ", ".join(f'"t0"."x" AS "x{i}"' for i in range(nodes)) + ' FROM "t" AS "t0"'


@pytest.mark.parametrize(
    ("plan", "limit"),
    [
        (_plan(*(f"SELECT {i}" for i in range(budget.PLAN_STEPS))), "513 steps; at most 512"),
        (_plan(*(f"SELECT {i}, '{'y' * 60_000}'" for i in range(4))), "at most 200,000 are read"),
        (_plan("SELECT 1", names=budget.PLAN_NAMES), "at most 50,000 are read"),
        (msgspec.structs.replace(_plan("SELECT 1"), question="y" * 100_001), "at most 100,000 are kept"),
    ],
    ids=["steps", "characters", "names", "question"],
)
def test_what_is_past_the_budget_is_refused_before_its_sql_is_read(
    monkeypatch: pytest.MonkeyPatch, plan: Plan, limit: str
) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("SQL was read")

    monkeypatch.setattr(sqlglot, "parse", read)
    for look in (check, lambda plan: review(plan, NORTH, [])):
        with pytest.raises(InvalidInput, match=limit) as refused:
            look(plan)
        assert "ask in several smaller questions" in str(refused.value)


def test_texts_that_are_each_small_enough_share_one_allowance_of_syntax() -> None:
    read = Texts()
    for i in range(9):
        read.tree(_wide(texts.PLAN_NODES // 50) + f" LIMIT {i}")
    with pytest.raises(InvalidInput, match="20,000 names, values and operators in all: ask in several"):
        read.tree(_wide(texts.PLAN_NODES // 5))


def test_a_text_of_many_owners_counts_and_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    parse = expressions.parse

    def counted(text: str) -> exp.Select:
        parsed.append(text)
        return parse(text)

    monkeypatch.setattr(expressions, "parse", counted)
    assert budget.sql_characters(_plan(*[_wide(2_000)] * 100)) < budget.PLAN_CHARACTERS
    read = Texts()
    plan = _plan(*[_wide(3)] * 10)
    for look in (lambda: check(plan, read), lambda: review(plan, NORTH, [], read), lambda: disclosures(plan, (), read)):
        with contextlib.suppress(JuntoError):
            look()
    assert len(parsed) == len(set(parsed))


def test_steps_that_do_not_fit_together_are_refused_before_their_sql_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("SQL was read")

    monkeypatch.setattr(sqlglot, "parse", read)
    plan = _plan(_wide(3))
    with pytest.raises(PeerFault):
        check(msgspec.structs.replace(plan, steps=plan.steps[:-1]))
