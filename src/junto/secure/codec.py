# SPDX-License-Identifier: Apache-2.0
"""The form in which arrays travel between machines: a small typed header, then the raw little-endian bytes.

    1 byte   length of the header
    header   msgpack array: format, element type ("u1", "u4" or "u8"), shape, and up to four extra numbers
    body     the elements in C order, exactly as many bytes as the header says

The reader says what it expects, and compares before it looks at the body. Nothing is allocated: the result is a
read-only view of the payload.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from junto.errors import PeerFault
from junto.types import PartyId

ElementType = Literal["u1", "u4", "u8"]
Unsigned = NDArray[np.uint8] | NDArray[np.uint32] | NDArray[np.uint64]

_Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


class _Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    format: Literal[1]
    element: ElementType
    shape: Annotated[tuple[_Size, ...], msgspec.Meta(max_length=3)]
    extra: Annotated[tuple[_Size, ...], msgspec.Meta(max_length=4)]


_decoder = msgspec.msgpack.Decoder(_Header)


def pack(array: Unsigned, extra: Sequence[int] = ()) -> bytes:
    """The payload that carries `array`, with a few numbers beside it."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    element: dict[int, ElementType] = {1: "u1", 4: "u4", 8: "u8"}
    header = msgspec.msgpack.encode(_Header(1, element[array.itemsize], array.shape, tuple(extra)))
    return b"".join((bytes((len(header),)), header, little.reshape(-1).data))


def unpack_bytes(
    sender: PartyId, name: str, payload: bytes, shape: tuple[int | None, ...], extras: int = 0
) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    """The bytes and extra numbers in a payload. None in `shape` stands for any length. Raises PeerFault."""
    body, found, extra = _open(sender, name, payload, "u1", shape, extras)
    return np.frombuffer(payload, dtype=np.uint8, offset=body).reshape(found), extra


def unpack_u32(sender: PartyId, name: str, payload: bytes, shape: tuple[int | None, ...]) -> NDArray[np.uint32]:
    """The 32-bit numbers in a payload. None in `shape` stands for any length. Raises PeerFault."""
    body, found, _ = _open(sender, name, payload, "u4", shape, 0)
    return np.frombuffer(payload, dtype="<u4", offset=body).reshape(found)


def unpack_u64(sender: PartyId, name: str, payload: bytes, shape: tuple[int | None, ...]) -> NDArray[np.uint64]:
    """The 64-bit numbers in a payload. None in `shape` stands for any length. Raises PeerFault."""
    body, found, _ = _open(sender, name, payload, "u8", shape, 0)
    return np.frombuffer(payload, dtype="<u8", offset=body).reshape(found)


def _open(
    sender: PartyId, name: str, payload: bytes, element: ElementType, shape: tuple[int | None, ...], extras: int
) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """The offset of the body, its shape and the extra numbers, all as the reader expects them."""
    body = 1 + payload[0] if payload else 1
    try:
        header = _decoder.decode(payload[1:body])
    except msgspec.MsgspecError as error:
        raise PeerFault(f"{sender}'s {name!r} does not begin with a header Junto knows") from error
    fits = len(header.shape) == len(shape) and all(
        want is None or want == got for want, got in zip(shape, header.shape, strict=False)
    )
    if header.element != element or not fits or len(header.extra) != extras:
        wanted = "×".join("any" if want is None else str(want) for want in shape)
        raise PeerFault(
            f"{sender}'s {name!r} holds {header.element} of shape {'×'.join(map(str, header.shape))}"
            f" and {len(header.extra)} numbers; expected {element} of shape {wanted} and {extras}"
        )
    expected = math.prod(header.shape) * int(element[1])
    if len(payload) - body != expected:
        raise PeerFault(f"{sender}'s {name!r} has a body of {len(payload) - body} bytes; its header says {expected}")
    return body, header.shape, header.extra
