# SPDX-License-Identifier: Apache-2.0
"""Statements: what a node says, signed, so that it can be held against its party.

A statement is a JSON object in a DSSE envelope with one signature, by a key that a certificate of the author's own
party binds to the author's name. Certificates travel as statements too (`kind` "certificate"), so that whoever reads a
journal later finds every key it needs in the journal itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from junto.errors import InvalidInput, PeerFault
from junto.trust import envelope as dsse
from junto.trust import identity
from junto.trust.certificates import MALFORMED
from junto.trust.charter import Charter
from junto.trust.envelope import KeyId
from junto.trust.names import Name, parse_name
from junto.types import TaskId

PAYLOAD_TYPE = "application/vnd.junto.statement+json"
STATEMENT_BYTES = 1 << 20
"""A larger envelope is refused unread."""

SKEW_SECONDS = 300.0
"""The seconds by which an author's clock may be off."""

CERTIFICATE = "certificate"
CHARTER = "charter"

Kind = Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z-]{0,31}\Z")]
Identifier = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{1,128}\Z")]
OptionalIdentifier = Annotated[TaskId, msgspec.Meta(pattern=r"\A[!-~]{0,128}\Z")]
UnixSeconds = Annotated[float, msgspec.Meta(ge=0, le=253402300799)]  # to the year 9999

_T = TypeVar("_T")
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)  # a RecursionError: nested too deep


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An author's journal right before a statement: its entries, their root, and which start of a node writes it."""

    size: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
    root: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    start: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]  # 0: before this process said so; see `heads.py`


class Statement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fact and its author. `body` is a JSON object whose shape belongs to the kind."""

    kind: Kind
    author: Identifier  # the URI name of a node
    id: Identifier
    at: UnixSeconds  # the author's clock
    task: OptionalIdentifier = TaskId("")
    head: Head | msgspec.UnsetType = msgspec.UNSET  # certificates, charters, and what earlier versions wrote have none
    body: msgspec.Raw


class CertificateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a `certificate` statement: a node's leaf certificate."""

    certificate: str  # PEM


class CharterBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a `charter` statement, a journal's first: the charter as everyone signed it."""

    charter: str  # the file, an envelope


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A public key, whose it is, and when the last of its certificates ends, unix seconds."""

    name: Name
    key: Ed25519PublicKey
    ends: float


class KeyRing:
    """The keys whose certificates were seen and checked: key id → holder."""

    def __init__(self) -> None:
        self._known: dict[KeyId, KnownKey] = {}

    def __getitem__(self, key_id: KeyId) -> Name:
        return self._known[key_id].name

    def __contains__(self, key_id: object) -> bool:
        return key_id in self._known

    def __iter__(self) -> Iterator[KeyId]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def known(self, key_id: KeyId) -> KnownKey | None:
        """The key and its holder, if its certificate was seen."""
        return self._known.get(key_id)

    def keys_of_party(self, name: Name) -> list[Ed25519PublicKey]:
        """The keys that certificates bound to nodes of the name's party."""
        party = (name.consortium, name.party)
        return [known.key for known in self._known.values() if (known.name.consortium, known.name.party) == party]

    def learn(self, leaf_der: bytes, charter: Charter, at: float) -> Name:
        """The name the certificate proves by the charter at that time; its key is known from now on.

        Raises what `identity.verify` raises, and PeerFault if the key belongs to another name.
        """
        name = identity.verify(leaf_der, charter, at)
        key = identity.public_key_of(leaf_der)
        leaf = x509.load_der_x509_certificate(leaf_der)
        ends = leaf.not_valid_after_utc.timestamp()
        before = self._known.get(dsse.key_id(key))
        if before is not None:
            if before.name != name:
                raise PeerFault(f"the certificate of {name} has the key of {before.name}")
            ends = max(ends, before.ends)
        self._known[dsse.key_id(key)] = KnownKey(name, key, ends)
        return name


def sign(statement: Statement, key: Ed25519PrivateKey) -> bytes:
    """The statement as a signed envelope, one line of JSON.

    Raises InvalidInput if the statement is not one that `open_statement` would accept.
    """
    payload = msgspec.json.encode(statement)
    _decode(payload)
    data = dsse.encode(dsse.sign(PAYLOAD_TYPE, payload, [key]))
    if len(data) > STATEMENT_BYTES:
        raise InvalidInput(f"{_what(statement)} of {len(data)} bytes: at most {STATEMENT_BYTES} are signed")
    return data


def certificate_statement(author: Name, leaf_pem: str, *, id: str, at: float) -> Statement:
    """A statement that makes a node's certificate known to readers of a journal."""
    body = msgspec.Raw(msgspec.json.encode(CertificateBody(leaf_pem)))
    return Statement(kind=CERTIFICATE, author=author.uri, id=id, at=at, body=body)


