# SPDX-License-Identifier: Apache-2.0
"""An event loop whose time is a number: it jumps to the next timer, and nothing ever sleeps.

Work for threads runs inline, at a moment of virtual time that a seeded source draws. Tasks and futures hash by their
number, so that sets of them iterate alike in every process. Everything that runs belongs to a *process* (a context
variable): a process that is killed begins nothing more, one that is paused is held until it goes on. For a slow one
time passes with every look at a clock, not only while it waits; it does the next thing when that time has come for all.
"""

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar, cast

T = TypeVar("T")

_EARLY_SECONDS = 0.001
"""A node's timer fires so much before its moment at most."""
_BEHIND_SECONDS = 0.5
"""A slow process whose work waits for longer is not yet back."""


class Process:
    """A simulated process: one start of one node, or the harness itself."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.paused = False
        self.slow = 0.0  # so many seconds pass at most before it looks at a clock
        self.busy_until = 0.0
        self.resumed_at = 0.0  # when it was started, went on after a pause, or had caught up


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class Stuck(Exception):
    """Nothing is ready and no timer is set: everybody waits for somebody else."""


class _Task(asyncio.Task[Any]):
    def __init__(
        self, coroutine: Any, *, loop: "SimLoop", number: int, process: Process | None, **options: Any
    ) -> None:
        self.number = number
        self.process = process
        super().__init__(coroutine, loop=loop, **options)

    def __hash__(self) -> int:
        return self.number


class _Future(asyncio.Future[Any]):
    number = 0

    def __hash__(self) -> int:
        return self.number


class _Handle(asyncio.TimerHandle):
    """Something that is to run; without what asyncio notes for its debug mode."""

    __slots__ = ("late_since", "timed")

    def __init__(  # what the base class sets up is for its own loop
        self, callback: Callable[..., object], args: tuple[object, ...], context: Context | None, timed: bool
    ) -> None:
        self.timed = timed
        self.late_since: float | None = None
        self._callback = callback
        self._args = args
        self._context = context if context is not None else copy_context()
        self._cancelled = False
        self._source_traceback = self._repr = None

    def cancel(self) -> None:
        """Drop the callback and everything it would have called."""
        self._cancelled = True
        self._callback, self._args = _nothing, ()


def _nothing() -> None:
    """The callback of a cancelled handle."""


class SimLoop(asyncio.BaseEventLoop):
    """Deterministic: the same seed and the same program give the same run."""

    def __init__(self, schedule: random.Random, thread_seconds: float = 0.002) -> None:
        super().__init__()
        self._now = 0.0
        self._schedule = schedule
        self._thread_seconds = thread_seconds
        self._numbers = 0
        self._timers: list[tuple[float, int, _Handle]] = []
        self._set = 0
        self._held: list[Any] = []
        self.events = 0
        self.most_events = 3_000_000
        self.every_events = 500
        self.now_and_then: Callable[[], None] = lambda: None  # called once in so many events
        self.faults: list[str] = []
        self.tasks: dict[int, _Task] = {}
        self.set_exception_handler(self._note)

    # ── what asyncio asks of a loop ──

    def time(self) -> float:
        """Seconds since the run began; a slow process finds that some have passed since it looked last."""
        process = PROCESS.get()
        if process is None or process.dead:
            return self._now
        if process.slow:
            process.busy_until = max(process.busy_until, self._now) + self._schedule.random() * process.slow
        return max(process.busy_until, self._now)

    def create_future(self) -> asyncio.Future[Any]:
        """A future that hashes by its number."""
        future = _Future(loop=self)
        self._numbers += 1
        future.number = self._numbers
        return future

    def run_in_executor(  # type: ignore[override]  # as the base class, without its variadic types
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """The work of a thread, done at a moment from now."""
        future: asyncio.Future[T] = self.create_future()
        process = PROCESS.get()
        if process is not None and process.dead:  # what it would have tidied up stays as it is
            future.cancel()
            return future

        def work() -> None:
            if process is not None and process.dead:
                future.cancel()
                return
            try:
                result = func(*args)
            except BaseException as error:  # noqa: BLE001  # it is the thread's, and goes to who waits for it
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        self.call_later(self._schedule.random() * self._thread_seconds, work)
        return future

    def _write_to_self(self) -> None:
        """There is one thread, and nobody to wake."""

    def _process_events(self, event_list: Any) -> None:
        raise AssertionError("no selector")

    def call_soon(  # type: ignore[override]  # as the base class, without its variadic types
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Run it in the next round."""
        handle = _Handle(callback, args, context, False)
        cast(Any, self)._ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]  # as the base class, without its variadic types
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """The same: there is one thread."""
        return self.call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]  # as the base class, without its variadic types
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run it at a moment, or a little before: the loop that nodes run on rounds to milliseconds. Of two at the same
        moment the one first set."""
        process = PROCESS.get()
        if process is not None and when - self._now > _EARLY_SECONDS:
            when -= self._schedule.random() * _EARLY_SECONDS
        timer = _Handle(callback, args, context, True)
        self._set += 1
        heapq.heappush(self._timers, (when, self._set, timer))
        return timer

    def _run_once(self) -> None:
        inner = cast(Any, self)  # what asyncio keeps for itself
        ready: deque[Any] = inner._ready
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not ready:
            if not timers:
                if inner._stopping:
                    return
                raise Stuck("nothing is ready and no timer is set")
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(PROCESS)
            if process is not None:
                if process.paused:
                    self._held.append(handle)
                    continue
                if process.dead and handle.timed:
                    continue
                if process.busy_until > self._now and not process.dead:
                    handle.late_since = handle.late_since or self._now
                    self._set += 1
                    heapq.heappush(timers, (process.busy_until, self._set, handle))
                    continue
                if handle.late_since is not None and self._now > handle.late_since + _BEHIND_SECONDS:
                    process.resumed_at = self._now
            self.events += 1
            try:
                handle._context.run(handle._callback, *handle._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001  # as asyncio: a callback's failure is told, the loop goes on
                self.call_exception_handler({"message": f"exception in {handle._callback}", "exception": error})
            if self.events % self.every_events == 0:
                if self.events > self.most_events:
                    raise Stuck(f"{self.events} events, and no end: somebody turns in a circle")
                self.now_and_then()

    def close(self) -> None:
        """Close the loop: it runs no more, and holds nobody."""
        super().close()
        self._timers.clear()
        self._held.clear()

    # ── processes ──

    def go_on(self, process: Process) -> None:
        """A paused process runs again."""
        process.paused = False
        process.resumed_at = self._now
        mine = [handle for handle in self._held if handle._context.get(PROCESS) is process]
        self._held = [handle for handle in self._held if handle._context.get(PROCESS) is not process]
        cast(Any, self)._ready.extend(mine)

    def kill(self, process: Process) -> None:
        """Nothing of a process runs any more, except that its coroutines are unwound without effect."""
        process.dead = True
        self.go_on(process)
        for task in [task for task in self.tasks.values() if task.process is process]:
            task.cancel()

    def create_task(  # type: ignore[override]  # as the base class, whose type lets loops differ
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[T]:
        """A task of the process that makes it, or of the one that `context` names."""
        self._numbers += 1
        process = context.get(PROCESS) if context is not None else PROCESS.get()
        task = _Task(coro, loop=self, number=self._numbers, process=process, name=name or "", context=context)
        self.tasks[task.number] = task
        task.add_done_callback(self._done)
        if process is not None and process.dead:
            task.cancel()
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(cast(_Task, task).number, None)

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        task = context.get("task") or context.get("future")
        process = getattr(task, "process", None)
        if process is not None and process.dead:
            return
        self.faults.append(f"{context.get('message')}: {error!r}")
