# SPDX-License-Identifier: Apache-2.0
"""A plan written by a hostile asker is refused by every owner whose data it would give away."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junto.errors import DataChanged, PeerFault, Refused
from junto.frontends.sql import compile_sql
from junto.plan import steps
from junto.plan.review import check, review
from junto.plan.steps import AnyStep, MaskedSum, Move, Plan, Query, Read, Release, Threshold
from junto.testing.plans import published
from junto.trust.rules import Rule, Verdict, judge
from junto.types import DatasetName, Digest, PartyId, StepId

FLIGHTS = pa.table({"id": [1], "origin": ["JFK"], "delay": [2], "fare": [1.5], "tail": ["N1"]})
RULES = (
    Rule(("origin",), "group", units=20),
    Rule(("delay", "fare"), "aggregate", parties=2),
    Rule(("fare",), "extremes"),
    Rule(("delay",), "filter"),
)
WEATHER = pa.table({"origin": ["JFK"], "visib": [10.0]})
BTS, DELTA, JETBLUE, UNITED = (PartyId(p) for p in ("bts", "delta", "jetblue", "united"))
DATASETS = [
    *(published(p, "flights", FLIGHTS, RULES, "id") for p in (DELTA, JETBLUE, UNITED)),
    published(BTS, "weather", WEATHER, (Rule(("*",), "open"),)),
]
GROUPED = (
    "SELECT w.visib, AVG(delay), STDDEV(delay), SUM(fare), MIN(fare), COUNT(*) FROM flights f JOIN weather w"
    " ON f.origin = w.origin WHERE delay > 3 GROUP BY w.visib"
)
ROWS = "SELECT origin, delay FROM flights WHERE delay > 3"


@cache
def plan_of(question: str, asker: PartyId = BTS) -> Plan:
    return compile_sql(question, DATASETS, asker)


def reviewed_by_all(plan: Plan) -> None:
    for party in plan.parties:
        review(plan, party, DATASETS)


def with_step(plan: Plan, id: str, /, **changes: Any) -> Plan:
    """The plan with one step changed."""
    assert any(step.id == id for step in plan.steps)
    changed = tuple(msgspec.structs.replace(s, **changes) if s.id == id else s for s in plan.steps)
    return msgspec.structs.replace(plan, steps=changed)


def with_steps(plan: Plan, *new: AnyStep, changes: Mapping[str, Any] | None = None) -> Plan:
    """The plan with steps added before its release, and the release changed."""
    *before, last = plan.steps
    return msgspec.structs.replace(plan, steps=(*before, *new, msgspec.structs.replace(last, **(changes or {}))))


def query(plan: Plan, id: str) -> Query:
    step = plan.step(StepId(id))
    assert isinstance(step, Query)
    return step


def release(plan: Plan) -> Release:
    step = plan.steps[-1]
    assert isinstance(step, Release)
    return step


def sums(plan: Plan) -> MaskedSum:
    step = plan.step(StepId("sums"))
    assert isinstance(step, MaskedSum)
    return step


def with_sql(plan: Plan, old: str, new: str, parties: tuple[str, ...] = (DELTA, JETBLUE, UNITED)) -> Plan:
    """The plan with a piece of every owner's fragment exchanged."""
    for party in parties:
        sql = query(plan, f"query-{party}").sql
        assert old in sql
        plan = with_step(plan, f"query-{party}", sql=sql.replace(old, new))
    return plan


