# SPDX-License-Identifier: Apache-2.0
"""Plans are read in children of the node: the same findings, the same errors, and an end to what takes too long."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest

from junto.children.pool import Pool
from junto.errors import Crashed, InvalidInput, JuntoError
from junto.frontends.sql import compile_sql
from junto.node.reading import ReadInChildren, read_here
from junto.plan.steps import Plan
from junto.testing.plans import published
from junto.testing.until import until
from junto.trust.rules import Rule
from junto.types import PartyId

DELTA = PartyId("delta")
_FLIGHTS = pa.table({"id": [1], "carrier": ["DL"], "delay": [2]})
_RULES = (Rule(("carrier",), "group"), Rule(("delay",), "aggregate"))
DATASETS = [published(party, "flights", _FLIGHTS, _RULES, "id") for party in ("delta", "jetblue", "united")]


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool("plans", "junto.node.reading_child")
    yield pool
    pool.close()


def _plan() -> Plan:
    return compile_sql("SELECT carrier, AVG(delay) AS d FROM flights GROUP BY carrier", DATASETS, PartyId("bts"))


def test_a_child_finds_what_this_process_finds(pool: Pool) -> None:
    async def both() -> None:
        there = await ReadInChildren(pool, 30.0)(_plan(), DELTA, DATASETS)
        assert there == await read_here(_plan(), DELTA, DATASETS)
        assert there.review.demands

    asyncio.run(both())


def test_a_child_refuses_in_the_same_words(pool: Pool) -> None:
    async def refused() -> None:
        for reader in (ReadInChildren(pool, 30.0), read_here):
            with pytest.raises(JuntoError, match="has no dataset"):
                await reader(_plan(), DELTA, ())

    asyncio.run(refused())
    assert len(pool.shown()) == 1


def test_a_plan_that_takes_too_long_is_refused_with_limit_and_mend(pool: Pool) -> None:
    with pytest.raises(InvalidInput, match=r"not read within 0 s \(`judging` in node.toml\): ask in several smaller"):
        asyncio.run(ReadInChildren(pool, 0.0)(_plan(), DELTA, DATASETS))
    assert pool.shown() == ()


def test_a_child_that_ends_is_named_and_the_next_plan_is_read(pool: Pool) -> None:
    def kill() -> None:
        os.kill(until(pool.shown, "a child reads")[0].pid, signal.SIGKILL)

    threading.Thread(target=kill).start()
    with pytest.raises(Crashed, match="SIGKILL"):
        asyncio.run(ReadInChildren(pool, 30.0)(_plan(), DELTA, DATASETS))
    assert asyncio.run(ReadInChildren(pool, 30.0)(_plan(), DELTA, DATASETS)).review.demands


def test_cancelling_the_wait_ends_the_child(pool: Pool) -> None:
    async def cancelled() -> None:
        reading = asyncio.create_task(ReadInChildren(pool, 30.0)(_plan(), DELTA, DATASETS))
        await asyncio.to_thread(until, pool.shown, "a child reads")
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert reading.cancelled()

    asyncio.run(cancelled())
    assert pool.shown() == ()
