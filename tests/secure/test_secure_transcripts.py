# SPDX-License-Identifier: Apache-2.0
"""What crosses the wire in a threshold, pinned per party against the leakage that `threshold.py` states."""

import hmac
import random

import numpy as np
import pytest

from junto.secure import codec
from junto.secure.groupkeys import GroupCounts, merge, tokens
from junto.secure.padding import EPSILON, MEAN_DUMMIES, MOST_DUMMIES, dummies
from junto.secure.shamir import P, rebuild
from junto.secure.terms import Terms
from junto.secure.threshold import contribute, receive_keys
from junto.testing.secure import Run, run_machines, seeded
from junto.types import PartyId, Tokens

A, B, C, D, R = (PartyId(name) for name in ("a", "b", "c", "d", "receiver"))
Groups = dict[bytes, int]


def run(terms: Terms, groups: dict[PartyId, Groups], seed: int = 0, dummies: int = 0) -> Run:
    machines = {
        party: contribute(party, terms, b"task/step", seeded(f"{seed} {party}"), dummies)
        for party in terms.contributors
    }
    inputs = {party: counts(own) for party, own in groups.items()}
    receiver = receive_keys(terms, b"task/step", seeded(f"{seed} receiver"))
    return run_machines({**machines, R: receiver}, inputs, seed)


def counts(own: Groups) -> GroupCounts:
    none = np.zeros((0, len(own)))
    return GroupCounts(list(own), np.array([list(own.values())], dtype=np.int64).reshape(1, -1), none, none)


def size_of(dtype: str, *shape: int, extra: tuple[int, ...] = ()) -> int:
    return len(codec.pack(np.zeros(shape, dtype=dtype), extra))


KEY = size_of("u1", 32)
GIVEN = size_of("u1", 0, 32)
WITHHELD_NOTE = size_of("u1", 0, extra=(32, 0))

# six groups in all: `both` and `alone a` and `alone c` pass, `small*` do not
GROUPS: dict[PartyId, Groups] = {
    A: {b"group-of-both-parties": 6, b"group-alone-at-a": 11, b"small-group-at-a": 9},
    B: {b"group-of-both-parties": 6, b"small-group-at-b": 2},
    C: {b"group-alone-at-c": 40, b"small-group-of-b-c": 4},
}
GROUPS[B][b"small-group-of-b-c"] = 4
PASSED = {b"group-of-both-parties", b"group-alone-at-a", b"group-alone-at-c"}
WITHHELD = {b"small-group-at-a", b"small-group-at-b", b"small-group-of-b-c"}
TERMS = Terms((A, B, C), R, (A, B, R), 10)
WIDTH = 32  # the longest key takes 21 bytes and 2 for its length


