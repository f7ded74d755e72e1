# SPDX-License-Identifier: Apache-2.0
"""The proxy of the chaos tests: what it does to a connection is what it says."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from junto.testing.proxy import Proxy, Weather

_SOON = 5.0
_NEVER = 0.1


class _Echo:
    """A server that sends back what it gets."""

    async def __aenter__(self) -> "_Echo":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = "127.0.0.1", int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()


class _Caller:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def says(self, data: bytes) -> bytes:
        self.writer.write(data)
        return await asyncio.wait_for(self.reader.readexactly(len(data)), _SOON)


def _through(story: Callable[[Proxy, Callable[[], Awaitable[_Caller]]], Awaitable[None]]) -> None:
    async def tell() -> None:
        async with _Echo() as echo, Proxy(lambda: echo.address) as proxy:
            callers: list[_Caller] = []

            async def dial() -> _Caller:
                callers.append(_Caller(*await asyncio.open_connection("127.0.0.1", proxy.port)))
                return callers[-1]

            try:
                await story(proxy, dial)
            finally:
                for caller in callers:
                    caller.writer.transport.abort()

    asyncio.run(tell())


def test_bytes_pass_both_ways_and_an_end_is_passed_on() -> None:
    async def story(proxy: Proxy, dial: Callable[[], Awaitable[_Caller]]) -> None:
        caller = await dial()
        assert await caller.says(bytes(1_000_000)) == bytes(1_000_000)
        caller.writer.write_eof()
        assert await asyncio.wait_for(caller.reader.read(), _SOON) == b""

    _through(story)


def test_a_cut_resets_what_is_there_and_lets_new_connections_in() -> None:
    async def story(proxy: Proxy, dial: Callable[[], Awaitable[_Caller]]) -> None:
        caller = await dial()
        await caller.says(b"hello")
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(caller.reader.readexactly(1), _SOON)
        assert await (await dial()).says(b"again") == b"again"

    _through(story)


def test_a_connection_is_cut_after_so_many_bytes() -> None:
    async def story(proxy: Proxy, dial: Callable[[], Awaitable[_Caller]]) -> None:
        proxy.set(Weather(cut_after_bytes=1000))
        caller = await dial()
        assert len(await caller.says(bytes(400))) == 400  # 400 there and 400 back
        caller.writer.write(bytes(400))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(caller.reader.readexactly(400), _SOON)

    _through(story)


@pytest.mark.parametrize("weather", [Weather(there=False), Weather(back=False), Weather(there=False, back=False)])
def test_what_does_not_get_through_arrives_when_the_way_is_whole_again(weather: Weather) -> None:
    async def story(proxy: Proxy, dial: Callable[[], Awaitable[_Caller]]) -> None:
        caller = await dial()
        await caller.says(b"before")
        proxy.set(weather)
        caller.writer.write(b"during")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(caller.reader.readexactly(1), _NEVER)
        proxy.heal()
        assert await asyncio.wait_for(caller.reader.readexactly(6), _SOON) == b"during"

    _through(story)


def test_a_delay_is_kept() -> None:
    async def story(proxy: Proxy, dial: Callable[[], Awaitable[_Caller]]) -> None:
        caller = await dial()
        await caller.says(b"at once")
        proxy.set(Weather(delay_seconds=0.05))
        began = asyncio.get_running_loop().time()
        await caller.says(b"slow")
        assert asyncio.get_running_loop().time() - began >= 0.1

    _through(story)


def test_a_half_open_connection_hears_nothing_until_it_is_reset() -> None:
    async def story(proxy: Proxy, dial: Callable[[], Awaitable[_Caller]]) -> None:
        caller = await dial()
        await caller.says(b"before")
        proxy.half_open()
        caller.writer.write(b"during")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(caller.reader.readexactly(1), _NEVER)
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(caller.reader.readexactly(1), _SOON)
        assert await (await dial()).says(b"again") == b"again"

    _through(story)


def test_a_node_that_is_down_or_a_network_that_refuses_resets_who_dials() -> None:
    async def story(proxy: Proxy, dial: Callable[[], Awaitable[_Caller]]) -> None:
        proxy.set(Weather(accepts=False))
        caller = await dial()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(caller.reader.readexactly(1), _SOON)
        proxy.heal()
        assert await (await dial()).says(b"again") == b"again"

    _through(story)
