# SPDX-License-Identifier: Apache-2.0
"""A certificate is believed exactly when the named party's own authority signed it, for now, for this consortium."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from trust_world import (
    CONSORTIUM,
    NOON,
    UNITED,
    authority,
    certificate_of,
    charter,
    leaf_of,
    name,
)

from junto.errors import InvalidInput, PeerFault
from junto.trust import certificates, identity
from junto.trust import charter as charters
from junto.trust.certificates import BACKDATED_SECONDS, LEAF_SECONDS, Identity, create_authority, issue
from junto.trust.names import Name
from junto.types import PartyId

GOOD = leaf_of(name())


def test_a_leaf_of_the_partys_own_authority_gives_its_name() -> None:
    assert identity.verify(GOOD, charter(), NOON) == name()
    user = Name(CONSORTIUM, UNITED, user="ann")
    assert identity.verify(leaf_of(user), charter(), NOON) == user


def test_a_leaf_carries_the_uri_as_its_only_alternative_name() -> None:
    names = certificate_of(GOOD).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("spiffe://sky/united/node-1")]


def test_a_leaf_lives_a_day_and_allows_for_a_clock_five_minutes_behind() -> None:
    assert identity.verify(GOOD, charter(), NOON - BACKDATED_SECONDS) == name()
    assert identity.verify(GOOD, charter(), NOON + LEAF_SECONDS - 1) == name()


@pytest.mark.parametrize("late", [0.0, 1.0, 1e6])
def test_an_expired_leaf_is_refused_with_both_times(late: float) -> None:
    with pytest.raises(PeerFault, match=r"expired at 2027-01-16T08:00:00Z, our clock says 2027-\d\d-\d\dT.* renewed"):
        identity.verify(GOOD, charter(), NOON + LEAF_SECONDS + late)


def test_a_clock_that_is_behind_is_named_as_a_possible_cause() -> None:
    with pytest.raises(PeerFault, match=r"not valid before .* our clock says .* set the clock"):
        identity.verify(GOOD, charter(), NOON - BACKDATED_SECONDS - 1)


def test_an_authority_that_has_ended_takes_its_leaves_with_it() -> None:
    late = NOON + 11 * 366 * 86_400
    with pytest.raises(PeerFault, match="certificate of authority of united expired"):
        identity.verify(leaf_of(name(), now=late), charter(), late)


@pytest.mark.parametrize("minter", ["bts", "delta"])
def test_a_member_cannot_mint_another_members_name(minter: str) -> None:
    with pytest.raises(PeerFault, match=f"names united/node-1 but the authority of {minter} signed it"):
        identity.verify(leaf_of(name(), authority(minter)), charter(), NOON)


def test_an_authority_of_the_same_name_outside_the_charter_is_foreign() -> None:
    impostor = create_authority(UNITED, NOON)
    with pytest.raises(PeerFault, match="not signed by the authority of united in charter version 1"):
        identity.verify(leaf_of(name(), impostor), charter(), NOON)


def test_a_leaf_that_claims_another_issuer_than_its_signer_is_refused() -> None:
    """Signed by delta's key under united's issuer name."""
    mixed = certificates.Authority(UNITED, authority("delta").key, authority("united").certificate)
    with pytest.raises(PeerFault, match="the authority of delta signed it"):
        identity.verify(leaf_of(name(), mixed), charter(), NOON)


def test_a_party_outside_the_charter_is_unknown() -> None:
    with pytest.raises(PeerFault, match="charter version 1 has no party jetblue"):
        identity.verify(leaf_of(name("jetblue")), charter(), NOON)


def test_a_name_of_another_consortium_is_refused() -> None:
    with pytest.raises(PeerFault, match="is for consortium sea, this is sky"):
        identity.verify(leaf_of(name(consortium="sea")), charter(), NOON)


def test_an_authority_is_no_node() -> None:
    with pytest.raises(PeerFault, match="0 alternative names"):
        identity.verify(authority("united").certificate.public_bytes(Encoding.DER), charter(), NOON)


def _odd_leaf(
    names: list[x509.GeneralName] | None = None,
    constraints: x509.BasicConstraints | None = None,
    usage: x509.KeyUsage = certificates.LEAF_USAGE,
    purposes: x509.ExtendedKeyUsage = certificates.LEAF_PURPOSES,
    extra: x509.ExtensionType | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    """A leaf signed by united's own authority that differs from what `issue` makes."""
    own = authority("united")
    begins = datetime.fromtimestamp(NOON, UTC)
    uri: list[x509.GeneralName] = [x509.UniformResourceIdentifier(name().uri)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")]))
        .issuer_name(own.certificate.subject)
        .public_key((key or Ed25519PrivateKey.generate()).public_key())
        .serial_number(1)
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(uri if names is None else names), critical=False)
        .add_extension(constraints or x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(purposes, critical=False)
    )
    if extra is not None:
        builder = builder.add_extension(extra, critical=True)
    return builder.sign(own.key, None).public_bytes(Encoding.DER)