def test_each_party_receives_exactly_the_stated_messages() -> None:
    result = run(TERMS, GROUPS)
    assert set(result.outputs[R].keys) == PASSED
    share, element = size_of("u4", 9 + 6 + 2), size_of("u4", 6)  # a digest, a number for each group, two masks
    # a multiplication is of a number for each group, and of its product with each of two joint randoms
    sizes = {
        "random": size_of("u4", 9 + 6 + 2 * (1 + 1 + 3 + 3)),  # a commitment, ρ, then r, masks, verifiers' ρ and zeros
        "mac": size_of("u4", 6 * 2 + 2 + 2 * 3),
        **{f"product-{turn}": size_of("u4", count * 6 * 3) for turn, count in {1: 1, 2: 1, 3: 2, 4: 1}.items()},
        "coin": size_of("u1", 64),
        "check": size_of("u4", 2 * (1 + 3)),  # of the products, and of each contributor's shares
    }

    def tokens_of(count: int) -> int:
        return size_of("u1", count, 16)

    def from_nodes(*nodes: PartyId) -> list[tuple[PartyId, str, int]]:
        return [(node, name, size) for node in nodes for name, size in sizes.items()]

    assert result.received_by(A) == sorted(
        [
            *[(B, "key", KEY), (C, "key", KEY), (B, "tokens", tokens_of(3)), (C, "tokens", tokens_of(2))],
            *[(B, "share", share), (C, "share", share), *from_nodes(B, R)],
            *[
                (B, "open", element),
                (R, "open", element),
                (B, "withheld", WITHHELD_NOTE),
                (C, "withheld", WITHHELD_NOTE),
            ],
            *[(B, "given", GIVEN), (C, "given", GIVEN)],
            # b holds nothing that a lacks and that passed; c holds one; two pads for a's own
            (B, "masked-keys", size_of("u1", 0, WIDTH)),
            (C, "masked-keys", size_of("u1", 1, WIDTH)),
            (B, "pads", size_of("u1", 2, WIDTH)),
        ]
    )
    assert result.received_by(B) == sorted(
        [
            *[(A, "key", KEY), (C, "key", KEY), (A, "tokens", tokens_of(3)), (C, "tokens", tokens_of(2))],
            *[(A, "share", share), (C, "share", share), *from_nodes(A, R)],
            *[(A, "open", element), (R, "open", element), (R, "pad", KEY)],
            *[(A, "withheld", WITHHELD_NOTE), (C, "withheld", WITHHELD_NOTE), (A, "given", GIVEN), (C, "given", GIVEN)],
        ]
    )
    assert result.received_by(C) == sorted(  # no node: sees no share but of what is opened
        [
            *[(A, "key", KEY), (B, "key", KEY), (A, "tokens", tokens_of(3)), (B, "tokens", tokens_of(3))],
            *[(A, "open", element), (B, "open", element), (R, "open", element), (R, "pad", KEY)],
            *[(A, "withheld", WITHHELD_NOTE), (B, "withheld", WITHHELD_NOTE), (A, "given", GIVEN), (B, "given", GIVEN)],
        ]
    )
    assert result.received_by(R) == sorted(  # no key, no token
        [
            *[(A, "share", share), (B, "share", share), (C, "share", share), *from_nodes(A, B)],
            *[(A, "open", element), (B, "open", element)],
            (A, "keys", size_of("u1", 3, WIDTH, extra=(0,))),
        ]
    )


def test_a_receiver_that_does_not_compute_receives_the_keys_only() -> None:
    terms = Terms((A, B, C), R, (A, B, C), 10)
    told = [(A, "cells", size_of("u1", 1, 3)), (A, "keys", size_of("u1", 3, WIDTH, extra=(0,)))]
    assert run(terms, GROUPS).received_by(R) == told


def test_a_single_contributor_sends_the_keys_that_passed_in_an_order_of_their_own() -> None:
    groups: Groups = {b"z": 10, b"secret-small-group": 9, b"a": 11}
    result = run(Terms((A,), R, (A,), 10), {A: groups})
    assert result.received_by(R) == [(A, "cells", size_of("u1", 1, 2)), (A, "keys", size_of("u1", 2, 16, extra=(0,)))]
    assert result.received_by(A) == []
    assert result.outputs[R].keys == [b"a", b"z"]
    assert b"secret" not in result.payloads(R)


def test_where_nothing_is_asked_only_keys_cross() -> None:
    result = run(Terms((A, B, C), R, (), 0), GROUPS)
    names = {"key", "tokens", "given", "withheld", "pad", "masked-keys", "pads", "cells", "keys"}
    assert {line.name for line in result.transcript} == names
    assert result.received_by(R) == [
        (A, "cells", size_of("u1", 1, 6)),
        (A, "keys", size_of("u1", 6, WIDTH, extra=(0,))),
    ]


def test_no_group_key_crosses_in_the_clear_withheld_or_not() -> None:
    result = run(TERMS, GROUPS)
    for party in (A, B, C, R):
        for key in PASSED | WITHHELD:
            assert key[:8] not in result.payloads(party)


