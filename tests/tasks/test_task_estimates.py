# SPDX-License-Identifier: Apache-2.0
"""What a part of a plan is expected to cost: from what is published, from the pace, and from runs before."""

from dataclasses import dataclass, field

import pytest

from junto.catalog.dataset import Column, Dataset, Statistics
from junto.plan.steps import MaskedSum, Measure, Move, Plan, Query, Read, Release, Threshold
from junto.tasks.bodies import Estimate
from junto.tasks.capacity import Amount
from junto.tasks.estimates import (
    CELL_BYTES,
    FRAGMENT_BYTES,
    GROUP_BYTES,
    GROUPS,
    Needs,
    Pace,
    Past,
    fragment_bytes,
    fragment_key,
    needs_of,
)
from junto.types import DatasetName, Digest, PartyId, StepId

BTS, DELTA = PartyId("bts"), PartyId("delta")
FLIGHTS, AIRPORTS = DatasetName("flights"), DatasetName("airports")
PACE = Pace(0.01, 100e6)
MOST = 200_000_000


def dataset(party: PartyId, name: DatasetName, rows: int, size: int, distinct: dict[str, int]) -> Dataset:
    columns = tuple(Column(column, "BIGINT") for column in ("origin", "month", "delay"))
    statistics = tuple(Statistics(column, distinct=count) for column, count in distinct.items())
    digest = Digest(f"sha256:{name}")
    return Dataset(party, name, digest, digest, columns, rows, size, None, False, (), statistics, 0.0)


@dataclass
class World:
    known: dict[tuple[PartyId, DatasetName], Dataset] = field(default_factory=dict)
    past: dict[str, Past] = field(default_factory=dict)

    def publish(self, party: PartyId, name: DatasetName, rows: int, size: int, **distinct: int) -> None:
        self.known[party, name] = dataset(party, name, rows, size, distinct)

    def published(self, party: PartyId, name: DatasetName) -> Dataset | None:
        return self.known.get((party, name))

    def needs(self, me: PartyId, *steps: Query | Threshold | MaskedSum | Move | Release) -> Needs:
        return needs_of(Plan("…", BTS, steps), me, self.published, PACE, self.past, MOST)


def rows_of(party: PartyId, sql: str = 'SELECT * FROM "flights"', name: DatasetName = FLIGHTS) -> Query:
    reads = (Read("flights", name, Digest("sha256:1"), None, ("origin", "delay")),)
    return Query(StepId(f"q-{party}"), party, sql, reads, columns=("c0", "c1"), column_types=("BIGINT", "BIGINT"))


def groups_of(party: PartyId, keys: tuple[str, ...] = ("k0", "k1")) -> Query:
    reads = (Read("flights", FLIGHTS, Digest("sha256:1"), None, ("origin", "month", "delay")),)
    measures = (Measure("m0", "sum", "integer", "BIGINT"),)
    return Query(StepId(f"g-{party}"), party, "SELECT …", reads, keys, ("BIGINT",) * len(keys), measures)


def test_rows_and_bytes_are_those_of_the_datasets_read_here() -> None:
    world = World()
    world.publish(BTS, FLIGHTS, 1000, 50_000)
    world.publish(DELTA, FLIGHTS, 3000, 70_000)
    found = world.needs(DELTA, rows_of(BTS), rows_of(DELTA))
    assert (found.estimate.rows, found.estimate.bytes) == (3000, 70_000)
    assert fragment_bytes(rows_of(DELTA), world.published) == 70_000


def test_seconds_follow_the_pace() -> None:
    world = World()
    world.publish(BTS, FLIGHTS, 1000, 300_000_000)
    assert world.needs(BTS, rows_of(BTS)).estimate.seconds == pytest.approx(3.01)


def test_a_fragment_that_ran_before_is_expected_to_do_as_it_did() -> None:
    world = World()
    world.publish(BTS, FLIGHTS, 1_000_000, 300_000_000)
    world.past[fragment_key(rows_of(BTS))] = Past(10, 0.5)
    found = world.needs(BTS, rows_of(BTS))
    assert found.estimate.seconds == 0.5
    assert found.amount.disk == 10 * 2 * CELL_BYTES


def test_another_version_is_another_fragment() -> None:
    newer = Query(
        StepId("q-bts"),
        BTS,
        'SELECT * FROM "flights"',
        (Read("flights", FLIGHTS, Digest("sha256:2")),),
        columns=("c0",),
    )
    assert fragment_key(newer) != fragment_key(rows_of(BTS))


def test_rows_lie_on_disk_where_they_are_made_and_where_they_arrive() -> None:
    world = World()
    world.publish(DELTA, FLIGHTS, 1000, 50_000)
    steps = rows_of(DELTA), Move(StepId("m"), StepId("q-delta"), DELTA, (BTS,), ("c0", "c1"))
    assert world.needs(DELTA, *steps).amount.disk == 1000 * 2 * CELL_BYTES
    assert world.needs(BTS, *steps).amount.disk == 1000 * 2 * CELL_BYTES
    assert world.needs(BTS, *steps).estimate == Estimate()


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ('SELECT * FROM "flights"', 1000),
        ('SELECT * FROM "flights" WHERE "origin" = 3', 200),
        ('SELECT * FROM "flights" ORDER BY 1 LIMIT 7', 7),
        ('SELECT * FROM "flights" LIMIT ' + "9" * 5000, 1000),
    ],
)
def test_filters_and_limits_leave_fewer_rows(sql: str, rows: int) -> None:
    world = World()
    world.publish(BTS, FLIGHTS, 1000, 50_000)
    assert world.needs(BTS, rows_of(BTS, sql)).amount.disk == rows * 2 * CELL_BYTES


