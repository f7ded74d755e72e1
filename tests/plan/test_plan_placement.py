# SPDX-License-Identifier: Apache-2.0
"""An open table is served by the holder that costs least, and every such plan gives the same answer."""

from collections.abc import Mapping

import pyarrow as pa
import pytest

from junto.catalog.dataset import Dataset
from junto.errors import InvalidInput
from junto.frontends.sql import compile_sql
from junto.plan.explain import explain
from junto.plan.placement import Standing, alternatives, moved, place, same_table
from junto.plan.steps import Move, Plan, Query, Release
from junto.testing.plans import published, run_plan
from junto.trust.rules import Rule
from junto.types import DatasetName, PartyId, StepId

BTS, DELTA, FAA, NOAA, UNITED = (PartyId(p) for p in ("bts", "delta", "faa", "noaa", "united"))
OPEN = (Rule(("*",), "open"),)
PRIVATE = (Rule(("*",), "group"), Rule(("*",), "aggregate"), Rule(("*",), "rows", to=(UNITED, BTS)))
WEATHER = pa.table({"origin": ["JFK", "JFK", "LGA"], "visib": [10.0, 2.5, 1.0]})
PLANES = pa.table({"origin": ["JFK", "LGA"], "seats": [100, 50]})
FLIGHTS = pa.table({"id": list(range(60)), "origin": ["JFK", "LGA", "EWR"] * 20})
TABLES = {
    (BTS, DatasetName("weather")): WEATHER,
    (FAA, DatasetName("weather")): WEATHER,
    (NOAA, DatasetName("weather")): WEATHER,
    (NOAA, DatasetName("planes")): PLANES,
    (BTS, DatasetName("planes")): PLANES,
    (DELTA, DatasetName("flights")): FLIGHTS,
    (UNITED, DatasetName("flights")): FLIGHTS,
}
DATASETS = [
    published(party, name, table, PRIVATE if name == "flights" else OPEN, "id" if name == "flights" else None)
    for (party, name), table in TABLES.items()
]
JOINED = "SELECT visib, COUNT(*) AS n FROM flights JOIN weather USING (origin) GROUP BY 1 ORDER BY 1"
QUESTIONS = (
    JOINED,
    "SELECT seats, visib, COUNT(*) FROM flights JOIN weather USING (origin) JOIN planes USING (origin) GROUP BY ALL"
    " ORDER BY ALL",
    "SELECT id, visib FROM flights JOIN weather USING (origin) ORDER BY ALL",
    "SELECT origin, SUM(visib) AS s FROM weather GROUP BY origin ORDER BY s",
    "SELECT seats, visib FROM weather JOIN planes USING (origin) ORDER BY ALL",
    "SELECT COUNT(*) FROM flights WHERE origin IN (SELECT origin FROM weather WHERE visib > 5)",
)


def near(*parties: PartyId, seconds: float = 0.01) -> dict[PartyId, Standing]:
    """Standings in which each party is twice as far as the one before."""
    return {party: Standing(seconds * 2**i) for i, party in enumerate(parties)}


def server(plan: Plan, id: str) -> PartyId:
    step = plan.step(StepId(id))
    assert isinstance(step, Query)
    return step.party


def placed(question: str, asker: PartyId, standings: Mapping[PartyId, Standing]) -> Plan:
    plan = compile_sql(question, DATASETS, asker)
    again = place(plan, alternatives(plan, DATASETS), standings)
    explain(again, DATASETS)
    return again


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("asker", [BTS, DELTA, UNITED, PartyId("nobody")])
def test_every_holder_may_serve_and_the_answer_is_the_same(question: str, asker: PartyId) -> None:
    plan = compile_sql(question, DATASETS, asker)
    wanted = run_plan(plan, TABLES).table
    for id, others in alternatives(plan, DATASETS).items():
        for holder in others:
            elsewhere = moved(plan, id, holder)
            explain(elsewhere, DATASETS)  # every participant's review accepts it
            assert server(elsewhere, id) == holder.party
            assert run_plan(elsewhere, TABLES).table == wanted
            for back in alternatives(elsewhere, DATASETS).get(id, ()):
                assert run_plan(moved(elsewhere, id, back), TABLES).table == wanted


def test_the_nearest_of_those_that_take_no_other_part_serves() -> None:
    for first in (BTS, FAA, NOAA):
        rest = [p for p in (BTS, FAA, NOAA) if p != first]
        assert server(placed(JOINED, UNITED, near(first, *rest, DELTA)), "open-0") == first


def test_a_wait_counts_like_a_round_trip() -> None:
    busy = {BTS: Standing(0.001, wait_seconds=3.0), FAA: Standing(0.2), NOAA: Standing(0.1, wait_seconds=1.0)}
    assert server(placed(JOINED, UNITED, {**busy, DELTA: Standing(0.1)}), "open-0") == FAA