def test_a_row_is_released_for_each_group_that_passed_and_none_for_a_withheld_one() -> None:
    lines = run(TERMS, GROUPS).transcript
    assert sum(_rows(line.payload) for line in lines if line.name == "keys") == len(PASSED)
    assert sum(_rows(line.payload) for line in lines if line.name in ("masked-keys", "pads")) == len(PASSED)


def _rows(payload: bytes) -> int:
    body = 1 + payload[0]
    return (len(payload) - body) // WIDTH


def test_the_designated_contributor_cannot_lift_the_pads() -> None:
    first, second = run(TERMS, GROUPS, seed=1), run(TERMS, GROUPS, seed=2)
    for result in (first, second):
        assert not [line for line in result.transcript if line.to == A and line.name == "pad"]
    padded = [
        next(line.payload for line in result.transcript if (line.sender, line.name) == (C, "masked-keys"))
        for result in (first, second)
    ]
    plain = b"\x10\0group-alone-at-c".ljust(WIDTH, b"\0")
    same = [x == y for x, y in zip(padded[0][-WIDTH:], padded[1][-WIDTH:], strict=True)]
    assert sum(same) < WIDTH // 4
    assert sum(x == y for x, y in zip(padded[0][-WIDTH:], plain, strict=True)) < WIDTH // 4
    # the pads it is given are for its own groups; xored onto the others' rows they give nothing
    pads = next(line.payload for line in first.transcript if line.name == "pads")[-2 * WIDTH :]
    for pad in (pads[:WIDTH], pads[WIDTH:]):
        assert bytes(x ^ y for x, y in zip(padded[0][-WIDTH:], pad, strict=True)) != plain


def test_no_pad_hides_two_rows() -> None:
    result = run(TERMS, GROUPS)
    keys = {key: len(key).to_bytes(2, "little") + key.ljust(WIDTH - 2, b"\0") for key in result.outputs[R].keys}
    line = next(line.payload for line in result.transcript if line.name == "keys")[-3 * WIDTH :]
    pads = {
        bytes(x ^ y for x, y in zip(line[i * WIDTH : (i + 1) * WIDTH], keys[key], strict=True))
        for i, key in enumerate(result.outputs[R].keys)
    }
    assert len(pads) == 3


@pytest.mark.parametrize("terms", [TERMS, Terms((A, B, C), R, (A, B, C), 10)])
def test_the_receiver_sees_the_same_messages_whoever_holds_the_groups(terms: Terms) -> None:
    moved = {A: GROUPS[C], B: GROUPS[A], C: GROUPS[B]}
    first, second = run(terms, GROUPS), run(terms, moved)
    assert first.received_by(R) == second.received_by(R)
    assert set(first.outputs[R].keys) == set(second.outputs[R].keys)


def test_tokens_of_one_key_differ_between_runs_and_are_sorted() -> None:
    groups = {party: {b"key-%d" % n: 20 for n in range(50)} for party in (A, B)}
    terms = Terms((A, B), R, (A, B, R), 10)
    tables = []
    for seed in (1, 2):
        result = run(terms, groups, seed)
        ours, theirs = (line.payload[-800:] for line in result.transcript if line.name == "tokens")
        assert ours == theirs  # the two hold the same groups, so they send the same tokens
        tables.append([ours[i : i + 16] for i in range(0, 800, 16)])
    assert tables[0] == sorted(tables[0])
    assert not set(tables[0]) & set(tables[1])


def test_tokens_are_hmac_sha256_cut_to_128_bits_in_ascending_order() -> None:
    found = [b"", b"key", b"k" * 200]
    rows, order = tokens(b"s" * 32, found)
    expected = [hmac.digest(b"s" * 32, key, "sha256")[:16] for key in found]
    assert [row.tobytes() for row in rows] == sorted(expected)
    assert [expected[index] for index in order] == sorted(expected)


