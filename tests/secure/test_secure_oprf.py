# SPDX-License-Identifier: Apache-2.0
"""Joint tokens line groups up as keyed ones do, a guess needs the others, and who deviates gains what is stated."""

import hashlib

import numpy as np
import pytest
import rbcl

from junto.errors import InvalidInput, PeerFault
from junto.secure import codec, oprf
from junto.secure.alignment import Alignment, aligned, begin, inbox
from junto.secure.groupkeys import TOKEN_BYTES, token_key, tokens
from junto.secure.machine import Arrived, Machine, Script, Send, Started
from junto.testing.secure import AnyMachine, Run, run_machines, seeded
from junto.types import PartyId, Tokens

A, B, C = (PartyId(name) for name in "abc")
NAMES = [b"name %d" % n for n in range(40)]
GROUPS = {A: [*NAMES[:5], b"only a"], B: [*NAMES[3:8], b"only b"], C: [NAMES[4], b"only c"]}


def machine(party: PartyId, parties: tuple[PartyId, ...], way: Tokens, keys: list[bytes]) -> AnyMachine:
    random_bytes = seeded(f"party {party}")

    def script() -> Script[Alignment]:
        contribution = yield from begin(party, parties, random_bytes)
        return (yield from aligned(party, parties, way, keys, 7, b"context", contribution, random_bytes))

    return Machine("alignment", script(), inbox(party, parties, way))


def run(way: Tokens, groups: dict[PartyId, list[bytes]]) -> Run:
    parties = tuple(groups)
    return run_machines({party: machine(party, parties, way, groups[party]) for party in parties}, {})


@pytest.mark.parametrize("way", ["hmac", "oprf"])
@pytest.mark.parametrize("parties", [(A, B), (A, B, C)])
def test_the_same_key_has_one_place_and_others_have_their_own(way: Tokens, parties: tuple[PartyId, ...]) -> None:
    result = run(way, {party: GROUPS[party] for party in parties})
    places: dict[bytes, set[int]] = {}
    for party in parties:
        for key, place in zip(GROUPS[party], result.outputs[party].positions.tolist(), strict=True):
            places.setdefault(key, set()).add(place)
    assert all(len(found) == 1 for found in places.values())
    assert len(set.union(*places.values())) == len(places)
    assert {result.outputs[party].size for party in parties} == {len(places) + 7 * len(parties)}
    assert len({result.outputs[party].digest for party in parties}) == 1


def received(result: Run, party: PartyId, name: str) -> set[bytes]:
    found: set[bytes] = set()
    for line in result.transcript:
        if line.to == party and line.name.startswith(name):
            width = TOKEN_BYTES if name == "tokens" else oprf.ELEMENT_BYTES
            body = line.payload[1 + line.payload[0] :]
            found |= {body[i : i + width] for i in range(0, len(body), width)}
    return found


def test_guessed_names_are_tested_by_hmac_and_not_by_what_an_owner_has_of_joint_tokens() -> None:
    """A curious owner keeps all it received and its own secrets, and tries the names that the other may hold."""
    groups = {A: NAMES[:20], B: [b"own"]}
    result = run("hmac", groups)
    parts = {line.sender: line.payload[-32:] for line in result.transcript if line.name == "key"}
    rows, _ = tokens(token_key(parts, b"context"), NAMES)
    there = received(result, B, "tokens")
    assert sum(row.tobytes() in there for row in rows) == 20  # each of them, and no other

    joint = run("oprf", groups)
    there = received(joint, B, "tokens") | received(joint, B, "blinded")
    drawn = seeded(f"party {B}")
    drawn(32)
    exponent = rbcl.crypto_core_ristretto255_scalar_reduce(drawn(64))
    for name in NAMES:
        hashed = oprf._hashed(b"context", b"key", name)
        alone = rbcl.crypto_scalarmult_ristretto255(exponent, hashed)
        tried = {hashed, alone, *(row.tobytes() for row in oprf._tokens(b"context", [hashed, alone]))}
        assert not tried & there
        assert hashlib.sha256(hashed).digest()[:TOKEN_BYTES] not in there


def bad(*elements: bytes) -> bytes:
    return codec.pack(np.frombuffer(b"".join(elements), dtype=np.uint8).reshape(-1, oprf.ELEMENT_BYTES))


POINT = rbcl.crypto_core_ristretto255_from_hash(bytes(range(64)))


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (bad(bytes(32)), "of which one is no element"),  # the identity, the one element of small order
        (bad(POINT, bytes([1]) + bytes(31)), "of which one is no element"),  # a negative encoding
        (bad(b"\xff" * 32), "of which one is no element"),  # beyond the field
        (bad(POINT, POINT), "two are the same"),
        (codec.pack(np.zeros((1, 31), dtype=np.uint8)), "expected"),
        (bad(*[i.to_bytes(32, "little") for i in range(oprf.KEYS_MAX + 1)]), "at most"),
    ],
)
def test_what_is_no_set_of_elements_is_refused_and_its_sender_named(payload: bytes, says: str) -> None:
    victim = machine(A, (A, B), "oprf", GROUPS[A])
    victim.handle(Started())
    victim.handle(Arrived(B, "key", codec.pack(np.zeros(32, dtype=np.uint8))))
    with pytest.raises(PeerFault, match=f"^{B}.*{says}"):
        victim.handle(Arrived(B, "blinded-1", payload))


def test_blinded_keys_of_another_brought_as_ones_own_meet_nobodys() -> None:
    """The one who copies gets tokens, under the victim's exponent twice: none is the victim's own."""
    result = run("oprf", {A: GROUPS[A], B: GROUPS[B]})
    (copied,) = [line.payload for line in result.transcript if (line.sender, line.name) == (A, "blinded-1")]
    victim = machine(A, (A, B), "oprf", GROUPS[A])
    said = victim.handle(Started())
    said += victim.handle(Arrived(B, "key", codec.pack(np.zeros(32, dtype=np.uint8))))
    said += victim.handle(Arrived(B, "blinded-1", copied))
    (answer,) = [one.payload for one in said if isinstance(one, Send) and one.name == "tokens"]
    own = received(result, A, "tokens")
    body = answer[1 + answer[0] :]
    assert not {body[i : i + TOKEN_BYTES] for i in range(0, len(body), TOKEN_BYTES)} & own


def test_tokens_of_fewer_keys_than_were_brought_are_refused() -> None:
    victim = machine(A, (A, B), "oprf", GROUPS[A])
    victim.handle(Started())
    victim.handle(Arrived(B, "key", codec.pack(np.zeros(32, dtype=np.uint8))))
    victim.handle(Arrived(B, "blinded-1", bad(POINT)))
    with pytest.raises(PeerFault, match=f"{B} sent 1 tokens of {A}, which brought 13 keys"):
        victim.handle(Arrived(B, "tokens", codec.pack(np.zeros((1, TOKEN_BYTES), dtype=np.uint8))))


def test_more_keys_than_may_be_raised_are_refused_before_anything_is_sent() -> None:
    owner = machine(A, (A, B), "oprf", [b"%d" % n for n in range(oprf.KEYS_MAX)])
    owner.handle(Started())
    with pytest.raises(InvalidInput, match="too many to compare where owners may not learn of each other's"):
        owner.handle(Arrived(B, "key", codec.pack(np.zeros(32, dtype=np.uint8))))
