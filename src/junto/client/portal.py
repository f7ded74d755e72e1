# SPDX-License-Identifier: Apache-2.0
"""An event loop in a thread of its own, so that plain functions can use a link."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

_LOOK_SECONDS = 0.5
"""A thread that waits for a lock does not see a signal that came a moment before; so it looks up now and then."""

_CANCEL_ROUNDS = 10
_CANCEL_SECONDS = 0.5


def event_loop() -> asyncio.AbstractEventLoop:
    """A new event loop: uvloop's where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class _Job(Generic[T]):
    """A coroutine for the loop, there before it is handed over: an interrupt at any moment can cancel it."""

    def __init__(self, work: Coroutine[object, object, T]) -> None:
        self.result: Future[T] = Future()
        self._work = work
        self._task: asyncio.Task[T] | None = None
        self._cancelled = False

    def start(self) -> None:
        """Begin the work in the loop, unless it was cancelled before."""
        if not self._cancelled:
            self._task = asyncio.ensure_future(self._work)
            self._task.add_done_callback(self._ended)

    def cancel(self) -> None:
        """End the work in the loop, also if it never began."""
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()
        else:
            self._work.close()

    def _ended(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.result.cancel()
            self.result.set_running_or_notify_cancel()  # which wakes whoever waits for it
        elif (error := task.exception()) is not None:
            self.result.set_exception(error)
        else:
            self.result.set_result(task.result())


class Portal:
    """Runs coroutines from any thread. `start` and `stop` it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the loop's thread."""
        loop = event_loop()
        self._loop = loop
        self._thread = threading.Thread(target=loop.run_forever, name="junto client", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Cancel what still runs, and end the thread."""
        if self._loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = None

    def run(self, work: Coroutine[object, object, T]) -> T:
        """The coroutine's result. An interrupt of the calling thread cancels it."""
        if self._loop is None:
            work.close()
            raise RuntimeError("the desk is closed")
        job = _Job(work)
        try:
            self._loop.call_soon_threadsafe(job.start)
            while not wait([job.result], _LOOK_SECONDS).done:
                pass  # a signal that came just before the wait began is noticed now
            return job.result.result()
        except BaseException:
            self._loop.call_soon_threadsafe(job.cancel)
            raise

    def iterate(self, stream: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
        """The stream's items, each awaited in turn."""
        iterator = stream()
        try:
            while (item := self.run(_next(iterator))) is not None:
                yield item[0]
        finally:
            if self._loop is not None and isinstance(iterator, AsyncGenerator):
                self.run(_closed(iterator))


async def _next(iterator: AsyncIterator[T]) -> tuple[T] | None:
    async for item in iterator:
        return (item,)
    return None


async def _closed(iterator: AsyncGenerator[T, None]) -> None:
    with suppress(RuntimeError):  # an interrupted step is still ending it
        await iterator.aclose()


async def _cancel_all() -> None:
    """Cancel everything, again if need be: a task may take a cancellation for the end of what it was waiting for."""
    for _ in range(_CANCEL_ROUNDS):
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)
