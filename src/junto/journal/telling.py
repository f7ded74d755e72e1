# SPDX-License-Identifier: Apache-2.0
"""Messages from the writer's thread to those who wait on an event loop: a whole batch in one call across threads.

A `concurrent.futures.Future` for each costs a lock, and a wake of the loop, that both threads contend for.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Told(Generic[T]):
    """A waiter on the loop on which it was made. The writer sees as much of a future as it needs."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[T] = self.loop.create_future()
        self._withdrawn = False
        self._outcome: tuple[T] | BaseException | None = None

    async def heard(self) -> T:
        """The result told. If cancelled before the writer began with the request, the request is withdrawn."""
        try:
            return await self._waiter
        except asyncio.CancelledError:
            self._withdrawn = True
            raise

    def set_running_or_notify_cancel(self) -> bool:
        """True if the result is still wanted; asked by the writer."""
        return not self._withdrawn

    def set_result(self, result: T) -> None:
        """Set the result that `tell` will tell; called by the writer."""
        self._outcome = (result,)

    def set_exception(self, error: BaseException) -> None:
        """Set the error that `tell` will raise where it is waited for; called by the writer."""
        self._outcome = error

    def resolve(self) -> None:
        """Give the waiter its result; called in the loop."""
        if self._waiter.done() or self._outcome is None:
            return
        if isinstance(self._outcome, BaseException):
            self._waiter.set_exception(self._outcome)
        else:
            self._waiter.set_result(self._outcome[0])


def tell(waiting: Iterable[object]) -> None:
    """Tell those who wait on loops what was set for them; others have heard already."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Told[object]]] = defaultdict(list)
    for one in waiting:
        if isinstance(one, Told):
            by_loop[one.loop].append(one)
    for loop, told in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits there
            loop.call_soon_threadsafe(_resolve, told)


def _resolve(told: "list[Told[object]]") -> None:
    for one in told:
        one.resolve()
