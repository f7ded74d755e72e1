# SPDX-License-Identifier: Apache-2.0
"""Copies of open tables, kept by what they are: owner, dataset versions and the SQL that selected them.

A new version has a new key, so a copy is never stale; the least recently used go first when there are too many bytes.
"""

import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from junto.errors import StorageFailed, lack_of
from junto.plan.steps import Query
from junto.types import Digest


@dataclass(frozen=True, slots=True)
class Copy:
    """A table as an Arrow IPC stream in a file, and the digest of its bytes."""

    path: Path
    sha256: bytes
    bytes: int


_MOST_DIGESTS = 256


class Cache:
    """The folder of copies. Files are whole or absent: each is written beside its place, then moved there."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._found: dict[str, Copy] = {}  # by key, so that the folder is not listed for each
        self._digests: dict[bytes, Digest] = {}  # of rows, by that of the file

    def get(self, key: str) -> Copy | None:
        """The copy of that key, now the most recently used."""
        known = self._found.get(key)
        if known is not None:
            with suppress(FileNotFoundError):  # another thread made room
                os.utime(known.path)
                return known
            self._found.pop(key, None)
        for path in self._folder.glob(f"{key}-*.arrow"):
            with suppress(FileNotFoundError):
                os.utime(path)
                copy = Copy(path, bytes.fromhex(path.stem.split("-")[1]), path.stat().st_size)
                self._found[key] = copy
                return copy
        return None

    def digest(self, copy: Copy, make: Callable[[], Digest]) -> Digest:
        """The result of `make` for a copy with these bytes, now or before."""
        found = self._digests.get(copy.sha256)
        if found is None:
            found = make()
            if len(self._digests) >= _MOST_DIGESTS:
                self._digests.pop(next(iter(self._digests)))
            self._digests[copy.sha256] = found
        return found

    def put(self, key: str, pieces: Iterable[bytes]) -> Copy:
        """Keep a table under a key. Raises StorageFailed; then nothing is left behind."""
        part = self._folder / f"{secrets.token_hex(8)}.{os.getpid()}.part"  # two tasks may bring one table at once
        digest = hashlib.sha256()
        size = 0
        try:
            with part.open("wb") as file:
                for piece in pieces:
                    digest.update(piece)
                    size += len(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())  # the name says what is in it: it must be there before the name is
            path = self._folder / f"{key}-{digest.hexdigest()}.arrow"
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise StorageFailed(_why(error, self._folder), lack=lack_of(error)) from error
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        self._evict(path)
        return Copy(path, digest.digest(), size)

    def remove(self, copy: Copy) -> None:
        """Forget a copy that is not what its key says."""
        self._let_go(copy.path)

    def _evict(self, newest: Path) -> None:
        for part in self._folder.glob("*.part"):
            if not part.name.endswith(f".{os.getpid()}.part"):  # a process before us was interrupted
                part.unlink(missing_ok=True)
        files: list[tuple[int, int, Path]] = []
        for path in self._folder.glob("*.arrow"):
            with suppress(FileNotFoundError):
                found = path.stat()
                files.append((found.st_mtime_ns, found.st_size, path))
        files.sort()
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= self._most_bytes:
                return
            if path != newest:
                self._let_go(path)
                total -= size

    def _let_go(self, path: Path) -> None:
        self._found.pop(path.stem.split("-")[0], None)
        path.unlink(missing_ok=True)


def cache_key(query: Query) -> str:
    """The name of a query's output over open data: the same for the same SQL over the same versions, said to have
    the same columns."""
    reads = [(read.name, read.dataset, read.version, read.columns) for read in query.reads]
    columns = (query.columns, query.column_types)
    return hashlib.sha256(msgspec.json.encode((query.party, query.sql, reads, columns))).hexdigest()


def _why(error: OSError, folder: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left for copies of open tables in {folder.name}/; free some and ask again"
    return f"copies of open tables cannot be written in {folder.name}/: {os.strerror(error.errno or 0)}"
