# SPDX-License-Identifier: Apache-2.0
"""A party computes nothing that reads none of its data, but for whom its `compute` line names."""

import pyarrow as pa
import pytest
from pooled import OPEN, Pooled

from junto.client.question import Question
from junto.errors import Refused
from junto.frontends.sql import compile_sql
from junto.plan.steps import Move, Plan, Query, Read, Release
from junto.testing.until import until
from junto.types import DatasetName, PartyId, StepId

HUB, NORTH = PartyId("hub"), PartyId("north")
_HEAVY = 'SELECT "a"."c0" AS "c0" FROM (SELECT MAX(REPLACE(x, \'a\', \'b\')) FROM "got" AS g) AS "a"("c0")'
_FLAT = 'SELECT UPPER("t0"."x") AS "c0" FROM "got" AS "t0"'


def _plan(world: Pooled, sql: str) -> Plan:
    """North computes over rows that hub sent along, and sends the outcome back."""
    version = next(d.version for d in world["hub"].datasets() if d.name == "mine")
    source = 'SELECT "t0"."x" AS "x" FROM "mine" AS "t0"'
    mine = (Read("mine", DatasetName("mine"), version, columns=("x",)),)
    one, two, three = StepId("one"), StepId("two"), StepId("three")
    steps = (
        Query(one, HUB, source, mine, columns=("x",), column_types=("VARCHAR",)),
        Move(two, one, HUB, (NORTH,), ("x",)),
        Query(three, NORTH, sql, (Read("got", step=two, columns=("x",)),), columns=("c0",), column_types=("VARCHAR",)),
        Move(StepId("four"), three, NORTH, (HUB,), ("c0",)),
    )
    sql = 'SELECT "c0" AS "c0" FROM "released"'
    last = Release(StepId("r"), HUB, sql, moves=(StepId("four"),), columns=("c0",), column_types=("VARCHAR",))
    format = compile_sql("SELECT x FROM mine", world["hub"].datasets(), HUB).format
    return Plan("", HUB, (*steps, last), format)


@pytest.mark.parametrize("sql", [_HEAVY, _FLAT])
def test_work_that_reads_none_of_a_partys_data_is_refused_with_the_line_that_allows_it(sql: str) -> None:
    with Pooled(["hub", "north"]) as world:
        world.share("mine", {"hub": pa.table({"x": ["aa", "ab"]})}, OPEN)
        world.share("theirs", {"north": pa.table({"x": ["aa"]})}, OPEN)
        question = Question("crafted", _plan(world, sql), "", world["hub"])
        with pytest.raises(Refused, match=r'north would write in node\.toml: compute = \["hub"\]'):
            question.run(deadline="15s")
        world.on_loop(world.node("north").publishing.consent((HUB,)))
        until(lambda: world["hub"].consents() == {NORTH: (HUB,)}, "hub knows that north computes for it")
        assert question.run(deadline="15s").table.num_rows > 0
        world.on_loop(world.node("north").publishing.consent(()))
        with pytest.raises(Refused, match="reads no data of north"):
            question.run(deadline="15s")