def test_the_odd_leaf_without_oddity_is_accepted() -> None:
    assert identity.verify(_odd_leaf(), charter(), NOON) == name()


URI = x509.UniformResourceIdentifier


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (_odd_leaf(names=[x509.DNSName("united.example")]), "instead of one spiffe"),
        (_odd_leaf(names=[URI(name().uri), x509.DNSName("united.example")]), "carries 2 alternative names"),
        (_odd_leaf(names=[URI(name().uri), URI(name("delta").uri)]), "carries 2 alternative names"),
        (_odd_leaf(names=[URI("https://united.example")]), "is not spiffe://"),
        (_odd_leaf(names=[URI("spiffe://sky/United/node-1")]), "lower-case"),
        (_odd_leaf(constraints=x509.BasicConstraints(ca=True, path_length=None)), "not of the kind"),
        (_odd_leaf(purposes=x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])), "not of the kind"),
        (_odd_leaf(extra=x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"")), "not of the kind"),
        (_odd_leaf(key=ec.generate_private_key(ec.SECP256R1())), "not of the kind"),
    ],
)
def test_a_leaf_with_other_names_or_powers_than_junto_issues_is_refused(odd: bytes, reason: str) -> None:
    with pytest.raises(PeerFault, match=reason):
        identity.verify(odd, charter(), NOON)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.data())
def test_a_leaf_with_a_changed_byte_is_refused_as_the_peers_fault(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(GOOD) - 1))
    bad = GOOD[:at] + bytes([GOOD[at] ^ data.draw(st.integers(1, 255))]) + GOOD[at + 1 :]
    with pytest.raises(PeerFault) as raised:
        identity.verify(bad, charter(), NOON)
    assert len(str(raised.value).splitlines()) == 1


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.binary(max_size=64) | st.integers(0, len(GOOD) - 1).map(lambda size: GOOD[:size]))
def test_what_is_no_certificate_is_refused_as_the_peers_fault(data: bytes) -> None:
    with pytest.raises(PeerFault, match="malformed"):
        identity.verify(data, charter(), NOON)


def test_trailing_and_excessive_bytes_are_refused() -> None:
    for bad in (GOOD + b"\0", GOOD + b"\0" * certificates.CERTIFICATE_BYTES):
        with pytest.raises(PeerFault):
            identity.verify(bad, charter(), NOON)


def test_an_authority_issues_names_of_its_own_party_only() -> None:
    with pytest.raises(InvalidInput, match="only delta can"):
        issue(authority("united"), name("delta"), Ed25519PrivateKey.generate().public_key(), NOON)


@pytest.mark.parametrize("lifetime", [0.0, -1.0, float("inf"), float("nan"), 1e12])
def test_a_life_that_is_none_is_refused(lifetime: float) -> None:
    with pytest.raises(InvalidInput, match="life"):
        leaf_of(name(), lifetime_seconds=lifetime)


def test_a_renewed_certificate_keeps_the_key_and_so_its_id() -> None:
    key = Ed25519PrivateKey.generate()
    first, second = (
        Identity(name(), key, issue(authority("united"), name(), key.public_key(), now))
        for now in (NOON, NOON + 50_000)
    )
    assert first.certificate != second.certificate
    assert first.key_id == second.key_id
    assert identity.public_key_of(second.certificate_der) == key.public_key()


