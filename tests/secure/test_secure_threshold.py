# SPDX-License-Identifier: Apache-2.0
"""The threshold decides as the plain counts do, for any parties, groups and order of delivery; bad input is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junto.errors import InvalidInput, InvalidTransition, PeerFault
from junto.secure import codec, nodes
from junto.secure.groupkeys import GROUPS_MAX, KEY_BYTES_MAX, GroupCounts, PassedKeys, Selection
from junto.secure.machine import Arrived, Done, InputReady, Instruction, Need, Started
from junto.secure.shamir import P
from junto.secure.terms import Terms
from junto.secure.threshold import contribute, receive_keys
from junto.testing.secure import AnyMachine, Received, Run, run_machines, seeded
from junto.types import PartyId, Tokens

R = PartyId("receiver")
Groups = dict[bytes, int]


def names(count: int) -> tuple[PartyId, ...]:
    return tuple(PartyId(f"p{index}") for index in range(count))


def counts(groups: Groups) -> GroupCounts:
    none = np.zeros((0, len(groups)))
    return GroupCounts(list(groups), np.array([list(groups.values())], dtype=np.int64).reshape(1, -1), none, none)


def machine(party: PartyId, terms: Terms, seed: int = 0, dummies: int = 0) -> AnyMachine:
    random_bytes = seeded(f"{seed} {party}")
    if party == terms.receiver:
        return receive_keys(terms, b"task/step", random_bytes)
    return contribute(party, terms, b"task/step", random_bytes, dummies)


def run(terms: Terms, groups: list[Groups], seed: int = 0, dummies: int = 0) -> Run:
    machines = {party: machine(party, terms, seed, dummies) for party in (*terms.contributors, terms.receiver)}
    return run_machines(machines, dict(zip(terms.contributors, map(counts, groups), strict=True)), seed)


def everyone(count: int, units: int, parties: int = 1, tokens: Tokens = "hmac") -> Terms:
    contributors = names(count)
    return Terms(contributors, R, (*contributors, R) if count > 1 else contributors, units, parties, tokens=tokens)


def plain(terms: Terms, groups: list[Groups]) -> set[bytes]:
    union = set().union(*groups)
    return {
        key
        for key in union
        if sum(own.get(key, 0) for own in groups) >= terms.units
        and (terms.parties <= 1 or sum(own.get(key, 0) > 0 for own in groups) >= terms.parties)
    }


def check(terms: Terms, groups: list[Groups], result: Run) -> None:
    found = result.outputs[R]
    assert isinstance(found, PassedKeys)
    assert set(found.keys) == plain(terms, groups)
    withheld = [sum(units for key, units in own.items() if key not in plain(terms, groups)) for own in groups]
    assert found.some == (sum(units >= max(terms.units, 1) for units in withheld) >= max(terms.parties, 1))
    for party, own in zip(terms.contributors, groups, strict=True):
        selection = result.outputs[party]
        assert isinstance(selection, Selection)
        assert selection.size >= len(set().union(*groups))
        assert [key for key, passed in zip(own, selection.own, strict=True) if passed] == [
            key for key in own if key in plain(terms, groups)
        ]
        units = np.array([list(own.values())], dtype=np.uint64)
        assert selection.place(units).tolist() == [[own.get(key, 0) for key in found.keys]]


keys = st.one_of(st.integers(0, 12).map(lambda n: b"key-%d" % n), st.binary(max_size=40))


@settings(derandomize=True, max_examples=120, deadline=None)
@given(st.data())
def test_the_secure_decision_is_the_plain_one_in_any_order_of_delivery(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))
    units, parties = data.draw(st.integers(0, 12)), data.draw(st.integers(0, 4))
    contributors = names(count)
    nodes = data.draw(st.permutations([*contributors, R]))[: data.draw(st.integers(3, 7))] if count > 1 else []
    tokens: Tokens = data.draw(st.sampled_from(("hmac", "oprf")))
    terms = Terms(contributors, R, tuple(nodes), units, parties, tokens=tokens)
    owned = st.dictionaries(keys, st.integers(0, 14), max_size=15)
    groups = data.draw(st.lists(owned, min_size=count, max_size=count))
    seed, dummies = data.draw(st.integers(0, 1000)), data.draw(st.sampled_from((0, 1, 20)))
    check(terms, groups, run(terms, groups, seed, dummies))


@pytest.mark.parametrize("units", [1, 2, 3, 7, 8, 10, 33])
def test_sums_around_the_threshold_are_decided_exactly(units: int) -> None:
    groups: list[Groups] = [
        {b"below": units - 1, b"split": units - units // 2, b"alone": units, b"huge": 2**62, b"none": 0},
        {b"split": units // 2, b"below": 0, b"huge": 2**62},
    ]
    terms = everyone(2, units)
    result = run(terms, groups)
    assert set(result.outputs[R].keys) == {b"split", b"alone", b"huge"}
    check(terms, groups, result)


def test_a_group_of_one_contributor_is_withheld_where_two_must_contribute() -> None:
    groups: list[Groups] = [{b"both": 3, b"mine": 50, b"empty there": 50}, {b"both": 3, b"empty there": 0}]
    assert run(everyone(2, 5, 2), groups).outputs[R].keys == [b"both"]
    assert set(run(everyone(2, 5, 1), groups).outputs[R].keys) == {b"both", b"mine", b"empty there"}


@pytest.mark.parametrize("groups", [[{}, {}], [{}, {b"a": 20}], [{b"a": 20}, {}], [{b"": 1}, {b"": 1}]])
@pytest.mark.parametrize("terms", [everyone(2, 10), everyone(2, 1), everyone(2, 0), everyone(2, 0, 2)])
def test_no_groups_one_group_and_the_empty_key_work(groups: list[Groups], terms: Terms) -> None:
    check(terms, groups, run(terms, groups))


@pytest.mark.parametrize("count", [1, 2])
def test_a_key_too_long_to_release_is_withheld_and_fails_nothing(count: int) -> None:
    groups: list[Groups] = [{b"a": 9, b"a" * (KEY_BYTES_MAX + 1): 99}] * count
    assert run(everyone(count, 5), groups).outputs[R].keys == [b"a"]


def test_more_contributors_than_exist_pass_nothing() -> None:
    for count in (1, 2, 3):
        assert run(everyone(count, 1, 4), [{b"a": 9}] * count).outputs[R].keys == []


def test_keys_that_end_in_zeros_and_the_longest_ones_arrive_whole() -> None:
    groups: list[Groups] = [
        {b"a": 9, b"a\0": 9, b"\0": 9, b"z" * KEY_BYTES_MAX: 9},
        {b"a\0\0": 9, b"": 9, b"\0" * 14: 9},
    ]
    for terms in (everyone(2, 5), everyone(2, 0)):
        check(terms, groups, run(terms, groups))
    check(everyone(1, 5), groups[:1], run(everyone(1, 5), groups[:1]))


def _of(group_keys: list[bytes], units: np.ndarray) -> GroupCounts:
    none = np.zeros((0, len(group_keys)))
    return GroupCounts(group_keys, units, none, none)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (_of([b"a", b"a"], np.array([[1, 1]])), "the same key"),
        (_of([b"a"], np.array([[1, 1]])), "1 group keys and 1 counts but"),
        (_of([b"a"], np.array([1])), "1 group keys and 1 counts but"),
        (_of([b"a"], np.array([[1], [1]])), "1 group keys and 1 counts but"),
        (_of([b"a"], np.array([[1.0]])), "1 group keys and 1 counts but"),
        (_of([b"a"], np.array([[-1]])), "negative"),
        (_of([b""] * (GROUPS_MAX + 1), np.array([[1]])), "group more coarsely"),
    ],
)
def test_counts_that_cannot_be_compared_are_refused(bad: GroupCounts, says: str) -> None:
    for count in (1, 2):
        contributor = machine(names(1)[0], everyone(count, 10))
        contributor.handle(Started())
        with pytest.raises(InvalidInput, match=says):
            contributor.handle(InputReady(bad))


def test_products_too_many_to_compute_are_refused_before_they_are_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[Groups] = [{b"a": 9}, {b"b": 9}]
    monkeypatch.setattr(nodes, "ELEMENTS_MAX", 2 * 3 * 6)  # five products and one input of each of two groups, thrice
    run(everyone(2, 10), groups)
    monkeypatch.setattr(nodes, "ELEMENTS_MAX", 2 * 3 * 6 - 1)
    with pytest.raises(InvalidInput, match="2 groups of 1 counts and 0 sums are too many to compare"):
        run(everyone(2, 10), groups)


def test_terms_that_do_not_fit_are_refused() -> None:
    a, b, c = names(3)
    for contributors, receiver, computing, units, parties in (
        ((), R, (), 10, 1),
        ((a, a), R, (a, R), 10, 1),
        ((a, R), R, (a, R), 10, 1),
        ((a, b), R, (a, b), 10, 1),  # two nodes keep nothing from each other
        ((a, b), R, (a, b, b), 10, 1),
        ((a, b), R, (a, b, R), -1, 1),
        ((a, b), R, (a, b, R), P, 1),
    ):
        with pytest.raises(InvalidInput):
            Terms(contributors, receiver, computing, units, parties)
    with pytest.raises(InvalidInput, match="not one of"):
        contribute(c, everyone(2, 10), b"c", seeded("x"), 0)


def test_the_receiver_takes_no_input() -> None:
    receiver = machine(R, everyone(2, 10))
    receiver.handle(Started())
    with pytest.raises(InvalidTransition):
        receiver.handle(InputReady(None))


# --- damaged messages -----------------------------------------------------------------------------------------------

GROUPS: list[Groups] = [{b"a": 4, b"b": 20, b"c": 1}, {b"a": 7, b"b": 2, b"d": 30}, {b"d": 1, b"a": 9, b"e": 15}]
TERMS = everyone(3, 10, 2)


def replay(party: PartyId, terms: Terms, groups: list[Groups], result: Run) -> tuple[AnyMachine, list[Received]]:
    """A party's machine as it was in `result`, with its input, and its messages in the order in which it reads them."""
    again = machine(party, terms)
    needs = [(need.sender, need.name) for need in again.handle(Started()) if isinstance(need, Need)]
    if party != R:
        again.handle(InputReady(counts(groups[terms.contributors.index(party)])))
    lines = {(line.sender, line.name): line for line in result.transcript if line.to == party}
    return again, [lines[need] for need in needs]


