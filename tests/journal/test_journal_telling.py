# SPDX-License-Identifier: Apache-2.0
"""What a writer's thread tells an event loop: each its own outcome, all in one call, and nobody who left."""

import asyncio
import threading

import pytest

from junto.errors import StorageFailed
from junto.journal.telling import Told, tell


def _in_a_thread(work: "list[Told[int]]", outcomes: "list[int | Exception]") -> None:
    def writes() -> None:
        for told, outcome in zip(work, outcomes, strict=True):
            if isinstance(outcome, Exception):
                told.set_exception(outcome)
            else:
                told.set_result(outcome)
        tell(work)

    thread = threading.Thread(target=writes)
    thread.start()
    thread.join()


def test_each_hears_its_own_outcome_after_one_call_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        calls: list[int] = []
        really = loop.call_soon_threadsafe

        def counted(*given: object, **options: object) -> asyncio.Handle:
            calls.append(1)
            return really(*given, **options)  # type: ignore[arg-type]  # passed on as it came

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        waiting: list[Told[int]] = [Told(), Told(), Told()]
        _in_a_thread(waiting, [1, StorageFailed("full"), 3])
        assert await waiting[0].heard() == 1
        with pytest.raises(StorageFailed, match="full"):
            await waiting[1].heard()
        assert await waiting[2].heard() == 3
        assert len(calls) == 1

    asyncio.run(scenario())


def test_who_is_cancelled_before_the_writer_begins_is_withdrawn() -> None:
    async def scenario() -> None:
        stays: Told[int] = Told()
        leaves: Told[int] = Told()
        hearing = asyncio.create_task(leaves.heard())
        await asyncio.sleep(0)
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
        assert not leaves.set_running_or_notify_cancel()
        assert stays.set_running_or_notify_cancel()
        _in_a_thread([leaves, stays], [1, 2])
        assert await stays.heard() == 2

    asyncio.run(scenario())


def test_a_loop_that_is_closed_needs_no_telling() -> None:
    async def made() -> "Told[int]":
        return Told()

    told = asyncio.run(made())
    _in_a_thread([told], [1])