@pytest.mark.parametrize("times", [(0.0009, 0.0001, 0.0), (0.030, 0.020, 0.017)])
def test_a_small_difference_does_not_make_a_table_move(times: tuple[float, float, float]) -> None:
    standings = {p: Standing(t) for p, t in zip((BTS, FAA, NOAA), times, strict=True)} | {DELTA: Standing(0.1)}
    assert server(placed(JOINED, UNITED, standings), "open-0") == BTS


def test_of_equals_the_first_by_name_serves_whatever_the_order_of_the_datasets() -> None:
    alike = dict.fromkeys((NOAA, FAA, BTS, DELTA), Standing(0.01))
    plan = compile_sql(JOINED, DATASETS, UNITED)
    reversed_ = place(plan, alternatives(plan, DATASETS[::-1]), alike)
    assert server(reversed_, "open-0") == BTS
    assert reversed_ == placed(JOINED, UNITED, alike)


def test_a_party_without_a_link_serves_nothing_that_another_can() -> None:
    assert server(placed(JOINED, UNITED, {NOAA: Standing(9.0), DELTA: Standing(0.1)}), "open-0") == NOAA


def test_where_none_is_linked_the_plan_stays_as_it_is() -> None:
    plan = compile_sql(JOINED, DATASETS, UNITED)
    assert place(plan, alternatives(plan, DATASETS), {}) == plan


def test_a_party_that_takes_part_anyway_is_preferred_to_one_that_would_join_for_it() -> None:
    datasets = [*DATASETS, published(DELTA, "weather", WEATHER, OPEN)]
    plan = compile_sql(JOINED.replace("weather", "bts.weather"), datasets, UNITED)
    again = place(plan, alternatives(plan, datasets), near(BTS, FAA, NOAA, DELTA))
    assert server(again, "open-0") == DELTA
    assert BTS not in again.parties
    (copy,) = (s for s in again.steps if isinstance(s, Move))
    assert copy.to == (UNITED,)  # delta reads it at home


def test_an_asker_that_holds_it_needs_no_copy() -> None:
    plan = compile_sql("SELECT * FROM faa.weather", DATASETS, BTS)
    again = place(plan, alternatives(plan, DATASETS), near(FAA, NOAA))
    release = again.steps[-1]
    assert isinstance(release, Release)
    assert (again.parties, release.own, release.moves) == ((BTS,), StepId("query"), ())


def test_two_parts_of_a_table_never_both_become_the_asker_s_own() -> None:
    halves = {(BTS, "w"): WEATHER.slice(0, 1), (NOAA, "w"): WEATHER.slice(1)}
    datasets = [published(party, name, table, OPEN) for (party, name), table in halves.items()]
    plan = compile_sql("SELECT visib FROM w ORDER BY 1", datasets, BTS)
    late = [*datasets, published(FAA, "w", WEATHER.slice(1), OPEN)]
    again = place(plan, alternatives(plan, late), near(FAA, NOAA))
    assert {s.party for s in again.steps if isinstance(s, Query)} == {BTS, FAA}
    data = {(BTS, DatasetName("w")): WEATHER.slice(0, 1), (FAA, DatasetName("w")): WEATHER.slice(1)}
    assert run_plan(again, data).table.to_pydict() == {"visib": [1.0, 2.5, 10.0]}


def test_private_fragments_have_no_alternatives() -> None:
    plan = compile_sql("SELECT origin, COUNT(*) FROM flights GROUP BY 1", DATASETS, BTS)
    assert not alternatives(plan, DATASETS)
    rows = compile_sql("SELECT id FROM flights", DATASETS, BTS)
    assert not alternatives(rows, DATASETS)


def test_only_a_fragment_is_placed() -> None:
    plan = compile_sql(JOINED, DATASETS, UNITED)
    (holder, *_) = alternatives(plan, DATASETS)[StepId("open-0")]
    with pytest.raises(InvalidInput, match="threshold is no fragment"):
        moved(plan, StepId("threshold"), holder)


def dataset(table: pa.Table, rules: tuple[Rule, ...] = OPEN, name: str = "weather") -> Dataset:
    return published(BTS, name, table, rules)


def test_the_same_table_is_open_with_the_same_name_columns_and_bytes() -> None:
    one = dataset(WEATHER)
    assert same_table(one, published(FAA, "weather", WEATHER, (Rule(("*",), "open", name="free"),)))
    for other in (
        dataset(WEATHER.slice(1)),
        dataset(WEATHER, PRIVATE),
        dataset(WEATHER, name="wind"),
        dataset(WEATHER.rename_columns(["origin", "vis"])),
        dataset(WEATHER, (Rule(("origin",), "open"),)),
    ):
        assert not same_table(one, other)
        assert not same_table(other, one)
