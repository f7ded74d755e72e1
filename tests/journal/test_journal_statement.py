# SPDX-License-Identifier: Apache-2.0
"""A statement opens only if its author's own certified key signed exactly these bytes; anything else is named."""

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_parties import NOW, PARTIES, Consortium, found

from junto.errors import InvalidInput, PeerFault
from junto.journal import statement
from junto.journal.statement import KeyRing, Statement, body_of, open_statement, read_statement, sign
from junto.trust import envelope as dsse
from junto.trust.certificates import issue, pem

CONSORTIUM = found(PARTIES)
KEYS = CONSORTIUM.ring()
SAID = CONSORTIUM.say("delta", "one", task="task1")
ENVELOPE, _ = CONSORTIUM.signed("delta", SAID)


@pytest.fixture(scope="module")
def consortium() -> Consortium:
    return CONSORTIUM


def enveloped(payload: bytes, party: str = "delta", kind: str = statement.PAYLOAD_TYPE) -> bytes:
    return dsse.encode(dsse.sign(kind, payload, [CONSORTIUM.nodes[party].key]))


def test_a_signed_statement_opens_as_what_was_said(consortium: Consortium) -> None:
    assert open_statement(ENVELOPE, KEYS) == SAID
    assert read_statement(ENVELOPE) == SAID
    assert KEYS[statement.signer_of(ENVELOPE)] == consortium.nodes["delta"].name


def test_a_statement_in_another_s_name_is_a_fault(consortium: Consortium) -> None:
    forged = sign(consortium.say("united", "one"), consortium.nodes["delta"].key)
    with pytest.raises(PeerFault, match="air/united/node1 as its author but delta/node1 signed it"):
        open_statement(forged, KEYS)


def test_an_unknown_key_is_a_fault(consortium: Consortium) -> None:
    with pytest.raises(PeerFault, match="unknown key"):
        open_statement(sign(SAID, Ed25519PrivateKey.generate()), KEYS)
    with pytest.raises(PeerFault, match="unknown key"):
        open_statement(ENVELOPE, KeyRing())


def test_a_statement_dated_after_its_certificate_is_a_fault(consortium: Consortium) -> None:
    with pytest.raises(PeerFault, match="dated after its author's certificate ended"):
        open_statement(consortium.signed("delta", consortium.say("delta", "late", at=NOW + 2 * 86_400))[0], KEYS)


def test_a_later_certificate_over_the_same_key_vouches_for_earlier_statements(consortium: Consortium) -> None:
    early, said = consortium.signed("delta", consortium.say("delta", "early", at=NOW - 30 * 86_400))
    assert open_statement(early, KEYS) == said


def test_a_renewed_certificate_extends_what_its_key_may_date(consortium: Consortium) -> None:
    delta, keys = consortium.nodes["delta"], consortium.ring()
    later = NOW + 80_000
    renewed = issue(consortium.authorities["delta"], delta.name, delta.key.public_key(), later)
    said = statement.certificate_statement(delta.name, pem(renewed), id="renewed", at=later)
    assert open_statement(sign(said, delta.key), keys, consortium.charter) == said
    late = consortium.say("delta", "late", at=NOW + 150_000)
    assert open_statement(sign(late, delta.key), keys) == late
    assert open_statement(ENVELOPE, keys) == SAID
    assert len(keys) == len(PARTIES)


def test_a_certificate_of_a_foreign_authority_teaches_nothing(consortium: Consortium) -> None:
    delta, keys, key = consortium.nodes["delta"], KeyRing(), Ed25519PrivateKey.generate()
    foreign = found(PARTIES).authorities["delta"]
    said = statement.certificate_statement(
        delta.name, pem(issue(foreign, delta.name, key.public_key(), NOW)), id="c", at=NOW
    )
    with pytest.raises(PeerFault, match="not signed by the authority of delta"):
        open_statement(sign(said, key), keys, consortium.charter)
    assert len(keys) == 0


def test_a_key_belongs_to_one_name_only(consortium: Consortium) -> None:
    keys, bts = consortium.ring(), consortium.nodes["bts"]
    stolen = issue(consortium.authorities["bts"], bts.name, consortium.nodes["delta"].key.public_key(), NOW)
    said = statement.certificate_statement(bts.name, pem(stolen), id="c", at=NOW)
    with pytest.raises(PeerFault, match="has the key of delta/node1"):
        open_statement(sign(said, bts.key), keys, consortium.charter)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "Not A Kind"},
        {"id": ""},
        {"id": "with space"},
        {"id": "new\nline"},
        {"id": "x" * 129},
        {"author": "spiffe://air/delta/user/ann"},
        {"author": "delta"},
        {"at": -1},
        {"at": 1e300},
        {"at": "now"},
        {"at": None},
        {"task": "x" * 129},
        {"body": []},
        {"body": "text"},
        {"body": None},
        {"more": 1},
    ],
)
def test_a_malformed_statement_is_named_and_never_quoted(change: dict[str, object]) -> None:
    plain = msgspec.json.decode(msgspec.json.encode(SAID), type=dict[str, object])
    with pytest.raises(InvalidInput) as caught:
        open_statement(enveloped(msgspec.json.encode(plain | change)), KEYS)
    assert "\n" not in str(caught.value)