@pytest.mark.parametrize("seed", range(20))
def test_merged_tokens_stand_in_the_order_of_their_union(seed: int) -> None:
    order = random.Random(seed)
    # few different high halves, so that order rests on the low ones too
    universe = [order.randrange(3).to_bytes(8, "big") + order.randrange(50).to_bytes(8, "big") for _ in range(60)]
    owned = {party: sorted(set(order.choices(universe, k=order.randrange(40)))) for party in (A, B, C)}
    arrays = {party: np.frombuffer(b"".join(own), np.uint8).reshape(-1, 16) for party, own in owned.items()}
    union = sorted(set().union(*owned.values()))
    size, positions = merge(arrays)
    assert size == len(union)
    for party, own in owned.items():
        assert [union[index] for index in positions[party]] == own


# --- what is opened -------------------------------------------------------------------------------------------------

MANY = Terms((A, B, C, D), R, (A, B, R), 3, 2)
"""c and d are no nodes, so their transcripts hold all shares of what is opened."""


def openings(result: Run) -> list[int]:
    shares = {
        line.sender: codec.unpack_u32(line.sender, line.name, line.payload, (None,))
        for line in result.transcript
        if line.to == C and line.name == "open"
    }
    return [int(value) for value in rebuild(np.stack([shares[node] for node in MANY.nodes]).astype(np.uint64), 1)]


def test_one_number_per_group_is_opened_and_it_is_zero_whichever_condition_failed() -> None:
    few_units, one_party, both, passes = b"1", b"2", b"3", b"4"
    groups = {A: {few_units: 1, one_party: 9, both: 1, passes: 2}, B: {few_units: 1, passes: 7}, C: {}, D: {}}
    result = run(MANY, groups)
    assert len(openings(result)) == 4
    assert sorted(openings(result))[:3] == [0, 0, 0]
    assert result.outputs[R].keys == [passes]


