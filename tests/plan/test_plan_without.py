# SPDX-License-Identifier: Apache-2.0
"""A plan without some owners is the plan that would have been made of what the others hold."""

import itertools
from collections.abc import Collection, Sequence

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junto.catalog.dataset import Dataset
from junto.errors import InvalidInput, PeerFault, Refused
from junto.frontends.sql import compile_sql
from junto.plan.disclosure import disclosures
from junto.plan.explain import explain
from junto.plan.review import check, review
from junto.plan.steps import MaskedSum, Move, Plan, Query, Release, Threshold, decode, encode
from junto.plan.without import without
from junto.testing.plans import published, run_plan
from junto.trust.rules import Rule, judge
from junto.types import DatasetName, PartyId, StepId

OWNERS = tuple(PartyId(p) for p in ("delta", "jetblue", "spirit", "united"))
BTS, FAA = PartyId("bts"), PartyId("faa")
RULES = (Rule(("*",), "group"), Rule(("*",), "aggregate"), Rule(("*",), "extremes"))
OPEN = (Rule(("*",), "open"),)


def flights(first: int) -> pa.Table:
    """Sixty rows, with groups above and below the threshold, NULLs and reals."""
    rows = range(first, first + 60)
    return pa.table(
        {
            "id": list(rows),
            "origin": [("JFK", "LGA", "EWR", None, "JFK")[i % 5] for i in rows],
            "month": pa.array([i % 3 + 1 for i in rows], pa.int32()),
            "delay": pa.array([None if i % 7 == 0 else i % 50 - 10 for i in rows], pa.int32()),
            "fare": [i % 11 + 0.25 for i in rows],
        }
    )


WEATHER = pa.table(
    {"origin": ["JFK", "LGA", "JFK"], "month": pa.array([1, 2, 2], pa.int32()), "visib": [10.0, 2.5, 1.0]}
)
PLANES = pa.table({"month": pa.array([1, 2], pa.int32()), "seats": [100, 50]})
TABLES = {(p, DatasetName("flights")): flights(100 * i) for i, p in enumerate(OWNERS)} | {
    (BTS, DatasetName("weather")): WEATHER,
    (FAA, DatasetName("planes")): PLANES,
}


def datasets_of(rules: dict[PartyId, tuple[Rule, ...]] | None = None) -> list[Dataset]:
    return [
        published(
            party,
            name,
            table,
            (rules or {}).get(party, RULES) if name == "flights" else OPEN,
            "id" if name == "flights" else None,
            unit_unique=True,
        )
        for (party, name), table in TABLES.items()
    ]


DATASETS = datasets_of()

QUESTIONS = (
    "SELECT COUNT(*) FROM flights",
    "SELECT origin, COUNT(*), AVG(delay) FROM flights GROUP BY origin ORDER BY 2 DESC, origin LIMIT 3",
    "SELECT origin, month, SUM(fare), STDDEV(delay), VAR_POP(fare) FROM flights GROUP BY ALL HAVING COUNT(*) > 11",
    "SELECT month, MIN(fare), MAX(delay) FROM flights WHERE delay > 0 GROUP BY month ORDER BY month",
    "SELECT origin FROM flights GROUP BY origin ORDER BY origin",
    "SELECT MIN(delay) FROM flights WHERE origin IN (SELECT origin FROM weather WHERE visib > 2)",
    "SELECT visib, COUNT(*), SUM(delay) FROM flights f JOIN weather w ON f.origin = w.origin GROUP BY 1 ORDER BY 1",
    "SELECT seats, MAX(fare), AVG(delay) FROM flights f LEFT JOIN weather w ON w.origin = f.origin"
    " JOIN planes p ON p.month = f.month GROUP BY seats ORDER BY seats",
    "SELECT best, COUNT(*) FROM flights f JOIN (SELECT origin, MAX(visib) AS best FROM weather GROUP BY origin) w"
    " ON w.origin = f.origin GROUP BY best ORDER BY best",
    "SELECT id, origin, delay FROM flights WHERE delay > 30 ORDER BY delay DESC, id LIMIT 7 OFFSET 2",
    "SELECT DISTINCT origin, month FROM flights ORDER BY origin, month",
    "SELECT f.id, w.visib FROM flights f JOIN weather w USING (origin) WHERE w.visib > 5 ORDER BY f.id, w.visib",
)


def unnamed(plan: Plan) -> bytes:
    """The plan with its steps renamed by their places."""
    names = {step.id: f"s{i}" for i, step in enumerate(plan.steps)}

    def renamed(value: object) -> object:
        match value:
            case str():
                return names.get(StepId(value), value)
            case list():
                return [renamed(item) for item in value]
            case dict():
                return {key: item if key in ("sql", "question") else renamed(item) for key, item in value.items()}
            case _:
                return value

    return msgspec.json.encode(renamed(msgspec.json.decode(encode(plan))))


