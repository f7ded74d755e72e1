# SPDX-License-Identifier: Apache-2.0
"""Tokens by which contributors line up their groups, and rows by which keys of groups that passed reach the receiver.

Alignment. See `alignment.py`.

Release. Keys travel as rows of one width, that of the longest key that passed. Row i, of the i-th group that passed,
is hidden by pad i: AES-CTR under a key which the receiver gave to every contributor but the designated one. The
designated contributor puts the rows together without seeing through them, so the receiver sees one uniform list and
not who holds what.

Leakage. Contributors learn the width, and of each other contributor the width of its own keys that passed. Nothing
rests on the keys that did not pass: a key that is too long to release counts as withheld, whatever its units.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from junto.errors import InvalidInput, PeerFault
from junto.secure.codec import unpack_bytes
from junto.secure.keystream import Keystream, derive
from junto.secure.padding import MOST_DUMMIES
from junto.types import PartyId

TOKEN_BYTES = 16
DIGEST_BYTES = 32
GROUPS_MAX = 1 << 22
"""The most groups one contributor may bring."""
KEY_BYTES_MAX = 1022
"""The longest encoding of a group key; its row also holds the length, in two bytes."""
ROWS_BYTES_MAX = 1 << 28
"""The most bytes of keys that one step releases."""

Rows = NDArray[np.uint8]
"""Byte strings of one width: shape (n, width)."""

Positions = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """A contributor's groups: `keys[i]`, a canonical encoding, unique, and what is counted and summed in each.

    units: int64 of shape (guards, n), the units behind each count. totals, largest: float64 of shape (sums, n), of
    each sum the magnitudes of all units together, and that of the largest.
    given: digests of the tables that the groups were joined with, in an order that all share; see `check_given`.
    """

    keys: list[bytes] = field(repr=False)
    units: NDArray[np.int64] = field(repr=False)
    totals: NDArray[np.float64] = field(repr=False)
    largest: NDArray[np.float64] = field(repr=False)
    given: Rows = field(default_factory=lambda: np.zeros((0, DIGEST_BYTES), dtype=np.uint8), repr=False)

    def check(self, guards: int, sums: int) -> None:
        """Raises InvalidInput unless the keys are few and unique, and the numbers as many and not negative."""
        count = len(self.keys)
        if count > GROUPS_MAX:
            raise InvalidInput(f"{count} groups; at most {GROUPS_MAX} can be compared: group more coarsely")
        if self.units.shape != (guards, count) or self.units.dtype != np.int64:
            raise InvalidInput(
                f"{count} group keys and {guards} counts but units of {self.units.dtype}, shape {self.units.shape}"
            )
        if self.units.size and int(self.units.min()) < 0:
            raise InvalidInput("a group has a negative number of units")
        for magnitudes in (self.totals, self.largest):
            if magnitudes.shape != (sums, count) or magnitudes.dtype != np.float64:
                raise InvalidInput(
                    f"{count} group keys and {sums} sums but magnitudes of {magnitudes.dtype}, shape {magnitudes.shape}"
                )
            if np.any(magnitudes < 0):
                raise InvalidInput("a group has a negative magnitude")
        if len(set(self.keys)) != len(self.keys):
            raise InvalidInput("two groups have the same key")


@dataclass(frozen=True, slots=True)
class Selection:
    """A contributor's knowledge of the groups: those that passed, and the places of its own.

    size: groups in the union. cells: bool of shape (guards + sums, size), in the union's order: which counts, then
    which sums, passed in each group. positions: int64, one per own group, its index in the union.
    """

    size: int
    cells: Flags = field(repr=False)
    positions: Positions = field(repr=False)

    @property
    def passed(self) -> Flags:
        """The groups that passed, in the union's order: those whose own units did."""
        flags: Flags = self.cells[0]
        return flags

    @property
    def own(self) -> Flags:
        """The flags of the own groups that passed, in the order in which the groups were given."""
        return self.passed[self.positions]

    def place(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Values of own groups, (lanes, own), as (lanes, passed): in the union's order, zero where not held."""
        own = self.own
        rank = np.cumsum(self.passed) - 1
        placed = np.zeros((values.shape[0], int(np.count_nonzero(self.passed))), dtype=np.uint64)
        placed[:, rank[self.positions[own]]] = values[:, own]
        return placed


@dataclass(frozen=True, slots=True)
class PassedKeys:
    """The receiver's knowledge: the keys of groups that passed, in the union's order, and if others surely did not.

    some: enough units of enough contributors are behind what was withheld for this to be told. False says nothing.
    cells: bool of shape (guards + sums, passed): which counts, then which sums, passed in each of those groups.
    """

    keys: list[bytes] = field(repr=False)
    some: bool
    cells: Flags = field(repr=False)

    @property
    def passed(self) -> int:
        """The number of groups that passed."""
        return len(self.keys)


def read_given(count: int, sender: PartyId, payload: bytes) -> Rows:
    """Another contributor's digests of the tables that it was given."""
    return unpack_bytes(sender, "given", payload, (count, DIGEST_BYTES))[0]


def check_given(party: PartyId, own: Rows, other: PartyId, theirs: Rows) -> None:
    """Raises PeerFault where two contributors were given different rows of one table.

    The giver of rows to join decides by them whose groups are there at all: given none, an owner is left out. A
    table that a contributor holds itself has zeros for a digest, and is compared with nothing.
    """
    both = own.any(axis=1) & theirs.any(axis=1)
    if np.any(own[both] != theirs[both]):
        raise PeerFault(f"{other} was given other rows to join than {party} was: their groups cannot be compared")


def token_key(contributions: Mapping[PartyId, bytes], context: bytes) -> bytes:
    """The key of 32 bytes that the contributors share, from 32 random bytes of each."""
    parts = sorted(contributions.items())
    secret = b"".join(part for _, part in parts)
    return derive(secret, "group-tokens", context, *(party.encode() for party, _ in parts))


def tokens(key: bytes, group_keys: Sequence[bytes], dummies: bytes = b"") -> tuple[Rows, Positions]:
    """The tokens in ascending order, shape (n, 16), and which group each is of; beyond the last, a dummy.

    dummies: random bytes, TOKEN_BYTES for each.
    """
    rows = np.frombuffer(b"".join((*_hmacs(key, group_keys), dummies)), dtype=np.uint8).reshape(-1, TOKEN_BYTES)
    order = _ascending(*_words(rows))
    return rows[order], order


def read_key(name: str, sender: PartyId, payload: bytes) -> bytes:
    """The 32 random bytes that another party sent."""
    return unpack_bytes(sender, name, payload, (32,))[0].tobytes()


def read_tokens(sender: PartyId, payload: bytes) -> Rows:
    """Another contributor's tokens. Raises PeerFault unless they ascend."""
    rows, _ = unpack_bytes(sender, "tokens", payload, (None, TOKEN_BYTES))
    if len(rows) > GROUPS_MAX + MOST_DUMMIES:
        raise PeerFault(f"{sender} announces {len(rows)} groups")
    high, low = _words(rows)
    if not np.all((high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] > low[:-1]))):
        raise PeerFault(f"{sender}'s {len(rows)} tokens are not in ascending order")
    return rows