def test_what_is_opened_of_groups_that_pass_is_uniform_and_not_their_product() -> None:
    same: Groups = {b"key-%d" % n: 5 for n in range(3000)}
    groups: dict[PartyId, Groups] = {A: same, B: same, C: {}, D: {}}
    first, second = openings(run(MANY, groups, seed=1)), openings(run(MANY, groups, seed=2))
    product = 3 * 2 * 1 * 2 * 1  # clipped sums of 6 units and 2 parties: (6)(5)(4) and (2)(1)
    assert product not in first
    assert 6 * 5 * 4 * 2 not in first
    assert not any(x == y for x, y in zip(first, second, strict=True))
    buckets = np.bincount(np.array(first) * 16 // P, minlength=16)
    expected = len(first) / 16
    assert float(((buckets - expected) ** 2 / expected).sum()) < 45  # chi-square, 15 degrees: p = 8e-5


@pytest.mark.parametrize("party", [A, R])
def test_the_shares_a_node_receives_look_alike_for_small_and_large_counts(party: PartyId) -> None:
    terms = Terms((A, B), R, (A, B, R), 10)
    for units in (0, 1, 10):
        groups: dict[PartyId, Groups] = {A: {}, B: {b"key-%d" % n: units for n in range(3000)}}
        for name in ("share", "random", "mac", "product-1", "product-4"):
            line = next(x for x in run(terms, groups).transcript if (x.to, x.sender, x.name) == (party, B, name))
            body = np.frombuffer(line.payload[1 + line.payload[0] :], dtype="<u4").astype(np.int64)[9:]
            buckets = np.bincount(body * 16 // P, minlength=16)
            expected = len(body) / 16
            assert float(((buckets - expected) ** 2 / expected).sum()) < 45  # chi-square, 15 degrees: p = 8e-5


def test_shares_are_new_in_every_run() -> None:
    first, second = run(TERMS, GROUPS, seed=1), run(TERMS, GROUPS, seed=2)
    hidden = ("key", "tokens", "share", "random", "mac", "coin", "check", "pad", "keys")
    for name in hidden:
        assert not {x.payload for x in first.transcript if x.name == name} & {
            x.payload for x in second.transcript if x.name == name
        }


# --- how much was withheld ------------------------------------------------------------------------------------------


def lines_of(result: Run) -> list[tuple[PartyId, PartyId, str, int]]:
    return sorted((line.to, line.sender, line.name, len(line.payload)) for line in result.transcript)


@pytest.mark.parametrize("tokens", ["hmac", "oprf"])
def test_one_group_more_or_less_is_made_up_for_by_a_dummy_in_every_message(tokens: Tokens) -> None:
    """All sizes are a function of the groups that passed and of the number of keys and dummies together."""
    terms = Terms((A, B, C), R, (A, B, C), 10, tokens=tokens)
    with_it: dict[PartyId, Groups] = {A: {b"shown": 20, b"a person of " + b"x" * 300: 1}, B: {b"shown": 1}, C: {}}
    without: dict[PartyId, Groups] = {A: {b"shown": 20}, B: {b"shown": 1}, C: {}}
    assert lines_of(run(terms, with_it, dummies=5)) == [
        (to, sender, name, size) for to, sender, name, size in lines_of(run_with(terms, without, {A: 6, B: 5, C: 5}))
    ]


def run_with(terms: Terms, groups: dict[PartyId, Groups], dummies: dict[PartyId, int]) -> Run:
    machines = {
        party: contribute(party, terms, b"task/step", seeded(f"0 {party}"), dummies[party])
        for party in terms.contributors
    }
    inputs = {party: counts(own) for party, own in groups.items()}
    return run_machines({**machines, R: receive_keys(terms, b"task/step", seeded("0 receiver"))}, inputs)


@pytest.mark.parametrize("units", [0, 9])
@pytest.mark.parametrize("owners", [(A,), (A, B, C)])
def test_a_receiver_is_told_the_same_of_no_group_and_of_groups_that_were_all_withheld(
    owners: tuple[PartyId, ...], units: int
) -> None:
    terms = Terms(owners, R, owners, 10)
    groups: dict[PartyId, Groups] = {party: {} for party in owners}
    nothing = run(terms, groups, dummies=3)
    groups[A] = {b"one person": units} if units else {}
    found = run(terms, groups, dummies=3)
    assert found.received_by(R) == nothing.received_by(R)
    assert (found.outputs[R].keys, found.outputs[R].some) == (nothing.outputs[R].keys, nothing.outputs[R].some)


def test_that_some_were_withheld_is_told_from_as_many_units_as_a_group_needs() -> None:
    for parties, held, told in ((1, {A: 9}, False), (1, {A: 10}, True), (2, {A: 50}, False), (2, {A: 10, B: 10}, True)):
        terms = Terms((A, B, C), R, (A, B, C), 10, parties)
        groups = {party: {b"%s %d" % (party.encode(), n): 1 for n in range(held.get(party, 0))} for party in (A, B, C)}
        assert run(terms, groups).outputs[R].some is told


def test_dummies_are_drawn_as_stated() -> None:
    drawn = [dummies(seeded(f"draw {n}")) for n in range(4000)]
    assert 0 <= min(drawn) <= max(drawn) <= MOST_DUMMIES
    assert abs(np.mean(drawn) - MEAN_DUMMIES) < 1
    assert abs(np.std(drawn) - 7.06) < 0.5  # √(2 e^−ε) / (1 − e^−ε) with ε = 0.2
    assert dummies(seeded("one")) == dummies(seeded("one"))


def test_a_group_is_hidden_by_the_dummies_as_far_as_is_stated() -> None:
    ratio = np.exp(-EPSILON)
    chance = (1 - ratio) / (1 + ratio) * ratio ** np.abs(np.arange(MOST_DUMMIES + 1) - MEAN_DUMMIES)
    chance[[0, -1]] += (1 - chance.sum()) / 2
    one, other = np.append(chance, 0), np.append(0, chance)  # with a group more, the number seen is one greater
    assert np.clip(one - np.exp(EPSILON) * other, 0, None).sum() < 1e-9
    assert np.clip(other - np.exp(EPSILON) * one, 0, None).sum() < 1e-9
