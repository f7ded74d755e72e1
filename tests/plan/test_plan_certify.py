# SPDX-License-Identifier: Apache-2.0
"""Several parties compute what everybody may see, each for itself; of anything private no digest is ever told."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from junto.catalog.dataset import Dataset
from junto.errors import InvalidInput, PeerFault, Refused
from junto.frontends.sql import compile_sql
from junto.plan.certify import (
    certified,
    certifiers,
    check_determined,
    in_order,
    involved,
    one_thread,
    signers,
    uncertified,
)
from junto.plan.disclosure import disclosures
from junto.plan.explain import explain
from junto.plan.placement import alternatives
from junto.plan.review import check, review
from junto.plan.steps import Move, Plan, Query, Read, Release, decode, encode
from junto.plan.without import without
from junto.testing.plans import published, run_plan
from junto.trust.rules import Rule
from junto.types import DatasetName, PartyId, StepId

BTS, DELTA, FAA, NOAA, UNITED = (PartyId(p) for p in ("bts", "delta", "faa", "noaa", "united"))
OPEN = (Rule(("*",), "open"),)
PRIVATE = (Rule(("*",), "group"), Rule(("*",), "aggregate"))
WEATHER = pa.table({"origin": ["JFK", "JFK", "LGA"], "visib": [10.0, 2.5, 1.0]})
PLANES = pa.table({"origin": ["JFK", "LGA"], "seats": [100, 50]})
FLIGHTS = pa.table({"id": list(range(60)), "origin": ["JFK", "LGA", "EWR"] * 20})
TABLES = {
    (BTS, DatasetName("weather")): WEATHER,
    (FAA, DatasetName("weather")): WEATHER,
    (NOAA, DatasetName("weather")): WEATHER,
    (NOAA, DatasetName("planes")): PLANES,
    (DELTA, DatasetName("flights")): FLIGHTS,
    (UNITED, DatasetName("flights")): FLIGHTS,
}
DATASETS = [
    published(party, name, table, PRIVATE if name == "flights" else OPEN, "id" if name == "flights" else None)
    for (party, name), table in TABLES.items()
]
WHOLE = "SELECT origin, AVG(visib) AS v FROM weather GROUP BY origin ORDER BY ALL"
JOINED = "SELECT visib, COUNT(*) AS n FROM flights JOIN weather USING (origin) GROUP BY 1 ORDER BY 1"


def plan_of(question: str, n: int, asker: PartyId = UNITED) -> Plan:
    """The plan, certified, as everybody's review accepts it, with the answer it had before."""
    plan = compile_sql(question, DATASETS, asker)
    found = certified(plan, n, DATASETS)
    explain(found, DATASETS)
    assert decode(encode(found)) == found
    assert run_plan(found, TABLES).table == run_plan(plan, TABLES).table
    assert uncertified(found) == plan
    assert signers(found) == n
    return found


def who(plan: Plan) -> dict[str, list[str]]:
    return {step: [query.party for query in again] for step, again in certifiers(plan).items()}


def test_holders_of_the_same_table_compute_a_question_over_it_again_and_its_release() -> None:
    assert who(plan_of(WHOLE, 2)) == {"query": ["faa"], "release": ["faa"]}
    assert who(plan_of(WHOLE, 3)) == {"query": ["faa", "noaa"], "release": ["faa", "noaa"]}


def test_nothing_more_crosses_where_certifiers_hold_the_table_themselves() -> None:
    plan = plan_of(WHOLE, 3)
    assert disclosures(plan) == disclosures(uncertified(plan))
    assert [s.to for s in plan.steps if isinstance(s, Move)] == [(UNITED,)]


def joined_at(weather: tuple[PartyId, ...], planes: tuple[PartyId, ...]) -> tuple[Plan, list[Dataset]]:
    """A join at the asker of two open tables, held by two parties each, certified by two."""
    tables = {(p, DatasetName("weather")): WEATHER for p in weather} | {
        (p, DatasetName("planes")): PLANES for p in planes
    }
    datasets = [published(party, name, table, OPEN) for (party, name), table in tables.items()]
    question = f"SELECT seats, visib FROM {weather[0]}.weather JOIN {planes[0]}.planes USING (origin) ORDER BY ALL"
    plan = certified(compile_sql(question, datasets, UNITED), 2, datasets)
    explain(plan, datasets)
    assert run_plan(plan, tables).table.num_rows == 3
    return plan, datasets


def test_what_certifiers_are_given_is_disclosed() -> None:
    # bts computes the asker's join again: weather it holds, and a copy of planes goes to it as to the asker.
    plan, datasets = joined_at((BTS, FAA), (DELTA, NOAA))
    assert who(plan) == {"open-0": ["noaa"], "open-1": ["faa"], "query": ["bts"], "release": ["bts"]}
    told = {(d.recipient, d.sources, d.form) for d in disclosures(plan, datasets)}
    assert told == {(UNITED, (DELTA,), "open"), (UNITED, (BTS,), "open"), (BTS, (DELTA,), "open")}


