# SPDX-License-Identifier: Apache-2.0
"""Frames: what is on the wire, to and from bytes.

    4 bytes   length of all that follows, big-endian
    2 bytes   length of the header, big-endian
    header    MessagePack array: [kind, fields in the order of the class]
    payload   the rest, raw

A frame is at most 4 MiB, length field included; the length is checked before anything is allocated.
`docs/wire.md` describes each kind; a test compares it with the classes here.
"""

import struct
from collections.abc import Iterator
from typing import Annotated, TypeAlias

import msgspec

from junto.errors import InvalidInput

FRAME_BYTES = 4 * 1024 * 1024
"""The largest frame, its length field included."""

GREETING_BYTES = 16 * 1024
"""The largest frame before the Hello was accepted."""

PAYLOAD_BYTES = 3 * 1024 * 1024
"""The largest payload of one call, reply, notice or piece of a stream; more travels as a stream."""

PIECE_BYTES = 1024 * 1024
"""A piece of a stream up to this size arrives whole; a larger one is split."""

PIECE_COST_BYTES = 64
"""The cost of a piece in its stream's credit beyond its own bytes, so that many tiny ones fill no memory either."""

SMALLEST_WINDOW_BYTES = 2 * PIECE_BYTES
"""A stream's first credit is at least this, so that credit given back by the quarter never starves a piece."""

_READ_BYTES = 256 * 1024
_PREFIX = struct.Struct(">IH")
_PREFIX_BYTES = _PREFIX.size

ExchangeId: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Milliseconds: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**40)]
ByteCount: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**40)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**20)]
Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=256)]
Method: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Trace: TypeAlias = Annotated[str, msgspec.Meta(max_length=128)]
Sentence: TypeAlias = Annotated[str, msgspec.Meta(max_length=4096)]


class _Frame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A header; its fields are on the wire in the order they have here."""


class Hello(_Frame, frozen=True, array_like=True, forbid_unknown_fields=False, tag=1):
    """The first frame of each side. A later version may append fields; they are ignored."""

    lowest: Count  # protocol versions this side speaks
    highest: Count
    software: Text
    consortium: Text
    charter_version: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    charter_digest: Text
    name: Annotated[str, msgspec.Meta(max_length=1024)]
    instance: Text  # differs after each start of the process
    unix_seconds: float  # the sender's clock when it wrote this
    calls: Count  # how many calls, and streams, this side serves at once
    streams: Count
    trial: bool = False  # this connection only tries the way; it replaces no link


class Call(_Frame, frozen=True, array_like=True, gc=False, tag=2):
    """Asks for one Reply or Error within the time that remains."""

    id: ExchangeId
    method: Method
    remaining_ms: Milliseconds
    trace: Trace = ""


class Reply(_Frame, frozen=True, array_like=True, gc=False, tag=3):
    """Answers a Call."""

    id: ExchangeId


class Error(_Frame, frozen=True, array_like=True, gc=False, tag=4):
    """Ends a call or stream without an answer; id 0 ends the link."""

    id: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    code: Text
    message: Sentence


class Notice(_Frame, frozen=True, array_like=True, gc=False, tag=5):
    """Tells something; nothing comes back."""

    method: Method
    trace: Trace = ""


class StreamOpen(_Frame, frozen=True, array_like=True, gc=False, tag=6):
    """Asks for a stream of bytes towards the asker, who can take `credit` bytes so far."""

    id: ExchangeId
    method: Method
    remaining_ms: Milliseconds
    credit: Annotated[int, msgspec.Meta(ge=SMALLEST_WINDOW_BYTES, le=2**40)]
    trace: Trace = ""


class StreamData(_Frame, frozen=True, array_like=True, gc=False, tag=7):
    """A piece of a stream; it uses credit: its payload's bytes and 64."""

    id: ExchangeId


class StreamCredit(_Frame, frozen=True, array_like=True, gc=False, tag=8):
    """The asker can take this many bytes more."""

    id: ExchangeId
    bytes: ByteCount


class StreamEnd(_Frame, frozen=True, array_like=True, gc=False, tag=9):
    """The stream is complete."""

    id: ExchangeId


class Cancel(_Frame, frozen=True, array_like=True, gc=False, tag=10):
    """The asker no longer wants the answer. The server still ends it, once, with whatever it has."""

    id: ExchangeId