def charter_statement(author: Name, signed: bytes, *, id: str, at: float) -> Statement:
    """A statement that says which charter the author goes by from now on."""
    body = msgspec.Raw(msgspec.json.encode(CharterBody(signed.decode())))
    return Statement(kind=CHARTER, author=author.uri, id=id, at=at, body=body)


def open_statement(data: bytes, keys: KeyRing, charter: Charter | None = None) -> Statement:
    """The statement in an envelope, its signature good and its key the author's.

    With a charter, a `certificate` statement teaches `keys` its certificate first, so one that a peer signed with the
    key it announces opens. Raises InvalidInput (not a statement) or PeerFault (not signed by its author).
    """
    envelope, statement = _parse(data)
    if charter is not None and statement.kind == CERTIFICATE:
        keys.learn(leaf_of(statement), charter, statement.at)
    _check_author(envelope, statement, keys)
    return statement


def read_statement(data: bytes) -> Statement:
    """The statement in an envelope, its signature not checked: for what our own journal checked when it came.

    Raises InvalidInput if it is not a statement.
    """
    return _parse(data)[1]


def signer_of(data: bytes) -> KeyId:
    """The id of the key that an envelope says signed it. Raises InvalidInput if it is not a statement."""
    return _parse(data)[0].signatures[0].keyid


def leaf_of(statement: Statement) -> bytes:
    """The certificate (DER) a `certificate` statement carries. Raises InvalidInput."""
    body = body_of(statement, CertificateBody)
    try:
        return x509.load_pem_x509_certificate(body.certificate.encode()).public_bytes(Encoding.DER)
    except MALFORMED:
        raise InvalidInput(f"{_what(statement)} carries no certificate in PEM") from None


def body_of(statement: Statement, shape: type[_T]) -> _T:
    """The statement's body in the shape its kind has. Raises InvalidInput, naming field and reason, never a value."""
    try:
        return msgspec.json.decode(statement.body, type=shape)
    except _UNREADABLE as error:
        raise InvalidInput(f"{_what(statement)} has a body that is no {shape.__name__}{_where(error)}") from None


def _check_author(envelope: dsse.Envelope, statement: Statement, keys: KeyRing) -> None:
    signer = envelope.signatures[0].keyid
    known = keys.known(signer)
    if known is None:
        raise PeerFault(f"{_what(statement)} is signed with an unknown key, {signer[:16]}: its certificate comes first")
    if not dsse.verify(envelope, {signer: known.key}):
        raise PeerFault(f"{_what(statement)} has a wrong signature")
    if known.name.uri != statement.author:
        raise PeerFault(f"{_what(statement)} names {statement.author} as its author but {known.name} signed it")
    # A key may have several certificates; a later one vouches for what the key signed before.
    if statement.at > known.ends + SKEW_SECONDS:
        raise PeerFault(
            f"{_what(statement)} is dated after its author's certificate ended: the renewed one comes first"
        )


def _parse(data: bytes) -> tuple[dsse.Envelope, Statement]:
    envelope = _envelope(data)
    return envelope, _decode(envelope.payload)


def _envelope(data: bytes) -> dsse.Envelope:
    envelope = dsse.decode(data, "statement", limit_bytes=STATEMENT_BYTES)
    if data[-1:].isspace():  # which is all that `decode` passes over
        raise InvalidInput("statement has white space around its envelope; ask for it again")
    if envelope.payload_type != PAYLOAD_TYPE:
        raise InvalidInput(f"the envelope is not of a statement: its payload type is not {PAYLOAD_TYPE}")
    if len(envelope.signatures) != 1:
        raise InvalidInput(
            f"the statement carries {len(envelope.signatures)} signatures; exactly its author's is wanted"
        )
    return envelope


def _decode(payload: bytes) -> Statement:
    try:
        payload.decode()  # msgspec passes over text it need not read
        statement = msgspec.json.decode(payload, type=Statement)
    except _UNREADABLE as error:
        raise InvalidInput(f"the envelope holds no statement{_where(error)}") from None
    if bytes(statement.body)[:1] != b"{":
        raise InvalidInput(f"{_what(statement)} has a body that is no JSON object")
    if not parse_name(statement.author).node:
        raise InvalidInput(f"{_what(statement)} names a user as its author; only nodes make statements")
    return statement


def _what(statement: Statement) -> str:
    return f"the {statement.kind} statement {statement.id}"


def _where(error: Exception) -> str:
    """The place msgspec names; the rest of its text may quote a value."""
    _, found, place = str(error).rpartition(" - at `")
    return f" (at {place.rstrip('`')})" if found else ""
