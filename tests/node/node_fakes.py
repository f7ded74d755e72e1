# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for the parts of a node that touch sockets: a link whose other end is a function, and links to such."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

from junto.link.connection import Link
from junto.link.links import Links
from junto.trust.names import parse_name
from junto.types import PartyId

Call = Callable[[str, bytes], Awaitable[bytes]]
Stream = Callable[[str, bytes], AsyncIterator[bytes]]


class FakeLink:
    """What a caller sees of a link: `call` and `stream`, answered by functions."""

    def __init__(self, party: str, call: Call, stream: Stream | None = None) -> None:
        self.peer = parse_name(f"spiffe://sky/{party}/node-1")
        self.timeouts: list[float] = []
        self._call = call
        self._stream = stream

    async def call(self, method: str, payload: bytes = b"", *, timeout_seconds: float) -> bytes:
        """The function's answer."""
        self.timeouts.append(timeout_seconds)
        return await self._call(method, payload)

    async def stream(self, method: str, payload: bytes = b"", *, timeout_seconds: float) -> AsyncIterator[bytes]:
        """The function's pieces."""
        assert self._stream is not None
        async for piece in self._stream(method, payload):
            yield piece

    @property
    def link(self) -> Link:
        """This, where a link is wanted."""
        return cast(Link, self)


class FakeLinks:
    """Links to parties by name."""

    def __init__(self, to: Callable[[PartyId, float], Awaitable[Link]]) -> None:
        self.to = to

    @property
    def links(self) -> Links:
        """This, where links are wanted."""
        return cast(Links, self)
