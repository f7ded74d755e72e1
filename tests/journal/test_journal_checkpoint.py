# SPDX-License-Identifier: Apache-2.0
"""Checkpoints are C2SP notes: other people's notes parse, ours round-trip, and nothing altered is believed."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from junto.errors import PeerFault
from junto.journal import checkpoint
from junto.journal.checkpoint import Checkpoint

KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(b"\x08" * 32)
ORIGIN = "junto/air/united/node1"
HEAD = Checkpoint(ORIGIN, 42, b"\xa5" * 32)
NOTE = checkpoint.sign(HEAD, KEY)


def test_a_signed_checkpoint_verifies() -> None:
    assert checkpoint.verify(NOTE, ORIGIN, OTHER.public_key(), KEY.public_key()) == HEAD
    root = base64.b64encode(HEAD.root).decode()
    assert NOTE.startswith(f"{ORIGIN}\n42\n{root}\n\n— {ORIGIN} ")


def test_the_go_checksum_database_s_own_note_verifies() -> None:
    """The example and key of golang.org/x/mod/sumdb/note's documentation."""
    name = "PeterNeumann"
    public = base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    key = Ed25519PublicKey.from_public_bytes(public[1:])
    assert checkpoint.key_hash(name, key).hex() == "c74f20a3"
    text = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
    )  # fmt: skip
    line = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    signature = base64.b64decode(line)
    assert signature[:4] == checkpoint.key_hash(name, key)
    key.verify(signature[4:], text.encode())


def test_another_s_signature_beside_ours_is_passed_over() -> None:
    line = base64.b64encode(b"abcd" + b"\x01" * 72).decode()
    assert checkpoint.verify(f"{NOTE}— witness.example/w1 {line}\n", ORIGIN, KEY.public_key()) == HEAD


def test_a_checkpoint_of_another_journal_is_refused() -> None:
    with pytest.raises(PeerFault, match="in the place of"):
        checkpoint.verify(NOTE, "junto/air/delta/node1", KEY.public_key())


def test_a_checkpoint_signed_by_another_key_is_refused() -> None:
    with pytest.raises(PeerFault, match="not signed by a key"):
        checkpoint.verify(NOTE, ORIGIN, OTHER.public_key())


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n\n",
        NOTE[:-1],
        NOTE + "\n",
        NOTE.replace("\n42\n", "\n042\n"),
        NOTE.replace("\n42\n", "\n+42\n"),
        NOTE.replace("\n42\n", "\n42 \n"),
        NOTE.replace("\n42\n", "\n42\r\n"),
        NOTE.replace("\n42\n", "\n\u0664\u0662\n"),
        NOTE.replace("=\n\n", "\n\n"),
        NOTE.replace("\n\n", "\nextension\n\n"),
        NOTE.replace("—", "-"),
        NOTE.replace(ORIGIN, "a b"),
        "x" * (checkpoint.NOTE_BYTES + 1),
    ],
)
def test_a_note_in_any_other_spelling_is_refused(note: str) -> None:
    with pytest.raises(PeerFault):
        checkpoint.verify(note, ORIGIN, KEY.public_key())


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.integers(0, len(NOTE) - 1), st.characters(codec="utf-8"))
def test_a_changed_character_is_refused(place: int, character: str) -> None:
    changed = NOTE[:place] + character + NOTE[place + 1 :]
    if changed != NOTE:
        with pytest.raises(PeerFault):
            checkpoint.verify(changed, ORIGIN, KEY.public_key())


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_either_a_checkpoint_or_a_peer_s_fault(note: str) -> None:
    with pytest.raises(PeerFault):
        checkpoint.parse(note)
