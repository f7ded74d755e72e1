# SPDX-License-Identifier: Apache-2.0
"""Outputs on disk until their task ends: chunks of AES-256-GCM under the node's spool key.

A chunk's nonce is its index, its associated data the file's random id: chunks cannot be swapped, reordered or moved
between files. Each file has a key of its own, derived from the spool key and that id (RFC 5869), so nonces never meet.
"""

import errno
import hashlib
import os
import secrets
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from junto.errors import StorageFailed

CHUNK_BYTES = 1 << 20
_TAG_BYTES = 16


@dataclass(frozen=True, slots=True)
class Spooled:
    """A finished output: where it lies, the digest of its clear bytes and how many they are."""

    path: Path
    id: bytes
    sha256: bytes
    bytes: int


class Spool:
    """The folder that holds outputs. Writes whole files only; an interrupted one is removed."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self._folder = folder
        self._key = key

    def clear(self) -> None:
        """Remove what an earlier process left behind."""
        for path in self._folder.glob("*.out"):
            path.unlink(missing_ok=True)

    def write(self, pieces: Iterable[bytes]) -> Spooled:
        """Encrypt the pieces, in order, as one output. Raises StorageFailed; then nothing is left behind."""
        id = secrets.token_bytes(16)
        path = self._folder / f"{id.hex()}.out"
        box = self._box(id)
        total = 0
        digest = hashlib.sha256()
        try:
            with open(path, "xb", opener=_private) as file:
                for index, chunk in enumerate(_chunks(pieces)):
                    file.write(box.encrypt(_nonce(index), chunk, id))
                    digest.update(chunk)
                    total += len(chunk)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise StorageFailed(_why(error, self._folder)) from error
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Spooled(path, id, digest.digest(), total)

    def read(self, spooled: Spooled, offset: int = 0) -> Iterator[bytes]:
        """The clear bytes from `offset` on. Raises StorageFailed if the file was altered or is gone."""
        box = self._box(spooled.id)
        index, skip = divmod(offset, CHUNK_BYTES)
        try:
            with spooled.path.open("rb") as file:
                file.seek(index * (CHUNK_BYTES + _TAG_BYTES))
                left = spooled.bytes - index * CHUNK_BYTES
                while left > 0:
                    chunk = box.decrypt(_nonce(index), file.read(min(CHUNK_BYTES, left) + _TAG_BYTES), spooled.id)
                    yield chunk[skip:]
                    left -= len(chunk)
                    skip = 0
                    index += 1
        except (OSError, InvalidTag) as error:
            raise StorageFailed(
                f"an output in {self._folder.name}/ is gone or was altered; run the task again"
            ) from error

    def remove(self, spooled: Spooled) -> None:
        """Forget an output."""
        spooled.path.unlink(missing_ok=True)

    def _box(self, id: bytes) -> AESGCM:
        return AESGCM(HKDF(hashes.SHA256(), 32, salt=id, info=b"junto spool 1").derive(self._key))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _nonce(index: int) -> bytes:
    return struct.pack(">IQ", 0, index)


def _chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= CHUNK_BYTES:
            yield bytes(held[:CHUNK_BYTES])
            del held[:CHUNK_BYTES]
    if held:
        yield bytes(held)


def _why(error: OSError, folder: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left for outputs in {folder.name}/; free some and ask again"
    return f"outputs cannot be written in {folder.name}/: {os.strerror(error.errno or 0)}"