STRUCTURE: Mapping[str, Callable[[Plan], Plan]] = {
    "no threshold at all": lambda p: with_step(p, "threshold", units=0),
    "a threshold below the least": lambda p: with_step(p, "threshold", units=4),
    "an absurd threshold": lambda p: with_step(p, "threshold", units=10**6),
    "no contributor asked for": lambda p: with_step(p, "threshold", parties=0),
    "more parties than contribute": lambda p: with_step(p, "threshold", parties=4),
    "another receiver of the keys": lambda p: with_step(p, "threshold", receiver=UNITED),
    "another receiver of the sums": lambda p: with_step(p, "sums", receiver=PartyId("mallory")),
    "a release at another party": lambda p: with_step(p, "release", receiver=UNITED),
    "two computing nodes": lambda p: with_step(p, "threshold", nodes=(DELTA, JETBLUE)),
    "a stranger among the nodes": lambda p: with_step(p, "threshold", nodes=(DELTA, JETBLUE, UNITED, PartyId("m"))),
    "a node named twice": lambda p: with_step(p, "threshold", nodes=(DELTA, DELTA, UNITED, BTS)),
    "a contributor left out of the nodes": lambda p: with_step(p, "threshold", nodes=(DELTA, JETBLUE, BTS)),
    "the asker among the nodes where three own": lambda p: with_step(
        p, "threshold", nodes=(DELTA, JETBLUE, UNITED, BTS)
    ),
    "the asker first among the nodes": lambda p: with_step(p, "threshold", nodes=(BTS, DELTA, JETBLUE)),
    "the nodes in an order of the asker's": lambda p: with_step(p, "threshold", nodes=(JETBLUE, DELTA, UNITED)),
    "contributors in an order of the asker's": lambda p: with_step(
        p,
        "threshold",
        inputs=(StepId("query-jetblue"), StepId("query-delta"), StepId("query-united")),
        contributors=(JETBLUE, DELTA, UNITED),
        nodes=(JETBLUE, DELTA, UNITED),
    ),
    "a contributor named for another": lambda p: with_step(p, "threshold", contributors=(DELTA, UNITED, JETBLUE)),
    "a contributor left out": lambda p: with_step(p, "threshold", contributors=(DELTA, JETBLUE)),
    "sums of other fragments than the threshold's": lambda p: with_step(
        p, "sums", inputs=(StepId("query-delta"),), contributors=(DELTA,)
    ),
    "sums of fewer measures": lambda p: with_step(p, "sums", measures=sums(p).measures[:1]),
    "extremes without the threshold": lambda p: with_step(p, "extremes-delta", threshold=None),
    "extremes with the units": lambda p: with_step(p, "extremes-delta", columns=("k0", "units", "m5")),
    "extremes with the sums": lambda p: with_step(p, "extremes-delta", columns=("k0", "m0", "m5")),
    "extremes to somebody else": lambda p: with_step(p, "extremes-delta", to=(UNITED,)),
    "extremes to more": lambda p: with_step(p, "extremes-delta", to=(BTS, UNITED)),
    "extremes of another's fragment": lambda p: with_step(p, "extremes-delta", input=StepId("query-united")),
    "extremes of a stranger": lambda p: with_step(p, "extremes-delta", sender=UNITED),
    "the groups moved raw": lambda p: with_steps(
        p,
        Move(StepId("raw"), StepId("query-delta"), DELTA, (BTS,), ("k0", "m0")),
        changes={"moves": (*release(p).moves, StepId("raw"))},
    ),
    "a second threshold": lambda p: with_steps(
        p, msgspec.structs.replace(p.step(StepId("threshold")), id=StepId("t2"))
    ),
    "a second sum": lambda p: with_steps(p, msgspec.structs.replace(p.step(StepId("sums")), id=StepId("s2"))),
    "a step that serves nothing": lambda p: with_steps(
        p, msgspec.structs.replace(query(p, "query-delta"), id=StepId("query-2"))
    ),
    "a copy to somebody with no use for it": lambda p: with_step(
        p, "copy-0", to=(DELTA, JETBLUE, UNITED, PartyId("mallory"))
    ),
    "a copy to its sender": lambda p: with_step(p, "copy-0", to=(DELTA, JETBLUE, UNITED, BTS)),
    "a copy of more than was selected": lambda p: with_step(p, "copy-0", columns=("origin", "visib", "id")),
    "a step named twice": lambda p: with_step(p, "query-united", id=StepId("query-delta")),
    "a step with a strange name": lambda p: with_step(p, "sums", id=StepId("../sums")),
    "a reference to a later step": lambda p: msgspec.structs.replace(p, steps=tuple(reversed(p.steps))),
    "a cycle": lambda p: with_step(
        p, "open-0", reads=(Read("weather", step=StepId("copy-0"), columns=("origin", "visib")),)
    ),
    "a reference to nothing": lambda p: with_step(p, "release", sums=StepId("nothing")),
    "sums where a threshold is meant": lambda p: with_step(p, "release", threshold=StepId("sums")),
    "rows released beside groups": lambda p: with_step(p, "release", threshold=None),
    "no extremes released": lambda p: with_step(p, "release", moves=()),
    "extremes released twice": lambda p: with_step(p, "release", moves=(StepId("extremes-delta"),) * 3),
    "no release": lambda p: msgspec.structs.replace(p, steps=p.steps[:-1]),
    "two releases": lambda p: with_steps(p, msgspec.structs.replace(p.steps[-1], id=StepId("release-2"))),
    "no steps": lambda p: msgspec.structs.replace(p, steps=()),
    "another format": lambda p: msgspec.structs.replace(p, format=1),
    "another asker": lambda p: msgspec.structs.replace(p, asker=UNITED),
    "an asker that is no party": lambda p: msgspec.structs.replace(p, asker=PartyId("B T S")),
    "a fragment of somebody else": lambda p: with_step(p, "query-delta", party=PartyId("mallory")),
    "a fragment at the receiver": lambda p: with_step(p, "query-delta", party=BTS),
    "one owner asked something else": lambda p: with_sql(p, '"delay" > 3', '"delay" > 4', (DELTA,)),
    "one owner's measures in another order": lambda p: with_sql(
        p, 'COUNT(*) AS "m6"', 'COUNT("t0"."tail") AS "m6"', (DELTA,)
    ),
    "a deviation of something else": lambda p: with_step(
        p, "release", deviations=(steps.Deviation("d0", "m0", "m0", "m2"),)
    ),
    "a release that reads a file": lambda p: with_step(p, "release", sql="SELECT * FROM read_csv('/etc/passwd')"),
    "a release that reads another table": lambda p: with_step(
        p, "release", sql=release(p).sql.replace('"released"', '"weather"')
    ),
    "a release with a column that is not there": lambda p: with_step(
        p, "release", sql=release(p).sql.replace('"k0"', '"units"')
    ),
    "a release in another spelling": lambda p: with_step(p, "release", sql=release(p).sql + " "),
    "an owner's grouped fragment as the receiver's own": lambda p: with_step(p, "release", own=StepId("query-delta")),
    "a fragment that reads the same name twice": lambda p: with_step(
        p, "query-delta", reads=query(p, "query-delta").reads[:1] * 2
    ),
    "a read that is both a dataset and a step": lambda p: with_step(
        p,
        "query-delta",
        reads=tuple(msgspec.structs.replace(r, step=StepId("copy-0")) for r in query(p, "query-delta").reads),
    ),
    "another's rows read as one's own": lambda p: with_step(
        p,
        "query-delta",
        reads=(query(p, "query-delta").reads[0], Read("weather", step=StepId("open-0"), columns=("origin", "visib"))),
    ),
}

