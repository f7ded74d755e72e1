# SPDX-License-Identifier: Apache-2.0
"""A charter counts once all have signed it, says one thing only, and cannot be changed afterwards."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from trust_world import BTS, CONSORTIUM, DELTA, NOON, PARTIES, UNITED, authority, charter, member, signed, unsigned

from junto.errors import InvalidInput
from junto.trust import charter as charters
from junto.trust import envelope as dsse
from junto.trust.certificates import create_authority
from junto.trust.charter import Charter, Member
from junto.types import PartyId

replaced = msgspec.structs.replace


def test_a_charter_is_in_force_once_all_have_signed_in_any_order() -> None:
    copy = unsigned()
    for done, party in enumerate((UNITED, BTS, DELTA)):
        assert not copy.is_in_force
        assert len(copy.unsigned) == 3 - done
        copy = charters.sign(copy, authority(party))
    assert copy.is_in_force
    assert charters.verify(copy.encode()).signed == PARTIES


def test_who_has_not_signed_is_named_with_what_to_do() -> None:
    copy = charters.verify(charters.sign(unsigned(), authority(DELTA)).encode())
    assert (copy.signed, copy.unsigned) == ((DELTA,), (BTS, UNITED))
    with pytest.raises(InvalidInput, match=r"bts and united have not signed; run `junto charter sign FILE` there"):
        charters.check_in_force(copy)
    charters.check_in_force(signed())


def test_the_digest_names_the_charter_whoever_has_signed() -> None:
    assert unsigned().charter.digest == charters.verify(signed().encode()).charter.digest
    other = charters.create([member(party) for party in PARTIES], CONSORTIUM, NOON, version=2)
    assert other.charter.digest != charter().digest


def test_the_order_of_cards_does_not_matter() -> None:
    backwards = charters.create([member(party) for party in reversed(PARTIES)], CONSORTIUM, NOON)
    assert backwards.charter == charter()


def test_signing_twice_changes_nothing() -> None:
    once = charters.sign(unsigned(), authority(DELTA))
    assert charters.sign(once, authority(DELTA)) == once


def test_copies_signed_apart_are_merged_to_one() -> None:
    copies = [charters.sign(unsigned(), authority(party)) for party in PARTIES]
    assert charters.verify(charters.merge(copies).encode()).is_in_force
    assert charters.merge([*copies, signed()]) == charters.merge(copies)


def test_different_charters_are_not_merged_and_the_difference_is_told() -> None:
    other = charters.create([member(party) for party in PARTIES], CONSORTIUM, NOON, version=2)
    with pytest.raises(InvalidInput, match="ours is version 1, theirs version 2"):
        charters.merge([signed(), other])


def test_a_party_signs_only_what_names_its_own_authority() -> None:
    with pytest.raises(InvalidInput, match="another authority for united"):
        charters.sign(unsigned(), create_authority(UNITED, NOON))
    with pytest.raises(InvalidInput, match="no party 'jetblue'; its parties are bts, delta, united"):
        charters.sign(unsigned(), authority("jetblue"))


def test_a_quorum_is_more_than_two_thirds_unless_given() -> None:
    sizes = {2: 2, 3: 3, 4: 3, 5: 4, 6: 5, 7: 5}
    for count, quorum in sizes.items():
        members = [member(f"party-{n}") for n in range(count)]
        assert charters.create(members, CONSORTIUM, NOON).charter.quorum == quorum


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.data())
def test_a_charter_with_a_changed_byte_is_invalid_input(data: st.DataObject) -> None:
    good = signed().encode().rstrip()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    with pytest.raises(InvalidInput) as raised:
        charters.verify(bad)
    assert len(str(raised.value).splitlines()) == 1


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.data())
def test_a_card_with_a_changed_byte_is_invalid_input(data: st.DataObject) -> None:
    good = charters.create_card(authority(UNITED), ["united.example:7300"]).rstrip()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    with pytest.raises(InvalidInput) as raised:
        charters.read_card(bad)
    assert len(str(raised.value).splitlines()) == 1


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.data())
def test_a_payload_with_a_changed_byte_does_not_fit_its_signatures_or_is_malformed(data: st.DataObject) -> None:
    """The envelope is well spelled: only the charter within is changed."""
    payload = signed().envelope.payload
    at = data.draw(st.integers(0, len(payload) - 1))
    bad = payload[:at] + bytes([payload[at] ^ data.draw(st.integers(1, 255))]) + payload[at + 1 :]
    with pytest.raises(InvalidInput) as raised:
        charters.verify(dsse.encode(replaced(signed().envelope, payload=bad)))
    assert len(str(raised.value).splitlines()) == 1


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_a_payload_of_noise_is_invalid_input(payload: bytes) -> None:
    for kind, read in ((charters.CHARTER_TYPE, charters.verify), (charters.CARD_TYPE, charters.read_card)):
        with pytest.raises(InvalidInput):
            read(dsse.encode(dsse.sign(kind, payload, [authority(UNITED).key])))


def test_a_file_longer_than_any_charter_is_not_parsed() -> None:
    for read, limit in ((charters.verify, charters.CHARTER_BYTES), (charters.read_card, charters.CARD_BYTES)):
        with pytest.raises(InvalidInput, match=f"at most {limit} are read"):
            read(b"{" + b" " * limit)


def test_a_signature_of_nobody_in_the_charter_is_refused() -> None:
    stranger = dsse.add_signature(signed().envelope, Ed25519PrivateKey.generate())
    with pytest.raises(InvalidInput, match="no member's"):
        charters.verify(dsse.encode(stranger))


def test_a_signature_on_another_version_does_not_carry_over() -> None:
    other = charters.create([member(party) for party in PARTIES], CONSORTIUM, NOON, version=2)
    moved = replaced(other.envelope, signatures=signed().envelope.signatures)
    with pytest.raises(InvalidInput, match="charter was altered: the signature of bts does not fit it"):
        charters.verify(dsse.encode(moved))


def test_a_card_is_not_taken_for_a_charter_nor_a_charter_for_a_card() -> None:
    with pytest.raises(InvalidInput, match="give the charter file"):
        charters.verify(charters.create_card(authority(UNITED), []))
    with pytest.raises(InvalidInput, match="give the card file"):
        charters.read_card(signed().encode())


def _rewritten(change: Callable[[Charter], Charter]) -> bytes:
    """A charter of which `create` would make no such thing, signed by all."""
    changed = change(charter())
    keys = [authority(party).key for party in PARTIES]
    return dsse.encode(dsse.sign(charters.CHARTER_TYPE, msgspec.json.encode(changed), keys))


def _members(*members: Member) -> Callable[[Charter], Charter]:
    return lambda charter: replaced(charter, members=members, quorum=len(members))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: replaced(c, format=2), "format 2, this Junto reads up to 1: upgrade Junto"),
        (lambda c: replaced(c, format=0), "spelling"),
        (lambda c: replaced(c, consortium="Sky"), "consortium name 'Sky'"),
        (lambda c: replaced(c, version=0), "version 0"),
        (lambda c: replaced(c, version=-1), "version -1"),
        (lambda c: replaced(c, version=1 << 40), "versions count up from 1"),
        (lambda c: replaced(c, quorum=1), "quorum 1 of 3"),
        (lambda c: replaced(c, quorum=4), "quorum 4 of 3"),
        (lambda c: replaced(c, created=datetime(2027, 1, 1, 0, 0, 0, 5, tzinfo=UTC)), "whole seconds"),
        (lambda c: replaced(c, created=datetime(2027, 1, 1)), "whole seconds"),
        (lambda c: replaced(c, members=c.members[::-1]), "not in order"),
        (_members(), "charter of 0 parties"),
        (_members(member(UNITED)), "charter of 1 parties"),
        (_members(member(UNITED), member(UNITED)), "two parties are called united"),
        (
            _members(member(DELTA), replaced(member(UNITED), authority_pem=authority(DELTA).certificate_pem)),
            "another name",
        ),
        (
            _members(member(DELTA), replaced(member(UNITED), authority_pem="")),
            "authority certificate of united is damaged",
        ),
        (_members(replaced(member(UNITED), name=PartyId("UA")), member(DELTA)), "party name 'UA'"),
    ],
)
def test_a_charter_that_nobody_could_have_created_is_refused(change: Callable[[Charter], Charter], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as raised:
        charters.verify(_rewritten(change))
    assert len(str(raised.value).splitlines()) == 1


def test_more_fields_than_this_version_knows_are_refused() -> None:
    payload = json.dumps({**json.loads(charter().payload), "more": 1}).encode()
    with pytest.raises(InvalidInput, match="malformed"):
        charters.verify(dsse.encode(dsse.sign(charters.CHARTER_TYPE, payload, [])))


def test_a_newer_format_is_named_even_if_its_fields_are_unknown() -> None:
    payload = b'{"format":7,"parties":[]}'
    for kind, read in ((charters.CHARTER_TYPE, charters.verify), (charters.CARD_TYPE, charters.read_card)):
        with pytest.raises(InvalidInput, match="format 7, this Junto reads up to 1: upgrade Junto"):
            read(dsse.encode(dsse.sign(kind, payload, [])))


def test_two_spellings_of_one_payload_do_not_make_two_digests() -> None:
    payload = json.dumps(json.loads(charter().payload), indent=1).encode()
    with pytest.raises(InvalidInput, match="spelling"):
        charters.verify(dsse.encode(dsse.sign(charters.CHARTER_TYPE, payload, [])))


def _at(party: str, *addresses: str) -> Member:
    return replaced(member(party), addresses=addresses)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([_at("bts", "a:1"), _at("delta", "a:1")], "bts and delta both give the address a:1"),
        ([_at("bts", "a:1", "a:1"), _at("delta", "b:1")], "bts gives the same address twice"),
        ([_at("bts", "A:1"), _at("delta", "b:1")], "spell it a:1"),
        ([_at("bts", "a"), _at("delta", "b:1")], "spell it a:7300"),
        ([_at("bts", "0.0.0.0:1"), _at("delta", "b:1")], "cannot be dialled"),
        ([_at("bts", "a:x"), _at("delta", "b:1")], "write HOST:PORT"),
        ([_at("bts", *[f"a:{n}" for n in range(1, 10)]), _at("delta", "b:1")], "at most 8"),
        ([_at("bts"), _at("delta")], "bts and delta have no address"),
    ],
)
def test_addresses_at_which_parties_would_not_meet_are_refused(members: list[Member], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        charters.create(members, CONSORTIUM, NOON)


def test_one_party_may_have_no_address() -> None:
    assert charters.create([_at("bts"), _at("delta", "d:1")], CONSORTIUM, NOON).charter.member(BTS).addresses == ()


def test_parties_that_share_an_authority_are_refused() -> None:
    """Two names over one key: each certificate is of its own name, the key is the same."""
    one = create_authority(PartyId("one"), NOON)
    two = create_authority(PartyId("two"), NOON)
    twin = _same_key(one.key)
    members = [
        Member(PartyId("one"), one.certificate_pem, ("a:1",)),
        Member(PartyId("two"), twin, ("b:1",)),
    ]
    with pytest.raises(InvalidInput, match="one and two have the same authority"):
        charters.create(members, CONSORTIUM, NOON)
    apart = [members[0], replaced(members[1], authority_pem=two.certificate_pem)]
    assert charters.create(apart, CONSORTIUM, NOON).charter.quorum == 2


def _same_key(key: Ed25519PrivateKey) -> str:
    from unittest.mock import patch

    with patch("junto.trust.certificates.Ed25519PrivateKey.generate", return_value=key):
        return create_authority(PartyId("two"), NOON).certificate_pem


def test_a_card_gives_back_the_party_it_describes() -> None:
    card = charters.create_card(authority(UNITED), ["United.example"])
    assert charters.read_card(card) == member(UNITED)
    assert charters.fingerprint(member(UNITED)) == charters.fingerprint(charters.read_card(card))
    assert charters.fingerprint(member(UNITED)) != charters.fingerprint(member(DELTA))


def test_a_card_not_signed_by_the_authority_it_shows_is_refused() -> None:
    envelope = dsse.decode(charters.create_card(authority(UNITED), []), "card")
    for keys in ([], [authority(DELTA).key], [authority(UNITED).key, authority(DELTA).key]):
        forged = dsse.sign(charters.CARD_TYPE, envelope.payload, keys)
        with pytest.raises(InvalidInput, match="card of united was altered"):
            charters.read_card(dsse.encode(forged))


def test_an_address_changed_within_a_card_is_refused() -> None:
    envelope = dsse.decode(charters.create_card(authority(UNITED), ["a:1"]), "card")
    moved = replaced(envelope, payload=envelope.payload.replace(b"a:1", b"b:1"))
    with pytest.raises(InvalidInput, match="was altered"):
        charters.read_card(dsse.encode(moved))


def test_what_differs_between_two_charters_is_said_plainly() -> None:
    ours = charter()
    assert charters.difference(ours, ours) == []
    jetblue = member("jetblue")
    theirs = charters.create(
        [
            _at("delta", "d:1"),
            replaced(member(UNITED), authority_pem=create_authority(UNITED, NOON).certificate_pem),
            jetblue,
        ],
        "sea",
        NOON + 60,
        version=2,
        quorum=2,
    ).charter
    assert charters.difference(ours, theirs) == [
        "ours is of consortium sky, theirs of sea",
        "ours is version 1, theirs version 2",
        "only ours has bts",
        "only theirs has jetblue",
        "delta is at delta.example:7300 in ours, at d:1 in theirs",
        "united has another authority certificate in theirs",
        "quorum is 3 in ours, 2 in theirs",
        "ours was created 2027-01-15T08:00:00Z, theirs 2027-01-15T08:01:00Z",
    ]


def test_the_file_is_one_line_that_other_dsse_tools_read() -> None:
    text = signed().encode()
    assert text.count(b"\n") == 1
    read = json.loads(text)
    assert json.loads(base64.b64decode(read["payload"]))["consortium"] == CONSORTIUM
