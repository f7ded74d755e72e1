# SPDX-License-Identifier: Apache-2.0
"""The node's notices: raised whenever a task changes, kept for a while, told to whoever watches.

The latest are in memory. After a restart those of open tasks, and the ends of the others at hand, are derived again
from the journal, under the same ids; a watcher asks for a little more than it missed and drops what it has.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import cast
from weakref import WeakKeyDictionary

import msgspec

from junto.errors import InvalidInput
from junto.link import methods
from junto.link.connection import Answer, Caller
from junto.node.routes import Method
from junto.node.runner import Live
from junto.tasks.notices import KINDS, Kind, Notice, Severity, Sight, notice_id, notices, sight
from junto.tasks.state import Task
from junto.types import PartyId, TaskId

KEPT = 1000
"""The number of notices kept for latecomers."""

_TASKS = 1000
"""The number of tasks that one watcher may name."""

NO_TASK = TaskId("")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The wish of a watcher: every notice, unless tasks or kinds are named."""

    tasks: frozenset[TaskId] = frozenset()
    kinds: frozenset[Kind] = frozenset()

    def takes(self, notice: Notice) -> bool:
        """True if the notice is among them."""
        if self.tasks and notice.task not in self.tasks:
            return False
        return not self.kinds or notice.kind in self.kinds


def kinds_of(names: Iterable[str]) -> frozenset[Kind]:
    """Kinds by name. Raises InvalidInput that lists them all."""
    given = frozenset(names)
    unknown = sorted(given - frozenset(KINDS))
    if unknown:
        raise InvalidInput(f"no kind of notice is called {unknown[0]!r}: {', '.join(KINDS)}")
    return cast(frozenset[Kind], given)


class Notices:
    """All notices of one node."""

    def __init__(
        self,
        me: PartyId,
        absence_seconds: float,
        unix_time: Callable[[], float] = time.time,
        may_see: Callable[[str, TaskId], bool] = lambda user, task: True,
    ) -> None:
        """`may_see` says whether a user of ours may hear of a task."""
        self._me = me
        self._may_see = may_see
        self._absence = absence_seconds
        self._unix_time = unix_time
        self._sights: WeakKeyDictionary[Task, Sight] = WeakKeyDictionary()
        self._kept: deque[Notice] = deque()
        self._ids: set[str] = set()
        self._told = 0  # ever
        self._news = asyncio.Event()
        self.listeners: list[Callable[[Notice], None]] = []

    @property
    def routes(self) -> dict[str, Method]:
        """The methods that users may call."""
        return {methods.USER_NOTICES: self.watch}

    @property
    def now(self) -> float:
        """The clock that notices are dated by, unix seconds."""
        return self._unix_time()

    def look(self, live: Live) -> None:
        """Something about a task may have changed: raise the notices that this deserves."""
        task = live.task
        before = self._sights.get(task)
        after = sight(task, self._unix_time(), self._absence, before)
        self._sights[task] = after
        for notice in notices(before, after):
            self.tell(notice)

    def tell(self, notice: Notice) -> None:
        """Raise a notice, unless one of its id is known."""
        if notice.id in self._ids:
            return
        self._ids.add(notice.id)
        self._kept.append(notice)
        self._told += 1
        if len(self._kept) > KEPT:
            self._ids.discard(self._kept.popleft().id)
        self._news.set()
        self._news = asyncio.Event()
        for listener in self.listeners:
            listener(notice)

    def of_node(self, kind: Kind, about: str, text: str, severity: Severity, task: TaskId = NO_TASK) -> None:
        """Raise a notice that no task's state shows. `about` names the occurrence: the same one is told once."""
        id = notice_id(self._me, kind, task, about)
        self.tell(Notice(id, kind, task, self._me, self._me, text, self._unix_time(), severity))

    def teller(self, kind: Kind, severity: Severity) -> Callable[[str, str], None]:
        """Raises notices of one kind that no task's state shows: see `of_node`."""
        return lambda about, text: self.of_node(kind, about, text, severity)

    async def watch(self, caller: Caller, payload: bytes) -> Answer:
        """Notices as they are raised, without end."""
        try:
            asked = msgspec.json.decode(payload, type=methods.Follow)
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"the request is no Follow: {error}") from None
        if len(asked.tasks) > _TASKS:
            raise InvalidInput(f"{len(asked.tasks)} tasks to watch; at most {_TASKS}, or all of them by naming none")
        wanted = Wanted(frozenset(asked.tasks), kinds_of(asked.kinds))
        return self._pieces(caller.name.user, wanted, self._unix_time() - max(asked.past_seconds, 0.0))

    async def follow(self, wanted: Wanted, since: float) -> AsyncIterator[Notice]:
        """The wanted notices raised since then, and those to come; a notice says so if some were missed."""
        fresh = self._told  # from this number on, all are later than `since`
        number = self._oldest
        while True:
            news = self._news
            if number < self._oldest:
                missed, number = self._oldest - number, self._oldest
                yield self._gap(missed)
            elif number < self._told:
                notice = self._kept[number - self._oldest]
                if (number >= fresh or notice.at >= since) and wanted.takes(notice):
                    yield notice
                number += 1
            else:
                await news.wait()

    @property
    def _oldest(self) -> int:
        """The number of the oldest notice kept; the latest is number `_told - 1`."""
        return self._told - len(self._kept)

    def _gap(self, missed: int) -> Notice:
        text = f"{missed} notices came faster than they were read and are left out here"
        return Notice(
            notice_id(self._me, "gap", str(self._told)),
            "gap",
            NO_TASK,
            self._me,
            self._me,
            text,
            self._unix_time(),
            "warning",
        )

    async def _pieces(self, user: str, wanted: Wanted, since: float) -> AsyncIterator[bytes]:
        """The notices that the user may hear: of the node, and of tasks that the user may see."""
        async for notice in self.follow(wanted, since):
            if notice.task == NO_TASK or self._may_see(user, notice.task):
                yield msgspec.json.encode(told(notice))


def told(notice: Notice) -> methods.Notice:
    """A notice as users read it."""
    return methods.Notice(
        id=notice.id,
        kind=notice.kind,
        task=notice.task,
        party=notice.party,
        by=notice.by,
        text=notice.text,
        at=notice.at,
        severity=notice.severity,
    )
