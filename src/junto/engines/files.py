# SPDX-License-Identifier: Apache-2.0
"""The files of a source: which they are, the digest of their bytes, and whether they are still the same."""

import glob
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from junto.catalog import spec
from junto.engines.base import FileSource, Format
from junto.errors import DataChanged, InvalidInput
from junto.types import Digest

_ENDINGS: dict[Format, tuple[str, ...]] = {
    "csv": (".csv", ".csv.gz", ".csv.zst", ".tsv", ".tsv.gz"),
    "parquet": (".parquet", ".pq"),
}
SPILL = "duckdb-"
"""The beginning of the names of folders in which a run spills."""

_MEND = "run `junto dataset publish` again"


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was read."""

    path: str
    size: int
    mtime_ns: int
    inode: int
    sha256: str  # 64 hexadecimal digits


def locate(described: spec.Source) -> FileSource:
    """The files an owner's description means, sorted by path. Raises InvalidInput if there are none, or two kinds."""
    path = os.path.abspath(described.path)
    if described.kind == "duckdb":
        return FileSource("duckdb", (_a_file(path),), described.table or "")
    if described.kind == "folder":
        return _folder(path)
    if os.path.exists(path) or not glob.has_magic(path):
        return FileSource(described.kind, (_a_file(path),))
    paths = tuple(sorted(found for found in glob.glob(path, recursive=True) if os.path.isfile(found)))
    if not paths:
        raise InvalidInput(f"{path} matches no file: correct source, or write the files first")
    return FileSource(described.kind, paths)


def state(path: str) -> FileState:
    """The file in its present state, all of it read. Raises InvalidInput if it cannot be."""
    try:
        with open(path, "rb") as file:
            seen = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from None
    return FileState(path, seen.st_size, seen.st_mtime_ns, seen.st_ino, digest)


def untouched(file: FileState) -> bool:
    """True if size, time and inode are those that were seen: as good as its bytes, and free."""
    try:
        seen = os.stat(file.path)
    except OSError:
        return False
    return (seen.st_size, seen.st_mtime_ns, seen.st_ino) == (file.size, file.mtime_ns, file.inode)


def still(file: FileState) -> FileState:
    """The file's state now, its bytes read again only if it was touched. Raises DataChanged if they differ."""
    if untouched(file):
        return file
    try:
        now = state(file.path)
    except InvalidInput:
        raise DataChanged(f"{file.path} is gone or cannot be read: put it back, or {_MEND}") from None
    if now.sha256 != file.sha256:
        raise DataChanged(f"{file.path} is not what was published: {_MEND}")
    return now


def content(table: str, files: tuple[FileState, ...]) -> Digest:
    """The digest of all the files' bytes, in order, whatever the files are called; and of the table's name in one."""
    digests = b"".join(bytes.fromhex(file.sha256) for file in files)
    return Digest("sha256:" + hashlib.sha256(digests + table.encode()).hexdigest())


def no_log(source: FileSource) -> None:
    """Raises DataChanged if a DuckDB file has changes beside it that are not in it yet."""
    log = source.paths[0] + ".wal"
    if source.format == "duckdb" and os.path.exists(log) and os.path.getsize(log):
        raise DataChanged(f"{log} holds changes not yet in the file: run CHECKPOINT in DuckDB, then {_MEND[4:]}")


def remove_leftovers(temp_dir: Path) -> None:
    """Remove what runs of a process that was killed have spilled there. For a node's start, before any run."""
    for folder in temp_dir.glob(SPILL + "*"):
        shutil.rmtree(folder, ignore_errors=True)


def _folder(path: str) -> FileSource:
    if not os.path.isdir(path):
        raise InvalidInput(
            f"{path} is no folder: correct source, or give the file its ending, such as .csv or .parquet"
        )
    names = sorted(name for name in os.listdir(path) if not name.startswith((".", "_")))
    found: dict[Format, tuple[str, ...]] = {}
    for format, endings in _ENDINGS.items():
        paths = tuple(os.path.join(path, name) for name in names if name.lower().endswith(endings))
        if paths:
            found[format] = paths
    if not found:
        raise InvalidInput(f"{path} holds no CSV and no Parquet file: correct source, or write the files first")
    if len(found) > 1:
        raise InvalidInput(f"{path} holds CSV and Parquet files: name one kind, for instance {path}/*.parquet")
    ((format, paths),) = found.items()
    return FileSource(format, paths)


def _a_file(path: str) -> str:
    if not os.path.exists(path):
        raise InvalidInput(f"{path} does not exist: correct source, a path beside the file that describes it")
    if not os.path.isfile(path):
        raise InvalidInput(f"{path} is not a file: correct source")
    return path
