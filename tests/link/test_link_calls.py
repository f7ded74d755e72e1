# SPDX-License-Identifier: Apache-2.0
"""Calls, notices and streams between two nodes, over real TLS on loopback."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest
from link_world import World, echo, links_of

from junto.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidInput,
    JuntoError,
    OutOfMemory,
    Refused,
    Unavailable,
)
from junto.link.connection import Answer, Caller, Handler, Link
from junto.link.dial import dial
from junto.link.frames import PAYLOAD_BYTES, PIECE_BYTES
from junto.link.settings import LinkSettings
from junto.types import PartyId

UNITED = PartyId("united")


def between(
    handlers: Mapping[str, Handler],
    test: Callable[[Link, Link], Awaitable[None]],
    settings: LinkSettings | None = None,
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run the test with both ends of a link: united's, which dialled, and delta's, which has the handlers."""
    world = World()
    charter = world.charter()

    async def run() -> None:
        async with links_of(world.here("delta", charter), charter, handlers, settings=settings) as links:
            link = await dial(
                world.here("united", charter), links.listening[0], handlers={"echo": echo}, settings=settings
            )
            await test(link, await links.to(UNITED, 5))
            await link.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


def test_calls_go_both_ways_over_one_link() -> None:
    async def test(united: Link, delta: Link) -> None:
        assert await united.call("echo", b"out", timeout_seconds=5) == b"out"
        assert await delta.call("echo", b"back", timeout_seconds=5) == b"back"

    between({"echo": echo}, test)


def test_a_handler_learns_who_asks_how_long_it_has_and_the_trace() -> None:
    seen: list[Caller] = []

    async def look(caller: Caller, payload: bytes) -> Answer:
        seen.append(caller)
        assert 8 < caller.remaining_seconds <= 9
        return b""

    async def test(united: Link, delta: Link) -> None:
        await united.call("look", timeout_seconds=9, trace="00-abc-def-01")
        (caller,) = seen
        assert (str(caller.name), caller.method, caller.trace) == ("united/main", "look", "00-abc-def-01")
        assert caller.link is delta

    between({"look": look}, test)


def test_a_junto_error_crosses_with_its_code_and_message() -> None:
    async def refuse(caller: Caller, payload: bytes) -> Answer:
        raise Refused("rule 3 of flights forbids tailnum")

    async def test(united: Link, delta: Link) -> None:
        with pytest.raises(Refused, match="rule 3 of flights forbids tailnum"):
            await united.call("refuse", timeout_seconds=5)

    between({"refuse": refuse}, test)


def test_any_other_error_crosses_without_a_word() -> None:
    async def fail(caller: Caller, payload: bytes) -> Answer:
        raise ValueError("secret value 42")

    async def test(united: Link, delta: Link) -> None:
        with pytest.raises(JuntoError) as caught:
            await united.call("fail", timeout_seconds=5)
        assert type(caught.value) is JuntoError
        assert str(caught.value) == ""
        assert await united.call("echo", b"goes on", timeout_seconds=5) == b"goes on"

    between({"fail": fail, "echo": echo}, test)


def test_a_method_nobody_answers_is_the_callers_mistake() -> None:
    async def test(united: Link, delta: Link) -> None:
        with pytest.raises(InvalidInput, match="no method 'nothing' here"):
            await united.call("nothing", timeout_seconds=5)

    between({}, test)


def test_a_payload_that_fits_no_frame_is_refused_on_both_ways() -> None:
    async def large(caller: Caller, payload: bytes) -> Answer:
        return bytes(PAYLOAD_BYTES + 1)

    async def test(united: Link, delta: Link) -> None:
        with pytest.raises(InvalidInput, match="stream it"):
            await united.call("large", bytes(PAYLOAD_BYTES + 1), timeout_seconds=5)
        with pytest.raises(InvalidInput, match="stream it"):
            await united.call("large", timeout_seconds=5)
        assert len(await united.call("echo", bytes(PAYLOAD_BYTES), timeout_seconds=5)) == PAYLOAD_BYTES

    between({"large": large, "echo": echo}, test)