FRAGMENTS: Mapping[str, Callable[[Plan], Plan]] = {
    "a key that is not named": lambda p: with_sql(p, '"t1"."visib" AS "k0"', '"t0"."tail" AS "k0"'),
    "rows counted as units": lambda p: with_sql(p, 'COUNT(DISTINCT "t0"."id") AS "units"', 'COUNT(*) AS "units"'),
    "a constant as units": lambda p: with_sql(p, 'COUNT(DISTINCT "t0"."id") AS "units"', '100 AS "units"'),
    "another column as units": lambda p: with_sql(
        p, 'COUNT(DISTINCT "t0"."id") AS "units"', 'COUNT(DISTINCT "t0"."delay") AS "units"'
    ),
    "the open table's rows as units": lambda p: with_sql(
        p, 'COUNT(DISTINCT "t0"."id") AS "units"', 'COUNT(DISTINCT "t1"."visib") AS "units"'
    ),
    "units multiplied": lambda p: with_sql(
        p, 'COUNT(DISTINCT "t0"."id") AS "units"', 'COUNT(DISTINCT "t0"."id") * 1000 AS "units"'
    ),
    "units of a filter's other side": lambda p: with_sql(
        p, 'COUNT(DISTINCT "t0"."id") AS "units"', 'COUNT(DISTINCT "t0"."id") FILTER(WHERE TRUE) AS "units"'
    ),
    "a value instead of a sum": lambda p: with_sql(p, 'COUNT(*) AS "m6"', 'MAX("t0"."delay") AS "m6"'),
    "a value inside a count": lambda p: with_sql(p, 'COUNT(*) AS "m6"', 'ANY_VALUE("t0"."tail") AS "m6"'),
    "a list instead of a sum": lambda p: with_sql(p, 'MIN("t0"."fare") AS "m5"', 'LIST("t0"."fare") AS "m5"'),
    "a column that the label leaves out": lambda p: with_sql(p, '"t0"."delay" > 3', '"t0"."tail" > \'N\''),
    "a column that is not there": lambda p: with_sql(p, '"t0"."delay" > 3', '"t0"."name" > 3'),
    "a function that reads a file": lambda p: with_sql(p, '"t0"."delay" > 3', "READ_TEXT('/etc/passwd') > 3"),
    "a table that is not named": lambda p: with_sql(p, 'INNER JOIN "weather"', 'INNER JOIN "crew"'),
    "a table function": lambda p: with_sql(p, 'INNER JOIN "weather" AS "t1"', "INNER JOIN READ_CSV('x') AS \"t1\""),
    "a cross join": lambda p: with_sql(
        p, 'INNER JOIN "weather" AS "t1" ON "t0"."origin" = "t1"."origin"', 'CROSS JOIN "weather" AS "t1"'
    ),
    "a subquery": lambda p: with_sql(
        p, '"t0"."delay" > 3', '"t0"."delay" > (SELECT MAX("t0"."delay") FROM "flights" AS "t0")'
    ),
    "a list of private rows": lambda p: with_sql(
        p, '"t0"."delay" > 3', '"t0"."delay" IN (SELECT "s"."delay" FROM "flights" AS "s")'
    ),
    "a HAVING": lambda p: with_sql(p, " GROUP BY 1", " GROUP BY 1 HAVING COUNT(*) = 1"),
    "a LIMIT": lambda p: with_sql(p, " GROUP BY 1", " GROUP BY 1 LIMIT 1"),
    "another grouping than the keys": lambda p: with_sql(p, " GROUP BY 1", " GROUP BY 1, 2"),
    "a grouping by a column that is no key": lambda p: with_sql(p, " GROUP BY 1", ' GROUP BY 1, "t0"."tail"'),
    "no grouping": lambda p: with_sql(p, " GROUP BY 1", ""),
    "a further output": lambda p: with_sql(p, 'COUNT(*) AS "m6"', 'COUNT(*) AS "m6", MIN("t0"."tail") AS "m7"'),
    "a comment": lambda p: with_sql(p, " GROUP BY 1", " /* x */ GROUP BY 1"),
    "another spelling": lambda p: with_sql(p, " WHERE ", "  where "),
    "a second statement": lambda p: with_sql(p, " GROUP BY 1", " GROUP BY 1; SELECT 1"),
    "a WITH": lambda p: with_sql(p, 'SELECT "t1"', 'WITH "weather" AS (SELECT 1) SELECT "t1"'),
    "a window function": lambda p: with_sql(p, 'COUNT(*) AS "m6"', 'COUNT(*) OVER () AS "m6"'),
    "a sample": lambda p: with_sql(p, '"flights" AS "t0"', '"flights" AS "t0" TABLESAMPLE (1 ROWS)'),
    "a real sum labelled a count": lambda p: with_sql(p, 'COUNT(*) AS "m6"', 'COALESCE(FSUM("t0"."fare"), 0) AS "m6"'),
    "an aggregate in a condition": lambda p: with_sql(p, '"t0"."delay" > 3', "COUNT(*) > 3"),
    "ten thousand terms": lambda p: with_sql(p, '"t0"."delay" > 3', '"t0"."delay" > 3' + " + 1" * 10_000),
    "a thousand terms": lambda p: with_sql(p, '"t0"."delay" > 3', '"t0"."delay" > 3' + " + 1" * 1000),
    "a hundred nested cases": lambda p: with_sql(
        p, '"t0"."delay" > 3', '"t0"."delay" > ' + "CASE WHEN TRUE THEN " * 130 + "3" + " END" * 130
    ),
    "ten thousand conditions": lambda p: with_sql(p, '"t0"."delay" > 3', '"t0"."delay" > 3' + " AND TRUE" * 10_000),
    "a dataset that is not there": lambda p: with_step(
        p,
        "query-delta",
        reads=tuple(
            msgspec.structs.replace(r, dataset=DatasetName("crew")) if r.dataset else r
            for r in query(p, "query-delta").reads
        ),
    ),
    "more columns than the SQL reads": lambda p: with_step(
        p,
        "query-delta",
        reads=tuple(
            msgspec.structs.replace(r, columns=(*r.columns, "tail")) if r.dataset else r
            for r in query(p, "query-delta").reads
        ),
    ),
    "a table named and not read": lambda p: with_step(
        p, "open-0", reads=(*query(p, "open-0").reads, Read("z", DatasetName("weather"), DATASETS[3].version))
    ),
}


