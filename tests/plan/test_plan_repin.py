# SPDX-License-Identifier: Apache-2.0
"""A plan is asked again over datasets as they are now, or refused with what has changed."""

from collections.abc import Sequence

import msgspec
import pyarrow as pa
import pytest

from junto.catalog.dataset import Column, Dataset, version_of
from junto.errors import InvalidInput
from junto.frontends.sql import compile_sql
from junto.plan.repin import Basis, basis_of, repin
from junto.plan.review import review
from junto.plan.steps import Plan, Query
from junto.testing.plans import published
from junto.trust.rules import Rule
from junto.types import DatasetName, PartyId

BTS, DELTA, UNITED = PartyId("bts"), PartyId("delta"), PartyId("united")
FLIGHTS = DatasetName("flights")
RULES = (
    Rule(("origin",), "group"),
    Rule(("delay",), "aggregate"),
    Rule(("delay",), "filter"),
)
OPEN = (Rule(("*",), "open"),)
GROUPED = "SELECT origin, SUM(delay) AS d FROM flights GROUP BY origin"


def _rows(first: int, **more: object) -> pa.Table:
    table = pa.table(
        {"id": list(range(first, first + 60)), "origin": ["EWR", "JFK", "LGA"] * 20, "delay": [first] * 60}
    )
    for name, value in more.items():
        table = table.append_column(name, pa.array([value] * 60))
    return table


def _flights(
    party: PartyId, first: int = 0, unit: str | None = "id", rules: Sequence[Rule] = RULES, **more: object
) -> Dataset:
    return published(party, FLIGHTS, _rows(first, **more), rules, unit, unit_unique=True)


BEFORE = (_flights(DELTA), _flights(UNITED, 100))
AFTER = (_flights(DELTA, 1000), _flights(UNITED, 2000))


def _compiled(question: str = GROUPED, datasets: Sequence[Dataset] = BEFORE) -> tuple[Plan, tuple[Basis, ...]]:
    plan = compile_sql(question, datasets, BTS)
    return plan, basis_of(plan, datasets)


@pytest.mark.parametrize(
    "question",
    [
        GROUPED,
        "SELECT AVG(delay) AS a, COUNT(*) AS n FROM flights WHERE delay > 3",
        "SELECT origin, SUM(delay) AS d FROM delta.flights GROUP BY origin",
    ],
)
def test_a_repinned_plan_is_what_compiling_again_gives(question: str) -> None:
    plan, basis = _compiled(question)
    again = repin(plan, basis, AFTER)
    assert again == compile_sql(question, AFTER, BTS)
    assert again != plan
    for party in again.parties:
        review(again, party, AFTER)


def test_over_unchanged_datasets_the_plan_is_the_same() -> None:
    plan, basis = _compiled()
    assert repin(plan, basis, BEFORE) == plan


def test_columns_that_are_not_read_may_come_and_go() -> None:
    plan, basis = _compiled()
    after = (_flights(DELTA, 1000, carrier="DL"), _flights(UNITED, 2000))
    assert repin(plan, basis, after) != plan


def _with_type(dataset: Dataset, column: str, type: str) -> Dataset:
    columns = tuple(Column(c.name, type if c.name == column else c.type) for c in dataset.columns)
    version = version_of(columns, dataset.unit, dataset.content, dataset.rules)
    return msgspec.structs.replace(dataset, columns=columns, version=version)


def _without(dataset: Dataset, column: str) -> Dataset:
    columns = tuple(c for c in dataset.columns if c.name != column)
    rules = tuple(rule for rule in dataset.rules if column not in rule.columns)
    version = version_of(columns, dataset.unit, dataset.content, rules)
    return msgspec.structs.replace(dataset, columns=columns, rules=rules, version=version)


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (AFTER[:1], "flights of united is no longer published"),
        ((_without(AFTER[0], "delay"), AFTER[1]), "flights of delta no longer has the column delay"),
        (
            (AFTER[0], _with_type(AFTER[1], "delay", "DOUBLE")),
            "delay of flights of united is DOUBLE now; it was BIGINT",
        ),
        ((_flights(DELTA, 5, None), AFTER[1]), "flights of delta has the unit each row; it was id"),
        ((*AFTER, _flights(BTS, 3000)), "bts publishes flights now, too, and is not asked"),
    ],
)
def test_what_no_longer_fits_is_named(after: Sequence[Dataset], says: str) -> None:
    plan, basis = _compiled()
    with pytest.raises(InvalidInput, match=says) as refusal:
        repin(plan, basis, after)
    assert "\n" not in str(refusal.value)


def test_a_dataset_named_with_its_party_may_become_a_joint_table() -> None:
    question = "SELECT origin, SUM(delay) AS d FROM delta.flights GROUP BY origin"
    plan, basis = _compiled(question, BEFORE[:1])
    assert [one.joint for one in basis] == [False]
    assert repin(plan, basis, AFTER) == compile_sql(question, AFTER, BTS)


def test_units_that_stop_being_unique_are_counted_otherwise_so_the_plan_no_longer_fits() -> None:
    plan, basis = _compiled()
    repeated = msgspec.structs.replace(AFTER[0], unit_unique=False)
    with pytest.raises(InvalidInput, match="the question no longer fits them: step query-delta"):
        repin(plan, basis, (repeated, AFTER[1]))


def test_a_star_over_an_open_table_no_longer_fits_when_a_column_is_added() -> None:
    question = "SELECT * FROM (SELECT * FROM airports)"
    table = pa.table({"faa": ["EWR"], "city": ["Newark"]})
    before = (published("bts", "airports", table, OPEN),)
    after = (published("bts", "airports", table.append_column("state", pa.array(["NJ"])), OPEN),)
    plan = compile_sql(question, before, DELTA)
    answer = repin(plan, basis_of(plan, before), before)
    assert answer == plan
    with pytest.raises(InvalidInput, match="no longer fits them: step query: it says it reads"):
        repin(plan, basis_of(plan, before), after)


def test_a_basis_is_of_the_versions_the_plan_names() -> None:
    plan = compile_sql(GROUPED, BEFORE, BTS)
    with pytest.raises(InvalidInput, match="ask again"):
        basis_of(plan, AFTER)
    found = basis_of(plan, BEFORE)
    assert [(one.party, one.joint, [c.name for c in one.columns]) for one in found] == [
        (DELTA, True, ["origin", "delay"]),
        (UNITED, True, ["origin", "delay"]),
    ]


def test_a_question_that_is_not_sql_stands_for_all_owners() -> None:
    plan = compile_sql(GROUPED, BEFORE, BTS)
    other = msgspec.structs.replace(plan, question="map and reduce")
    assert all(one.joint for one in basis_of(other, BEFORE))


def test_several_reads_of_a_dataset_are_one_basis() -> None:
    plan = compile_sql(GROUPED, BEFORE, BTS)
    query = next(step for step in plan.steps if isinstance(step, Query))
    more = msgspec.structs.replace(
        query, reads=(*query.reads, msgspec.structs.replace(query.reads[0], name="again", columns=("id",)))
    )
    steps = tuple(more if step is query else step for step in plan.steps)
    found = basis_of(msgspec.structs.replace(plan, steps=steps), BEFORE)
    assert [c.name for one in found if one.party == query.party for c in one.columns] == ["id", "origin", "delay"]
