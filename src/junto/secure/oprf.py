# SPDX-License-Identifier: Apache-2.0
"""Tokens of group keys that nobody can compute alone: an oblivious pseudorandom function of all contributors.

Theory of operation
-------------------
Contributor i draws a secret exponent e_i for one step. The token of a key x is H₂(H₁(x)^(e_1 · … · e_n)), in the
group ristretto255 of prime order: the same for all who hold x. Contributor i hashes its keys to the group, raises
them to e_i, which blinds them, orders them by their encoding, and sends them around the ring ("blinded-1", then
"blinded-2", …). Each further contributor raises them to its own exponent and keeps their order; the last hashes them
to tokens and sends these to all ("tokens"). Raising commutes, so all n batches end under the same exponent. Dummies
are hashes of random bytes, among the others.

Adversary. One contributor that deviates, static; links are authenticated. Two that collude know each other's
exponents: with n = 2 they are everybody, with more the honest ones' exponents still protect what the honest ones
hold.

Leakage. A contributor learns how many keys, dummies among them, each other one brings, and which of its own keys the
others have too. It learns nothing of keys that it did not bring: of x it would need H₁(x)^(e_1 · … · e_n), and the
others raise what it brings in its one batch, at most KEYS_MAX of them, once per step, where everybody sees how many.
A guess that it brings is a group of its own in the union. (With tokens by HMAC it could test any number of guesses,
later and unseen.)

Gains of a deviating contributor:
- guesses brought as keys: whether others have them too, for as many guesses as the batch holds. It learns also
  which pass the threshold, with units that it claims; to lie about its own data is its freedom.
- another's blinded keys, brought as its own: tokens under that one's exponent squared, which are in no union.
- another exponent, for one batch or some elements: those keys meet none of the others', so a group's units are not
  added up and it is withheld, or its key arrives twice and the step fails. It does not learn which keys these were.
- an element of small order, the identity, or no element: refused; the group has no other elements of small order.
- the last of a ring may exchange or repeat another's tokens: repeated ones are refused; exchanged ones put the units
  of a key that it does not know to one of its own, which makes the answer wrong. It learns at most whether so many
  units pass.

Source: Jarecki, Kiayias, Krawczyk, ASIACRYPT 2014 (2HashDH); De Cristofaro, Tsudik, FC 2010; the ring of exponents:
Huberman, Franklin, Hogg, EC 1999. ristretto255: RFC 9496.
"""

import hashlib
from collections.abc import Sequence
from functools import partial

import numpy as np
import rbcl

from junto.errors import InvalidInput, PeerFault
from junto.secure.codec import pack, unpack_bytes
from junto.secure.groupkeys import TOKEN_BYTES, Positions, Rows
from junto.secure.machine import Script, Send, receive
from junto.types import PartyId, RandomBytes

ELEMENT_BYTES = 32
KEYS_MAX = 1 << 16
"""The most keys, dummies among them, that one contributor may bring to a step: some 10 s of work at each other one."""


def inbox(party: PartyId, contributors: Sequence[PartyId]) -> list[tuple[PartyId, str]]:
    """The messages that `joint_tokens` reads."""
    before = contributors[list(contributors).index(party) - 1]
    blinded = [(before, f"blinded-{hop}") for hop in range(1, len(contributors))]
    return blinded + [(other, "tokens") for other in contributors if other != party]


