# SPDX-License-Identifier: Apache-2.0
"""Signed tree heads in the C2SP formats tlog-checkpoint and signed-note: other people's tools check our journals.

A note is text, an empty line, and a signature line. The text of a checkpoint is its origin, size and root:

    junto/air/united/node1
    42
    qINS1GRFhWHwdkUeqLEoP4yEMkTBBzxBkGwGQlVlVcs=

    — junto/air/united/node1 Az3grn...

The signature is Ed25519 over the text up to and with the newline before the empty line. The signature line holds the
base64 of a 4-byte key hash, SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key) cut short, and the 64 signature bytes.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from junto.errors import PeerFault
from junto.journal.tree import HASH_BYTES

ED25519 = b"\x01"
NOTE_BYTES = 64 << 10
"""A longer note is refused unread."""

_ORIGIN = re.compile(r"[^\s+\x00-\x1f\x7f]{1,255}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_SIGNATURE_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The claim that the journal `origin` has this root at this size."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def origin_of(consortium: str, party: str, node: str) -> str:
    """The name of a node's journal."""
    return f"junto/{consortium}/{party}/{node}"


def key_hash(name: str, key: Ed25519PublicKey) -> bytes:
    """The four bytes by which a signature line tells its key."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + key.public_bytes_raw()).digest()[:4]


def sign(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> str:
    """The checkpoint as a note signed in the name of its origin."""
    signature = key_hash(checkpoint.origin, key.public_key()) + key.sign(checkpoint.text.encode())
    return f"{checkpoint.text}\n— {checkpoint.origin} {base64.b64encode(signature).decode()}\n"


def parse(note: str) -> tuple[Checkpoint, tuple[tuple[str, bytes], ...]]:
    """The checkpoint a note claims and its signatures, `(name, key hash ‖ signature)`, nothing verified yet.

    Strict: no extension lines, no other spelling of a number or of base64. Raises PeerFault.
    """
    if len(note) > NOTE_BYTES:
        raise PeerFault(f"a checkpoint of {len(note)} characters; at most {NOTE_BYTES}")
    text, found, tail = note.partition("\n\n")
    lines = text.split("\n")
    if not found or len(lines) != 3:
        raise PeerFault("a checkpoint is three lines, an empty line and signatures")
    origin, size, root = lines
    if not _ORIGIN.fullmatch(origin):
        raise PeerFault("a checkpoint's first line is no journal's name")
    if not _SIZE.fullmatch(size):
        raise PeerFault(f"the checkpoint of {origin} has no size on its second line")
    root_bytes = _from_base64(root)
    if root_bytes is None or len(root_bytes) != HASH_BYTES:
        raise PeerFault(f"the checkpoint of {origin} has no root of {HASH_BYTES} bytes on its third line")
    if not tail.endswith("\n"):
        raise PeerFault(f"the checkpoint of {origin} ends within a line")
    signatures = []
    for line in tail[:-1].split("\n"):
        match = _SIGNATURE_LINE.fullmatch(line)
        signature = _from_base64(match[2]) if match else None
        if match is None or signature is None or len(signature) < 5:
            raise PeerFault(f"the checkpoint of {origin} has a malformed signature line")
        signatures.append((match[1], signature))
    return Checkpoint(origin, int(size), root_bytes), tuple(signatures)


def verify(note: str, origin: str, *keys: Ed25519PublicKey) -> Checkpoint:
    """The checkpoint, signed in the name of `origin` by one of the keys.

    Signatures of others are passed over, as signed-note asks; a bad one by a key we know is a fault.
    Raises PeerFault.
    """
    checkpoint, signatures = parse(note)
    if checkpoint.origin != origin:
        raise PeerFault(f"a checkpoint of {checkpoint.origin} in the place of one of {origin}")
    known = {key_hash(origin, key): key for key in keys}
    signed = False
    for name, signature in signatures:
        key = known.get(signature[:4]) if name == origin else None
        if key is None:
            continue
        try:
            key.verify(signature[4:], checkpoint.text.encode())
        except InvalidSignature:
            raise PeerFault(f"the checkpoint of {origin} at {checkpoint.size} has a wrong signature") from None
        signed = True
    if not signed:
        raise PeerFault(f"the checkpoint of {origin} at {checkpoint.size} is not signed by a key of its node")
    return checkpoint


def _from_base64(text: str) -> bytes | None:
    """The bytes, if the text is their one canonical spelling."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return content if base64.b64encode(content).decode() == text else None
