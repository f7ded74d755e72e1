# SPDX-License-Identifier: Apache-2.0
"""Certificates: every party is its own authority, and issues names under its own party only.

An authority is a self-signed Ed25519 certificate that lives ten years and may sign leaves but no further authorities.
A leaf binds one Ed25519 key to one SPIFFE name, as its only alternative name. Certificates of nodes live a day, and
each renewal is over another key: a stolen node key serves until its certificate ends. A node's name stays; statements
that it signed with an earlier key are checked by that key's certificate.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from junto.errors import InvalidInput
from junto.trust.envelope import KeyId, key_id
from junto.trust.names import Name, check_name, parse_name
from junto.types import PartyId

LEAF_SECONDS = 86_400
BACKDATED_SECONDS = 300  # clocks of two parties may differ by as much
CERTIFICATE_BYTES = 16 << 10

_AUTHORITY_DAYS = 3653
MALFORMED: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    Warning,  # an oddity the library only warns of
)
Extension = TypeVar("Extension", bound=x509.ExtensionType)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


_AUTHORITY_USAGE: Final = _usage(authority=True)
LEAF_USAGE: Final = _usage(authority=False)
LEAF_PURPOSES: Final = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])


@dataclass(frozen=True, slots=True)
class Authority:
    """A party's certificate authority, with its private key."""

    party: PartyId
    key: Ed25519PrivateKey
    certificate: x509.Certificate

    @property
    def certificate_pem(self) -> str:
        """The certificate as the charter and the party's card hold it."""
        return pem(self.certificate)

    def __repr__(self) -> str:
        return f"Authority({self.party!r})"


@dataclass(frozen=True, slots=True)
class Identity:
    """A node's or user's name, with the private key and the certificate that prove it."""

    name: Name
    key: Ed25519PrivateKey
    certificate: x509.Certificate

    @property
    def key_id(self) -> KeyId:
        """Names the key in statements."""
        return key_id(self.key.public_key())

    @property
    def certificate_der(self) -> bytes:
        """The certificate as a peer hands it to `verify`."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def expires(self) -> float:
        """The end of its certificate, seconds since 1970."""
        return self.certificate.not_valid_after_utc.timestamp()

    def is_due(self, now: float) -> bool:
        """True if the certificate should be renewed: half its life has passed, or it has not begun."""
        begins = self.certificate.not_valid_before_utc.timestamp()
        return not begins <= now < (begins + self.expires) / 2

    def __repr__(self) -> str:
        return f"Identity({self.name})"


def create_authority(party: PartyId, now: float) -> Authority:
    """A new authority for the party, with a key fresh from the operating system."""
    check_name("party", party)
    key = Ed25519PrivateKey.generate()
    own = _authority_subject(party)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    begins = _moment(now - BACKDATED_SECONDS)
    builder = _builder(own, own, key.public_key(), begins, begins + timedelta(days=_AUTHORITY_DAYS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_AUTHORITY_USAGE, critical=True)
    builder = builder.add_extension(identifier, critical=False)
    return Authority(party, key, builder.sign(key, None))


def load_authority(party: PartyId, key_pem: bytes, certificate_pem: str) -> Authority:
    """The party's authority from its two files. Raises InvalidInput when they are damaged or do not belong together."""
    certificate = check_authority(party, certificate_pem)
    key = load_key(key_pem, f"authority key of {party}")
    if key.public_key() != certificate.public_key():
        raise InvalidInput(f"authority key of {party} does not belong to its certificate: restore both from one backup")
    return Authority(party, key, certificate)


