# SPDX-License-Identifier: Apache-2.0
"""A loop in its own thread: plain calls get results and errors, and an interrupt stops what it interrupts."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from junto.client.portal import Portal
from junto.errors import Unavailable


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal()
    portal.start()
    yield portal
    portal.stop()


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Python's own answer to Ctrl-C, which a process started in the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _interrupt() -> None:
    """What Ctrl-C does: the main thread is woken from whatever it does."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


async def _number() -> int:
    await asyncio.sleep(0)
    return 42


def test_a_coroutine_gives_its_result_to_any_thread(portal: Portal) -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(portal.run(_number()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == [42] * 4


def test_a_coroutine_raises_what_it_raises(portal: Portal) -> None:
    async def fails() -> None:
        raise Unavailable("the node is gone")

    with pytest.raises(Unavailable, match="the node is gone"):
        portal.run(fails())


def test_an_interrupt_of_the_caller_cancels_what_it_waited_for(portal: Portal) -> None:
    ended = threading.Event()

    async def forever() -> None:
        try:
            _interrupt()
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        portal.run(forever())
    assert ended.wait(10)
    assert portal.run(_number()) == 42


class _Stream:
    """Counts up, and notes when it was closed."""

    def __init__(self, interrupted_at: int | None = None) -> None:
        self.closed = threading.Event()
        self._interrupted_at = interrupted_at

    async def __call__(self) -> AsyncIterator[int]:
        try:
            for number in range(5):
                if number == self._interrupted_at:
                    _interrupt()
                    await asyncio.get_running_loop().create_future()
                yield number
        finally:
            self.closed.set()


def test_a_stream_is_iterated_to_its_end(portal: Portal) -> None:
    assert list(portal.iterate(_Stream())) == [0, 1, 2, 3, 4]


def test_a_stream_that_is_left_early_is_closed_at_once(portal: Portal) -> None:
    stream = _Stream()
    items = portal.iterate(stream)
    assert next(items) == 0
    assert not stream.closed.is_set()
    items.close()  # type: ignore[attr-defined]  # a generator, as every iterator written with yield
    assert stream.closed.is_set()


def test_an_interrupted_stream_is_closed(portal: Portal) -> None:
    stream = _Stream(interrupted_at=2)
    with pytest.raises(KeyboardInterrupt):
        list(portal.iterate(stream))
    assert stream.closed.wait(10)


def test_stopping_cancels_what_still_runs() -> None:
    portal = Portal()
    portal.start()
    begun, ended = threading.Event(), threading.Event()

    async def forever() -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    caught: list[BaseException] = []

    def call() -> None:
        try:
            portal.run(forever())
        except BaseException as error:  # noqa: BLE001  # whatever it is, it must end the call
            caught.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    assert begun.wait(10)
    portal.stop()
    caller.join(10)
    assert ended.is_set()
    assert not caller.is_alive()
    assert len(caught) == 1


def test_stopping_does_not_wait_for_ever_for_what_takes_a_cancellation_for_something_else() -> None:
    portal = Portal()
    portal.start()
    cancelled: list[int] = []

    async def deaf() -> None:
        for number in range(2):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(number)  # as if it had been the end of what it waited for
        await asyncio.Event().wait()

    async def begin() -> asyncio.Task[None]:
        return asyncio.create_task(deaf())

    task = portal.run(begin())
    stopping = threading.Thread(target=portal.stop)
    stopping.start()
    stopping.join(10)
    assert (stopping.is_alive(), cancelled, task.cancelled()) == (False, [0, 1], True)


def test_a_portal_that_is_closed_says_so_and_stops_twice() -> None:
    portal = Portal()
    with pytest.raises(RuntimeError, match="closed"):
        portal.run(_number())
    portal.start()
    portal.stop()
    portal.stop()
    with pytest.raises(RuntimeError, match="closed"):
        portal.run(_number())
