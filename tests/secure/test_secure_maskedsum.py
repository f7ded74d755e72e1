# SPDX-License-Identifier: Apache-2.0
"""The masked sum equals the plain sum; on the wire there are public keys and uniform words, nothing else."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from junto.errors import InvalidInput, InvalidTransition, PeerFault
from junto.secure import codec
from junto.secure.machine import Arrived, InputReady, Send, Started
from junto.secure.maskedsum import Words, contribute, receive_sum
from junto.testing.secure import AnyMachine, Run, run_machines, seeded
from junto.types import PartyId

R = PartyId("receiver")
KEY_BYTES = len(codec.pack(np.zeros(32, dtype=np.uint8)))


def parties(count: int) -> list[PartyId]:
    return [PartyId(f"p{index}") for index in range(count)]


def run(vectors: list[Words], seed: int = 0) -> Run:
    names = parties(len(vectors))
    machines: dict[PartyId, AnyMachine] = {
        name: contribute(name, names, R, b"task/step", seeded(f"{seed} {name}")) for name in names
    }
    machines[R] = receive_sum(names, R)
    return run_machines(machines, {**dict(zip(names, vectors, strict=True)), R: vectors[0].shape}, seed)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.data())
def test_the_receiver_gets_the_sum_mod_two_to_the_64_in_any_order_of_delivery(data: st.DataObject) -> None:
    count, lanes, size = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(0, 40)))
    word = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**63, 2**64 - 1]))
    table = st.lists(st.lists(word, min_size=size, max_size=size), min_size=lanes, max_size=lanes)
    tables = data.draw(st.lists(table, min_size=count, max_size=count))
    vectors = [np.array(rows, dtype=np.uint64).reshape(lanes, size) for rows in tables]
    result = run(vectors, seed=data.draw(st.integers(0, 1000)))
    plain = [[sum(column) % 2**64 for column in zip(*rows, strict=True)] for rows in zip(*tables, strict=True)]
    assert result.outputs[R].tolist() == plain
    assert all(result.outputs[name] is None for name in parties(count))


def test_vectors_longer_than_a_chunk_of_keystream_sum_alike() -> None:
    size = 2 * (1 << 18) // 8 + 5
    vectors = [np.arange(size, dtype=np.uint64).reshape(1, -1) * np.uint64(k) for k in (1, 10, 100)]
    assert np.array_equal(run(vectors).outputs[R], sum(vectors))


def test_each_party_receives_exactly_the_stated_messages() -> None:
    vectors = [np.zeros((2, 9), dtype=np.uint64)] * 3
    result = run(vectors)
    masked = len(codec.pack(vectors[0]))
    a, b, c = parties(3)
    assert result.received_by(a) == [(b, "key", KEY_BYTES), (c, "key", KEY_BYTES)]
    assert result.received_by(b) == [(a, "key", KEY_BYTES), (c, "key", KEY_BYTES)]
    assert result.received_by(c) == [(a, "key", KEY_BYTES), (b, "key", KEY_BYTES)]
    assert result.received_by(R) == [(a, "masked", masked), (b, "masked", masked), (c, "masked", masked)]


def test_a_single_contributor_sends_its_vector_as_it_is_and_nothing_else() -> None:
    vector = np.array([[1, 2, 3]], dtype=np.uint64)
    result = run([vector])
    assert [(line.sender, line.name, line.payload) for line in result.transcript] == [
        ("p0", "masked", codec.pack(vector))
    ]


def _masked(result: Run) -> dict[PartyId, Words]:
    return {
        line.sender: codec.unpack_u64(line.sender, line.name, line.payload, (1, 4096))
        for line in result.transcript
        if line.name == "masked"
    }


def test_masked_vectors_are_uniform_and_new_in_every_run() -> None:
    vectors = [np.full((1, 4096), 7, dtype=np.uint64)] * 3
    first, second = _masked(run(vectors, seed=1)), _masked(run(vectors, seed=2))
    for name in parties(3):
        assert not np.any(first[name] == second[name])
        for words in (first[name], second[name]):
            ones = int(np.unpackbits(words.view(np.uint8)).sum())
            assert abs(ones - 131072) < 6 * 256  # six standard deviations of 262144 fair bits


def test_vectors_of_two_runs_together_are_masked_like_those_of_one() -> None:
    """A receiver that has a run done again and mixes both is left with masks, whatever it adds up."""
    vectors = [np.full((1, 4096), 7, dtype=np.uint64)] * 3
    first, second = _masked(run(vectors, seed=1)), _masked(run(vectors, seed=2))
    a, b, c = parties(3)
    for mixed in (first[a] + second[b] + second[c], first[a] - second[a], first[a] + first[b] + second[c]):
        ones = int(np.unpackbits(mixed.view(np.uint8)).sum())
        assert abs(ones - 131072) < 6 * 256  # as above
        assert np.count_nonzero(mixed == 21) == 0


def test_a_contributor_with_other_public_keys_for_others_spoils_the_sum_and_is_sent_no_more() -> None:
    vectors = [np.full((1, 4096), 7, dtype=np.uint64)] * 3
    names = parties(3)
    machines: dict[PartyId, AnyMachine] = {
        name: contribute(name, names, R, b"task/step", seeded(f"0 {name}")) for name in names
    }
    machines[R] = receive_sum(names, R)

    def deviate(party: PartyId, send: Send) -> Send:
        if (party, send.to, send.name) != (names[0], names[1], "key"):
            return send
        other = X25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().public_bytes_raw()
        return Send(send.to, send.name, codec.pack(np.frombuffer(other, dtype=np.uint8)))

    result = run_machines(machines, {**dict(zip(names, vectors, strict=True)), R: (1, 4096)}, 0, deviate)
    assert not np.any(result.outputs[R] == 21)
    assert [line.name for line in result.transcript if line.to == names[0]] == ["key", "key"]


def test_all_masked_vectors_but_one_still_hide_every_vector() -> None:
    vectors = [np.full((1, 4096), value, dtype=np.uint64) for value in (1, 2, 3)]
    seen = _masked(run(vectors))
    a, b, c = parties(3)
    for left, right in ((a, b), (b, c), (a, c)):
        assert len(np.unique(seen[left] + seen[right])) == 4096
    assert np.all(seen[a] + seen[b] + seen[c] == 6)


def test_masks_of_another_context_do_not_cancel() -> None:
    names = parties(2)
    machines: dict[PartyId, AnyMachine] = {
        name: contribute(name, names, R, f"step-{name}".encode(), seeded(name)) for name in names
    }
    machines[R] = receive_sum(names, R)
    vectors = {name: np.zeros((1, 50), dtype=np.uint64) for name in names}
    assert np.all(run_machines(machines, {**vectors, R: (1, 50)}).outputs[R] != 0)


def test_public_keys_leave_before_the_input_is_there() -> None:
    a, b = parties(2)
    sent = [i for i in contribute(a, [a, b], R, b"c", seeded("one")).handle(Started()) if isinstance(i, Send)]
    assert [(i.to, i.name) for i in sent] == [(b, "key")]


def test_a_machine_masks_one_vector_only() -> None:
    a, b = parties(2)
    machine = contribute(a, [a, b], R, b"c", seeded("one"))
    machine.handle(Started())
    machine.handle(InputReady(np.zeros((1, 1), dtype=np.uint64)))
    with pytest.raises(InvalidTransition):
        machine.handle(InputReady(np.ones((1, 1), dtype=np.uint64)))


def test_the_input_itself_is_not_masked_in_place() -> None:
    vectors = [np.full((1, 10), 7, dtype=np.uint64) for _ in range(2)]
    run(vectors)
    assert np.all(vectors[0] == 7)


@pytest.mark.parametrize(
    "payload",
    [
        codec.pack(np.zeros((2, 3), dtype=np.uint64)),
        codec.pack(np.zeros((1, 3), dtype=np.uint32)),
        codec.pack(np.zeros((1, 3), dtype=np.uint64))[:-1],
        b"",
    ],
)
def test_a_masked_vector_of_another_shape_is_refused_and_not_added(payload: bytes) -> None:
    a, b = parties(2)
    receiver = receive_sum([a, b], R)
    receiver.handle(Started())
    receiver.handle(InputReady((1, 3)))
    with pytest.raises(PeerFault, match="p0's 'masked'"):
        receiver.handle(Arrived(a, "masked", payload))
    five = codec.pack(np.full((1, 3), 5, dtype=np.uint64))
    receiver.handle(Arrived(a, "masked", five))
    (done,) = receiver.handle(Arrived(b, "masked", five))
    assert "5" not in repr(done)
    assert done.output.tolist() == [[10, 10, 10]]  # type: ignore[union-attr]  # the only instruction at the end


def test_a_vector_sent_again_is_added_once() -> None:
    a, b = parties(2)
    receiver = receive_sum([a, b], R)
    receiver.handle(Started())
    receiver.handle(InputReady((1, 1)))
    one = codec.pack(np.ones((1, 1), dtype=np.uint64))
    for _ in range(3):
        assert receiver.handle(Arrived(a, "masked", one)) == []
    (done,) = receiver.handle(Arrived(b, "masked", one))
    assert done.output.tolist() == [[2]]  # type: ignore[union-attr]  # the only instruction at the end


@pytest.mark.parametrize("key", [bytes(32), b"\1" + bytes(31), b"short"])
def test_a_public_key_of_low_order_or_wrong_length_is_refused(key: bytes) -> None:
    a, b = parties(2)
    machine = contribute(a, [a, b], R, b"c", seeded("one"))
    machine.handle(Started())
    machine.handle(InputReady(np.zeros((1, 1), dtype=np.uint64)))
    with pytest.raises(PeerFault):
        machine.handle(Arrived(b, "key", codec.pack(np.frombuffer(key, dtype=np.uint8))))


@pytest.mark.parametrize("vector", [np.zeros(3, dtype=np.uint64), np.zeros((1, 3), dtype=np.int64), np.zeros((1, 3))])
def test_a_vector_of_the_wrong_kind_is_refused(vector: Words) -> None:
    a, b = parties(2)
    machine = contribute(a, [a, b], R, b"c", seeded("one"))
    machine.handle(Started())
    with pytest.raises(InvalidInput, match="uint64 of shape"):
        machine.handle(InputReady(vector))


def test_roles_that_do_not_fit_are_refused() -> None:
    a, b = parties(2)
    with pytest.raises(InvalidInput, match="not one of"):
        contribute(PartyId("z"), [a, b], R, b"c", seeded("one"))
    with pytest.raises(InvalidInput, match="distinct"):
        receive_sum([a, a], R)
    with pytest.raises(InvalidInput, match="1 to"):
        receive_sum([], R)
    with pytest.raises(InvalidInput, match="adds its own"):
        receive_sum([a, R], R)
    receiver = receive_sum([a], R)
    receiver.handle(Started())
    with pytest.raises(InvalidInput, match="expects a shape"):
        receiver.handle(InputReady((1, -1)))
