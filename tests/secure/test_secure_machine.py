# SPDX-License-Identifier: Apache-2.0
"""The seam: what a machine takes, refuses and says, whatever its protocol."""

import numpy as np
import pytest

from junto.errors import InvalidInput, InvalidTransition, JuntoError, PeerFault
from junto.secure import codec
from junto.secure.groupkeys import GroupCounts, PassedKeys, Selection
from junto.secure.keystream import Keystream, derive, stretched
from junto.secure.machine import (
    Arrived,
    Done,
    InputReady,
    Machine,
    Need,
    Script,
    Send,
    Started,
    receive,
    take_input,
)
from junto.types import PartyId

A, B, C = PartyId("a"), PartyId("b"), PartyId("c")


def _digits(sender: PartyId, payload: bytes) -> int:
    if not payload.isdigit():
        raise PeerFault(f"{sender} sent no digits")
    return int(payload)


def _script() -> Script[int]:
    yield Send(B, "hello", b"x")
    own = yield from take_input(int, _not_negative)
    first = yield from receive("first", [B, C], _digits)
    yield Send(C, "half", b"y")
    second = yield from receive("second", [C], _digits)
    return own + sum(first.values()) + sum(second.values())


def _not_negative(value: int) -> None:
    if value < 0:
        raise InvalidInput("negative")


def machine() -> Machine[int, int]:
    return Machine("adder", _script(), [(B, "first"), (C, "first"), (C, "second")])


def test_a_start_asks_once_for_every_message_then_sends_what_it_can() -> None:
    assert machine().handle(Started()) == [
        Need(B, "first"),
        Need(C, "first"),
        Need(C, "second"),
        Send(B, "hello", b"x"),
    ]


def test_messages_that_come_early_are_kept_until_they_are_read() -> None:
    adder = machine()
    adder.handle(Started())
    assert adder.handle(Arrived(C, "second", b"4")) == []
    assert adder.handle(Arrived(B, "first", b"2")) == []
    assert adder.handle(InputReady(1)) == []
    assert adder.missing == ((C, "first"),)
    assert adder.handle(Arrived(C, "first", b"3")) == [Send(C, "half", b"y"), Done(10)]


def test_nothing_happens_before_the_start_and_no_start_happens_twice() -> None:
    adder = machine()
    for event in (InputReady(1), Arrived(B, "first", b"1")):
        with pytest.raises(InvalidTransition):
            adder.handle(event)
    adder.handle(Started())
    with pytest.raises(InvalidTransition):
        adder.handle(Started())


def test_a_second_input_is_refused() -> None:
    adder = machine()
    adder.handle(Started())
    adder.handle(InputReady(1))
    with pytest.raises(InvalidTransition, match="one input, once"):
        adder.handle(InputReady(1))


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (Arrived(B, "second", b"1"), PeerFault),  # not from this sender
        (Arrived(B, "third", b"1"), PeerFault),  # no such message
        (Arrived(PartyId("z"), "first", b"1"), PeerFault),  # no such party
        (Arrived(B, "first", b"one"), PeerFault),  # not well-formed
        (Arrived(C, "first", b"8"), PeerFault),  # came before with other bytes
        (InputReady(2), InvalidTransition),
        (Started(), InvalidTransition),
    ],
)
def test_a_refused_event_changes_nothing(event: Arrived | InputReady[int] | Started, error: type[JuntoError]) -> None:
    adder = machine()
    for earlier in (Started(), InputReady(1), Arrived(C, "first", b"3")):
        adder.handle(earlier)
    with pytest.raises(error):
        adder.handle(event)
    assert adder.missing == ((B, "first"), (C, "second"))
    assert adder.handle(Arrived(B, "first", b"2")) == [Send(C, "half", b"y")]
    assert adder.handle(Arrived(C, "second", b"4")) == [Done(10)]


def test_an_input_the_machine_cannot_use_may_be_given_again() -> None:
    adder = machine()
    adder.handle(Started())
    with pytest.raises(InvalidInput):
        adder.handle(InputReady(-1))
    with pytest.raises(InvalidTransition):
        adder.handle(InputReady("1"))  # type: ignore[arg-type]  # the mistake under test
    adder.handle(InputReady(1))