def test_who_has_both_sides_of_a_join_is_given_nothing() -> None:
    plan, datasets = joined_at((BTS, NOAA), (NOAA, BTS))
    assert {d.recipient for d in disclosures(plan, datasets)} == {UNITED}
    assert who(plan)["query"] == ["bts"]


def test_the_open_table_of_a_joint_question_is_certified_and_the_private_rest_is_not() -> None:
    plan = plan_of(JOINED, 2)
    assert who(plan) == {"open-0": ["faa"]}
    assert {type(plan.step(id)) for id in involved(plan)} == {Query}


def test_a_plan_without_certificates_is_spelled_as_it_always_was() -> None:
    assert b"certifies" not in encode(compile_sql(WHOLE, DATASETS, UNITED))


@pytest.mark.parametrize(
    ("question", "n", "told"),
    [
        (WHOLE, 4, "certify = 4: only bts, faa, noaa can compute what is read of weather"),
        ("SELECT COUNT(*) FROM planes", 2, "certify = 2: only noaa can compute what is read of planes"),
        ("SELECT COUNT(*) FROM flights", 2, "nothing in the answer is computed of open tables alone"),
        (WHOLE, 1, "certify = 1: from 2 to 16"),
        (WHOLE, 17, "certify = 17: from 2 to 16"),
        ("SELECT visib FROM weather ORDER BY origin LIMIT 2", 2, "which rows LIMIT keeps is left open"),
        ("SELECT * FROM weather LIMIT 2", 2, "which rows LIMIT keeps is left open"),
    ],
)
def test_what_cannot_be_certified_is_told_in_one_line(question: str, n: int, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        certified(compile_sql(question, DATASETS, UNITED), n, DATASETS)


@pytest.mark.parametrize(
    ("sql", "total"),
    [
        ('SELECT "a" FROM "t" ORDER BY "a" LIMIT 3', True),
        ('SELECT "a" AS "b", "c" FROM "t" ORDER BY "b", 2 LIMIT 3', True),
        ("SELECT * FROM t ORDER BY ALL LIMIT 3", True),
        ('SELECT "a", "c" FROM "t" ORDER BY "a" LIMIT 3', False),
        ('SELECT "a" AS "b", "b" AS "a" FROM "t" ORDER BY "a" LIMIT 3', False),
        ("SELECT * FROM t ORDER BY 1 LIMIT 3", False),
        ('SELECT "a" FROM "t" ORDER BY \'1\' LIMIT 3', False),
        ('SELECT "a" FROM (SELECT "a" FROM "t" LIMIT 3) AS "s" ORDER BY "a"', False),
        ('SELECT "a" FROM "t" ORDER BY 1 OFFSET 2', True),
    ],
)
def test_a_limit_is_determined_by_an_order_of_every_output(sql: str, total: bool) -> None:
    if total:
        check_determined(sql)
        assert in_order(sql)
    else:
        with pytest.raises(InvalidInput, match="ORDER BY every output"):
            check_determined(sql)


def test_fragments_that_add_reals_run_on_one_thread_with_all_that_certifies_them() -> None:
    plan = plan_of(WHOLE, 2)
    assert all(step.id in one_thread(plan) for step in plan.steps if isinstance(step, Query))
    plain = plan_of("SELECT origin, visib + 1 AS v FROM weather WHERE visib > 1 ORDER BY ALL", 2)
    assert not any(step.id in one_thread(plain) for step in plain.steps)
    joint = plan_of(JOINED, 2)
    assert StepId("query-delta") not in one_thread(joint)


def test_what_is_certified_is_not_placed_again() -> None:
    plan = plan_of(JOINED, 2)
    assert not alternatives(plan, DATASETS)


def test_without_a_certifier_another_takes_its_place() -> None:
    plan = plan_of(WHOLE, 2)
    going_on = without(plan, (FAA,), DATASETS)
    explain(going_on, DATASETS)
    assert who(going_on) == {"query": ["noaa"], "release": ["noaa"]}
    assert who(without(plan, (BTS,), DATASETS)) == {"query": ["noaa"], "release": ["noaa"]}
    assert next(s.party for s in without(plan, (BTS,), DATASETS).steps if isinstance(s, Query)) == FAA


def test_with_too_few_left_to_certify_it_the_question_is_not_answered() -> None:
    plan = plan_of(WHOLE, 3)
    with pytest.raises(InvalidInput, match="certify = 3: only bts, noaa can compute"):
        without(plan, (FAA,), DATASETS)


def altered(plan: Plan, id: str, **changes: Any) -> Plan:
    steps = tuple(msgspec.structs.replace(s, **changes) if s.id == id else s for s in plan.steps)
    assert steps != plan.steps
    return msgspec.structs.replace(plan, steps=steps)


def query(plan: Plan, id: str) -> Query:
    step = plan.step(StepId(id))
    assert isinstance(step, Query)
    return step


HOSTILE: Mapping[str, Callable[[Plan], Plan]] = {
    "another SQL": lambda p: altered(p, "certify-0", sql=query(p, "certify-0").sql.replace("AVG", "MAX")),
    "another table": lambda p: altered(
        p,
        "certify-0",
        reads=(msgspec.structs.replace(query(p, "certify-0").reads[0], dataset=DatasetName("planes")),),
    ),
    "other columns": lambda p: altered(p, "certify-0", columns=("c1", "c0")),
    "itself": lambda p: altered(p, "certify-0", certifies=StepId("certify-0")),
    "what is not there": lambda p: altered(p, "certify-0", certifies=StepId("nothing")),
    "a move": lambda p: altered(p, "certify-0", certifies=StepId("rows-bts")),
    "what certifies": lambda p: altered(p, "certify-1", certifies=StepId("certify-0")),
    "its own computation": lambda p: altered(p, "certify-0", party=BTS),
    "a release of something else": lambda p: altered(
        p, "certify-1", sql=query(p, "certify-1").sql.replace(' AS "v"', ' + 1 AS "v"')
    ),
    "a release over fewer columns": lambda p: altered(
        p, "certify-1", reads=(Read("released", step=StepId("certify-0"), columns=("c0",)),)
    ),
    "a release over a dataset": lambda p: altered(
        p,
        "certify-1",
        reads=(msgspec.structs.replace(query(p, "certify-0").reads[0], name="released", columns=("c0", "c1")),),
    ),
    "what is then moved": lambda p: msgspec.structs.replace(
        p,
        steps=(
            *p.steps[:-1],
            Move(StepId("leak"), StepId("certify-0"), FAA, (UNITED,), query(p, "certify-0").columns),
            altered(p, "release", moves=(StepId("rows-bts"), StepId("leak"))).steps[-1],
        ),
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_plan_that_certifies_falsely_is_refused_by_everybody(name: str) -> None:
    with pytest.raises(PeerFault):
        check(HOSTILE[name](plan_of(WHOLE, 2)))


def test_groups_are_never_certified() -> None:
    plan = compile_sql("SELECT origin, COUNT(*) FROM flights GROUP BY 1", DATASETS, BTS)
    first = query(plan, "query-delta")
    again = msgspec.structs.replace(query(plan, "query-united"), id=StepId("x"), certifies=first.id)
    with pytest.raises(PeerFault, match="certifies no fragment of rows"):
        check(msgspec.structs.replace(plan, steps=(*plan.steps[:-1], again, plan.steps[-1])))


def test_an_owner_refuses_to_tell_a_digest_of_what_is_not_open() -> None:
    rows = (*PRIVATE, Rule(("*",), "rows", to=(BTS, FAA)))
    secret = {p: published(p, "weather", WEATHER, OPEN if p == FAA else rows) for p in (NOAA, FAA)}
    plan = compile_sql("SELECT origin FROM noaa.weather", list(secret.values()), BTS)
    target = query(plan, "query-noaa")
    again = msgspec.structs.replace(
        target,
        id=StepId("certify-0"),
        party=FAA,
        reads=tuple(msgspec.structs.replace(r, version=secret[FAA].version) for r in target.reads),
        certifies=target.id,
    )
    hostile = msgspec.structs.replace(plan, steps=(*plan.steps[:-1], again, plan.steps[-1]))
    check(hostile)
    review(plan, NOAA, [secret[NOAA]])
    with pytest.raises(Refused, match="weather of noaa is not open"):
        review(hostile, NOAA, [secret[NOAA]])
    review(hostile, FAA, [secret[FAA]])


def test_an_owner_refuses_a_certificate_of_what_others_compute_of_its_private_rows() -> None:
    rows = (*PRIVATE, Rule(("*",), "rows", to=(BTS,)))
    secret = published(NOAA, "weather", WEATHER, rows)
    plan = compile_sql("SELECT origin FROM noaa.weather", [secret], BTS)
    moved = next(s for s in plan.steps if isinstance(s, Move))
    source = query(plan, "query-noaa")
    release = plan.steps[-1]
    assert isinstance(release, Release)
    again = Query(
        StepId("certify-0"),
        NOAA,
        release.sql,
        (Read("released", step=source.id, columns=tuple(sorted(source.columns))),),
        columns=release.columns,
        column_types=release.column_types,
        certifies=release.id,
    )
    hostile = msgspec.structs.replace(plan, steps=(source, again, moved, release))
    check(hostile)
    with pytest.raises(Refused, match="not open"):
        review(hostile, NOAA, [secret])