def damaged(payload: bytes) -> list[bytes]:
    body = 1 + payload[0]
    bad = [b"", payload[:-1], payload + b"\0", payload[body:], codec.pack(np.zeros((1, 1), dtype=np.uint64))]
    if b"\xa2u4" in payload[:body]:
        bad.append(payload[:-4] + P.to_bytes(4, "little"))
    return bad


@pytest.mark.parametrize("terms", [everyone(3, 10, 2), everyone(3, 10, 2, "oprf")], ids=["hmac", "oprf"])
@pytest.mark.parametrize("party", [*TERMS.contributors, R])
def test_any_damaged_message_is_refused_and_the_right_one_after_it_still_counts(party: PartyId, terms: Terms) -> None:
    result = run(terms, GROUPS)
    again, lines = replay(party, terms, GROUPS, result)
    last: list[Instruction[object]] = []
    for line in lines:
        for bad in damaged(line.payload):
            with pytest.raises(PeerFault, match=line.sender):
                again.handle(Arrived(line.sender, line.name, bad))
        last = again.handle(Arrived(line.sender, line.name, line.payload))
        with pytest.raises(PeerFault, match="twice"):
            again.handle(Arrived(line.sender, line.name, line.payload + b"\0"))
    assert isinstance(last[-1], Done)
    if party == R:
        assert isinstance(last[-1].output, PassedKeys)
        assert last[-1].output.keys == result.outputs[R].keys


