# SPDX-License-Identifier: Apache-2.0
"""Accepting connections. A stranger has a fixed time to prove who it is; of too many at once one gives way.

Strangers never hold more than an eighth of the files that the process may open: the rest is for links and work.
"""

import asyncio
import resource
import ssl
from collections.abc import Callable
from functools import partial
from socket import SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, socket

from junto.errors import JuntoError, Unavailable
from junto.link.connection import Link, Opening
from junto.link.dial import TLS_GOODBYE_SECONDS, begun, resolve
from junto.link.settings import LinkSettings
from junto.link.strangers import Stranger, Tally, gives_way, network_of
from junto.link.tls import in_plain_words
from junto.logs import logger
from junto.trust.names import Address, Name

_log = logger("junto.link")
_BACKLOG = 256
_OUT_OF_FILES_SECONDS = 0.5
_SHARE_OF_FILES = 8
_LINE_SECONDS = 60.0
"""The pause between two log lines about strangers."""


class Listener:
    """Hands every connection that has become an open link to `on_open`.

    Of one that proved who it is and still cannot be a link, `on_refused` hears who and why.
    """

    def __init__(
        self,
        settings: LinkSettings,
        context: ssl.SSLContext,
        opening: Callable[[str], Opening],
        on_open: Callable[[Link], None],
        on_refused: Callable[[Name, str], None],
    ) -> None:
        self.context = context  # replaced when the identity rotates
        self.refused = 0
        self._settings = settings
        self._opening = opening
        self._on_open = on_open
        self._on_refused = on_refused
        self._sockets: list[socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._strangers: dict[asyncio.Task[None], Stranger] = {}
        self._most = max(1, min(settings.strangers, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _SHARE_OF_FILES))
        self._refusals = Tally(_LINE_SECONDS)
        self._failures = Tally(_LINE_SECONDS)

    @property
    def addresses(self) -> list[Address]:
        """The addresses at which the node listens, with the port that the system chose when 0 was asked for."""
        return [Address(*s.getsockname()[:2]) for s in self._sockets]

    @property
    def strangers(self) -> int:
        """The number of connections that have not proven who they are."""
        return len(self._strangers)

    async def listen(self, address: Address) -> None:
        """Begin to accept. Raises Unavailable when the address is taken or not this machine's."""
        for family, target in await resolve(address):
            listening = socket(family, SOCK_STREAM)
            listening.setblocking(False)
            listening.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            try:
                listening.bind(target)
                listening.listen(_BACKLOG)
            except OSError as error:
                listening.close()
                await self.close()
                raise Unavailable(
                    f"cannot listen on {address}: {error.strerror}: is another node running here, "
                    "and is this an address of this machine?"
                ) from error
            self._sockets.append(listening)
            self._tasks.append(asyncio.create_task(self._accept(listening)))

    async def close(self) -> None:
        """Stop accepting, and cut those who have not proven who they are."""
        tasks = [*self._tasks, *self._strangers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listening in self._sockets:
            listening.close()
        self._tasks.clear()
        self._sockets.clear()

    async def _accept(self, listening: socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(listening)
            except OSError as error:
                left_out = self._failures.due(loop.time())
                if left_out is not None:  # out of file descriptors, mostly
                    _log.warning("cannot accept", reason=error.strerror, also=left_out)
                await asyncio.sleep(_OUT_OF_FILES_SECONDS)
                continue
            address = Address(*peer[:2])
            stranger = Stranger(network_of(address.host))
            leaving = gives_way(self._strangers, stranger.network) if len(self._strangers) >= self._most else None
            task = asyncio.create_task(self._greet(connection, str(address), stranger))
            self._strangers[task] = stranger
            task.add_done_callback(partial(self._left, connection))
            if leaving is not None:
                leaving.cancel()
                await asyncio.wait([leaving])  # its file is closed before there is another

    def _left(self, connection: socket, task: asyncio.Task[None]) -> None:
        """A stranger has become a link, or is gone; one cut before its first step has not closed its file."""
        del self._strangers[task]
        if task.cancelled():
            connection.close()

    async def _greet(self, connection: socket, address: str, stranger: Stranger) -> None:
        link = Link(self._opening(address), dialled=False)
        settings = self._settings
        ready = False
        try:
            async with asyncio.timeout(settings.connect_seconds):
                await _readable(connection)
                stranger.spoke = True
                await begun(
                    asyncio.get_running_loop().connect_accepted_socket(
                        lambda: link,
                        connection,
                        ssl=self.context,
                        ssl_handshake_timeout=settings.connect_seconds,
                        ssl_shutdown_timeout=TLS_GOODBYE_SECONDS,
                    )
                )
                await link.opened
            ready = True
        except (OSError, JuntoError) as error:
            self.refused += 1
            reason = str(error) if isinstance(error, JuntoError) else in_plain_words(error, address)
            left_out = self._refusals.due(asyncio.get_running_loop().time())
            if link.name is not None or left_out is not None:
                _log.warning("connection refused", address=address, reason=reason, also=left_out or 0)
            if isinstance(error, JuntoError):
                if link.name is not None:
                    self._on_refused(link.name, reason)
                await link.close("it did not open")  # the peer hears why
        except asyncio.CancelledError:
            self.refused += 1
            raise
        finally:
            if not ready:
                link.abort("it did not open")
                connection.close()
        if ready:
            self._on_open(link)


async def _readable(connection: socket) -> None:
    """Return when the other side has sent something, or has hung up."""
    loop = asyncio.get_running_loop()
    spoke = asyncio.Event()
    loop.add_reader(connection, spoke.set)
    try:
        await spoke.wait()
    finally:
        loop.remove_reader(connection)
