# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that behaves as networks do: slow, cut, one way only, silent. Put its address where the node's would be.

TCP's promises are kept: bytes arrive in order or the connection ends. Lost packets are sent again, so a direction in
which nothing gets through holds its bytes until it is whole again; only `cut` and its like lose any.
"""

import asyncio
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 16 * 1024
_RESET = struct.pack("ii", 1, 0)  # closing a socket that lingers for no time resets the connection


@dataclass(frozen=True, slots=True)
class Weather:
    """The fate of bytes on their way. `there` leads to the node behind the proxy, `back` from it."""

    delay_seconds: float = 0.0  # of every chunk, each way
    there: bool = True
    back: bool = True
    accepts: bool = True  # new connections; otherwise they are reset
    cut_after_bytes: int | None = None  # of one connection, both ways together


FINE = Weather()


class _Way:
    """One connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.bytes = 0
        self.half_open = False

    def reset(self) -> None:
        """End it at once on both sides, without a goodbye."""
        for writer in (self.client, self.server):
            _reset(writer)


class Proxy:
    """Listens on a loopback port of its own and leads to `target`. Use it as an async context manager."""

    def __init__(self, target: Callable[[], tuple[str, int]]) -> None:
        """`target` is asked with every connection, so that a node may come back at another port."""
        self._target = target
        self._weather = FINE
        self._changed = asyncio.Event()
        self._ways: set[_Way] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    @property
    def connections(self) -> int:
        """The number of connections, half-open ones included."""
        return len(self._ways)

    def set(self, weather: Weather) -> None:
        """Set the weather from now on, for present connections too. Bytes held back go on once their way is open."""
        self._weather = weather
        self._changed.set()
        self._changed = asyncio.Event()

    def cut(self) -> None:
        """Reset every connection now."""
        for way in list(self._ways):
            way.reset()

    def half_open(self) -> None:
        """The node behind is gone from every connection, and whoever dialled is not told: it hears nothing more."""
        for way in self._ways:
            way.half_open = True
            _reset(way.server)

    def heal(self) -> None:
        """Fine weather; half-open connections are reset, as a host that has come up again would."""
        self.set(FINE)
        for way in list(self._ways):
            if way.half_open:
                way.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._weather.accepts:
            _reset(writer)
            return
        try:
            server_reader, server = await asyncio.open_connection(*self._target())
        except OSError:
            _reset(writer)
            return
        way = _Way(writer, server)
        self._ways.add(way)
        there = asyncio.create_task(self._pump(way, reader, server, lambda: self._weather.there))
        back = asyncio.create_task(self._pump(way, server_reader, writer, lambda: self._weather.back))
        self._pumps |= {there, back}
        try:
            await asyncio.wait((there, back))
        finally:
            self._pumps -= {there, back}
            self._ways.discard(way)
            way.reset()

    async def _pump(
        self, way: _Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: Callable[[], bool]
    ) -> None:
        """Carry bytes one way until the connection ends; a half-open one ends with its reset."""
        with suppress(OSError, RuntimeError):  # uvloop says it that way, of a connection that was reset meanwhile
            while data := await reader.read(_CHUNK_BYTES):
                if self._weather.delay_seconds:
                    await asyncio.sleep(self._weather.delay_seconds)
                while not passes():
                    await self._changed.wait()
                if way.half_open:
                    continue
                way.bytes += len(data)
                if self._weather.cut_after_bytes is not None and way.bytes > self._weather.cut_after_bytes:
                    way.reset()
                    return
                writer.write(data)
                await writer.drain()
            if not way.half_open:
                writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    socket = writer.get_extra_info("socket")
    if socket is not None:
        with suppress(OSError, ValueError):  # it has just been closed
            socket.setsockopt(SOL_SOCKET, SO_LINGER, _RESET)
    writer.transport.abort()
