# SPDX-License-Identifier: Apache-2.0
"""The charter: which parties there are, whose word counts for each, and where to reach them.

A charter is in force once *every* member has signed it with its authority's key; nobody else can bring it about and
no member can be left out of it unseen. Its digest covers the charter alone, so it is the same whoever has signed.
A change is a new charter of the next version, signed anew by everyone it names.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from junto.errors import InvalidInput
from junto.trust import envelope as dsse
from junto.trust.certificates import Authority, check_authority, ed25519_key, utc_text
from junto.trust.envelope import Envelope, KeyId, key_id
from junto.trust.names import check_name, parse_address
from junto.types import Digest, PartyId

CHARTER_TYPE = "application/vnd.junto.charter+json"
CARD_TYPE = "application/vnd.junto.card+json"
CHARTER_BYTES = 1 << 20
CARD_BYTES = 64 << 10
MEMBERS = 200
ADDRESSES = 8

_FORMAT = 1


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A party as others know it. Without addresses it takes part by dialling out alone."""

    name: PartyId
    authority_pem: str
    addresses: tuple[str, ...]


class Charter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The members' agreement. `create` and `verify` make checked ones; members stand in order of name."""

    format: int = _FORMAT
    consortium: str
    version: int
    created: datetime
    quorum: int  # how many members' signatures settle what all have to agree on
    members: tuple[Member, ...]

    @property
    def payload(self) -> bytes:
        """The canonical bytes, which members sign."""
        return msgspec.json.encode(self)

    @property
    def digest(self) -> Digest:
        """Names this charter, whoever has signed it."""
        return Digest(f"sha256:{hashlib.sha256(self.payload).hexdigest()}")

    def member(self, party: PartyId) -> Member:
        """The party's entry. Raises InvalidInput if it has none."""
        for member in self.members:
            if member.name == party:
                return member
        names = ", ".join(member.name for member in self.members)
        raise InvalidInput(f"charter of {self.consortium} has no party {party!r}; its parties are {names}")


@dataclass(frozen=True, slots=True)
class SignedCharter:
    """A charter with those signatures on it that were found good."""

    charter: Charter
    envelope: Envelope
    signed: tuple[PartyId, ...]  # in order of name

    @property
    def unsigned(self) -> tuple[PartyId, ...]:
        """The members that have not signed yet."""
        return tuple(member.name for member in self.charter.members if member.name not in self.signed)

    @property
    def is_in_force(self) -> bool:
        """True if every member has signed."""
        return not self.unsigned

    def encode(self) -> bytes:
        """The file to hand on."""
        return dsse.encode(self.envelope) + b"\n"


def create(
    members: Iterable[Member], consortium: str, now: float, *, version: int = 1, quorum: int | None = None
) -> SignedCharter:
    """A charter that nobody has signed yet.

    now: seconds since 1970. quorum: more than two thirds of the members unless given.
    Raises InvalidInput, naming both sides, for duplicate names, keys or addresses, and for two parties that cannot
    reach each other because neither has an address.
    """
    ordered = tuple(sorted(members, key=lambda member: member.name))
    charter = Charter(
        consortium=consortium,
        version=version,
        created=datetime.fromtimestamp(int(now), UTC),
        quorum=2 * len(ordered) // 3 + 1 if quorum is None else quorum,
        members=ordered,
    )
    _check(charter)
    return SignedCharter(charter, Envelope(CHARTER_TYPE, charter.payload, ()), ())


def sign(copy: SignedCharter, authority: Authority) -> SignedCharter:
    """The charter with the party's signature added; unchanged if it has signed already.

    Raises InvalidInput unless the charter names the party with exactly this authority.
    """
    member = copy.charter.member(authority.party)
    if member.authority_pem != authority.certificate_pem:
        raise InvalidInput(
            f"charter names another authority for {authority.party} than the one in its home: "
            f"create the charter again with the card that `junto party card` gives now"
        )
    signed = tuple(sorted({*copy.signed, authority.party}))
    return SignedCharter(copy.charter, dsse.add_signature(copy.envelope, authority.key), signed)