def test_what_the_compiler_makes_is_accepted_by_everybody() -> None:
    for asker in (BTS, UNITED):
        for question in (GROUPED, ROWS, "SELECT COUNT(*) FROM flights", "SELECT * FROM weather"):
            plan = plan_of(question, asker)
            reviewed_by_all(plan)
            assert steps.decode(steps.encode(plan)) == plan


@pytest.mark.parametrize("name", STRUCTURE)
def test_a_plan_of_another_shape_is_refused_by_everybody(name: str) -> None:
    altered = STRUCTURE[name](plan_of(GROUPED))
    assert altered != plan_of(GROUPED)
    with pytest.raises(PeerFault):
        check(altered)


@pytest.mark.parametrize("name", FRAGMENTS)
def test_a_fragment_that_does_other_than_its_label_is_refused_by_its_owner(name: str) -> None:
    altered = FRAGMENTS[name](plan_of(GROUPED))
    assert altered != plan_of(GROUPED)
    with pytest.raises(PeerFault):
        reviewed_by_all(altered)


def test_a_plan_for_another_version_of_a_dataset_is_to_be_compiled_again() -> None:
    plan = plan_of(GROUPED)
    reads = query(plan, "query-delta").reads
    other = tuple(msgspec.structs.replace(r, version=Digest("sha256:" + "1" * 64)) if r.dataset else r for r in reads)
    with pytest.raises(DataChanged, match="delta has a new version since the question was compiled: ask again"):
        reviewed_by_all(with_step(plan, "query-delta", reads=other))


