# SPDX-License-Identifier: Apache-2.0
"""Signed bytes: the DSSE v1 envelope (github.com/secure-systems-lab/dsse, protocol.md and envelope.md), Ed25519 only.

A signature covers the payload's type as well as its bytes, so that a statement can never be passed off as a charter.
An envelope has one accepted spelling, the one `encode` gives: whatever else decodes to the same value is refused.
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NewType

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from junto.errors import InvalidInput

KeyId = NewType("KeyId", str)
"""A public key's name: the SHA-256 of its SubjectPublicKeyInfo, 64 hexadecimal digits."""

ENVELOPE_BYTES = 4 << 20
SIGNATURES = 256


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key's signature over the envelope's pre-authentication encoding."""

    keyid: KeyId
    sig: bytes


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A payload, what kind of thing it is, and who signed it. Holding one proves nothing: call `verify`."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]


def key_id(key: Ed25519PublicKey) -> KeyId:
    """The name of a public key."""
    return _key_id(key.public_bytes_raw())


@lru_cache(maxsize=1024)
def _key_id(raw: bytes) -> KeyId:
    """The same few keys sign and are checked with every statement."""
    key = Ed25519PublicKey.from_public_bytes(raw)
    return KeyId(hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest())


@lru_cache(maxsize=64)
def _signer_id(key: Ed25519PrivateKey) -> KeyId:
    return key_id(key.public_key())


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: PAE of protocol.md, lengths in ASCII decimal."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload_type: str, payload: bytes, keys: Iterable[Ed25519PrivateKey]) -> Envelope:
    """An envelope signed with each key, in the order given."""
    envelope = Envelope(payload_type, payload, ())
    for key in keys:
        envelope = add_signature(envelope, key)
    return envelope


def add_signature(envelope: Envelope, key: Ed25519PrivateKey) -> Envelope:
    """The envelope with one more signature; the same envelope if this key has signed already."""
    keyid = _signer_id(key)
    if any(signature.keyid == keyid for signature in envelope.signatures):
        return envelope
    sig = key.sign(pre_authentication_encoding(envelope.payload_type, envelope.payload))
    return msgspec.structs.replace(envelope, signatures=(*envelope.signatures, Signature(keyid, sig)))


def verify(envelope: Envelope, keys: Mapping[KeyId, Ed25519PublicKey]) -> set[KeyId]:
    """The ids of those keys whose signature on the envelope is good; others' signatures are passed over."""
    signed = pre_authentication_encoding(envelope.payload_type, envelope.payload)
    good: set[KeyId] = set()
    for signature in envelope.signatures:
        key = keys.get(signature.keyid)
        if key is not None and key_id(key) == signature.keyid:
            try:
                key.verify(signature.sig, signed)
            except InvalidSignature:
                continue
            good.add(signature.keyid)
    return good


def encode(envelope: Envelope) -> bytes:
    """The envelope as one line of JSON."""
    return msgspec.json.encode(envelope)


def decode(data: bytes, what: str, *, limit_bytes: int = ENVELOPE_BYTES) -> Envelope:
    """The envelope that `encode` spells so; trailing white space is ignored. Says nothing about its signatures.

    `what` names it in errors. Raises InvalidInput when it is too large, malformed or spelled otherwise.
    """
    if len(data) > limit_bytes:
        raise InvalidInput(f"{what} of {len(data)} bytes: at most {limit_bytes} are read")
    text = data.rstrip()
    try:
        envelope = msgspec.json.decode(text, type=Envelope)
        same = encode(envelope) == text
    except (msgspec.MsgspecError, UnicodeError):
        raise InvalidInput(f"{what} is damaged: not a signed envelope; ask for it again") from None
    if not same:
        raise InvalidInput(f"{what} was edited after it was signed: not in the spelling Junto writes; ask for it again")
    if len(envelope.signatures) > SIGNATURES:
        raise InvalidInput(f"{what} carries {len(envelope.signatures)} signatures: at most {SIGNATURES} are read")
    if len({signature.keyid for signature in envelope.signatures}) < len(envelope.signatures):
        raise InvalidInput(f"{what} is signed twice with the same key; ask for it again")
    return envelope