def joint_tokens(
    party: PartyId,
    contributors: Sequence[PartyId],
    group_keys: Sequence[bytes],
    dummies: int,
    context: bytes,
    random_bytes: RandomBytes,
) -> Script[tuple[dict[PartyId, Rows], Positions]]:
    """Each contributor's tokens, in an order of its own, and which own key each own token is of.

    An index of len(group_keys) or more stands for a dummy. Raises InvalidInput if the keys are too many.
    """
    count = len(contributors)
    place = list(contributors).index(party)
    before, after = contributors[place - 1], contributors[(place + 1) % count]
    if len(group_keys) + dummies > KEYS_MAX:
        raise InvalidInput(
            "these groups are too many to compare where owners may not learn of each other's: group more coarsely"
        )
    exponent = rbcl.crypto_core_ristretto255_scalar_reduce(random_bytes(64))
    hashed = [_hashed(context, b"key", key) for key in group_keys]
    hashed += [_hashed(context, b"dummy", random_bytes(32)) for _ in range(dummies)]
    blinded = _raised(party, exponent, hashed)
    order = np.array(sorted(range(len(blinded)), key=blinded.__getitem__), dtype=np.int64)
    yield Send(after, "blinded-1", _packed([blinded[index] for index in order.tolist()]))
    found: dict[PartyId, Rows] = {}
    for hop in range(1, count):
        arrived = yield from receive(f"blinded-{hop}", [before], partial(_read_elements, f"blinded-{hop}"))
        raised = _raised(before, exponent, arrived[before])
        if hop < count - 1:
            yield Send(after, f"blinded-{hop + 1}", _packed(raised))
            continue
        found[after] = _tokens(context, raised)  # the ring's last contributor is the one before its first
        for other in contributors:
            if other != party:
                yield Send(other, "tokens", pack(found[after]))
    told = yield from receive("tokens", [other for other in contributors if other != party], _read_tokens)
    for sender, tokens in told.items():
        found[contributors[(contributors.index(sender) + 1) % count]] = tokens
    if len(found[party]) != len(order):
        raise PeerFault(f"{before} sent {len(found[party])} tokens of {party}, which brought {len(order)} keys")
    return {other: found[other] for other in contributors}, order


def _hashed(context: bytes, kind: bytes, message: bytes) -> bytes:
    """An element of the group that nobody knows a logarithm of."""
    parts = (b"junto oprf", context, kind, message)
    digest = hashlib.sha512(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()
    element: bytes = rbcl.crypto_core_ristretto255_from_hash(digest)
    return element


def _raised(sender: PartyId, exponent: bytes, elements: Sequence[bytes]) -> list[bytes]:
    """Each element to the exponent. Raises PeerFault where one is no element, or the identity."""
    try:
        return [rbcl.crypto_scalarmult_ristretto255(exponent, element) for element in elements]
    except RuntimeError as error:
        raise PeerFault(
            f"{sender} sent {len(elements)} blinded keys, of which one is no element of the group"
        ) from error


def _tokens(context: bytes, elements: Sequence[bytes]) -> Rows:
    head = hashlib.sha256(b"junto oprf token" + hashlib.sha256(context).digest())
    joined = bytearray()
    for element in elements:
        digest = head.copy()
        digest.update(element)
        joined += digest.digest()[:TOKEN_BYTES]
    return np.frombuffer(bytes(joined), dtype=np.uint8).reshape(-1, TOKEN_BYTES)


def _packed(elements: Sequence[bytes]) -> bytes:
    return pack(np.frombuffer(b"".join(elements), dtype=np.uint8).reshape(-1, ELEMENT_BYTES))


def _read_elements(name: str, sender: PartyId, payload: bytes) -> list[bytes]:
    rows, _ = unpack_bytes(sender, name, payload, (None, ELEMENT_BYTES))
    if len(rows) > KEYS_MAX:
        raise PeerFault(f"{sender} sent {len(rows)} blinded keys; at most {KEYS_MAX} are raised")
    elements = [row.tobytes() for row in rows]
    if len(set(elements)) != len(elements):
        raise PeerFault(f"{sender} sent {len(elements)} blinded keys, of which two are the same")
    return elements


def _read_tokens(sender: PartyId, payload: bytes) -> Rows:
    rows, _ = unpack_bytes(sender, "tokens", payload, (None, TOKEN_BYTES))
    if len(rows) > KEYS_MAX or len({row.tobytes() for row in rows}) != len(rows):
        raise PeerFault(f"{sender} sent {len(rows)} tokens, of which two are the same, or more than {KEYS_MAX}")
    return rows
