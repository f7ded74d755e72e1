# SPDX-License-Identifier: Apache-2.0
"""Frames: what is on the wire."""

import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from link_strategies import headers

from junto.errors import InvalidInput
from junto.link import frames
from junto.link.frames import Call, Decoder, Header, Ping, Reply, StreamCredit, StreamOpen, encode


def fed(decoder: Decoder, data: bytes, piece: int = 0) -> list[tuple[Header, bytes]]:
    """What comes out of the decoder when the bytes arrive `piece` at a time (0: as much as fits)."""
    found: list[tuple[Header, bytes]] = []
    while data and not decoder.fault:
        space = decoder.space()
        taken = data[: min(piece or len(space), len(space))]
        space[: len(taken)] = taken
        data = data[len(taken) :]
        found += decoder.received(len(taken))
    return found


def test_a_call_is_laid_out_as_the_wire_document_says() -> None:
    assert encode(Call(5, "ask", 1000, ""), b"xy") == bytes.fromhex("0000000f 000b 95 02 05 a3 61736b cd03e8 a0 7879")


@given(st.lists(st.tuples(headers, st.binary(max_size=300)), max_size=5), st.integers(1, 200))
@settings(derandomize=True, max_examples=200, deadline=None)
def test_frames_come_out_as_they_went_in_however_they_are_cut(sent: list[tuple[Header, bytes]], piece: int) -> None:
    data = b"".join(encode(header, payload) for header, payload in sent)
    assert fed(Decoder(), data, piece) == sent


@given(st.binary(max_size=2000), st.integers(1, 100))
@settings(derandomize=True, max_examples=200, deadline=None)
def test_random_bytes_never_raise(data: bytes, piece: int) -> None:
    fed(Decoder(), data, piece)


@given(headers, st.integers(0, 60), st.integers(1, 255))
@settings(derandomize=True, max_examples=200, deadline=None)
def test_a_flipped_byte_never_raises(header: Header, at: int, flip: int) -> None:
    data = bytearray(encode(header, b"payload"))
    data[at % len(data)] ^= flip
    fed(Decoder(), bytes(data))


@pytest.mark.parametrize("claimed", [frames.FRAME_BYTES - 3, 2**31, 2**32 - 1])
def test_a_frame_that_claims_too_much_is_refused_before_anything_is_allocated(claimed: int) -> None:
    decoder = Decoder()
    before = decoder.capacity_bytes
    assert fed(decoder, struct.pack(">IH", claimed, 4)) == []
    assert decoder.fault == f"a frame claims {claimed + 4:,} bytes; the limit is 4,194,304"
    assert decoder.capacity_bytes == before


def test_a_frame_of_exactly_the_limit_is_read() -> None:
    head = msgspec.msgpack.encode(Reply(1))
    payload = bytes(frames.FRAME_BYTES - 6 - len(head))
    data = struct.pack(">IH", frames.FRAME_BYTES - 4, len(head)) + head + payload
    decoder = Decoder()
    assert fed(decoder, data) == [(Reply(1), payload)]
    assert decoder.capacity_bytes == frames.FRAME_BYTES


def test_frames_before_a_fault_are_delivered() -> None:
    decoder = Decoder()
    assert fed(decoder, encode(Ping(7)) + struct.pack(">IH", 2**31, 4)) == [(Ping(7), b"")]
    assert decoder.fault


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"\xc1", "not MessagePack"),
        (b"", "no header"),
        (msgspec.msgpack.encode([99, 1]), "unknown kind"),
        (msgspec.msgpack.encode([2, 1, "ask"]), "too few fields"),
        (msgspec.msgpack.encode([2, 1, "ask", 5, "", 0]), "too many fields"),
        (msgspec.msgpack.encode([2, 0, "ask", 5, ""]), "id 0"),
        (msgspec.msgpack.encode([2, 1, "", 5, ""]), "no method"),
        (msgspec.msgpack.encode([2, 1, "m" * 200, 5, ""]), "long method"),
        (msgspec.msgpack.encode([2, 1, "ask", 0, ""]), "no time"),
        (msgspec.msgpack.encode([2, 1, "ask", 5, "t" * 200]), "long trace"),
        (msgspec.msgpack.encode([8, 1, -5]), "credit below zero"),
        (msgspec.msgpack.encode([6, 1, "ask", 5, 1, ""]), "a window too small for one piece"),
        (msgspec.msgpack.encode([2, 1, b"ask", 5, ""]), "bytes for text"),
        (msgspec.msgpack.encode({"kind": 2}), "a map"),
        (b"\x93\x08\x01\xcf" + b"\xff" * 8, "credit beyond any stream"),
        (b"\x91" * 5000, "nested a thousand deep"),
        (b"\x95\x02\x01\xa2\xff\xfe\x05\xa0", "method that is not UTF-8"),
    ],
)
def test_a_malformed_header_is_a_fault(header: bytes, why: str) -> None:
    decoder = Decoder()
    data = struct.pack(">IH", 2 + len(header), len(header)) + header
    assert fed(decoder, data) == []
    assert decoder.fault == f"a frame header of {len(header)} bytes is none that we know", why


def test_a_header_longer_than_its_frame_is_a_fault() -> None:
    decoder = Decoder()
    fed(decoder, struct.pack(">IH", 3, 500))
    assert decoder.fault == "a frame of 7 bytes claims a header of 500"


def test_a_payload_that_fits_no_frame_is_refused_with_the_mend() -> None:
    with pytest.raises(InvalidInput, match="stream it"):
        encode(Reply(1), bytes(frames.PAYLOAD_BYTES + 1))


def test_every_kind_has_its_own_tag() -> None:
    assert len({kind.__struct_config__.tag for kind in frames.KINDS}) == len(frames.KINDS) == 13


def test_a_window_below_two_pieces_cannot_be_asked_for() -> None:
    decoder = Decoder()
    fed(decoder, encode(StreamOpen(1, "ask", 5, 10, "")))
    assert decoder.fault
    assert fed(Decoder(), encode(StreamCredit(1, 10))) == [(StreamCredit(1, 10), b"")]
