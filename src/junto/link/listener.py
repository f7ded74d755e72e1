# SPDX-License-Identifier: Apache-2.0
"""Accepting connections. A stranger has a fixed time to prove who it is; too many at once push out the oldest."""

import asyncio
import ssl
from collections.abc import Callable
from socket import SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, socket

from junto.errors import JuntoError, Unavailable
from junto.link.connection import Link, Opening
from junto.link.dial import TLS_GOODBYE_SECONDS, begun, resolve
from junto.link.settings import LinkSettings
from junto.link.tls import in_plain_words
from junto.logs import logger
from junto.trust.names import Address, Name

_log = logger("junto.link")
_BACKLOG = 256
_OUT_OF_FILES_SECONDS = 0.5


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
        self._strangers: dict[asyncio.Task[None], None] = {}

    @property
    def addresses(self) -> list[Address]:
        """Where it listens, with the port that the system chose when 0 was asked for."""
        return [Address(*s.getsockname()[:2]) for s in self._sockets]

    @property
    def strangers(self) -> int:
        """How many connections have not proven who they are."""
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
                _log.warning("cannot accept", reason=error.strerror)  # out of file descriptors, mostly
                await asyncio.sleep(_OUT_OF_FILES_SECONDS)
                continue
            if len(self._strangers) >= self._settings.strangers:
                next(iter(self._strangers)).cancel()
            task = asyncio.create_task(self._greet(connection, str(Address(*peer[:2]))))
            self._strangers[task] = None
            task.add_done_callback(self._strangers.pop)

    async def _greet(self, connection: socket, address: str) -> None:
        link = Link(self._opening(address), dialled=False)
        settings = self._settings
        ready = False
        try:
            async with asyncio.timeout(settings.connect_seconds):
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
            _log.warning("connection refused", address=address, reason=reason)
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