def merge(copies: Sequence[SignedCharter]) -> SignedCharter:
    """One charter with the signatures of all copies. Raises InvalidInput if they are not copies of one charter."""
    first = copies[0]
    for other in copies[1:]:
        if other.charter != first.charter:
            raise InvalidInput(f"these are different charters: {'; '.join(difference(first.charter, other.charter))}")
    signatures = {signature.keyid: signature for copy in copies for signature in copy.envelope.signatures}
    keys = {party: keyid for keyid, (party, _) in _keys(first.charter).items()}
    signed = tuple(member.name for member in first.charter.members if keys[member.name] in signatures)
    merged = msgspec.structs.replace(first.envelope, signatures=tuple(signatures[keys[party]] for party in signed))
    return SignedCharter(first.charter, merged, signed)


def verify(data: bytes) -> SignedCharter:
    """The charter in a file, with who has signed it and who has not.

    Every signature on it must be a member's and good. Raises InvalidInput for anything else, with what and the mend.
    """
    envelope = dsse.decode(data, "charter", limit_bytes=CHARTER_BYTES)
    charter = _decode(envelope, CHARTER_TYPE, Charter, "charter")
    _check(charter)
    keys = _keys(charter)
    good = dsse.verify(envelope, {keyid: key for keyid, (_, key) in keys.items()})
    for signature in envelope.signatures:
        if signature.keyid not in keys:
            raise InvalidInput(
                f"charter is signed with key {signature.keyid[:12]}, which is no member's; ask for it again"
            )
        if signature.keyid not in good:
            raise InvalidInput(
                f"charter was altered: the signature of {keys[signature.keyid][0]} does not fit it; ask for it again"
            )
    return SignedCharter(charter, envelope, tuple(sorted(keys[keyid][0] for keyid in good)))


def check_in_force(copy: SignedCharter) -> None:
    """Raise InvalidInput, naming who has to sign, unless all have."""
    if copy.is_in_force:
        return
    have = "has" if len(copy.unsigned) == 1 else "have"
    raise InvalidInput(
        f"charter version {copy.charter.version} of {copy.charter.consortium} is not in force: "
        f"{' and '.join(copy.unsigned)} {have} not signed; run `junto charter sign FILE` there, "
        f"then here with the file that comes back"
    )


def difference(ours: Charter, theirs: Charter) -> list[str]:
    """The differences between two charters, one plain clause each; empty exactly if they are the same."""
    found: list[str] = []
    if ours.consortium != theirs.consortium:
        found.append(f"ours is of consortium {ours.consortium}, theirs of {theirs.consortium}")
    if ours.version != theirs.version:
        found.append(f"ours is version {ours.version}, theirs version {theirs.version}")
    our_members = {member.name: member for member in ours.members}
    their_members = {member.name: member for member in theirs.members}
    found += [f"only ours has {name}" for name in our_members if name not in their_members]
    found += [f"only theirs has {name}" for name in their_members if name not in our_members]
    for name in sorted(our_members.keys() & their_members.keys()):
        mine, other = our_members[name], their_members[name]
        if mine.authority_pem != other.authority_pem:
            found.append(f"{name} has another authority certificate in theirs")
        if mine.addresses != other.addresses:
            found.append(f"{name} is at {_places(mine)} in ours, at {_places(other)} in theirs")
    if ours.quorum != theirs.quorum:
        found.append(f"quorum is {ours.quorum} in ours, {theirs.quorum} in theirs")
    if ours.created != theirs.created:
        found.append(f"ours was created {_created(ours)}, theirs {_created(theirs)}")
    return found


def create_card(authority: Authority, addresses: Iterable[str]) -> bytes:
    """The file a party hands over to be named in a charter: its entry, signed with its authority's key."""
    member = Member(authority.party, authority.certificate_pem, tuple(str(parse_address(text)) for text in addresses))
    check_member(member)
    card = _Card(member=member)
    return dsse.encode(dsse.sign(CARD_TYPE, msgspec.json.encode(card), [authority.key])) + b"\n"


def read_card(data: bytes) -> Member:
    """The party a card describes. The card proves that its maker holds the key, not who the maker is: compare
    `fingerprint` with the party by another way. Raises InvalidInput."""
    envelope = dsse.decode(data, "card", limit_bytes=CARD_BYTES)
    member = _decode(envelope, CARD_TYPE, _Card, "card").member
    key = check_member(member)
    if len(envelope.signatures) != 1 or not dsse.verify(envelope, {key_id(key): key}):
        raise InvalidInput(f"card of {member.name} was altered: its signature does not fit it; ask for a new card")
    return member


def fingerprint(member: Member) -> str:
    """A short name of the party's authority key, to compare over the telephone: five groups of four digits."""
    digits = key_id(ed25519_key(check_authority(member.name, member.authority_pem)))[:20]
    return "-".join(digits[start : start + 4] for start in range(0, 20, 4))


