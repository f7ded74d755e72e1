# SPDX-License-Identifier: Apache-2.0
"""The name of the peer at the other end: its certificate against the charter.

`verify` trusts nothing but the charter. It reads the party out of the certificate's name, then asks whether that
party's own authority signed it: a shared trust store would let any member mint another member's names. A chain here is
exactly two certificates long, so no path is searched: one issuer, one signature, and every extension as
`certificates.issue` writes it (RFC 5280, 4.2 and 6.1). `cryptography.x509.verification` cannot be used: its web profile
refuses Ed25519 (pyca/cryptography#13391).
"""

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from junto.errors import InvalidInput, PeerFault
from junto.trust.certificates import (
    CERTIFICATE_BYTES,
    LEAF_PURPOSES,
    LEAF_USAGE,
    MALFORMED,
    check_authority,
    ed25519_key,
    extension_of,
    name_of,
    utc_text,
)
from junto.trust.charter import Charter
from junto.trust.names import Name


def verify(leaf_der: bytes, charter: Charter, now: float) -> Name:
    """The name in a peer's certificate, once that party's own authority in the charter proves to have signed it.

    leaf_der: as the peer sent it. now: seconds since 1970, by our clock.
    Raises PeerFault, saying what is wrong and the mend, for anything else: malformed, no name or several, another
    consortium, a party not in the charter, a foreign authority, not valid at this time.
    """
    leaf = _load_leaf(leaf_der)
    try:
        name = name_of(leaf)
    except InvalidInput as error:
        raise PeerFault(str(error)) from None
    if name.consortium != charter.consortium:
        raise PeerFault(
            f"certificate of {name} is for consortium {name.consortium}, this is {charter.consortium}: "
            f"{name.party} should load the charter of {charter.consortium}"
        )
    member = next((member for member in charter.members if member.name == name.party), None)
    if member is None:
        raise PeerFault(
            f"certificate names {name}, but charter version {charter.version} has no party {name.party}: "
            f"agree on a charter that has it"
        )
    issuer = check_authority(member.name, member.authority_pem)
    if not _signed_by(leaf, issuer):
        raise PeerFault(_foreign(leaf, name, charter))
    _check_dates(leaf, str(name), now)
    _check_dates(issuer, f"authority of {name.party}", now)
    _check_extensions(leaf, name)
    return name


def public_key_of(leaf_der: bytes) -> Ed25519PublicKey:
    """The key a leaf binds. Trust it only after `verify`. Raises PeerFault."""
    key = _load_leaf(leaf_der).public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise PeerFault("certificate holds a key other than Ed25519: have the node issue it again")
    return key


def _load_leaf(leaf_der: bytes) -> x509.Certificate:
    if len(leaf_der) > CERTIFICATE_BYTES:
        raise PeerFault(f"certificate of {len(leaf_der)} bytes: at most {CERTIFICATE_BYTES} are read")
    try:
        leaf = x509.load_der_x509_certificate(leaf_der)
        # Both are parsed on first use only: a damaged one fails here.
        leaf.public_key()
        list(leaf.extensions)
    except MALFORMED:
        raise PeerFault("certificate is malformed: have the node issue it again") from None
    return leaf


def _signed_by(leaf: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(issuer)
    except (*MALFORMED, InvalidSignature):
        return False
    return True


def _foreign(leaf: x509.Certificate, name: Name, charter: Charter) -> str:
    for member in charter.members:
        if _has_signature_of(leaf, check_authority(member.name, member.authority_pem)):
            return f"certificate names {name} but the authority of {member.name} signed it: only {name.party} may"
    return (
        f"certificate of {name} is not signed by the authority of {name.party} in charter version {charter.version}: "
        f"if {name.party} made new keys, agree on a charter with its new card"
    )


def _has_signature_of(leaf: x509.Certificate, issuer: x509.Certificate) -> bool:
    """True if the issuer's key signed the leaf, whatever issuer the leaf claims."""
    try:
        ed25519_key(issuer).verify(leaf.signature, leaf.tbs_certificate_bytes)
    except InvalidSignature:
        return False
    return True


def _check_dates(certificate: x509.Certificate, whose: str, now: float) -> None:
    begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    if now < begins:
        raise PeerFault(
            f"certificate of {whose} is not valid before {utc_text(begins)}, our clock says {utc_text(now)}: "
            f"set the clock that is wrong"
        )
    if now >= ends:
        raise PeerFault(
            f"certificate of {whose} expired at {utc_text(ends)}, our clock says {utc_text(now)}: "
            f"have it renewed, or set the clock that is wrong"
        )


def _check_extensions(leaf: x509.Certificate, name: Name) -> None:
    """Refuse a leaf whose own party gave it other powers than `issue` does, or a critical extension unknown here."""
    known = (x509.SubjectAlternativeName, x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage)
    stray = [
        extension.oid.dotted_string
        for extension in leaf.extensions
        if extension.critical and not isinstance(extension.value, known)
    ]
    if (
        stray
        or not isinstance(leaf.public_key(), Ed25519PublicKey)
        or extension_of(leaf, x509.BasicConstraints) != x509.BasicConstraints(ca=False, path_length=None)
        or extension_of(leaf, x509.KeyUsage) != LEAF_USAGE
        or extension_of(leaf, x509.ExtendedKeyUsage) != LEAF_PURPOSES
    ):
        raise PeerFault(f"certificate of {name} is not of the kind Junto issues: have {name.party} issue it again")


def authorities_pem(charter: Charter) -> list[bytes]:
    """Every member's authority, as TLS wants them: it admits whom any of them signed, then `verify` decides."""
    return [member.authority_pem.encode("ascii") for member in charter.members]