def test_groups_are_bounded_by_published_distinct_values() -> None:
    world = World()
    world.publish(BTS, FLIGHTS, 1_000_000, 50_000, origin=3, month=11)
    assert world.needs(BTS, groups_of(BTS)).amount == Amount(FRAGMENT_BYTES + 4 * 12 * 4 * GROUP_BYTES, 0)


def test_groups_of_which_nothing_is_published_are_a_guess() -> None:
    world = World()
    world.publish(BTS, FLIGHTS, 1_000_000, 50_000)
    assert world.needs(BTS, groups_of(BTS)).amount.memory == FRAGMENT_BYTES + GROUPS * 4 * GROUP_BYTES
    world.publish(BTS, FLIGHTS, 50, 50_000)
    assert world.needs(BTS, groups_of(BTS)).amount.memory == FRAGMENT_BYTES + 50 * 4 * GROUP_BYTES
    assert world.needs(BTS, groups_of(BTS, ())).amount.memory == FRAGMENT_BYTES + 1 * 2 * GROUP_BYTES


def test_a_fragment_never_needs_more_memory_than_it_may_use() -> None:
    world = World()
    world.publish(BTS, FLIGHTS, 10**12, 50_000, origin=10**9, month=10**9)
    assert world.needs(BTS, groups_of(BTS)).amount.memory == FRAGMENT_BYTES + MOST


def test_a_join_holds_the_smaller_tables() -> None:
    world = World()
    world.publish(BTS, FLIGHTS, 1_000_000, 50_000)
    world.publish(BTS, AIRPORTS, 300, 5000)
    reads = (Read("flights", FLIGHTS, columns=("origin", "delay")), Read("airports", AIRPORTS, columns=("origin",)))
    query = Query(StepId("q"), BTS, "SELECT …", reads, columns=("c0",))
    assert world.needs(BTS, query).amount.memory == FRAGMENT_BYTES + 300 * CELL_BYTES


def test_joint_steps_need_memory_for_the_groups_of_all() -> None:
    world = World()
    world.publish(BTS, FLIGHTS, 1000, 50_000, origin=3, month=11)
    world.publish(DELTA, FLIGHTS, 1000, 50_000, origin=3, month=11)
    owners = (StepId("g-bts"), StepId("g-delta"))
    queries = groups_of(BTS), groups_of(DELTA)
    alone = world.needs(DELTA, *queries).amount.memory
    threshold = Threshold(StepId("t"), owners, (BTS, DELTA), PartyId("faa"), (BTS, DELTA), 10)
    total = MaskedSum(StepId("s"), StepId("t"), owners, (BTS, DELTA), PartyId("faa"), queries[0].measures)
    groups = 2 * 4 * 12
    assert world.needs(DELTA, *queries, threshold).amount.memory == alone + groups * 2 * CELL_BYTES
    assert world.needs(DELTA, *queries, threshold, total).amount.memory == alone + groups * 5 * CELL_BYTES


def test_the_receiver_holds_what_arrives_and_keeps_the_answer() -> None:
    world = World()
    world.publish(DELTA, FLIGHTS, 1000, 50_000)
    move = Move(StepId("m"), StepId("q-delta"), DELTA, (BTS,), ("c0", "c1"))
    release = Release(StepId("r"), BTS, "SELECT …", moves=(StepId("m"),), columns=("a", "b"))
    size = 1000 * 2 * CELL_BYTES
    assert world.needs(BTS, rows_of(DELTA), move, release).amount == Amount(FRAGMENT_BYTES + size, 2 * size)


def test_a_dataset_as_large_as_nothing_is_gives_an_estimate_still() -> None:
    world = World()
    world.publish(BTS, FLIGHTS, 1 << 62, 1 << 62)
    found = world.needs(BTS, rows_of(BTS), rows_of(BTS))
    assert max(found.estimate.rows, found.estimate.bytes, found.amount.disk) < 1 << 63


def test_the_pace_comes_to_what_is_seen() -> None:
    pace = Pace()
    for _ in range(60):
        pace = pace.after(100_000_000, 0.25 + pace.least_seconds)
    assert pace.bytes_per_second == pytest.approx(400e6, rel=0.01)
    for _ in range(60):
        pace = pace.after(1000, 0.002)
    assert pace.least_seconds == pytest.approx(0.002, rel=0.01)
    assert pace.bytes_per_second == pytest.approx(400e6, rel=0.01)


def test_a_clock_that_stands_still_breaks_no_pace() -> None:
    pace = Pace().after(0, 0.0).after(10**9, 0.0)
    assert 0 < pace.seconds(10**9) < 100