def merge(sorted_tokens: Mapping[PartyId, Rows]) -> tuple[int, dict[PartyId, Positions]]:
    """The number of different tokens, and the places of each party's tokens in their ascending order."""
    high, low = _words(np.concatenate(list(sorted_tokens.values())))
    order = _ascending(high, low)
    same = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    rank = np.cumsum(np.concatenate(([True], ~same))[: order.size]) - 1
    positions = np.empty(order.size, dtype=np.int64)
    positions[order] = rank
    ends = np.cumsum([len(rows) for rows in sorted_tokens.values()])[:-1]
    size = int(rank[-1]) + 1 if rank.size else 0
    return size, dict(zip(sorted_tokens, np.split(positions, ends), strict=True))


def union_digest(key: bytes, sorted_tokens: Mapping[PartyId, Rows]) -> bytes:
    """32 bytes that contributors have in common exactly if they were told the same tokens. Keyed: it tells no other."""
    digest = hashlib.sha256(derive(key, "group-union", b""))
    for party, rows in sorted(sorted_tokens.items()):
        digest.update(len(party).to_bytes(2, "big") + party.encode() + len(rows).to_bytes(8, "big"))
        digest.update(np.ascontiguousarray(rows).data)
    return digest.digest()


def row_width(longest_bytes: int) -> int:
    """The width that holds keys of that length: a multiple of 16, the finest detail of it that others learn."""
    return max(16, -(-(longest_bytes + 2) // 16) * 16)


def is_width(width: int) -> bool:
    """True if rows of released keys can have that width."""
    return 16 <= width <= row_width(KEY_BYTES_MAX) and width % 16 == 0


def to_rows(group_keys: Sequence[bytes], width: int) -> Rows:
    """Each key as its length (two bytes, little-endian), its bytes, and zeros: shape (n, width).

    Raises InvalidInput if that is too much to release.
    """
    _check_rows(len(group_keys), width)
    rows = np.empty((len(group_keys), width), dtype=np.uint8)
    lengths = np.fromiter(map(len, group_keys), dtype="<u2", count=len(group_keys))
    rows[:, :2] = lengths.view(np.uint8).reshape(-1, 2)
    length = _common(lengths)
    if length:
        rows[:, 2 : 2 + length] = np.frombuffer(b"".join(group_keys), dtype=np.uint8).reshape(-1, length)
        rows[:, 2 + length :] = 0
    else:
        rows[:, 2:] = np.array(group_keys, dtype=f"S{width - 2}").view(np.uint8).reshape(-1, width - 2)
    return rows


def rows_of(group_keys: Sequence[bytes], which: Positions, width: int) -> Rows:
    """Some of the keys as `to_rows` gives them, in the order of `which`."""
    if 2 * len(which) > len(group_keys) and len(group_keys) * width <= ROWS_BYTES_MAX:
        return to_rows(group_keys, width)[which]  # arrays are reordered faster than lists
    return to_rows([group_keys[index] for index in which.tolist()], width)


def from_rows(sender: PartyId, rows: Rows) -> list[bytes]:
    """The keys in the rows. Raises PeerFault where a row is not well-formed or two are the same."""
    count, width = rows.shape
    lengths = np.ascontiguousarray(rows[:, :2]).view("<u2").reshape(-1)
    length = _common(lengths)
    padding = np.arange(2, width) >= (length or lengths[:, None].astype(np.int64)) + 2
    if np.any(lengths > width - 2) or np.any(rows[:, 2:] & -padding.astype(np.uint8)):
        raise PeerFault(f"{sender}'s {count} group keys of width {width} are not well-formed")
    keys: list[bytes]
    if length:
        keys = np.ascontiguousarray(rows[:, 2 : 2 + length]).view(f"V{length}").reshape(-1).tolist()
    else:
        data = rows.tobytes()
        starts = range(2, 2 + count * width, width)
        keys = [data[start : start + length] for start, length in zip(starts, lengths.tolist(), strict=True)]
    if len(set(keys)) != count:
        raise PeerFault(f"{sender}'s {count} group keys hold one twice")
    return keys


def pads(pad_key: bytes, context: bytes, count: int, width: int) -> Rows:
    """The pads of the groups that passed, shape (count, width)."""
    _check_rows(count, width)
    stream = Keystream(derive(pad_key, "group-key-pads", context, size=16))
    return np.frombuffer(stream.take(count * width), dtype=np.uint8).reshape(count, width)


def senders_of(holders: Sequence[Positions], size: int) -> Positions:
    """The contributor that supplies each group's key: the first (the designated), else the lowest.

    holders: for each contributor in order, the groups it holds.
    """
    first = np.full(size, -1, dtype=np.int64)
    for index in reversed(range(len(holders))):
        first[holders[index]] = index
    return first


def _hmacs(key: bytes, messages: Sequence[bytes]) -> Iterator[bytes]:
    """HMAC-SHA256 of each message, cut to TOKEN_BYTES (RFC 2104); the key's two blocks are hashed once for all."""
    block = key.ljust(64, b"\0")
    inner, outer = (hashlib.sha256(bytes(byte ^ pad for byte in block)).copy for pad in (0x36, 0x5C))
    for message in messages:
        first, second = inner(), outer()
        first.update(message)
        second.update(first.digest())
        yield second.digest()[:TOKEN_BYTES]


def _check_rows(count: int, width: int) -> None:
    if count * width > ROWS_BYTES_MAX:
        raise InvalidInput(
            f"{count} group keys of {width} bytes are more than {ROWS_BYTES_MAX} bytes: group by shorter expressions"
        )


def _ascending(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> Positions:
    """The order in which the pairs ascend; among equal ones, as they stand."""
    order: Positions = np.argsort(high, kind="stable")  # of sorted runs: a merge
    ties = high[order][1:] == high[order][:-1]
    if np.any(low[order][1:][ties] < low[order][:-1][ties]):
        order = np.lexsort((low, high))
    return order


def _common(lengths: NDArray[np.uint16]) -> int:
    """The length that all have; 0 if they differ, or there are none."""
    return int(lengths[0]) if lengths.size and np.all(lengths == lengths[0]) else 0


def _words(rows: Rows) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Tokens as pairs of numbers that sort as the bytes do."""
    pairs = np.ascontiguousarray(rows).view(">u8").astype(np.uint64)
    return pairs[:, 0], pairs[:, 1]
