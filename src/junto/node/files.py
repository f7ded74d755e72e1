# SPDX-License-Identifier: Apache-2.0
"""Small files, whole or not at all: written beside their place, made durable, then renamed onto it."""

import contextlib
import os
import secrets
import stat
from pathlib import Path

from junto.errors import InvalidInput, StorageFailed, lack_of


def write_whole(path: Path, data: bytes, *, private: bool = False) -> None:
    """Put the data at the path, replacing what was there. A private file is readable by its owner alone.

    Whatever interrupts this, the path holds the old content or the new. Raises StorageFailed; then it holds the old.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        why = f"cannot write {path}: {in_words(error)}; nothing was changed"
        raise StorageFailed(why, lack=lack_of(error)) from error


def sync_folder(folder: Path) -> None:
    """Make renames within the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bounded(path: Path, limit_bytes: int, what: str) -> bytes:
    """The file's bytes. Raises InvalidInput if it is missing, unreadable, no plain file or longer than the limit."""
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidInput(f"{what} {path} is not a plain file")
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise InvalidInput(f"cannot read {what} {path}: {in_words(error)}") from error
    if len(data) > limit_bytes:
        raise InvalidInput(f"{what} {path} is longer than {limit_bytes} bytes: not a {what}")
    return data


def read_private(path: Path, limit_bytes: int, what: str) -> bytes:
    """A secret file's bytes. Raises InvalidInput also if others than its owner may read it."""
    data = read_bounded(path, limit_bytes, what)
    if path.stat().st_mode & 0o077:
        raise InvalidInput(f"{what} {path} can be read by others: chmod 600 {path}")
    return data


def in_words(error: OSError) -> str:
    """The system's reason, without the path it repeats."""
    return (error.strerror or type(error).__name__).lower()