def test_what_is_missing_or_nested_too_deep_or_no_text_is_malformed() -> None:
    whole = msgspec.json.encode(SAID)
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    for payload in (
        b"{}",
        b"",
        b"null",
        whole[:-1],
        whole.replace(b"one", b"\xff"),
        whole.replace(b'{"of":"one"}', deep),
    ):
        with pytest.raises(InvalidInput):
            open_statement(enveloped(payload), KEYS)


def test_a_signed_thing_of_another_type_is_no_statement() -> None:
    with pytest.raises(InvalidInput, match="payload type"):
        open_statement(enveloped(msgspec.json.encode(SAID), kind="application/json"), KEYS)


def test_two_signatures_or_none_are_refused(consortium: Consortium) -> None:
    payload = msgspec.json.encode(SAID)
    keys = [consortium.nodes["delta"].key, consortium.nodes["bts"].key]
    for some in ([], keys):
        with pytest.raises(InvalidInput, match="signatures; exactly"):
            open_statement(dsse.encode(dsse.sign(statement.PAYLOAD_TYPE, payload, some)), KEYS)


def test_white_space_and_size_are_refused() -> None:
    with pytest.raises(InvalidInput, match="white space"):
        open_statement(ENVELOPE + b"\n", KEYS)
    with pytest.raises(InvalidInput, match="at most 1048576"):
        open_statement(b" " * (statement.STATEMENT_BYTES + 1), KEYS)


def test_signing_refuses_what_would_not_open(consortium: Consortium) -> None:
    key = consortium.nodes["delta"].key
    with pytest.raises(InvalidInput):
        sign(msgspec.structs.replace(SAID, id=""), key)
    with pytest.raises(InvalidInput):
        sign(msgspec.structs.replace(SAID, body=msgspec.Raw(b"[1]")), key)
    with pytest.raises(InvalidInput, match="at most 1048576 are signed"):
        sign(msgspec.structs.replace(SAID, body=msgspec.Raw(b'{"a":"%s"}' % (b"x" * statement.STATEMENT_BYTES))), key)


class Count(msgspec.Struct, forbid_unknown_fields=True):
    of: int


def test_a_body_of_another_shape_is_named_by_place_without_its_value() -> None:
    said = msgspec.structs.replace(SAID, body=msgspec.Raw(b'{"of":"tail number N123"}'))
    with pytest.raises(
        InvalidInput, match=r"the decision statement one has a body that is no Count \(at \$.of\)"
    ) as caught:
        body_of(said, Count)
    assert "N123" not in str(caught.value)
    assert body_of(msgspec.structs.replace(SAID, body=msgspec.Raw(b'{"of":3}')), Count).of == 3


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_named_error(data: bytes) -> None:
    with pytest.raises((InvalidInput, PeerFault)):
        open_statement(data, KEYS, CONSORTIUM.charter)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.integers(0, len(ENVELOPE) - 1), st.integers(1, 255))
def test_a_changed_byte_is_a_named_error(place: int, change: int) -> None:
    changed = bytearray(ENVELOPE)
    changed[place] ^= change
    with pytest.raises((InvalidInput, PeerFault)):
        open_statement(bytes(changed), KEYS, CONSORTIUM.charter)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(Statement.__struct_fields__), json_values), st.sampled_from(PARTIES))
def test_any_signed_payload_is_a_statement_or_a_named_error(fields: dict[str, object], party: str) -> None:
    plain = msgspec.json.decode(msgspec.json.encode(SAID), type=dict[str, object])
    try:
        opened = open_statement(enveloped(msgspec.json.encode(plain | fields), party), KEYS, CONSORTIUM.charter)
    except (InvalidInput, PeerFault):
        return
    assert opened.author == CONSORTIUM.nodes[party].name.uri
    assert bytes(opened.body).startswith(b"{")


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.text(max_size=400) | st.just(pem(CONSORTIUM.nodes["delta"].certificate)[:-40]))
def test_any_certificate_text_is_a_named_error(text: str) -> None:
    said = statement.certificate_statement(CONSORTIUM.nodes["delta"].name, text, id="c", at=NOW)
    with pytest.raises((InvalidInput, PeerFault)):
        open_statement(sign(said, CONSORTIUM.nodes["delta"].key), CONSORTIUM.ring(), CONSORTIUM.charter)