class Ping(_Frame, frozen=True, array_like=True, gc=False, tag=11):
    """Asks for a Pong with the same token."""

    token: Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Pong(_Frame, frozen=True, array_like=True, gc=False, tag=12):
    """Answers a Ping."""

    token: Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Drain(_Frame, frozen=True, array_like=True, gc=False, tag=13):
    """The sender will ask nothing more on this link; what is under way ends as usual."""


Header: TypeAlias = (
    Hello
    | Call
    | Reply
    | Error
    | Notice
    | StreamOpen
    | StreamData
    | StreamCredit
    | StreamEnd
    | Cancel
    | Ping
    | Pong
    | Drain
)
KINDS: tuple[type[Header], ...] = (
    Hello,
    Call,
    Reply,
    Error,
    Notice,
    StreamOpen,
    StreamData,
    StreamCredit,
    StreamEnd,
    Cancel,
    Ping,
    Pong,
    Drain,
)

_encode_header = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(Header).decode


def encode(header: Header, payload: bytes = b"") -> bytes:
    """One frame as bytes. Raises InvalidInput when the payload belongs in a stream."""
    size = len(payload)
    if size > PAYLOAD_BYTES:
        raise InvalidInput(too_large(size))
    head = _encode_header(header)
    return _PREFIX.pack(2 + len(head) + size, len(head)) + head + payload


def encode_in_two(header: Header, payload: bytes) -> tuple[bytes, bytes]:
    """One frame as its head and its payload, which is not copied; for large payloads."""
    size = len(payload)
    if size > PAYLOAD_BYTES:
        raise InvalidInput(too_large(size))
    head = _encode_header(header)
    return _PREFIX.pack(2 + len(head) + size, len(head)) + head, payload


def too_large(size: int) -> str:
    """The fault of a payload of this size, and the mend."""
    return f"a payload of {size:,} bytes does not fit one frame (at most {PAYLOAD_BYTES:,}): stream it"


class Decoder:
    """Frames out of bytes that arrive in any pieces.

    The reader writes into `space()` and says how much with `received(count)`, so bytes are copied once,
    from the buffer into each payload. The buffer grows to the one frame that needs it, never past
    `frame_bytes`. Once `fault` says what was wrong with a frame, nothing after it is read.
    """

    def __init__(self, frame_bytes: int = FRAME_BYTES) -> None:
        self.frame_bytes = frame_bytes
        self.fault = ""
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._end = 0  # bytes of the unfinished frame at the start of the buffer

    @property
    def capacity_bytes(self) -> int:
        """The present size of the buffer."""
        return len(self._buffer)

    def space(self) -> memoryview:
        """The room for the next bytes; never empty."""
        return self._view[self._end :]

    def received(self, count: int) -> Iterator[tuple[Header, bytes]]:
        """The frames that the last `count` bytes completed; take them all before the next `space()`."""
        view, start = self._view, 0
        end = self._end = self._end + count
        needed = 0
        while end - start >= _PREFIX_BYTES and not self.fault:
            length, head_length = _PREFIX.unpack_from(view, start)
            stop = start + 4 + length
            body = start + _PREFIX_BYTES + head_length
            if length + 4 > self.frame_bytes:
                self.fault = f"a frame claims {length + 4:,} bytes; the limit is {self.frame_bytes:,}"
            elif body > stop:
                self.fault = f"a frame of {length + 4} bytes claims a header of {head_length}"
            elif stop > end:
                needed = 4 + length
                break
            else:
                try:
                    header = _decode_header(view[start + _PREFIX_BYTES : body])
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    self.fault = f"a frame header of {head_length} bytes is none that we know"
                    break
                yield header, bytes(view[body:stop])
                start = stop
        self._keep(start, end, needed)

    def _keep(self, start: int, end: int, needed: int) -> None:
        """Move the unfinished frame to the front, of a larger buffer when it will not fit."""
        left = end - start
        if needed > len(self._buffer):
            larger = bytearray(needed)
            larger[:left] = self._view[start:end]
            self._buffer, self._view = larger, memoryview(larger)
        elif start and left:
            self._view[:left] = bytes(self._view[start:end])
        self._end = left
