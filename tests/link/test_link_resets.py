# SPDX-License-Identifier: Apache-2.0
"""A peer that resets connections as they open costs us the connection, and nothing else that is open."""

import asyncio
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from link_world import World

from junto.errors import Unavailable
from junto.link.dial import dial
from junto.trust.names import Address

_DIALS = 400


@contextmanager
def _resetting() -> Iterator[Address]:
    """A server that resets whoever connects, at once."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()

    server = threading.Thread(target=serve)
    server.start()
    try:
        yield Address("127.0.0.1", listening.getsockname()[1])
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        server.join()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_descriptor_is_closed_twice_and_none_is_lost(loop: str) -> None:
    """uvloop closes by number: a socket object closed afterwards closed what had taken the number meanwhile."""
    factory = asyncio.new_event_loop
    if loop == "uvloop":
        factory = pytest.importorskip("uvloop", reason="a faster event loop, where there is one").new_event_loop
    world = World()
    here = world.here("united", world.charter())
    gone = 0

    async def dials(address: Address) -> None:
        nonlocal gone
        for _ in range(_DIALS):
            with suppress(Unavailable):
                await dial(here, address)
            taken = os.open("/dev/null", os.O_RDONLY)  # the number that has just become free
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            try:
                os.close(taken)
            except OSError:
                gone += 1

    with _resetting() as address, asyncio.Runner(loop_factory=factory) as runner:
        runner.run(dials(address))
        before = len(os.listdir("/proc/self/fd"))
        runner.run(dials(address))
        lost = len(os.listdir("/proc/self/fd")) - before
    assert (gone, lost) == (0, 0)