def check_authority(party: PartyId, certificate_pem: str) -> x509.Certificate:
    """The certificate, if it is one that `create_authority` could have made for this party. Raises InvalidInput."""
    what = f"authority certificate of {party}"
    if len(certificate_pem) > CERTIFICATE_BYTES:
        raise InvalidInput(f"{what}: {len(certificate_pem)} characters, at most {CERTIFICATE_BYTES} are read")
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        certificate.verify_directly_issued_by(certificate)
        key = certificate.public_key()
        constraints = extension_of(certificate, x509.BasicConstraints)
        usage = extension_of(certificate, x509.KeyUsage)
        spelled = pem(certificate)
    except (*MALFORMED, InvalidSignature):
        raise InvalidInput(f"{what} is damaged: ask {party} for a new card") from None
    if spelled != certificate_pem:
        raise InvalidInput(f"{what} is not one plain PEM certificate: ask {party} for a new card")
    if certificate.subject != _authority_subject(party):
        raise InvalidInput(f"{what} was made for another name: ask {party} for its own card")
    if not isinstance(key, Ed25519PublicKey) or constraints != x509.BasicConstraints(ca=True, path_length=0):
        raise InvalidInput(f"{what} is not a Junto authority: `junto party create` makes one")
    if usage != _AUTHORITY_USAGE:
        raise InvalidInput(f"{what} may not sign certificates: `junto party create` makes one that may")
    return certificate


def ed25519_key(certificate: x509.Certificate) -> Ed25519PublicKey:
    """The public key of a certificate. Raises InvalidInput unless it is Ed25519."""
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidInput("certificate holds a key other than Ed25519: Junto issues no such certificates")
    return key


def issue(
    authority: Authority,
    name: Name,
    public_key: Ed25519PublicKey,
    now: float,
    lifetime_seconds: float = LEAF_SECONDS,
) -> x509.Certificate:
    """A leaf that binds the key to the name from five minutes ago until `lifetime_seconds` from now.

    Raises InvalidInput for a name of another party: nobody would accept it.
    """
    if name.party != authority.party:
        raise InvalidInput(f"{authority.party} cannot issue a certificate for {name}: only {name.party} can")
    if not 0 < lifetime_seconds <= _AUTHORITY_DAYS * 86_400:
        raise InvalidInput(f"a certificate's life of {lifetime_seconds} s: choose a second to ten years")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(name)[:64])])
    begins = _moment(now - BACKDATED_SECONDS)
    builder = _builder(subject, authority.certificate.subject, public_key, begins, _moment(now + lifetime_seconds))
    uri = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name.uri)])
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    return (
        builder.add_extension(uri, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(LEAF_USAGE, critical=True)
        .add_extension(LEAF_PURPOSES, critical=False)
        .add_extension(identifier, critical=False)
        .sign(authority.key, None)
    )


def load_identity(key_pem: bytes, certificate_pem: str) -> Identity:
    """A node's or user's identity from its two files. Raises InvalidInput. Dates and issuer are not checked here."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        name = name_of(certificate)
        certified = certificate.public_key()
    except MALFORMED:
        raise InvalidInput("certificate file is damaged: have it issued again") from None
    key = load_key(key_pem, f"key of {name}")
    if key.public_key() != certified:
        raise InvalidInput(f"key of {name} does not belong to its certificate: restore both from one backup")
    return Identity(name, key, certificate)


def name_of(leaf: x509.Certificate) -> Name:
    """The one name a leaf claims; `identity.verify` says whether it is true. Raises InvalidInput."""
    names = list(extension_of(leaf, x509.SubjectAlternativeName) or ())
    if len(names) != 1 or not isinstance(names[0], x509.UniformResourceIdentifier):
        raise InvalidInput(
            f"certificate carries {len(names)} alternative names instead of one spiffe:// name: "
            f"it was not issued by Junto"
        )
    return parse_name(names[0].value)


def load_key(key_pem: bytes, what: str) -> Ed25519PrivateKey:
    """The private key in a PEM file. Raises InvalidInput; the message never quotes the file."""
    try:
        key = load_pem_private_key(key_pem, password=None)
    except MALFORMED:
        raise InvalidInput(f"{what} is damaged: restore it from a backup") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidInput(f"{what} is not an Ed25519 key: restore it from a backup")
    return key


def key_pem(key: Ed25519PrivateKey) -> bytes:
    """The private key as unencrypted PKCS #8; keep it in a file that nobody else can read."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def pem(certificate: x509.Certificate) -> str:
    """The certificate as text."""
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def utc_text(seconds: float) -> str:
    """A time as people and files read it: `2026-01-31T12:00:00Z`."""
    return _moment(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def extension_of(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    """The certificate's extension of this kind, if it has one."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Ed25519PublicKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=begins,
        not_valid_after=ends,
    )


def _authority_subject(party: PartyId) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{party} authority")])


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)
