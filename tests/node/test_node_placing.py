# SPDX-License-Identifier: Apache-2.0
"""The asker's node has an open table read at the holder that is linked, near and idle."""

import pyarrow as pa
import pytest

from junto.catalog.view import CatalogView
from junto.frontends.sql import compile_sql
from junto.link.links import PartyStatus
from junto.node.placing import Placing
from junto.plan.steps import Query
from junto.testing.plans import published
from junto.trust.rules import Rule
from junto.types import PartyId

BTS, FAA, UNITED = (PartyId(p) for p in ("bts", "faa", "united"))
OPEN = (Rule(("*",), "open"),)
DATASETS = [published(p, "weather", pa.table({"visib": [1.0, 2.0]}), OPEN) for p in (BTS, FAA)]
PLAN = compile_sql("SELECT SUM(visib) FROM weather", DATASETS, UNITED)


def _view() -> CatalogView:
    view = CatalogView()
    for dataset in DATASETS:
        view.add(dataset.party, dataset)
    return view


class World:
    """Two links and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.trips: dict[PartyId, float | None] = {BTS: 1.0, FAA: 1.0}  # milliseconds
        self.down: set[PartyId] = set()
        self.placing = Placing(_view(), self.statuses, lambda: self.now, 5.0)

    def statuses(self) -> list[PartyStatus]:
        return [
            PartyStatus(p, p not in self.down, 0.0, "", False, "", trip, None, 0, 0) for p, trip in self.trips.items()
        ]

    def server(self) -> PartyId:
        return next(s.party for s in self.placing.placed(PLAN).steps if isinstance(s, Query))


@pytest.fixture
def world() -> World:
    return World()


def test_between_equals_the_plan_stays_as_it_was_compiled(world: World) -> None:
    assert world.placing.placed(PLAN) == PLAN


def test_the_nearer_serves(world: World) -> None:
    world.trips[BTS] = 40.0
    assert world.server() == FAA


def test_a_link_not_measured_yet_is_no_near_one(world: World) -> None:
    world.trips[BTS] = None
    assert world.server() == FAA


def test_a_party_whose_link_is_down_serves_nothing_that_another_can(world: World) -> None:
    world.down.add(BTS)
    assert world.server() == FAA
    world.down.add(FAA)
    assert world.placing.placed(PLAN) == PLAN


def test_a_party_that_offered_to_start_late_is_left_aside_until_then(world: World) -> None:
    world.placing.offered(BTS, 30.0)
    world.placing.offered(FAA, 0.0)
    assert world.server() == FAA
    world.now += 29.0
    assert world.server() == FAA
    world.now += 1.0
    assert world.server() == BTS
    world.placing.offered(BTS, 30.0)
    world.placing.offered(BTS, 0.0)  # the last word counts
    assert world.server() == BTS
