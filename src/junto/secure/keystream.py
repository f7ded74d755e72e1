# SPDX-License-Identifier: Apache-2.0
"""Key derivation and the AES-CTR keystream that masks, pads and polynomials are drawn from.

Keys come out of HKDF-SHA256 (RFC 5869) with the protocol's name, the machine's `context` and the parties concerned in
`info`, each with its length before it, so that no key serves two purposes, two steps or two tasks. Every key encrypts
one keystream from counter zero and nothing else (NIST SP 800-38A, 6.5). AES-128 in counter mode is distinguishable
from random with probability about q² / 2¹²⁹ after q blocks: below 2⁻⁸⁰ for the 2²⁴ blocks (256 MiB) of a large step.
"""

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from junto.types import RandomBytes

CHUNK_BYTES = 1 << 18
"""The bytes of keystream made at once: few enough to stay in the second-level cache."""

_ZEROS = bytes(CHUNK_BYTES)


def derive(secret: bytes, purpose: str, context: bytes, *info: bytes, size: int = 32) -> bytes:
    """`size` bytes of key for one purpose, from a secret of high entropy. Source: RFC 5869."""
    parts = (b"junto", purpose.encode(), context, *info)
    label = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return HKDF(SHA256(), size, salt=None, info=label).derive(secret)


class Keystream:
    """The bytes AES-CTR gives under one key of 16 bytes, in order, each once."""

    def __init__(self, key: bytes) -> None:
        self._context: CipherContext = Cipher(algorithms.AES128(key), modes.CTR(bytes(16))).encryptor()

    def __repr__(self) -> str:
        return "<Keystream>"

    def fill(self, buffer: bytearray | memoryview) -> None:
        """Overwrite a buffer of at most CHUNK_BYTES with the bytes that come next."""
        self._context.update_into(memoryview(_ZEROS)[: len(buffer)], buffer)

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        return self._context.update(bytes(size))


def stretched(random_bytes: RandomBytes) -> RandomBytes:
    """The same kind of source, seeded once with 16 bytes of `random_bytes`: for much randomness at a time."""
    return Keystream(random_bytes(16)).take
