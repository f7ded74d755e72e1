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
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from junto.errors import StorageFailed, lack_of
from junto.node.files import read_private, write_whole

CHUNK_BYTES = 1 << 20
_TAG_BYTES = 16


@dataclass(frozen=True, slots=True)
class Spooled:
    """A finished output: where it lies, the digest of its clear bytes and how many they are."""

    path: Path
    id: bytes
    sha256: bytes
    bytes: int


class Files(Protocol):
    """The disk as the spool sees it: whole files that nobody changes."""

    def write(self, path: Path, pieces: Iterable[bytes]) -> None:
        """A new file, durable with its name when this returns. Raises OSError; then nothing is left behind."""

    def read(self, path: Path, offset: int) -> AbstractContextManager[BinaryIO]:
        """The file, open, at an offset. Raises OSError."""

    def size(self, path: Path) -> int:
        """The size of a file in bytes. Raises OSError."""

    def remove(self, path: Path) -> None:
        """Forget a file, if it is there."""

    def names(self, folder: Path) -> list[Path]:
        """The files of a folder, by name."""


class SystemFiles:
    """Files of the operating system."""

    def write(self, path: Path, pieces: Iterable[bytes]) -> None:
        """See `Files.write`."""
        try:
            with open(path, "xb", opener=_private) as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    @contextmanager
    def read(self, path: Path, offset: int) -> Iterator[BinaryIO]:
        """See `Files.read`."""
        with path.open("rb") as file:
            file.seek(offset)
            yield file

    def size(self, path: Path) -> int:
        """See `Files.size`."""
        return path.stat().st_size

    def remove(self, path: Path) -> None:
        """See `Files.remove`."""
        path.unlink(missing_ok=True)

    def names(self, folder: Path) -> list[Path]:
        """See `Files.names`."""
        return sorted(folder.iterdir())


class Spool:
    """The folder that holds outputs. Writes whole files only; an interrupted one is removed."""

    def __init__(
        self,
        folder: Path,
        key: bytes,
        files: Files | None = None,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._folder = folder
        self._key = key
        self._files = files or SystemFiles()
        self._random = random
        self._ours: set[Path] = set()  # files that this process writes, or was told of by `clear`, and did not remove

    def clear(self, but: Collection[Path] = ()) -> None:
        """Remove what an earlier process left behind and nobody refers to any more."""
        self._ours.update(but)
        self.sweep()

    def sweep(self) -> None:
        """Remove what another process wrote after `clear`: a node of ours that hung when this one took over, and woke.

        Any thread may call it, and write meanwhile.
        """
        for path in self._files.names(self._folder):
            if path.suffix == ".out" and path not in self._ours:
                self._files.remove(path)

    def write(self, pieces: Iterable[bytes]) -> Spooled:
        """Encrypt the pieces, in order, as one output, durable when this returns.

        Raises StorageFailed; then nothing is left behind.
        """
        id = self._random(16)
        path = self._folder / f"{id.hex()}.out"
        box = self._box(id)
        total = 0
        digest = hashlib.sha256()

        def sealed() -> Iterator[bytes]:
            nonlocal total
            for index, chunk in enumerate(_chunks(pieces)):
                digest.update(chunk)
                total += len(chunk)
                yield box.encrypt(_nonce(index), chunk, id)

        self._ours.add(path)
        try:
            self._files.write(path, sealed())
        except BaseException as error:
            self._ours.discard(path)
            if isinstance(error, OSError):
                raise StorageFailed(_why(error, self._folder), lack=lack_of(error)) from error
            raise
        return Spooled(path, id, digest.digest(), total)

    def read(self, spooled: Spooled, offset: int = 0) -> Iterator[bytes]:
        """The clear bytes from `offset` on. Raises StorageFailed if the file was altered or is gone."""
        box = self._box(spooled.id)
        index, skip = divmod(offset, CHUNK_BYTES)
        try:
            with self._files.read(spooled.path, index * (CHUNK_BYTES + _TAG_BYTES)) as file:
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

    def found(self, name: str, id: bytes, sha256: bytes, size: int) -> Spooled:
        """An output that an earlier process wrote. Raises StorageFailed if its file is gone or of another size."""
        spooled = Spooled(self._folder / name, id, sha256, size)
        try:
            held = self._files.size(spooled.path)
        except OSError as error:
            raise StorageFailed(f"an output in {self._folder.name}/ is gone") from error
        if held != size + -(-size // CHUNK_BYTES) * _TAG_BYTES:
            raise StorageFailed(f"an output in {self._folder.name}/ is not whole")
        return spooled

    def seal(self, label: bytes, data: bytes) -> bytes:
        """The data encrypted, bound to a label: 16 random bytes, then AES-256-GCM under a key derived from them."""
        id = self._random(16)
        return id + self._box(id).encrypt(_nonce(0), data, id + label)

    def unseal(self, label: bytes, sealed: bytes) -> bytes:
        """The bytes that `seal` took. Raises StorageFailed if they were altered or are another's."""
        id = sealed[:16]
        try:
            return self._box(id).decrypt(_nonce(0), sealed[16:], id + label)
        except InvalidTag as error:
            raise StorageFailed("a kept output was altered; run the task again") from error

    def remove(self, spooled: Spooled) -> None:
        """Forget an output."""
        self._files.remove(spooled.path)
        self._ours.discard(spooled.path)

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


def spool_key_of(path: Path, random: Callable[[int], bytes]) -> bytes:
    """The key in a file, drawn and written if there is none yet."""
    if not path.exists():
        write_whole(path, random(32), private=True)
    return read_private(path, 64, "spool key")
