# SPDX-License-Identifier: Apache-2.0
"""The sum of the contributors' vectors, at a receiver that sees none of them.

Theory of operation
-------------------
Roles. N contributors each hold a vector of the same shape; one receiver, not a contributor, learns the sum mod 2⁶⁴.

Rounds. (1) "key": each contributor sends every other a fresh X25519 public key (RFC 7748), before inputs are ready.
(2) Each pair derives a key by HKDF-SHA256 (RFC 5869) from its shared secret, with `context`, both names and both public
keys as info; AES-128-CTR under it is the pair's mask. Of a pair, the contributor named first adds the mask and the
other subtracts it. (3) "masked": each sends its masked vector to the receiver, where all masks cancel. With one
contributor there is nothing to hide the vector among: it goes unmasked.

Adversary. Malicious towards the data of others, static; links are authenticated and encrypted. The sum is as right as
what contributors send: an owner may lie about its own data.

Collusion. Any set of parties that lacks at least two contributors learns, of the contributors outside it, their sum
only. A receiver that colludes with all contributors but one learns that one's vector. Without the receiver, any set of
contributors learns nothing but the shape.

Leakage. The receiver: the sum. Everybody: who takes part, and the shape. Nothing else; a contributor that is lost
ends the step, because its masks are not recovered.

Gains of a deviating party. The receiver chooses nothing: contributors read which groups are summed, each for itself,
from openings that are the same for all of them or refused (`verified.py`), over a union of groups that the nodes
compared (`nodes.py`). If it leaves a vector out, or mixes those of two runs, masks are left over, and it sees uniform
words. A contributor that gives others different public keys, or sends a wrong vector, spoils the sum and learns
nothing: no vector reaches it. A key of low order, for which the secret would be known to all, names its sender. If a
run is lost all begin anew, over the same groups with new masks: the receiver has the same sum twice.

Pads are used once: a machine takes one vector, and keys are ephemeral, so a new machine has new pads.

Source: Bonawitz et al., Practical Secure Aggregation, CCS 2017, section 4.0.1 (masking with one-time pads).
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from numpy.typing import NDArray

from junto.errors import InvalidInput, PeerFault
from junto.secure.codec import pack, unpack_bytes, unpack_u64
from junto.secure.keystream import CHUNK_BYTES, Keystream, derive
from junto.secure.machine import Machine, Script, Send, receive, take_input
from junto.types import PartyId, RandomBytes

PARTIES_MAX = 1 << 14
"""The most contributors: more could wrap the lanes of `encoding`."""

Words = NDArray[np.uint64]


def contribute(
    party: PartyId, contributors: Sequence[PartyId], receiver: PartyId, context: bytes, random_bytes: RandomBytes
) -> Machine[Words, None]:
    """A contributor's machine. Its input is a uint64 array of shape (lanes, n); its output is None.

    `context` names the contract and the step; the same bytes at all parties, never used twice.
    Raises InvalidInput unless the contributors are distinct, hold `party`, and do not hold the receiver.
    """
    _check(contributors, receiver)
    if party not in contributors:
        raise InvalidInput(f"{party} is not one of the {len(contributors)} contributors of this masked sum")
    others = sorted(set(contributors) - {party})
    script = _contribute(party, others, receiver, context, random_bytes)
    return Machine("masked sum", script, [(other, "key") for other in others])


def receive_sum(contributors: Sequence[PartyId], receiver: PartyId) -> Machine[tuple[int, int], Words]:
    """The receiver's machine. Its input is the shape (lanes, n) it expects; its output the sum, uint64, of that shape.

    Raises InvalidInput unless the contributors are distinct and do not hold the receiver.
    """
    _check(contributors, receiver)
    senders = sorted(contributors)
    return Machine("masked sum", _receive_sum(senders), [(sender, "masked") for sender in senders])


def _check(contributors: Sequence[PartyId], receiver: PartyId) -> None:
    if not 1 <= len(contributors) <= PARTIES_MAX or len(set(contributors)) != len(contributors):
        raise InvalidInput(f"a masked sum takes 1 to {PARTIES_MAX} distinct contributors, not {len(contributors)}")
    if receiver in contributors:
        raise InvalidInput(f"{receiver} receives this masked sum, so it adds its own vector itself")


def _contribute(
    party: PartyId, others: Sequence[PartyId], receiver: PartyId, context: bytes, random_bytes: RandomBytes
) -> Script[None]:
    private = X25519PrivateKey.from_private_bytes(random_bytes(32))
    public = private.public_key().public_bytes_raw()
    for other in others:
        yield Send(other, "key", pack(np.frombuffer(public, dtype=np.uint8)))
    values: Words = yield from take_input(np.ndarray, _check_vector)
    agree = partial(_pair_key, party, private, public, context)
    keys = yield from receive("key", others, agree)
    adds = [Keystream(keys[other]) for other in others if party < other]
    subtracts = [Keystream(keys[other]) for other in others if other < party]
    yield Send(receiver, "masked", pack(masked(values, adds, subtracts)))


def _receive_sum(senders: Sequence[PartyId]) -> Script[Words]:
    lanes, count = yield from take_input(tuple, _check_shape)
    total = np.zeros((lanes, count), dtype=np.uint64)

    def add(sender: PartyId, payload: bytes) -> None:
        vector = unpack_u64(sender, "masked", payload, (lanes, count))
        np.add(total, vector, out=total)

    yield from receive("masked", senders, add)
    return total


def masked(values: Words, adds: Sequence[Keystream], subtracts: Sequence[Keystream]) -> Words:
    """A copy of `values` with each keystream's words added or subtracted mod 2⁶⁴, a cached chunk at a time."""
    out = values.astype(np.uint64, order="C", copy=True)
    flat = out.reshape(-1)
    buffer = bytearray(CHUNK_BYTES)
    words = np.frombuffer(buffer, dtype="<u8")
    for start in range(0, flat.size, words.size):
        part = flat[start : start + words.size]
        with memoryview(buffer)[: part.nbytes] as space:
            for stream in adds:
                stream.fill(space)
                np.add(part, words[: part.size], out=part)
            for stream in subtracts:
                stream.fill(space)
                np.subtract(part, words[: part.size], out=part)
    return out


def _pair_key(
    party: PartyId, private: X25519PrivateKey, public: bytes, context: bytes, other: PartyId, payload: bytes
) -> bytes:
    """The key this party and `other` share: the same 16 bytes at both."""
    theirs = unpack_bytes(other, "key", payload, (32,))[0].tobytes()
    try:
        secret = private.exchange(X25519PublicKey.from_public_bytes(theirs))
    except ValueError as error:  # a point of low order: the secret would be known to everybody (RFC 7748, 6.1)
        raise PeerFault(f"{other}'s public key is not one of X25519") from error
    ends = sorted([(party.encode(), public), (other.encode(), theirs)])
    return derive(secret, "masked-sum", context, *(part for end in ends for part in end), size=16)


def _check_vector(values: Words) -> None:
    if values.dtype != np.uint64 or values.ndim != 2:
        raise InvalidInput(f"a masked sum takes uint64 of shape (lanes, n), not {values.dtype} of {values.shape}")


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or min(shape) < 0:
        raise InvalidInput(f"a masked sum expects a shape (lanes, n), not {shape}")
