# SPDX-License-Identifier: Apache-2.0
"""Three parties with authorities, cards and a signed charter, at a fixed time."""

from dataclasses import replace
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from junto.trust import charter as charters
from junto.trust.certificates import LEAF_SECONDS, Authority, create_authority, issue
from junto.trust.charter import Charter, Member, SignedCharter
from junto.trust.names import Name
from junto.types import NodeId, PartyId

NOON = 1_800_000_000.0
CONSORTIUM = "sky"
BTS, DELTA, UNITED = (PartyId(name) for name in ("bts", "delta", "united"))
PARTIES = (BTS, DELTA, UNITED)


@cache
def authority(party: str) -> Authority:
    return create_authority(PartyId(party), NOON)


def member(party: str) -> Member:
    return Member(PartyId(party), authority(party).certificate_pem, (f"{party}.example:7300",))


@cache
def unsigned() -> SignedCharter:
    return charters.create([member(party) for party in PARTIES], CONSORTIUM, NOON)


@cache
def signed() -> SignedCharter:
    copy = unsigned()
    for party in PARTIES:
        copy = charters.sign(copy, authority(party))
    return copy


def charter() -> Charter:
    return signed().charter


def name(party: str = "united", node: str = "node-1", consortium: str = CONSORTIUM) -> Name:
    return Name(consortium, PartyId(party), node=NodeId(node))


def leaf_of(
    whose: Name, signer: Authority | None = None, now: float = NOON, lifetime_seconds: float = LEAF_SECONDS
) -> bytes:
    """A leaf for the name, from its own party's authority or, forged, from another's."""
    issuer = signer or authority(whose.party)
    forger = replace(issuer, party=whose.party)
    key = Ed25519PrivateKey.generate().public_key()
    return issue(forger, whose, key, now, lifetime_seconds).public_bytes(Encoding.DER)


def certificate_of(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)