class Stuck:
    """A handler that never answers, and knows when it began and when it was cancelled."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, caller: Caller, payload: bytes) -> Answer:
        self.began.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.cancelled.set()
        return b""


def test_a_deadline_names_whom_it_waited_for_and_stops_the_work() -> None:
    stuck = Stuck()

    async def test(united: Link, delta: Link) -> None:
        with pytest.raises(DeadlineExceeded, match=r"delta/main did not answer stuck within 0\.05 s"):
            await united.call("stuck", timeout_seconds=0.05)
        await stuck.cancelled.wait()
        assert await united.call("echo", b"goes on", timeout_seconds=5) == b"goes on"

    between({"stuck": stuck, "echo": echo}, test)


def test_a_cancelled_call_cancels_the_handler() -> None:
    stuck = Stuck()

    async def test(united: Link, delta: Link) -> None:
        call = asyncio.create_task(united.call("stuck", timeout_seconds=60))
        await stuck.began.wait()
        call.cancel()
        await stuck.cancelled.wait()
        with pytest.raises(asyncio.CancelledError):
            await call

    between({"stuck": stuck}, test)


def test_a_handler_that_cancels_itself_ends_the_call() -> None:
    async def give_up(caller: Caller, payload: bytes) -> Answer:
        raise Cancelled("somebody cancelled task 7")

    async def test(united: Link, delta: Link) -> None:
        with pytest.raises(Cancelled, match="task 7"):
            await united.call("give_up", timeout_seconds=5)

    between({"give_up": give_up}, test)


def test_a_call_whose_link_drops_is_unavailable_and_its_handler_is_cancelled() -> None:
    stuck = Stuck()

    async def test(united: Link, delta: Link) -> None:
        call = asyncio.create_task(united.call("stuck", timeout_seconds=60))
        await stuck.began.wait()
        delta.abort("the cable was cut")
        with pytest.raises(Unavailable, match="the link to delta/main went down"):
            await call
        await stuck.cancelled.wait()
        with pytest.raises(Unavailable):
            await united.call("stuck", timeout_seconds=5)

    between({"stuck": stuck}, test)


def test_more_calls_than_the_peer_serves_wait_their_turn() -> None:
    most = now = 0

    async def count(caller: Caller, payload: bytes) -> Answer:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return payload

    async def test(united: Link, delta: Link) -> None:
        answers = await asyncio.gather(*(united.call("count", str(n).encode(), timeout_seconds=10) for n in range(100)))
        assert answers == [str(n).encode() for n in range(100)]
        assert most <= 4

    between({"count": count}, test, LinkSettings(calls=4))


def test_a_notice_arrives_and_a_failing_one_harms_nothing() -> None:
    heard: list[bytes] = []
    arrived = asyncio.Event()

    async def hear(caller: Caller, payload: bytes) -> Answer:
        heard.append(payload)
        if payload == b"last":
            arrived.set()
        raise Refused("no answer is sent")

    async def test(united: Link, delta: Link) -> None:
        united.notify("notice.nobody-listens", b"")
        united.notify("notice.hear", b"first")
        united.notify("notice.hear", b"last")
        await arrived.wait()
        assert heard == [b"first", b"last"]

    between({"notice.hear": hear}, test)


async def count_up(caller: Caller, payload: bytes) -> Answer:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(int(payload)):
            yield str(number).encode()

    return pieces()


def test_a_streams_pieces_arrive_as_they_were_given() -> None:
    async def test(united: Link, delta: Link) -> None:
        found = [piece async for piece in united.stream("count_up", b"1000", timeout_seconds=10)]
        assert found == [str(number).encode() for number in range(1000)]

    between({"count_up": count_up}, test)


def test_a_large_piece_is_split_and_loses_nothing() -> None:
    content = bytes(range(256)) * 4 * 1024 * 10

    async def large(caller: Caller, payload: bytes) -> Answer:
        return content

    async def test(united: Link, delta: Link) -> None:
        found = [piece async for piece in united.stream("large", timeout_seconds=10)]
        assert b"".join(found) == content
        assert max(map(len, found)) == PIECE_BYTES

    between({"large": large}, test)


def test_a_stalled_reader_stops_the_writer_at_its_window() -> None:
    given = 0

    async def endless(caller: Caller, payload: bytes) -> Answer:
        async def pieces() -> AsyncIterator[bytes]:
            nonlocal given
            while True:
                given += 100_000
                yield bytes(100_000)

        return pieces()

    async def test(united: Link, delta: Link) -> None:
        reading = united.stream("endless", timeout_seconds=60)
        await anext(reading)
        for _ in range(20):
            await united.ping(5)  # whatever was under way has arrived by now
        assert 2 * 1024 * 1024 - 100_000 < given <= 2 * 1024 * 1024 + 200_000
        taken = 100_000
        async for piece in reading:
            taken += len(piece)
            if taken > 10 * 1024 * 1024:
                break
        await reading.aclose()
        assert given <= taken + 2 * 1024 * 1024 + 200_000
        assert await united.call("echo", b"goes on", timeout_seconds=5) == b"goes on"

    between({"endless": endless, "echo": echo}, test, LinkSettings(window_bytes=2 * 1024 * 1024))


def test_leaving_a_stream_early_closes_the_handlers_iterator() -> None:
    closed = asyncio.Event()

    async def endless(caller: Caller, payload: bytes) -> Answer:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"more"
            finally:
                closed.set()

        return pieces()

    async def test(united: Link, delta: Link) -> None:
        reading = united.stream("endless", timeout_seconds=60)
        assert await anext(reading) == b"more"
        await reading.aclose()
        await closed.wait()

    between({"endless": endless}, test)


def test_an_error_in_a_stream_comes_after_the_pieces_before_it() -> None:
    async def break_off(caller: Caller, payload: bytes) -> Answer:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            raise OutOfMemory("needs 9 GB, may use 4 GB")

        return pieces()

    async def test(united: Link, delta: Link) -> None:
        reading = united.stream("break_off", timeout_seconds=5)
        assert await anext(reading) == b"one"
        with pytest.raises(OutOfMemory, match="needs 9 GB"):
            await anext(reading)

    between({"break_off": break_off}, test)


def test_a_stream_has_a_deadline() -> None:
    stuck = Stuck()

    async def test(united: Link, delta: Link) -> None:
        with pytest.raises(DeadlineExceeded, match="delta/main did not answer stuck"):
            async for _ in united.stream("stuck", timeout_seconds=0.05):
                pass
        await stuck.cancelled.wait()

    between({"stuck": stuck}, test)


def test_a_stream_asked_as_a_call_says_so() -> None:
    async def test(united: Link, delta: Link) -> None:
        with pytest.raises(InvalidInput, match="answers with a stream: open one"):
            await united.call("count_up", b"3", timeout_seconds=5)

    between({"count_up": count_up}, test)


def test_closing_lets_what_is_under_way_finish() -> None:
    began, release = asyncio.Event(), asyncio.Event()

    async def slow(caller: Caller, payload: bytes) -> Answer:
        began.set()
        await release.wait()
        return b"done"

    async def test(united: Link, delta: Link) -> None:
        call = asyncio.create_task(united.call("slow", timeout_seconds=30))
        await began.wait()
        closing = asyncio.create_task(delta.close(grace_seconds=30))
        await united.ping(5)
        release.set()
        assert await call == b"done"
        await closing
        assert "the node is stopping" in await united.closed

    between({"slow": slow}, test)


def test_uvloop_serves_as_well() -> None:
    uvloop = pytest.importorskip("uvloop", reason="a faster event loop, where there is one")
    content = bytes(range(256)) * 4096 * 3

    async def large(caller: Caller, payload: bytes) -> Answer:
        return content

    async def test(united: Link, delta: Link) -> None:
        assert await delta.call("echo", b"back", timeout_seconds=5) == b"back"
        assert b"".join([piece async for piece in united.stream("large", timeout_seconds=10)]) == content
        with pytest.raises(DeadlineExceeded):
            await united.call("stuck", timeout_seconds=0.05)
        delta.abort("the cable was cut")
        with pytest.raises(Unavailable):
            await united.call("large", timeout_seconds=5)

    between({"large": large, "stuck": Stuck()}, test, loop=uvloop.new_event_loop)