def test_rows_moved_need_rows_for_everybody_who_comes_to_see_them() -> None:
    plan = plan_of(ROWS)
    (demand,) = review(plan, DELTA, DATASETS).demands
    assert demand.recipients == (BTS,)
    assert demand.units is None
    assert {(n.column, n.allow) for n in demand.needs} == {("origin", "rows"), ("delay", "rows")}


def test_rows_passed_on_by_a_second_party_are_a_demand_for_all_who_hear_of_them() -> None:
    # bts's weather goes to delta, whose fragment joins it, and whose rows go to the asker.
    question = "SELECT f.delay, w.visib FROM flights f JOIN weather w USING (origin)"
    plan = plan_of(question, PartyId("faa"))
    (demand,) = review(plan, BTS, DATASETS).demands
    assert demand.recipients == (DELTA, PartyId("faa"), JETBLUE, UNITED)


def test_groups_are_a_demand_for_the_asker_with_the_threshold_of_the_plan() -> None:
    plan = plan_of(GROUPED)
    demand, told = review(plan, DELTA, DATASETS).demands
    assert (demand.recipients, demand.units, demand.parties) == ((BTS,), 20, 2)
    assert told.recipients == (JETBLUE, UNITED)  # they can test the groups that they guess
    assert {need.allow for need in told.needs} <= {"group", "filter"}
    joint = with_step(plan, "threshold", tokens="oprf")
    assert [demand.recipients for demand in review(joint, DELTA, DATASETS).demands] == [(BTS,)]
    assert review(plan, DELTA, DATASETS).versions == ((DatasetName("flights"), DATASETS[0].version),)