def left(missing: Collection[PartyId]) -> list[Dataset]:
    return [dataset for dataset in DATASETS if dataset.party not in missing]


def accepted(plan: Plan, datasets: Sequence[Dataset] = DATASETS) -> None:
    """Everybody's review, judgement by its rules, disclosures and the explanation take the plan."""
    check(plan)
    assert decode(encode(plan)) == plan
    explain(plan, datasets)
    known = {(d.party, d.name): d for d in datasets}
    for party in plan.parties:
        for demand in review(plan, party, datasets).demands:
            rules = known[party, demand.dataset].rules
            verdict = judge(
                demand.dataset,
                rules,
                (),
                demand.needs,
                recipients=demand.recipients,
                asker=plan.asker,
                purpose="",
                now=0.0,
            )
            if verdict.allowed:
                demand.check(verdict)
    assert not {d.recipient for d in disclosures(plan)} - set(plan.parties)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("asker", [BTS, OWNERS[3]])
def test_it_is_what_would_be_compiled_of_the_datasets_left(question: str, asker: PartyId) -> None:
    whole = compile_sql(question, DATASETS, asker)
    away = [p for p in OWNERS if p != asker]
    for size in range(1, len(away) if asker == BTS else len(away) + 1):
        for missing in itertools.combinations(away, size):
            plan = without(whole, missing)
            accepted(plan)
            compiled = compile_sql(question, left(missing), asker)
            assert not set(plan.parties) & set(missing)
            if size < len(away):
                assert unnamed(plan) == unnamed(compiled)
            else:  # the asker alone: another shape, the same answer
                assert run_plan(plan, TABLES).table == run_plan(compiled, TABLES).table


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    st.sampled_from(QUESTIONS),
    st.sampled_from((BTS, *OWNERS)),
    st.sets(st.sampled_from((BTS, FAA, *OWNERS))),
    st.data(),
)
def test_any_parties_may_be_missing_one_after_the_other_or_at_once(
    question: str, asker: PartyId, missing: set[PartyId], data: st.DataObject
) -> None:
    whole = compile_sql(question, DATASETS, asker)
    order = data.draw(st.permutations(sorted(missing)))
    at_once, stepwise = attempt(whole, [tuple(missing)]), attempt(whole, [(party,) for party in order])
    assert stepwise == at_once
    if at_once is not None:
        accepted(at_once)
        run_plan(at_once, TABLES)


def attempt(plan: Plan, absences: Sequence[Collection[PartyId]]) -> Plan | None:
    """The plan after some absences, or None if it cannot be answered any more."""
    try:
        for missing in absences:
            plan = without(plan, missing)
    except InvalidInput:
        return None
    return plan


def test_with_one_contributor_left_it_decides_alone() -> None:
    whole = compile_sql(QUESTIONS[2], DATASETS, BTS)
    plan = without(whole, OWNERS[1:])
    (threshold,) = (s for s in plan.steps if isinstance(s, Threshold))
    (sums,) = (s for s in plan.steps if isinstance(s, MaskedSum))
    assert threshold.nodes == threshold.contributors == sums.contributors == (OWNERS[0],)
    assert [d.form for d in disclosures(plan)] == ["groups", "groups"]


def test_with_two_left_beside_the_receiver_three_compute() -> None:
    plan = without(compile_sql(QUESTIONS[1], DATASETS, BTS), OWNERS[2:])
    (threshold,) = (s for s in plan.steps if isinstance(s, Threshold))
    assert threshold.nodes == (*OWNERS[:2], BTS)


def test_the_receiver_alone_releases_its_own_groups_deviations_and_all() -> None:
    whole = compile_sql(QUESTIONS[2], DATASETS, OWNERS[3])
    plan = without(whole, OWNERS[:3])
    assert [type(step) for step in plan.steps] == [Query, Release]
    assert plan.parties == (OWNERS[3],)
    assert not disclosures(plan)


@pytest.mark.parametrize(
    "changes", [{"moves": (StepId("extremes-delta"),)}, {"sums": StepId("sums")}, {"deviations": ()}, {"own": None}]
)
def test_others_groups_are_never_released_as_if_they_were_the_receiver_s_alone(changes: dict[str, object]) -> None:
    whole = compile_sql("SELECT STDDEV(delay), MIN(delay) FROM flights", DATASETS, OWNERS[3])
    release = msgspec.structs.replace(whole.steps[-1], **{"threshold": None, "sums": None, "moves": (), **changes})
    kept = [s for s in whole.steps[:-1] if not isinstance(s, Threshold) or "moves" in changes or "sums" in changes]
    kept = kept if "moves" in changes or "sums" in changes else [s for s in kept if s.id == "query-united"]
    with pytest.raises(PeerFault):
        check(msgspec.structs.replace(whole, steps=(*kept, release)))


