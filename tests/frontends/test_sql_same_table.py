# SPDX-License-Identifier: Apache-2.0
"""The same open table at several parties is one: counted once, read where it is nearest at hand."""

import pyarrow as pa
import pytest

from junto.catalog.dataset import Dataset
from junto.errors import UnsupportedSQL
from junto.frontends.sql import compile_sql
from junto.plan.explain import explain
from junto.plan.steps import Move, Plan, Query
from junto.testing.plans import published, run_plan
from junto.trust.rules import Rule
from junto.types import DatasetName, PartyId

OPEN = (Rule(("*",), "open"),)
PRIVATE = (Rule(("*",), "group"), Rule(("*",), "aggregate"))
WEATHER = pa.table({"origin": ["JFK", "JFK", "LGA"], "visib": [10.0, 2.5, 1.0]})
PLANES = pa.table({"origin": ["JFK", "LGA"], "seats": [100, 50]})
FLIGHTS = pa.table({"id": list(range(40)), "origin": ["JFK", "LGA"] * 20})
BTS, DELTA, FAA, UNITED = (PartyId(p) for p in ("bts", "delta", "faa", "united"))

Held = dict[tuple[PartyId, DatasetName], pa.Table]


def held(**tables: pa.Table) -> Held:
    """Tables by `party_name`."""
    split = [(*key.split("_"), table) for key, table in tables.items()]
    return {(PartyId(party), DatasetName(name)): table for party, name, table in split}


def datasets_of(data: Held) -> list[Dataset]:
    return [
        published(party, name, table, PRIVATE if name == "flights" else OPEN, "id" if name == "flights" else None)
        for (party, name), table in data.items()
    ]


def asked(question: str, data: Held, asker: PartyId) -> tuple[Plan, list[dict[str, object]]]:
    datasets = datasets_of(data)
    plan = compile_sql(question, datasets, asker)
    explain(plan, datasets)  # every participant's review accepts it
    return plan, run_plan(plan, data).table.to_pylist()


def test_its_rows_count_once() -> None:
    data = held(bts_weather=WEATHER, faa_weather=WEATHER)
    plan, rows = asked("SELECT COUNT(*) AS n FROM weather", data, DELTA)
    assert rows == [{"n": 3}]
    assert plan.parties == (DELTA, BTS)


def test_parts_that_differ_are_one_table_and_each_counts_once() -> None:
    data = held(bts_weather=WEATHER, delta_weather=WEATHER.slice(1), faa_weather=WEATHER)
    _, rows = asked("SELECT COUNT(*) AS n FROM weather", data, UNITED)
    assert rows == [{"n": 5}]


def test_private_rows_that_are_alike_stay_each_owner_s_own() -> None:
    data = held(delta_flights=FLIGHTS, united_flights=FLIGHTS)
    _, rows = asked("SELECT COUNT(*) AS n FROM flights", data, BTS)
    assert rows == [{"n": 80}]


def test_what_the_asker_holds_it_reads_at_home() -> None:
    data = held(bts_weather=WEATHER, united_weather=WEATHER)
    plan, _ = asked("SELECT origin, MAX(visib) FROM weather GROUP BY origin", data, UNITED)
    assert plan.parties == (UNITED,)


def test_an_owner_that_joins_it_reads_its_own_copy() -> None:
    data = held(bts_weather=WEATHER, delta_weather=WEATHER, delta_flights=FLIGHTS, united_flights=FLIGHTS)
    plan, rows = asked(
        "SELECT visib, COUNT(*) AS n FROM flights JOIN weather USING (origin) GROUP BY 1 ORDER BY 1", data, FAA
    )
    assert rows == [{"visib": v, "n": 40} for v in (1.0, 2.5, 10.0)]
    (copy,) = (s for s in plan.steps if isinstance(s, Move))
    assert (copy.sender, copy.to) == (BTS, (UNITED,))


def test_a_subquery_is_computed_by_whoever_holds_all_it_reads() -> None:
    data = held(bts_weather=WEATHER, faa_weather=WEATHER, faa_planes=PLANES, delta_flights=FLIGHTS)
    plan, _ = asked(
        "SELECT s, COUNT(*) FROM flights f JOIN (SELECT w.origin AS o, SUM(seats) AS s FROM weather w JOIN planes p"
        " ON p.origin = w.origin GROUP BY 1) t ON t.o = f.origin GROUP BY s",
        data,
        UNITED,
    )
    assert [s.party for s in plan.steps if isinstance(s, Query)] == [FAA, DELTA]


def test_a_join_with_parts_that_differ_is_refused_with_the_names_to_choose_from() -> None:
    data = held(bts_weather=WEATHER, faa_weather=WEATHER.slice(1), delta_flights=FLIGHTS)
    with pytest.raises(UnsupportedSQL, match=r"published by bts and faa: say whose you mean, as bts\.weather"):
        compile_sql("SELECT COUNT(*) FROM flights JOIN weather USING (origin)", datasets_of(data), UNITED)