@pytest.mark.parametrize(("units", "parties"), [(19, 2), (20, 1)])
def test_a_threshold_below_the_owners_rules_is_refused(units: int, parties: int) -> None:
    plan = with_step(plan_of(GROUPED), "threshold", units=units, parties=parties)
    demand, _ = review(plan, DELTA, DATASETS).demands
    verdict = judge(
        demand.dataset, RULES, (), demand.needs, recipients=demand.recipients, asker=BTS, purpose="", now=0.0
    )
    assert verdict.allowed
    with pytest.raises(Refused, match=f"{units} units of {parties} parties"):
        demand.check(verdict)


def test_extremes_show_one_owner_and_are_refused_where_rules_ask_for_several() -> None:
    demand, _ = review(plan_of(GROUPED), DELTA, DATASETS).demands
    several = Verdict(BTS, True, demand.units or 0, 2, (), (), ())
    assert demand.alone == any(isinstance(step, Move) for step in plan_of(GROUPED).steps)
    with pytest.raises(Refused, match="minima and maxima show each owner's own"):
        replace(demand, alone=True).check(several)
    replace(demand, alone=False).check(several)


def test_an_asker_demands_nothing_of_itself() -> None:
    for demand in review(plan_of(GROUPED, UNITED), UNITED, DATASETS).demands:
        assert demand.recipients == (UNITED,)


TOKENS = st.sampled_from(
    ["query-delta", "query-united", "threshold", "sums", "extremes-delta", "copy-0", "open-0", "release", "nothing"]
)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.sampled_from((GROUPED, ROWS)), st.data())
def test_a_mutated_plan_is_a_plan_or_a_peer_fault(question: str, data: st.DataObject) -> None:
    plan = plan_of(question)
    raw = msgspec.json.decode(steps.encode(plan))
    for _ in range(data.draw(st.integers(1, 3))):
        step = data.draw(st.sampled_from(raw["steps"]))
        name = data.draw(st.sampled_from(sorted(step)))
        other = data.draw(st.sampled_from(raw["steps"]))
        step[name] = data.draw(
            st.one_of(
                st.just(other.get(name, step[name])),
                TOKENS,
                st.integers(-1, 30),
                st.none(),
                st.lists(TOKENS, max_size=3),
                st.sampled_from(["delta", "united", "bts", "mallory", "SELECT 1", ""]),
            )
        )
    try:
        altered = steps.decode(msgspec.json.encode(raw))
    except msgspec.ValidationError:
        return
    with suppress(PeerFault):
        for party in (*plan.parties, *altered.parties):
            review(altered, party, DATASETS)
        thresholds = [s for s in altered.steps if isinstance(s, Threshold)]
        assert all(s.receiver == altered.asker and s.units >= 5 for s in thresholds)
        assert all(s.receiver == altered.asker for s in altered.steps if isinstance(s, Release | MaskedSum))


def test_an_owner_that_is_given_nothing_to_join_is_left_out_and_noticed() -> None:
    plan = plan_of(GROUPED)
    move = next(step for step in plan.steps if isinstance(step, Move) and step.threshold is None)
    source = query(plan, move.input)
    nothing = msgspec.structs.replace(source, id=StepId("nothing"), sql=f"{source.sql} WHERE FALSE")
    moved = msgspec.structs.replace(move, id=StepId("moved"), input=nothing.id, to=(UNITED,))
    united = query(plan, "query-united")
    reads = tuple(msgspec.structs.replace(r, step=moved.id) if r.step == move.id else r for r in united.reads)
    crafted = with_step(with_step(plan, move.id, to=(DELTA, JETBLUE)), united.id, reads=reads)
    crafted = msgspec.structs.replace(crafted, steps=(nothing, moved, *crafted.steps))
    with pytest.raises(PeerFault, match="united is to read other tables than delta"):
        check(crafted)