def test_a_copy_goes_only_to_those_who_are_left_and_is_not_made_for_nobody() -> None:
    whole = compile_sql(QUESTIONS[6], DATASETS, OWNERS[3])
    plan = without(whole, OWNERS[1:3])
    (copy,) = (s for s in plan.steps if isinstance(s, Move) and s.sender == BTS)
    assert copy.to == (OWNERS[0], OWNERS[3])


def test_a_stranger_s_absence_changes_nothing() -> None:
    whole = compile_sql(QUESTIONS[0], DATASETS, BTS)
    assert without(whole, (PartyId("mallory"), FAA)) is whole


@pytest.mark.parametrize(
    ("question", "missing", "told"),
    [
        (QUESTIONS[0], (FAA,), "faa asks the question and receives the answer"),
        (QUESTIONS[6], (BTS,), "the question joins weather, which bts has and nobody else"),
        (QUESTIONS[8], (BTS,), "the question joins weather, which bts has and nobody else"),
        (QUESTIONS[0], OWNERS, "nobody but delta and jetblue and spirit and united holds"),
        (QUESTIONS[9], OWNERS, "nobody but delta and jetblue and spirit and united holds"),
        ("SELECT * FROM weather", (BTS,), "nobody but bts holds"),
    ],
)
def test_what_cannot_be_answered_without_them_is_told_in_one_line(
    question: str, missing: Sequence[PartyId], told: str
) -> None:
    plan = compile_sql(question, DATASETS, FAA)
    with pytest.raises(InvalidInput, match=told):
        without(plan, missing)


def test_an_open_table_of_a_missing_party_is_read_where_the_same_is() -> None:
    datasets = [*DATASETS, published(OWNERS[1], "weather", WEATHER, OPEN), published(FAA, "weather", WEATHER, OPEN)]
    tables = {**TABLES, (OWNERS[1], DatasetName("weather")): WEATHER, (FAA, DatasetName("weather")): WEATHER}
    for question in (*QUESTIONS[5:9], QUESTIONS[11], "SELECT COUNT(*), SUM(visib) FROM bts.weather"):
        plan = compile_sql(question.replace(" weather", " bts.weather"), datasets, OWNERS[3])
        going_on = without(plan, (BTS,), datasets)
        assert BTS not in going_on.parties
        accepted(going_on, datasets)
        assert run_plan(going_on, tables).table == run_plan(plan, tables).table
        with pytest.raises(InvalidInput):
            without(plan, (BTS, FAA, OWNERS[1]), datasets)


def test_a_table_of_the_same_name_with_other_rows_is_not_read_instead() -> None:
    datasets = [*DATASETS, published(OWNERS[1], "weather", WEATHER.slice(1), OPEN)]
    plan = compile_sql(QUESTIONS[6].replace("weather w", "bts.weather w"), datasets, OWNERS[3])
    with pytest.raises(InvalidInput, match="joins weather"):
        without(plan, (BTS,), datasets)


def test_a_private_table_is_never_read_in_place_of_an_open_one() -> None:
    datasets = [*DATASETS, published(OWNERS[1], "weather", WEATHER, RULES)]
    plan = compile_sql(QUESTIONS[6].replace("weather w", "bts.weather w"), datasets, OWNERS[3])
    with pytest.raises(InvalidInput, match="joins weather"):
        without(plan, (BTS,), datasets)


def test_rules_that_ask_for_more_contributors_than_are_left_refuse_by_themselves() -> None:
    strict = (*(Rule(("*",), kind, parties=3) for kind in ("group", "aggregate")),)
    datasets = datasets_of({OWNERS[0]: strict})
    whole = compile_sql(QUESTIONS[1], datasets, BTS)
    plan = without(whole, OWNERS[2:])
    check(plan)
    demand = next(d for d in review(plan, OWNERS[0], datasets).demands if d.units is not None)
    verdict = judge(
        demand.dataset, strict, (), demand.needs, recipients=demand.recipients, asker=BTS, purpose="", now=0.0
    )
    with pytest.raises(Refused, match="of 2 parties"):
        demand.check(verdict)
    accepted(without(whole, OWNERS[:2]), datasets)  # those who ask for nothing of the kind go on
