# SPDX-License-Identifier: Apache-2.0
"""DSSE envelopes: what is signed, who signed, and that nothing can be changed afterwards."""

import base64
import json
from collections.abc import Callable

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from junto.errors import InvalidInput
from junto.trust import envelope as dsse

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
ID, OTHER_ID = dsse.key_id(KEY.public_key()), dsse.key_id(OTHER.public_key())
KEYS = {ID: KEY.public_key(), OTHER_ID: OTHER.public_key()}
KIND = "http://example.com/HelloWorld"
SIGNED = dsse.sign(KIND, b"hello world", [KEY])


def test_the_signed_bytes_are_those_of_the_specification() -> None:
    """DSSE protocol.md, "Test Vectors"."""
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert dsse.pre_authentication_encoding(KIND, b"hello world") == expected
    assert dsse.pre_authentication_encoding("", b"") == b"DSSEv1 0  0 "
    assert dsse.pre_authentication_encoding("é", b"x") == "DSSEv1 2 é 1 x".encode()  # bytes, not characters


def test_the_json_is_that_of_the_specification() -> None:
    """DSSE envelope.md: names of the fields, base64 of payload and signature."""
    read = json.loads(dsse.encode(SIGNED))
    assert read.keys() == {"payloadType", "payload", "signatures"}
    assert base64.b64decode(read["payload"]) == b"hello world"
    [signature] = read["signatures"]
    assert signature["keyid"] == ID
    KEY.public_key().verify(base64.b64decode(signature["sig"]), dsse.pre_authentication_encoding(KIND, b"hello world"))


def test_each_key_that_signed_is_found_and_no_other() -> None:
    both = dsse.add_signature(SIGNED, OTHER)
    assert dsse.verify(SIGNED, KEYS) == {ID}
    assert dsse.verify(both, KEYS) == {ID, OTHER_ID}
    assert dsse.verify(both, {OTHER_ID: OTHER.public_key()}) == {OTHER_ID}
    assert dsse.verify(both, {}) == set()


def test_a_key_signs_once() -> None:
    assert dsse.add_signature(SIGNED, KEY) == SIGNED


def test_a_key_filed_under_another_keys_id_proves_nothing() -> None:
    assert dsse.verify(SIGNED, {ID: OTHER.public_key()}) == set()
    swapped = msgspec.structs.replace(
        SIGNED, signatures=(msgspec.structs.replace(SIGNED.signatures[0], keyid=OTHER_ID),)
    )
    assert dsse.verify(swapped, {OTHER_ID: KEY.public_key()}) == set()


def test_a_signature_does_not_carry_over_to_another_type_of_payload() -> None:
    assert dsse.verify(msgspec.structs.replace(SIGNED, payload_type="http://example.com/Other"), KEYS) == set()


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.data())
def test_an_envelope_with_a_changed_byte_never_verifies(data: st.DataObject) -> None:
    good = dsse.encode(SIGNED)
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    try:
        envelope = dsse.decode(bad, "envelope")
    except InvalidInput as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - either outcome is right, this one has a form
        return
    assert dsse.verify(envelope, KEYS) == set()


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_bytes_that_are_no_envelope_are_invalid_input_and_nothing_else(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        dsse.decode(data, "envelope")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda good: good.replace(b":", b": ", 1), "edited"),
        (lambda good: good.replace(b"}", b',"more":1}', 1), "damaged"),
        (lambda good: json.dumps(json.loads(good), sort_keys=True).encode(), "edited"),
        (lambda good: b" " + good, "edited"),
        (lambda good: good * 2, "damaged"),
        (lambda good: b"[" * 100_000, "damaged"),
        (lambda good: good.ljust(dsse.ENVELOPE_BYTES + 1), "at most"),
    ],
)
def test_an_envelope_has_one_spelling(change: Callable[[bytes], bytes], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        dsse.decode(change(dsse.encode(SIGNED)), "envelope")


def test_white_space_at_the_end_is_no_change() -> None:
    assert dsse.decode(dsse.encode(SIGNED) + b"\r\n\n", "envelope") == SIGNED


def test_two_signatures_by_one_key_are_refused() -> None:
    twice = msgspec.structs.replace(SIGNED, signatures=SIGNED.signatures * 2)
    with pytest.raises(InvalidInput, match="twice"):
        dsse.decode(dsse.encode(twice), "envelope")


def test_more_signatures_than_a_consortium_has_parties_are_refused() -> None:
    many = tuple(dsse.Signature(dsse.KeyId(f"{n:064x}"), b"") for n in range(dsse.SIGNATURES + 1))
    with pytest.raises(InvalidInput, match="at most 256"):
        dsse.decode(dsse.encode(msgspec.structs.replace(SIGNED, signatures=many)), "envelope")
