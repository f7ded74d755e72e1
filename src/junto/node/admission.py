# SPDX-License-Identifier: Apache-2.0
"""The resources that this node gives to tasks, in real time: reserved before it offers, lent as slots to fragments.

`tasks/resources.py` decides; here its decisions wake those who wait. Time is the event loop's.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec

from junto.errors import Busy, Cancelled, Unavailable, error_from_code
from junto.link import methods
from junto.link.connection import Answer, Caller
from junto.logs import logger
from junto.node.routes import Method
from junto.node.runner import Live
from junto.node.top import seen
from junto.plan.steps import Query
from junto.tasks.capacity import Capacity
from junto.tasks.estimates import Needs, Pace, Past, Published, fragment_bytes, fragment_key, needs_of
from junto.tasks.events import Permitted
from junto.tasks.reservations import Denied, Granted, Lapsed, Outcome, Request, Started
from junto.tasks.resources import Resources
from junto.tasks.state import Task
from junto.tasks.table import ENDED
from junto.tasks.waiting import Patience
from junto.types import PartyId, StepId, TaskId

_log = logger("junto.admission")
_REMEMBERED = 1000
"""Fragments of which this node remembers what they took."""
_SHOWN_SECONDS = 0.5
_OF_THE_OFFERS = 0.75
"""A part that cannot be reserved is refused after so much of the time for offers, or of the task's if that is less: the
asker hears why in time."""


class Admission:
    """The resources of one node."""

    def __init__(
        self,
        me: PartyId,
        capacity: Capacity,
        patience: Patience,
        published: Published,
        fragment_memory: int,
        unix_time: Callable[[], float],
        nodes: Callable[[], tuple[methods.NodeLoad, ...]] = tuple,
    ) -> None:
        """`fragment_memory`: what one fragment may use before it spills. `nodes`: the party's, to be shown."""
        self._me = me
        self._patience = patience
        self._published = published
        self._fragment_memory = fragment_memory
        self._unix_time = unix_time
        self._nodes = nodes
        self._resources = Resources(me, capacity)
        self._reserving: dict[TaskId, asyncio.Future[None]] = {}
        self._starting: dict[tuple[TaskId, StepId], asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._pace = Pace()
        self._past: OrderedDict[str, Past] = OrderedDict()

    # ── reservations ────────────────────────────────────────────────────────────────────────────────

    async def admit(self, task: Task, verdict: Permitted) -> Permitted:
        """Our permission, once our part is reserved: with what it is expected to cost, its earliest start, and how long
        it is held without a contract. Raises Busy or Refused, naming what is missing and who has it."""
        if task.state in ENDED:
            raise Cancelled(f"task {task.id} has ended")
        now, clock = _now(), self._unix_time()
        heard_in = min(self._patience.offer_seconds, task.deadline - task.asked_at)
        waits = max(task.asked_at + heard_in * _OF_THE_OFFERS - clock, 0.0)
        holds = max(min(task.offers_due + self._patience.absence_seconds, task.deadline) - clock, waits)
        needs = self._needs(task)
        await self._reserve(self._request(task, needs, now, now + waits), now + holds)
        starts = self._resources.starts_in(task.id, _now())
        left = max(now + holds - _now(), 0.0)
        return replace(verdict, estimate=needs.estimate, starts=round(starts, 3), reserves=round(left, 3))

    def adopt(self, task: Task) -> None:
        """Hold again what was reserved for an open task before this process began."""
        now = _now()
        until = now + self._patience.offer_seconds + self._patience.absence_seconds
        request = self._request(task, self._needs(task), now, now)
        self._resources.adopt(request, None if task.state == "running" else until)
        self._follow(self._resources.advance(now))

    async def begin(self, task: Task) -> None:
        """The contract is here. Raises Busy if the reservation has lapsed and nothing is free now."""
        if not self._resources.contracted(task.id):
            now = _now()
            try:
                request = self._request(task, self._needs(task), now, now)
                await self._reserve(request, now + self._patience.absence_seconds)
            except Busy as error:
                raise Busy(f"what was reserved lapsed before the contract came; {error}") from error
            self._resources.contracted(task.id)

    def look(self, live: Live) -> None:
        """A task has changed: one that ended holds and waits for nothing."""
        if live.task.state in ENDED and self._resources.knows(live.task.id):
            self.release(live.task.id)

    def release(self, task: TaskId) -> None:
        """Let go of all that a task holds or waits for, but slots: those end with their fragments."""
        steps = [waiting for (of, _), waiting in self._starting.items() if of == task]
        for waiting in (self._reserving.get(task), *steps):
            _end(waiting, Cancelled(f"task {task} has ended"))
        self._follow(self._resources.release(task, _now()))

    async def _reserve(self, request: Request, holds_until: float) -> None:
        granted = self._reserving[request.task] = asyncio.get_running_loop().create_future()
        try:
            self._follow(self._resources.request(request, holds_until))
            await granted
        except BaseException:
            self._follow(self._resources.release(request.task, _now()))
            raise
        finally:
            del self._reserving[request.task]

    def _request(self, task: Task, needs: Needs, now: float, until: float) -> Request:
        return Request(task.id, task.asker, needs.amount, task.proposal.priority, now, until, needs.estimate.seconds)

    def _needs(self, task: Task) -> Needs:
        return needs_of(task.proposal.plan, self._me, self._published, self._pace, self._past, self._fragment_memory)

    # ── slots ───────────────────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def slot(self, task: TaskId, step: StepId) -> AsyncIterator[None]:
        """A slot while the context lasts; waited for until there is one. Raises Cancelled if the task ends."""
        given = self._starting[task, step] = asyncio.get_running_loop().create_future()
        try:
            self._follow(self._resources.take_slot(task, step, _now()))
            await given
            yield
        finally:
            del self._starting[task, step]
            self._follow(self._resources.give_slot(task, step, _now()))

    def slots_are(self, slots: int) -> None:
        """Set the number of fragments that may compute at once from now on, on all nodes of the party together."""
        self._follow(self._resources.slots_are(slots, _now()))

    def ran(self, step: Query, rows: int, seconds: float) -> None:
        """A fragment of ours gave so many rows in so many seconds: what is expected of the next one follows."""
        self._pace = self._pace.after(fragment_bytes(step, self._published), seconds)
        key = fragment_key(step)
        self._past[key] = Past(rows, seconds)
        self._past.move_to_end(key)
        if len(self._past) > _REMEMBERED:
            self._past.popitem(last=False)

    # ── to be seen ──────────────────────────────────────────────────────────────────────────────────

    @property
    def routes(self) -> dict[str, Method]:
        """The methods that operators may call."""
        return {methods.OPERATOR_TOP: self.top}

    async def top(self, caller: Caller, payload: bytes) -> Answer:
        """The shares given to each party, and those who wait, now and every moment."""
        return self._shown()

    async def _shown(self) -> AsyncIterator[bytes]:
        while True:
            yield msgspec.json.encode(self.view())
            await asyncio.sleep(_SHOWN_SECONDS)

    def view(self) -> methods.Top:
        """Everything now."""
        top = seen(self._me, self._resources, _now(), self._unix_time())
        return msgspec.structs.replace(top, nodes=self._nodes())

    def why(self, task: TaskId) -> str:
        """The lack for which a task waits here, in words; empty if it waits for nothing."""
        return self._resources.why(task, _now())

    # ── who waits ───────────────────────────────────────────────────────────────────────────────────

    def _follow(self, outcomes: list[Outcome]) -> None:
        """Wake those who have what they waited for, and see when time alone changes something."""
        for outcome in outcomes:
            match outcome:
                case Granted(task):
                    _end(self._reserving.get(task), None)
                case Started(task, step):
                    _end(self._starting.get((task, step)), None)
                case Denied(task, code, reason, retry_after):
                    error = error_from_code(code, reason)
                    if isinstance(error, Unavailable):
                        error.retry_after_seconds = retry_after
                    _end(self._reserving.get(task), error)
                case Lapsed(task):
                    _log.info("a reservation lapsed: no contract came", task=task)
        if self._timer is not None:
            self._timer.cancel()
        due = self._resources.wakes()
        self._timer = asyncio.get_running_loop().call_at(due, self._tick) if due is not None else None

    def _tick(self) -> None:
        self._follow(self._resources.advance(_now()))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _end(waiting: "asyncio.Future[None] | None", error: Exception | None) -> None:
    if waiting is None or waiting.done():
        return
    if error is None:
        waiting.set_result(None)
    else:
        waiting.set_exception(error)
