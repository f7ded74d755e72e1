# SPDX-License-Identifier: Apache-2.0
"""The order of the groups, which all contributors come to and in which each finds its own.

Contributors exchange tokens of their group keys, among them those of dummies (`padding.py`); the union of the tokens,
sorted, is the order of the groups. Two ways make tokens, and every owner's rules say which is needed:

hmac   Contributors agree on a key of their own (each sends 32 random bytes to each other; HKDF over all of them), and
       exchange HMAC-SHA256 tokens, cut to 128 bits and sorted. Whoever holds the key can compute the token of a key
       it guesses, at any time, unseen: only where each contributor may learn the others' keys. oprf   Nobody can
       compute a token alone: see `oprf.py`.

Two different keys among N share a token with probability below N² / 2¹²⁹: 2⁻⁸¹ for the most groups allowed. The order
of tokens also hides the order in which a contributor's engine produced its groups.

Gains of a deviating contributor with hmac: as many guesses as it likes, which its rules' owners allowed it; and it
can repeat tokens that it saw, which puts units of its own invention to groups that it does not know, and makes them
pass at the receiver.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from junto.secure import groupkeys, oprf
from junto.secure.codec import pack
from junto.secure.groupkeys import TOKEN_BYTES, Positions
from junto.secure.machine import Script, Send, receive
from junto.types import PartyId, RandomBytes, Tokens


@dataclass(frozen=True, slots=True)
class Alignment:
    """The order of the groups as one contributor knows it.

    size: groups in the union, dummies among them. held: for each contributor, where its tokens stand. order: for each
    of the own tokens, which own key it is of; an index past the keys stands for a dummy. positions: the place of each
    own key. digest: 32 bytes that two contributors have in common exactly if they were told the same tokens.
    """

    size: int
    held: dict[PartyId, Positions] = field(repr=False)
    order: Positions = field(repr=False)
    positions: Positions = field(repr=False)
    digest: bytes = field(repr=False)


def inbox(party: PartyId, contributors: Sequence[PartyId], way: Tokens) -> list[tuple[PartyId, str]]:
    """The messages that `aligned` reads."""
    others = [other for other in contributors if other != party]
    keys = [(other, "key") for other in others]
    return keys + ([(other, "tokens") for other in others] if way == "hmac" else oprf.inbox(party, contributors))


def begin(party: PartyId, contributors: Sequence[PartyId], random_bytes: RandomBytes) -> Script[bytes]:
    """This contributor's random bytes, sent to the others before its groups are known."""
    contribution = random_bytes(32)
    for other in contributors:
        if other != party:
            yield Send(other, "key", pack(np.frombuffer(contribution, dtype=np.uint8)))
    return contribution


def aligned(
    party: PartyId,
    contributors: Sequence[PartyId],
    way: Tokens,
    group_keys: Sequence[bytes],
    dummies: int,
    context: bytes,
    contribution: bytes,
    random_bytes: RandomBytes,
) -> Script[Alignment]:
    """The order of all contributors' groups. `contribution`: the 32 bytes that `begin` sent."""
    others = [other for other in contributors if other != party]
    contributions = yield from receive("key", others, partial(groupkeys.read_key, "key"))
    key = groupkeys.token_key({**contributions, party: contribution}, context)
    if way == "hmac":
        own, order = groupkeys.tokens(key, group_keys, random_bytes(dummies * TOKEN_BYTES))
        for other in others:
            yield Send(other, "tokens", pack(own))
        found = yield from receive("tokens", others, groupkeys.read_tokens)
        tokens = {other: own if other == party else found[other] for other in contributors}
    else:
        tokens, order = yield from oprf.joint_tokens(party, contributors, group_keys, dummies, context, random_bytes)
    size, held = groupkeys.merge(tokens)
    places = np.empty(len(order), dtype=np.int64)
    places[order] = held[party]
    return Alignment(size, held, order, places[: len(group_keys)], groupkeys.union_digest(key, tokens))