def test_a_certificate_is_due_from_half_its_life_or_when_the_clock_went_back() -> None:
    key = Ed25519PrivateKey.generate()
    held = Identity(name(), key, issue(authority("united"), name(), key.public_key(), NOON))
    assert not held.is_due(NOON)
    assert held.is_due(NOON + LEAF_SECONDS / 2)
    assert held.is_due(NOON - BACKDATED_SECONDS - 1)


def test_keys_and_certificates_come_back_from_their_files() -> None:
    key = Ed25519PrivateKey.generate()
    certificate = issue(authority("united"), name(), key.public_key(), NOON)
    loaded = certificates.load_identity(certificates.key_pem(key), certificates.pem(certificate))
    assert (loaded.name, loaded.certificate) == (name(), certificate)
    own = authority("united")
    again = certificates.load_authority(UNITED, certificates.key_pem(own.key), own.certificate_pem)
    assert again.certificate == own.certificate


def test_files_that_do_not_belong_together_are_refused_without_quoting_the_key() -> None:
    own, other = authority("united"), authority("delta")
    for key in (
        certificates.key_pem(other.key),
        b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
        b"",
    ):
        with pytest.raises(InvalidInput) as raised:
            certificates.load_authority(UNITED, key, own.certificate_pem)
        assert "PRIVATE" not in str(raised.value)
        assert "c2Vj" not in str(raised.value)
    with pytest.raises(InvalidInput, match="made for another name"):
        certificates.check_authority(PartyId("bts"), own.certificate_pem)


def test_secrets_stay_out_of_what_is_printed() -> None:
    key = Ed25519PrivateKey.generate()
    held = Identity(name(), key, issue(authority("united"), name(), key.public_key(), NOON))
    assert repr(held) == "Identity(united/node-1)"
    assert repr(authority("united")) == "Authority('united')"


def _odd_authority(party: str, *, ca: bool = True, path_length: int | None = 0, signing: bool = True) -> str:
    key = Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{party} authority")])
    usage = {"key_cert_sign": signing, "crl_sign": signing, "digital_signature": not signing}
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    begins = datetime.fromtimestamp(NOON, UTC)
    built = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 1, begins, begins + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca, path_length if ca else None), critical=True)
        .add_extension(
            x509.KeyUsage(**usage, **dict.fromkeys(others, False), encipher_only=False, decipher_only=False),
            critical=True,
        )
        .sign(key, None)
    )
    return certificates.pem(built)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (_odd_authority("united", ca=False), "not a Junto authority"),
        (_odd_authority("united", path_length=3), "not a Junto authority"),
        (_odd_authority("united", signing=False), "may not sign"),
        (_odd_authority("delta"), "another name"),
        (authority("united").certificate_pem + "\n", "not one plain PEM"),
        (authority("united").certificate_pem * 2, "not one plain PEM"),
        (authority("united").certificate_pem.replace("A", "B", 5), "damaged"),
        ("", "damaged"),
        ("\N{SNOWMAN}", "damaged"),
        ("x" * (certificates.CERTIFICATE_BYTES + 1), "at most"),
        (certificates.pem(certificate_of(GOOD)), "damaged"),
    ],
)
def test_what_is_no_authority_of_the_party_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        certificates.check_authority(UNITED, text)


def test_tls_is_told_every_authority_of_the_charter() -> None:
    shown = identity.authorities_pem(charter())
    assert [text.decode() for text in shown] == [member.authority_pem for member in charter().members]


def test_a_new_authority_takes_effect_with_the_charter_that_names_it() -> None:
    renewed = create_authority(UNITED, NOON)
    members = [
        msgspec.structs.replace(member, authority_pem=renewed.certificate_pem) if member.name == UNITED else member
        for member in charter().members
    ]
    later = charters.create(members, CONSORTIUM, NOON, version=2).charter
    leaf = leaf_of(name(), renewed)
    assert identity.verify(leaf, later, NOON) == name()
    with pytest.raises(PeerFault):
        identity.verify(GOOD, later, NOON)