class _Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    format: int = _FORMAT
    member: Member


class _Format(msgspec.Struct, frozen=True):
    format: int


_Payload = TypeVar("_Payload", Charter, _Card)


def _decode(envelope: Envelope, kind: str, type: type[_Payload], what: str) -> _Payload:
    if envelope.payload_type != kind:
        raise InvalidInput(f"this is not a {what} but a signed {envelope.payload_type[:80]!r}: give the {what} file")
    try:
        format = msgspec.json.decode(envelope.payload, type=_Format).format
        if format > _FORMAT:
            raise InvalidInput(f"{what} is of format {format}, this Junto reads up to {_FORMAT}: upgrade Junto")
        value = msgspec.json.decode(envelope.payload, type=type)
        same = msgspec.json.encode(value) == envelope.payload
    except (msgspec.MsgspecError, UnicodeError):
        raise InvalidInput(f"{what} is malformed: ask for it again") from None
    if not same or format != _FORMAT:
        raise InvalidInput(f"{what} is not in the spelling Junto writes: ask for it again")
    return value


def _check(charter: Charter) -> None:
    """Raise InvalidInput unless members, addresses and quorum make a charter that can work."""
    check_name("consortium", charter.consortium)
    count = len(charter.members)
    if not 2 <= count <= MEMBERS:
        raise InvalidInput(f"charter of {count} parties: a consortium has 2 to {MEMBERS}")
    if not 1 <= charter.version < 1 << 31:
        raise InvalidInput(f"charter version {charter.version}: versions count up from 1")
    if not count < 2 * charter.quorum <= 2 * count:
        raise InvalidInput(f"charter quorum {charter.quorum} of {count}: more than half of the parties, at most all")
    if charter.created.tzinfo != UTC or charter.created.microsecond:
        raise InvalidInput("charter's creation time is not in whole seconds UTC: create it again")
    names = [member.name for member in charter.members]
    if names != sorted(names):
        raise InvalidInput("charter's parties are not in order of name: create it again")
    owner_of_key: dict[KeyId, PartyId] = {}
    owner_of_address: dict[str, PartyId] = {}
    for before, member in zip(["", *names], charter.members, strict=False):
        if before == member.name:
            raise InvalidInput(f"two parties are called {member.name}: one of them needs another name")
        other = owner_of_key.setdefault(key_id(check_member(member)), member.name)
        if other != member.name:
            raise InvalidInput(f"{other} and {member.name} have the same authority: each party makes its own keys")
        for address in member.addresses:
            other = owner_of_address.setdefault(address, member.name)
            if other != member.name:
                raise InvalidInput(
                    f"{other} and {member.name} both give the address {address}: correct one of the cards"
                )
    unreachable = [member.name for member in charter.members if not member.addresses]
    if len(unreachable) > 1:
        raise InvalidInput(
            f"{' and '.join(unreachable[:2])} have no address, so neither can dial the other: "
            f"one of them needs --advertise HOST:PORT"
        )


def check_member(member: Member) -> Ed25519PublicKey:
    """The member's authority key. Raises InvalidInput unless all parts of its entry are well formed."""
    check_name("party", member.name)
    certificate = check_authority(member.name, member.authority_pem)
    if len(member.addresses) > ADDRESSES:
        raise InvalidInput(f"{member.name} gives {len(member.addresses)} addresses: at most {ADDRESSES} are used")
    for text in member.addresses:
        address = parse_address(text)
        if str(address) != text:
            raise InvalidInput(f"address {text[:80]!r} of {member.name}: spell it {address}")
        if address.is_wildcard:
            raise InvalidInput(
                f"address {text} of {member.name} cannot be dialled: give the one others use, --advertise HOST:PORT"
            )
    if len(set(member.addresses)) < len(member.addresses):
        raise InvalidInput(f"{member.name} gives the same address twice: once is enough")
    return ed25519_key(certificate)


def _keys(charter: Charter) -> dict[KeyId, tuple[PartyId, Ed25519PublicKey]]:
    keys = ((m.name, ed25519_key(check_authority(m.name, m.authority_pem))) for m in charter.members)
    return {key_id(key): (name, key) for name, key in keys}


def _places(member: Member) -> str:
    return " and ".join(member.addresses) or "no address"


def _created(charter: Charter) -> str:
    return utc_text(charter.created.timestamp())
