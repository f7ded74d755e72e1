# SPDX-License-Identifier: Apache-2.0
"""Parties that deviate in a threshold: each deviation ends the run before anything is opened, or gains nothing."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from junto.errors import PeerFault
from junto.secure import codec
from junto.secure.groupkeys import GroupCounts
from junto.secure.machine import Arrived, InputReady, Need, Send, Started
from junto.secure.shamir import P
from junto.secure.terms import Terms
from junto.secure.threshold import compute, contribute, receive_keys
from junto.secure.verified import DIGEST_WORDS, commitment, words_of
from junto.testing.secure import AnyMachine, Run, run_machines, seeded
from junto.types import PartyId

A, B, C, D, E, H, R = (PartyId(name) for name in ("a", "b", "c", "d", "e", "helper", "receiver"))
Deviation = Callable[[PartyId, Send], Send | None]

KEYS = [b"few", b"many", b"none"]
UNITS: dict[PartyId, list[int]] = {A: [4, 6, 0], B: [5, 6, 0], C: [0, 0, 0], D: [0, 0, 0], E: [0, 0, 0]}
TWO = Terms((A, B), R, (A, B, R), 10)
HELPED = Terms((A, B), R, (A, B, H), 10)
THREE = Terms((A, B, C), R, (A, B, C), 10, 2)
FIVE = Terms((A, B, C, D, E), R, (A, B, C, D, E), 10)
SUMS = Terms((A, B), R, (A, B, R), 10, 1, 2, (1,))
ALL = [TWO, HELPED, THREE, FIVE, SUMS]


def machine(party: PartyId, terms: Terms, seed: int = 0) -> AnyMachine:
    random_bytes = seeded(f"{seed} {party}")
    if party == terms.receiver:
        return receive_keys(terms, b"task/step", random_bytes)
    if party in terms.contributors:
        return contribute(party, terms, b"task/step", random_bytes, 0)
    return compute(party, terms, b"task/step", random_bytes)


def counts(party: PartyId, terms: Terms) -> GroupCounts:
    units = np.array([UNITS[party]] * terms.guards)
    magnitudes = np.array([UNITS[party]] * len(terms.sums), dtype=np.float64).reshape(len(terms.sums), 3)
    return GroupCounts(KEYS, units, magnitudes, magnitudes / 4)


def run(terms: Terms, deviate: Deviation, seed: int = 0) -> Run:
    everyone = dict.fromkeys((*terms.contributors, *terms.nodes, terms.receiver))
    machines = {party: machine(party, terms, seed) for party in everyone}
    return run_machines(machines, {party: counts(party, terms) for party in terms.contributors}, seed, deviate)


def unchecked(deviate: Deviation, *villains: PartyId) -> Deviation:
    """The same, by parties that themselves check nothing: their machines wait for what others would prove to them."""
    return lambda party, send: None if send.to in villains and send.name == "check" else deviate(party, send)


def honest(party: PartyId, send: Send) -> Send:
    return send


def elements(send: Send) -> np.ndarray:
    return codec.unpack_u32(send.to, send.name, send.payload, (None,)).astype(np.uint64)


def shifted(terms: Terms, sender: PartyId, send: Send, delta: "np.ndarray | int") -> Send:
    """The message of a node that shares what it should share, plus `delta`, and keeps the share that it has.

    What it adds is the line through `delta` at 0 and zero at its own point.
    """
    own, other = terms.computing.index(sender) + 1, terms.computing.index(send.to) + 1
    slope = -pow(own, -1, P) * other + 1
    moved = (elements(send).astype(object) + delta * (slope % P)) % P
    return replace(send, payload=codec.pack(moved.astype(np.uint32)))


def opened_by(result: Run, deviating: set[PartyId]) -> list[str]:
    """What parties that did not deviate gave away after the check: openings, and what comes of them."""
    names = ("open", "keys", "cells", "masked-keys", "pads")
    return [line.name for line in result.transcript if line.name in names and line.sender not in deviating]


def ends_before_anything_is_opened(result: Run, terms: Terms, *deviating: PartyId) -> None:
    """Some honest node says so; others may still wait for what it did not send, which the task ends for all."""
    assert not opened_by(result, set(deviating))
    assert not result.outputs
    assert set(result.faults) & (set(terms.computing) - set(deviating))


@pytest.mark.parametrize("terms", ALL)
def test_nobody_that_follows_the_protocol_is_blamed(terms: Terms) -> None:
    result = run(terms, honest)
    assert not result.faults
    assert result.outputs[R].keys == [b"many"]
    assert result.outputs[R].cells.all()


def rounds_of(terms: Terms) -> list[str]:
    return list(dict.fromkeys(line.name for line in run(terms, honest).transcript if line.name.startswith("product")))


@pytest.mark.parametrize("terms", ALL)
@pytest.mark.parametrize("which", ["first", "last", "mac"])
@pytest.mark.parametrize("delta", [1, P - 1, 12345])
def test_a_node_that_adds_to_its_products_ends_the_run_before_anything_is_opened(
    terms: Terms, which: str, delta: int
) -> None:
    """In the last round this made every group pass: zero became not zero, and the shares still fitted together."""
    rounds = sorted(rounds_of(terms), key=lambda name: int(name.split("-")[1]))
    name = {"first": rounds[0], "last": rounds[-1], "mac": "mac"}[which]
    for villain in terms.computing:

        def deviate(party: PartyId, send: Send, villain: PartyId = villain) -> Send:
            return shifted(terms, party, send, delta) if (party, send.name) == (villain, name) else send

        ends_before_anything_is_opened(run(terms, unchecked(deviate, villain)), terms, villain)


def test_every_single_number_of_every_round_is_guarded() -> None:
    """Nothing is opened; but where only the proof for one verifier was bent, others may open what is right."""
    transcript = run(TWO, honest).transcript
    for name in ("mac", *rounds_of(TWO)):
        size = len(elements(next(Send(x.to, x.name, x.payload) for x in transcript if x.name == name)))
        proofs = size - 2 * 3 if name == "mac" else size
        for index in range(size):
            delta = np.zeros(size, dtype=object)
            delta[index] = 1

            def deviate(party: PartyId, send: Send, name: str = name, delta: np.ndarray = delta) -> Send:
                return shifted(TWO, party, send, delta) if (party, send.name) == (R, name) else send

            result = run(TWO, unchecked(deviate, R))
            if index < proofs:
                ends_before_anything_is_opened(result, TWO, R)
            elif (index - proofs) // 2 < 2:
                assert result.faults  # the verifier's own; the third verifier is the villain
            for owner in set(result.outputs) & {A, B}:
                assert result.outputs[owner].own.tolist() == [False, True, False]


def test_two_of_five_nodes_together_are_noticed_by_each_of_the_others() -> None:
    villains = {A, D}
    last = rounds_of(FIVE)[-1]

    def deviate(party: PartyId, send: Send) -> Send:
        return shifted(FIVE, party, send, 7 if party == A else 8) if party in villains and send.name == last else send

    ends_before_anything_is_opened(run(FIVE, unchecked(deviate, *villains)), FIVE, *villains)


def test_a_product_that_is_bent_for_one_node_only_is_noticed() -> None:
    last = rounds_of(FIVE)[-1]

    def deviate(party: PartyId, send: Send) -> Send:
        if (party, send.to, send.name) != (A, C, last):
            return send
        return replace(send, payload=codec.pack(((elements(send) + 1) % P).astype(np.uint32)))

    ends_before_anything_is_opened(run(FIVE, unchecked(deviate, A)), FIVE, A)


@pytest.mark.parametrize("terms", ALL)
@pytest.mark.parametrize("place", [0, 1, 2, -1])
def test_a_wrong_share_in_a_check_ends_the_run_for_its_verifier(terms: Terms, place: int) -> None:
    villain, verifier = terms.computing[0], terms.computing[1]

    def deviate(party: PartyId, send: Send) -> Send:
        if (party, send.to, send.name) != (villain, verifier, "check"):
            return send
        found = elements(send)
        found[place] = (found[place] + 1) % P
        return replace(send, payload=codec.pack(found.astype(np.uint32)))

    result = run(terms, deviate)
    assert "nothing was opened" in str(result.faults[verifier])
    assert not any(line.sender == verifier for line in result.transcript if line.name == "open")


def test_a_joint_random_is_not_bent_by_who_deals_its_part_of_it() -> None:
    fixed = DIGEST_WORDS + 3  # the commitment, then ρ for each group

    def deviate(party: PartyId, send: Send) -> Send:
        if (party, send.name) != (R, "random"):
            return send
        delta = np.zeros(len(elements(send)), dtype=object)
        delta[DIGEST_WORDS : fixed + 2 * (1 + 1 + 3)] = 5  # all but what must be zero
        return shifted(TWO, party, send, delta)

    result = run(TWO, deviate)
    assert not result.faults
    assert result.outputs[R].keys == [b"many"]


def test_a_zero_that_is_dealt_as_something_else_ends_the_run() -> None:
    def deviate(party: PartyId, send: Send) -> Send:
        if (party, send.to, send.name) != (R, A, "random"):
            return send
        found = elements(send)
        found[-6:] = (found[-6:] + 1) % P
        return replace(send, payload=codec.pack(found.astype(np.uint32)))

    ends_before_anything_is_opened(run(TWO, unchecked(deviate, R)), TWO, R)


def test_a_coin_other_than_the_one_committed_to_names_its_sender() -> None:
    def deviate(party: PartyId, send: Send) -> Send:
        if (party, send.name) != (R, "coin"):
            return send
        body = codec.unpack_bytes(party, "coin", send.payload, (64,))[0].copy()
        body[0] ^= 1
        return replace(send, payload=codec.pack(body))

    result = run(TWO, deviate)
    ends_before_anything_is_opened(result, TWO, R)
    assert {str(fault) for party, fault in result.faults.items() if party != R} == {
        "receiver's coin is not the one that it committed to; nothing was opened"
    }


def test_commitments_that_differ_from_node_to_node_are_noticed_before_the_coin_counts() -> None:
    """A second seed for one node would give it other coefficients than the rest."""
    context, other_seed = b"task/step", bytes(range(32))

    def deviate(party: PartyId, send: Send) -> Send:
        if (party, send.to) != (R, B) or send.name not in ("random", "coin"):
            return send
        if send.name == "coin":
            body = codec.unpack_bytes(party, "coin", send.payload, (64,))[0].copy()
            body[:32] = np.frombuffer(other_seed, dtype=np.uint8)
            return replace(send, payload=codec.pack(body))
        found = elements(send)
        found[:DIGEST_WORDS] = words_of(commitment(context, R, other_seed))
        return replace(send, payload=codec.pack(found.astype(np.uint32)))

    result = run(TWO, deviate)
    ends_before_anything_is_opened(result, TWO, R)
    assert any("was told other commitments" in str(fault) for fault in result.faults.values())


def test_a_node_opens_its_coin_only_when_it_has_every_product() -> None:
    """Who held back a message until it knows the coin could fit the message to it."""
    for terms in (TWO, THREE):
        transcript = run(terms, honest).transcript
        for late in sorted({line.name for line in transcript if line.name.startswith("product") or line.name == "mac"}):
            node = machine(B, terms)
            needs = [need for need in node.handle(Started()) if isinstance(need, Need)]
            sent = node.handle(InputReady(counts(B, terms)))
            lines = {(x.sender, x.name): x.payload for x in transcript if x.to == B}
            for need in needs:
                if need.name != late or need.sender != A:
                    sent += node.handle(Arrived(need.sender, need.name, lines[need.sender, need.name]))
            assert "coin" not in {s.name for s in sent if isinstance(s, Send)}


@pytest.mark.parametrize("terms", ALL)
def test_a_contributor_whose_shares_lie_on_no_polynomial_is_named(terms: Terms) -> None:
    villain, node = terms.contributors[-1], terms.computing[0]

    def deviate(party: PartyId, send: Send) -> Send:
        if (party, send.to, send.name) != (villain, node, "share"):
            return send
        found = elements(send)
        found[DIGEST_WORDS] = (found[DIGEST_WORDS] + 1) % P
        return replace(send, payload=codec.pack(found.astype(np.uint32)))

    result = run(terms, deviate)
    assert not opened_by(result, {villain})
    said = {str(fault) for party, fault in result.faults.items() if party != villain}
    assert said
    assert all(f"the shares of {villain}'s counts do not fit together: {villain} deviated" in text for text in said)


def test_contributors_that_are_told_different_groups_do_not_add_them_up() -> None:
    """Tokens that differ from contributor to contributor would line up one's group with another's."""
    for order in range(8):

        def deviate(party: PartyId, send: Send) -> Send:
            if (party, send.to, send.name) != (C, B, "tokens"):
                return send
            rows, _ = codec.unpack_bytes(party, "tokens", send.payload, (None, 16))
            other = rows.copy()
            other[0, 15] ^= 1
            return replace(send, payload=codec.pack(other))

        result = run(THREE, deviate, order)
        assert not opened_by(result, {C})
        assert all("shared 4 groups" in str(f) or "different groups" in str(f) for f in result.faults.values())
        assert result.faults


@pytest.mark.parametrize("terms", ALL)
def test_an_opening_that_differs_from_reader_to_reader_is_noticed_by_who_gets_the_wrong_one(terms: Terms) -> None:
    villain = terms.computing[-1]

    def deviate(party: PartyId, send: Send) -> Send:
        if (party, send.to, send.name) != (villain, A, "open"):
            return send
        return replace(send, payload=codec.pack(((elements(send) + 1) % P).astype(np.uint32)))

    result = run(terms, deviate)
    assert isinstance(result.faults[A], PeerFault)
    assert A not in result.outputs


@pytest.mark.parametrize("lie", [-10, -9, -5, 0, 1, 6, P // 2])
def test_a_number_that_is_no_count_is_a_lie_about_ones_own_count_and_tells_one_bit_of_the_sum(lie: int) -> None:
    terms = Terms((A, B), R, (A, H, R), 10)

    def deviate(party: PartyId, send: Send) -> Send:
        if (party, send.name) != (B, "share"):
            return send
        found = elements(send)
        found[DIGEST_WORDS : DIGEST_WORDS + 3] = (found[DIGEST_WORDS : DIGEST_WORDS + 3] + lie % P) % P
        return replace(send, payload=codec.pack(found.astype(np.uint32)))

    result = run(terms, deviate)
    assert not result.faults
    sums = {key: min(a, 10) + min(b, 10) + lie for key, a, b in zip(KEYS, UNITS[A], UNITS[B], strict=True)}
    assert set(result.outputs[R].keys) == {key for key, total in sums.items() if not 0 <= total % P < 10}
