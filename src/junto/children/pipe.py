# SPDX-License-Identifier: Apache-2.0
"""Frames between a node and a child of its own, over a pair of sockets.

    4 bytes   length of the head, little-endian
    8 bytes   length of the body
    head      a message, MessagePack
    body      bytes that belong to it, perhaps none

Both lengths are checked before anything is allocated: what a child computes comes from others, and so does its fault.
"""

import select
import socket
import struct
import time
from collections.abc import Callable

from junto.errors import Cancelled

_LENGTHS = struct.Struct("<IQ")
_HEAD_BYTES = 8 << 20
BODY_BYTES = 256 << 20
"""The longest body."""
_SOCKET_BYTES = 1 << 20
_LOOK_SECONDS = 0.05


class Broken(Exception):
    """The other side has ended, or sent no frame."""


def never() -> bool:
    """A stop that nobody asks for."""
    return False


class Pipe:
    """One side. One thread at a time may use it."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        self._poll = select.poll()
        self._poll.register(end, 0)

    def send(self, head: bytes, body: "bytes | memoryview" = b"", *, stopped: Callable[[], bool] = never) -> None:
        """Hand over a frame. Raises Broken, and Cancelled once `stopped` says so."""
        if len(head) > _HEAD_BYTES or len(body) > BODY_BYTES:
            raise Broken(f"a frame of {len(head):,} and {len(body):,} bytes is too large to hand over")
        for part in (_LENGTHS.pack(len(head), len(body)) + head, body):
            left = memoryview(part).cast("B")
            while left:
                try:
                    left = left[self._end.send(left) :]
                except BlockingIOError:
                    self._wait(select.POLLOUT, stopped, None)
                except OSError:
                    raise Broken("the other side has ended") from None

    def receive(self, *, stopped: Callable[[], bool] = never, seconds: float | None = None) -> tuple[bytes, bytearray]:
        """The next frame's head and body.

        Raises Broken, Cancelled once `stopped` says so, and TimeoutError if the frame is not there within `seconds`.
        """
        until = None if seconds is None else time.monotonic() + seconds
        head_bytes, body_bytes = _LENGTHS.unpack(self._exactly(_LENGTHS.size, stopped, until))
        if head_bytes > _HEAD_BYTES or body_bytes > BODY_BYTES:
            raise Broken("the other side announces a frame that is too large")
        head = self._exactly(head_bytes, stopped, until)
        return bytes(head), self._exactly(body_bytes, stopped, until)

    def close(self) -> None:
        """Close this side."""
        self._end.close()

    def _exactly(self, size: int, stopped: Callable[[], bool], until: float | None) -> bytearray:
        held = bytearray(size)
        left = memoryview(held)
        while left:
            if stopped():
                raise Cancelled("the run was stopped")
            try:
                got = self._end.recv_into(left)
            except BlockingIOError:
                self._wait(select.POLLIN, stopped, until)
                continue
            except OSError:
                got = 0
            if not got:
                raise Broken("the other side has ended")
            left = left[got:]
        return held

    def _wait(self, event: int, stopped: Callable[[], bool], until: float | None) -> None:
        self._poll.modify(self._end, event)
        while True:
            seconds = None if stopped is never else _LOOK_SECONDS
            if until is not None:
                left = until - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                seconds = left if seconds is None else min(seconds, left)
            if self._poll.poll(None if seconds is None else seconds * 1000):
                return
            if stopped():
                raise Cancelled("the run was stopped")