@pytest.mark.parametrize("party", [*TERMS.contributors, R])
def test_no_party_takes_a_message_of_another_role(party: PartyId) -> None:
    again = machine(party, TERMS)
    again.handle(Started())
    expected = set(again.missing)
    everything = {line.name for line in run(TERMS, GROUPS).transcript}
    for sender in (*TERMS.contributors, R, PartyId("stranger")):
        for name in everything:
            if (sender, name) not in expected:
                with pytest.raises(PeerFault, match="does not expect"):
                    again.handle(Arrived(sender, name, b""))


@pytest.mark.parametrize("reader", [*names(1), R])
def test_a_node_that_opens_a_wrong_share_is_noticed(reader: PartyId) -> None:
    groups = GROUPS[:2]  # the receiver computes with two others only
    terms = everyone(2, 10, 2)
    again, lines = replay(reader, terms, groups, run(terms, groups))
    opens = [line for line in lines if line.name == "open"]
    for line in lines[: lines.index(opens[-1])]:
        again.handle(Arrived(line.sender, line.name, line.payload))
    payload = bytearray(opens[-1].payload)
    payload[-4:] = ((int.from_bytes(payload[-4:], "little") + 1) % P).to_bytes(4, "little")
    with pytest.raises(PeerFault, match="computed wrongly"):
        again.handle(Arrived(opens[-1].sender, "open", bytes(payload)))
    with pytest.raises(InvalidTransition, match="failed"):
        again.handle(Arrived(opens[-1].sender, "open", opens[-1].payload))