def test_a_repeated_message_is_ignored_also_after_the_end() -> None:
    adder = machine()
    for event in (Started(), InputReady(1), Arrived(C, "first", b"3"), Arrived(B, "first", b"2")):
        adder.handle(event)
    assert adder.handle(Arrived(B, "first", b"2")) == []
    adder.handle(Arrived(C, "second", b"4"))
    assert adder.handle(Arrived(C, "second", b"4")) == []
    with pytest.raises(PeerFault, match="twice"):
        adder.handle(Arrived(C, "second", b"5"))


def test_an_early_message_that_turns_out_wrong_fails_the_machine() -> None:
    adder = machine()
    adder.handle(Started())
    adder.handle(Arrived(B, "first", b"two"))
    with pytest.raises(PeerFault, match="b sent no digits"):
        adder.handle(InputReady(1))
    with pytest.raises(InvalidTransition, match="failed"):
        adder.handle(Arrived(C, "first", b"3"))


def test_nothing_prints_what_it_carries() -> None:
    secret = b"4711-secret"
    key = Keystream(bytes(16))
    shown = [
        Arrived(A, "key", secret),
        Send(A, "key", secret),
        InputReady(secret),
        Done(secret),
        GroupCounts([secret], np.array([[4711]]), np.array([[4711.0]]), np.array([[4711.0]])),
        Selection(1, np.array([[True]]), np.array([4711])),
        PassedKeys([secret], True, np.array([[True]])),
        machine(),
        key,
    ]
    for thing in shown:
        assert "4711" not in repr(thing)


def test_an_array_survives_its_payload_with_shape_and_extra_numbers() -> None:
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    found, extra = codec.unpack_bytes(A, "rows", codec.pack(rows, (7, 1 << 40)), (None, 4), extras=2)
    assert found.tolist() == rows.tolist()
    assert extra == (7, 1 << 40)
    words = np.array([[0, 2**64 - 1]], dtype=np.uint64)
    assert codec.unpack_u64(A, "words", codec.pack(words), (1, 2)).tolist() == words.tolist()
    empty = np.zeros((2, 0), dtype=np.uint32)
    assert codec.unpack_u32(A, "empty", codec.pack(empty), (2, None)).shape == (2, 0)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        bytes(20),
        codec.pack(np.zeros((2, 3), dtype=np.uint32))[:-1],
        codec.pack(np.zeros((2, 3), dtype=np.uint32)) + b"\0",
        codec.pack(np.zeros((3, 2), dtype=np.uint32)),
        codec.pack(np.zeros(6, dtype=np.uint32)),
        codec.pack(np.zeros((2, 3), dtype=np.uint64)),
        codec.pack(np.zeros((2, 3), dtype=np.uint32), (1,)),
        b"\x0b\x94\x01\xa2u4\x92\x02\xcd\xff\xff\x90",  # a header that claims 131070 elements, and no body
        b"\x06\x94\x02\xa2u4\x90\x90",  # another format
    ],
)
def test_a_payload_that_is_not_what_its_reader_expects_is_the_peers_fault(payload: bytes) -> None:
    with pytest.raises(PeerFault, match=r"^a's 'shares'"):
        codec.unpack_u32(A, "shares", payload, (2, 3))


def test_a_derived_key_depends_on_purpose_context_and_every_part_of_its_info() -> None:
    keys = {
        derive(b"s" * 32, "one", b"task", b"a", b"b"),
        derive(b"s" * 32, "two", b"task", b"a", b"b"),
        derive(b"s" * 32, "one", b"task2", b"a", b"b"),
        derive(b"s" * 32, "one", b"task", b"ab", b""),
        derive(b"t" * 32, "one", b"task", b"a", b"b"),
    }
    assert len(keys) == 5


def test_a_keystream_is_aes_ctr_from_zero_and_gives_each_byte_once() -> None:
    # NIST SP 800-38A has no vector for a zero counter; FIPS 197's AES-128 of a zero block under a zero key is this.
    zero = bytes.fromhex("66e94bd4ef8a2c3b884cfa59ca342b2e")
    stream = Keystream(bytes(16))
    assert stream.take(16) == zero
    assert stream.take(16) != zero
    buffer = bytearray(b"x" * 16)
    Keystream(bytes(16)).fill(buffer)
    assert bytes(buffer) == zero
    source = stretched(bytes)
    assert source(8) + source(8) == zero
