# SPDX-License-Identifier: Apache-2.0
"""Two nodes of a party compute one fragment: the first output goes on, the second is compared when it comes.

The second runs beside the rest of the task and ends with it at the latest. It never fails the task: what keeps it from
being compared is told instead.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

from junto.errors import InvalidInput, JuntoError
from junto.logs import logger
from junto.node.comparing import Comparing, Gave, Run
from junto.node.spreading import Errand, HelperFailed, Pieces, Spreading
from junto.plan.certify import check_determined
from junto.plan.steps import Query
from junto.tasks.nodes import patience_seconds, placing_key
from junto.types import NodeId

_log = logger("junto.doubling")
T = TypeVar("T", bound=Gave)


class Doubling:
    """The fragments of one task that are computed twice."""

    def __init__(self, spreading: Spreading, comparing: Comparing) -> None:
        self._spreading = spreading
        self._comparing = comparing
        self._task = comparing.task
        self._seconds: set[asyncio.Task[None]] = set()

    async def computed(
        self, errand: Errand, keep: Callable[[Pieces], Awaitable[T]], here: Callable[[], Awaitable[T]]
    ) -> T:
        """The output of the node that gives one first, this one or a helper. Raises what `here` and `keep` raise."""
        spreading, me = self._spreading, self._spreading.nodes.me
        determined = await asyncio.to_thread(_determined, errand.step.sql)
        node, why = self._other(errand, determined)
        home = asyncio.create_task(self._home(errand, here), name=f"first {errand.step.id} {self._task}")
        if node is None:
            gave = await _ended(home)
            self._comparing.once(errand.step.id, why)
            return gave
        away = asyncio.create_task(spreading.away(errand, node, keep), name=f"second {errand.step.id} {self._task}")
        runs = {home: me, away: node}
        try:
            await asyncio.wait(runs, return_when=asyncio.FIRST_COMPLETED)
            good = [run for run in (home, away) if run.done() and not run.cancelled() and run.exception() is None]
            if not good:  # who failed was first: the other's output counts, if it gives one
                await asyncio.wait(runs)
                good = [run for run in (home, away) if not run.cancelled() and run.exception() is None]
        except BaseException:
            await _stopped(home, away)
            raise
        if not good:
            return await home  # its error is the step's
        first = good[0]
        other = away if first is home else home
        self._follow(self._second(errand.step, Run(runs[first], first.result()), other, runs[other]))
        return first.result()

    async def rest(self) -> None:
        """Return when every second result has been compared; one that is not is stopped when this is cancelled."""
        try:
            while self._seconds:
                await asyncio.wait(self._seconds)
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop what still runs."""
        await _stopped(*self._seconds)

    def _other(self, errand: Errand, determined: bool) -> tuple[NodeId | None, str]:
        """The node that computes a fragment, too; None if there is none, and why."""
        step, nodes = errand.step, self._spreading.nodes
        if not determined:
            return None, f"step {step.id} leaves open which rows LIMIT keeps, so two results could not be compared"
        if not nodes.helpers:
            return None, f"{step.party} has one node"
        if not patience_seconds(errand.left):
            return None, f"the task ends too soon for a second result of {step.party}"
        node = nodes.helper(placing_key(step))
        return node, "" if node is not None else f"{' and '.join(nodes.helpers)} of {step.party} had no free slot"

    async def _home(self, errand: Errand, here: Callable[[], Awaitable[T]]) -> T:
        async with self._spreading.at_home(errand.task, errand.step.id):
            return await here()

    async def _second(self, step: Query, first: Run, other: "asyncio.Task[T]", node: NodeId) -> None:
        try:
            second = Run(node, await _ended(other))
        except HelperFailed as error:
            _log.warning("a second result did not come", task=self._task, step=step.id, node=node, reason=str(error))
            self._comparing.once(step.id, f"{node} of {step.party} gave no second result")
        except JuntoError as error:
            _log.warning("a second result did not come", task=self._task, step=step.id, node=node, reason=str(error))
            self._comparing.once(step.id, f"{node} of {step.party} failed ({error.code})")
        else:
            await self._comparing.compared(step, first, second)

    def _follow(self, work: Coroutine[None, None, None]) -> None:
        job = asyncio.create_task(work, name=f"second {self._task}")
        self._seconds.add(job)
        job.add_done_callback(self._seconds.discard)


async def _ended(job: "asyncio.Task[T]") -> T:
    """The result of a job, which ends with whoever waits for it."""
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        await _stopped(job)
        raise


async def _stopped(*jobs: "asyncio.Task[T] | asyncio.Task[None]") -> None:
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)


def _determined(sql: str) -> bool:
    """True if a fragment gives the same rows of the same data."""
    try:
        check_determined(sql)
    except InvalidInput:
        return False
    return True