def _tokens(*rows: int) -> bytes:
    return codec.pack(np.array([list(row.to_bytes(16, "big")) for row in rows], dtype=np.uint8).reshape(-1, 16))


@pytest.mark.parametrize(
    "payload",
    [
        _tokens(2, 1),
        _tokens(1, 1),
        _tokens(1 << 64, 1),
        codec.pack(np.zeros((1, 15), dtype=np.uint8)),
        codec.pack(np.zeros((1, 16), dtype=np.uint8), (16,)),
    ],
)
def test_tokens_out_of_order_or_of_another_shape_are_refused(payload: bytes) -> None:
    terms = everyone(2, 10)
    again, lines = replay(terms.contributors[0], terms, GROUPS[:2], run(terms, GROUPS[:2]))
    again.handle(Arrived(lines[0].sender, "key", lines[0].payload))
    with pytest.raises(PeerFault, match=r"^p1"):
        again.handle(Arrived(lines[0].sender, "tokens", payload))


def _keys_message(rows: list[bytes], some: int = 0) -> bytes:
    return codec.pack(np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), -1), (some,))


@pytest.mark.parametrize(
    "payload",
    [
        _keys_message([b"\1\0a" + bytes(13)] * 2),  # one key twice
        _keys_message([b"\x0f\0" + b"a" * 14]),  # longer than its row
        _keys_message([b"\1\0ab" + bytes(12)]),  # something behind its end
        _keys_message([b"\1\0a" + bytes(14)]),  # a width that is no multiple of 16
        _keys_message([b"\1\0a" + bytes(13)], some=2),  # neither yes nor no
        codec.pack(np.zeros((1, 2048), dtype=np.uint8), (1,)),
    ],
)
def test_released_keys_that_are_not_well_formed_are_refused(payload: bytes) -> None:
    receiver = machine(R, everyone(1, 10))
    receiver.handle(Started())
    with pytest.raises(PeerFault, match=r"^p0"):
        receiver.handle(Arrived(names(1)[0], "keys", payload))


def test_contributors_that_were_given_different_rows_share_nothing() -> None:
    """Whoever gives an owner nothing to join leaves it out, unseen by the others."""
    terms = everyone(3, 10)
    empty, full, held = (np.full((1, 32), byte, dtype=np.uint8) for byte in (1, 2, 0))
    for digests, agree in (((full, full, full), True), ((full, held, full), True), ((full, full, empty), False)):
        inputs = {
            party: replace(counts({b"a": 20}), given=digest)
            for party, digest in zip(terms.contributors, digests, strict=True)
        }
        machines = {party: machine(party, terms) for party in (*terms.contributors, R)}
        if agree:
            assert run_machines(machines, inputs).outputs[R].keys == [b"a"]
        else:
            with pytest.raises(PeerFault, match="given other rows to join"):
                run_machines(machines, inputs)
